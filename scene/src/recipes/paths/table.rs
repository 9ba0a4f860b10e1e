//! The table.

use super::{
    Counted, Fate, Moment, NO_MORE, NO_RESET, NO_SYN, PathRecipe, REJECT, Way, scripts, to_client,
    to_server,
};
use crate::{
    recipes::End::{self, Client, Server},
    rules::{Rules, Treatment},
};

const fn counted(at: End, name: &'static str, number: u64) -> Counted {
    between(at, name, number, number)
}

const fn between(at: End, name: &'static str, least: u64, most: u64) -> Counted {
    Counted {
        at,
        name,
        number: (least, most),
        or: None,
    }
}

/// How often the path of the recipe `stale` may become so: once in each transfer while it is cut.
const STALE_MAX: u64 = 20;

const CLIENT_FIRST: Fate = Fate::up(Client, Way::First);
const SERVER_FIRST: Fate = Fate::up(Server, Way::First);

const NOTHING: PathRecipe = PathRecipe {
    name: "",
    rules: Rules::NONE,
    is_slow: false,
    script: scripts::base,
    fates: &[CLIENT_FIRST, SERVER_FIRST],
    counted: &[],
    never_tried: &[],
    never_inferred: &[],
};
const ANNOUNCED: Way = Way::Announced(None);
const WITH_PORT: Way = Way::Announced(Some(scripts::PORT));

const TRIED: Counted = counted(Client, "MPJoinSynTx", 1);
const SYN_ACK_CAME: Counted = counted(Client, "MPJoinSynAckRx", 1);
const SYN_CAME: Counted = counted(Server, "MPJoinSynRx", 1);
const ACK_CAME: Counted = counted(Server, "MPJoinAckRx", 1);
const CLIENT_RST: Counted = counted(Client, "MPRstTx", 1);
const JOINED: [Counted; 4] = [TRIED, SYN_ACK_CAME, SYN_CAME, ACK_CAME];

/// The second path is up at both ends until the connection closes.
const BOTH_UP: &[Fate] = &[
    CLIENT_FIRST,
    SERVER_FIRST,
    Fate::up(Client, Way::Second),
    Fate::up(Server, Way::Second),
];
const TWO_PATHS: PathRecipe = PathRecipe {
    fates: BOTH_UP,
    counted: &JOINED,
    ..NOTHING
};
/// What a client sees whose third ACK is refused.
const fn third_ack_refused(resets: &'static [&'static str]) -> Fate {
    Fate {
        resets,
        ..Fate::fails(Client, Way::Second, &["MPJoinAckRejected"])
    }
}
const MPTCP_ERROR: &[&str] = &["mptcp-error"];
/// The reason for a wrong HMAC of the third ACK; `prohibited` up to Linux 6.19.
const BAD_HMAC: &[&str] = &["mptcp-error", "prohibited"];
/// A server's refusal with this reason. With tracepoints alone, refusals with one reason are not
/// distinguished, and those of a SYN name no connection.
const fn refuses(
    cause: &'static [&'static str],
    inferred: &'static [&'static str],
    resets: &'static [&'static str],
) -> Fate {
    Fate {
        inferred,
        resets,
        nameless: true,
        ..Fate::fails(Server, Way::Second, cause)
    }
}
/// The client's own refusal.
const fn client_refuses(way: Way, cause: &'static [&'static str]) -> Fate {
    Fate {
        resets: MPTCP_ERROR,
        ..Fate::fails(Client, way, cause)
    }
}
/// The server drops a SYN in silence.
const SYN_DROPPED: Fate = Fate {
    hidden: true,
    ..Fate::fails(Server, Way::Second, &["MPJoinRejected"])
};
const SYN_REFUSED: &[&str] = &["MPJoinSynRefused"];
const REFUSED_HERE: &[&str] = &["MPJoinRejected", "MPJoinNoTokenFound", "MPJoinAckNoMPJoin"];

