//! How often a peer spoke MPTCP, by the local address or interface that connections came from.

use std::collections::BTreeMap;

/// Where the reason lies that a peer did not speak MPTCP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Whose {
    /// The paths of these interfaces: over others the same peer speaks MPTCP.
    Path(Vec<String>),
    /// The peer: over no interface it speaks MPTCP, and over one of them others do.
    Peer,
    /// The numbers do not tell.
    Unknown,
}

impl Whose {
    /// The name as printed.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Path(_) => "path",
            Self::Peer => "peer",
            Self::Unknown => "unknown",
        }
    }
}

/// How often a peer spoke MPTCP to connections from one interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spoke {
    /// The interface, or its address: untrusted bytes, to be escaped before output.
    pub local: String,
    /// Connections that were MPTCP at first.
    pub mptcp: u64,
    /// Connections that were answered without MPTCP.
    pub tcp: u64,
}

/// The history of a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerHistory {
    /// What follows.
    pub whose: Whose,
    /// The numbers, by interface.
    pub spoke: Vec<Spoke>,
}

/// How many peers each conclusion holds for, and what it rests on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PeerCounts {
    /// Peers that are without MPTCP themselves.
    pub peer: u64,
    /// Peers that speak MPTCP, but not over one of the interfaces.
    pub path: u64,
    /// Other peers that answered a connection without MPTCP: the numbers do not tell.
    pub unknown: u64,
    /// Peers whose path over this interface takes MPTCP away. It may be an address.
    pub over: BTreeMap<String, u64>,
}

impl PeerHistory {
    /// The sentence, as a clause about a connection.
    #[must_use]
    pub fn clause(&self) -> Option<String> {
        let sentence = self.sentence()?;
        Some(format!("by the connections so far, {sentence}"))
    }

    /// Whether the peer or a path is the reason that connections are TCP, with the numbers; `None` if
    /// they do not tell. Interfaces are untrusted bytes, to be escaped before output.
    #[must_use]
    pub fn sentence(&self) -> Option<String> {
        let counts = self.spoke.iter().map(|it| {
            let all = it.mptcp + it.tcp;
            format!("{} of {all} over {}", it.mptcp, it.local)
        });
        let counts = counts.collect::<Vec<_>>().join(", ");
        match &self.whose {
            Whose::Unknown => None,
            Whose::Peer => Some(format!(
                "the peer is without MPTCP: {counts}, where others speak it"
            )),
            Whose::Path(over) => Some(format!(
                "the path over {} takes MPTCP away: the peer spoke it in {counts}",
                over.join(", ")
            )),
        }
    }
}
