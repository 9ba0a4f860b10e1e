//! Every probe there can be, in one table: what of the kernel is looked at, by which programs of the BPF object, for
//! which sensor and attach method.
//!
//! [`crate::host`] looks for the functions and tracepoints that stand here, [`crate::plan`] picks from the table what
//! this kernel has, [`crate::kernel`] attaches it. Each name of the kernel stands here once. A function that got another
//! name is one more [`Place`] in its row; a sensor is rows of its own.

use crate::model::{Rung, SensorId};

/// Functions of the kernel.
pub mod function {
    /// `mptcp_getsockopt(sk, level, optname, optval, optlen)`: answers for an MPTCP socket, whatever it is asked.
    pub const MPTCP_GETSOCKOPT: &str = "mptcp_getsockopt";
    /// `mptcp_getsockopt_sol_tcp(msk, optname, optval, optlen)`: the part of it for options of TCP, before a fallback.
    pub const MPTCP_GETSOCKOPT_SOL_TCP: &str = "mptcp_getsockopt_sol_tcp";
    /// `tcp_getsockopt(sk, level, optname, optval, optlen)`: answers for a TCP socket, whatever it is asked.
    pub const TCP_GETSOCKOPT: &str = "tcp_getsockopt";
    /// `do_tcp_getsockopt(sk, level, optname, ...)`: the part of it for options of TCP.
    pub const DO_TCP_GETSOCKOPT: &str = "do_tcp_getsockopt";
    /// `sock_getsockopt(sock, level, optname, optval, optlen)`: answers for options of `SOL_SOCKET` on older kernels.
    pub const SOCK_GETSOCKOPT: &str = "sock_getsockopt";
    /// `sk_getsockopt(sk, level, optname, sockptr_t optval, sockptr_t optlen)`: the same on newer ones. Trampolines of
    /// older kernels cannot keep so many words of arguments; those kernels have the other one.
    pub const SK_GETSOCKOPT: &str = "sk_getsockopt";
    /// `mptcp_setsockopt(sk, level, optname, sockptr_t optval, optlen)`: sets options of MPTCP sockets.
    pub const MPTCP_SETSOCKOPT: &str = "mptcp_setsockopt";
    /// `__sock_create(net, family, type, protocol, res, kern)`: makes sockets.
    pub const SOCK_CREATE: &str = "__sock_create";
    /// `mptcp_destroy(sk)`: an MPTCP socket ends.
    pub const MPTCP_DESTROY: &str = "mptcp_destroy";
    /// `mptcp_stream_accept(sock, newsock, ...)`: a process accepts a connection.
    pub const MPTCP_STREAM_ACCEPT: &str = "mptcp_stream_accept";
    /// `mptcp_subflow_drop_ctx(ssk)`: a child of an MPTCP listener becomes plain TCP.
    pub const MPTCP_SUBFLOW_DROP_CTX: &str = "mptcp_subflow_drop_ctx";
    /// `mptcp_sendmsg(sk, msg, len)`: a process sends.
    pub const MPTCP_SENDMSG: &str = "mptcp_sendmsg";
    /// `mptcp_recvmsg(sk, msg, ...)`: a process receives.
    pub const MPTCP_RECVMSG: &str = "mptcp_recvmsg";
    /// `mptcp_init_sock(sk)`: an MPTCP socket is made.
    pub const MPTCP_INIT_SOCK: &str = "mptcp_init_sock";
    /// `mptcp_pm_mp_fail_received(sk, fail_seq)`: the other end complains of a checksum (RFC 8684 section 3.7).
    pub const MPTCP_PM_MP_FAIL_RECEIVED: &str = "mptcp_pm_mp_fail_received";
    /// `mptcp_active_disable(sk)`: MPTCP is switched off for a while in a network namespace.
    pub const MPTCP_ACTIVE_DISABLE: &str = "mptcp_active_disable";
    /// `__mptcp_try_fallback(msk, fb_mib)`: decides fallbacks. On newer kernels it is told the cause.
    pub const MPTCP_TRY_FALLBACK: &str = "__mptcp_try_fallback";
    /// Its parameter for the cause.
    pub const CAUSE_PARAMETER: &str = "fb_mib";
    /// `mptcp_connect(sock, ...)`: a client falls back before its SYN.
    pub const MPTCP_CONNECT: &str = "mptcp_connect";
    /// `mptcp_syn_options(sk, skb, ...)`: both ends opened at the same time.
    pub const MPTCP_SYN_OPTIONS: &str = "mptcp_syn_options";
    /// `subflow_state_change(sk)`: the same, found out later.
    pub const SUBFLOW_STATE_CHANGE: &str = "subflow_state_change";
    /// `mptcp_active_detect_blackhole(ssk, expired)`: SYNs that ask for MPTCP got lost.
    pub const MPTCP_ACTIVE_DETECT_BLACKHOLE: &str = "mptcp_active_detect_blackhole";
    /// `mptcp_dss_corruption(msk, ssk)`: some compilers inline a copy of the decision into it.
    pub const MPTCP_DSS_CORRUPTION: &str = "mptcp_dss_corruption";
    /// Present where trampolines can be attached to functions that ftrace patches
    /// (`CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS`). No probe hangs there: tests check with it what they assume.
    pub const REGISTER_FTRACE_DIRECT: &str = "register_ftrace_direct";
    /// Functions that answer no question: a test of the self-test hangs probes there that belong on their namesakes.
    pub const DECOYS: [&str; 4] = [
        "tcp_setsockopt",
        "do_tcp_setsockopt",
        "sock_setsockopt",
        "sk_setsockopt",
    ];
}

