//! Building blocks of rows, and what each attach method requires and cannot observe.

use super::{Attachment, Hook, Method, Missing, Optional, Place, Row, Take, When};
use crate::model::{Rung, SensorId};

impl Attachment {
    pub(super) const fn opens(self) -> Self {
        Self {
            opens: true,
            ..self
        }
    }

    pub(super) const fn optional(self) -> Self {
        Self {
            is_optional: true,
            ..self
        }
    }
}

pub(super) const fn alone(hook: Hook, program: &'static str) -> Attachment {
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
        $crate::probes::Attachment {
            turns: &[concat!($program, "_2"), concat!($program, "_3")],
            ..$crate::probes::methods::alone($crate::probes::Hook::$hook, $program)
        }
    };
}
pub(super) use in_turns;

pub(super) const fn fentry(program: &'static str) -> Attachment {
    alone(Hook::Fentry, program)
}

pub(super) const fn kprobe(program: &'static str) -> Attachment {
    alone(Hook::Kprobe, program)
}

pub(super) const fn kretprobe(program: &'static str) -> Attachment {
    alone(Hook::Kretprobe, program)
}

pub(super) const fn raw(program: &'static str) -> Attachment {
    alone(Hook::RawTracepoint, program)
}

impl Place {
    pub(super) const fn needing(self, needs: &'static [&'static str]) -> Self {
        Self { needs, ..self }
    }

    pub(super) const fn unless(self, function: &'static str) -> Self {
        Self {
            unless: Some(function),
            ..self
        }
    }

    pub(super) const fn costing(self, costs: &'static [&'static str]) -> Self {
        Self { costs, ..self }
    }
}

pub(super) const fn at(on: &'static str, programs: &'static [Attachment]) -> Place {
    Place {
        on,
        programs,
        needs: &[],
        unless: None,
        any_copy: false,
        costs: &[],
    }
}

pub(super) const fn at_any_copy(on: &'static str, programs: &'static [Attachment]) -> Place {
    Place {
        any_copy: true,
        ..at(on, programs)
    }
}

pub(super) const QUERY: SensorId = SensorId::Query;
pub(super) const FALLBACK: SensorId = SensorId::Fallback;
pub(super) const ANY: &[Rung] = &Rung::LADDER;
pub(super) const FEXIT: &[Rung] = &[Rung::Fexit];
pub(super) const KPROBE: &[Rung] = &[Rung::Kprobe];
pub(super) const FUNCTIONS: &[Rung] = &[Rung::Fexit, Rung::Kprobe];
pub(super) const TRACEPOINT: &[Rung] = &[Rung::Tracepoint];

pub(super) const fn row(
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
    pub(super) const fn when(self, when: When) -> Self {
        Self { when, ..self }
    }

    pub(super) const fn every(self) -> Self {
        Self {
            take: Take::Every,
            ..self
        }
    }
}

/// Members that every record requires.
pub(super) const SOCKET: &[&str] = &[
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
pub(super) const CALLER: &[&str] = &["task_nsproxy", "nsproxy_net"];
/// Members that lead from a subflow to its connection.
pub(super) const SUBFLOW: &[&str] = &["tcp_is_mptcp", "icsk_ulp_data", "subflow_conn"];
/// State of a connection.
pub(super) const STATE: &[&str] = &["msk_flags"];
/// Its first subflow.
pub(super) const FIRST_SUBFLOW: &[&str] = &["msk_first"];
/// Members that lead from a descriptor to its socket.
pub(super) const FILE: &[&str] = &[
    "task_files",
    "files_fdt",
    "fdt_max_fds",
    "fdt_fd",
    "file_private_data",
    "socket_file",
    "socket_sk",
];
/// Arguments of a system call.
pub(super) const REGISTERS: &[&str] = &[
    "regs_number",
    "regs_argument_0",
    "regs_argument_1",
    "regs_argument_2",
    "regs_argument_3",
    "regs_argument_4",
];
/// Members that describe an `io_uring` request. Kernels without getsockopt through `io_uring` do
/// not have them.
pub(super) const URING: &[&str] = &["uring_opcode", "uring_file", "uring_command"];

pub(super) const LATENCY: &str = "query latency is unknown: only the return is traced";
pub(super) const INFERRED: &str = "the cause is inferred from the function that fell back, or from \
                                   the connection's data: no function of this kernel has the cause \
                                   as a parameter";
pub(super) const LATE: &str = "a fallback without handshake or bad data is detected late, with the \
                               next data, query or state change";

/// What each sensor requires and cannot observe, by attach method.
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
            "queries of 32-bit programs are not traced: their system calls have other numbers",
            "the answering function is not traced: the answer is derived from the state bits of \
             the connection",
            LATENCY,
            "where the kernel preempts tracepoints, a run is missed if three tasks are preempted \
             within one on the same CPU: such runs are counted (missed)",
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
            "the cause is inferred from the state and the data of the connection: no function is \
             traced here",
            LATE,
            "a TCP child of an MPTCP listener is traced, but not whether its client never \
             requested MPTCP or its third handshake packet came without MPTCP \
             (MPCapableFallbackACK)",
            "checksum complaints of the peer are not reported as evidence (mp-fail-received): no \
             tracepoint covers them",
        ],
    },
];

/// Optional members of records.
pub const OPTIONAL: &[Optional] = &[
    Optional {
        sensor: QUERY,
        rungs: ANY,
        fields: &["sock_socket", "socket_alloc_inode_number"],
        costs: "the inode of a socket is unknown",
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
        costs: "refused MPTCP sockets are not traced",
    },
    Optional {
        sensor: FALLBACK,
        rungs: ANY,
        fields: &["msk_bytes_sent"],
        costs: "the bytes sent over MPTCP before a fallback are unknown",
    },
    Optional {
        sensor: FALLBACK,
        rungs: ANY,
        fields: &["msk_server_side"],
        costs: "the side that opened a connection is unknown",
    },
    Optional {
        sensor: FALLBACK,
        rungs: ANY,
        fields: &["msk_extra_subflows"],
        costs: "the number of subflows of a connection is unknown",
    },
];
