//! Words that lines have besides causes, explained: why no second path was tried, and the reasons
//! in an RST.

use super::{FINGERPRINTS, NeverTried, ResetReason};

/// A word, explained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Term {
    /// The word, as lines have it.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do next.
    pub next: &'static str,
}

/// Why no second path was tried, in the order of [`NeverTried::ALL`].
pub const NEVER_TRIED: [Term; NeverTried::ALL.len()] = [
    Term {
        name: "not-established",
        meaning: "Nothing came back from the peer that completes the handshake at both ends, and \
                  before that no path may join. This is normal if the peer sends no data.",
        next: "ss -tiM",
    },
    Term {
        name: "userspace-pm",
        meaning: "A program should manage the paths, and it opened none.",
        next: "sysctl net.mptcp.pm_type net.mptcp.path_manager; is mptcpd running?",
    },
    Term {
        name: "limit-0",
        meaning: "The path manager of this host allows no second path.",
        next: "ip mptcp limits show, then: ip mptcp limits set subflows 2",
    },
    Term {
        name: "add-addr-limit-0",
        meaning: "The peer announced another address, but this host may use none.",
        next: "ip mptcp limits show, then: ip mptcp limits set add_addr_accepted 2",
    },
    Term {
        name: "peer-denies-id0",
        meaning: "The peer wants no joins to its initial address, and announced no other one. \
                  Servers behind a load balancer say so.",
        next: "on the peer: ip mptcp endpoint show (is there a `signal` endpoint?)",
    },
    Term {
        name: "no-endpoint",
        meaning: "This host has no endpoint of the kind `subflow`: there is no address to join \
                  from. Where announced addresses are not traced (attach method tracepoint), the \
                  peer may have announced one that this host may not use (`add_addr_accepted`).",
        next: "ip mptcp endpoint show; ip mptcp limits show; then: ip mptcp endpoint add ADDRESS \
               dev DEVICE subflow",
    },
    Term {
        name: "only-endpoint-in-use",
        meaning: "No endpoint of the kind `subflow` was left to join from: the only one is the \
                  address of the first path, or the endpoint is only announced (`signal`).",
        next: "ip mptcp endpoint show, then: ip mptcp endpoint add ADDRESS dev DEVICE subflow",
    },
    Term {
        name: "no-join-came",
        meaning: "The peer opened the connection, and decides about its paths; no join of it \
                  arrived. It has no endpoint to join from, or its joins are lost or stripped on \
                  the way, or arrive where nothing listens, or at another host behind the same \
                  load balancer.",
        next: "on the peer: mptcp-trace --kind path,closed",
    },
    Term {
        name: "unknown",
        meaning: "The path manager had an endpoint and was allowed to join, and no join was seen. \
                  The connection may have been too short, the endpoint may have another address \
                  family than the peer, or an address that this host does not have, or its device \
                  may be down: then the kernel counts MPJoinSynTxBindErr or MPJoinSynTxConnectErr.",
        next: "nstat -az 'MPTcpExtMPJoinSynTx*'; ip mptcp endpoint show; ip address",
    },
];

/// The reasons in an RST, by their code.
pub const RESET_REASONS: [Term; ResetReason::NAMES.len()] = [
    Term {
        name: "unspecified",
        meaning: "Code 0: the peer gives no reason. Linux says so when a path is closed by an \
                  administrator, after a fast close, and when it answers another RST.",
        next: "on the peer: mptcp-trace --kind path",
    },
    Term {
        name: "mptcp-error",
        meaning: "Code 1: the MPTCP options make no sense to the peer: it does not know the \
                  connection, or an option is missing or wrong where it must be.",
        next: "on both ends: tcpdump -v tcp port PORT (do the `mptcp` options arrive as they were sent?)",
    },
    Term {
        name: "no-resources",
        meaning: "Code 2: the peer has no resources for the path. Linux does not send it.",
        next: "on the peer: free -m",
    },
    Term {
        name: "prohibited",
        meaning: "Code 3: the path is administratively prohibited: the peer's path manager accepts \
                  no more paths, or none on this port.",
        next: "on the peer: ip mptcp limits show; ip mptcp endpoint show",
    },
    Term {
        name: "too-much-data",
        meaning: "Code 4: too much data is outstanding on another path. Linux does not send it.",
        next: "ss -tiM",
    },
    Term {
        name: "bad-performance",
        meaning: "Code 5: the path is too slow, or loses too much. Linux does not send it.",
        next: "ss -tiM",
    },
    Term {
        name: "middlebox",
        meaning: "Code 6: the peer noticed a middlebox that changes data or strips options.",
        next: "on both ends: tcpdump -v tcp port PORT (where do the `mptcp` options end?)",
    },
];

impl NeverTried {
    /// Its explanation.
    #[must_use]
    pub fn term(self) -> &'static Term {
        let mut all = NEVER_TRIED.iter();
        let found = all.find(|term| term.name == self.name());
        found.unwrap_or(&const { NEVER_TRIED[NEVER_TRIED.len() - 1] })
    }
}

impl ResetReason {
    /// Its explanation, if the code is known.
    #[must_use]
    pub fn term(self) -> Option<&'static Term> {
        RESET_REASONS.get(usize::from(self.code))
    }
}

/// Looks a word up, ignoring case.
#[must_use]
pub fn find_term(name: &str) -> Option<&'static Term> {
    let mut all = NEVER_TRIED
        .iter()
        .chain(&RESET_REASONS)
        .chain(&FINGERPRINTS);
    all.find(|term| term.name.eq_ignore_ascii_case(name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_its_explanation_and_no_other() {
        assert_eq!(
            NEVER_TRIED.map(|it| it.name),
            NeverTried::ALL.map(NeverTried::name)
        );
        assert_eq!(RESET_REASONS.map(|it| it.name), ResetReason::NAMES);
        for (code, term) in (0..).zip(RESET_REASONS) {
            assert!(
                term.meaning.starts_with(&format!("Code {code}: ")),
                "{term:?}"
            );
        }
        for reason in NeverTried::ALL {
            assert_eq!(reason.term().name, reason.name());
        }
        for term in NEVER_TRIED.iter().chain(&RESET_REASONS) {
            assert_eq!(find_term(&term.name.to_uppercase()), Some(term));
            assert!(!term.next.is_empty());
        }
    }
}
