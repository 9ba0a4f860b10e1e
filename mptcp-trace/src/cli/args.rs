//! Command-line arguments as clap parses them.

mod attach;
mod collector;
mod completions;
mod keep;
mod pair;
mod probe;
mod values;
mod view;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Arg, ArgAction, Args, Command, Parser, Subcommand, ValueEnum, ValueHint, value_parser};

pub(super) use attach::AttachArgs;
pub(in crate::cli) use collector::{CollectorArgs, Encoding};
pub(super) use completions::{CompletionsArgs, Shell};
pub(in crate::cli) use keep::{DumpArgs, KeepArgs, parse_moment, parse_size, span};
pub(super) use pair::PairArgs;
pub(super) use probe::ProbeArgs;
pub(in crate::cli) use values::parse_listen;
use values::{file_to_write, parse_duration, parse_speed};
use view::CONNECTIONS;
pub(super) use view::{ConnectionFilterArgs, FindingFilterArgs, TaskFilterArgs, ViewArgs};

use super::{built::LONG_VERSION, exit_codes};
use crate::{filter, serve::listen::Address};

const EXAMPLES: &str = "\
Examples:
  Trace every process until Ctrl-C: fallbacks and their causes, queries and their answers:
      mptcp-trace
  Trace one process and its children, as JSON lines:
      mptcp-trace --pid 4312 --follow --json
  Trace a program from its start:
      mptcp-trace -- curl https://multipath-tcp.org
  Record to a file and replay it later, on any machine:
      mptcp-trace --capture run.mpt --duration 30s
      mptcp-trace replay run.mpt
  Count fallbacks per destination network:
      mptcp-trace --by dest --duration 10m
  Fail a test if the program falls back:
      mptcp-trace --fail-on fallback -- ./my-test
  Watch connections interactively, as in top:
      mptcp-trace top
  Provoke a real fallback on this kernel and trace it:
      mptcp-trace demo
  Check what works on this kernel:
      mptcp-trace doctor

Findings go to stdout, everything else to stderr.";

/// Trace Multipath TCP connections that fall back to plain TCP: which, when, why and whose.
///
/// Also traces which applications ask the kernel whether a connection is still MPTCP, what the
/// kernel answers, and whether the answer remains correct.
#[derive(Parser, Debug)]
#[command(
    name = "mptcp-trace",
    version,
    long_version = LONG_VERSION.as_str(),
    after_help = exit_codes::program(EXAMPLES),
    mut_subcommands(exit_codes::add),
    mut_subcommands(without_idle_options),
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Cli {
    /// What to do; none means `live`.
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// Options of `live`, accepted without a verb too.
    #[command(flatten)]
    pub live: LiveArgs,
    /// Log decisions and their reasons to stderr, and print the full account at the end; -vv, while
    /// tracing, also logs messages of the BPF programs
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Print no notes, and at the end nothing unless something was lost or does not agree
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// When to use colours
    ///
    /// `auto` uses them on a terminal, unless `NO_COLOR` is set, CLICOLOR is 0 or TERM is dumb;
    /// and elsewhere if `CLICOLOR_FORCE` is set.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = clap::ColorChoice::Auto, global = true)]
    pub color: clap::ColorChoice,
}

/// Verbs that print no colours.
const COLOURLESS: [&str; 11] = [
    "report",
    "dump",
    "probe",
    "annotate",
    "pair",
    "serve",
    "doctor",
    "bundle",
    "explain",
    "schema",
    "completions",
];

/// Verbs that neither log nor print notes.
const SILENT: [&str; 3] = ["explain", "schema", "completions"];

/// Hides options of the whole program that have no effect on this verb; they are still accepted.
fn without_idle_options(mut verb: Command) -> Command {
    let is_in = |verbs: &[&str]| verbs.contains(&verb.get_name());
    let (is_colourless, is_silent) = (is_in(&COLOURLESS), is_in(&SILENT));
    let hidden = |id: &'static str| Arg::new(id).long(id).global(true).hide(true);
    if is_colourless {
        let colour = hidden("color")
            .value_parser(value_parser!(clap::ColorChoice))
            .default_value("auto");
        verb = verb.arg(colour);
    }
    if is_silent {
        let verbose = hidden("verbose").short('v').action(ArgAction::Count);
        let quiet = hidden("quiet").short('q').action(ArgAction::SetTrue);
        verb = verb.args([verbose, quiet.conflicts_with("verbose")]);
    }
    verb
}