/// Tracepoints of the kernel.
pub mod tracepoint {
    /// A system call returns.
    pub const SYS_EXIT: &str = "sys_exit";
    /// A system call begins: a place where a test of the self-test hangs what belongs to [`SYS_EXIT`].
    pub const SYS_ENTER: &str = "sys_enter";
    /// The types by which the kernel describes the arguments of these two.
    pub const TYPES: [&str; 2] = ["btf_trace_sys_exit", "btf_trace_sys_enter"];
    /// An `io_uring` request was carried out.
    pub const IO_URING_COMPLETE: &str = "io_uring_complete";
    /// A TCP or MPTCP socket changes its state.
    pub const INET_SOCK_SET_STATE: &str = "inet_sock_set_state";
    /// A TCP socket ends.
    pub const TCP_DESTROY_SOCK: &str = "tcp_destroy_sock";
    /// A subflow looks at data that arrived.
    pub const SUBFLOW_CHECK_DATA_AVAIL: &str = "subflow_check_data_avail";
    /// The scheduler picks a subflow to send on.
    pub const MPTCP_SUBFLOW_GET_SEND: &str = "mptcp_subflow_get_send";
    /// A process has sent.
    pub const SOCK_SEND_LENGTH: &str = "sock_send_length";
    /// A process has received.
    pub const SOCK_RECV_LENGTH: &str = "sock_recv_length";
    /// A process is born.
    pub const SCHED_PROCESS_FORK: &str = "sched_process_fork";
    /// A process is gone.
    pub const SCHED_PROCESS_FREE: &str = "sched_process_free";
}

/// Programs that hang nowhere, or beside the sensors.
pub mod alone {
    /// Goes through the files of all tasks ([`FILES`]), and lists MPTCP sockets.
    pub const LISTER: &str = "listed_task_file";
    /// What it goes through (`bpf_iter`).
    pub const FILES: &str = "task_file";
    /// The type by which the kernel knows that.
    pub const FILES_TYPE: &str = "bpf_iter_task_file";
    /// Reads the kernel's counters in a network namespace that was noted.
    pub const COUNTED_NOW: &str = "counted_now";
    /// Reads them in the next namespace of all.
    pub const COUNTED_NEXT: &str = "counted_next";
    /// Finds what the kernel keeps for MPTCP in a namespace.
    pub const COUNTED_PERNET: &str = "counted_pernet";
    /// Tells how deep the tracer's PID namespace is.
    pub const PIDNS_LEVEL: &str = "pidns_level";
    /// Notes the children of wanted processes (`--follow`).
    pub const FAMILY_FORK: &str = "family_fork";
    /// Forgets them when they are gone.
    pub const FAMILY_FREE: &str = "family_free";
    /// All of them.
    pub const ALL: [&str; 7] = [
        LISTER,
        COUNTED_NOW,
        COUNTED_NEXT,
        COUNTED_PERNET,
        PIDNS_LEVEL,
        FAMILY_FORK,
        FAMILY_FREE,
    ];
}

