//! Events of connections.

use core::mem::offset_of;

use super::{Kind, Marks, Owner, RecordRung};
use crate::wire::{flags, names, structure};

flags! {
    /// Flags of a [`ConnRecord`].
    ConnFlags: u32 {
        /// [`ConnRecord::inode`] was read.
        INODE = 0,
        /// The connection is the tracer's own: its canary, not a finding.
        BY_TRACER = 4,
        /// [`ConnRecord::msk_flags`] was read.
        MSK_FLAGS = 8,
        /// [`ConnRecord::bytes_sent`] and [`ConnRecord::bytes_received`] were read.
        BYTES = 9,
        /// [`ConnRecord::subflow`] was read from the first subflow.
        SUBFLOW = 10,
        /// [`ConnRecord::off_ms`] was read.
        OFF = 11,
        /// The filter admits the owner and the network namespace.
        ADMITTED = 12,
        /// The kernel wanted to fall back, was not allowed to, and resets the subflow.
        REFUSED = 13,
        /// [`ConnRecord::extra_subflows`] was read.
        SUBFLOWS = 14,
        /// [`ConnRecord::off_ms`] would explain why a client did not request MPTCP, but could not
        /// be read.
        OFF_UNREAD = 15,
    }
}

flags! {
    /// State of a tracked socket.
    ConnState: u32 {
        /// The socket was open before tracing began.
        EXISTING = 0,
        /// A child of a listener that has not been accepted yet.
        UNACCEPTED = 1,
        /// A record was emitted while it was unaccepted: its acceptance is reported too.
        REPORTED = 2,
        /// It fell back, which is reported once the connection has its addresses.
        PENDING = 3,
        /// The connection was opened from this side.
        ACTIVE = 4,
        /// A TCP socket that is the child of an MPTCP listener.
        TCP = 5,
        /// It was created before the probes were attached: its fallback may have been missed.
        UNSEEN_BIRTH = 6,
        /// It was queried: its end is reported.
        ASKED = 7,
        /// Its fallback was reported: its end is reported.
        FELL = 8,
        /// A query after its last query record was not traced: capped, lost, or made through
        /// `io_uring`.
        QUERY_UNTRACED = 9,
        /// Its creation was not observed although the probes were attached: the kernel skipped the
        /// probe, or the table was full.
        UNWATCHED = 10,
        /// It is connecting, or connecting failed: the connection is not established.
        CONNECTING = 11,
        /// A path of it was reported: its end is reported.
        HAS_PATHS = 12,
        /// The filter admitted it in its last record.
        ADMITTED = 13,
    }
}

flags! {
    /// Observations that point to the cause of a fallback.
    EvidenceBits: u16 {
        /// A data packet with a bad MPTCP checksum (`MAPPING_BAD_CSUM`).
        BAD_CHECKSUM = 0,
        /// A data packet without a data sequence signal (`MAPPING_NODSS`).
        NO_DSS = 1,
        /// An invalid mapping (`MAPPING_INVALID`); older kernels report a packet without a mapping
        /// this way too.
        INVALID_MAPPING = 2,
        /// The peer reported a checksum failure (`mptcp_pm_mp_fail_received`).
        MP_FAIL_RECEIVED = 3,
        /// This host reported a checksum failure (`mptcp_subflow_fail`).
        MP_FAIL_SENT = 4,
        /// An infinite mapping arrived (`get_mapping_status`).
        INFINITE_RECEIVED = 5,
        /// An infinite mapping is about to be sent (`mptcp_subflow_context.send_infinite_map`).
        INFINITE_SENT = 6,
        /// Simultaneous open: the client went through `SYN_RECV`.
        SIMULTANEOUS = 7,
    }
}

flags! {
    /// Bits of a subflow and its connection that explain a fallback, independent of the kernel's
    /// own bit positions.
    SubflowBits: u16 {
        /// This host sends a SYN with `MP_CAPABLE`.
        REQUEST_MPTCP = 0,
        /// MPTCP was negotiated.
        MP_CAPABLE = 1,
        /// The subflow joined a connection (`MP_JOIN`).
        MP_JOIN = 2,
        /// A valid checksum was received.
        VALID_CSUM_SEEN = 5,
        /// SYNs with `MP_CAPABLE` were lost.
        MPC_DROP = 6,
        /// The peer's key is known.
        REMOTE_KEY = 7,
        /// The peer opened the connection (`mptcp_sock.pm.server_side`).
        SERVER_SIDE = 8,
        /// [`Self::SERVER_SIDE`] was read.
        SIDE_KNOWN = 9,
        /// The connection uses checksums (`mptcp_sock.csum_enabled`).
        CHECKSUMS = 10,
    }
}