/// Subcommands.
#[derive(Subcommand, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one, parsed once")]
pub enum Verb {
    /// Trace the running kernel (the default)
    #[command(after_help = EXAMPLES)]
    Live(LiveArgs),
    /// Print the findings of a capture, as `live` would; needs no privileges
    Replay(ReplayArgs),
    /// Turn a capture into a self-contained HTML page, or a trace for Perfetto; needs no privileges
    Report(ReportArgs),
    /// Add the findings of a capture to the packets of a packet capture, as comments for Wireshark
    Annotate(AnnotateArgs),
    /// Compare captures of both ends: what left one end, and what arrived at the other; needs no privileges
    Pair(PairArgs),
    /// Trace the whole host and export metrics over HTTP for Prometheus, until stopped by a signal
    Serve(ServeArgs),
    /// Write what `serve --keep` or `live --keep` has recorded to a file, as a capture
    Dump(DumpArgs),
    /// Watch connections, processes, causes and destinations interactively, live or from a capture
    Top(TopArgs),
    /// Check what works on this host and verify it with a self-test
    Doctor(DoctorArgs),
    /// List the open MPTCP sockets of all network namespaces: fallen back or not, subflows, owner
    List(ListArgs),
    /// Pack a bug report into one file: a trace, the kernel's counters, the output of `doctor`
    Bundle(BundleArgs),
    /// Find out where on the way to a peer MPTCP gets lost: the only verb that sends packets
    Probe(ProbeArgs),
    /// Provoke a fallback in temporary network namespaces and trace it
    Demo(DemoArgs),
    /// Explain the cause of a fallback, or why a path failed or ended: its meaning, the likely culprit, and the commands to run next
    Explain(ExplainArgs),
    /// Print the JSON Schema of the JSON lines
    Schema,
    /// Print the completion script of a shell
    Completions(CompletionsArgs),
}

impl Verb {
    /// How to attach, for a verb that traces.
    #[must_use]
    pub(super) fn attach(&self) -> Option<&AttachArgs> {
        match self {
            Self::Live(args) => Some(&args.attach),
            Self::Serve(args) => Some(&args.attach),
            Self::Top(args) => Some(&args.attach),
            Self::Doctor(args) => Some(&args.attach),
            Self::List(args) => Some(&args.attach),
            Self::Bundle(args) => Some(&args.attach),
            Self::Demo(args) => Some(&args.attach),
            Self::Replay(_)
            | Self::Report(_)
            | Self::Annotate(_)
            | Self::Dump(_)
            | Self::Probe(_)
            | Self::Pair(_)
            | Self::Explain(_)
            | Self::Schema
            | Self::Completions(_) => None,
        }
    }
}