/// How a program hangs at its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// Trampoline at the entry of a function.
    Fentry,
    /// Trampoline at the return of a function.
    Fexit,
    /// Breakpoint at the entry of a function.
    Kprobe,
    /// Breakpoint at the return of a function.
    Kretprobe,
    /// Tracepoint by its name alone, with the kernel's own arguments.
    RawTracepoint,
    /// The same, with arguments whose types the kernel describes.
    TypedTracepoint,
}

impl Hook {
    /// True for what hangs on a function.
    #[must_use]
    pub fn is_on_function(self) -> bool {
        match self {
            Self::Fentry | Self::Fexit | Self::Kprobe | Self::Kretprobe => true,
            Self::RawTracepoint | Self::TypedTracepoint => false,
        }
    }
}

/// A program of the BPF object, and how it hangs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// How.
    pub hook: Hook,
    /// Name of the program in the object.
    pub program: &'static str,
    /// Programs that take what this one is kept from where a thread can be preempted inside it, in the order in which they
    /// run behind it. What has none misses such runs: what it would have seen is seen again, or its place is too busy for
    /// more than one program.
    pub turns: &'static [&'static str],
    /// It opens a question: it is attached behind all that close one, so that none is opened that nobody closes.
    pub opens: bool,
    /// The attach method is worth having without it: what it sees is beside the question.
    pub is_optional: bool,
}

impl Attachment {
    const fn opens(self) -> Self {
        Self {
            opens: true,
            ..self
        }
    }

    const fn optional(self) -> Self {
        Self {
            is_optional: true,
            ..self
        }
    }
}

const fn alone(hook: Hook, program: &'static str) -> Attachment {
    Attachment {
        hook,
        program,
        turns: &[],
        opens: false,
        is_optional: false,
    }
}

/// A program, and the two that take turns with it.
macro_rules! in_turns {
    ($hook:ident, $program:literal) => {
        Attachment {
            turns: &[concat!($program, "_2"), concat!($program, "_3")],
            ..alone(Hook::$hook, $program)
        }
    };
}

const fn fentry(program: &'static str) -> Attachment {
    alone(Hook::Fentry, program)
}

const fn kprobe(program: &'static str) -> Attachment {
    alone(Hook::Kprobe, program)
}

const fn kretprobe(program: &'static str) -> Attachment {
    alone(Hook::Kretprobe, program)
}

const fn raw(program: &'static str) -> Attachment {
    alone(Hook::RawTracepoint, program)
}

/// A place in the kernel where something can be seen.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Name of the function or tracepoint.
    pub on: &'static str,
    /// The programs, in the order in which they are attached. Which of them are of use depends on the attach method:
    /// programs that hang in another way are left out.
    pub programs: &'static [Attachment],
    /// Members of the kernel's structures that have to be known (fields of `KernelLayout`).
    pub needs: &'static [&'static str],
    /// Where the kernel has this function, this place is not the right one.
    pub unless: Option<&'static str>,
    /// A copy that the compiler made under a longer name will do, and is what is looked for.
    pub any_copy: bool,
    /// What cannot be told because it is this place, a sentence each.
    pub costs: &'static [&'static str],
}

impl Place {
    const fn needing(self, needs: &'static [&'static str]) -> Self {
        Self { needs, ..self }
    }

    const fn unless(self, function: &'static str) -> Self {
        Self {
            unless: Some(function),
            ..self
        }
    }

    const fn costing(self, costs: &'static [&'static str]) -> Self {
        Self { costs, ..self }
    }
}

const fn at(on: &'static str, programs: &'static [Attachment]) -> Place {
    Place {
        on,
        programs,
        needs: &[],
        unless: None,
        any_copy: false,
        costs: &[],
    }
}

const fn at_any_copy(on: &'static str, programs: &'static [Attachment]) -> Place {
    Place {
        any_copy: true,
        ..at(on, programs)
    }
}

