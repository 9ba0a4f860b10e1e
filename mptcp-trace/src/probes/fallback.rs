//! Probes for fallbacks, and for births, owners and ends of connections.

use super::{
    Method, Missing, Optional, Probes, Role, Row, When, function,
    parts::{
        ANY, FEXIT, FILE, FIRST_SUBFLOW, FUNCTIONS, KPROBE, PACKET, REGISTERS, SOCKET, STATE,
        SUBFLOW, TRACEPOINT, at, at_any_copy, fentry, in_turns, kprobe, kretprobe, raw, row,
    },
    tracepoint,
};
use crate::model::Rung;

/// The probes of this sensor.
pub(super) const PROBES: Probes = Probes {
    rows: ROWS,
    methods: [
        Method {
            rung: Rung::Fexit,
            needs: &[SOCKET, SUBFLOW, STATE, FIRST_SUBFLOW],
            costs: &[],
            uncalibrated: Some(UNCALIBRATED),
        },
        Method {
            rung: Rung::Kprobe,
            needs: &[SOCKET, SUBFLOW, STATE, FIRST_SUBFLOW],
            costs: &[],
            uncalibrated: Some(UNCALIBRATED),
        },
        Method {
            rung: Rung::Tracepoint,
            needs: &[SOCKET, SUBFLOW, STATE, FIRST_SUBFLOW, FILE, REGISTERS],
            costs: &[
                "the cause is inferred from the state and the data of the connection: no function \
                 is traced here",
                LATE,
                "a TCP child of an MPTCP listener is traced, but not whether its client never \
                 requested MPTCP or its third handshake packet came without MPTCP \
                 (MPCapableFallbackACK)",
                "the packet that decided is unknown of a fallback for the third ACK, and of one for \
                 the SYN/ACK that arrives before connect() has unlocked the connection (a peer on \
                 the same host)",
                "checksum complaints of the peer are not reported as evidence (mp-fail-received): \
                 no tracepoint covers them",
            ],
            uncalibrated: Some(UNCALIBRATED),
        },
    ],
    optional: &[
        Optional {
            rungs: ANY,
            fields: &["msk_bytes_sent"],
            costs: "the bytes sent over MPTCP before a fallback are unknown",
        },
        Optional {
            rungs: ANY,
            fields: &["msk_server_side"],
            costs: "the side that opened a connection is unknown",
        },
        Optional {
            rungs: ANY,
            fields: &["msk_extra_subflows"],
            costs: "the number of subflows of a connection is unknown",
        },
        PACKET,
    ],
};

const INFERRED: &str = "the cause is inferred from the function that fell back, or from the \
                        connection's data: no function of this kernel has the cause as a parameter";
const LATE: &str = "a fallback without handshake or bad data is detected late, with the next data, \
                    query or state change";
const UNCALIBRATED: &str = "the fallback bit could not be calibrated: fallbacks are only seen \
                            where a function reports them";

