//! Counts of connections and paths, as the sensor of paths reports them. Pure.

use crate::model::{Closed, Outcome, Path, PathKind};

/// What a path did because of a cause.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PathOutcome {
    /// It could not join its connection.
    JoinFailed,
    /// It could not open its connection.
    ConnectFailed,
    /// It was up, and ended.
    Ended,
}

impl PathOutcome {
    /// The name as printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::JoinFailed => "join failed",
            Self::ConnectFailed => "connect failed",
            Self::Ended => "path ended",
        }
    }
}

/// Connections and paths, as the sensor of paths counts them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathCounts {
    /// Connections that ended.
    pub closed: u64,
    /// Of these, MPTCP to the end.
    pub mptcp: u64,
    /// Of these, fallen back.
    pub fell_back: u64,
    /// Connections that could not be opened.
    pub not_opened: u64,
    /// Connections that ended, with more than one path that came up.
    pub with_several: u64,
    /// Paths that came up or were open before.
    pub paths_up: u64,
    /// Joins that failed.
    pub joins_failed: u64,
    /// Times that a path became stale.
    pub stale: u64,
}

impl PathCounts {
    /// Counts an event of a path; returns what failed or ended, with the cause if it is known.
    pub(super) fn take<'a>(&mut self, path: &'a Path) -> Option<(PathOutcome, Option<&'a str>)> {
        let outcome = match path.kind {
            PathKind::Up | PathKind::Open => {
                self.paths_up += 1;
                return None;
            }
            PathKind::Stale => {
                self.stale += 1;
                return None;
            }
            PathKind::Failed => {
                self.joins_failed += 1;
                PathOutcome::JoinFailed
            }
            PathKind::ConnectFailed => {
                self.not_opened += 1;
                PathOutcome::ConnectFailed
            }
            PathKind::Down => PathOutcome::Ended,
            PathKind::Recovered
            | PathKind::Priority
            | PathKind::AddressAnnounced
            | PathKind::AddressEchoed
            | PathKind::AddressDropped
            | PathKind::AddressOverLimit
            | PathKind::AddressRemoved => return None,
        };
        Some((outcome, path.cause.as_deref()))
    }

    /// Counts the end of a connection.
    pub(super) fn close(&mut self, closed: &Closed) {
        self.closed += 1;
        self.with_several += u64::from(closed.paths_up > 1);
        match closed.outcome {
            Outcome::Mptcp => self.mptcp += 1,
            Outcome::FellBack { .. } => self.fell_back += 1,
            Outcome::Unknown => {}
        }
    }
}
