//! Paths: the TCP sockets of an MPTCP connection, their contexts, and requests to join.

use super::{sock::mptcp_extension, *};
use mptcp_trace_common::record::{
    ConnectionBits, ContextBits, Marks, PathLedger, PathManagerState,
};

/// At most this many paths of a connection are looked at. The kernel's own path manager opens eight
/// besides the first one (`MPTCP_PM_ADDR_MAX`).
pub(crate) const PATHS_MAX: u32 = 10;

/// Bytes of options that a TCP header has room for (RFC 9293 section 3.1).
pub(crate) const OPTIONS_MAX: usize = 40;

/// Length of a TCP header without options.
pub(super) const TCP_HEADER: u64 = 20;

impl Sock {
    /// Error of a socket, a positive errno.
    #[inline(always)]
    pub(crate) fn error(self) -> i32 {
        read_or_zero!(self.0, sock_err)
    }

    /// Addresses and ports; the local port also of a closed socket.
    #[inline(always)]
    pub(crate) fn lasting_endpoints(self, family: u16) -> Result<Endpoints, Fault> {
        let mut ends = endpoints(&self, family)?;
        if ends.local_port == 0 {
            let port: u16 = read_or_zero!(self.0, inet_sport);
            ends.local_port = u16::from_be(port);
        }
        Ok(ends)
    }

    /// Addresses and ports, or zeroes where they cannot be read.
    #[inline(always)]
    pub(crate) fn ends_or_zero(self, family: u16) -> Endpoints {
        let mut ends = Endpoints {
            local_addr: [0; 4],
            remote_addr: [0; 4],
            local_port: read_or_zero!(self.0, sock_num),
            remote_port_be: read_or_zero!(self.0, sock_dport),
        };
        if family == AF_INET6 {
            ends.local_addr = read_or_zero!(self.0, sock_v6_rcv_saddr);
            ends.remote_addr = read_or_zero!(self.0, sock_v6_daddr);
        } else {
            ends.local_addr[0] = read_or_zero!(self.0, sock_rcv_saddr);
            ends.remote_addr[0] = read_or_zero!(self.0, sock_daddr);
        }
        ends
    }

    /// Inode number of the network namespace, or 0 if it cannot be read.
    #[inline(always)]
    pub(crate) fn netns_or_zero(self) -> u32 {
        let net: u64 = read_or_zero!(self.0, sock_net);
        read_or_zero!(net, net_inum)
    }

    /// Writes what a TCP socket has carried.
    #[inline(always)]
    pub(crate) fn put_ledger(self, ledger: &mut PathLedger) {
        ledger.bytes_sent = read_or_zero!(self.0, tcp_bytes_sent);
        ledger.bytes_retrans = read_or_zero!(self.0, tcp_bytes_retrans);
        ledger.bytes_acked = read_or_zero!(self.0, tcp_bytes_acked);
        ledger.bytes_received = read_or_zero!(self.0, tcp_bytes_received);
        ledger.total_retrans = read_or_zero!(self.0, tcp_total_retrans);
        ledger.srtt_8us = read_or_zero!(self.0, tcp_srtt);
        ledger.rtt_min_us = read_or_zero!(self.0, tcp_rtt_min);
        ledger.segs_out = read_or_zero!(self.0, tcp_segs_out);
        ledger.segs_in = read_or_zero!(self.0, tcp_segs_in);
    }

    /// Writes what the other end of a TCP socket knows too; of its connection, if it has one. Without
    /// branches that depend on data: the verifier would walk both sides of each.
    #[inline(always)]
    pub(crate) fn put_marks(self, msk: Sock, marks: &mut Marks) {
        let is_counted =
            offset!(tcp_bytes_acked) != ABSENT && offset!(tcp_bytes_received) != ABSENT;
        if offset!(tcp_snd_una) != ABSENT && offset!(tcp_rcv_nxt) != ABSENT && is_counted {
            let next: u32 = read_or_zero!(self.0, tcp_snd_una);
            let acknowledged: u64 = read_or_zero!(self.0, tcp_bytes_acked);
            marks.sent = next.wrapping_sub(acknowledged as u32);
            let next: u32 = read_or_zero!(self.0, tcp_rcv_nxt);
            let received: u64 = read_or_zero!(self.0, tcp_bytes_received);
            marks.received = next.wrapping_sub(received as u32);
        }
        if offset!(msk_local_key) != ABSENT && offset!(msk_remote_key) != ABSENT {
            // Without a connection, low addresses are read, and nothing is there.
            let local: u64 = read_or_zero!(msk.0, msk_local_key);
            let remote: u64 = read_or_zero!(msk.0, msk_remote_key);
            marks.keys = Marks::digest(local, remote);
        }
    }

