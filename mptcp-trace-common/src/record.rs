//! Layout of the records in the ring.
//!
//! A record holds raw numbers as the kernel had them, and bits that say which of them could be
//! read. The decoder interprets them.

use core::mem::offset_of;

/// Version of the layouts in this crate; incremented with any change of one.
///
/// The BPF object carries a global named [`ABI_SYMBOL`], which holds the version: a loader built
/// for another version does not find it and refuses the object.
pub const ABI_VERSION: u32 = 5;

/// Length of a [`QueryRecord`] in captures of version 1, which had no `born_ns`, bytes.
pub const QUERY_RECORD_BYTES_V1: usize = 152;

/// Length of a [`QueryRecord`] in captures of version 2, which had no option level and number,
/// bytes.
pub const QUERY_RECORD_BYTES_V2: usize = 160;

/// Length of a [`QueryRecord`] in captures of version 4, which had no `ns_tgid` and `ns_tid`,
/// bytes.
pub const QUERY_RECORD_BYTES_V4: usize = 184;

/// Length of a [`ConnRecord`] in captures older than `netns_cookie`, bytes.
pub const CONN_RECORD_BYTES_V1: usize = 224;

/// Length of a [`ConnRecord`] in captures older than `current_ns_tgid`, bytes.
pub const CONN_RECORD_BYTES_V2: usize = 232;

/// Name of the global by which the loader recognises an object of its [`ABI_VERSION`].
pub const ABI_SYMBOL: &str = "MPTCP_TRACE_ABI_5";

/// Name of the map whose entries mark the sockets of a self-test for every instance on this host.
/// Creating a map of this kind (socket storage) requires `CAP_BPF`; adding an entry requires its
/// descriptor.
pub const SELF_TEST_MAP: [u8; 16] = *b"mptcp_self_test\0";

/// `kind` of a [`QueryRecord`].
pub const KIND_QUERY: u32 = 1;
/// `kind` of a [`ConnRecord`]: a connection fell back, or the kernel did not allow it to
/// ([`REFUSED`]).
pub const KIND_FALLBACK: u32 = 2;
/// `kind` of a [`ConnRecord`]: an MPTCP listener got a child that is plain TCP.
pub const KIND_TCP_CHILD: u32 = 3;
/// `kind` of a [`ConnRecord`]: a connection that was reported before was accepted, became
/// established, or is being closed by an owner other than that of the last record; its owner is
/// known.
pub const KIND_ACCEPTED: u32 = 4;
/// `kind` of a [`ConnRecord`]: an MPTCP socket that was open before tracing began.
pub const KIND_EXISTING: u32 = 5;
/// `kind` of a [`ConnRecord`]: the kernel disables MPTCP for a while in this network namespace.
pub const KIND_BLACKHOLE: u32 = 6;
/// `kind` of a [`ConnRecord`]: a connection that fell back, or that was queried, ended.
pub const KIND_CLOSED: u32 = 7;
/// `kind` of a [`QueryRecord`]: the kernel refused a socket option on an MPTCP socket that has not
/// fallen back.
pub const KIND_OPTION_REFUSED: u32 = 8;
/// `kind` of a [`QueryRecord`]: the kernel refused to create an MPTCP socket. There is no socket;
/// `family` is the requested one.
pub const KIND_SOCKET_REFUSED: u32 = 9;

/// `kind` of a [`CountedRecord`]: the kernel's own counters in a network namespace.
pub const KIND_COUNTED: u32 = 10;
/// `kind` of a [`CountedRecord`]: the same counters when tracing began. Userspace does not print
/// it.
pub const KIND_COUNTED_AT_START: u32 = 11;

/// The query went through `mptcp_getsockopt` (or turned out to concern an MPTCP socket).
pub const PATH_MPTCP: u8 = 1 << 0;
/// The TCP code answered the query (`tcp_getsockopt`, `do_tcp_getsockopt`).
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
/// [`QueryRecord::msk_flags_exit`] was read from the queried socket.
pub const VALID_FLAGS_EXIT: u32 = 1 << 2;
/// [`QueryRecord::user_value`] was read from the caller's memory after the call.
pub const VALID_USER_VALUE: u32 = 1 << 3;
/// The tracer itself made the query: its canary, not a finding.
pub const BY_TRACER: u32 = 1 << 4;
/// An earlier query on the same socket was not traced ([`CONN_UNTOLD`]).
pub const AFTER_UNTOLD: u32 = 1 << 5;

