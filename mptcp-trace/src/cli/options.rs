//! What is wanted, whatever was typed for it: no clap. Who traces by another way than the command line (`bundle`, `demo`)
//! says it here.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use crate::{model::Rung, pipeline::View};

/// How to attach, and how much memory that may take.
#[derive(Clone, Debug)]
pub(super) struct Attaching {
    /// Only by this method; none for the best that works.
    pub(super) only: Option<Rung>,
    /// Type information of the running kernel, where it has none of its own.
    pub(super) btf: Option<PathBuf>,
    /// Size of the ring between kernel and tracer, bytes.
    pub(super) ring_bytes: u32,
    /// Questions of one process that are traced in a second; 0 for all of them.
    pub(super) cap: u32,
    /// Sockets of which something is noted at a time.
    pub(super) sockets: u32,
    /// Of these, how many may belong to one user.
    pub(super) sockets_per_user: u32,
    /// Functions of the kernel that are planned for as if there were none.
    pub(super) hidden: Vec<String>,
}

/// Scope doings the kernel half lets through.
#[derive(Clone, Debug)]
pub(super) enum Scope {
    /// Everybody's.
    Everybody,
    /// Nobody's: only our own self-test.
    Nobody,
    /// Those of these; of what is empty, all.
    Named(Names),
}

/// Whom the user named.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// Processes.
    pub(super) pids: Vec<u32>,
    /// Names of processes and threads.
    pub(super) comms: Vec<String>,
    /// Network namespaces: names, paths, inode numbers.
    pub(super) netns: Vec<String>,
    /// Children of the processes too.
    pub(super) follow: bool,
    /// A process is named later: until then nobody's.
    pub(super) awaits_process: bool,
}

/// What `live` does.
#[derive(Debug)]
pub(super) struct Live {
    /// How to attach.
    pub(super) attaching: Attaching,
    /// Scope doings are of interest.
    pub(super) names: Names,
    /// Which findings are shown.
    pub(super) view: View,
    /// JSON lines instead of text.
    pub(super) json: bool,
    /// Names of the columns also where nobody looks at them on a terminal.
    pub(super) header: bool,
    /// Where findings go; none for stdout.
    pub(super) output: Option<PathBuf>,
    /// Where raw records are kept.
    pub(super) capture: Option<PathBuf>,
    /// The file that says that tracing is live.
    pub(super) ready_file: Option<PathBuf>,
    /// It ends after this time.
    pub(super) duration: Option<Duration>,
    /// It ends after this many findings.
    pub(super) stop_after: Option<u64>,
    /// Who traces so makes files of its own afterwards.
    pub(super) writes_later: bool,
    /// What is run and traced, with its arguments; nothing if empty.
    pub(super) command: Vec<OsString>,
}

impl Live {
    /// Everything that everybody does, as text on stdout, until a signal comes.
    pub(super) fn new(attaching: Attaching) -> Self {
        Self {
            attaching,
            names: Names::default(),
            view: View::default(),
            json: false,
            header: false,
            output: None,
            capture: None,
            ready_file: None,
            duration: None,
            stop_after: None,
            writes_later: false,
            command: Vec::new(),
        }
    }
}
