//! Where the running kernel keeps what the probes read.
//!
//! Rust has no CO-RE: userspace resolves each member in the kernel's BTF by name, checks its width, and
//! hands the offsets over as one frozen global. Nothing in here has a value of its own.

/// An offset that the kernel's BTF does not have; what needs it is switched off.
pub const ABSENT: u16 = u16::MAX;

/// Offset of the arguments in the context of a `syscalls:sys_enter_*` program, and of the return value
/// in that of a `sys_exit_*` one, bytes.
///
/// The verifier wants a literal here. Userspace compares it with `trace_event_raw_sys_enter.args` and
/// `trace_event_raw_sys_exit.ret` of the running kernel and refuses the rung where it differs.
pub const SYSCALL_CONTEXT_OFFSET: usize = 16;

macro_rules! kernel_layout {
    ($($(#[$doc:meta])* $field:ident: $path:literal, $width:literal;)*) => {
        /// Byte offsets of kernel structure members, [`ABSENT`] where there is none.
        #[repr(C)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct KernelLayout {
            $($(#[$doc])* pub $field: u16,)*
        }

        /// One member to be resolved.
        #[derive(Clone, Copy, Debug)]
        pub struct MemberSpec {
            /// Field of [`KernelLayout`] that holds its offset.
            pub field: &'static str,
            /// `struct.member.member`, as the kernel names it.
            pub path: &'static str,
            /// Bytes that the probes read there; another width must not be read.
            pub width: u8,
        }

        impl KernelLayout {
            /// Every member, in the order of the fields.
            pub const MEMBERS: &'static [MemberSpec] = &[
                $(MemberSpec { field: stringify!($field), path: $path, width: $width },)*
            ];

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

            /// The bytes of the global that the BPF side reads.
            #[must_use]
            pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
                let mut bytes = [0; size_of::<Self>()];
                for (slot, offset) in bytes.chunks_exact_mut(2).zip(self.offsets()) {
                    slot.copy_from_slice(&offset.to_ne_bytes());
                }
                bytes
            }
        }
    };
}

kernel_layout! {
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
    /// Network namespace of a socket.
    sock_net: "sock_common.skc_net.net", 8;
    /// Protocol of a socket.
    sock_protocol: "sock.sk_protocol", 2;
    /// The `struct socket` of a `struct sock`.
    sock_socket: "sock.sk_socket", 8;
    /// Inode number of a network namespace.
    net_inum: "net.ns.inum", 4;
    /// The inode that is allocated together with a `struct socket`.
    socket_alloc_inode_number: "socket_alloc.vfs_inode.i_ino", 8;
    /// The `struct file` of a `struct socket`.
    socket_file: "socket.file", 8;
    /// The `struct sock` of a `struct socket`.
    socket_sk: "socket.sk", 8;
    /// Whether a TCP socket is a subflow.
    tcp_is_mptcp: "tcp_sock.is_mptcp", 1;
    /// Subflow context of a TCP socket (shared with other upper layer protocols).
    icsk_ulp_data: "inet_connection_sock.icsk_ulp_data", 8;
    /// MPTCP connection of a subflow.
    subflow_conn: "mptcp_subflow_context.conn", 8;
    /// State bits of an MPTCP connection.
    msk_flags: "mptcp_sock.flags", 8;
    /// Open files of a task.
    task_files: "task_struct.files", 8;
    /// Descriptor table of a task.
    files_fdt: "files_struct.fdt", 8;
    /// Size of a descriptor table.
    fdt_max_fds: "fdtable.max_fds", 4;
    /// Array of files of a descriptor table.
    fdt_fd: "fdtable.fd", 8;
    /// What stands behind a file.
    file_private_data: "file.private_data", 8;
    /// Process id of a task.
    task_tgid: "task_struct.tgid", 4;
    /// Thread id of a task.
    task_pid: "task_struct.pid", 4;
}

const _: () = assert!(size_of::<KernelLayout>() == KernelLayout::MEMBERS.len() * 2);
