//! Filter and presentation options that several verbs share.

use clap::{Args, ValueEnum};

use super::values::parse_column;
use crate::{
    filter::{self, Cgroup, Choice, FailOn, Ports},
    model::{By, Prefix, Shown, Verdict},
    sink::{Column, TimeStyle},
};

/// Which findings to show, and how; shared by `live` and `replay`.
#[derive(Args, Clone, Debug)]
pub struct ViewArgs {
    /// Filter by what a finding says.
    #[command(flatten)]
    pub what: FindingFilterArgs,
    /// Filter by connection.
    #[command(flatten)]
    pub which: ConnectionFilterArgs,
    /// Presentation of lines.
    #[command(flatten)]
    pub lines: LineArgs,
    /// Exit with code 4 if a finding has this verdict or cause; `fallback` matches any fallback
    ///
    /// Findings that are not shown count too. The exit code is 5 if none matches but one may have
    /// been missed: a sensor is off, the kernel counted more fallbacks than were traced, or queries
    /// or events of paths were lost.
    #[arg(long, value_name = "VERDICT|CAUSE,...", value_delimiter = ',', value_parser = FailOn::parse)]
    pub fail_on: Vec<FailOn>,
    /// Collapse identical consecutive answers; print a repeat count when the answer changes
    #[arg(long, conflicts_with_all = ["summary", "by"])]
    pub coalesce: bool,
    /// Print summary tables at the end instead of one line per finding
    ///
    /// The tables show connections, fallbacks, queries and verdicts per process, cause and
    /// destination. SIGUSR1 prints them at once.
    #[arg(long)]
    pub summary: bool,
    /// Print a single summary table, grouped by this; implies --summary
    ///
    /// The tables by path, endpoint and interface have other columns: paths that came up, failed and
    /// ended, and what those that ended carried.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub by: Option<GroupBy>,
    /// Track at most N connections; when full, evict the least recently active one
    ///
    /// A connection takes about 1 KB of memory. An evicted one gets its closing verdict early and
    /// is counted. A replay with another limit may print different verdicts.
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
}

/// How lines of text are presented.
#[derive(Args, Clone, Debug, Default)]
pub struct LineArgs {
    /// Print these columns, in this order
    ///
    /// Columns are time, kind, result, process, pid, comm, local, remote, state, netns, id, after,
    /// details. Example: --columns time,result,pid,remote.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = parse_column, conflicts_with = "json")]
    pub columns: Vec<Column>,
    /// Do not truncate lines to the width of the terminal
    ///
    /// Output that does not go to a terminal is not truncated, unless COLUMNS is set.
    #[arg(long, short = 'w', conflicts_with = "json")]
    pub wide: bool,
    /// How to print times
    #[arg(long, value_enum, value_name = "STYLE", default_value_t = TimeArg::Local, conflicts_with = "json")]
    pub time: TimeArg,
    /// Print the column header even if stdout is not a terminal
    #[arg(long, conflicts_with = "json")]
    pub header: bool,
    /// Print the meaning of each finding below it, in a sentence
    #[arg(long, conflicts_with = "json")]
    pub why: bool,
}

/// Choices of `--time`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TimeArg {
    /// Time of day in the local time zone
    #[default]
    Local,
    /// Time of day in UTC
    Utc,
    /// Seconds since the first line
    Relative,
    /// Seconds since 1970-01-01 UTC
    Epoch,
}

impl TimeArg {
    /// Converts it.
    #[must_use]
    pub fn style(self) -> TimeStyle {
        match self {
            Self::Local => TimeStyle::Local,
            Self::Utc => TimeStyle::Utc,
            Self::Relative => TimeStyle::Relative,
            Self::Epoch => TimeStyle::Epoch,
        }
    }
}

/// See [`Limits::STATED`](crate::correlate::Limits::STATED).
pub(super) const CONNECTIONS: u32 = 65_536;

