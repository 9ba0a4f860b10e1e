//! Offsets of the structure members that the probes read from the running kernel.
//!
//! Rust has no CO-RE: userspace resolves each member by name in the kernel's BTF, checks its width,
//! and passes the offsets to the BPF side as one frozen global. No offset is defined here.

use crate::wire::structure;

/// Offset of a member that the kernel's BTF lacks; features that need it are disabled.
pub const ABSENT: u16 = u16::MAX;

/// Bit of [`KernelLayout::task_syscall_status`] (`TS_COMPAT`): the task is in a 32-bit system call.
/// A `#define`, and therefore absent from BTF; its value has never changed. With a wrong value,
/// 32-bit calls would be mistaken for 64-bit ones.
pub const SYSCALL_OF_32_BITS: u32 = 2;

/// [`MemberSpec::width`] of a one-bit field or a `bool`: its offset is counted in bits.
pub const BIT: u8 = 0;

/// The architecture that a kernel is built for. It determines the names of the members that hold
/// registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Architecture {
    /// x86-64.
    X86_64,
    /// 64-bit ARM, `arm64` to the kernel.
    Aarch64,
}

impl Architecture {
    /// The architecture that this code is compiled for, and so the running kernel's.
    pub const NATIVE: Self = if cfg!(target_arch = "aarch64") {
        Self::Aarch64
    } else {
        Self::X86_64
    };

    /// Where the kernel saves the registers of a system call.
    const fn registers(self) -> Registers {
        match self {
            Self::X86_64 => Registers {
                number: ("pt_regs.orig_ax", 8),
                arguments: [
                    "pt_regs.di",
                    "pt_regs.si",
                    "pt_regs.dx",
                    "pt_regs.r10",
                    "pt_regs.r8",
                ],
            },
            Self::Aarch64 => Registers {
                number: ("pt_regs.syscallno", 4),
                arguments: [
                    "pt_regs.orig_x0",
                    "pt_regs.regs[1]",
                    "pt_regs.regs[2]",
                    "pt_regs.regs[3]",
                    "pt_regs.regs[4]",
                ],
            },
        }
    }
}

