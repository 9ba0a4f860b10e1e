//! Probes for queries and refusals.

use super::{
    Missing, Row, When, function,
    methods::{
        CALLER, FEXIT, FUNCTIONS, KPROBE, QUERY, TRACEPOINT, URING, at, in_turns, kprobe,
        kretprobe, raw, row,
    },
    tracepoint,
};

/// The rows of this sensor.
pub(super) const ROWS: &[Row] = &[
    // The inner function, which answers.
    row(
        QUERY,
        FEXIT,
        &[at(
            function::TCP_GETSOCKOPT,
            &[in_turns!(Fexit, "query_fexit_tcp")],
        )],
        Missing::RulesOut,
    ),
    row(
        QUERY,
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
        QUERY,
        FEXIT,
        &[at(
            function::MPTCP_GETSOCKOPT,
            &[in_turns!(Fexit, "query_fexit_mptcp").opens()],
        )],
        Missing::RulesOut,
    ),
    row(
        QUERY,
        KPROBE,
        &[
            at(
                function::MPTCP_GETSOCKOPT_SOL_TCP,
                &[
                    kretprobe("query_kretprobe_mptcp"),
                    kprobe("query_kprobe_sol_tcp").opens(),
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
        QUERY,
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
        QUERY,
        FUNCTIONS,
        &[
            at(
                function::SOCK_GETSOCKOPT,
                &[
                    in_turns!(Fexit, "query_fexit_socket").optional(),
                    kretprobe("query_kretprobe_sock"),
                    kprobe("query_kprobe_socket").opens(),
                ],
            )
            .needing(&["socket_sk"]),
            at(
                function::SK_GETSOCKOPT,
                &[
                    in_turns!(Fexit, "query_fexit_sock").optional(),
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
        QUERY,
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
        QUERY,
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
        QUERY,
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
        QUERY,
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