/// One query of an application about its socket, with the kernel's answer.
///
/// Addresses are in network byte order; an IPv4 address fills the first four bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct QueryRecord {
    /// [`KIND_QUERY`], [`KIND_OPTION_REFUSED`] or [`KIND_SOCKET_REFUSED`].
    pub kind: u32,
    /// `VALID_*` bits: which of the optional fields are set.
    pub valid: u32,
    /// When the query was made (answered, if only the return is observed), `CLOCK_BOOTTIME`,
    /// nanoseconds.
    pub boottime_ns: u64,
    /// From query to answer, nanoseconds; 0 if only the return is observed ([`RUNG_TRACEPOINT`]).
    pub latency_ns: u64,
    /// Address of the socket that the application holds (`struct sock`).
    pub socket: u64,
    /// `mptcp_sock.flags` when the query was made.
    pub msk_flags_enter: u64,
    /// `mptcp_sock.flags` when the query was answered.
    pub msk_flags_exit: u64,
    /// Inode number of the socket.
    pub inode: u64,
    /// Id of the caller's cgroup (v2).
    pub cgroup_id: u64,
    /// Process that made the query (`task_struct.tgid`, initial PID namespace).
    pub tgid: u32,
    /// Thread that made the query (`task_struct.pid`, initial PID namespace).
    pub tid: u32,
    /// Real user id of the caller, initial user namespace.
    pub uid: u32,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// What the kernel returned: 0 or a negative errno.
    pub ret: i32,
    /// First four bytes of the caller's answer buffer after the call.
    pub user_value: u32,
    /// Bytes that the kernel wrote to the answer buffer, from the caller's `optlen` after the call.
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
    /// Aligns the next field.
    pub reserved: u8,
    /// Local address.
    pub local_addr: [u8; 16],
    /// Remote address.
    pub remote_addr: [u8; 16],
    /// Name of the thread that made the query, NUL-padded.
    pub comm: [u8; 16],
    /// When the socket was first observed, `CLOCK_BOOTTIME`, nanoseconds; 0 if it was never
    /// tracked. Records of version 1 end before this field, those of version 2 after it.
    pub born_ns: u64,
    /// When its connection began, as in [`Conn::connect_ns`]; 0 if it was never tracked.
    pub connect_ns: u64,
    /// Level of the option.
    pub level: u32,
    /// Number of the option.
    pub optname: u32,
    /// 1 for `setsockopt`, 0 for `getsockopt`.
    pub is_set: u32,
    /// Keeps the following fields at their offsets.
    pub reserved_2: u32,
    /// `tgid` in the tracer's PID namespace; 0 if the process is not in it.
    pub ns_tgid: u32,
    /// `tid` in the tracer's PID namespace; 0 if the thread is not in it.
    pub ns_tid: u32,
}

/// A query in flight, between the entry and the return of the function that answers it.
///
/// Lives in a map of the BPF side only; it is defined here because userspace counts the entries
/// that remain.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InFlight {
    /// When the query was made, `CLOCK_BOOTTIME`, nanoseconds.
    pub boottime_ns: u64,
    /// The outermost `sk` of the query.
    pub socket: u64,
    /// Level of the option.
    pub level: u32,
    /// Number of the option.
    pub optname: u32,
    /// `PATH_*` bits so far.
    pub path: u8,
    /// Keeps the size a multiple of eight.
    pub reserved: [u8; 7],
}

/// How an owner was learnt: it created the socket.
pub const VIA_SOCKET: u8 = 1;
/// It connected the socket.
pub const VIA_CONNECT: u8 = 2;
/// It listens with the socket.
pub const VIA_LISTEN: u8 = 3;
/// It accepted the socket.
pub const VIA_ACCEPT: u8 = 4;
/// It sent or received data.
pub const VIA_IO: u8 = 5;
/// It made a query on the socket.
pub const VIA_QUERY: u8 = 6;
/// It owns the listener of the socket, which has not been accepted yet.
pub const VIA_LISTENER: u8 = 7;
/// It had the socket open when tracing began.
pub const VIA_EXISTING: u8 = 8;