/// The members of `struct pt_regs` from which a system call is read.
struct Registers {
    /// Path and width of the system call number.
    number: (&'static str, u8),
    /// Paths of the first five arguments.
    arguments: [&'static str; 5],
}

macro_rules! kernel_layout {
    ($regs:ident; $($(#[$doc:meta])* $field:ident: $path:expr, $width:expr;)*) => {
        structure! {
            /// Offsets of kernel structure members, in bytes (of single bits: in bits), or
            /// [`ABSENT`].
            pub struct KernelLayout {
                $($(#[$doc])* pub $field: u16,)*
            }
        }

        const MEMBER_COUNT: usize = [$(stringify!($field)),*].len();

        /// One member to resolve.
        #[derive(Clone, Copy, Debug)]
        pub struct MemberSpec {
            /// Field of [`KernelLayout`] that holds its offset.
            pub field: &'static str,
            /// `struct.member.member`, with the kernel's names.
            pub path: &'static str,
            /// Number of bytes that the probes read; a member of another width is rejected.
            /// [`BIT`]: a bit field of one bit, or a `bool`; its offset is in bits.
            pub width: u8,
        }

        impl KernelLayout {
            /// Every member, in the order of the fields, for the running kernel's architecture.
            pub const MEMBERS: &'static [MemberSpec] = &Self::members(Architecture::NATIVE);

            /// Every member, in the order of the fields, for the given architecture.
            #[must_use]
            pub const fn members(architecture: Architecture) -> [MemberSpec; MEMBER_COUNT] {
                let $regs = architecture.registers();
                [$(MemberSpec { field: stringify!($field), path: $path, width: $width },)*]
            }

            /// A layout in which everything is absent.
            pub const EMPTY: Self = Self { $($field: ABSENT,)* };

            /// Builds a layout from offsets in the order of [`Self::MEMBERS`].
            #[must_use]
            pub fn from_offsets(offsets: &[u16; Self::MEMBERS.len()]) -> Self {
                let mut rest = offsets.iter().copied();
                Self { $($field: rest.next().unwrap_or(ABSENT),)* }
            }

            /// Offsets in the order of [`Self::MEMBERS`].
            #[must_use]
            pub fn offsets(&self) -> [u16; Self::MEMBERS.len()] {
                [$(self.$field,)*]
            }
        }
    };
}

kernel_layout! {
    registers;
    /// Address family of a socket.
    sock_family: "sock_common.skc_family", 2;
    /// State of a socket.
    sock_state: "sock_common.skc_state", 1;
    /// Local port, host byte order.
    sock_num: "sock_common.skc_num", 2;
    /// Remote port, network byte order.
    sock_dport: "sock_common.skc_dport", 2;
    /// Remote IPv4 address.
    sock_daddr: "sock_common.skc_daddr", 4;
    /// Local IPv4 address.
    sock_rcv_saddr: "sock_common.skc_rcv_saddr", 4;
    /// Remote IPv6 address.
    sock_v6_daddr: "sock_common.skc_v6_daddr", 16;
    /// Local IPv6 address.
    sock_v6_rcv_saddr: "sock_common.skc_v6_rcv_saddr", 16;
    /// Interface that a socket is bound to: of a link-local address, its zone.
    sock_bound_dev_if: "sock_common.skc_bound_dev_if", 4;
    /// Network namespace of a socket.
    sock_net: "sock_common.skc_net.net", 8;
    /// Protocol of a socket.
    sock_protocol: "sock.sk_protocol", 2;
    /// The `struct socket` of a `struct sock`.
    sock_socket: "sock.sk_socket", 8;
    /// User that owns a socket.
    sock_uid: "sock.sk_uid", 4;
    /// Local storage of BPF programs at a socket ([`crate::record::SELF_TEST_MAP`]).
    sock_storage: "sock.sk_bpf_storage", 8;
    /// First element of a socket's local storage.
    storage_first: "bpf_local_storage.list.first", 8;
    /// The node that links an element.
    element_node: "bpf_local_storage_elem.snode", 16;
    /// The next node.
    node_next: "hlist_node.next", 8;
    /// The map that an element belongs to.
    element_map: "bpf_local_storage_elem.sdata.smap", 8;
    /// Name of that map.
    storage_map_name: "bpf_local_storage_map.map.name", 16;
    /// Inode number of a network namespace.
    net_inum: "net.ns.inum", 4;
    /// Cookie of a network namespace, never reused.
    net_cookie: "net.net_cookie", 8;
    /// MPTCP counters of a network namespace (per-CPU).
    net_mptcp_counters: "net.mib.mptcp_statistics", 8;
    /// Previous namespace in the list of all.
    net_list_prev: "net.list.prev", 8;
    /// Per-CPU pointer to the values of a per-CPU array.
    array_per_cpu: "bpf_array.pptrs[0]", 8;
    /// The inode that is allocated together with a `struct socket`.
    socket_alloc_inode_number: "socket_alloc.vfs_inode.i_ino", 8;
    /// The `struct file` of a `struct socket`.
    socket_file: "socket.file", 8;
    /// The `struct sock` of a `struct socket`.
    socket_sk: "socket.sk", 8;
    /// Inode of a file.
    file_inode: "file.f_inode", 8;
    /// Number of an inode.
    inode_number: "inode.i_ino", 8;
    /// Whether a TCP socket is a subflow.
    tcp_is_mptcp: "tcp_sock.is_mptcp", 1;
    /// Subflow context of a TCP socket (shared with other upper layer protocols).
    icsk_ulp_data: "inet_connection_sock.icsk_ulp_data", 8;
    /// MPTCP connection of a subflow.
    subflow_conn: "mptcp_subflow_context.conn", 8;
    /// State bits of an MPTCP connection.
    msk_flags: "mptcp_sock.flags", 8;
    /// First subflow of an MPTCP connection.
    msk_first: "mptcp_sock.first", 8;
    /// Whether the peer opened the connection.
    msk_server_side: "mptcp_sock.pm.server_side", BIT;
    /// Whether the connection uses checksums.
    msk_csum_enabled: "mptcp_sock.csum_enabled", BIT;
    /// Whether the connection may still fall back.
    msk_allow_fallback: "mptcp_sock.allow_infinite_fallback", BIT;
    /// Root of the tree of out-of-order segments.
    msk_out_of_order: "mptcp_sock.out_of_order_queue.rb_node", 8;
    /// Payload sent over MPTCP.
    msk_bytes_sent: "mptcp_sock.bytes_sent", 8;
    /// Payload received over MPTCP.
    msk_bytes_received: "mptcp_sock.bytes_received", 8;
    /// Subflows besides the first one; kernels before 6.18 use the next name.
    msk_extra_subflows: "mptcp_sock.pm.extra_subflows", 1;
    /// Older name of `extra_subflows`.
    msk_subflows: "mptcp_sock.pm.subflows", 1;
    /// TCP socket of a subflow context.
    subflow_tcp_sock: "mptcp_subflow_context.tcp_sock", 8;
    /// See [`SubflowBits::REQUEST_MPTCP`](crate::record::SubflowBits::REQUEST_MPTCP).
    subflow_request_mptcp: "mptcp_subflow_context.request_mptcp", BIT;
    /// See [`SubflowBits::MP_CAPABLE`](crate::record::SubflowBits::MP_CAPABLE).
    subflow_mp_capable: "mptcp_subflow_context.mp_capable", BIT;
    /// See [`SubflowBits::MP_JOIN`](crate::record::SubflowBits::MP_JOIN).
    subflow_mp_join: "mptcp_subflow_context.mp_join", BIT;
    /// See [`SubflowBits::VALID_CSUM_SEEN`](crate::record::SubflowBits::VALID_CSUM_SEEN).
    subflow_valid_csum_seen: "mptcp_subflow_context.valid_csum_seen", BIT;
    /// See [`SubflowBits::MPC_DROP`](crate::record::SubflowBits::MPC_DROP).
    subflow_mpc_drop: "mptcp_subflow_context.mpc_drop", BIT;
    /// See [`SubflowBits::REMOTE_KEY`](crate::record::SubflowBits::REMOTE_KEY); kernels before 6.12
    /// use the next name.
    subflow_remote_key_valid: "mptcp_subflow_context.remote_key_valid", BIT;
    /// Older name of `remote_key_valid`.
    subflow_can_ack: "mptcp_subflow_context.can_ack", BIT;
    /// An infinite mapping is about to be sent.
    subflow_send_infinite_map: "mptcp_subflow_context.send_infinite_map", BIT;
    /// Socket that a packet belongs to.
    skb_sk: "sk_buff.sk", 8;
    /// Bitmap of a packet's extensions.
    skb_active_extensions: "sk_buff.active_extensions", 1;
    /// Extensions of a packet.
    skb_extensions: "sk_buff.extensions", 8;
    /// Offset of the first extension, in units of eight bytes; one byte per extension.
    ext_offsets: "skb_ext.offset[0]", 1;
    /// Length of a mapping.
    mapping_data_len: "mptcp_ext.data_len", 2;
    /// Per-module data of a network namespace.
    net_gen: "net.gen", 8;
    /// How long MPTCP is disabled after a blackhole is detected, seconds.
    pernet_blackhole_timeout: "mptcp_pernet.blackhole_timeout", 4;
    /// How often in a row MPTCP was disabled.
    pernet_disable_times: "mptcp_pernet.active_disable_times", 4;
    /// Name of a task.
    task_comm: "task_struct.comm", 16;
    /// First thread of a task's process.
    task_group_leader: "task_struct.group_leader", 8;
    /// Credentials of a task.
    task_cred: "task_struct.cred", 8;
    /// Real user id.
    cred_uid: "cred.uid", 4;
    /// Control groups of a task.
    task_cgroups: "task_struct.cgroups", 8;
    /// Namespaces of a task.
    task_nsproxy: "task_struct.nsproxy", 8;
    /// Network namespace of a task.
    nsproxy_net: "nsproxy.net_ns", 8;
    /// Control group (v2).
    cgroups_default: "css_set.dfl_cgrp", 8;
    /// kernfs node of a control group.
    cgroup_node: "cgroup.kn", 8;
    /// Id of a kernfs node.
    node_id: "kernfs_node.id", 8;
    /// Open files of a task.
    task_files: "task_struct.files", 8;
    /// Descriptor table of a task.
    files_fdt: "files_struct.fdt", 8;
    /// Size of a descriptor table.
    fdt_max_fds: "fdtable.max_fds", 4;
    /// Array of files of a descriptor table.
    fdt_fd: "fdtable.fd", 8;
    /// The object behind a file: for a socket, its `struct socket`.
    file_private_data: "file.private_data", 8;
    /// Process id of a task.
    task_tgid: "task_struct.tgid", 4;
    /// Thread id of a task.
    task_pid: "task_struct.pid", 4;
    /// A task's ids in all PID namespaces that it belongs to.
    task_numbers: "task_struct.thread_pid", 8;
    /// Level of the innermost of these namespaces; the initial one is 0.
    numbers_level: "pid.level", 4;
    /// The id in the initial namespace.
    numbers_first: "pid.numbers[0].nr", 4;
    /// The initial namespace.
    numbers_first_namespace: "pid.numbers[0].ns", 8;
    /// The id in the namespace of level 1.
    numbers_second: "pid.numbers[1].nr", 4;
    /// Inode number of a PID namespace.
    pidns_inum: "pid_namespace.ns.inum", 4;
    /// Operation of an `io_uring` request (`IORING_OP_*`).
    uring_opcode: "io_kiocb.opcode", 1;
    /// The file that the request operates on.
    uring_file: "io_kiocb.file", 8;
    /// Command of an `IORING_OP_URING_CMD` request; `struct io_uring_cmd` overlays the start of the
    /// request.
    uring_command: "io_uring_cmd.cmd_op", 4;
    /// Entry status of the current system call ([`SYSCALL_OF_32_BITS`]); only x86 has it, and only
    /// x86 needs it.
    task_syscall_status: "task_struct.thread_info.status", 4;
    /// Number of a system call.
    regs_number: registers.number.0, registers.number.1;
    /// First argument of a system call.
    regs_argument_0: registers.arguments[0], 8;
    /// Second argument.
    regs_argument_1: registers.arguments[1], 8;
    /// Third argument.
    regs_argument_2: registers.arguments[2], 8;
    /// Fourth argument.
    regs_argument_3: registers.arguments[3], 8;
    /// Fifth argument.
    regs_argument_4: registers.arguments[4], 8;
}

/// Pairs of names for one member: each kernel has one of the two.
pub const RENAMED: [[&str; 2]; 2] = [
    [
        "mptcp_subflow_context.can_ack",
        "mptcp_subflow_context.remote_key_valid",
    ],
    ["mptcp_sock.pm.subflows", "mptcp_sock.pm.extra_subflows"],
];

const _: () = assert!(size_of::<KernelLayout>() == KernelLayout::MEMBERS.len() * 2);

/// A number that this kernel does not have.
pub const NO_NUMBER: u8 = u8::MAX;

structure! {
    /// Numbers of enumerators in the running kernel's BTF.
    pub struct KernelNumbers {
        /// `MAPPING_INVALID` of `enum mapping_status`.
        pub mapping_invalid: u8,
        /// `MAPPING_DUMMY`: the connection has fallen back.
        pub mapping_dummy: u8,
        /// `MAPPING_BAD_CSUM`.
        pub mapping_bad_csum: u8,
        /// `MAPPING_NODSS`; older kernels use `MAPPING_INVALID` instead.
        pub mapping_nodss: u8,
        /// `SKB_EXT_MPTCP` of `enum skb_ext_id`.
        pub skb_ext_mptcp: u8,
    }
}

impl KernelNumbers {
    /// No enumerator is known.
    pub const NONE: Self = Self {
        mapping_invalid: NO_NUMBER,
        mapping_dummy: NO_NUMBER,
        mapping_bad_csum: NO_NUMBER,
        mapping_nodss: NO_NUMBER,
        skb_ext_mptcp: NO_NUMBER,
    };

    /// The enumerators, in the order of the fields, which are a byte each.
    pub const NAMES: [&'static str; size_of::<Self>()] = [
        "MAPPING_INVALID",
        "MAPPING_DUMMY",
        "MAPPING_BAD_CSUM",
        "MAPPING_NODSS",
        "SKB_EXT_MPTCP",
    ];
}

/// Indices of the counters that are read, in the running kernel; [`NO_NUMBER`] for a missing
/// counter.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CounterNumbers(pub [u8; crate::record::COUNTERS]);

impl CounterNumbers {
    /// No counter is known.
    pub const NONE: Self = Self([NO_NUMBER; crate::record::COUNTERS]);
}

/// A system call that an architecture does not have.
pub const NO_SYSCALL: u32 = u32::MAX;

structure! {
    /// Numbers, on one architecture, of the system calls whose return is probed.
    pub struct SyscallNumbers {
        /// `getsockopt`.
        pub getsockopt: u32,
        /// `setsockopt`.
        pub setsockopt: u32,
        /// `socket`.
        pub socket: u32,
        /// `accept`.
        pub accept: u32,
        /// `accept4`.
        pub accept4: u32,
    }
}

impl SyscallNumbers {
    /// No system call is known.
    pub const NONE: Self = Self {
        getsockopt: NO_SYSCALL,
        setsockopt: NO_SYSCALL,
        socket: NO_SYSCALL,
        accept: NO_SYSCALL,
        accept4: NO_SYSCALL,
    };
}

const _: () = assert!(size_of::<SyscallNumbers>() == 20);
