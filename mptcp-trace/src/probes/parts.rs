//! Building blocks of the rows of all sensors.

use super::{Attachment, Hook, Missing, Optional, Place, Role, Row, Take, When};
use crate::model::Rung;

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

    pub(super) const fn with_role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    pub(super) const fn served_by(self, program: &'static str) -> Self {
        Self {
            served_by: Some(program),
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
        served_by: None,
        role: Role::Other,
    }
}

/// A program, and the two that take turns with it.
macro_rules! in_turns {
    ($hook:ident, $program:literal) => {
        $crate::probes::Attachment {
            turns: &[concat!($program, "_2"), concat!($program, "_3")],
            ..$crate::probes::parts::alone($crate::probes::Hook::$hook, $program)
        }
    };
}
pub(super) use in_turns;

pub(super) const fn fentry(program: &'static str) -> Attachment {
    alone(Hook::Fentry, program)
}

pub(super) const fn fexit(program: &'static str) -> Attachment {
    alone(Hook::Fexit, program)
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

pub(super) const ANY: &[Rung] = &Rung::LADDER;
pub(super) const FEXIT: &[Rung] = &[Rung::Fexit];
pub(super) const KPROBE: &[Rung] = &[Rung::Kprobe];
pub(super) const FUNCTIONS: &[Rung] = &[Rung::Fexit, Rung::Kprobe];
pub(super) const TRACEPOINT: &[Rung] = &[Rung::Tracepoint];

pub(super) const fn row(rungs: &'static [Rung], places: &'static [Place], missing: Missing) -> Row {
    Row {
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
    "regs_argument_32_0",
    "regs_argument_32_1",
    "regs_argument_32_2",
    "regs_argument_32_3",
    "regs_argument_32_4",
];
/// Members that lead to the packet that decided, and to whose it is.
pub(super) const PACKET: Optional = Optional {
    rungs: ANY,
    fields: &[
        "skb_head",
        "skb_network_header",
        "skb_transport_header",
        "sock_daddr",
        "inet_sport",
    ],
    costs: "the packet with which MPTCP was lost is unknown",
};
/// Members that describe an `io_uring` request. Kernels without getsockopt through `io_uring` do
/// not have them.
pub(super) const URING: &[&str] = &["uring_opcode", "uring_file", "uring_command"];