const ROWS: &[Row] = &[
    // Births, owners and ends of connections.
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_DESTROY,
            &[
                in_turns!(Fentry, "life_fentry_destroy"),
                kprobe("life_kprobe_destroy"),
            ],
        )],
        Missing::RulesOut,
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_STREAM_ACCEPT,
            &[
                in_turns!(Fexit, "life_fexit_accept"),
                kretprobe("life_kretprobe_accept"),
                kprobe("life_kprobe_accept"),
            ],
        )],
        Missing::RulesOut,
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_SUBFLOW_DROP_CTX,
            &[
                in_turns!(Fentry, "life_fentry_drop").with_role(Role::Children),
                kprobe("life_kprobe_drop").with_role(Role::Children),
            ],
        )],
        Missing::RulesOut,
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_SENDMSG,
            &[fentry("life_fentry_send"), kprobe("life_kprobe_io")],
        )],
        Missing::RulesOut,
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_RECVMSG,
            &[fentry("life_fentry_receive"), kprobe("life_kprobe_io")],
        )],
        Missing::RulesOut,
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_INIT_SOCK,
            &[
                in_turns!(Fentry, "life_fentry_init"),
                kprobe("life_kprobe_init"),
            ],
        )],
        Missing::RulesOut,
    ),
    // The peer reports a checksum failure.
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_PM_MP_FAIL_RECEIVED,
            &[
                in_turns!(Fentry, "fallback_fentry_mp_fail"),
                kprobe("fallback_kprobe_mp_fail"),
            ],
        )],
        Missing::IsFine,
    ),
    // The kernel disables MPTCP for a while.
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_ACTIVE_DISABLE,
            &[
                in_turns!(Fexit, "fallback_fexit_disable"),
                kretprobe("fallback_kretprobe_disable"),
                kprobe("fallback_kprobe_disable"),
            ],
        )],
        Missing::IsFine,
    ),
    // The decision to fall back, with its cause.
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_TRY_FALLBACK,
            &[
                in_turns!(Fexit, "fallback_fexit_try").with_role(Role::Decision),
                in_turns!(Fentry, "fallback_fentry_try"),
                kretprobe("fallback_kretprobe_try").with_role(Role::Decision),
                kprobe("fallback_kprobe_try"),
            ],
        )],
        Missing::IsFine,
    )
    .when(When::HasCauseParameter),
    // Otherwise, the functions that fall back. Those in the data path run for every packet, and so
    // does subflow_finish_connect: trampolines on them cost a bulk transfer a fifth of its speed.
    // The tracepoints next to them cost almost nothing.
    row(
        FEXIT,
        &[
            at(
                function::MPTCP_CONNECT,
                &[in_turns!(Fexit, "fallback_fexit_connect")],
            ),
            at(
                function::MPTCP_SYN_OPTIONS,
                &[in_turns!(Fexit, "fallback_fexit_simultaneous")],
            ),
            at(
                function::SUBFLOW_STATE_CHANGE,
                &[in_turns!(Fexit, "fallback_fexit_state_change")],
            ),
            at(
                function::MPTCP_ACTIVE_DETECT_BLACKHOLE,
                &[in_turns!(Fexit, "fallback_fexit_detect")],
            ),
        ],
        Missing::RulesOutSaying("the kernel's type information has no function that can fall back"),
    )
    .every()
    .when(When::Without(function::MPTCP_TRY_FALLBACK)),
    row(
        KPROBE,
        &[at(
            function::MPTCP_ACTIVE_DETECT_BLACKHOLE,
            &[
                kretprobe("fallback_kretprobe_detect"),
                kprobe("fallback_kprobe_edge"),
            ],
        )],
        Missing::IsFine,
    )
    .when(When::Without(function::MPTCP_TRY_FALLBACK)),
    row(FUNCTIONS, &[], Missing::CostsAsSaid(&[INFERRED, LATE]))
        .when(When::Without(function::MPTCP_TRY_FALLBACK)),
    // The second copy of the decision, if the compiler made one. It has lost its plain name or its
    // BTF, so that only a kprobe reaches it.
    row(
        FUNCTIONS,
        &[at_any_copy(
            function::MPTCP_DSS_CORRUPTION,
            &[kprobe("fallback_kprobe_dss")],
        )],
        Missing::Costs(
            "DSSCorruptionFallback is detected late if the compiler inlined a copy of the deciding \
             function",
        ),
    ),
    // With tracepoints alone.
    row(
        TRACEPOINT,
        &[
            at(
                tracepoint::SYS_EXIT,
                &[in_turns!(TypedTracepoint, "life_tp_return").served_by("query_tp_return")],
            ),
            at(
                tracepoint::SYS_EXIT,
                &[in_turns!(RawTracepoint, "life_raw_return").served_by("query_raw_return")],
            ),
        ],
        Missing::RulesOut,
    ),
    row(
        TRACEPOINT,
        &[
            at(tracepoint::SOCK_SEND_LENGTH, &[raw("life_tp_io")]),
            at(tracepoint::SOCK_RECV_LENGTH, &[raw("life_tp_io")]),
        ],
        Missing::Costs(
            "a process that received a socket from another one is unknown until it \
                        makes a query",
        ),
    )
    .every(),
    row(
        TRACEPOINT,
        &[at(
            tracepoint::MPTCP_SUBFLOW_GET_SEND,
            &[in_turns!(RawTracepoint, "fallback_tp_send")],
        )],
        Missing::IsFine,
    ),
    // Tracepoints for every attach method: they are cheapest there.
    row(
        ANY,
        &[at(
            tracepoint::TCP_DESTROY_SOCK,
            &[in_turns!(RawTracepoint, "life_tp_destroy")],
        )],
        Missing::Costs(
            "the end of TCP connections is not traced: their IDs stay in the table until it is \
             full",
        ),
    ),
    row(
        ANY,
        &[at(
            tracepoint::INET_SOCK_SET_STATE,
            &[in_turns!(RawTracepoint, "life_tp_state")],
        )],
        Missing::RulesOut,
    ),
    row(
        ANY,
        &[at(
            tracepoint::SUBFLOW_CHECK_DATA_AVAIL,
            &[in_turns!(RawTracepoint, "fallback_tp_data")],
        )],
        Missing::Costs("evidence about faulty data is not traced"),
    ),
];
