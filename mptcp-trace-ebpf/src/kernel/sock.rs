//! Sockets, their connections and subflows.

use super::*;
use mptcp_trace_common::{
    map_values::SHARE_OF_OTHERS,
    record::{SELF_TEST_MAP, SubflowBits},
};

/// A `struct sock` of the kernel, by address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sock(pub(crate) u64);

impl Sock {
    #[inline(always)]
    pub(crate) fn family(self) -> Result<u16, Fault> {
        family_of(&self)
    }

    #[inline(always)]
    pub(crate) fn state(self) -> Result<u8, Fault> {
        state_of(&self)
    }

    #[inline(always)]
    pub(crate) fn protocol(self) -> Result<u16, Fault> {
        protocol_of(&self)
    }

    /// Local port, host byte order; 0 while it has none.
    #[inline(always)]
    pub(crate) fn local_port(self) -> Result<u16, Fault> {
        read!(self.0, sock_num)
    }

    /// Index of the interface that the socket is bound to, of an MPTCP connection that of its first
    /// subflow; 0 without one.
    #[inline(always)]
    pub(crate) fn device(self, is_mptcp: bool) -> u32 {
        if offset!(sock_bound_dev_if) == ABSENT {
            return 0;
        }
        let bound = match is_mptcp {
            true => self.first_subflow().unwrap_or(self),
            false => self,
        };
        read_or_zero!(bound.0, sock_bound_dev_if)
    }

    /// The network namespace.
    #[inline(always)]
    pub(crate) fn net(self) -> Result<Net, Fault> {
        read!(self.0, sock_net).map(Net)
    }

    /// Inode number of the socket; a fault before it is accepted.
    #[inline(always)]
    pub(crate) fn inode(self) -> Result<u64, Fault> {
        inode_of_socket(socket_of(&self)?)
    }

    /// User id of the socket's owner; a child inherits it from its listener.
    #[inline(always)]
    pub(crate) fn user(self) -> u32 {
        match offset!(sock_uid) {
            ABSENT => SHARE_OF_OTHERS,
            offset => read_or_zero_at(self.0, offset),
        }
    }

    /// True for a socket that the kernel created for itself. Only of connections and listeners:
    /// every subflow is one.
    #[inline(always)]
    pub(crate) fn is_of_kernel(self) -> bool {
        bit!(self.0, sock_kern_sock) == Some(true)
    }

    /// True for a socket of a self-test, of this instance or another ([`SELF_TEST_MAP`]).
    #[inline(always)]
    pub(crate) fn is_of_self_test(self) -> bool {
        // Almost every socket has no local storage.
        let storage: u64 = read!(self.0, sock_storage).unwrap_or(0);
        storage != 0 && has_mark(storage) != 0
    }

    /// State bits of an MPTCP connection.
    #[inline(always)]
    pub(crate) fn msk_flags(self) -> Result<u64, Fault> {
        read!(self.0, msk_flags)
    }

    /// The MPTCP connection of a TCP socket that is its subflow.
    #[inline(always)]
    pub(crate) fn msk_of_subflow(self) -> Option<Sock> {
        let msk: u64 = read!(self.subflow_context()?, subflow_conn).ok()?;
        (msk != 0).then_some(Sock(msk))
    }

    /// The `mptcp_subflow_context` of a TCP socket that is a subflow.
    #[inline(always)]
    pub(crate) fn subflow_context(self) -> Option<u64> {
        // Other upper layer protocols (tls) use icsk_ulp_data too: is_mptcp shows whether it is
        // MPTCP's.
        let is_mptcp: u8 = read!(self.0, tcp_is_mptcp).ok()?;
        if is_mptcp == 0 {
            return None;
        }
        let context: u64 = read!(self.0, icsk_ulp_data).ok()?;
        (context != 0).then_some(context)
    }

    /// True for a subflow: its context points back to it.
    #[inline(always)]
    pub(crate) fn is_subflow(self) -> bool {
        self.subflow_context()
            .and_then(|context| read!(context, subflow_tcp_sock).ok())
            .is_some_and(|back: u64| back == self.0)
    }

    /// True for a TCP socket of an MPTCP connection.
    #[inline(always)]
    pub(crate) fn tcp_is_mptcp(self) -> Result<bool, Fault> {
        let is_mptcp: u8 = read!(self.0, tcp_is_mptcp)?;
        Ok(is_mptcp != 0)
    }

    /// Data of the upper layer protocol of a TCP socket; 0 without one.
    #[inline(always)]
    pub(crate) fn ulp_data(self) -> Result<u64, Fault> {
        read!(self.0, icsk_ulp_data)
    }

    /// First subflow of an MPTCP connection; `None` before it connects or listens.
    #[inline(always)]
    pub(crate) fn first_subflow(self) -> Option<Sock> {
        let first: u64 = read_or_zero!(self.0, msk_first);
        (first != 0).then_some(Sock(first))
    }

    /// Payload sent and received over MPTCP.
    #[inline(always)]
    pub(crate) fn msk_bytes(self) -> Result<(u64, u64), Fault> {
        if offset!(msk_bytes_sent) == ABSENT || offset!(msk_bytes_received) == ABSENT {
            return Err(Fault);
        }
        Ok((
            read_or_zero!(self.0, msk_bytes_sent),
            read_or_zero!(self.0, msk_bytes_received),
        ))
    }

    /// Subflows besides the first one.
    #[inline(always)]
    pub(crate) fn msk_extra_subflows(self) -> Result<u8, Fault> {
        let newer = offset!(msk_extra_subflows);
        let older = offset!(msk_subflows);
        match if newer == ABSENT { older } else { newer } {
            ABSENT => Err(Fault),
            offset => Ok(read_or_zero_at(self.0, offset)),
        }
    }

