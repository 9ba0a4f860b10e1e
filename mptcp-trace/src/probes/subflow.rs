//! Probes for the paths of connections.

use super::{
    Method, Missing, Optional, Probes, Role, Row, When, function,
    parts::{
        ANY, FIRST_SUBFLOW, FUNCTIONS, PACKET, SOCKET, SUBFLOW, at, fentry, fexit, in_turns,
        kprobe, kretprobe, raw, row,
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
            needs: &[SOCKET, SUBFLOW, FIRST_SUBFLOW, PATH],
            costs: &[],
            uncalibrated: None,
        },
        Method {
            rung: Rung::Kprobe,
            needs: &[SOCKET, SUBFLOW, FIRST_SUBFLOW, PATH],
            costs: &[],
            uncalibrated: None,
        },
        Method {
            rung: Rung::Tracepoint,
            needs: &[SOCKET, SUBFLOW, FIRST_SUBFLOW, PATH],
            costs: &[
                "a path that this host opens is reported as up by the next scan, after a second or \
                 more: no tracepoint shows its fourth ACK",
                "the reason that a peer gives for refusing a join is unknown: no tracepoint has \
                 the options of its RST",
                "joins that this host refuses are traced without their connection",
                "joins that fail before their SYN is sent are not traced",
                "joins of the peer whose SYN arrives without MP_JOIN, or whose third ACK never \
                 comes or answers a SYN cookie that was lost, are not traced",
                "a join for which this host has no address id looks like one with an unknown token",
                "which end removed a path is unknown: both send a FIN",
                "addresses that are announced or removed, and priorities, are not traced",
            ],
            uncalibrated: None,
        },
    ],
    optional: &[
        Optional {
            rungs: ANY,
            fields: &["tcp_bytes_sent", "tcp_bytes_received"],
            costs: "the bytes that a path carried are unknown",
        },
        Optional {
            rungs: ANY,
            fields: &[
                "tcp_snd_una",
                "tcp_rcv_nxt",
                "tcp_bytes_acked",
                "tcp_bytes_received",
            ],
            costs: "captures of both ends of a path are joined by addresses or keys only",
        },
        Optional {
            rungs: ANY,
            fields: &["msk_local_key", "msk_remote_key"],
            costs: "captures of both ends of a connection are not joined where its sequence \
                    numbers are rewritten between them",
        },
        Optional {
            rungs: ANY,
            fields: &["subflow_stale"],
            costs: "stale paths are not reported",
        },
        PACKET,
    ],
};

/// Members that describe a path.
const PATH: &[&str] = &[
    "subflow_tcp_sock",
    "subflow_mp_join",
    "subflow_request_join",
    "subflow_fully_established",
    "msk_conn_list",
    "subflow_node",
    "inet_sport",
    "sock_err",
];

const STALE: &[super::Attachment] = &[
    fexit("path_fexit_stale"),
    kretprobe("path_kretprobe_stale"),
    kprobe("path_kprobe_stale"),
];

/// Members that tell requests of MPTCP listeners from others.
const REQUEST: &[&str] = &["request_is_mptcp", "request_mp_join"];

/// Members that show that the timer of a request gives up.
const TIMER: &[&str] = &["request_is_mptcp", "request_mp_join", "request_syncookie"];

const PRIORITY: &[super::Attachment] = &[
    fexit("path_fexit_prio"),
    kretprobe("path_kretprobe_prio"),
    kprobe("path_kprobe_prio"),
];

