//! The recipes: every way in which an MPTCP connection is known to fall back, as a row of a table: what the
//! middlebox does, what the ends do, and what there is to be found out about it.

use crate::rules::{Rules, Treatment};

mod scripts;
mod stage;

pub use stage::{Aim, Cleared, Held, Stage, TestBed, Tried, Who};

/// Why a recipe has no end on this kernel.
#[derive(Clone, Copy, Debug)]
pub struct NotHere(pub &'static str);

impl std::fmt::Display for NotHere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotHere {}

/// Where a recipe is played.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Over loopback, in one namespace.
    Loopback,
    /// Through a middlebox, in two.
    Middlebox,
}

/// An end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// What connected.
    Client,
    /// What was accepted, or might have been.
    Server,
}

/// What a line is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The connection fell back.
    Fallback,
    /// A plain TCP connection at an MPTCP listener.
    Plain,
}

/// One line that must be found.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// At which end.
    pub at: End,
    /// What.
    pub finding: Finding,
    /// Which causes are right; none for what has no cause.
    pub causes: &'static [&'static str],
    /// Number of the connection, as the script makes them.
    pub connection: usize,
    /// Who may be named its owner.
    pub owner: &'static [Who],
    /// One of these must be among the evidence; nothing is asked for if there is none.
    pub evidence: &'static [&'static str],
    /// It was fallen back before it had its addresses.
    pub early: bool,
    /// It happens only on kernels that have this counter.
    pub only_with: Option<&'static str>,
}

/// Something to set in a network namespace.
#[derive(Clone, Copy, Debug)]
pub struct Sysctl {
    /// Its name.
    pub name: &'static str,
    /// To what.
    pub value: &'static str,
    /// A kernel without it cannot play the recipe.
    pub must: bool,
}

/// A way to fall back, or not to.
pub struct Recipe {
    /// Its name.
    pub name: &'static str,
    /// Where it is played.
    pub place: Place,
    /// What the middlebox does.
    pub rules: Rules,
    /// What is set in both namespaces.
    pub sysctls: &'static [Sysctl],
    /// What the ends do.
    pub script: fn(&mut Stage) -> anyhow::Result<()>,
    /// What there is to be found.
    pub expected: &'static [Expected],
    /// What the kernel must have said when asked.
    pub answers: &'static [(&'static str, &'static str)],
}

/// Counters that count fallbacks, one each.
pub const FALLBACK_COUNTERS: [&str; 11] = [
    "MPCapableFallbackACK",
    "MPCapableFallbackSYNACK",
    "MPCapableSYNTXDrop",
    "MPCapableSYNTXDisabled",
    "MPFallbackTokenInit",
    "DSSCorruptionFallback",
    "InfiniteMapTx",
    "MPCapableDataFallback",
    "MD5SigFallback",
    "DssFallback",
    "SimultConnectFallback",
];
/// Counters of fallbacks that were refused.
pub const REFUSED_COUNTERS: [&str; 2] = ["FallbackFailed", "DSSCorruptionReset"];

const SYN_ACK: &[&str] = &["MPCapableFallbackSYNACK"];
const THIRD_ACK: &[&str] = &["MPCapableFallbackACK"];
const DATA: &[&str] = &["MPCapableDataFallback"];
const DSS: &[&str] = &["DssFallback"];

const NO_DSS: &[&str] = &["no-dss", "invalid-mapping"];

const fn found(at: End, causes: &'static [&'static str]) -> Expected {
    Expected {
        at,
        finding: Finding::Fallback,
        causes,
        connection: 0,
        owner: match at {
            End::Client => &[Who::Client],
            End::Server => &[Who::Server],
        },
        evidence: &[],
        early: false,
        only_with: None,
    }
}

/// The client falls back.
pub const fn client(causes: &'static [&'static str]) -> Expected {
    found(End::Client, causes)
}

/// The server falls back.
pub const fn server(causes: &'static [&'static str]) -> Expected {
    found(End::Server, causes)
}

