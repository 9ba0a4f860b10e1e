//! Events of paths. A path is one TCP connection of an MPTCP connection (a subflow, RFC 8684
//! section 1.2).

use core::mem::offset_of;

use super::{ConnState, Kind, Marks, Owner, RecordRung};
use crate::wire::{flags, names, structure};

flags! {
    /// Flags of a [`PathRecord`].
    PathFlags: u32 {
        /// [`PathRecord::inode`] was read.
        INODE = 0,
        /// The connection is the tracer's own.
        BY_TRACER = 4,
        /// The filter admits the owner and the network namespace.
        ADMITTED = 12,
        /// [`PathRecord::context`] was read.
        CONTEXT = 16,
        /// [`PathRecord::ledger`] was read.
        LEDGER = 17,
        /// [`PathRecord::manager`] was read.
        MANAGER = 18,
        /// [`PathRecord::options`] are those of a packet with RST or, of a join that failed, of the
        /// packet that was refused.
        OPTIONS = 19,
        /// The path was open before tracing began: [`PathRecord::path_born_ns`] is when it was
        /// noticed.
        EXISTING = 20,
        /// It was reported before that the path came up.
        WAS_UP = 21,
        /// [`PathRecord::reset_reason`] is what this host gave as its reason.
        REASON = 22,
        /// This host opens the path, and it has not come up.
        OPENING = 24,
        /// [`PathRecord::error`] is the return value of the function at [`PathRecord::site`].
        RETURNED = 23,
    }
}

flags! {
    /// Bits of a subflow context (`struct mptcp_subflow_context`), independent of the kernel's own
    /// bit positions.
    ContextBits: u32 {
        /// This host sends a SYN with `MP_CAPABLE` (`request_mptcp`).
        REQUEST_MPTCP = 0,
        /// This host sends a SYN with `MP_JOIN` (`request_join`).
        REQUEST_JOIN = 1,
        /// MPTCP was negotiated (`mp_capable`).
        MP_CAPABLE = 2,
        /// The join was negotiated (`mp_join`).
        MP_JOIN = 3,
        /// Data can be sent: the handshake is complete at both ends (`fully_established`).
        FULLY_ESTABLISHED = 4,
        /// The SYN/ACK was processed (`conn_finished`).
        CONN_FINISHED = 5,
        /// The scheduler avoids the path (`stale`).
        STALE = 6,
        /// The path was closed on its own, and not together with its connection
        /// (`close_event_done`).
        CLOSE_EVENT_DONE = 7,
        /// The peer wants the path as a backup (`backup`).
        BACKUP = 8,
        /// This host wants the path as a backup (`request_bkup`).
        REQUEST_BACKUP = 9,
        /// A `MP_FASTCLOSE` is sent (`send_fastclose`).
        SEND_FASTCLOSE = 10,
        /// The SYN/ACK or the SYN had an HMAC (`thmac`).
        HMAC = 11,
        /// It had a nonce (`remote_nonce`).
        NONCE = 12,
        /// An RST with `MP_TCPRST` arrived (`reset_seen`).
        RESET_SEEN = 13,
        /// The peer calls the reason transient (`reset_transient`).
        RESET_TRANSIENT = 14,
    }
}

flags! {
    /// What happened to a path before it ended.
    PathEvents: u16 {
        /// A packet with RST arrived (`tcp_receive_reset`).
        RST_RECEIVED = 0,
        /// A packet with RST was sent (`tcp_send_reset`).
        RST_SENT = 1,
        /// The path manager removed the path (`mptcp_subflow_shutdown`, both directions).
        REMOVED = 2,
        /// It was reset (`mptcp_subflow_reset`).
        RESET = 3,
        /// It ended with an error (`tcp_done_with_error`).
        ERROR = 4,
        /// It was killed (`tcp_abort`).
        ABORTED = 5,
        /// The connection is closed without waiting (`mptcp_do_fastclose`).
        FASTCLOSED = 6,
        /// The peer removed the address (`mptcp_pm_rm_addr_received`).
        ADDRESS_REMOVED = 7,
        /// The connection itself was already closed.
        CONNECTION_CLOSED = 8,
        /// A FIN arrived before this host sent one.
        FIN_RECEIVED = 9,
        /// This host sent a FIN first.
        FIN_SENT = 10,
        /// The connection did not take the path when it was unlocked (`__mptcp_finish_join`).
        LATE_REFUSED = 11,
    }
}

