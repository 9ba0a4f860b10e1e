//! Arguments that select the tracer.

use std::path::PathBuf;

/// The tracer, with one or more attach methods.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct TracerArgs {
    /// The mptcp-trace to test
    #[arg(long, value_name = "PATH")]
    pub(crate) tracer: PathBuf,
    /// Only this attach method (repeatable); default: all three
    #[arg(long, value_name = "METHOD")]
    pub(crate) attach: Vec<String>,
    /// More arguments for the tracer (repeatable)
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) tracer_arg: Vec<String>,
}

impl TracerArgs {
    /// The selected attach methods; by default all, best first.
    pub(crate) fn rungs(&self) -> Vec<String> {
        match self.attach[..] {
            [] => ["fexit", "kprobe", "tracepoint"]
                .map(str::to_owned)
                .to_vec(),
            [..] => self.attach.clone(),
        }
    }
}

/// The tracer, with one attach method.
#[derive(clap::Args)]
pub(crate) struct OneMethodArgs {
    /// The mptcp-trace to test
    #[arg(long, value_name = "PATH")]
    pub(crate) tracer: PathBuf,
    /// Attach method
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    pub(crate) attach: String,
}