    /// Writes the state of a connection's path manager.
    #[inline(always)]
    pub(crate) fn put_path_manager(self, manager: &mut PathManagerState) {
        macro_rules! flag {
            ($field:ident) => {
                bit_or_zero_at(self.0, offset!($field)) as u8
            };
        }
        manager.kind = read_or_zero!(self.0, pm_type);
        manager.accept_subflow = flag!(pm_accept_subflow);
        manager.accept_addr = flag!(pm_accept_addr);
        manager.remote_deny_join_id0 = flag!(pm_deny_join_id0);
        manager.work_pending = flag!(pm_work_pending);
        manager.add_addr_accepted = read_or_zero!(self.0, pm_add_addr_accepted);
        manager.local_addr_used = read_or_zero!(self.0, pm_local_addr_used);
        manager.extra_subflows = self.msk_extra_subflows().unwrap_or(0);
    }

    /// The connection's token at this end.
    #[inline(always)]
    pub(crate) fn msk_token(self) -> u32 {
        read_or_zero!(self.0, msk_token)
    }

    /// What the path manager of a connection has to do, a bit each.
    #[inline(always)]
    pub(crate) fn path_manager_status(self) -> u8 {
        match offset!(pm_status) {
            ABSENT => 0,
            offset => read_or_zero_at(self.0, offset),
        }
    }

    /// The bits of a connection that explain what happens to its paths.
    #[inline(always)]
    pub(crate) fn connection_bits(self) -> ConnectionBits {
        let mut bits = ConnectionBits::READ.bits();
        macro_rules! add {
            ($field:ident, $flag:ident) => {
                bits |= (bit_or_zero_at(self.0, offset!($field)) as u8)
                    << ConnectionBits::$flag.bits().trailing_zeros()
            };
        }
        add!(msk_rcv_fastclose, RECEIVED_FASTCLOSE);
        add!(msk_allow_subflows, ALLOWS_PATHS);
        add!(msk_fully_established, FULLY_ESTABLISHED);
        add!(msk_server_side, SERVER_SIDE);
        ConnectionBits::from_bits_retain(bits)
    }
}

/// The next path of a connection, from `node` on: its TCP socket and context, and the place after
/// it. The list is circular; the connection itself is in it, and has no context.
#[derive(Clone, Copy)]
pub(crate) struct PathsOf {
    head: u64,
    node: u64,
}

impl PathsOf {
    /// The paths of a connection.
    #[inline(always)]
    pub(crate) fn connection(msk: Sock) -> Self {
        let head = msk.0.wrapping_add(u64::from(offset!(msk_conn_list)));
        let node = match offset!(msk_conn_list) == ABSENT || offset!(subflow_node) == ABSENT {
            true => head,
            false => read_or_zero_at(head, 0),
        };
        Self { head, node }
    }

    /// The context of the next path; `None` at the end.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<u64> {
        let node = self.node;
        if node == self.head || node == 0 {
            return None;
        }
        self.node = read_or_zero_at(node, 0);
        Some(node.wrapping_sub(u64::from(offset!(subflow_node))))
    }
}