/// Filters by what a finding says.
#[derive(Args, Clone, Debug, Default)]
pub struct FindingFilterArgs {
    /// Show only this kind of finding, or leave it out with `!`
    ///
    /// Kinds are query, fallback, refused, plain, existing, blackhole, verdict, option-refused,
    /// socket-refused, closed, and those of `path`: path-up, path-failed, connect-failed,
    /// path-down, path-stale, path-recovered, path-priority. Lines show path-up, path-priority, and
    /// a path-down that is no failure, only if they are named; `all` names every kind. Examples:
    /// --kind fallback,blackhole, --kind path.
    #[arg(long, value_name = "[!]KIND,...", value_delimiter = ',', value_parser = filter::choice(filter::kind))]
    pub kind: Vec<Choice<&'static str>>,
    /// Show only queries and closing verdicts with this verdict, or leave it out with `!`
    #[arg(long, value_name = "[!]NAME,...", value_delimiter = ',', value_parser = filter::choice(filter::verdict))]
    pub verdict: Vec<Choice<Verdict>>,
    /// Show only findings whose packet shows this, or leave it out with `!`
    ///
    /// The packet is the one that decided, such as the SYN/ACK without the option. Names are
    /// option-cleared, option-absent, option-reflected, option-present, another-machine,
    /// rst-other-ttl, rst-same-ttl, rst-unknown; `mptcp-trace explain NAME` describes each.
    #[arg(long, value_name = "[!]NAME,...", value_delimiter = ',', value_parser = filter::choice(filter::packet))]
    pub packet: Vec<Choice<Shown>>,
    /// Show only paths that ended with an RST with this reason, or leave it out with `!`
    ///
    /// A name or a code of RFC 8684: unspecified (0), mptcp-error (1), no-resources (2),
    /// prohibited (3), too-much-data (4), bad-performance (5), middlebox (6).
    #[arg(long, value_name = "[!]NAME|CODE,...", value_delimiter = ',', value_parser = filter::choice(filter::reset_reason))]
    pub reset_reason: Vec<Choice<u8>>,
}

/// Filters by connection.
#[derive(Args, Clone, Debug, Default)]
pub struct ConnectionFilterArgs {
    /// Show only findings with this cause, or leave it out with `!`
    ///
    /// These are fallbacks, verdicts that follow from one, closed connections that fell back, and
    /// paths that failed or ended. `mptcp-trace explain` lists the causes.
    #[arg(long, value_name = "[!]NAME,...", value_delimiter = ',', value_parser = filter::choice(filter::cause))]
    pub cause: Vec<Choice<&'static str>>,
    /// Show only connections with this address or network at either end, or leave it out with `!`
    ///
    /// Examples: 192.0.2.7, `2001:db8::/32`, `fe80::5%eth0` (the interface is not compared).
    #[arg(long, value_name = "[!]ADDR,...", value_delimiter = ',', value_parser = filter::choice(filter::addr))]
    pub addr: Vec<Choice<Prefix>>,
    /// Show only connections with this port at either end, or leave it out with `!`
    ///
    /// Examples: 443, 8000-8080, !22.
    #[arg(long, value_name = "[!]PORT,...", value_delimiter = ',', value_parser = filter::choice(Ports::parse))]
    pub port: Vec<Choice<Ports>>,
    /// Show only findings of this control group or its descendants (repeatable)
    ///
    /// A path as in /proc/PID/cgroup, or an inode number.
    #[arg(long, value_name = "CGROUP", value_parser = Cgroup::parse)]
    pub cgroup: Vec<Cgroup>,
}

/// Choices of `--by`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupBy {
    /// Network of the remote address: /24 for IPv4, /48 for IPv6
    Dest,
    /// Process that made the query or owns the connection
    Process,
    /// Cause of the fallback
    Cause,
    /// Network namespace
    Netns,
    /// Control group of the process
    Cgroup,
    /// Verdict
    Verdict,
    /// Path: local and remote address, without ports
    Path,
    /// Local address of the path
    Endpoint,
    /// Interface of that address; the address if the tracer's namespace does not know it
    Interface,
}

impl ViewArgs {
    /// Groupings of the summary; empty without a summary.
    #[must_use]
    pub fn sums(&self) -> Vec<By> {
        match (self.by, self.summary) {
            (Some(by), _) => vec![match by {
                GroupBy::Dest => By::Dest,
                GroupBy::Process => By::Process,
                GroupBy::Cause => By::Cause,
                GroupBy::Netns => By::Netns,
                GroupBy::Cgroup => By::Cgroup,
                GroupBy::Verdict => By::Verdict,
                GroupBy::Path => By::Path,
                GroupBy::Endpoint => By::Endpoint,
                GroupBy::Interface => By::Interface,
            }],
            (None, true) => By::USUAL.to_vec(),
            (None, false) => Vec::new(),
        }
    }
}

/// Filters by task, for verbs that do not filter in the kernel.
#[derive(Args, Clone, Debug, Default)]
pub struct TaskFilterArgs {
    /// Show only connections and queries of this process (repeatable)
    #[arg(short, long, value_name = "PID", value_delimiter = ',', value_parser = filter::pid)]
    pub pid: Vec<u32>,
    /// Show only connections of processes, and queries of threads, with this name (repeatable)
    #[arg(long, value_name = "NAME")]
    pub comm: Vec<String>,
    /// Show only sockets of this network namespace (repeatable)
    ///
    /// An inode number, or a name or path on this machine.
    #[arg(long, value_name = "NETNS")]
    pub netns: Vec<String>,
}