/// Options of `live`.
#[derive(Args, Debug)]
pub struct LiveArgs {
    /// Trace only this process: its connections and the queries of all its threads (repeatable)
    #[arg(short, long, value_name = "PID", value_delimiter = ',', value_parser = filter::pid)]
    pub pid: Vec<u32>,
    /// With --pid: also trace its descendants
    #[arg(short, long)]
    pub follow: bool,
    /// Trace only connections of processes, and queries of threads, with this name (repeatable)
    ///
    /// The name is that of /proc/PID/comm, at most 15 bytes.
    #[arg(long, value_name = "NAME")]
    pub comm: Vec<String>,
    /// Trace only sockets of this network namespace (repeatable)
    ///
    /// A name from `ip netns`, a path such as /proc/4312/ns/net, or an inode number.
    #[arg(long, value_name = "NETNS")]
    pub netns: Vec<String>,
    /// Print JSON lines (docs/output.md) instead of text
    #[arg(long)]
    pub json: bool,
    /// Append findings to FILE instead of printing them to stdout
    ///
    /// A new file is readable by its owner only. SIGUSR2 reopens FILE (for logrotate), as does
    /// SIGHUP without a terminal. With --keep, SIGUSR2 makes a dump too.
    #[arg(short, long, value_name = "FILE", value_parser = file_to_write(), value_hint = ValueHint::AnyPath)]
    pub output: Option<PathBuf>,
    /// Also write raw records to FILE, for `replay`, `report` and `top --replay`
    #[arg(long, value_name = "FILE", value_parser = file_to_write(), value_hint = ValueHint::AnyPath)]
    pub capture: Option<PathBuf>,
    /// The flight recorder.
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Stop after this time, e.g. 10s, 5m, 1h30m
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Stop after this many findings
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub stop_after: Option<u64>,
    /// Create FILE, containing the process ID, once tracing has started; for scripts
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Which findings to show, and how.
    #[command(flatten)]
    pub view: ViewArgs,
    /// How to attach.
    #[command(flatten)]
    pub attach: AttachArgs,
    /// Run this program, trace it and its children from their start, and exit with its exit code
    ///
    /// Its output and the findings both go to stdout; --output FILE separates them.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Options of `serve`.
#[derive(Args, Debug)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct ServeArgs {
    /// Listen on this address, or on the Unix socket unix:PATH; port 0 picks a free port; default:
    /// 127.0.0.1:9944, or `listen` of --config
    ///
    /// Examples: 127.0.0.1:9944, `[::1]:9944`, localhost:9944; :9944 listens on all addresses.
    /// `unix:/run/m.sock`, or /run/m.sock, is a socket that its owner and its group may use. It
    /// replaces a socket of the same user that nobody listens on, and is removed at exit.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_listen)]
    pub listen: Option<Address>,
    /// Label fallback metrics with their owner or interface; the first 1,000 names get their own time series
    #[arg(long, value_enum)]
    pub label: Option<LabelBy>,
    /// The collector.
    #[command(flatten)]
    pub collector: CollectorArgs,
    /// The flight recorder.
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Read settings from FILE at start and on SIGHUP (docs/metrics.md); they override the
    /// options, except --listen
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Create FILE, containing the process ID, once tracing has started; for scripts
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Track at most N connections; when full, evict the least recently active one
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// How to attach.
    #[command(flatten)]
    pub attach: AttachArgs,
}

/// Options of `top`.
#[derive(Args, Debug)]
#[command(after_help = TOP_EXAMPLES)]
pub struct TopArgs {
    /// Play a capture or bundle instead of tracing the running kernel; needs no privileges
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
    /// With --replay: play N times as fast as recorded, from 0.0625 to 4096; + and - change it
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = parse_speed, requires = "replay")]
    pub speed: f64,
    /// Filter by task.
    #[command(flatten)]
    pub whose: TaskFilterArgs,
    /// With --pid: also trace its descendants
    #[arg(short, long, conflicts_with = "replay")]
    pub follow: bool,
    /// Filter by what a finding says.
    #[command(flatten)]
    pub what: FindingFilterArgs,
    /// Filter by connection.
    #[command(flatten)]
    pub which: ConnectionFilterArgs,
    /// Track at most N connections; when full, evict the least recently active one
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// How to attach.
    #[command(flatten)]
    pub attach: AttachArgs,
    /// Panic after the first frame, to check that the terminal is restored (for tests)
    #[arg(long, hide = true)]
    pub panic: bool,
}

const TOP_EXAMPLES: &str = "\
Examples:
  mptcp-trace top
  mptcp-trace top --pid 4312 --follow
  mptcp-trace top --replay run.mpt --speed 10

Keys: ? lists all keys, / filters as you type, Enter opens the selection, q quits. Deceived are
applications that hold a wrong belief about their connection (verdicts stale, misled, contradicted:
docs/debugging.md).";

const SERVE_EXAMPLES: &str = "\
Examples:
  mptcp-trace serve
  curl http://127.0.0.1:9944/metrics
  mptcp-trace serve --listen 192.0.2.7:9944 --label process
  mptcp-trace serve --config /etc/mptcp-trace/serve.toml     # kill -HUP reloads it
  mptcp-trace serve --otlp http://localhost:4318             # to an OpenTelemetry collector too
  mptcp-trace serve --otlp https://otel.example:4318 --otlp-ca ca.pem
  mptcp-trace serve --keep 256M --dump-on 'fallbacks>20/min' # the newest records stay on disk: mptcp-trace dump