/// The bits of a subflow context.
#[inline(always)]
pub(crate) fn context_bits(context: u64) -> ContextBits {
    let mut bits = 0;
    // Without branches: the verifier would walk both sides of each.
    macro_rules! add {
        ($field:ident, $flag:ident) => {
            bits |= bit_or_zero_at(context, offset!($field))
                << ContextBits::$flag.bits().trailing_zeros()
        };
    }
    add!(subflow_request_mptcp, REQUEST_MPTCP);
    add!(subflow_request_join, REQUEST_JOIN);
    add!(subflow_mp_capable, MP_CAPABLE);
    add!(subflow_mp_join, MP_JOIN);
    add!(subflow_fully_established, FULLY_ESTABLISHED);
    add!(subflow_conn_finished, CONN_FINISHED);
    add!(subflow_stale, STALE);
    add!(subflow_close_event_done, CLOSE_EVENT_DONE);
    add!(subflow_backup, BACKUP);
    add!(subflow_request_backup, REQUEST_BACKUP);
    add!(subflow_send_fastclose, SEND_FASTCLOSE);
    add!(subflow_reset_seen, RESET_SEEN);
    add!(subflow_reset_transient, RESET_TRANSIENT);
    let hmac: u64 = read_or_zero!(context, subflow_thmac);
    let nonce: u32 = read_or_zero!(context, subflow_remote_nonce);
    bits |= u32::from(hmac != 0) << ContextBits::HMAC.bits().trailing_zeros();
    bits |= u32::from(nonce != 0) << ContextBits::NONCE.bits().trailing_zeros();
    ContextBits::from_bits_retain(bits)
}

/// The TCP socket of a subflow context.
#[inline(always)]
pub(crate) fn sock_of_context(context: u64) -> Option<Sock> {
    let sk: u64 = read_or_zero!(context, subflow_tcp_sock);
    (sk != 0).then_some(Sock(sk))
}

/// True if a subflow context is `stale`.
#[inline(always)]
pub(crate) fn is_stale(context: u64) -> bool {
    bit!(context, subflow_stale) == Some(true)
}

/// True if this host wants the path of a context as a backup.
#[inline(always)]
pub(crate) fn wants_backup(context: u64) -> bool {
    bit!(context, subflow_request_backup) == Some(true)
}

/// True if data can be sent on the path of a context.
#[inline(always)]
pub(crate) fn is_fully_established(context: u64) -> bool {
    bit!(context, subflow_fully_established) == Some(true)
}

/// True if the path of a context joins a connection, or asks to.
#[inline(always)]
pub(crate) fn is_join(context: u64) -> bool {
    bit!(context, subflow_mp_join) == Some(true)
        || bit!(context, subflow_request_join) == Some(true)
}

/// The reason of an RST, a bit field of four bits in the byte of `reset_seen`.
#[inline(always)]
pub(crate) fn reset_reason(context: u64) -> u8 {
    let seen = offset!(subflow_reset_seen);
    if seen == ABSENT {
        return 0;
    }
    let byte: u8 = read_or_zero_at(context, seen / 8);
    byte >> 2 & 0xf
}

/// Address ids of both ends, own one first; -1 if it is unknown.
#[inline(always)]
pub(crate) fn address_ids(context: u64) -> (i16, u8) {
    let local = match offset!(subflow_local_id) {
        ABSENT => -1,
        _ => read_or_zero!(context, subflow_local_id),
    };
    (local, read_or_zero!(context, subflow_remote_id))
}

/// The connection's token at this end.
#[inline(always)]
pub(crate) fn token_of(context: u64) -> u32 {
    read_or_zero!(context, subflow_token)
}

/// A `struct request_sock` of the kernel that belongs to MPTCP (`mptcp_subflow_request_sock`), by
/// address.
#[derive(Clone, Copy)]
pub(crate) struct JoinRequest(pub(crate) u64);

impl JoinRequest {
    /// Whether the request asks to join a connection.
    #[inline(always)]
    pub(crate) fn is_join(self) -> bool {
        bit!(self.0, request_mp_join) == Some(true)
    }

    /// Whether it came to an MPTCP listener; only then it is of MPTCP's type.
    #[inline(always)]
    pub(crate) fn is_of_mptcp(self) -> bool {
        bit!(self.0, request_is_mptcp) == Some(true)
    }

    /// Whether it came to an MPTCP listener, but asks for plain TCP.
    #[inline(always)]
    pub(crate) fn is_plain(self) -> bool {
        self.is_of_mptcp() && bit!(self.0, request_mp_capable) == Some(false) && !self.is_join()
    }

    /// A byte that changes whenever its timer has run and does not give up.
    #[inline(always)]
    pub(crate) fn timeouts(self) -> u8 {
        match offset!(request_syncookie) {
            ABSENT => 0,
            bit => read_or_zero_at(self.0, bit / 8),
        }
    }

    /// The listener that it came to.
    #[inline(always)]
    pub(crate) fn listener(self) -> u64 {
        read_or_zero!(self.0, request_listener)
    }

