//! How to attach, and where other processes are looked up.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::parse_ring_size;
use crate::{cli::options::Attaching, model::Rung};

/// How to attach.
#[derive(Args, Clone, Debug)]
pub struct AttachArgs {
    /// Method of attaching to the kernel
    #[arg(long, value_enum, default_value_t = Attach::Auto)]
    pub attach: Attach,
    /// Read kernel type information (BTF) from FILE, for kernels that provide none
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,
    /// Look up processes in DIR, where the host's /proc is mounted: for a container with a PID namespace
    /// of its own
    ///
    /// Process ids are then those of the host, also for --pid. The tracer must be a descendant of
    /// the PID namespace that DIR shows.
    #[arg(long, value_name = "DIR")]
    pub proc: Option<PathBuf>,
    /// Read the names of pods and containers from the names of files in DIR/pods and DIR/containers
    #[arg(long, value_name = "DIR", default_value = LOGS)]
    pub pod_logs: PathBuf,
    /// Size of the ring buffer between kernel and tracer: a power of two from 4K, but at least a
    /// page of memory, to 1024M
    #[arg(long, value_name = "BYTES", default_value = "2M", value_parser = parse_ring_size)]
    pub ring_size: u32,
    /// Trace at most N queries per second and process, and only count the others; 0 means no limit
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub cap: u32,
    /// Keep owner and creation time of at most N open MPTCP sockets
    ///
    /// Fallbacks of further sockets are reported without them.
    #[arg(long, value_name = "N", default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(2..=4_194_304))]
    pub sockets: u32,
    /// Keep at most N of these sockets per user; default: half of --sockets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub sockets_per_user: Option<u32>,
    /// Plan as if the kernel had no function NAME (repeatable; for tests)
    #[arg(long, value_name = "NAME", hide = true)]
    pub hide_function: Vec<String>,
}

/// Where the kubelet keeps logs.
const LOGS: &str = "/var/log";

impl AttachArgs {
    /// Resolves defaults.
    #[must_use]
    pub(in crate::cli) fn options(&self) -> Attaching {
        Attaching {
            only: self.attach.only(),
            btf: self.btf.clone(),
            pod_logs: self.pod_logs.clone(),
            wants_pods: self.pod_logs.as_os_str() != LOGS,
            ring_bytes: self.ring_size,
            cap: self.cap,
            sockets: self.sockets,
            sockets_per_user: self.sockets_per_user.unwrap_or(self.sockets / 2),
            hidden: self.hide_function.clone(),
        }
    }
}

/// Choices of `--attach`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attach {
    /// The best method that works
    Auto,
    /// BPF trampolines at entry and return of kernel functions
    Fexit,
    /// Kprobes at entry and return of kernel functions
    Kprobe,
    /// Tracepoints at entry and exit of the getsockopt system call
    Tracepoint,
}

impl Attach {
    /// The requested method; none for `auto`.
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
