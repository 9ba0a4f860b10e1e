//! Options without clap: what a run needs, whether it comes from the command line or from another
//! verb (`bundle`, `demo`).

use std::{ffi::OsString, path::PathBuf, time::Duration};

use super::keep::Keep;
use crate::{model::Rung, pipeline::View, sink::TextOptions};

/// Attach method and memory limits.
#[derive(Clone, Debug)]
pub(super) struct Attaching {
    /// The only method to use; none selects the best that works.
    pub(super) only: Option<Rung>,
    /// BTF file, for kernels that provide none.
    pub(super) btf: Option<PathBuf>,
    /// Directory with the logs of pods.
    pub(super) pod_logs: PathBuf,
    /// The user asked for names of pods: report if there are none.
    pub(super) wants_pods: bool,
    /// Size of the ring buffer between kernel and tracer, bytes.
    pub(super) ring_bytes: u32,
    /// Queries traced per second and process; 0 means no limit.
    pub(super) cap: u32,
    /// Most sockets tracked at a time.
    pub(super) sockets: u32,
    /// Most of these sockets per user.
    pub(super) sockets_per_user: u32,
    /// Kernel functions that the plan treats as missing.
    pub(super) hidden: Vec<String>,
}

/// Which tasks the BPF side traces.
#[derive(Clone, Debug)]
pub(super) enum Scope {
    /// All tasks.
    All,
    /// Only the self-test's.
    SelfTestOnly,
    /// Only the named ones; an empty list does not restrict.
    Named(Names),
}

/// Tasks and namespaces named by the user.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// Process IDs.
    pub(super) pids: Vec<u32>,
    /// Names of processes and threads.
    pub(super) comms: Vec<String>,
    /// Network namespaces: names, paths, inode numbers.
    pub(super) netns: Vec<String>,
    /// Also trace descendants of these processes.
    pub(super) follow: bool,
    /// The process is added later (COMMAND); none is traced until then.
    pub(super) awaits_process: bool,
}

/// Options of `live`.
#[derive(Debug)]
pub(super) struct Live {
    /// How to attach.
    pub(super) attaching: Attaching,
    /// Which tasks to trace.
    pub(super) names: Names,
    /// Filters and presentation.
    pub(super) view: View,
    /// How lines of text are presented; none for JSON lines.
    pub(super) text: Option<TextOptions>,
    /// Output file; none means stdout.
    pub(super) output: Option<PathBuf>,
    /// Capture file for raw records.
    pub(super) capture: Option<PathBuf>,
    /// The flight recorder.
    pub(super) keep: Option<Keep>,
    /// File created once tracing has started.
    pub(super) ready_file: Option<PathBuf>,
    /// Stop after this time.
    pub(super) duration: Option<Duration>,
    /// Stop after this many findings.
    pub(super) stop_after: Option<u64>,
    /// The caller creates files after tracing, so the privilege to write them is kept.
    pub(super) writes_later: bool,
    /// Command to run and trace, with its arguments; empty for none.
    pub(super) command: Vec<OsString>,
}

impl Live {
    /// Traces all tasks, as plain text on stdout, until a signal arrives.
    pub(super) fn new(attaching: Attaching) -> Self {
        Self {
            attaching,
            names: Names::default(),
            view: View::default(),
            text: Some(TextOptions::default()),
            output: None,
            capture: None,
            keep: None,
            ready_file: None,
            duration: None,
            stop_after: None,
            writes_later: false,
            command: Vec::new(),
        }
    }
}