    /// The connection; `None` before it is found.
    #[inline(always)]
    pub(crate) fn connection(self) -> Option<Sock> {
        let msk: u64 = read_or_zero!(self.0, request_msk);
        (msk != 0).then_some(Sock(msk))
    }

    /// The token that the peer sent.
    #[inline(always)]
    pub(crate) fn token(self) -> u32 {
        read_or_zero!(self.0, request_token)
    }

    /// Writes what the peer knows too: in `is_answered`, also of the answer.
    #[inline(always)]
    pub(crate) fn put_marks(self, is_answered: bool, marks: &mut Marks) {
        if offset!(request_rcv_isn) == ABSENT || offset!(request_snt_isn) == ABSENT {
            return;
        }
        let received: u32 = read_or_zero!(self.0, request_rcv_isn);
        marks.received = received.wrapping_add(1);
        if is_answered {
            let sent: u32 = read_or_zero!(self.0, request_snt_isn);
            marks.sent = sent.wrapping_add(1);
        }
    }

    /// Address ids of both ends, own one first.
    #[inline(always)]
    pub(crate) fn address_ids(self) -> (i16, u8) {
        let local: u8 = read_or_zero!(self.0, request_local_id);
        (i16::from(local), read_or_zero!(self.0, request_remote_id))
    }
}

/// The reason that MPTCP gives for the RST that answers a packet (`subflow_add_reset_reason`), if it
/// gave one; `number` is that of the MPTCP extension.
#[inline(always)]
pub(crate) fn reason_for_reset(skb: u64, number: u8) -> Option<u8> {
    let bit = offset!(mapping_csum_reqd);
    if bit == ABSENT {
        return None;
    }
    let extension = mptcp_extension(skb, number)?;
    let byte: u8 = read_or_zero_at(extension, bit / 8);
    Some(byte & 0xf)
}

/// Address of the IP header of a packet.
#[inline(always)]
pub(super) fn ip_header(skb: u64) -> u64 {
    let head: u64 = read_or_zero!(skb, skb_head);
    let offset: u16 = read_or_zero!(skb, skb_network_header);
    head.wrapping_add(u64::from(offset))
}

/// What a received TCP packet says about a connection that has no socket of its own, from the side
/// of the receiver, whose network namespace is that of `listener`.
#[inline(always)]
pub(crate) fn endpoints_of_packet(skb: u64) -> (u16, Endpoints) {
    let header = ip_header(skb);
    let tcp: u64 = read_or_zero!(skb, skb_data);
    let source: u16 = read_or_zero_at(tcp, 0);
    let destination: u16 = read_or_zero_at(tcp, 2);
    let version: u8 = read_or_zero_at(header, 0);
    let mut ends = Endpoints {
        local_addr: [0; 4],
        remote_addr: [0; 4],
        local_port: u16::from_be(destination),
        remote_port_be: source,
    };
    if version >> 4 == 6 {
        ends.remote_addr = read_or_zero_at(header, 8);
        ends.local_addr = read_or_zero_at(header, 24);
        return (AF_INET6, ends);
    }
    ends.remote_addr[0] = read_or_zero_at(header, 12);
    ends.local_addr[0] = read_or_zero_at(header, 16);
    (AF_INET, ends)
}

/// Writes what the sender of a received TCP packet of a handshake knows too.
#[inline(always)]
pub(crate) fn put_marks_of_packet(skb: u64, marks: &mut Marks) {
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    let tcp: u64 = read_or_zero!(skb, skb_data);
    let number: u32 = read_or_zero_at(tcp, 4);
    let acknowledged: u32 = read_or_zero_at(tcp, 8);
    let flags = tcp_flags(skb);
    let syn = u32::from(flags & SYN) / u32::from(SYN);
    let ack = u32::from(flags & ACK) / u32::from(ACK);
    marks.received = u32::from_be(number).wrapping_add(syn);
    marks.sent = u32::from_be(acknowledged) * ack;
}

/// Index of the interface at which a packet arrived.
#[inline(always)]
pub(crate) fn device_of_packet(skb: u64) -> u32 {
    read_or_zero!(skb, skb_ifindex)
}

/// Flags of a TCP packet: FIN, SYN and so on, from the lowest bit on (RFC 9293 section 3.1).
#[inline(always)]
pub(crate) fn tcp_flags(skb: u64) -> u8 {
    let header: u64 = read_or_zero!(skb, skb_data);
    read_or_zero_at(header, 13)
}

