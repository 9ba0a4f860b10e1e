//! Scenarios: what applications query, and when, on connections that fall back or do not, with the
//! expected verdicts.

use super::scripts::{self, Script};
use crate::{
    recipes::{DROP_CAPABLE_SYNS, Place, STRIP_BOTH_AFTER_3, STRIP_SYN_ACK, Sysctl},
    rules::Rules,
};

/// The socket concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum At {
    /// The connecting socket.
    Client,
    /// The accepted socket.
    Server,
    /// The listening socket.
    Listener,
}

/// Expected verdicts of one socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) at: At,
    /// Index of the connection, in the order in which the script creates them.
    pub(super) connection: usize,
    /// Verdicts on the answers in order, with consecutive repeats collapsed.
    pub(super) told: &'static [&'static str],
    pub(super) at_end: Option<&'static str>,
    /// Accepted causes, wherever a verdict names one.
    pub(super) causes: &'static [&'static str],
    /// Whether the API exists also on kernels without `TCP_IS_MPTCP`.
    pub(super) everywhere: bool,
    /// Verdicts allowed instead with an attach method one of whose limits contains this word.
    pub(super) limited: Option<(&'static str, &'static [&'static str])>,
}

impl Expected {
    /// Verdicts on the answers on this kernel.
    pub(super) fn told_here(&self, has_option: bool) -> &'static [&'static str] {
        if self.told.is_empty() || has_option || self.everywhere {
            self.told
        } else {
            &["unsupported"]
        }
    }

    /// Closing verdict on this kernel: an application that got no answer holds no wrong belief. One
    /// that queries only the second connection of a socket never queried the first.
    pub(super) fn at_end_here(&self, has_option: bool) -> Option<&'static str> {
        let is_told = self.told.is_empty() || has_option || self.everywhere;
        self.at_end.filter(|word| is_told || *word == NEVER)
    }
}

/// Optional requirement of a scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// A Python interpreter.
    Python,
    /// The program in Go (lab/go).
    Go,
    /// The same, as a 32-bit program.
    Go32,
}

/// Applications, their queries, and the environment.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) rules: Rules,
    /// Sysctls to set in both namespaces.
    pub(super) sysctls: &'static [Sysctl],
    /// Actions before the tracer's start.
    pub(super) before: Option<Script>,
    /// Actions while the tracer runs.
    pub(super) script: Script,
    pub(super) expected: &'static [Expected],
    /// Answers that the kernel must give, by query name.
    pub(super) answers: &'static [(&'static str, &'static str)],
    /// Expected periods in which MPTCP is disabled in the client's namespace, milliseconds.
    pub(super) off_ms: &'static [u64],
    pub(super) needs: &'static [Need],
}

const SYN_ACK: &[&str] = &["MPCapableFallbackSYNACK"];
const THIRD_ACK: &[&str] = &["MPCapableFallbackACK"];
const DSS: &[&str] = &["DssFallback"];

const EXPLAINED: &[&str] = &["explained"];
const STILL: &[&str] = &["still-mptcp"];
const NEVER: &str = "never-asked";
const EARLY: &[&str] = &["too-early"];
const UNEXPLAINED: &[&str] = &["unexplained"];
const PLAIN: &[&str] = &["plain-tcp"];
const FELL: &[&str] = &["still-mptcp", "explained"];

const NOTHING: Expected = Expected {
    at: At::Client,
    connection: 0,
    told: &[],
    at_end: None,
    causes: &[],
    everywhere: false,
    limited: None,
};
const SERVER: Expected = Expected {
    at: At::Server,
    ..NOTHING
};

pub(super) const fn client(
    told: &'static [&'static str],
    causes: &'static [&'static str],
) -> Expected {
    Expected {
        told,
        causes,
        ..NOTHING
    }
}

const fn server(told: &'static [&'static str], causes: &'static [&'static str]) -> Expected {
    Expected {
        told,
        causes,
        ..SERVER
    }
}

const fn then(row: Expected, at_end: &'static str) -> Expected {
    Expected {
        at_end: Some(at_end),
        ..row
    }
}

