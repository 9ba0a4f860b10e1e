//! Whether a peer or a path takes MPTCP away, by the connections of a run so far. Counts connections
//! whether or not they are shown: the others are what a comparison rests on.

use std::{collections::BTreeSet, fmt::Write as _};

use crate::{
    aggregation::InterfaceOf,
    model::{Finding, PeerCounts, Subject},
    peers::{History, ends, spoke},
    sink::escape,
};

/// At most this many peers are listed in the account of a run.
const LISTED_MAX: usize = 5;

/// The history of a run. Findings rest on that of addresses: a replay has no names of interfaces, and
/// prints what the live run printed.
#[derive(Debug, Default)]
pub struct PeerBook {
    by_address: History,
    /// By the names of interfaces, if there are any.
    by_name: Option<History>,
    /// Peers that answered a connection without MPTCP that is one of the user's; at most as many as
    /// the history has.
    fallen: BTreeSet<String>,
    interface_of: Option<InterfaceOf>,
}

impl PeerBook {
    /// An empty history whose interfaces are named by this function.
    #[must_use]
    pub fn naming(interface_of: InterfaceOf) -> Self {
        Self {
            by_name: Some(History::default()),
            interface_of: Some(interface_of),
            ..Self::default()
        }
    }

    /// Counts a finding. A fallback gets what is known of its peer then, itself included; `is_wanted`
    /// says whether it is one of those that the run is about.
    pub(super) fn take(&mut self, finding: &mut Finding, is_wanted: &dyn Fn(&Finding) -> bool) {
        let Some(mptcp) = spoke(finding) else {
            return;
        };
        let subject = Subject::of(finding);
        let Some([local, remote]) = ends(&subject) else {
            return;
        };
        let (peer, address) = (remote.to_string(), local.to_string());
        self.by_address.take(&peer, &address, mptcp);
        if let Some(by_name) = &mut self.by_name {
            let name = self.interface_of.and_then(|of| of(subject.netns, local));
            by_name.take(&peer, name.as_deref().unwrap_or(&address), mptcp);
        }
        if mptcp {
            return;
        }
        let history = self.by_address.of(&peer).map(Box::new);
        if history.is_some() && is_wanted(finding) {
            self.fallen.insert(peer);
        }
        if let Finding::Connection(event) = finding {
            event.history = history;
        }
    }

    fn best(&self) -> &History {
        self.by_name.as_ref().unwrap_or(&self.by_address)
    }

    /// For how many peers each conclusion holds.
    pub(super) fn counts(&self) -> PeerCounts {
        self.best().counts()
    }

    /// What follows at the end: a line for each peer that fell back, if the numbers tell.
    pub(super) fn account(&self) -> String {
        let mut text = String::new();
        let told = self.fallen.iter().filter_map(|peer| {
            let sentence = self.best().of(peer)?.sentence()?;
            Some((peer, sentence))
        });
        for (number, (peer, sentence)) in told.enumerate() {
            if number == LISTED_MAX {
                text.push_str("more peers are like that: --by dest lists all\n");
                break;
            }
            // Writing to memory does not fail.
            let _infallible = writeln!(text, "{peer}: {}", escape(&sentence));
        }
        text
    }
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