/// When a row is of use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// On every kernel.
    Always,
    /// Where the function that decides fallbacks is told the cause.
    CauseIsTold,
    /// Where no row before has taken this place.
    Without(&'static str),
    /// Where rows before have taken all of these.
    With(&'static [&'static str]),
}

/// Which places of a row are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Take {
    /// The first one that this kernel has.
    First,
    /// Every one that it has.
    Every,
}

/// What follows where the kernel has none of the places of a row; of a row that takes every place, also [`Self::Costs`] where
/// one is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// Nothing that is worth a word.
    IsFine,
    /// This cannot be told, a sentence to which the names of what is missing are added.
    Costs(&'static str),
    /// These cannot be told, a sentence each, to which nothing is added.
    CostsAsSaid(&'static [&'static str]),
    /// The attach method is of no use.
    RulesOut,
    /// The same, with this reason.
    RulesOutSaying(&'static str),
}

/// One thing that a sensor has to see, and where that can be.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// For whom.
    pub sensor: SensorId,
    /// By which attach methods.
    pub rungs: &'static [Rung],
    /// When it is of use.
    pub when: When,
    /// Which of the places are taken.
    pub take: Take,
    /// Where it can be seen, best first.
    pub places: &'static [Place],
    /// What follows if it cannot.
    pub missing: Missing,
}

/// What a sensor needs for an attach method, whatever it then finds.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Which sensor.
    pub sensor: SensorId,
    /// Which attach method.
    pub rung: Rung,
    /// Members of the kernel's structures without which it is of no use (fields of `KernelLayout`).
    pub needs: &'static [&'static [&'static str]],
    /// What it cannot tell on any kernel, a sentence each.
    pub costs: &'static [&'static str],
}

/// Members that a record can do without.
#[derive(Clone, Copy, Debug)]
pub struct Optional {
    /// For which sensor.
    pub sensor: SensorId,
    /// By which attach methods.
    pub rungs: &'static [Rung],
    /// Fields of `KernelLayout`.
    pub fields: &'static [&'static str],
    /// What cannot be told without one of them.
    pub costs: &'static str,
}

const QUERY: SensorId = SensorId::Query;
const FALLBACK: SensorId = SensorId::Fallback;
const ANY: &[Rung] = &Rung::LADDER;
const FEXIT: &[Rung] = &[Rung::Fexit];
const KPROBE: &[Rung] = &[Rung::Kprobe];
const FUNCTIONS: &[Rung] = &[Rung::Fexit, Rung::Kprobe];
const TRACEPOINT: &[Rung] = &[Rung::Tracepoint];

const fn row(
    sensor: SensorId,
    rungs: &'static [Rung],
    places: &'static [Place],
    missing: Missing,
) -> Row {
    Row {
        sensor,
        rungs,
        when: When::Always,
        take: Take::First,
        places,
        missing,
    }
}

impl Row {
    const fn when(self, when: When) -> Self {
        Self { when, ..self }
    }

    const fn every(self) -> Self {
        Self {
            take: Take::Every,
            ..self
        }
    }
}

/// Members without which no record can be written.
const SOCKET: &[&str] = &[
    "sock_family",
    "sock_state",
    "sock_num",
    "sock_dport",
    "sock_daddr",
    "sock_rcv_saddr",
    "sock_net",
    "sock_protocol",
    "net_inum",
];
/// Members that lead from a task to its network namespace.
const CALLER: &[&str] = &["task_nsproxy", "nsproxy_net"];
/// Members that lead from a subflow to its connection.
const SUBFLOW: &[&str] = &["tcp_is_mptcp", "icsk_ulp_data", "subflow_conn"];
/// State of a connection.
const STATE: &[&str] = &["msk_flags"];
/// Its first subflow.
const FIRST_SUBFLOW: &[&str] = &["msk_first"];
/// Members that lead from a descriptor to its socket.
const FILE: &[&str] = &[
    "task_files",
    "files_fdt",
    "fdt_max_fds",
    "fdt_fd",
    "file_private_data",
    "socket_file",
    "socket_sk",
];
/// What a system call was called with.
const REGISTERS: &[&str] = &[
    "regs_number",
    "regs_argument_0",
    "regs_argument_1",
    "regs_argument_2",
    "regs_argument_3",
    "regs_argument_4",
];
/// Members that tell what an `io_uring` request was about. Kernels that cannot ask that way have no such members.
const URING: &[&str] = &["uring_opcode", "uring_file", "uring_command"];

