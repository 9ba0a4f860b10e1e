//! Sums over findings.

use std::collections::BTreeMap;

use super::{Path, PathKind, PeerHistory, Verdict};

/// The property by which findings are grouped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum By {
    /// The process that made the query or holds the connection.
    Process,
    /// The cause of fallbacks.
    Cause,
    /// The network of the peer.
    Dest,
    /// The network namespace.
    Netns,
    /// The control group of the process.
    Cgroup,
    /// The verdict.
    Verdict,
    /// The addresses of a path, without ports.
    Path,
    /// The local address of a path.
    Endpoint,
    /// The network interface of that address.
    Interface,
}

impl By {
    /// The default groupings.
    pub const USUAL: [Self; 3] = [Self::Process, Self::Cause, Self::Dest];

    /// The name as printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Cause => "cause",
            Self::Dest => "dest",
            Self::Netns => "netns",
            Self::Cgroup => "cgroup",
            Self::Verdict => "verdict",
            Self::Path => "path",
            Self::Endpoint => "endpoint",
            Self::Interface => "interface",
        }
    }

    /// True if a group is a path, or what paths have in common: a connection is in the group of each
    /// of its paths.
    #[must_use]
    pub const fn is_of_paths(self) -> bool {
        match self {
            Self::Path | Self::Endpoint | Self::Interface => true,
            Self::Process
            | Self::Cause
            | Self::Dest
            | Self::Netns
            | Self::Cgroup
            | Self::Verdict => false,
        }
    }
}

/// Sums over paths: what they became, and what those that ended carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathSum {
    /// Paths that came up, or were open when tracing began.
    pub up: u64,
    /// Paths that failed, first ones included.
    pub failed: u64,
    /// Paths that ended.
    pub down: u64,
    /// Payload sent, without retransmissions, bytes.
    pub bytes_sent: u64,
    /// Payload received, bytes.
    pub bytes_received: u64,
    /// Segments sent again.
    pub retransmissions: u64,
}

impl PathSum {
    /// The contribution of an event. A path that ends without a report that it came up did both.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let is_new = !path.was_reported_up;
        let (up, failed, down) = match path.kind {
            PathKind::Up => (true, false, false),
            PathKind::Open => (is_new, false, false),
            PathKind::Failed | PathKind::ConnectFailed => (false, true, false),
            PathKind::Down => (is_new, false, true),
            PathKind::Stale
            | PathKind::Recovered
            | PathKind::Priority
            | PathKind::AddressAnnounced
            | PathKind::AddressEchoed
            | PathKind::AddressDropped
            | PathKind::AddressOverLimit
            | PathKind::AddressRemoved => (false, false, false),
        };
        // The ledger of a path that goes on would count again at its end.
        let carried = path.ledger.filter(|_| failed || down).unwrap_or_default();
        Self {
            up: u64::from(up),
            failed: u64::from(failed),
            down: u64::from(down),
            bytes_sent: carried.bytes_sent,
            bytes_received: carried.bytes_received,
            retransmissions: carried.retransmissions.into(),
        }
    }

    fn each(&mut self, other: Self, change: impl Fn(u64, u64) -> u64) {
        for (sum, other) in [
            (&mut self.up, other.up),
            (&mut self.failed, other.failed),
            (&mut self.down, other.down),
            (&mut self.bytes_sent, other.bytes_sent),
            (&mut self.bytes_received, other.bytes_received),
            (&mut self.retransmissions, other.retransmissions),
        ] {
            *sum = change(*sum, other);
        }
    }

    /// Adds another sum.
    pub fn add(&mut self, other: Self) {
        self.each(other, u64::saturating_add);
    }

    /// Takes a part of it away.
    pub fn subtract(&mut self, other: Self) {
        self.each(other, u64::saturating_sub);
    }
}

/// Sums of a group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sum {
    /// Distinct connections that began as MPTCP.
    pub connections: u64,
    /// Of these, known to have fallen back.
    pub fallbacks: u64,
    /// Of these, the ones whose application believes in MPTCP.
    pub deceived: u64,
    /// Queries of applications.
    pub queries: u64,
    /// Options and sockets that were refused because of MPTCP.
    pub refusals: u64,
    /// Verdicts on answers, and closing verdicts.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Paths of the group.
    pub paths: PathSum,
    /// How often the peer spoke MPTCP, if the group is one of peers.
    pub history: Option<PeerHistory>,
}

impl Sum {
    /// Share of the connections that fell back, 0 to 1; `None` without connections.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share of more than 2^52 connections is right to 15 digits"
    )]
    pub fn share(&self) -> Option<f64> {
        (self.connections > 0).then(|| self.fallbacks as f64 / self.connections as f64)
    }
}

/// A group and its sums.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SumRow {
    /// Its name: untrusted bytes, to be escaped before output.
    pub key: String,
    /// The sums.
    pub sum: Sum,
}

/// All groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SumTable {
    /// The grouping property.
    pub by: By,
    /// Most fallbacks first.
    pub rows: Vec<SumRow>,
    /// The sum of the groups beyond the limit.
    pub others: Option<Sum>,
    /// Connections that may have been counted again, because they were evicted in between.
    pub forgotten: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixture::{a_ledger, a_path};

    #[test]
    fn a_path_comes_up_once_ends_once_and_carries_what_it_has_at_its_end() {
        for kind in PathKind::ALL {
            let mut path = a_path(kind);
            path.ledger = Some(a_ledger());
            for was_reported_up in [true, false] {
                path.was_reported_up = was_reported_up;
                let is_new = !was_reported_up;
                let wanted = match kind {
                    PathKind::Up => [1, 0, 0],
                    PathKind::Open => [u64::from(is_new), 0, 0],
                    PathKind::Failed | PathKind::ConnectFailed => [0, 1, 0],
                    PathKind::Down => [u64::from(is_new), 0, 1],
                    PathKind::Stale
                    | PathKind::Recovered
                    | PathKind::Priority
                    | PathKind::AddressAnnounced
                    | PathKind::AddressEchoed
                    | PathKind::AddressDropped
                    | PathKind::AddressOverLimit
                    | PathKind::AddressRemoved => [0, 0, 0],
                };
                let sum = PathSum::of(&path);
                assert_eq!([sum.up, sum.failed, sum.down], wanted, "{kind:?}");
                let ended = wanted[1] + wanted[2];
                assert_eq!(sum.bytes_sent, 8_000 * ended, "{kind:?}");
                assert_eq!(sum.bytes_received, 1_200 * ended, "{kind:?}");
                assert_eq!(sum.retransmissions, 3 * ended, "{kind:?}");
            }
        }
    }
}
