//! The command line, as typed.

mod view;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use view::CONNECTIONS;
pub(super) use view::{ConnectionFilterArgs, TaskFilterArgs, ViewArgs};

use super::options::Attaching;
use crate::{
    model::{Rung, Verdict},
    wanted::{self},
};

const EXAMPLES: &str = "\
Examples:
  Who falls back to TCP and why, who asks, and what are they told? Everyone, until Ctrl-C:
      mptcp-trace
  One process and its children, as JSON lines:
      mptcp-trace --pid 4312 --follow --json
  A program from its first instruction:
      mptcp-trace -- curl https://multipath-tcp.org
  Keep what was seen, look at it later and elsewhere:
      mptcp-trace --capture run.mpt --duration 30s
      mptcp-trace replay run.mpt
  Which destinations lose MPTCP, and how often? And a test that fails if the program ever does:
      mptcp-trace --by dest --duration 10m
      mptcp-trace --fail-on fallback -- ./my-test
  Watch it, as in top:
      mptcp-trace top
  What does a fallback look like? One for real, on this kernel:
      mptcp-trace demo
  Does it work on this kernel, and how?
      mptcp-trace doctor

Findings go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage,
3 this kernel or these privileges cannot answer, 4 a finding that --fail-on names, 5 no such finding, but one may have
been missed; with a COMMAND, its own unless that is 0.";

/// Shows which Multipath TCP connections fall back to TCP, when, why, and whose they are; which program asks
/// whether its connection is still MPTCP, and what it is told.
#[derive(Parser, Debug)]
#[command(
    name = "mptcp-trace",
    version,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Cli {
    /// What to do; `live` if nothing is said.
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// Without a verb: trace.
    #[command(flatten)]
    pub live: LiveArgs,
    /// Say what is decided and why; twice: also what the kernel half does
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Trace the running kernel (the default)
    #[command(after_help = EXAMPLES)]
    Live(LiveArgs),
    /// Print a capture as it would have been printed live; needs no privileges
    Replay(ReplayArgs),
    /// Write a capture as one page for a browser or for paper: what fell back and why, who knows, what was lost
    Report(ReportArgs),
    /// Trace the whole host and export counters over HTTP, for Prometheus and its kin; stays until it is told to end
    Serve(ServeArgs),
    /// Watch on a terminal: connections, processes, causes and destinations by their fallbacks, live or from a capture
    Top(TopArgs),
    /// Say what works on this host, how, and prove it with questions of our own
    Doctor(DoctorArgs),
    /// Print every MPTCP socket that is there now, in all network namespaces: has it fallen back, how many subflows
    /// are there, whose is it
    List(ListArgs),
    /// Pack what a maintainer asks for first into one file: a trace, the kernel's counters, what works here
    Bundle(BundleArgs),
    /// Provoke a fallback on this kernel, in network namespaces of its own, and print the trace of it
    Demo(DemoArgs),
    /// Say what a fallback counter of the kernel means, who is to blame, and what to type next
    Explain(ExplainArgs),
}