const LATENCY: &str = "how long an answer took is not known: only its end is seen";
const INFERRED: &str = "the cause is inferred from the function that fell back, or from what its data was like: \
                        this kernel tells no function the cause";
const LATE: &str = "a fallback outside of the handshake and of bad data is noticed with the next data, \
                    question or change of state, not at the time";

/// What each sensor needs and cannot tell, by attach method.
pub const METHODS: &[Method] = &[
    Method {
        sensor: QUERY,
        rung: Rung::Fexit,
        needs: &[SOCKET, SUBFLOW],
        costs: &[LATENCY],
    },
    Method {
        sensor: QUERY,
        rung: Rung::Kprobe,
        needs: &[SOCKET, SUBFLOW],
        costs: &[],
    },
    Method {
        sensor: QUERY,
        rung: Rung::Tracepoint,
        needs: &[SOCKET, FILE, STATE, REGISTERS],
        costs: &[
            "queries of 32-bit programs are not seen: their system calls have numbers of their own",
            "the function that answered is not seen: the answer is told from the state bits of the connection",
            LATENCY,
            "where the kernel preempts tracepoints, a run is missed if three tasks are interrupted in the middle of one on the \
             same CPU: such runs are counted (missed)",
        ],
    },
    Method {
        sensor: FALLBACK,
        rung: Rung::Fexit,
        needs: &[SOCKET, SUBFLOW, STATE, FIRST_SUBFLOW],
        costs: &[],
    },
    Method {
        sensor: FALLBACK,
        rung: Rung::Kprobe,
        needs: &[SOCKET, SUBFLOW, STATE, FIRST_SUBFLOW],
        costs: &[],
    },
    Method {
        sensor: FALLBACK,
        rung: Rung::Tracepoint,
        needs: &[SOCKET, SUBFLOW, STATE, FIRST_SUBFLOW, FILE, REGISTERS],
        costs: &[
            "the cause is inferred from the state of the connection and from what its data was like: no function is seen here",
            LATE,
            "a TCP child of an MPTCP listener is seen, but not whether its client never asked for MPTCP or lost it in the third \
             packet of the handshake (MPCapableFallbackACK)",
            "that the other end complained of a checksum is no evidence here (mp-fail-received): no tracepoint tells of it",
        ],
    },
];

/// Members that records can do without.
pub const OPTIONAL: &[Optional] = &[
    Optional {
        sensor: QUERY,
        rungs: ANY,
        fields: &["sock_socket", "socket_alloc_inode_number"],
        costs: "the inode of a socket is not known",
    },
    Optional {
        sensor: QUERY,
        rungs: ANY,
        fields: &["sock_v6_daddr", "sock_v6_rcv_saddr"],
        costs: "queries about IPv6 sockets are lost, and counted (CONFIG_IPV6 is off)",
    },
    Optional {
        sensor: QUERY,
        rungs: TRACEPOINT,
        fields: CALLER,
        costs: "refused MPTCP sockets are not seen",
    },
    Optional {
        sensor: FALLBACK,
        rungs: ANY,
        fields: &["msk_bytes_sent"],
        costs: "how much went over MPTCP before is not known",
    },
    Optional {
        sensor: FALLBACK,
        rungs: ANY,
        fields: &["msk_server_side"],
        costs: "which end opened a connection is not known",
    },
    Optional {
        sensor: FALLBACK,
        rungs: ANY,
        fields: &["msk_extra_subflows"],
        costs: "how many subflows a connection has is not known",
    },
];