const PLAIN: Expected = Expected {
    finding: Finding::Plain,
    ..server(&[])
};
const CLIENT_NO_DSS: Expected = Expected {
    evidence: NO_DSS,
    ..client(DSS)
};
const SERVER_NO_DSS: Expected = Expected {
    evidence: NO_DSS,
    ..server(DSS)
};

const NO_SYN: Treatment = Treatment {
    strip_syn: true,
    ..Treatment::NONE
};
const NO_MORE: Treatment = Treatment {
    strip_from: Some(0),
    ..Treatment::NONE
};
const NONE_AFTER_3: Treatment = Treatment {
    strip_from: Some(4),
    ..Treatment::NONE
};

/// Rules for what the client sends.
const fn to_server(to_server: Treatment) -> Rules {
    Rules {
        to_server,
        to_client: Treatment::NONE,
    }
}

/// Rules for what the server sends.
const fn to_client(to_client: Treatment) -> Rules {
    Rules {
        to_server: Treatment::NONE,
        to_client,
    }
}

/// The SYN/ACK is stripped.
pub const STRIP_SYN_ACK: Rules = to_client(NO_SYN);
/// SYNs that ask for MPTCP never arrive.
pub const DROP_CAPABLE_SYNS: Rules = to_server(Treatment {
    drop_capable_syn: true,
    ..Treatment::NONE
});
/// Both directions are stripped from the fourth data packet on.
pub const STRIP_BOTH_AFTER_3: Rules = Rules {
    to_server: NONE_AFTER_3,
    to_client: NONE_AFTER_3,
};

const NOTHING: Recipe = Recipe {
    name: "",
    place: Place::Middlebox,
    rules: Rules::NONE,
    sysctls: &[],
    script: scripts::healthy,
    expected: &[],
    answers: &[],
};
const CHECKSUMS: &[Sysctl] = &[Sysctl {
    name: "net.mptcp.checksum_enabled",
    value: "1",
    must: true,
}];
const FELL_MIDWAY: &[(&str, &str)] = &[
    ("client-before", "1"),
    ("server-before", "1"),
    ("client-after", "0"),
    ("server-after", "0"),
];
const BOTH_TCP: &[(&str, &str)] = &[("client-after", "0"), ("server-after", "0")];
const STRIPPED_AFTER_3: Recipe = Recipe {
    script: scripts::midway,
    expected: &[CLIENT_NO_DSS, SERVER_NO_DSS],
    answers: FELL_MIDWAY,
    ..NOTHING
};
const STRIPPED_SYN_ACK: Recipe = Recipe {
    rules: STRIP_SYN_ACK,
    script: scripts::to_mptcp_listener,
    expected: &[client(SYN_ACK), server(THIRD_ACK)],
    answers: BOTH_TCP,
    ..NOTHING
};
const TO_TCP: Recipe = Recipe {
    script: scripts::to_tcp_listener,
    expected: &[client(SYN_ACK)],
    answers: BOTH_TCP,
    ..NOTHING
};
const FROM_TCP: Recipe = Recipe {
    script: scripts::from_tcp,
    expected: &[PLAIN],
    answers: BOTH_TCP,
    ..NOTHING
};