Serves /metrics (Prometheus or OpenMetrics, according to the Accept header), /healthz and /readyz.
A reload keeps the counters. SIGTERM and SIGINT shut down gracefully.";

/// Choices of `--label`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelBy {
    /// Name of the process
    Process,
    /// Path of its control group
    Cgroup,
    /// Namespace and name of its pod, and name of the container
    Pod,
    /// Local interface, of fallbacks and of what peers answered
    Interface,
}

/// Options of `replay`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  mptcp-trace replay run.mpt --kind fallback --why\n  \
                  mptcp-trace replay monday.mpt tuesday.mpt --by dest   # one table of both: the peer, or a path?"
)]
pub struct ReplayArgs {
    /// Captures (written with --capture) or bundles
    ///
    /// Several are replayed one after the other; summary tables (--summary, --by) add them up.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Print JSON lines (docs/output.md) instead of text
    #[arg(long)]
    pub json: bool,
    /// Stop after this many findings
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub stop_after: Option<u64>,
    /// The same as `--time utc`
    #[arg(long, conflicts_with_all = ["json", "time"])]
    pub utc: bool,
    /// Filter by task.
    #[command(flatten)]
    pub whose: TaskFilterArgs,
    /// Which findings to show, and how.
    #[command(flatten)]
    pub view: ViewArgs,
}

/// Choices of `report --format`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReportFormat {
    /// A page without scripts or external resources
    Html,
    /// Trace Event Format (JSON), which Perfetto opens: a track per connection
    ChromeTrace,
}

/// Options of `report`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  mptcp-trace report run.mpt -o run.html\n  \
                  mptcp-trace report run.mpt --addr 192.0.2.0/24 --title 'Shop, Monday' -o shop.html\n  \
                  mptcp-trace report problem.tar.zst --utc -o - | gzip > run.html.gz\n  \
                  mptcp-trace report run.mpt --format chrome-trace -o run.json   # open it in https://ui.perfetto.dev")]
pub struct ReportArgs {
    /// Capture (written with --capture) or bundle
    pub file: PathBuf,
    /// Write the report to FILE; - means stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// What to write
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = ReportFormat::Html)]
    pub format: ReportFormat,
    /// Title of the report; default: the name of the capture
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// Show times of the page in UTC instead of local time; a trace has UTC
    #[arg(long)]
    pub utc: bool,
    /// Filter by task.
    #[command(flatten)]
    pub whose: TaskFilterArgs,
    /// Filter by what a finding says.
    #[command(flatten)]
    pub what: FindingFilterArgs,
    /// Filter by connection.
    #[command(flatten)]
    pub which: ConnectionFilterArgs,
    /// Track at most N connections; when full, evict the least recently active one
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
}

/// Options of `annotate`.
#[derive(Args, Debug)]
#[command(
    after_help = "The first packet of each connection gets a summary, and each finding becomes a comment on the\n\
                  packet that precedes it. In Wireshark, the display filter frame.comment shows these packets.\n\n\
                  Examples:\n  tcpdump -i any -w in.pcapng tcp &\n  mptcp-trace --capture run.mpt --duration 30s\n  \
                  mptcp-trace annotate in.pcapng run.mpt -o out.pcapng\n  \
                  mptcp-trace annotate in.pcapng run.mpt -o - | tshark -r - -Y frame.comment -T fields -e frame.comment"
)]
pub struct AnnotateArgs {
    /// Packets that tcpdump, dumpcap or Wireshark captured: pcapng, or pcap, which is converted
    pub packets: PathBuf,
    /// Capture (written with --capture) or bundle of the same time on the same host
    pub file: PathBuf,
    /// Write the annotated packets to FILE (pcapng); - means stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Filter by task.
    #[command(flatten)]
    pub whose: TaskFilterArgs,
    /// Filter by what a finding says.
    #[command(flatten)]
    pub what: FindingFilterArgs,
    /// Filter by connection.
    #[command(flatten)]
    pub which: ConnectionFilterArgs,
    /// Track at most N connections; when full, evict the least recently active one
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
}