/// Every probe there can be.
pub const ROWS: &[Row] = &[
    // A question is answered by the inner function.
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
    // The outer one, through which every question about an MPTCP socket goes. By fexit nothing opens a question; this
    // one has to be the last all the same: what the inner one answers is understood where the outer one returns.
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
                "questions with options of SOL_MPTCP are not seen: the function that answers them is not probed",
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
    // What is not TCP's own is answered by the outer of TCP's two functions, and never comes to the inner one.
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
            "questions with options of SOL_MPTCP about TCP sockets are not seen, and about MPTCP sockets that fell back not \
             understood",
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
        Missing::Costs("questions with SO_PROTOCOL are not seen"),
    ),
    // What is refused.
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
        Missing::Costs("refused setsockopt calls are not seen"),
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
        Missing::Costs("refused MPTCP sockets are not seen"),
    ),
    // All of it, where system calls return.
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
            "what is asked or refused through io_uring is not seen; verdicts about connections that were asked about so are in \
             doubt",
        ])],
        Missing::IsFine,
    ),
    // Births, owners and ends of connections.
    row(
        FALLBACK,
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
        FALLBACK,
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
        FALLBACK,
        FUNCTIONS,
        &[at(
            function::MPTCP_SUBFLOW_DROP_CTX,
            &[
                in_turns!(Fentry, "life_fentry_drop"),
                kprobe("life_kprobe_drop"),
            ],
        )],
        Missing::RulesOut,
    ),
    row(
        FALLBACK,
        FUNCTIONS,
        &[at(
            function::MPTCP_SENDMSG,
            &[fentry("life_fentry_send"), kprobe("life_kprobe_io")],
        )],
        Missing::RulesOut,
    ),
    row(
        FALLBACK,
        FUNCTIONS,
        &[at(
            function::MPTCP_RECVMSG,
            &[fentry("life_fentry_receive"), kprobe("life_kprobe_io")],
        )],
        Missing::RulesOut,
    ),
    row(
        FALLBACK,
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
    // The other end complains of a checksum.
    row(
        FALLBACK,
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
    // MPTCP is switched off for a while.
    row(
        FALLBACK,
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
        FALLBACK,
        FUNCTIONS,
        &[at(
            function::MPTCP_TRY_FALLBACK,
            &[
                in_turns!(Fexit, "fallback_fexit_try"),
                in_turns!(Fentry, "fallback_fentry_try"),
                kretprobe("fallback_kretprobe_try"),
                kprobe("fallback_kprobe_try"),
            ],
        )],
        Missing::IsFine,
    )
    .when(When::CauseIsTold),
    // Without that, the functions that fall back. Those in the data path run with every packet, and so does
    // subflow_finish_connect: trampolines on them cost a bulk transfer a fifth of its speed. The tracepoints beside
    // them cost next to nothing.
    row(
        FALLBACK,
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
        Missing::RulesOutSaying(
            "the kernel's type information has no function that can fall back",
        ),
    )
    .every()
    .when(When::Without(function::MPTCP_TRY_FALLBACK)),
    row(
        FALLBACK,
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
    row(
        FALLBACK,
        FUNCTIONS,
        &[],
        Missing::CostsAsSaid(&[INFERRED, LATE]),
    )
    .when(When::Without(function::MPTCP_TRY_FALLBACK)),
    // The second copy of the decision, where the compiler made one. It has lost its plain name or its description, so
    // that only a breakpoint reaches it.
    row(
        FALLBACK,
        FUNCTIONS,
        &[at_any_copy(
            function::MPTCP_DSS_CORRUPTION,
            &[kprobe("fallback_kprobe_dss")],
        )],
        Missing::Costs(
            "DSSCorruptionFallback is noticed late: the compiler made a copy of the function that decides",
        ),
    ),
    // The same by tracepoints alone.
    row(
        FALLBACK,
        TRACEPOINT,
        &[
            at(
                tracepoint::SYS_EXIT,
                &[in_turns!(TypedTracepoint, "life_tp_return")],
            ),
            at(
                tracepoint::SYS_EXIT,
                &[in_turns!(RawTracepoint, "life_raw_return")],
            ),
        ],
        Missing::RulesOut,
    ),
    row(
        FALLBACK,
        TRACEPOINT,
        &[
            at(tracepoint::SOCK_SEND_LENGTH, &[raw("life_tp_io")]),
            at(tracepoint::SOCK_RECV_LENGTH, &[raw("life_tp_io")]),
        ],
        Missing::Costs("a process that was handed a socket is not noticed until it asks"),
    )
    .every(),
    row(
        FALLBACK,
        TRACEPOINT,
        &[at(
            tracepoint::MPTCP_SUBFLOW_GET_SEND,
            &[in_turns!(RawTracepoint, "fallback_tp_send")],
        )],
        Missing::IsFine,
    ),
    // What hangs on tracepoints whatever the attach method: it costs least there.
    row(
        FALLBACK,
        ANY,
        &[at(
            tracepoint::TCP_DESTROY_SOCK,
            &[in_turns!(RawTracepoint, "life_tp_destroy")],
        )],
        Missing::Costs(
            "the end of TCP connections is not seen, so that their ids stay in the table until it is full",
        ),
    ),
    row(
        FALLBACK,
        ANY,
        &[at(
            tracepoint::INET_SOCK_SET_STATE,
            &[in_turns!(RawTracepoint, "life_tp_state")],
        )],
        Missing::RulesOut,
    ),
    row(
        FALLBACK,
        ANY,
        &[at(
            tracepoint::SUBFLOW_CHECK_DATA_AVAIL,
            &[in_turns!(RawTracepoint, "fallback_tp_data")],
        )],
        Missing::Costs("what was wrong with the data is not seen (evidence)"),
    ),
];

fn places() -> impl Iterator<Item = (SensorId, &'static Place)> {
    ROWS.iter()
        .flat_map(|row| row.places.iter().map(|place| (row.sensor, place)))
}

fn names(is_of: fn(Hook) -> bool) -> Vec<&'static str> {
    let mut names: Vec<_> = places()
        .filter(|(_, place)| place.programs.iter().any(|it| is_of(it.hook)))
        .map(|(_, place)| place.on)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The functions of the kernel on which a probe may hang.
#[must_use]
pub fn functions() -> Vec<&'static str> {
    names(Hook::is_on_function)
}

/// The tracepoints on which one may.
#[must_use]
pub fn tracepoints() -> Vec<&'static str> {
    names(|hook| !hook.is_on_function())
}