/// The process that holds a socket, recorded while it was the current one; never the task of a
/// softirq.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Owner {
    /// Id of its cgroup (v2).
    pub cgroup_id: u64,
    /// Process (`task_struct.tgid`, initial PID namespace); 0 if no owner is known.
    pub tgid: u32,
    /// Thread that was observed (`task_struct.pid`, initial PID namespace).
    pub tid: u32,
    /// The process in the tracer's PID namespace; 0 if it is not in it.
    pub ns_tgid: u32,
    /// Real user id, initial user namespace.
    pub uid: u32,
    /// `VIA_*`.
    pub via: u8,
    /// Aligns the next field.
    pub reserved: [u8; 3],
    /// The thread in the tracer's PID namespace. Always 0, without meaning, in records without
    /// `current_ns_tgid`.
    pub ns_tid: u32,
    /// Name of the process (its first thread), NUL-padded.
    pub comm: [u8; 16],
}

impl Owner {
    /// No owner is known.
    pub const NONE: Self = Self {
        cgroup_id: 0,
        tgid: 0,
        tid: 0,
        ns_tgid: 0,
        uid: 0,
        via: 0,
        reserved: [0; 3],
        ns_tid: 0,
        comm: [0; 16],
    };
}

/// The socket was open before tracing began.
pub const CONN_EXISTING: u32 = 1 << 0;
/// A child of a listener that has not been accepted yet.
pub const CONN_UNACCEPTED: u32 = 1 << 1;
/// Something was reported about it while it was unaccepted: its acceptance is reported too.
pub const CONN_TOLD: u32 = 1 << 2;
/// A fallback is recorded, and will be reported once the connection has its addresses.
pub const CONN_PENDING: u32 = 1 << 3;
/// The connection was opened from this side.
pub const CONN_ACTIVE: u32 = 1 << 4;
/// A TCP socket that is the child of an MPTCP listener.
pub const CONN_TCP: u32 = 1 << 5;
/// It began before the probes were attached: an edge may have been missed.
pub const CONN_UNSEEN_BIRTH: u32 = 1 << 6;
/// It was queried: its end is reported.
pub const CONN_ASKED: u32 = 1 << 7;
/// Its fallback was reported: its end is reported.
pub const CONN_FELL: u32 = 1 << 8;
/// It was queried since the last query record, and that query was not traced: capped, or lost.
pub const CONN_UNTOLD: u32 = 1 << 9;
/// Its birth was not observed although the probes were attached: the kernel skipped the probe, or
/// the table was full.
pub const CONN_UNWATCHED: u32 = 1 << 10;
/// It is connecting, or connecting failed: the connection is not established.
pub const CONN_CONNECTING: u32 = 1 << 11;

/// How many queries of a process were traced in the second that begins at `since_ns`; lives in a
/// map of the BPF side only.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Quota {
    /// Beginning of the second, `CLOCK_BOOTTIME`, nanoseconds.
    pub since_ns: u64,
    /// Process (`task_struct.tgid`); 0 if the slot is free.
    pub tgid: u32,
    /// Its queries in that second.
    pub questions: u32,
}

/// What is known of a socket during its life; lives in a map of the BPF side only.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Conn {
    /// When it was first observed, `CLOCK_BOOTTIME`, nanoseconds. Together with its address, its
    /// identity.
    pub born_ns: u64,
    /// When it began to connect (active), or was created by a listener (passive); 0 before.
    pub connect_ns: u64,
    /// Inode number of the socket; 0 before it is accepted.
    pub inode: u64,
    /// Of a client with [`CONN_PENDING`]: when the pending fallback happened. Of a child with
    /// [`CONN_UNACCEPTED`]: its listener (`struct sock`). One field for both, because the BPF stack
    /// is small.
    pub waits_since_or_at: u64,
    /// The process that holds it.
    pub owner: Owner,
    /// `EVIDENCE_*` bits so far.
    pub evidence: u32,
    /// `CONN_*` bits.
    pub state: u32,
    /// Cause of the pending fallback.
    pub pending_mib: i32,
    /// `SITE_*` of the pending fallback.
    pub pending_site: u32,
    /// The user whose share of the table it counts against: the owner of the socket.
    pub share: u32,
    /// Owner in the last record about it (`task_struct.tgid`); 0 if there was none.
    pub told_tgid: u32,
}

