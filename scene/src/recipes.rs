//! The recipes: every known way for an MPTCP connection to fall back, as one table row each: what
//! the middlebox does, what the ends do, and what the tracer is expected to find.

use crate::rules::{Rules, Treatment};

mod bed;
mod cast;
mod cleared;
pub mod paths;
mod scripts;
mod stage;

pub use bed::{Place, TestBed};
pub use cast::{Aim, Held, Tried, Who};
pub use cleared::Cleared;
pub use stage::Stage;

/// Why a recipe cannot run to its end on this kernel.
#[derive(Clone, Copy, Debug)]
pub struct NotHere(pub &'static str);

impl std::fmt::Display for NotHere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotHere {}

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The connecting end.
    Client,
    /// The accepting end.
    Server,
}

/// Kind of an expected finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The connection fell back.
    Fallback,
    /// A plain TCP connection at an MPTCP listener.
    Plain,
}

/// One finding that the tracer must report.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// End of the connection.
    pub at: End,
    /// Kind of the finding.
    pub finding: Finding,
    /// Accepted causes; empty for a finding without a cause.
    pub causes: &'static [&'static str],
    /// Index of the connection, in the order in which the script creates them.
    pub connection: usize,
    /// Accepted owners.
    pub owner: &'static [Who],
    /// Accepted evidence, any one of them; empty: not checked.
    pub evidence: &'static [&'static str],
    /// The connection fell back before it had its addresses.
    pub early: bool,
    /// Expected only on kernels that have this counter.
    pub only_with: Option<&'static str>,
}

/// A sysctl to set in a network namespace.
#[derive(Clone, Copy, Debug)]
pub struct Sysctl {
    /// Its name.
    pub name: &'static str,
    /// Value to set.
    pub value: &'static str,
    /// Whether the recipe needs it: a kernel without it cannot play the recipe.
    pub must: bool,
}

/// One way to fall back, or not to.
pub struct Recipe {
    /// Its name.
    pub name: &'static str,
    /// Environment of the recipe.
    pub place: Place,
    /// Rules of the middlebox.
    pub rules: Rules,
    /// Sysctls to set in both namespaces.
    pub sysctls: &'static [Sysctl],
    /// Actions of the ends.
    pub script: fn(&mut Stage) -> anyhow::Result<()>,
    /// Findings that the tracer must report.
    pub expected: &'static [Expected],
    /// Answers that the kernel must give, by name of the query.
    pub answers: &'static [(&'static str, &'static str)],
}

/// MIB counters of fallbacks; each fallback increments one of them.
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
/// MIB counters of refused fallbacks.
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

/// Expects the client to fall back.
pub const fn client(causes: &'static [&'static str]) -> Expected {
    found(End::Client, causes)
}

/// Expects the server to fall back.
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

/// Rules for packets from the client.
const fn to_server(to_server: Treatment) -> Rules {
    Rules {
        to_server,
        to_client: Treatment::NONE,
    }
}

/// Rules for packets from the server.
const fn to_client(to_client: Treatment) -> Rules {
    Rules {
        to_server: Treatment::NONE,
        to_client,
    }
}

/// Strip the SYN/ACK.
pub const STRIP_SYN_ACK: Rules = to_client(NO_SYN);
/// Drop SYNs that request MPTCP.
pub const DROP_CAPABLE_SYNS: Rules = to_server(Treatment {
    drop_capable_syn: true,
    ..Treatment::NONE
});
/// Strip both directions from the fourth data packet on.
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

/// Every recipe, in the order in which the lab plays them.
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
        // The first retransmitted SYN is already without MPTCP.
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
        // Token exhaustion, and `TCP_MD5SIG` on an MPTCP socket: user space can cause neither.
        assert_eq!(left, ["MD5SigFallback", "MPFallbackTokenInit"]);
    }
}
