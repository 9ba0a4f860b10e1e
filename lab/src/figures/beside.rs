//! What runs alongside the caller: nothing, the tracer, or a bpftrace script.

use std::{path::Path, time::Duration};

use super::Args;
use crate::tracer::{Run, Tracer};

/// Prints one line per query.
const PRINTING: &str = "\
tracepoint:syscalls:sys_enter_getsockopt /args->level == 6 && args->optname == 43/ { @t[tid] = nsecs; }
tracepoint:syscalls:sys_exit_getsockopt /@t[tid]/ {
  printf(\"%d %d %s %d %d\\n\", nsecs, pid, comm, args->ret, nsecs - @t[tid]); delete(@t[tid]); }
";
/// Counts queries by process and result.
const COUNTING: &str = "\
tracepoint:syscalls:sys_enter_getsockopt /args->level == 6 && args->optname == 43/ { @q[tid] = 1; }
tracepoint:syscalls:sys_exit_getsockopt /@q[tid]/ { @[pid, comm, args->ret] = count(); delete(@q[tid]); }
";

/// bpftrace reports that it is attaching, not that it has attached.
const ATTACHING: Duration = Duration::from_millis(1_500);

/// Something to run alongside the caller.
pub(super) struct Configuration {
    pub(super) name: &'static str,
    pub(super) beside: Beside,
}

/// What it is.
pub(super) enum Beside {
    Nothing,
    /// The tracer with these options.
    Tracer(Vec<String>),
    /// bpftrace with this script.
    Bpftrace(&'static str),
}

/// Nothing, the tracer in several configurations, and the scripts.
pub(super) fn configurations(args: &Args) -> Vec<Configuration> {
    let tracer = |options: &[&str]| {
        Beside::Tracer(options.iter().map(|&option| option.to_owned()).collect())
    };
    let own = std::process::id().to_string();
    let mut all = vec![
        ("nothing", Beside::Nothing),
        ("mptcp-trace, text", tracer(&[])),
        ("mptcp-trace, JSON", tracer(&["--json"])),
        (
            "mptcp-trace --pid of another process",
            tracer(&["--pid", &own]),
        ),
    ];
    if !args.no_bpftrace {
        all.push(("bpftrace, printing", Beside::Bpftrace(PRINTING)));
        all.push(("bpftrace, counting", Beside::Bpftrace(COUNTING)));
    }
    let all = all.into_iter();
    all.map(|(name, beside)| Configuration { name, beside })
        .collect()
}

impl Beside {
    /// Starts it and waits until it is live.
    pub(super) fn start(&self, tracer: &Path) -> anyhow::Result<Option<Tracer>> {
        match self {
            Self::Nothing => Ok(None),
            Self::Tracer(options) => {
                let run = Run::live(tracer, "auto").uncapped()?.args(options);
                run.measured().start()?.live().map(Some)
            }
            Self::Bpftrace(script) => {
                // Mount tracefs for bpftrace alone, as mptcp-trace does for itself.
                let shell = "[ -d /sys/kernel/tracing/events ] || \
                             mount -t tracefs tracefs /sys/kernel/tracing; exec bpftrace -e \"$0\"";
                let run = Run::of("unshare").args(["--mount", "sh", "-c", shell, script]);
                let is_attaching = |said: &str| said.contains("Attaching").then_some(());
                let (tracer, ()) = run.saying().start_when(is_attaching)?.live()?;
                std::thread::sleep(ATTACHING);
                Ok(Some(tracer))
            }
        }
    }
}