impl Conn {
    /// A socket of which nothing is known yet.
    pub const BLANK: Self = Self {
        born_ns: 0,
        connect_ns: 0,
        inode: 0,
        waits_since_or_at: 0,
        owner: Owner::NONE,
        evidence: 0,
        state: 0,
        pending_mib: NO_MIB,
        pending_site: 0,
        share: SHARE_UNSET,
        told_tgid: 0,
    };
}

/// A data packet with a bad MPTCP checksum (`MAPPING_BAD_CSUM`).
pub const EVIDENCE_BAD_CHECKSUM: u32 = 1 << 0;
/// A data packet without a data sequence signal (`MAPPING_NODSS`).
pub const EVIDENCE_NO_DSS: u32 = 1 << 1;
/// An invalid mapping (`MAPPING_INVALID`); older kernels report a packet without a mapping this way
/// too.
pub const EVIDENCE_INVALID_MAPPING: u32 = 1 << 2;
/// The peer reported a checksum failure (`mptcp_pm_mp_fail_received`).
pub const EVIDENCE_MP_FAIL_RECEIVED: u32 = 1 << 3;
/// This host reported a checksum failure (`mptcp_subflow_fail`).
pub const EVIDENCE_MP_FAIL_SENT: u32 = 1 << 4;
/// An infinite mapping arrived (`get_mapping_status`).
pub const EVIDENCE_INFINITE_RECEIVED: u32 = 1 << 5;
/// An infinite mapping is about to be sent (`mptcp_subflow_context.send_infinite_map`).
pub const EVIDENCE_INFINITE_SENT: u32 = 1 << 6;
/// Simultaneous open: the client went through `SYN_RECV`.
pub const EVIDENCE_SIMULTANEOUS: u32 = 1 << 7;
/// The data path was observed since the birth of the connection.
pub const EVIDENCE_WATCHED: u32 = 1 << 31;

/// Where a fallback was observed: `__mptcp_try_fallback`, which takes the cause as an argument.
pub const SITE_TRY_FALLBACK: u8 = 1;
/// `mptcp_connect`.
pub const SITE_CONNECT: u8 = 2;
/// `mptcp_syn_options` or `subflow_state_change`: simultaneous open.
pub const SITE_SIMULTANEOUS: u8 = 4;
/// The tracepoint in `mptcp_subflow_data_available`.
pub const SITE_DATA_AVAILABLE: u8 = 6;
/// `mptcp_dss_corruption`.
pub const SITE_DSS_CORRUPTION: u8 = 7;
/// `mptcp_active_detect_blackhole`.
pub const SITE_DETECT_BLACKHOLE: u8 = 9;
/// A state change of the connection: the handshake has just completed.
pub const SITE_HANDSHAKE: u8 = 10;
/// Not at the time: the state bit was found set later.
pub const SITE_LATER: u8 = 11;
/// `mptcp_subflow_drop_ctx` of a child whose request spoke MPTCP.
pub const SITE_DROPPED_CONTEXT: u8 = 12;
/// `mptcp_subflow_drop_ctx` of a child whose request did not.
pub const SITE_NO_CONTEXT: u8 = 13;
/// A state change of a child: it does not show which of the two cases above it was.
pub const SITE_TCP_CHILD: u8 = 14;
/// The list of sockets that were open when tracing began.
pub const SITE_LISTED: u8 = 15;
/// `mptcp_active_disable`.
pub const SITE_ACTIVE_DISABLE: u8 = 16;

/// [`ConnRecord::msk_flags`] was read.
pub const CONN_VALID_FLAGS: u32 = 1 << 8;
/// [`ConnRecord::bytes_sent`] and [`ConnRecord::bytes_received`] were read.
pub const CONN_VALID_BYTES: u32 = 1 << 9;
/// [`ConnRecord::subflow_flags`] was read from the first subflow.
pub const CONN_VALID_SUBFLOW: u32 = 1 << 10;
/// [`ConnRecord::off_ms`] was read.
pub const CONN_VALID_OFF: u32 = 1 << 11;
/// [`ConnRecord::off_ms`] would explain why a client did not request MPTCP, but could not be read.
/// Older records have neither bit.
pub const CONN_OFF_UNREAD: u32 = 1 << 15;
/// [`ConnRecord::extra_subflows`] was read.
pub const CONN_VALID_SUBFLOWS: u32 = 1 << 14;
/// The filter admits the owner and the network namespace.
pub const ADMITTED: u32 = 1 << 12;
/// The kernel wanted to fall back, was not allowed to, and resets the subflow.
pub const REFUSED: u32 = 1 << 13;