names! {
    /// Where a fallback was observed.
    Site: u8 {
        /// `__mptcp_try_fallback`, which takes the cause as an argument.
        TRY_FALLBACK = 1,
        /// `mptcp_connect`.
        CONNECT = 2,
        /// `mptcp_syn_options` or `subflow_state_change`: simultaneous open.
        SIMULTANEOUS = 4,
        /// The tracepoint in `mptcp_subflow_data_available`.
        DATA_AVAILABLE = 6,
        /// `mptcp_dss_corruption`.
        DSS_CORRUPTION = 7,
        /// `mptcp_active_detect_blackhole`.
        DETECT_BLACKHOLE = 9,
        /// A state change of the connection: the handshake has just completed.
        HANDSHAKE = 10,
        /// Not observed when it happened: the state bit was already set.
        LATER = 11,
        /// `mptcp_subflow_drop_ctx` of a child whose request spoke MPTCP.
        DROPPED_CONTEXT = 12,
        /// `mptcp_subflow_drop_ctx` of a child whose request did not.
        NO_CONTEXT = 13,
        /// A state change of a child, which does not distinguish the two cases above.
        TCP_CHILD = 14,
        /// The list of sockets that were open when tracing began.
        LISTED = 15,
        /// `mptcp_active_disable`.
        ACTIVE_DISABLE = 16,
    }
}

/// [`ConnRecord::mib`] if the kernel named no cause.
pub const NO_MIB: i32 = -1;

structure! {
    /// An event of a connection: it fell back, was accepted, was already open, or ended.
    ///
    /// Addresses are in network byte order; an IPv4 address fills the first four bytes.
    pub struct ConnRecord {
        /// [`Kind::FALLBACK`] or another kind of this record.
        pub kind: Kind,
        /// Which of the optional fields are set, and other properties.
        pub flags: ConnFlags,
        /// When it happened, `CLOCK_BOOTTIME`, nanoseconds.
        pub boottime_ns: u64,
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
        /// `net.net_cookie` of the socket's network namespace, never reused; 0 if unknown.
        pub netns_cookie: u64,
        /// The process that holds it.
        pub owner: Owner,
        /// Name of the current thread.
        pub current_comm: [u8; 16],
        /// Process that was current; in a softirq, an unrelated one.
        pub current_tgid: u32,
        /// Thread that was current.
        pub current_tid: u32,
        /// `current_tgid` in the tracer's PID namespace; 0 if the process is not in it.
        pub current_ns_tgid: u32,
        /// Inode number of the socket's network namespace.
        pub netns: u32,
        /// Number of the cause in `enum linux_mptcp_mib_field`, or [`NO_MIB`].
        pub mib: i32,
        /// State of the tracked socket.
        pub conn_state: ConnState,
        /// For how long MPTCP is disabled, milliseconds. Of [`Kind::FALLBACK`]: 0 if it never was,
        /// or if a SYN with MPTCP was answered since.
        pub off_ms: u32,
        /// Local address.
        pub local_addr: [u8; 16],
        /// Remote address.
        pub remote_addr: [u8; 16],
        /// Evidence of the cause.
        pub evidence: EvidenceBits,
        /// Bits of the first subflow.
        pub subflow: SubflowBits,
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
        /// Attach method.
        pub rung: RecordRung,
        /// Where it was observed.
        pub site: Site,
        /// Subflows besides the first one (`mptcp_sock.pm.extra_subflows`).
        pub extra_subflows: u8,
        /// Paths that this host is opening.
        pub pending_paths: u8,
        /// Keeps the size a multiple of eight.
        pub reserved: [u8; 2],
        /// Of the path that it happened to, else of the first one.
        pub marks: Marks,
    }
}

const _: () = {
    assert!(size_of::<ConnRecord>() == 240);
    // The BPF side writes addresses as 32-bit words.
    assert!(offset_of!(ConnRecord, local_addr).is_multiple_of(4));
    assert!(offset_of!(ConnRecord, remote_addr).is_multiple_of(4));
};