/// Options of `list`.
#[derive(Args, Debug)]
#[command(
    after_help = "A list cannot show which queries applications made: use mptcp-trace live or bundle.\n\n\
                  Examples:\n  mptcp-trace list\n  mptcp-trace list --comm nginx --port 443\n  \
                  mptcp-trace list --json | jq -c 'select(.data.fell_back) | .data.remote'"
)]
pub struct ListArgs {
    /// Print JSON lines (docs/output.md) instead of text
    #[arg(long)]
    pub json: bool,
    /// Below each socket, print its open paths (subflows)
    ///
    /// For each path: both addresses, whether it was the first one or joined, both address ids, its
    /// state, the bytes that it sent and received, segments sent again, and its round-trip time.
    #[arg(long)]
    pub paths: bool,
    /// Do not truncate lines to the width of the terminal
    #[arg(long, short = 'w', conflicts_with = "json")]
    pub wide: bool,
    /// Print the column header even if stdout is not a terminal
    #[arg(long, conflicts_with = "json")]
    pub header: bool,
    /// Filter by task.
    #[command(flatten)]
    pub whose: TaskFilterArgs,
    /// Filter by connection.
    #[command(flatten)]
    pub which: ConnectionFilterArgs,
    /// How to attach.
    #[command(flatten)]
    pub attach: AttachArgs,
}

/// Options of `bundle`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  mptcp-trace bundle problem.tar.zst --duration 1m\n  \
                  mptcp-trace bundle problem.tar.zst --redact -- curl https://multipath-tcp.org\n  \
                  mptcp-trace bundle problem.tar.zst --redact --from run.mpt\n  \
                  mptcp-trace replay problem.tar.zst\n\n\
                  Send a bundle to where you got mptcp-trace from, e.g. the bug tracker of your distribution. If the\n\
                  kernel is at fault, write to the MPTCP community: mptcp@lists.linux.dev (a public list) or\n\
                  https://github.com/multipath-tcp/mptcp_net-next/issues"
)]
pub struct BundleArgs {
    /// Bundle to write; readable by its owner only
    #[arg(value_parser = file_to_write(), value_hint = ValueHint::AnyPath)]
    pub file: PathBuf,
    /// Stop tracing after this time, e.g. 10s, 5m; default without a COMMAND: 30s
    ///
    /// Ctrl-C stops it earlier; the bundle is still written.
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Replace addresses, process names and control group paths with consistent pseudonyms
    ///
    /// Raw records are rewritten too. What stays: ports, initial sequence numbers, process and user IDs, inode numbers, kernel
    /// addresses of sockets, loopback addresses and times.
    #[arg(long)]
    pub redact: bool,
    /// Pack this capture instead of tracing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["duration", "command"])]
    pub from: Option<PathBuf>,
    /// How to attach.
    #[command(flatten)]
    pub attach: AttachArgs,
    /// Run this program, trace it and its children from their start, and exit with its exit code
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Options of `demo`.
#[derive(Args, Debug)]
#[command(
    after_help = "The demo leaves nothing behind, even if killed: its namespaces end with its process.\n\n\
                  Examples:\n  mptcp-trace demo\n  mptcp-trace demo --json | jq -c .data.cause"
)]
pub struct DemoArgs {
    /// Print JSON lines (docs/output.md) instead of text
    #[arg(long)]
    pub json: bool,
    /// How to attach.
    #[command(flatten)]
    pub attach: AttachArgs,
    /// Act as the client and the server of the demo
    #[arg(long, hide = true)]
    pub scene: bool,
}

/// Options of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// How to attach.
    #[command(flatten)]
    pub attach: AttachArgs,
    /// Attach to the wrong functions, to check that the self-test notices (for tests)
    #[arg(long, hide = true)]
    pub break_sensor: bool,
}

/// Options of `explain`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  mptcp-trace explain\n  mptcp-trace explain MPCapableFallbackSYNACK\n  mptcp-trace explain MPJoinRejected\n  mptcp-trace explain no-endpoint\n  mptcp-trace explain stale"
)]
pub struct ExplainArgs {
    /// A cause as lines or nstat print it (with or without the prefix `MPTcpExt`), a verdict, a reason
    /// in an RST, or why there was no second path
    ///
    /// Without a name, all causes are listed.
    pub cause: Option<String>,
}
