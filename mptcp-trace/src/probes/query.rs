//! Probes for queries and refusals.

use super::{
    Method, Missing, Optional, Probes, Role, Row, When, function,
    parts::{
        ANY, CALLER, FEXIT, FILE, FUNCTIONS, KPROBE, REGISTERS, SOCKET, STATE, SUBFLOW, TRACEPOINT,
        URING, at, fexit, in_turns, kprobe, kretprobe, raw, row,
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
            needs: &[SOCKET, SUBFLOW],
            costs: &[LATENCY],
            uncalibrated: None,
        },
        Method {
            rung: Rung::Kprobe,
            needs: &[SOCKET, SUBFLOW],
            costs: &[],
            uncalibrated: None,
        },
        Method {
            rung: Rung::Tracepoint,
            needs: &[SOCKET, FILE, STATE, REGISTERS],
            costs: &[
                "options that the kernel refuses to 32-bit programs are not traced: their system \
                 calls have other numbers",
                "the answering function is not traced: the answer is derived from the state bits \
                 of the connection",
                LATENCY,
                "where the kernel preempts tracepoints, a run is missed if three tasks are \
                 preempted within one on the same CPU: such runs are counted (missed)",
            ],
            uncalibrated: Some(
                "the fallback bit could not be calibrated: the answer is read from the caller's \
                 memory",
            ),
        },
    ],
    optional: &[
        Optional {
            rungs: ANY,
            fields: &["sock_socket", "socket_alloc_inode_number"],
            costs: "the inode of a socket is unknown",
        },
        Optional {
            rungs: ANY,
            fields: &["sock_bound_dev_if"],
            costs: "the interface of a link-local address is unknown",
        },
        Optional {
            rungs: ANY,
            fields: &["sock_v6_daddr", "sock_v6_rcv_saddr"],
            costs: "queries about IPv6 sockets are lost, and counted (CONFIG_IPV6 is off)",
        },
        Optional {
            rungs: TRACEPOINT,
            fields: CALLER,
            costs: "refused MPTCP sockets are not traced",
        },
    ],
};

const LATENCY: &str = "query latency is unknown: only the return is traced";

const ROWS: &[Row] = &[
    // The inner function, which answers.
    row(
        FEXIT,
        &[at(
            function::TCP_GETSOCKOPT,
            &[in_turns!(Fexit, "query_fexit_tcp")],
        )],
        Missing::RulesOut,
    ),
    row(
        KPROBE,
        &[
            at(
                function::DO_TCP_GETSOCKOPT,
                &[
                    kretprobe("query_kretprobe_tcp"),
                    kprobe("query_kprobe_tcp").opens(),
                ],
            ),
            at(
                function::TCP_GETSOCKOPT,
                &[
                    kretprobe("query_kretprobe_tcp"),
                    kprobe("query_kprobe_tcp").opens(),
                ],
            ),
        ],
        Missing::RulesOut,
    ),
    // The outer one, which all queries on an MPTCP socket pass. With fexit nothing opens a query;
    // this one still has to be attached last: the inner one's result is interpreted where the outer
    // one returns.
    row(
        FEXIT,
        &[at(
            function::MPTCP_GETSOCKOPT,
            &[in_turns!(Fexit, "query_fexit_mptcp").opens()],
        )],
        Missing::RulesOut,
    ),
    row(
        KPROBE,
        &[
            at(
                function::MPTCP_GETSOCKOPT_SOL_TCP,
                &[
                    kretprobe("query_kretprobe_mptcp"),
                    kprobe("query_kprobe_sol_tcp")
                        .opens()
                        .with_role(Role::AnswersInside),
                ],
            )
            .costing(&[
                "queries with SOL_MPTCP options are not traced: the function that answers them is \
                 not probed",
            ]),
            at(
                function::MPTCP_GETSOCKOPT,
                &[
                    kretprobe("query_kretprobe_mptcp"),
                    kprobe("query_kprobe_mptcp").opens(),
                ],
            ),
        ],
        Missing::RulesOut,
    ),
    // Options that are not TCP's own are answered by the outer of TCP's two functions, and never
    // reach the inner one.
    row(
        KPROBE,
        &[at(
            function::TCP_GETSOCKOPT,
            &[
                kretprobe("query_kretprobe_tcp"),
                kprobe("query_kprobe_other").opens(),
            ],
        )],
        Missing::Costs(
            "queries with SOL_MPTCP options about TCP sockets are not traced, and those about \
             MPTCP sockets that fell back are not decoded",
        ),
    )
    .when(When::With(&[
        function::DO_TCP_GETSOCKOPT,
        function::MPTCP_GETSOCKOPT,
    ])),
    // SO_PROTOCOL is answered for all sockets.
    row(
        FUNCTIONS,
        &[
            at(
                function::SOCK_GETSOCKOPT,
                &[
                    fexit("query_fexit_socket").optional(),
                    kretprobe("query_kretprobe_sock"),
                    kprobe("query_kprobe_socket").opens(),
                ],
            )
            .needing(&["socket_sk"]),
            at(
                function::SK_GETSOCKOPT,
                &[
                    fexit("query_fexit_sock").optional(),
                    kretprobe("query_kretprobe_sock"),
                    kprobe("query_kprobe_sock").opens(),
                ],
            )
            .unless(function::SOCK_GETSOCKOPT),
        ],
        Missing::Costs("queries with SO_PROTOCOL are not traced"),
    ),
    // Refusals.
    row(
        FUNCTIONS,
        &[at(
            function::MPTCP_SETSOCKOPT,
            &[
                in_turns!(Fexit, "query_fexit_set").optional(),
                kretprobe("query_kretprobe_set").optional(),
                kprobe("query_kprobe_set").opens().optional(),
            ],
        )],
        Missing::Costs("refused setsockopt calls are not traced"),
    ),
    row(
        FUNCTIONS,
        &[at(
            function::SOCK_CREATE,
            &[
                in_turns!(Fexit, "query_fexit_create").optional(),
                kretprobe("query_kretprobe_create").optional(),
                kprobe("query_kprobe_create").opens().optional(),
            ],
        )
        .needing(CALLER)],
        Missing::Costs("refused MPTCP sockets are not traced"),
    ),
    // All of it at the return of system calls.
    row(
        TRACEPOINT,
        &[
            at(
                tracepoint::SYS_EXIT,
                &[in_turns!(TypedTracepoint, "query_tp_return")],
            ),
            at(
                tracepoint::SYS_EXIT,
                &[in_turns!(RawTracepoint, "query_raw_return")],
            ),
        ],
        Missing::RulesOut,
    ),
    row(
        TRACEPOINT,
        &[at(
            tracepoint::IO_URING_COMPLETE,
            &[raw("query_tp_uring").optional()],
        )
        .needing(URING)
        .costing(&[
            "queries and refusals through io_uring are not traced; verdicts about connections \
             queried that way are in doubt",
        ])],
        Missing::IsFine,
    ),
];