/// Uses an API that every kernel with MPTCP has.
const fn everywhere(row: Expected) -> Expected {
    Expected {
        everywhere: true,
        ..row
    }
}

const EMPTY: Scenario = Scenario {
    name: "",
    place: Place::Middlebox,
    rules: Rules::NONE,
    sysctls: &[],
    before: None,
    script: scripts::healthy,
    expected: &[],
    answers: &[],
    off_ms: &[],
    needs: &[],
};
const BOTH_TCP: &[(&str, &str)] = &[("client-after", "0"), ("server-after", "0")];
const BOTH_MPTCP: &[(&str, &str)] = &[("client-after", "1"), ("server-after", "1")];
const BOTH_MPTCP_BEFORE: &[(&str, &str)] = &[("client-before", "1"), ("server-before", "1")];
const OFF: &[Sysctl] = &[Sysctl {
    name: "net.mptcp.enabled",
    value: "0",
    must: true,
}];

const OFF_FOR_A_MINUTE: &[Sysctl] = &[
    Sysctl {
        name: "net.mptcp.blackhole_timeout",
        value: "60",
        must: true,
    },
    // The first retransmitted SYN is already without MPTCP.
    Sysctl {
        name: "net.mptcp.syn_retrans_before_tcp_fallback",
        value: "0",
        must: false,
    },
];