/// Every recipe of paths, in the order in which the lab plays them.
pub const PATH_RECIPES: &[PathRecipe] = &[
    PathRecipe {
        name: "one-path",
        script: scripts::no_endpoint,
        never_tried: &["no-endpoint"],
        ..NOTHING
    },
    PathRecipe {
        name: "base",
        ..TWO_PATHS
    },
    PathRecipe {
        name: "limit0-server",
        script: scripts::no_server_paths,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            third_ack_refused(&["prohibited"]),
            refuses(&["MPJoinRejected"], REFUSED_HERE, &["prohibited"]),
        ],
        counted: &[
            TRIED,
            SYN_ACK_CAME,
            SYN_CAME,
            CLIENT_RST,
            counted(Server, "MPJoinRejected", 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "half-limit",
        script: scripts::one_of_two,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate::up(Client, Way::Second),
            Fate::up(Server, Way::Second),
            Fate {
                resets: &["prohibited"],
                ..Fate::fails(Client, Way::Third, &["MPJoinAckRejected"])
            },
            Fate {
                inferred: REFUSED_HERE,
                resets: &["prohibited"],
                nameless: true,
                ..Fate::fails(Server, Way::Third, &["MPJoinRejected"])
            },
        ],
        counted: &[
            counted(Client, "MPJoinSynTx", 2),
            counted(Client, "MPJoinSynAckRx", 2),
            CLIENT_RST,
            counted(Server, "MPJoinSynRx", 2),
            ACK_CAME,
            counted(Server, "MPJoinRejected", 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "limit0-client",
        script: scripts::no_client_paths,
        never_tried: &["limit-0"],
        ..NOTHING
    },
    PathRecipe {
        name: "same-address",
        script: scripts::same_address,
        never_tried: &["only-endpoint-in-use"],
        ..NOTHING
    },
    PathRecipe {
        name: "announced-limit0",
        script: scripts::unused_announcement,
        never_tried: &["add-addr-limit-0"],
        // No tracepoint shows an announcement.
        never_inferred: &["no-endpoint"],
        ..NOTHING
    },
    PathRecipe {
        name: "reject-syn",
        rules: REJECT,
        script: scripts::fails,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate::fails(Client, Way::Second, SYN_REFUSED),
        ],
        counted: &[TRIED],
        ..NOTHING
    },
    PathRecipe {
        name: "drop-syn",
        rules: to_server(Treatment {
            drop_syn: true,
            ..Treatment::NONE
        }),
        is_slow: true,
        script: scripts::dropped_syn,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate::fails(Client, Way::Second, &["MPJoinSynTimeout"]),
        ],
        counted: &[TRIED],
        ..NOTHING
    },
    PathRecipe {
        name: "join-strip-syn",
        rules: to_server(NO_SYN),
        script: scripts::fails,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            client_refuses(Way::Second, &["MPJoinSynAckNoMPJoin"]),
            Fate {
                stray: true,
                hidden: true,
                resets: MPTCP_ERROR,
                ..Fate::fails(Server, Way::Second, &["MPJoinSynNoMPJoin"])
            },
        ],
        counted: &[
            TRIED,
            CLIENT_RST,
            counted(Client, "MPJoinSynAckNoMPJoin", 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "join-strip-synack",
        rules: to_client(NO_SYN),
        script: scripts::fails,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            client_refuses(Way::Second, &["MPJoinSynAckNoMPJoin"]),
        ],
        counted: &[
            TRIED,
            CLIENT_RST,
            SYN_CAME,
            counted(Client, "MPJoinSynAckNoMPJoin", 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "tcp-listener",
        script: scripts::tcp_listener,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            client_refuses(ANNOUNCED, &["MPJoinSynAckNoMPJoin"]),
        ],
        counted: &[
            TRIED,
            CLIENT_RST,
            counted(Client, "MPJoinSynAckNoMPJoin", 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "strip-ack3",
        rules: to_server(NO_MORE),
        script: scripts::fails,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            third_ack_refused(MPTCP_ERROR),
            refuses(&["MPJoinAckNoMPJoin"], REFUSED_HERE, MPTCP_ERROR),
        ],
        counted: &[
            TRIED,
            SYN_ACK_CAME,
            SYN_CAME,
            CLIENT_RST,
            counted(Server, "MPJoinAckNoMPJoin", 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "strip-ack4",
        rules: to_client(NO_MORE),
        script: scripts::fails,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate {
                resets: &["unspecified"],
                ..Fate::fails(Client, Way::Second, &["MPJoinFourthAckNoDss"])
            },
            Fate {
                resets: &["unspecified"],
                ..Fate::ends(Server, Way::Second, &["mp-rst-received"])
            },
        ],
        counted: &[
            TRIED,
            SYN_ACK_CAME,
            SYN_CAME,
            ACK_CAME,
            CLIENT_RST,
            counted(Server, "MPRstRx", 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "bad-token",
        rules: to_server(Treatment {
            spoil_join_syn: true,
            ..Treatment::NONE
        }),
        script: scripts::fails,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate {
                inferred: SYN_REFUSED,
                resets: MPTCP_ERROR,
                ..Fate::fails(Client, Way::Second, &["MPJoinSynRejected"])
            },
            Fate {
                stray: true,
                ..refuses(&["MPJoinNoTokenFound"], REFUSED_HERE, MPTCP_ERROR)
            },
        ],
        counted: &[TRIED, SYN_CAME, counted(Server, "MPJoinNoTokenFound", 1)],
        ..NOTHING
    },
    PathRecipe {
        name: "bad-hmac-synack",
        rules: to_client(Treatment {
            spoil_join_syn: true,
            ..Treatment::NONE
        }),
        script: scripts::fails,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            client_refuses(Way::Second, &["MPJoinSynAckHMacFailure"]),
        ],
        counted: &[
            TRIED,
            SYN_CAME,
            CLIENT_RST,
            // Kernels up to 6.19 count it under the other name.
            Counted {
                or: Some("MPJoinAckHMacFailure"),
                ..counted(Client, "MPJoinSynAckHMacFailure", 1)
            },
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "bad-hmac-ack3",
        rules: to_server(Treatment {
            spoil_join_ack: true,
            ..Treatment::NONE
        }),
        script: scripts::fails,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            third_ack_refused(BAD_HMAC),
            refuses(&["MPJoinAckHMacFailure"], REFUSED_HERE, BAD_HMAC),
        ],
        counted: &[
            TRIED,
            SYN_ACK_CAME,
            SYN_CAME,
            CLIENT_RST,
            counted(Server, "MPJoinAckHMacFailure", 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "bind-error",
        script: scripts::foreign,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate {
                hidden: true,
                ..Fate::fails(Client, Way::Foreign, &["MPJoinSynTxBindErr"])
            },
        ],
        counted: &[counted(Client, "MPJoinSynTxBindErr", 1)],
        ..NOTHING
    },
    PathRecipe {
        name: "listener-bound",
        script: scripts::bound_listener,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate::fails(Client, ANNOUNCED, SYN_REFUSED),
            // Older kernels pass the tracepoint only where there is a socket.
            Fate {
                since: Some("MPJoinSynTx"),
                ..Fate::fails(Server, ANNOUNCED, &["MPJoinNoListener"])
            },
        ],
        counted: &[TRIED],
        ..NOTHING
    },
    PathRecipe {
        name: "no-id",
        script: scripts::no_id,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate {
                inferred: SYN_REFUSED,
                resets: MPTCP_ERROR,
                ..Fate::fails(Client, ANNOUNCED, &["MPJoinSynRejected"])
            },
            Fate {
                inferred: REFUSED_HERE,
                resets: MPTCP_ERROR,
                nameless: true,
                ..Fate::fails(Server, ANNOUNCED, &["MPJoinNoIdFound"])
            },
        ],
        counted: &[TRIED, SYN_CAME, counted(Server, "MPJoinNoIdFound", 1)],
        ..NOTHING
    },
    PathRecipe {
        name: "cookie-lost",
        rules: to_server(Treatment {
            drop_rest: true,
            ..Treatment::NONE
        }),
        script: scripts::lost_cookie,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate::fails(
                Client,
                Way::Second,
                &["MPJoinFourthAckMissing", "MPJoinAckRejected"],
            ),
            Fate {
                stray: true,
                hidden: true,
                repeats: true,
                ..Fate::fails(Server, Way::Second, &["MPJoinCookieLost"])
            },
        ],
        counted: &[
            TRIED,
            SYN_ACK_CAME,
            SYN_CAME,
            between(Client, "MPRstTx", 0, 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "syncookies-limit0",
        is_slow: true,
        script: scripts::cookies,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate::fails(Client, Way::Second, &["MPJoinSynTimeout"]),
            SYN_DROPPED,
            SYN_DROPPED,
        ],
        counted: &[
            TRIED,
            counted(Server, "MPJoinSynRx", 2),
            counted(Server, "MPJoinRejected", 2),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "port-endpoint",
        script: scripts::port,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate::up(Client, WITH_PORT),
            Fate::up(Server, WITH_PORT),
        ],
        counted: &[
            TRIED,
            SYN_ACK_CAME,
            SYN_CAME,
            ACK_CAME,
            counted(Client, "MPJoinPortSynAckRx", 1),
            counted(Server, "MPJoinPortSynRx", 1),
            counted(Server, "MPJoinPortAckRx", 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "port-bad-token",
        rules: to_server(Treatment {
            spoil_join_syn: true,
            ..Treatment::NONE
        }),
        script: scripts::port_fails,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate {
                inferred: SYN_REFUSED,
                resets: MPTCP_ERROR,
                ..Fate::fails(Client, WITH_PORT, &["MPJoinSynRejected"])
            },
            // The kernel itself listens on the announced port.
            Fate {
                stray: true,
                by_kernel: true,
                inferred: REFUSED_HERE,
                resets: MPTCP_ERROR,
                ..Fate::fails(Server, WITH_PORT, &["MPJoinNoTokenFound"])
            },
        ],
        counted: &[TRIED, SYN_CAME, counted(Server, "MPJoinNoTokenFound", 1)],
        ..NOTHING
    },
    PathRecipe {
        name: "backup-prio",
        script: scripts::priority,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate {
                moments: &[Moment::Priority],
                ..Fate::up(Client, Way::Second)
            },
            Fate {
                moments: &[Moment::Priority],
                ..Fate::up(Server, Way::Second)
            },
        ],
        counted: &[
            TRIED,
            SYN_ACK_CAME,
            SYN_CAME,
            ACK_CAME,
            counted(Server, "MPJoinSynBackupRx", 1),
            counted(Client, "MPPrioTx", 1),
            counted(Server, "MPPrioRx", 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "ep-del-client",
        script: scripts::client_removes,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate {
                inferred: PEER_CLOSED,
                ..Fate::ends(Client, Way::Second, &["removed"])
            },
            Fate {
                inferred: PEER_CLOSED,
                ..Fate::ends(Server, Way::Second, ADDRESS_REMOVED)
            },
        ],
        counted: &[
            TRIED,
            SYN_ACK_CAME,
            SYN_CAME,
            ACK_CAME,
            counted(Client, "RmSubflow", 1),
            counted(Server, "RmAddr", 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "ep-del-signal",
        script: scripts::server_removes,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate {
                inferred: PEER_CLOSED,
                ..Fate::ends(Client, ANNOUNCED, ADDRESS_REMOVED)
            },
            Fate {
                inferred: PEER_CLOSED,
                ..Fate::ends(Server, ANNOUNCED, &["removed"])
            },
        ],
        counted: &[
            TRIED,
            SYN_ACK_CAME,
            SYN_CAME,
            ACK_CAME,
            counted(Client, "RmAddr", 1),
            counted(Server, "RmSubflow", 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "rst-midlife",
        script: scripts::reset,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate::ends(Client, Way::Second, &["rst-received"]),
            Fate::ends(Server, Way::Second, &["rst-received", "connection-closed"]),
        ],
        counted: &JOINED,
        ..NOTHING
    },
    PathRecipe {
        name: "strip-data",
        script: scripts::stripped,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate {
                resets: NO_DSS,
                ..Fate::ends(Client, Way::Second, &["mp-rst-received"])
            },
            Fate {
                resets: NO_DSS,
                ..Fate::ends(Server, Way::Second, &["bad-data"])
            },
        ],
        counted: &[
            TRIED,
            SYN_ACK_CAME,
            SYN_CAME,
            ACK_CAME,
            counted(Client, "MPRstRx", 1),
            counted(Server, "MPRstTx", 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "iface-down",
        is_slow: true,
        script: scripts::cut,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate::ends(Client, Way::Second, &["timeout", "unreachable"]),
            Fate::ends(
                Server,
                Way::Second,
                &["timeout", "unreachable", "connection-closed"],
            ),
        ],
        counted: &JOINED,
        ..NOTHING
    },
    PathRecipe {
        name: "stale",
        is_slow: true,
        script: scripts::stale,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate {
                moments: &[Moment::Stale, Moment::Recovered],
                ..Fate::up(Client, Way::Second)
            },
            Fate::up(Server, Way::Second),
        ],
        counted: &[
            TRIED,
            SYN_ACK_CAME,
            SYN_CAME,
            ACK_CAME,
            // Which path the scheduler gives up, and how often, is its own choice.
            between(Client, "SubflowStale", 1, STALE_MAX),
            between(Client, "SubflowRecover", 1, STALE_MAX),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "fastclose",
        script: scripts::aborted,
        fates: &[
            Fate::ends(Client, Way::First, SENT_FASTCLOSE),
            Fate {
                resets: &["unspecified"],
                ..Fate::ends(Server, Way::First, RECEIVED_FASTCLOSE)
            },
            // The server resets this path as soon as the first one is gone.
            Fate {
                resets: &["unspecified", NO_RESET],
                ..Fate::ends(Client, Way::Second, &["fastclose-sent", "mp-rst-received"])
            },
            Fate {
                resets: &["unspecified", NO_RESET],
                ..Fate::ends(Server, Way::Second, RECEIVED_FASTCLOSE)
            },
        ],
        counted: &[
            TRIED,
            SYN_ACK_CAME,
            SYN_CAME,
            ACK_CAME,
            between(Client, "MPRstTx", 1, 2),
            between(Client, "MPRstRx", 0, 1),
            between(Server, "MPRstRx", 1, 2),
            between(Server, "MPRstTx", 0, 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "unaccepted",
        script: scripts::accepted_late,
        ..TWO_PATHS
    },
    PathRecipe {
        name: "peer-denies",
        script: scripts::peer_denies,
        never_tried: &["peer-denies-id0"],
        ..NOTHING
    },
    PathRecipe {
        name: "client-userspace",
        script: scripts::client_userspace,
        never_tried: &["userspace-pm"],
        ..NOTHING
    },
    PathRecipe {
        name: "server-userspace",
        script: scripts::server_userspace,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            third_ack_refused(&["prohibited"]),
            refuses(&["MPJoinRejected"], REFUSED_HERE, &["prohibited"]),
        ],
        counted: &[
            TRIED,
            SYN_ACK_CAME,
            SYN_CAME,
            CLIENT_RST,
            counted(Server, "MPJoinRejected", 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "closed-meanwhile",
        rules: to_server(Treatment {
            drop_syn: true,
            ..Treatment::NONE
        }),
        script: scripts::fails,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate::fails(Client, Way::Second, &["MPJoinClosedMeanwhile"]),
        ],
        counted: &[TRIED],
        ..NOTHING
    },
    PathRecipe {
        name: "drop-ack3",
        rules: to_server(Treatment {
            drop_rest: true,
            ..Treatment::NONE
        }),
        script: scripts::fails,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            // The peer may answer the FIN of this path with an RST.
            Fate::fails(
                Client,
                Way::Second,
                &["MPJoinFourthAckMissing", "MPJoinAckRejected"],
            ),
        ],
        counted: &[
            TRIED,
            SYN_ACK_CAME,
            SYN_CAME,
            between(Client, "MPRstTx", 0, 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "no-ack3",
        rules: to_server(Treatment {
            drop_rest: true,
            ..Treatment::NONE
        }),
        is_slow: true,
        script: scripts::no_third_ack,
        fates: &[
            CLIENT_FIRST,
            SERVER_FIRST,
            Fate::fails(
                Client,
                Way::Second,
                &["MPJoinFourthAckMissing", "MPJoinAckRejected"],
            ),
            Fate {
                hidden: true,
                ..Fate::fails(Server, Way::Second, &["MPJoinThirdAckMissing"])
            },
        ],
        counted: &[
            TRIED,
            SYN_ACK_CAME,
            SYN_CAME,
            between(Client, "MPRstTx", 0, 1),
        ],
        ..NOTHING
    },
    PathRecipe {
        name: "late-ack3",
        rules: to_server(Treatment {
            drop_rest: true,
            ..Treatment::NONE
        }),
        is_slow: true,
        script: scripts::late_third_ack,
        ..TWO_PATHS
    },
    PathRecipe {
        name: "connect-refused",
        script: scripts::refused,
        fates: &[Fate::fails(Client, Way::First, &["MPCapableSynRefused"])],
        ..NOTHING
    },
    PathRecipe {
        name: "connect-timeout",
        is_slow: true,
        script: scripts::timed_out,
        fates: &[Fate::fails(Client, Way::First, &["MPCapableSynTimeout"])],
        ..NOTHING
    },
];

/// What tracepoints alone show of a path that a path manager removed: an end of a FIN, and which end
/// sends it first is a race.
const PEER_CLOSED: &[&str] = &["peer-closed", "removed"];
const ADDRESS_REMOVED: &[&str] = &["address-removed"];
/// A segment without DSS: a middlebox, on older kernels an error.
const NO_DSS: &[&str] = &["middlebox", "mptcp-error"];
const SENT_FASTCLOSE: &[&str] = &["fastclose-sent"];
const RECEIVED_FASTCLOSE: &[&str] = &["fastclose-received"];