/// The network namespace of the device that a packet is at.
#[inline(always)]
pub(crate) fn net_of_packet(skb: u64) -> Result<Net, Fault> {
    let device: u64 = read!(skb, skb_dev)?;
    read!(device, device_net).map(Net)
}

/// At most this many options of a packet are looked at, padding included.
const OPTION_STEPS: u32 = 16;

/// The MPTCP options of a packet, a bit for each subtype (RFC 8684 section 8.1).
#[inline(never)]
pub(crate) fn mptcp_subtypes(skb: u64) -> u32 {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const MPTCP: u8 = 30;
    let header: u64 = read_or_zero!(skb, skb_data);
    let length: u8 = read_or_zero_at(header, 12);
    let length = u32::from(length >> 4) * 4;
    let mut at = TCP_HEADER as u32;
    let mut found = 0;
    for _ in 0..OPTION_STEPS {
        // Kind, length and the first byte of the content.
        let option: [u8; 3] = read_or_zero_at(header.wrapping_add(u64::from(at)), 0);
        if at + 3 > length || option[0] == END || option[0] != NOP && option[1] < 2 {
            break;
        }
        if option[0] == MPTCP {
            found |= 1 << (option[2] >> 4);
        }
        let step = match option[0] {
            NOP => 1,
            _ => u32::from(option[1]),
        };
        // Bounded, so that the verifier sees the same state in each iteration.
        at = (at + step) & 0xff;
    }
    found
}

/// One end of a path that the path manager opens (`struct mptcp_addr_info`, or
/// `struct mptcp_pm_local`, which begins with it), by address.
#[derive(Clone, Copy)]
pub(crate) struct PathEnd(pub(crate) u64);

impl PathEnd {
    /// No address.
    pub(crate) const NONE: Self = Self(0);

    /// Its address id.
    #[inline(always)]
    pub(crate) fn id(self) -> u8 {
        read_or_zero!(self.0, address_id)
    }

    /// Its address family.
    #[inline(always)]
    pub(crate) fn family(self) -> u16 {
        read_or_zero!(self.0, address_family)
    }

    /// Its port, network byte order; 0 for any.
    #[inline(always)]
    pub(crate) fn port_be(self) -> u16 {
        read_or_zero!(self.0, address_port)
    }

    /// Its address.
    #[inline(always)]
    pub(crate) fn address(self) -> [u32; 4] {
        if self.family() == AF_INET6 {
            return read_or_zero!(self.0, address_v6);
        }
        let v4: u32 = read_or_zero!(self.0, address_v4);
        [v4, 0, 0, 0]
    }
}

/// A list of address ids that are removed (`struct mptcp_rm_list`), by address.
#[derive(Clone, Copy)]
pub(crate) struct RemovedIds(pub(crate) u64);

impl RemovedIds {
    /// The ids, one per byte.
    #[inline(always)]
    pub(crate) fn ids(self) -> u64 {
        read_or_zero!(self.0, removed_ids)
    }

    /// How many there are.
    #[inline(always)]
    pub(crate) fn count(self) -> u8 {
        read_or_zero!(self.0, removed_count)
    }
}

/// Copies the options of a packet, whose data begin with its TCP header; returns how many bytes
/// there are.
#[inline(always)]
pub(crate) fn copy_options(skb: u64, to: *mut [u8; OPTIONS_MAX]) -> u8 {
    let header: u64 = read_or_zero!(skb, skb_data);
    // Data offset, in words of four bytes, in the upper half of the byte.
    let offset: u8 = read_or_zero_at(header.wrapping_add(12), 0);
    let length = u32::from(offset >> 4) * 4;
    if header == 0 || length <= TCP_HEADER as u32 {
        return 0;
    }
    let length = length - TCP_HEADER as u32;
    let length = if length > OPTIONS_MAX as u32 {
        OPTIONS_MAX as u32
    } else {
        length
    };
    // SAFETY: the helper writes at most the bytes of the place, and accepts any address.
    let failed = unsafe {
        generated::bpf_probe_read_kernel(to.cast(), length, (header + TCP_HEADER) as *const c_void)
    };
    if failed == 0 { length as u8 } else { 0 }
}