/// Bits of [`ConnRecord::subflow_flags`], independent of the kernel's own bit positions. This host
/// sends a SYN with `MP_CAPABLE`.
pub const SUBFLOW_REQUEST_MPTCP: u32 = 1 << 0;
/// MPTCP was negotiated.
pub const SUBFLOW_MP_CAPABLE: u32 = 1 << 1;
/// The subflow joined a connection (`MP_JOIN`).
pub const SUBFLOW_MP_JOIN: u32 = 1 << 2;
/// The SYN/ACK was processed.
pub const SUBFLOW_CONN_FINISHED: u32 = 1 << 3;
/// The peer has proven that it has this host's key.
pub const SUBFLOW_FULLY_ESTABLISHED: u32 = 1 << 4;
/// A valid checksum was received.
pub const SUBFLOW_VALID_CSUM_SEEN: u32 = 1 << 5;
/// SYNs with `MP_CAPABLE` were lost.
pub const SUBFLOW_MPC_DROP: u32 = 1 << 6;
/// The peer's key is known.
pub const SUBFLOW_REMOTE_KEY: u32 = 1 << 7;
/// An infinite mapping is about to be sent.
pub const SUBFLOW_SEND_INFINITE: u32 = 1 << 8;
/// An `MP_FAIL` is about to be sent.
pub const SUBFLOW_SEND_MP_FAIL: u32 = 1 << 9;
/// The peer opened the connection (`mptcp_sock.pm.server_side`).
pub const SUBFLOW_SERVER_SIDE: u32 = 1 << 16;
/// [`SUBFLOW_SERVER_SIDE`] was read.
pub const SUBFLOW_SIDE_KNOWN: u32 = 1 << 17;

/// The connection uses checksums (`mptcp_sock.csum_enabled`).
pub const SUBFLOW_CHECKSUMS: u32 = 1 << 18;

/// [`ConnRecord::mib`] if the kernel named no cause.
pub const NO_MIB: i32 = -1;

/// An event of a connection: it fell back, was accepted, was open already.
///
/// Addresses are in network byte order; an IPv4 address fills the first four bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ConnRecord {
    /// [`KIND_FALLBACK`] or another kind of this record.
    pub kind: u32,
    /// `VALID_INODE`, `BY_TRACER`, `CONN_VALID_*`, [`ADMITTED`], [`REFUSED`].
    pub valid: u32,
    /// When it happened, `CLOCK_BOOTTIME`, nanoseconds.
    pub boottime_ns: u64,
    /// When the record was written; later than `boottime_ns` if it had to wait.
    pub noticed_ns: u64,
    /// Address of the socket (`struct sock`): the MPTCP connection, or the TCP child.
    pub socket: u64,
    /// When it was first observed; together with the address, its identity.
    pub born_ns: u64,
    /// When it began to connect, or was created by a listener; 0 if unknown.
    pub connect_ns: u64,
    /// Inode number of the socket.
    pub inode: u64,
    /// `mptcp_sock.flags`.
    pub msk_flags: u64,
    /// Payload sent over MPTCP so far, bytes.
    pub bytes_sent: u64,
    /// Payload received over MPTCP so far, bytes.
    pub bytes_received: u64,
    /// The process that holds it.
    pub owner: Owner,
    /// Process that was current; in a softirq, an unrelated one.
    pub current_tgid: u32,
    /// Thread that was current.
    pub current_tid: u32,
    /// Name of the current thread.
    pub current_comm: [u8; 16],
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// Number of the cause in `enum linux_mptcp_mib_field`, or [`NO_MIB`].
    pub mib: i32,
    /// `EVIDENCE_*` bits.
    pub evidence: u32,
    /// `SUBFLOW_*` bits of the first subflow.
    pub subflow_flags: u32,
    /// `CONN_*` bits.
    pub conn_state: u32,
    /// For how long MPTCP is disabled, milliseconds. Of [`KIND_FALLBACK`]: 0 if it never was, or if
    /// a SYN with MPTCP was answered since.
    pub off_ms: u32,
    /// `sk_protocol`.
    pub protocol: u16,
    /// `skc_family`.
    pub family: u16,
    /// Local port, host byte order.
    pub local_port: u16,
    /// Remote port, network byte order.
    pub remote_port_be: u16,
    /// `skc_state` of the socket.
    pub state: u8,
    /// `skc_state` of the first subflow; 0 without one.
    pub subflow_state: u8,
    /// `RUNG_*`.
    pub rung: u8,
    /// `SITE_*`.
    pub site: u8,
    /// Subflows besides the first one (`mptcp_sock.pm.extra_subflows`). Always 0, without meaning,
    /// in records without [`CONN_VALID_SUBFLOWS`].
    pub extra_subflows: u8,
    /// Aligns the next field.
    pub reserved: [u8; 3],
    /// Local address.
    pub local_addr: [u8; 16],
    /// Remote address.
    pub remote_addr: [u8; 16],
    /// `net.net_cookie` of the socket's network namespace, never reused; 0 if unknown.
    pub netns_cookie: u64,
    /// `current_tgid` in the tracer's PID namespace; 0 if the process is not in it.
    pub current_ns_tgid: u32,
    /// Keeps the size a multiple of eight.
    pub reserved_2: u32,
}

