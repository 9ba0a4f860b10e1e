//! Queries.

use core::mem::offset_of;

use super::{Kind, RecordRung};
use crate::wire::{flags, structure};

flags! {
    /// Flags of a [`QueryRecord`].
    QueryFlags: u32 {
        /// [`QueryRecord::inode`] was read.
        INODE = 0,
        /// [`QueryRecord::msk_flags`] was read from the queried socket.
        MSK_FLAGS = 2,
        /// [`QueryRecord::user_value`] was read from the caller's memory after the call.
        USER_VALUE = 3,
        /// The tracer itself made the query: its canary, not a finding.
        BY_TRACER = 4,
        /// An earlier query on the same socket was not traced
        /// ([`super::ConnState::QUERY_UNTRACED`]).
        AFTER_UNTRACED = 5,
        /// The call was `setsockopt`, not `getsockopt`.
        IS_SET = 6,
    }
}

flags! {
    /// The functions that a query passed through.
    PathBits: u8 {
        /// `mptcp_getsockopt` (or it turned out to concern an MPTCP socket).
        MPTCP = 0,
        /// The TCP code answered the query (`tcp_getsockopt`, `do_tcp_getsockopt`).
        TCP = 1,
        /// The path was not observed: the record comes from a syscall tracepoint.
        UNSEEN = 2,
    }
}

structure! {
    /// One query of an application about its socket, with the kernel's answer.
    ///
    /// Addresses are in network byte order; an IPv4 address fills the first four bytes.
    pub struct QueryRecord {
        /// [`Kind::QUERY`], [`Kind::OPTION_REFUSED`] or [`Kind::SOCKET_REFUSED`].
        pub kind: Kind,
        /// Which of the optional fields are set, and other properties.
        pub flags: QueryFlags,
        /// When the query was made (answered, if only the return is observed), `CLOCK_BOOTTIME`,
        /// nanoseconds.
        pub boottime_ns: u64,
        /// From query to answer, nanoseconds; 0 if only the return is observed.
        pub latency_ns: u64,
        /// Address of the socket that the application holds (`struct sock`).
        pub socket: u64,
        /// `mptcp_sock.flags` when the query was answered.
        pub msk_flags: u64,
        /// Inode number of the socket.
        pub inode: u64,
        /// Id of the caller's cgroup (v2).
        pub cgroup_id: u64,
        /// When the socket was first observed, `CLOCK_BOOTTIME`, nanoseconds; 0 if it was never
        /// tracked.
        pub born_ns: u64,
        /// When its connection began, as in [`crate::map_values::Conn::connect_ns`]; 0 if it was never
        /// tracked.
        pub connect_ns: u64,
        /// Process that made the query (`task_struct.tgid`, initial PID namespace).
        pub tgid: u32,
        /// Thread that made the query (`task_struct.pid`, initial PID namespace).
        pub tid: u32,
        /// `tgid` in the tracer's PID namespace; 0 if the process is not in it.
        pub ns_tgid: u32,
        /// `tid` in the tracer's PID namespace; 0 if the thread is not in it.
        pub ns_tid: u32,
        /// Real user id of the caller, initial user namespace.
        pub uid: u32,
        /// Inode number of the socket's network namespace.
        pub netns: u32,
        /// What the kernel returned: 0 or a negative errno.
        pub ret: i32,
        /// First four bytes of the caller's answer buffer after the call.
        pub user_value: u32,
        /// Level of the option.
        pub level: u32,
        /// Number of the option.
        pub optname: u32,
        /// Name of the thread that made the query, NUL-padded.
        pub comm: [u8; 16],
        /// Local address.
        pub local_addr: [u8; 16],
        /// Remote address.
        pub remote_addr: [u8; 16],
        /// `sk_protocol`: 6 (TCP) or 262 (MPTCP).
        pub protocol: u16,
        /// `skc_family`: 2 (IPv4) or 10 (IPv6).
        pub family: u16,
        /// Local port, host byte order.
        pub local_port: u16,
        /// Remote port, network byte order.
        pub remote_port_be: u16,
        /// `skc_state`: `TCP_ESTABLISHED` is 1.
        pub state: u8,
        /// Attach method.
        pub rung: RecordRung,
        /// The functions that the query passed through.
        pub path: PathBits,
        /// Keeps the size a multiple of eight.
        pub reserved: [u8; 5],
    }
}

const _: () = {
    assert!(size_of::<QueryRecord>() == 176);
    // The BPF side writes addresses as 32-bit words, and names as 64-bit words.
    assert!(offset_of!(QueryRecord, local_addr).is_multiple_of(4));
    assert!(offset_of!(QueryRecord, remote_addr).is_multiple_of(4));
    assert!(offset_of!(QueryRecord, comm).is_multiple_of(8));
};