    /// True if the kernel would let this connection fall back (`__mptcp_try_fallback`).
    #[inline(always)]
    pub(crate) fn msk_may_fall_back(self) -> bool {
        let in_order = read!(self.0, msk_out_of_order).map_or(true, |root: u64| root == 0);
        bit!(self.0, msk_allow_fallback).unwrap_or(true) && in_order
    }

    /// Whether the peer opened the connection.
    #[inline(always)]
    pub(crate) fn msk_server_side(self) -> Option<bool> {
        bit!(self.0, msk_server_side)
    }

    /// Whether the connection uses checksums.
    #[inline(always)]
    pub(crate) fn msk_has_checksums(self) -> bool {
        bit!(self.0, msk_csum_enabled) == Some(true)
    }

    /// For how long MPTCP is disabled in this socket's network namespace, milliseconds
    /// (`mptcp_active_should_disable`): the configured timeout, doubled for each time in a row, at
    /// most six times. 0 if a SYN with MPTCP was answered since.
    #[inline(always)]
    pub(crate) fn mptcp_off_ms(self) -> Option<u32> {
        let id = *CALIBRATED.get(calibrated::PERNET_ID)?;
        if id == 0 {
            return None;
        }
        let pernet = self.net().ok()?.data(id)?;
        let timeout_s: u32 = read!(pernet, pernet_blackhole_timeout).ok()?;
        let times: u32 = read!(pernet, pernet_disable_times).ok()?;
        if times == 0 {
            return Some(0);
        }
        let doublings = times.saturating_sub(1);
        let doublings = if doublings > 6 { 6 } else { doublings };
        Some((timeout_s << doublings).wrapping_mul(1000))
    }
}

/// At most this many elements of a socket's local storage are searched for the mark of a self-test.
const ELEMENTS_MAX: u32 = 4;

/// 1 if an element of a `bpf_local_storage` belongs to a map of self-tests. The map's name is
/// compared, not the content of the element: only a privileged process can create such a map.
#[inline(never)]
fn has_mark(storage: u64) -> u32 {
    let mut node: u64 = read_or_zero!(storage, storage_first);
    for _ in 0..ELEMENTS_MAX {
        if node == 0 {
            break;
        }
        let element = node.wrapping_sub(u64::from(offset!(element_node)));
        let map: u64 = read_or_zero!(element, element_map);
        let name: [u8; 16] = read_or_zero!(map, storage_map_name);
        if u128::from_ne_bytes(name) == u128::from_ne_bytes(SELF_TEST_MAP) {
            return 1;
        }
        node = read_or_zero!(node, node_next);
    }
    0
}

/// The bits of a subflow context that explain a fallback.
#[inline(always)]
pub(crate) fn subflow_bits(context: u64) -> SubflowBits {
    let mut flags = 0;
    // Without branches: the verifier would walk both sides of each.
    macro_rules! add {
        ($field:ident, $flag:ident) => {
            flags |= bit_or_zero_at(context, offset!($field))
                << SubflowBits::$flag.bits().trailing_zeros()
        };
    }
    add!(subflow_request_mptcp, REQUEST_MPTCP);
    add!(subflow_mp_capable, MP_CAPABLE);
    add!(subflow_mp_join, MP_JOIN);
    add!(subflow_valid_csum_seen, VALID_CSUM_SEEN);
    add!(subflow_mpc_drop, MPC_DROP);
    add!(subflow_remote_key_valid, REMOTE_KEY);
    add!(subflow_can_ack, REMOTE_KEY);
    SubflowBits::from_bits_retain(flags as u16)
}

/// True if the next data of this subflow goes out with an infinite mapping.
#[inline(always)]
pub(crate) fn sends_infinite_map(context: u64) -> bool {
    bit!(context, subflow_send_infinite_map) == Some(true)
}

/// The connection of a subflow context.
#[inline(always)]
pub(crate) fn msk_of_context(context: u64) -> Option<Sock> {
    let msk: u64 = read!(context, subflow_conn).ok()?;
    (msk != 0).then_some(Sock(msk))
}

/// The socket that a packet was queued to.
#[inline(always)]
pub(crate) fn sock_of_skb(skb: u64) -> Option<Sock> {
    let sk: u64 = read!(skb, skb_sk).ok()?;
    (sk != 0).then_some(Sock(sk))
}

/// True if a packet carries an infinite mapping (RFC 8684 section 3.7): its length is 0.
/// `number` is that of the MPTCP extension.
#[inline(always)]
pub(crate) fn has_infinite_mapping(skb: u64, number: u8) -> bool {
    mptcp_extension(skb, number).is_some_and(|extension| {
        read!(extension, mapping_data_len).is_ok_and(|length: u16| length == 0)
    })
}

/// The MPTCP extension of a packet (`struct mptcp_ext`). Follows `skb_ext_find`; `number` is that of
/// the extension.
#[inline(always)]
pub(super) fn mptcp_extension(skb: u64, number: u8) -> Option<u64> {
    let active: u8 = read!(skb, skb_active_extensions).ok()?;
    if number >= 8 || active >> number & 1 == 0 {
        return None;
    }
    let extensions: u64 = read!(skb, skb_extensions).ok()?;
    let eighths: u8 = read!(extensions + u64::from(number), ext_offsets).ok()?;
    Some(extensions + u64::from(eighths) * 8)
}

/// The `struct sock` of a `struct socket`.
#[inline(always)]
pub(crate) fn sock_of_socket(socket: u64) -> Option<Sock> {
    let sk: u64 = read!(socket, socket_sk).ok()?;
    (sk != 0).then_some(Sock(sk))
}