/// How to trace.
#[derive(Args, Debug)]
pub struct LiveArgs {
    /// Only this process: the connections that it holds, and what all its threads ask (repeatable)
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,
    /// With --pid: its children too, and theirs
    #[arg(short, long)]
    pub follow: bool,
    /// Only processes of this name (connections) and threads of this name (questions), at most 15 bytes, as
    /// in /proc/PID/comm (repeatable)
    #[arg(long, value_name = "NAME")]
    pub comm: Vec<String>,
    /// Only sockets of this network namespace: a name of `ip netns`, a path, or an inode number
    /// (repeatable)
    #[arg(long, value_name = "NETNS")]
    pub netns: Vec<String>,
    /// Print JSON lines (docs/output.md) instead of text
    #[arg(long)]
    pub json: bool,
    /// Append findings to FILE, which only its owner may read if it is new, instead of printing them to stdout;
    /// SIGUSR2 opens it anew, as does SIGHUP where there is no terminal (logrotate)
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Also keep the raw records in FILE, for `mptcp-trace replay`
    #[arg(long, value_name = "FILE")]
    pub capture: Option<PathBuf>,
    /// Stop after this time: 10s, 5m, 1h30m
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Stop after this many findings
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub stop_after: Option<u64>,
    /// Create FILE (holding our process id) as soon as tracing is live, for scripts
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Print the names of the columns although nobody looks at them on a terminal
    #[arg(long, hide = true)]
    pub header: bool,
    /// Which findings to show, and how
    #[command(flatten)]
    pub view: ViewArgs,
    /// How to attach, and how much memory that may take
    #[command(flatten)]
    pub attach: AttachArgs,
    /// Trace this program (and its children) from its first instruction, and exit with its code
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// How to attach.
#[derive(Args, Clone, Debug)]
pub struct AttachArgs {
    /// Way of attaching to the kernel; auto takes the best that works
    #[arg(long, value_enum, default_value_t = Attach::Auto)]
    pub attach: Attach,
    /// Type information of the running kernel, where it has none of its own
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,
    /// Size of the ring between kernel and tracer: a power of two, at least 4K
    #[arg(long, value_name = "BYTES", default_value = "4M", value_parser = parse_ring_size)]
    pub ring_size: u32,
    /// Trace at most N questions of one process in a second, and count the others; 0: all of them
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub cap: u32,
    /// Note owner and birth of at most N open MPTCP sockets at a time; of more, fallbacks are reported without
    #[arg(long, value_name = "N", default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(2..=4_194_304))]
    pub sockets: u32,
    /// Of these, at most N may belong to one user; half of them unless told otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub sockets_per_user: Option<u32>,
    /// Plan as if the kernel had no function NAME (repeatable): what a kernel of another shape gets
    #[arg(long, value_name = "NAME", hide = true)]
    pub hide_function: Vec<String>,
}

impl AttachArgs {
    /// The same without clap.
    #[must_use]
    pub(super) fn options(&self) -> Attaching {
        Attaching {
            only: self.attach.only(),
            btf: self.btf.clone(),
            ring_bytes: self.ring_size,
            cap: self.cap,
            sockets: self.sockets,
            sockets_per_user: self.sockets_per_user.unwrap_or(self.sockets / 2),
            hidden: self.hide_function.clone(),
        }
    }
}

/// What `serve` needs to know.
#[derive(Args, Debug)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct ServeArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9944")]
    pub listen: std::net::SocketAddr,
    /// Tell fallbacks apart by their owners too: a time series for each, of the first thousand names
    #[arg(long, value_enum)]
    pub label: Option<LabelBy>,
    /// Also send findings as logs and counters as metrics to the OpenTelemetry collector there (OTLP/HTTP in JSON). Plain
    /// http:// only: https is refused, let a collector on this host encrypt
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,
    /// Say this header to it (repeatable). Whoever lists processes can read it: secrets belong into --config
    #[arg(long, value_name = "NAME=VALUE")]
    pub otlp_header: Vec<String>,
    /// How often metrics are sent to it
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "15s")]
    pub otlp_interval: Duration,
    /// Settings, read at the start and on SIGHUP (docs/metrics.md); they go before the options
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Create FILE (holding our process id) as soon as tracing is live, for scripts
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Remember at most so many connections, as `live` does
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// How to attach
    #[command(flatten)]
    pub attach: AttachArgs,
}

/// What `top` needs to know.
#[derive(Args, Debug)]
#[command(after_help = TOP_EXAMPLES)]
pub struct TopArgs {
    /// Play this capture, or bundle, instead of the running kernel; needs no privileges
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
    /// With --replay: how many times faster than it happened; + and - change it
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = parse_speed, requires = "replay")]
    pub speed: f64,
    /// Whose connections to show
    #[command(flatten)]
    pub whose: TaskFilterArgs,
    /// With --pid: its children too, and theirs
    #[arg(short, long, conflicts_with = "replay")]
    pub follow: bool,
    /// Which connections to show
    #[command(flatten)]
    pub which: ConnectionFilterArgs,
    /// Only questions and last words with this verdict (repeatable)
    #[arg(long, value_name = "NAME", value_parser = wanted::verdict)]
    pub verdict: Vec<Verdict>,
    /// Remember at most so many connections, as `live` does
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// How to attach
    #[command(flatten)]
    pub attach: AttachArgs,
    /// Fall over once something was drawn, to see that the terminal survives (for tests)
    #[arg(long, hide = true)]
    pub panic: bool,
}