/// Every program that hangs somewhere, as it does there.
pub fn attachments() -> impl Iterator<Item = &'static Attachment> {
    places().flat_map(|(_, place)| place.programs)
}

/// The sensor that a program belongs to, also one that takes turns; none for those that hang beside the sensors.
#[must_use]
pub fn sensor_of(program: &str) -> Option<SensorId> {
    let is_it = |it: &Attachment| it.program == program || it.turns.contains(&program);
    places()
        .find(|(_, place)| place.programs.iter().any(is_it))
        .map(|(sensor, _)| sensor)
}

/// Every program that the BPF object has to have.
#[must_use]
pub fn programs() -> Vec<&'static str> {
    let mut programs: Vec<_> = attachments()
        .flat_map(|it| [it.program].into_iter().chain(it.turns.iter().copied()))
        .chain(alone::ALL)
        .collect();
    programs.sort_unstable();
    programs.dedup();
    programs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_of_one_sensor_and_always_hangs_in_the_same_way() {
        let all: Vec<_> = places()
            .flat_map(|(sensor, place)| place.programs.iter().map(move |it| (sensor, it)))
            .collect();
        for (sensor, it) in &all {
            for (other, same) in all.iter().filter(|(_, same)| same.program == it.program) {
                assert_eq!((sensor, it), (other, same));
            }
            assert_eq!(sensor_of(it.program), Some(*sensor));
            for turn in it.turns {
                assert_eq!(sensor_of(turn), Some(*sensor), "{turn}");
                assert!(all.iter().all(|(_, other)| other.program != *turn));
            }
        }
        assert!(alone::ALL.iter().all(|it| sensor_of(it).is_none()));
    }

    #[test]
    fn every_sensor_has_every_attach_method_once() {
        for sensor in SensorId::ALL {
            for rung in Rung::LADDER {
                let of_it = |it: &&Method| it.sensor == sensor && it.rung == rung;
                assert_eq!(METHODS.iter().filter(of_it).count(), 1, "{sensor} {rung}");
                let has_rows = |it: &Row| it.sensor == sensor && it.rungs.contains(&rung);
                assert!(ROWS.iter().any(has_rows), "{sensor} {rung}");
            }
        }
    }
}