names! {
    /// Where an event of a path was observed.
    PathSite: u8 {
        /// A state change of its TCP socket.
        STATE = 1,
        /// `subflow_check_req`: a SYN with `MP_JOIN`.
        SYN = 2,
        /// `mptcp_subflow_drop_ctx`: a third ACK with `MP_JOIN`.
        THIRD_ACK = 3,
        /// `__mptcp_subflow_connect`.
        CONNECT = 4,
        /// `mptcp_pm_subflow_established`: the fourth ACK.
        FOURTH_ACK = 5,
        /// `mptcp_pm_subflow_chk_stale` or `mptcp_pm_chk_stale`.
        STALE = 6,
        /// `tcp_send_reset` for a packet to a listener; [`PathRecord::old_state`] has the flags of
        /// the packet's TCP header.
        RESET = 7,
        /// One of the scans of all sockets.
        SCAN = 8,
        /// `mptcp_pm_mp_prio_received`.
        PRIORITY = 9,
        /// A function of the path manager.
        MANAGER = 10,
        /// `tcp_send_reset` for a SYN with `MP_JOIN` to an address and port without a socket.
        NO_LISTENER = 11,
        /// `mptcp_subflow_init_cookie_req`: a third ACK with `MP_JOIN` that answers a SYN cookie.
        COOKIE = 12,
        /// `tcp_check_req`: an RST with `MP_TCPRST` that answers a SYN/ACK without MPTCP.
        PLAIN_REQUEST = 13,
        /// The timer of a request to join, which waits for the third ACK.
        REQUEST_TIMER = 14,
        /// A reading of the paths of one connection, on request: no event.
        READING = 15,
    }
}

flags! {
    /// How far a SYN or a third ACK with `MP_JOIN` got: [`PathRecord::old_state`] at
    /// [`PathSite::SYN`] and [`PathSite::THIRD_ACK`].
    JoinAnswer: u32 {
        /// The connection takes no more paths (`mptcp_can_accept_new_subflow`).
        REFUSED = 0,
        /// It takes one more.
        ACCEPTED = 1,
        /// The child already belonged to the connection.
        ATTACHED = 2,
        /// The connection was not asked, although `mptcp_can_accept_new_subflow` is probed.
        NOT_ASKED = 3,
        /// The path manager has no id for the local address (`mptcp_pm_get_local_id`).
        NO_ID = 4,
        /// The child has no subflow context: there was no memory for it.
        NO_CONTEXT = 5,
    }
}

structure! {
    /// What a path carried (`struct tcp_sock`).
    pub struct PathLedger {
        /// Payload sent, retransmissions included, bytes.
        pub bytes_sent: u64,
        /// Payload sent again, bytes.
        pub bytes_retrans: u64,
        /// Payload acknowledged by the peer, bytes; SYN and FIN count as one each.
        pub bytes_acked: u64,
        /// Payload received in order, bytes; a FIN counts as one.
        pub bytes_received: u64,
        /// Segments sent again.
        pub total_retrans: u32,
        /// Smoothed round-trip time, eighths of a microsecond.
        pub srtt_8us: u32,
        /// Minimal round-trip time, microseconds.
        pub rtt_min_us: u32,
        /// Segments sent.
        pub segs_out: u32,
        /// Segments received.
        pub segs_in: u32,
        /// Keeps the size a multiple of eight.
        pub reserved: u32,
    }
}

structure! {
    /// State of the path manager of a connection (`mptcp_sock.pm`), a byte each.
    pub struct PathManagerState {
        /// `pm_type`: 0 in the kernel, 1 in userspace.
        pub kind: u8,
        /// More paths are allowed (`accept_subflow`).
        pub accept_subflow: u8,
        /// Announced addresses are used (`accept_addr`).
        pub accept_addr: u8,
        /// The peer does not want joins to its initial address (`remote_deny_join_id0`).
        pub remote_deny_join_id0: u8,
        /// There was something to join from or to announce (`work_pending`).
        pub work_pending: u8,
        /// Addresses of the peer that were accepted (`add_addr_accepted`).
        pub add_addr_accepted: u8,
        /// Own addresses that were used (`local_addr_used`).
        pub local_addr_used: u8,
        /// Paths besides the first one, those being opened included (`extra_subflows`).
        pub extra_subflows: u8,
    }
}