const TOP_EXAMPLES: &str = "\
Examples:
  mptcp-trace top
  mptcp-trace top --pid 4312 --follow
  mptcp-trace top --replay run.mpt --speed 10

Keys: ? shows them all; / filters as you type, Enter looks closer, q ends. Deceived are applications that believe something
wrong of their connection (verdicts stale, misled, contradicted: docs/debugging.md).";

const SERVE_EXAMPLES: &str = "\
Examples:
  mptcp-trace serve
  curl http://127.0.0.1:9944/metrics
  mptcp-trace serve --listen 192.0.2.7:9944 --label process
  mptcp-trace serve --config /etc/mptcp-trace/serve.toml     # kill -HUP reads it again
  mptcp-trace serve --otlp http://localhost:4318             # to an OpenTelemetry collector too

There are /metrics (Prometheus and OpenMetrics, by the Accept header), /healthz and /readyz. Counters live as long as the
process: a reload keeps them. Ends in order on SIGTERM and SIGINT.";

/// Choices of `--label`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelBy {
    /// By the name of the process
    Process,
    /// By the path of its control group
    Cgroup,
}

/// Choices of `--attach`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attach {
    /// The best that works
    Auto,
    /// Trampolines at entry and return of kernel functions
    Fexit,
    /// Breakpoints at entry and return of kernel functions
    Kprobe,
    /// The tracepoints of the system call
    Tracepoint,
}

impl Attach {
    /// The one rung that was asked for.
    #[must_use]
    pub fn only(self) -> Option<Rung> {
        match self {
            Self::Auto => None,
            Self::Fexit => Some(Rung::Fexit),
            Self::Kprobe => Some(Rung::Kprobe),
            Self::Tracepoint => Some(Rung::Tracepoint),
        }
    }
}

/// What to replay.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// A capture, as written by --capture, or a bundle
    pub file: PathBuf,
    /// Print JSON lines (docs/output.md) instead of text
    #[arg(long)]
    pub json: bool,
    /// Stop after this many findings
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub stop_after: Option<u64>,
    /// Print times in UTC, not in local time
    #[arg(long)]
    pub utc: bool,
    /// Whose findings to show
    #[command(flatten)]
    pub whose: TaskFilterArgs,
    /// Which findings to show, and how
    #[command(flatten)]
    pub view: ViewArgs,
}

/// What to report on.
#[derive(Args, Debug)]
#[command(
    after_help = "The page is one file: it loads nothing and runs nothing, and can be sent by mail.\n\n\
                  Examples:\n  mptcp-trace report run.mpt -o run.html\n  \
                  mptcp-trace report run.mpt --addr 192.0.2.0/24 --title 'Shop, Monday' -o shop.html\n  \
                  mptcp-trace report problem.tar.zst --utc -o - | gzip > run.html.gz"
)]
pub struct ReportArgs {
    /// A capture, as written by --capture, or a bundle
    pub file: PathBuf,
    /// The page to write; - writes it to stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// What stands at the top of the page; else the name of the capture
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// Show times in UTC, not in local time
    #[arg(long)]
    pub utc: bool,
    /// Whose findings to show
    #[command(flatten)]
    pub whose: TaskFilterArgs,
    /// About which connections
    #[command(flatten)]
    pub which: ConnectionFilterArgs,
    /// Only questions and last words with this verdict (repeatable)
    #[arg(long, value_name = "NAME", value_parser = wanted::verdict)]
    pub verdict: Vec<Verdict>,
    /// Remember at most so many connections, as a replay does
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
}

/// What to list.
#[derive(Args, Debug)]
#[command(
    after_help = "What an application was told is known only where somebody watched: mptcp-trace live and bundle do.\n\n\
                  Examples:\n  mptcp-trace list\n  mptcp-trace list --comm nginx --port 443\n  \
                  mptcp-trace list --json | jq -c 'select(.data.fell_back) | .data.remote'"
)]
pub struct ListArgs {
    /// Print JSON lines (docs/output.md) instead of text
    #[arg(long)]
    pub json: bool,
    /// Whose sockets to list
    #[command(flatten)]
    pub whose: TaskFilterArgs,
    /// Which sockets to list
    #[command(flatten)]
    pub which: ConnectionFilterArgs,
    /// How to attach
    #[command(flatten)]
    pub attach: AttachArgs,
}

