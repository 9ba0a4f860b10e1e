//! Offsets of the structure members that the probes read from the running kernel.
//!
//! Rust has no CO-RE: userspace resolves each member by name in the kernel's BTF, checks its width,
//! and passes the offsets to the BPF side as one frozen global. No offset is defined here.

mod system_calls;

pub use system_calls::{NO_SYSCALL, SyscallNumbers};

use crate::wire::structure;

/// Offset of a member that the kernel's BTF lacks; features that need it are disabled.
pub const ABSENT: u16 = u16::MAX;

/// Bit of [`KernelLayout::syscall_mode`] on x86-64 (`TS_COMPAT`): the task is in a 32-bit system
/// call. A `#define`, and therefore absent from BTF; its value has never changed. With a wrong
/// value, 32-bit calls would be mistaken for 64-bit ones.
pub const TS_COMPAT: u32 = 2;
/// Bit of [`KernelLayout::syscall_mode`] on arm64 (`PSR_MODE32_BIT`): the registers are those of a
/// 32-bit program. Part of the architecture (Arm ARM, `SPSR_EL1.M[4]`).
pub const PSR_MODE32: u32 = 0x10;

/// [`MemberSpec::width`] of a one-bit field or a `bool`: its offset is counted in bits.
pub const BIT: u8 = 0;

/// The architecture that a kernel is built for. It determines the names of the members that hold
/// registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Architecture {
    /// x86-64.
    X86_64 = 0,
    /// 64-bit ARM, `arm64` to the kernel.
    Aarch64 = 1,
}