structure! {
    /// An event of a path.
    ///
    /// Addresses are in network byte order; an IPv4 address fills the first four bytes.
    pub struct PathRecord {
        /// [`Kind::PATH_UP`] or another kind of this record.
        pub kind: Kind,
        /// Which of the optional fields are set, and other properties.
        pub flags: PathFlags,
        /// When it happened, `CLOCK_BOOTTIME`, nanoseconds.
        pub boottime_ns: u64,
        /// Address of the connection (`struct sock`); 0 if unknown.
        pub socket: u64,
        /// When the connection was first observed; with the address, its identity. 0 if unknown.
        pub born_ns: u64,
        /// Address of the path's TCP socket; 0 if there is none.
        pub path: u64,
        /// When the SYN was sent or, of a passive path, when its third ACK arrived; with the
        /// address, the identity of the path.
        pub path_born_ns: u64,
        /// When the path came up; 0 if it did not, or if that was not observed.
        pub up_ns: u64,
        /// Inode number of the connection's socket.
        pub inode: u64,
        /// `net.net_cookie` of the network namespace, never reused; 0 if unknown.
        pub netns_cookie: u64,
        /// The process that holds the connection.
        pub owner: Owner,
        /// What the path carried.
        pub ledger: PathLedger,
        /// State of the path manager.
        pub manager: PathManagerState,
        /// Options of the RST that was received: the bytes after the TCP header.
        pub options: [u8; 40],
        /// Local address.
        pub local_addr: [u8; 16],
        /// Remote address.
        pub remote_addr: [u8; 16],
        /// Bits of the subflow context.
        pub context: ContextBits,
        /// State of the tracked connection.
        pub conn_state: ConnState,
        /// Inode number of the network namespace.
        pub netns: u32,
        /// The connection's token at this end (`token`, RFC 8684 section 3.1); 0 if unknown.
        pub token: u32,
        /// `sk_err`, or what a function returned: a positive or negative errno.
        pub error: i32,
        /// What happened to the path before.
        pub events: PathEvents,
        /// The first of [`Self::events`] that decided the end; empty if none was observed.
        pub first_event: PathEvents,
        /// Own address id; -1 if unknown.
        pub local_id: i16,
        /// `skc_family`.
        pub family: u16,
        /// Local port, host byte order.
        pub local_port: u16,
        /// Remote port, network byte order.
        pub remote_port_be: u16,
        /// The peer's address id.
        pub remote_id: u8,
        /// State of the path's socket before the event (`TCP_*`).
        pub old_state: u8,
        /// State of the connection (`skc_state` of the MPTCP socket); 0 if unknown.
        pub connection_state: u8,
        /// Reason of an RST: with [`ContextBits::RESET_SEEN`] the peer's, else this host's.
        pub reset_reason: u8,
        /// Number of bytes of [`Self::options`].
        pub options_len: u8,
        /// Attach method.
        pub rung: RecordRung,
        /// Where it was observed.
        pub site: PathSite,
        /// Bits of the connection, [`ConnectionBits`].
        pub connection: ConnectionBits,
        /// What the other end knows too.
        pub marks: Marks,
    }
}

flags! {
    /// Bits of a connection (`struct mptcp_sock`) that explain what happens to a path.
    ConnectionBits: u8 {
        /// The following bits were read.
        READ = 0,
        /// The peer closed the connection with `MP_FASTCLOSE` (`rcv_fastclose`).
        RECEIVED_FASTCLOSE = 1,
        /// Paths can be added: no fallback has begun (`allow_subflows`).
        ALLOWS_PATHS = 2,
        /// The handshake is complete at both ends (`fully_established`).
        FULLY_ESTABLISHED = 3,
        /// The peer opened the connection (`pm.server_side`).
        SERVER_SIDE = 4,
        /// It is this path that opened the connection (`first`).
        FIRST_PATH = 5,
    }
}

const _: () = {
    assert!(size_of::<PathLedger>() == 56);
    assert!(size_of::<PathManagerState>() == 8);
    assert!(size_of::<PathRecord>() == 312);
    // The BPF side writes addresses as 32-bit words.
    assert!(offset_of!(PathRecord, local_addr).is_multiple_of(4));
    assert!(offset_of!(PathRecord, remote_addr).is_multiple_of(4));
};
