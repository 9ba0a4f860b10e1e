//! What one record in the ring looks like.
//!
//! A record is a witness statement: raw numbers as the kernel had them, and bits that say which of them
//! could be read. What they mean is decided by whoever decodes them.

/// Version of every layout in this crate; goes up with any change of one.
///
/// The BPF object carries a global of the name [`ABI_SYMBOL`], which holds the version: a loader that
/// was built against another version does not find it and refuses the object.
pub const ABI_VERSION: u32 = 1;

/// Name of the global by which the loader recognises an object of its own [`ABI_VERSION`].
pub const ABI_SYMBOL: &str = "MPTCP_TRACE_ABI_1";

/// `kind` of a [`QueryRecord`].
pub const KIND_QUERY: u32 = 1;

/// The query went through `mptcp_getsockopt` (or was found to be about an MPTCP socket).
pub const PATH_MPTCP: u8 = 1 << 0;
/// The query was answered by the TCP code (`tcp_getsockopt`, `do_tcp_getsockopt`).
pub const PATH_TCP: u8 = 1 << 1;
/// The path was not observed: the record comes from a syscall tracepoint.
pub const PATH_UNSEEN: u8 = 1 << 2;

/// Seen by fentry and fexit programs.
pub const RUNG_FEXIT: u8 = 1;
/// Seen by kprobes and kretprobes.
pub const RUNG_KPROBE: u8 = 2;
/// Seen by the tracepoints of the syscall.
pub const RUNG_TRACEPOINT: u8 = 3;

/// [`QueryRecord::inode`] was read.
pub const VALID_INODE: u32 = 1 << 0;
/// [`QueryRecord::msk_flags_enter`] was read.
pub const VALID_FLAGS_ENTER: u32 = 1 << 1;
/// [`QueryRecord::msk_flags_exit`] was read from the socket that was asked about.
pub const VALID_FLAGS_EXIT: u32 = 1 << 2;
/// [`QueryRecord::user_value`] was read from the caller's memory after the call.
pub const VALID_USER_VALUE: u32 = 1 << 3;
/// The tracer itself asked: its canary, not a finding.
pub const BY_TRACER: u32 = 1 << 4;

/// One question of an application about its socket, with the kernel's answer.
///
/// Addresses are in network byte order; an IPv4 address fills the first four bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct QueryRecord {
    /// [`KIND_QUERY`].
    pub kind: u32,
    /// `VALID_*` bits: which of the optional fields hold something.
    pub valid: u32,
    /// When the question was asked, `CLOCK_BOOTTIME`, nanoseconds.
    pub boottime_ns: u64,
    /// From question to answer, nanoseconds.
    pub latency_ns: u64,
    /// Address of the socket that the application holds (`struct sock`).
    pub socket: u64,
    /// `mptcp_sock.flags` when the question was asked.
    pub msk_flags_enter: u64,
    /// `mptcp_sock.flags` when it was answered.
    pub msk_flags_exit: u64,
    /// Inode number of the socket.
    pub inode: u64,
    /// Id of the caller's cgroup (v2).
    pub cgroup_id: u64,
    /// Process that asked (`task_struct.tgid`, initial PID namespace).
    pub tgid: u32,
    /// Thread that asked (`task_struct.pid`, initial PID namespace).
    pub tid: u32,
    /// Real user id of the caller, initial user namespace.
    pub uid: u32,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// What the kernel returned: 0 or a negative errno.
    pub ret: i32,
    /// First four bytes of the caller's answer buffer after the call.
    pub user_value: u32,
    /// Bytes of it that the kernel wrote, by the caller's `optlen` after the call.
    pub user_len: i32,
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
    /// `RUNG_*`.
    pub rung: u8,
    /// `PATH_*` bits.
    pub path: u8,
    /// Keeps what follows aligned.
    pub reserved: u8,
    /// Local address.
    pub local_addr: [u8; 16],
    /// Remote address.
    pub remote_addr: [u8; 16],
    /// Name of the thread that asked, NUL-padded.
    pub comm: [u8; 16],
}

/// A question in flight, between the entry and the return of the function that answers it.
///
/// Lives in a map of the BPF side only; it stands here because userspace counts what is left over.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InFlight {
    /// When the question was asked, `CLOCK_BOOTTIME`, nanoseconds.
    pub boottime_ns: u64,
    /// The outermost `sk` that was asked.
    pub socket: u64,
    /// `PATH_*` bits so far.
    pub path: u8,
    /// Keeps the size a multiple of eight.
    pub reserved: [u8; 7],
}

/// A question in flight on the tracepoint rung: the record as far as it is known when the syscall is
/// entered. The socket may be gone when it returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SyscallInFlight {
    /// The record, complete but for the answer.
    pub record: QueryRecord,
    /// The file behind the descriptor, to be compared at the return.
    pub file: u64,
    /// The caller's `optval`.
    pub optval: u64,
    /// The caller's `optlen`.
    pub optlen: u64,
    /// The descriptor.
    pub fd: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<QueryRecord>() == 152);
    assert!(size_of::<QueryRecord>().is_multiple_of(8));
    assert!(size_of::<InFlight>() == 24);
    assert!(size_of::<SyscallInFlight>() == size_of::<QueryRecord>() + 32);
};