/// What to pack.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  mptcp-trace bundle problem.tar.zst --duration 1m\n  \
                  mptcp-trace bundle problem.tar.zst --redact -- curl https://multipath-tcp.org\n  \
                  mptcp-trace bundle problem.tar.zst --redact --from run.mpt\n  \
                  mptcp-trace replay problem.tar.zst"
)]
pub struct BundleArgs {
    /// The file to write; only its owner may read it
    pub file: PathBuf,
    /// Trace for this long: 10s, 5m; without a COMMAND 30s if nothing is said. Ctrl-C ends it earlier
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Replace addresses, names of processes and paths of control groups by others, the same one by the same, in
    /// the raw records too
    #[arg(long)]
    pub redact: bool,
    /// Do not trace: pack this capture
    #[arg(long, value_name = "FILE", conflicts_with_all = ["duration", "command"])]
    pub from: Option<PathBuf>,
    /// How to attach
    #[command(flatten)]
    pub attach: AttachArgs,
    /// Trace this program (and its children) from its first instruction, and exit with its code
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// How to show a fallback.
#[derive(Args, Debug)]
#[command(
    after_help = "Leaves nothing behind, also when it is killed: its namespaces end with its process.\n\n\
                  Examples:\n  mptcp-trace demo\n  mptcp-trace demo --json | jq -c .data.cause"
)]
pub struct DemoArgs {
    /// Print JSON lines (docs/output.md) instead of text
    #[arg(long)]
    pub json: bool,
    /// How to attach
    #[command(flatten)]
    pub attach: AttachArgs,
    /// Be the two programs that talk
    #[arg(long, hide = true)]
    pub scene: bool,
}

/// What to examine.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// How to attach
    #[command(flatten)]
    pub attach: AttachArgs,
    /// Attach to the wrong functions, to see that this page notices (for tests)
    #[arg(long, hide = true)]
    pub break_sensor: bool,
}

/// What to explain.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  mptcp-trace explain\n  mptcp-trace explain MPCapableFallbackSYNACK"
)]
pub struct ExplainArgs {
    /// Name of a counter, as nstat prints it (`MPTcpExt` in front or not), or `plain`; all of them if none
    /// is named
    pub cause: Option<String>,
}

/// A time like `10s` or `1h30m`; a bare number is seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let bare = text
        .parse::<u32>()
        .map(|seconds| Duration::from_secs(seconds.into()));
    let duration = match bare {
        Ok(duration) => duration,
        Err(_not_a_number) => text
            .parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|duration| Duration::try_from(duration).ok())
            .ok_or("write it like 10s, 5m or 1h30m")?,
    };
    if duration.is_zero() {
        return Err("it must be longer than nothing".into());
    }
    Ok(duration)
}

/// How many times faster.
fn parse_speed(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|speed| (0.0625..=4096.0).contains(speed))
        .ok_or_else(|| "write a number from 0.0625 to 4096".to_owned())
}

/// A size like `64K` or `4M`, as the kernel takes it for a ring.
fn parse_ring_size(text: &str) -> Result<u32, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        _ => (text, 0),
    };
    digits
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| bytes.is_power_of_two() && (4096..=1 << 30).contains(bytes))
        .ok_or_else(|| "write a power of two from 4K to 1024M, like 4M".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_and_sizes_are_read_as_people_write_them() {
        for (text, seconds) in [("10s", 10), ("5m", 300), ("1h30m", 5400), ("7", 7)] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in ["", "0", "0s", "-5s", "soon", "10x"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for (text, bytes) in [("4K", 4096), ("4096", 4096), ("4M", 4 << 20)] {
            assert_eq!(parse_ring_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "3K", "4G", "5M", "99999999999M"] {
            assert!(parse_ring_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_headline_works_as_typed() {
        let cli = Cli::try_parse_from(["mptcp-trace", "--pid", "4312"]).unwrap();
        assert!(cli.verb.is_none());
        assert_eq!(cli.live.pid, [4312]);
        let cli = Cli::try_parse_from(["mptcp-trace", "live", "--", "curl", "-s", "x"]).unwrap();
        assert!(matches!(cli.verb, Some(Verb::Live(args)) if args.command.len() == 3));
        assert!(Cli::try_parse_from(["mptcp-trace", "--pid", "0"]).is_err());
        assert!(Cli::try_parse_from(["mptcp-trace", "curl"]).is_err());
    }
}