/// Every scenario, in the order of execution.
#[rustfmt::skip] // a table: about a line each
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "explained", script: scripts::to_tcp, expected: &[client(EXPLAINED, SYN_ACK), server(PLAIN, &[])],
               answers: BOTH_TCP, ..EMPTY },
    Scenario { name: "explained-at-once", script: scripts::asked_at_once, expected: &[client(EXPLAINED, SYN_ACK)],
               answers: &[("client-after", "0")], ..EMPTY },
    Scenario { name: "explained-midway", rules: STRIP_BOTH_AFTER_3, script: scripts::asked_after_many,
               expected: &[client(EXPLAINED, DSS), server(EXPLAINED, DSS)], answers: BOTH_TCP, ..EMPTY },
    Scenario { name: "explained-handshake", rules: STRIP_SYN_ACK, script: scripts::asked_after_one,
               expected: &[client(EXPLAINED, SYN_ACK), Expected { limited: Some(("MPCapableFallbackACK", PLAIN)), ..server(EXPLAINED, THIRD_ACK) }],
               answers: BOTH_TCP, ..EMPTY },
    Scenario { name: "plain-tcp", script: scripts::from_tcp, expected: &[client(PLAIN, &[]), server(PLAIN, &[])],
               answers: BOTH_TCP, ..EMPTY },
    Scenario { name: "still-mptcp", expected: &[client(STILL, &[]), server(STILL, &[])], answers: BOTH_MPTCP, ..EMPTY },
    Scenario { name: "two-paths", place: Place::TwoPaths, script: scripts::asked_on_two_paths,
               expected: &[client(STILL, &[]), server(STILL, &[])], answers: BOTH_MPTCP, ..EMPTY },
    Scenario { name: "first-path-lost", place: Place::TwoPaths, script: scripts::asked_around_the_loss_of_a_path,
               expected: &[client(STILL, &[]), server(STILL, &[])],
               answers: &[("client-before", "1"), ("server-before", "1"), ("client-after", "1"), ("server-after", "1")], ..EMPTY },
    Scenario { name: "too-early-then-tcp", script: scripts::asked_too_early_then_tcp,
               expected: &[then(client(EARLY, SYN_ACK), "too-early")], answers: &[("client-before", "1")], ..EMPTY },
    Scenario { name: "too-early-then-mptcp", script: scripts::asked_too_early_then_mptcp, expected: &[client(EARLY, &[])],
               answers: &[("client-before", "1")], ..EMPTY },
    Scenario { name: "too-early-then-right", script: scripts::asked_too_early_and_after,
               expected: &[client(&["too-early", "explained"], SYN_ACK)],
               answers: &[("client-before", "1"), ("client-after", "0")], ..EMPTY },
    Scenario { name: "too-early-listener", script: scripts::asked_listener,
               expected: &[Expected { at: At::Listener, told: EARLY, ..NOTHING }, server(PLAIN, &[])],
               answers: &[("listener", "1"), ("server-after", "0")], ..EMPTY },
    Scenario { name: "stale", rules: STRIP_BOTH_AFTER_3, script: scripts::asked_before_many,
               expected: &[then(client(STILL, DSS), "stale"), then(server(STILL, DSS), "stale")],
               answers: BOTH_MPTCP_BEFORE, ..EMPTY },
    Scenario { name: "never-asked", script: scripts::never_asked, expected: &[then(client(&[], SYN_ACK), "never-asked")],
               ..EMPTY },
    Scenario { name: "never-asked-midway", rules: STRIP_BOTH_AFTER_3, script: scripts::never_asked_midway,
               expected: &[then(client(&[], DSS), "never-asked"), then(server(&[], DSS), "never-asked")], ..EMPTY },
    Scenario { name: "poller", rules: STRIP_BOTH_AFTER_3, script: scripts::polled,
               expected: &[client(FELL, DSS), server(FELL, DSS)], ..EMPTY },
    Scenario { name: "unexplained", before: Some(scripts::never_asked), script: scripts::asked_client,
               expected: &[client(UNEXPLAINED, &[])], answers: &[("client-after", "0")], ..EMPTY },
    Scenario { name: "unexplained-midway", rules: STRIP_BOTH_AFTER_3, before: Some(scripts::never_asked_midway),
               script: scripts::asked_both, expected: &[client(UNEXPLAINED, &[]), server(UNEXPLAINED, &[])],
               answers: BOTH_TCP, ..EMPTY },
    Scenario { name: "stale-of-old", rules: STRIP_BOTH_AFTER_3, before: Some(scripts::begun),
               script: scripts::asked_before_rest,
               expected: &[then(client(STILL, DSS), "stale"), then(server(STILL, DSS), "stale")],
               answers: BOTH_MPTCP_BEFORE, ..EMPTY },
    // The first connection fell back, and ends when the socket connects again.
    Scenario { name: "reconnect", script: scripts::reconnected,
               expected: &[Expected { connection: 1, ..then(client(&["too-early", "still-mptcp"], SYN_ACK), "never-asked") }],
               answers: &[("client-disconnected", "1"), ("client-second", "1")], ..EMPTY },
    Scenario { name: "reconnect-asked", script: scripts::reconnected_asked,
               expected: &[Expected { connection: 1, ..client(&["explained", "too-early", "still-mptcp", "explained"], SYN_ACK) }],
               answers: &[("client-first", "0"), ("client-disconnected", "1"), ("client-second", "1"), ("client-third", "0")],
               ..EMPTY },
    Scenario { name: "misled", script: scripts::misled_after, expected: &[everywhere(client(&["misled"], SYN_ACK))],
               answers: &[("client-after", "262")], ..EMPTY },
    Scenario { name: "misled-before", rules: STRIP_BOTH_AFTER_3, script: scripts::misled_before,
               expected: &[then(everywhere(client(STILL, DSS)), "misled"), then(everywhere(server(STILL, DSS)), "misled")],
               answers: &[("client-before", "262"), ("server-before", "262")], ..EMPTY },
    Scenario { name: "asked-otherwise", rules: STRIP_BOTH_AFTER_3, script: scripts::asked_otherwise,
               expected: &[everywhere(client(FELL, DSS)), everywhere(server(FELL, DSS))], ..EMPTY },
    Scenario { name: "asked-full-info", rules: STRIP_BOTH_AFTER_3, script: scripts::asked_full_info,
               expected: &[everywhere(client(FELL, DSS)), everywhere(server(FELL, DSS))], ..EMPTY },
    Scenario { name: "socket-refused", sysctls: OFF, script: scripts::refused, answers: &[("socket", "ENOPROTOOPT")],
               ..EMPTY },
    Scenario { name: "option-refused", script: scripts::options_of_mptcp,
               answers: &[("TCP_MD5SIG before", "ENOPROTOOPT"), ("TCP_ULP before", "ENOPROTOOPT"), ("TCP_MD5SIG after", "ENOPROTOOPT"), ("TCP_ULP after", "ENOPROTOOPT")],
               ..EMPTY },
    Scenario { name: "option-refused-by-tcp", script: scripts::options_of_tcp,
               expected: &[then(client(&[], SYN_ACK), "never-asked")], ..EMPTY },
    Scenario { name: "option-refused-midway", rules: STRIP_BOTH_AFTER_3, script: scripts::options_midway,
               expected: &[then(client(&[], DSS), "never-asked"), then(server(&[], DSS), "never-asked")], ..EMPTY },
    Scenario { name: "switched-off", rules: DROP_CAPABLE_SYNS, sysctls: OFF_FOR_A_MINUTE, script: scripts::switched_off,
               expected: &[client(EXPLAINED, &["MPCapableSYNTXDrop"]), server(PLAIN, &[]), Expected { connection: 1, ..client(EXPLAINED, &["MPCapableSYNTXDisabled"]) }, Expected { connection: 1, ..server(PLAIN, &[]) }],
               answers: BOTH_TCP, off_ms: &[60_000], ..EMPTY },
    Scenario { name: "python", script: scripts::python, expected: &[client(EXPLAINED, SYN_ACK)],
               answers: &[("client-after", "0")], needs: &[Need::Python], ..EMPTY },
    Scenario { name: "go-to-tcp", script: scripts::go_to_tcp, expected: &[everywhere(client(EXPLAINED, SYN_ACK))],
               answers: &[("client-after", "false")], needs: &[Need::Go], ..EMPTY },
    Scenario { name: "go-to-mptcp", script: scripts::go_to_mptcp,
               expected: &[everywhere(client(STILL, &[])), server(STILL, &[])],
               answers: &[("client-after", "true"), ("server-after", "1")], needs: &[Need::Go], ..EMPTY },
    Scenario { name: "go-32bit-to-tcp", script: scripts::go_32bit_to_tcp, expected: &[everywhere(client(EXPLAINED, SYN_ACK))],
               answers: &[("client-after", "false")], needs: &[Need::Go32], ..EMPTY },
    Scenario { name: "go-32bit-to-mptcp", script: scripts::go_32bit_to_mptcp,
               expected: &[everywhere(client(STILL, &[])), server(STILL, &[])],
               answers: &[("client-after", "true"), ("server-after", "1")], needs: &[Need::Go32], ..EMPTY },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_scenario_has_a_name_of_its_own_and_every_verdict_that_can_be_provoked_is_expected() {
        let names: BTreeSet<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        let words: BTreeSet<&str> = SCENARIOS
            .iter()
            .flat_map(|scenario| scenario.expected)
            .flat_map(|row| row.told.iter().copied().chain(row.at_end))
            .collect();
        // "contradicted" is a bug, and "unsupported" is every answer on a kernel without the
        // option.
        let known = [
            "explained",
            "misled",
            "never-asked",
            "plain-tcp",
            "stale",
            "still-mptcp",
            "too-early",
            "unexplained",
        ];
        assert_eq!(words, BTreeSet::from(known));
    }

    #[test]
    fn a_kernel_without_the_option_leaves_no_belief() {
        let row = then(client(STILL, DSS), "stale");
        assert_eq!(row.told_here(true), STILL);
        assert_eq!(row.at_end_here(true), Some("stale"));
        assert_eq!(row.told_here(false), ["unsupported"]);
        assert_eq!(row.at_end_here(false), None);
        let never = then(client(&[], DSS), "never-asked");
        assert_eq!(never.at_end_here(false), Some("never-asked"));
        assert_eq!(everywhere(row).at_end_here(false), Some("stale"));
        let again = then(client(&["still-mptcp"], DSS), "never-asked");
        assert_eq!(again.at_end_here(false), Some("never-asked"));
    }
}