/// Every recipe, in the order in which they are played.
pub const RECIPES: &[Recipe] = &[
    Recipe {
        name: "healthy",
        answers: &[("client-after", "1"), ("server-after", "1")],
        ..NOTHING
    },
    Recipe {
        name: "mptcp-to-tcp-listener",
        ..TO_TCP
    },
    Recipe {
        name: "mptcp-to-tcp-listener-loopback",
        place: Place::Loopback,
        ..TO_TCP
    },
    Recipe {
        name: "tcp-to-mptcp-listener",
        ..FROM_TCP
    },
    Recipe {
        name: "tcp-to-mptcp-listener-loopback",
        place: Place::Loopback,
        ..FROM_TCP
    },
    Recipe {
        name: "strip-syn",
        rules: to_server(NO_SYN),
        script: scripts::to_mptcp_listener,
        expected: &[client(SYN_ACK), PLAIN],
        answers: BOTH_TCP,
        ..NOTHING
    },
    Recipe {
        name: "strip-synack",
        ..STRIPPED_SYN_ACK
    },
    Recipe {
        name: "strip-client-non-syn",
        rules: to_server(NO_MORE),
        script: scripts::server_speaks_first,
        expected: &[client(DATA), server(THIRD_ACK)],
        answers: &[
            ("client-before", "1"),
            ("server-before", "0"),
            ("client-after", "0"),
            ("server-after", "0"),
        ],
        ..NOTHING
    },
    Recipe {
        name: "strip-server-non-syn",
        rules: to_client(NO_MORE),
        script: scripts::server_speaks_first,
        expected: &[client(DATA), SERVER_NO_DSS],
        answers: FELL_MIDWAY,
        ..NOTHING
    },
    Recipe {
        name: "strip-client-after-3",
        rules: to_server(NONE_AFTER_3),
        ..STRIPPED_AFTER_3
    },
    Recipe {
        name: "strip-server-after-3",
        rules: to_client(NONE_AFTER_3),
        ..STRIPPED_AFTER_3
    },
    Recipe {
        name: "strip-both-after-3",
        rules: STRIP_BOTH_AFTER_3,
        ..STRIPPED_AFTER_3
    },
    Recipe {
        name: "dss-length-short-after-3",
        rules: to_server(Treatment {
            shorten_dss_from: Some(4),
            ..Treatment::NONE
        }),
        script: scripts::midway_spoilt,
        expected: &[CLIENT_NO_DSS, server(&["DSSCorruptionFallback"])],
        answers: FELL_MIDWAY,
        ..NOTHING
    },
    Recipe {
        name: "subflow-seq-wrong",
        rules: to_server(Treatment {
            skew_subflow_seq_from: Some(4),
            ..Treatment::NONE
        }),
        script: scripts::midway_spoilt,
        expected: &[
            CLIENT_NO_DSS,
            Expected {
                evidence: &["invalid-mapping"],
                ..server(DSS)
            },
        ],
        answers: FELL_MIDWAY,
        ..NOTHING
    },
    Recipe {
        name: "checksum-corrupt-first",
        rules: to_server(Treatment {
            flip_payload_at: Some(1),
            ..Treatment::NONE
        }),
        sysctls: CHECKSUMS,
        script: scripts::spoilt_at_once,
        expected: &[
            client(DATA),
            Expected {
                evidence: &["bad-checksum"],
                ..server(DSS)
            },
        ],
        answers: FELL_MIDWAY,
        ..NOTHING
    },
    Recipe {
        name: "checksum-corrupt-fourth",
        rules: to_server(Treatment {
            flip_payload_at: Some(4),
            ..Treatment::NONE
        }),
        sysctls: CHECKSUMS,
        script: scripts::midway_spoilt,
        expected: &[
            Expected {
                evidence: &["mp-fail-received", "infinite-mapping-sent"],
                ..client(&["InfiniteMapTx"])
            },
            Expected {
                evidence: &["infinite-mapping-received", "mp-fail-sent", "bad-checksum"],
                ..server(DSS)
            },
        ],
        answers: FELL_MIDWAY,
        ..NOTHING
    },
    Recipe {
        name: "drop-capable-syns",
        rules: DROP_CAPABLE_SYNS,
        // The first SYN that is sent again is the one without MPTCP.
        sysctls: &[Sysctl {
            name: "net.mptcp.syn_retrans_before_tcp_fallback",
            value: "0",
            must: false,
        }],
        script: scripts::dropped_syns,
        expected: &[
            Expected {
                only_with: Some("MPCapableSYNTXDrop"),
                ..client(&["MPCapableSYNTXDrop"])
            },
            Expected {
                only_with: Some("MPCapableSYNTXDrop"),
                ..PLAIN
            },
            Expected {
                only_with: Some("MPCapableSYNTXDrop"),
                connection: 1,
                early: true,
                ..client(&["MPCapableSYNTXDisabled"])
            },
            Expected {
                only_with: Some("MPCapableSYNTXDrop"),
                connection: 1,
                ..PLAIN
            },
        ],
        ..NOTHING
    },
    Recipe {
        name: "self-connect",
        place: Place::Loopback,
        script: scripts::to_itself,
        expected: &[client(&["SimultConnectFallback"])],
        answers: &[("client-after", "0")],
        ..NOTHING
    },
    Recipe {
        name: "disconnect",
        script: scripts::disconnected,
        expected: &[
            client(SYN_ACK),
            Expected {
                connection: 2,
                ..client(SYN_ACK)
            },
        ],
        answers: &[
            ("client-first", "0"),
            ("client-disconnected", "1"),
            ("client-second", "1"),
            ("client-third", "0"),
        ],
        ..NOTHING
    },
    Recipe {
        name: "sysctl-off",
        sysctls: &[Sysctl {
            name: "net.mptcp.enabled",
            value: "0",
            must: true,
        }],
        script: scripts::switched_off,
        answers: &[("socket", "ENOPROTOOPT"), ("client-after", "0")],
        ..NOTHING
    },
    Recipe {
        name: "threaded-client",
        script: scripts::threaded_client,
        ..TO_TCP
    },
    Recipe {
        name: "inherited-fd",
        script: scripts::inherited,
        expected: &[Expected {
            owner: &[Who::ClientChild],
            ..client(SYN_ACK)
        }],
        answers: &[],
        ..TO_TCP
    },
    Recipe {
        name: "passed-fd",
        rules: STRIP_BOTH_AFTER_3,
        script: scripts::passed,
        expected: &[
            Expected {
                owner: &[Who::Client, Who::Other],
                ..CLIENT_NO_DSS
            },
            SERVER_NO_DSS,
        ],
        answers: &[],
        ..NOTHING
    },
    Recipe {
        name: "forked-server",
        rules: STRIP_BOTH_AFTER_3,
        script: scripts::forked_server,
        expected: &[
            CLIENT_NO_DSS,
            Expected {
                owner: &[Who::Server, Who::ServerChild],
                ..SERVER_NO_DSS
            },
        ],
        answers: &[],
        ..NOTHING
    },
    Recipe {
        name: "not-yet-accepted",
        script: scripts::accepted_late,
        expected: &[
            client(SYN_ACK),
            Expected {
                owner: &[Who::ServerChild],
                ..server(THIRD_ACK)
            },
        ],
        answers: &[],
        ..STRIPPED_SYN_ACK
    },
    Recipe {
        name: "never-accepted",
        script: scripts::never_accepted,
        answers: &[],
        ..STRIPPED_SYN_ACK
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_recipe_has_a_name_of_its_own() {
        let names: BTreeSet<_> = RECIPES.iter().map(|recipe| recipe.name).collect();
        assert_eq!(names.len(), RECIPES.len());
        assert!(!names.contains(""));
    }

    #[test]
    fn every_cause_is_a_counter_and_every_counter_that_can_be_provoked_is_a_cause() {
        let causes: BTreeSet<_> = RECIPES
            .iter()
            .flat_map(|recipe| recipe.expected)
            .flat_map(|expected| expected.causes)
            .copied()
            .collect();
        let counters = BTreeSet::from(FALLBACK_COUNTERS);
        assert!(causes.is_subset(&counters));
        let left: Vec<_> = counters.difference(&causes).copied().collect();
        // No room for a token, and TCP_MD5SIG on an MPTCP socket: neither can be had from user space.
        assert_eq!(left, ["MD5SigFallback", "MPFallbackTokenInit"]);
    }
}
