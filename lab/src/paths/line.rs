//! Lines about paths, as the judge reads them.

use crate::traced::PathLine;

/// What a line about a path reports.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum PathWord {
    Up,
    Failed,
    ConnectFailed,
    Down,
    Stale,
    Recovered,
    Priority,
}

/// A line about a path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) what: PathWord,
    pub(super) path: &'a PathLine,
    /// The tracer says that it cannot be sure of this cause on this kernel.
    pub(super) is_doubtful: bool,
}