impl Architecture {
    /// The architecture that this code is compiled for, and so the running kernel's.
    #[cfg(any(target_arch = "x86_64", target_arch = "bpf"))]
    pub const NATIVE: Self = Self::X86_64;
    /// The architecture that this code is compiled for, and so the running kernel's.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;

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
                arguments_32: [
                    "pt_regs.bx",
                    "pt_regs.cx",
                    "pt_regs.dx",
                    "pt_regs.si",
                    "pt_regs.di",
                ],
                mode: ("task_struct.thread_info.status", 4),
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
                arguments_32: [
                    "pt_regs.orig_x0",
                    "pt_regs.regs[1]",
                    "pt_regs.regs[2]",
                    "pt_regs.regs[3]",
                    "pt_regs.regs[4]",
                ],
                mode: ("pt_regs.pstate", 8),
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
    /// The same of a 32-bit program.
    arguments_32: [&'static str; 5],
    /// Path and width of the member that tells calls of 32-bit programs from others.
    mode: (&'static str, u8),
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
    /// Local port of a socket, network byte order; unlike the other one, it stays when the socket is
    /// closed.
    inet_sport: "inet_sock.inet_sport", 2;
    /// Whether the kernel created a socket for itself.
    sock_kern_sock: "sock.sk_kern_sock", BIT;
    /// Error of a socket, a positive errno.
    sock_err: "sock.sk_err", 4;
    /// Payload sent by a TCP socket, bytes.
    tcp_bytes_sent: "tcp_sock.bytes_sent", 8;
    /// Payload sent again.
    tcp_bytes_retrans: "tcp_sock.bytes_retrans", 8;
    /// Payload that was acknowledged.
    tcp_bytes_acked: "tcp_sock.bytes_acked", 8;
    /// Payload received in order.
    tcp_bytes_received: "tcp_sock.bytes_received", 8;
    /// Segments sent again.
    tcp_total_retrans: "tcp_sock.total_retrans", 4;
    /// Smoothed round-trip time.
    tcp_srtt: "tcp_sock.srtt_us", 4;
    /// Minimal round-trip time.
    tcp_rtt_min: "tcp_sock.rtt_min.s[0].v", 4;
    /// Segments sent.
    tcp_segs_out: "tcp_sock.segs_out", 4;
    /// Segments received.
    tcp_segs_in: "tcp_sock.segs_in", 4;
    /// First byte sent that is not acknowledged.
    tcp_snd_una: "tcp_sock.snd_una", 4;
    /// Next byte expected.
    tcp_rcv_nxt: "tcp_sock.rcv_nxt", 4;
    /// The initial sequence number of a request.
    request_rcv_isn: "tcp_request_sock.rcv_isn", 4;
    /// The one in the answer to it.
    request_snt_isn: "tcp_request_sock.snt_isn", 4;
    /// Own key of a connection; only a digest of both keys leaves the kernel.
    msk_local_key: "mptcp_sock.local_key", 8;
    /// The peer's key.
    msk_remote_key: "mptcp_sock.remote_key", 8;
    /// See [`ContextBits::REQUEST_JOIN`](crate::record::ContextBits::REQUEST_JOIN).
    subflow_request_join: "mptcp_subflow_context.request_join", BIT;
    /// See [`ContextBits::FULLY_ESTABLISHED`](crate::record::ContextBits::FULLY_ESTABLISHED).
    subflow_fully_established: "mptcp_subflow_context.fully_established", BIT;
    /// See [`ContextBits::CONN_FINISHED`](crate::record::ContextBits::CONN_FINISHED).
    subflow_conn_finished: "mptcp_subflow_context.conn_finished", BIT;
    /// See [`ContextBits::STALE`](crate::record::ContextBits::STALE).
    subflow_stale: "mptcp_subflow_context.stale", BIT;
    /// See [`ContextBits::CLOSE_EVENT_DONE`](crate::record::ContextBits::CLOSE_EVENT_DONE).
    subflow_close_event_done: "mptcp_subflow_context.close_event_done", BIT;
    /// See [`ContextBits::BACKUP`](crate::record::ContextBits::BACKUP).
    subflow_backup: "mptcp_subflow_context.backup", BIT;
    /// See [`ContextBits::REQUEST_BACKUP`](crate::record::ContextBits::REQUEST_BACKUP).
    subflow_request_backup: "mptcp_subflow_context.request_bkup", BIT;
    /// See [`ContextBits::SEND_FASTCLOSE`](crate::record::ContextBits::SEND_FASTCLOSE).
    subflow_send_fastclose: "mptcp_subflow_context.send_fastclose", BIT;
    /// Truncated HMAC of a join.
    subflow_thmac: "mptcp_subflow_context.thmac", 8;
    /// Nonce of the peer.
    subflow_remote_nonce: "mptcp_subflow_context.remote_nonce", 4;
    /// The connection's token at this end.
    subflow_token: "mptcp_subflow_context.token", 4;
    /// Own address id.
    subflow_local_id: "mptcp_subflow_context.local_id", 2;
    /// The peer's address id.
    subflow_remote_id: "mptcp_subflow_context.remote_id", 1;
    /// See [`ContextBits::RESET_SEEN`](crate::record::ContextBits::RESET_SEEN); the next two members
    /// are in the same byte.
    subflow_reset_seen: "mptcp_subflow_context.reset_seen", BIT;
    /// See [`ContextBits::RESET_TRANSIENT`](crate::record::ContextBits::RESET_TRANSIENT).
    subflow_reset_transient: "mptcp_subflow_context.reset_transient", BIT;
    /// Place in the list of a connection's paths.
    subflow_node: "mptcp_subflow_context.node.next", 8;
    /// List of a connection's paths.
    msk_conn_list: "mptcp_sock.conn_list.next", 8;
    /// See [`ConnectionBits`](crate::record::ConnectionBits).
    msk_rcv_fastclose: "mptcp_sock.rcv_fastclose", BIT;
    /// See [`ConnectionBits`](crate::record::ConnectionBits).
    msk_allow_subflows: "mptcp_sock.allow_subflows", BIT;
    /// See [`ConnectionBits`](crate::record::ConnectionBits).
    msk_fully_established: "mptcp_sock.fully_established", BIT;
    /// The connection's token at this end.
    msk_token: "mptcp_sock.token", 4;
    /// See [`PathManagerState`](crate::record::PathManagerState).
    pm_type: "mptcp_sock.pm.pm_type", 1;
    /// See [`PathManagerState`](crate::record::PathManagerState).
    pm_accept_subflow: "mptcp_sock.pm.accept_subflow", BIT;
    /// See [`PathManagerState`](crate::record::PathManagerState).
    pm_accept_addr: "mptcp_sock.pm.accept_addr", BIT;
    /// See [`PathManagerState`](crate::record::PathManagerState).
    pm_deny_join_id0: "mptcp_sock.pm.remote_deny_join_id0", BIT;
    /// See [`PathManagerState`](crate::record::PathManagerState).
    pm_work_pending: "mptcp_sock.pm.work_pending", BIT;
    /// See [`PathManagerState`](crate::record::PathManagerState).
    pm_add_addr_accepted: "mptcp_sock.pm.add_addr_accepted", 1;
    /// See [`PathManagerState`](crate::record::PathManagerState).
    pm_local_addr_used: "mptcp_sock.pm.local_addr_used", 1;
    /// What the path manager has to do, a bit each; the lowest one: an announcement of the peer.
    pm_status: "mptcp_sock.pm.status", 1;
    /// Ids of addresses that are removed.
    removed_ids: "mptcp_rm_list.ids", 8;
    /// How many there are.
    removed_count: "mptcp_rm_list.nr", 1;
    /// Whether a request came to an MPTCP listener.
    request_is_mptcp: "tcp_request_sock.is_mptcp", BIT;
    /// The listener of a request.
    request_listener: "sock_common.skc_listener", 8;
    /// A bit in the byte whose other bits count how often the timer of a request ran in vain.
    request_syncookie: "request_sock.syncookie", BIT;
    /// Whether a request opens an MPTCP connection.
    request_mp_capable: "mptcp_subflow_request_sock.mp_capable", BIT;
    /// Whether a request is a join.
    request_mp_join: "mptcp_subflow_request_sock.mp_join", BIT;
    /// The connection that a join asks for.
    request_msk: "mptcp_subflow_request_sock.msk", 8;
    /// The token that a request carries.
    request_token: "mptcp_subflow_request_sock.token", 4;
    /// Own address id.
    request_local_id: "mptcp_subflow_request_sock.local_id", 1;
    /// The peer's address id.
    request_remote_id: "mptcp_subflow_request_sock.remote_id", 1;
    /// Address id of one end of a path.
    address_id: "mptcp_addr_info.id", 1;
    /// Its address family.
    address_family: "mptcp_addr_info.family", 2;
    /// Its port, network byte order.
    address_port: "mptcp_addr_info.port", 2;
    /// Its IPv4 address.
    address_v4: "mptcp_addr_info.addr", 4;
    /// Its IPv6 address.
    address_v6: "mptcp_addr_info.addr6", 16;
    /// Start of a packet's data; its TCP header, where the kernel processes the packet.
    skb_data: "sk_buff.data", 8;
    /// Offset of the network header in the buffer.
    skb_network_header: "sk_buff.network_header", 2;
    /// The device that a packet is at.
    skb_dev: "sk_buff.dev", 8;
    /// Network namespace of a device.
    device_net: "net_device.nd_net.net", 8;
    /// Index of the device that a packet arrived at.
    skb_ifindex: "sk_buff.skb_iif", 4;
    /// A bit in the byte that begins with the four bits of the reason for an RST.
    mapping_csum_reqd: "mptcp_ext.csum_reqd", BIT;
    /// Address of a packet's buffer.
    skb_head: "sk_buff.head", 8;
    /// Offset of the TCP header in the buffer.
    skb_transport_header: "sk_buff.transport_header", 2;
    /// Packets that a socket has received and that nobody has read: the first one.
    sock_receive_queue: "sock.sk_receive_queue.next", 8;
    /// Whether both ends of a TCP connection use timestamps.
    tcp_timestamps: "tcp_sock.rx_opt.tstamp_ok", BIT;
    /// Whether both use window scaling.
    tcp_window_scaling: "tcp_sock.rx_opt.wscale_ok", BIT;
    /// A bit before the four bits of the peer's window scale, which begin the next byte.
    tcp_smc: "tcp_sock.rx_opt.smc_ok", BIT;
    /// Largest segment that the peer takes.
    tcp_mss: "tcp_sock.rx_opt.mss_clamp", 2;
    /// The peer's token.
    subflow_remote_token: "mptcp_subflow_context.remote_token", 4;
    /// Name of a task.
    task_comm: "task_struct.comm", 16;
    /// First thread of a task's process.
    task_group_leader: "task_struct.group_leader", 8;
    /// Memory of a task; a kernel thread has none.
    task_mm: "task_struct.mm", 8;
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
    /// Tells whether a system call is one of a 32-bit program: by [`TS_COMPAT`] in the task on
    /// x86-64, by [`PSR_MODE32`] in the saved registers on arm64.
    syscall_mode: registers.mode.0, registers.mode.1;
    /// Number of a system call. The lower four bytes hold it on every architecture.
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
    /// First argument of a 32-bit program's system call.
    regs_argument_32_0: registers.arguments_32[0], 8;
    /// Second argument.
    regs_argument_32_1: registers.arguments_32[1], 8;
    /// Third argument.
    regs_argument_32_2: registers.arguments_32[2], 8;
    /// Fourth argument.
    regs_argument_32_3: registers.arguments_32[3], 8;
    /// Fifth argument.
    regs_argument_32_4: registers.arguments_32[4], 8;
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