const ROWS: &[Row] = &[
    // Births and ends.
    row(
        ANY,
        &[at(
            tracepoint::INET_SOCK_SET_STATE,
            &[in_turns!(RawTracepoint, "path_tp_state")],
        )],
        Missing::RulesOut,
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_PM_SUBFLOW_ESTABLISHED,
            &[
                fentry("path_fentry_established"),
                kprobe("path_kprobe_established"),
            ],
        )],
        Missing::Costs("a path that this host opens is not reported before it ends"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_SUBFLOW_CONNECT,
            &[
                fexit("path_fexit_connect"),
                fentry("path_fentry_connect"),
                kretprobe("path_kretprobe_connect"),
                kprobe("path_kprobe_connect"),
            ],
        )
        .needing(&["address_family", "address_v4"])],
        Missing::Costs("joins that fail before their SYN is sent are not traced"),
    ),
    row(
        FUNCTIONS,
        &[
            at(function::MPTCP_PM_CHK_STALE, STALE),
            at(function::MPTCP_PM_SUBFLOW_CHK_STALE, STALE),
        ],
        Missing::Costs("stale paths are not reported"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_SUBFLOW_SET_ACTIVE,
            &[fentry("path_fentry_active"), kprobe("path_kprobe_active")],
        )],
        Missing::Costs("paths that recover are not reported"),
    ),
    // What happens to a path.
    row(
        ANY,
        &[at(
            tracepoint::TCP_RECEIVE_RESET,
            &[raw("path_tp_receive_reset")],
        )],
        Missing::Costs("paths that are reset by the peer are not told from those that time out"),
    ),
    row(
        ANY,
        &[at(tracepoint::TCP_SEND_RESET, &[raw("path_tp_send_reset")])],
        Missing::Costs("paths that this host resets are not told from those that are closed"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::TCP_RESET,
            &[
                fentry("path_fentry_tcp_reset"),
                kprobe("path_kprobe_tcp_reset"),
            ],
        )],
        Missing::Costs("the reason that a peer gives for refusing a join is unknown"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_SUBFLOW_SHUTDOWN,
            &[
                fentry("path_fentry_shutdown"),
                kprobe("path_kprobe_shutdown"),
            ],
        )],
        Missing::Costs("which end removed a path is unknown"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_SUBFLOW_RESET,
            &[fentry("path_fentry_reset"), kprobe("path_kprobe_reset")],
        )],
        Missing::Costs("why this host reset a path is unknown"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::TCP_DONE_WITH_ERROR,
            &[fentry("path_fentry_error"), kprobe("path_kprobe_error")],
        )],
        Missing::IsFine,
    ),
    row(
        FUNCTIONS,
        &[at(
            function::TCP_ABORT,
            &[fentry("path_fentry_abort"), kprobe("path_kprobe_abort")],
        )],
        Missing::Costs("a path that was killed (ss -K) looks like one that this host reset"),
    ),
    // Joins that this host refuses.
    row(
        FUNCTIONS,
        &[at(
            function::SUBFLOW_CHECK_REQ,
            &[
                fexit("path_fexit_syn"),
                kretprobe("path_kretprobe_syn"),
                kprobe("path_kprobe_syn"),
            ],
        )],
        Missing::Costs("refused SYNs with MP_JOIN are not traced"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::SUBFLOW_ADD_RESET_REASON,
            &[fentry("path_fentry_reason"), kprobe("path_kprobe_reason")],
        )],
        Missing::Costs("why this host refused a join is inferred"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_CAN_ACCEPT_NEW_SUBFLOW,
            &[
                fexit("path_fexit_accepts").with_role(Role::JoinAnswer),
                kretprobe("path_kretprobe_accepts").with_role(Role::JoinAnswer),
                kprobe("path_kprobe_accepts"),
            ],
        )],
        Missing::Costs(
            "a join with a wrong HMAC looks like one that the path manager refuses, on kernels \
             that give one reason for both",
        ),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_SUBFLOW_DROP_CTX,
            &[fentry("path_fentry_drop"), kprobe("path_kprobe_drop")],
        )],
        Missing::Costs("refused third ACKs with MP_JOIN are not traced"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_PM_GET_LOCAL_ID,
            &[
                fexit("path_fexit_id"),
                kretprobe("path_kretprobe_id"),
                kprobe("path_kprobe_id"),
            ],
        )],
        Missing::Costs(
            "a join for which this host has no address id looks like one with an unknown token",
        ),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_FINISH_JOIN,
            &[
                fexit("path_fexit_finish"),
                kretprobe("path_kretprobe_finish"),
                kprobe("path_kprobe_finish"),
            ],
        )],
        Missing::Costs(
            "joins that a locked connection refuses later look like paths that are reset",
        ),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_SUBFLOW_INIT_COOKIE_REQ,
            &[
                fexit("path_fexit_cookie"),
                kretprobe("path_kretprobe_cookie"),
                kprobe("path_kprobe_cookie"),
            ],
        )],
        Missing::Costs("third ACKs whose SYN cookie was lost are not traced"),
    ),
    // The destructors are attached first: they report only what the timer has marked.
    row(
        FUNCTIONS,
        &[at(
            function::SUBFLOW_V4_REQ_DESTRUCTOR,
            &[
                fentry("path_fentry_request_ends"),
                kprobe("path_kprobe_request_ends"),
            ],
        )],
        Missing::Costs("joins over IPv4 whose third ACK never comes are not traced"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::SUBFLOW_V6_REQ_DESTRUCTOR,
            &[
                fentry("path_fentry_request6_ends"),
                kprobe("path_kprobe_request6_ends"),
            ],
        )],
        Missing::Costs("joins over IPv6 whose third ACK never comes are not traced"),
    )
    .when(When::HasIpv6),
    row(
        FUNCTIONS,
        &[at(
            function::TCP_SYN_ACK_TIMEOUT,
            &[fentry("path_fentry_timer"), kprobe("path_kprobe_timer")],
        )
        .needing(TIMER)],
        Missing::Costs("joins whose third ACK never comes are not traced"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::TCP_CHECK_REQ,
            &[fentry("path_fentry_request"), kprobe("path_kprobe_request")],
        )
        .needing(REQUEST)],
        Missing::Costs("joins of the peer whose SYN arrives without MP_JOIN are not traced"),
    ),
    // The path managers of both ends.
    row(
        FUNCTIONS,
        &[
            at(function::MPTCP_PM_MP_PRIO_SEND_ACK, PRIORITY),
            at(function::MPTCP_PM_NL_MP_PRIO_SEND_ACK, PRIORITY),
        ],
        Missing::Costs("priorities that this host changes are not reported"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_PM_ADD_ADDR_RECEIVED,
            &[
                fentry("path_fentry_received"),
                kprobe("path_kprobe_received"),
            ],
        )],
        Missing::Costs("addresses that the peer announces are not reported"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_PM_ADD_ADDR_ECHOED,
            &[fentry("path_fentry_echoed"), kprobe("path_kprobe_echoed")],
        )],
        Missing::Costs("whether the peer received an announcement is unknown"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_PM_ANNOUNCE_ADDR,
            &[
                fexit("path_fexit_announce"),
                kretprobe("path_kretprobe_announce"),
                kprobe("path_kprobe_announce"),
            ],
        )],
        Missing::Costs("addresses that this host announces are not reported"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_PM_REMOVE_ADDR,
            &[fentry("path_fentry_remove"), kprobe("path_kprobe_remove")],
        )],
        Missing::Costs("addresses that this host removes are not reported"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_PM_RM_ADDR_RECEIVED,
            &[
                fentry("path_fentry_rm_received"),
                kprobe("path_kprobe_rm_received"),
            ],
        )],
        Missing::Costs("addresses that the peer removes are not reported"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_PM_MP_PRIO_RECEIVED,
            &[
                fentry("path_fentry_priority"),
                kprobe("path_kprobe_priority"),
            ],
        )],
        Missing::Costs("priorities that the peer changes are not reported"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Functions and tracepoints that the kernel passes for each packet, or each chunk of data, of
    /// a connection.
    const PER_PACKET: [&str; 12] = [
        "mptcp_established_options",
        "mptcp_write_options",
        "mptcp_incoming_options",
        "mptcp_subflow_data_available",
        "subflow_check_data_avail",
        "mptcp_subflow_get_send",
        "ack_update_msk",
        "get_mapping_status",
        "mptcp_sendmsg_frag",
        "mptcp_recvmsg",
        "tcp_retransmit_skb",
        "sk_data_ready",
    ];

    #[test]
    fn nothing_runs_for_each_packet() {
        for place in ROWS.iter().flat_map(|row| row.places) {
            assert!(!PER_PACKET.contains(&place.on), "{}", place.on);
        }
    }
}