/// Number of kernel counters that are read: those that count fallbacks.
pub const COUNTERS: usize = 12;

/// The pseudo-user whose share holds the sockets of all users that find the table of shares full.
pub const SHARE_OF_OTHERS: u32 = u32::MAX;
/// [`Conn::share`] of a socket that is being entered; no user has this id.
pub const SHARE_UNSET: u32 = u32::MAX - 1;

/// What the kernel has counted in a network namespace since its creation
/// (`net.mib.mptcp_statistics`).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CountedRecord {
    /// [`KIND_COUNTED`] or [`KIND_COUNTED_AT_START`].
    pub kind: u32,
    /// Inode number of the namespace.
    pub netns: u32,
    /// When reading them ended, `CLOCK_BOOTTIME`, nanoseconds.
    pub boottime_ns: u64,
    /// `net.net_cookie`.
    pub cookie: u64,
    /// Sums over all CPUs, in the order of the counters that the loader chose.
    pub counters: [u64; COUNTERS],
}

/// A network namespace with a reported event that the kernel counts; lives in a map of the BPF side
/// only.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NetCounters {
    /// Its `struct net`.
    pub net: u64,
    /// When such an event was last reported, `CLOCK_BOOTTIME`, nanoseconds; 0 if the counters were
    /// read since.
    pub told_ns: u64,
    /// The second in which `readings` are counted, `CLOCK_BOOTTIME`.
    pub second: u32,
    /// How often it was read in that second, including readings that were skipped for the limit.
    pub readings: u32,
}

const _: () = {
    assert!(size_of::<QueryRecord>() == 192);
    assert!(offset_of!(QueryRecord, ns_tgid) == QUERY_RECORD_BYTES_V4);
    assert!(size_of::<QueryRecord>().is_multiple_of(8));
    // The BPF side writes addresses as 32-bit words.
    assert!(offset_of!(QueryRecord, local_addr).is_multiple_of(4));
    // It writes names as 64-bit words.
    assert!(offset_of!(QueryRecord, comm).is_multiple_of(8));
    assert!(offset_of!(ConnRecord, local_addr).is_multiple_of(4));
    assert!(size_of::<Owner>() == 48);
    assert!(size_of::<Conn>() == 104);
    assert!(size_of::<ConnRecord>() == 240);
    assert!(offset_of!(ConnRecord, current_ns_tgid) == CONN_RECORD_BYTES_V2);
    assert!(offset_of!(ConnRecord, netns_cookie) == CONN_RECORD_BYTES_V1);
    assert!(size_of::<CountedRecord>() == 24 + 8 * COUNTERS);
    assert!(size_of::<InFlight>() == 32);
    assert!(size_of::<Quota>() == 16);
};
