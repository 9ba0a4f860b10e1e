//! Which findings are shown, and how.

use clap::{Args, ValueEnum};

use crate::{
    model::{By, Prefix, Verdict},
    wanted::{self, Cgroup, FailOn},
};

/// Which findings to show: the same live and in a replay.
#[derive(Args, Clone, Debug)]
pub struct ViewArgs {
    /// About which connections
    #[command(flatten)]
    pub which: ConnectionFilterArgs,
    /// Only questions and last words with this verdict (repeatable)
    #[arg(long, value_name = "NAME", value_parser = wanted::verdict)]
    pub verdict: Vec<Verdict>,
    /// Exit with 4 if any finding, shown or not, is `fallback` (any of them), has this verdict or carries this
    /// cause; with 5 if there is none, but one may have been missed: the fallback sensor is off, the kernel counted more
    /// than was traced, or queries were lost (repeatable)
    #[arg(long, value_name = "VERDICT|CAUSE", value_parser = FailOn::parse)]
    pub fail_on: Vec<FailOn>,
    /// Of the same answers about a connection show the first, and with the next other one how often it was repeated
    #[arg(long, conflicts_with_all = ["summary", "by"])]
    pub coalesce: bool,
    /// Instead of lines print tables at the end (and on SIGUSR1): connections, fallbacks, questions and verdicts
    /// of each process, cause, and destination
    #[arg(long)]
    pub summary: bool,
    /// With one table, of this: implies --summary
    #[arg(long, value_enum, value_name = "WHAT")]
    pub by: Option<GroupBy>,
    /// Remember at most so many connections, at about a kilobyte each: beyond that the one that nothing was heard of for
    /// longest is judged and forgotten (and counted); a replay with another number may print other verdicts
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
}

/// See [`Limits::STATED`](crate::correlate::Limits::STATED).
pub(super) const CONNECTIONS: u32 = 65_536;

/// About which connections.
#[derive(Args, Clone, Debug, Default)]
pub struct ConnectionFilterArgs {
    /// Only findings that carry this cause: fallbacks, and verdicts that stand on one (repeatable; mptcp-trace
    /// explain lists them)
    #[arg(long, value_name = "NAME", value_parser = wanted::cause)]
    pub cause: Vec<&'static str>,
    /// Only connections with this address, or one of this network, at either end: 192.0.2.7, `2001:db8::/32`
    /// (repeatable)
    #[arg(long, value_name = "ADDR", value_parser = <Prefix as std::str::FromStr>::from_str)]
    pub addr: Vec<Prefix>,
    /// Only connections with this port at either end (repeatable)
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Vec<u16>,
    /// Only what belongs to this control group or to one below it: a path as in /proc/PID/cgroup, or an inode
    /// number (repeatable)
    #[arg(long, value_name = "CGROUP", value_parser = Cgroup::parse)]
    pub cgroup: Vec<Cgroup>,
}

/// Choices of `--by`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupBy {
    /// Network of the other end: /24 of IPv4, /48 of IPv6
    Dest,
    /// Who asked, or who holds the connection
    Process,
    /// Why connections fell back
    Cause,
    /// Network namespace
    Netns,
    /// Control group of the process
    Cgroup,
    /// What was concluded
    Verdict,
}

impl ViewArgs {
    /// What findings are summed up by, if they are.
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
            }],
            (None, true) => By::USUAL.to_vec(),
            (None, false) => Vec::new(),
        }
    }
}

/// Whose findings to show, where that was not decided in the kernel.
#[derive(Args, Clone, Debug, Default)]
pub struct TaskFilterArgs {
    /// Only what this process holds or asked (repeatable)
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,
    /// Only processes of this name (connections) and threads of this name (questions) (repeatable)
    #[arg(long, value_name = "NAME")]
    pub comm: Vec<String>,
    /// Only sockets of this network namespace: an inode number, or a name or path on this machine (repeatable)
    #[arg(long, value_name = "NETNS")]
    pub netns: Vec<String>,
}
