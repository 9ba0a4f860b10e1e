//! Typed reads of kernel memory, through the layout of the running kernel. The only unsafe reads.
//!
//! Every function here answers "could not be read" with [`Fault`]; its caller counts it.

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_task, bpf_get_smp_processor_id,
    bpf_ktime_get_boot_ns, bpf_probe_read_kernel, bpf_probe_read_user,
};
use mptcp_trace_common::{
    layout::ABSENT,
    record::{
        SUBFLOW_CONN_FINISHED, SUBFLOW_FULLY_ESTABLISHED, SUBFLOW_MP_CAPABLE, SUBFLOW_MP_JOIN,
        SUBFLOW_MPC_DROP, SUBFLOW_REMOTE_KEY, SUBFLOW_REQUEST_MPTCP, SUBFLOW_SEND_INFINITE,
        SUBFLOW_SEND_MP_FAIL, SUBFLOW_VALID_CSUM_SEEN,
    },
};

use crate::maps::{LAYOUT, PERNET_ID_AT};

/// A read of kernel or user memory that failed.
pub(crate) struct Fault;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;

/// The offset of one member, as the loader found it in the kernel's BTF.
macro_rules! offset {
    ($field:ident) => {{
        // SAFETY: LAYOUT is a static of this program. The read is volatile because the loader writes the
        // value between compilation and loading.
        unsafe { core::ptr::read_volatile(&raw const LAYOUT.$field) }
    }};
}

/// Reads the member `$field` of the structure at `$base`.
macro_rules! read {
    ($base:expr, $field:ident) => {
        read_at($base, offset!($field))
    };
}

#[inline(always)]
fn read_at<T>(base: u64, offset: u16) -> Result<T, Fault> {
    if offset == ABSENT || base == 0 {
        return Err(Fault);
    }
    // SAFETY: the helper copes with any address; a bad one is an error, not a fault of the kernel.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.map_err(|_errno| Fault)
}

/// Reads one bit, or a `bool`; none if this kernel does not have it.
macro_rules! bit {
    ($base:expr, $field:ident) => {
        bit_at($base, offset!($field))
    };
}

#[inline(always)]
fn bit_at(base: u64, offset_bits: u16) -> Option<bool> {
    if offset_bits == ABSENT {
        return None;
    }
    let byte: u8 = read_at(base, offset_bits / 8).ok()?;
    Some(byte >> (offset_bits % 8) & 1 == 1)
}

/// A `struct sock` of the kernel, by address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sock(pub(crate) u64);

/// Where a connection goes from and to; addresses in network byte order.
pub(crate) struct Endpoints {
    pub(crate) local_addr: [u8; 16],
    pub(crate) remote_addr: [u8; 16],
    pub(crate) local_port: u16,
    pub(crate) remote_port_be: u16,
}

impl Sock {
    #[inline(always)]
    pub(crate) fn family(self) -> Result<u16, Fault> {
        read!(self.0, sock_family)
    }

    #[inline(always)]
    pub(crate) fn state(self) -> Result<u8, Fault> {
        read!(self.0, sock_state)
    }

    #[inline(always)]
    pub(crate) fn protocol(self) -> Result<u16, Fault> {
        read!(self.0, sock_protocol)
    }

    /// Local port, host byte order; 0 while it has none.
    #[inline(always)]
    pub(crate) fn local_port(self) -> Result<u16, Fault> {
        read!(self.0, sock_num)
    }

    /// Inode number of the network namespace.
    #[inline(always)]
    pub(crate) fn netns(self) -> Result<u32, Fault> {
        read!(read!(self.0, sock_net)?, net_inum)
    }

    /// Inode number of the socket; none before it is accepted.
    #[inline(always)]
    pub(crate) fn inode(self) -> Result<u64, Fault> {
        read!(read!(self.0, sock_socket)?, socket_alloc_inode_number)
    }

    #[inline(always)]
    pub(crate) fn endpoints(self, family: u16) -> Result<Endpoints, Fault> {
        let mut ends = Endpoints {
            local_addr: [0; 16],
            remote_addr: [0; 16],
            local_port: read!(self.0, sock_num)?,
            remote_port_be: read!(self.0, sock_dport)?,
        };
        if family == AF_INET6 {
            ends.local_addr = read!(self.0, sock_v6_rcv_saddr)?;
            ends.remote_addr = read!(self.0, sock_v6_daddr)?;
        } else {
            let local: [u8; 4] = read!(self.0, sock_rcv_saddr)?;
            let remote: [u8; 4] = read!(self.0, sock_daddr)?;
            ends.local_addr[..4].copy_from_slice(&local);
            ends.remote_addr[..4].copy_from_slice(&remote);
        }
        Ok(ends)
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
        // Other upper layer protocols (tls) use icsk_ulp_data too: is_mptcp decides whose it is.
        let is_mptcp: u8 = read!(self.0, tcp_is_mptcp).ok()?;
        if is_mptcp == 0 {
            return None;
        }
        let context: u64 = read!(self.0, icsk_ulp_data).ok()?;
        (context != 0).then_some(context)
    }

    /// True for a subflow; what is checked is that its context points back.
    #[inline(always)]
    pub(crate) fn is_subflow(self) -> bool {
        self.subflow_context()
            .and_then(|context| read!(context, subflow_tcp_sock).ok())
            .is_some_and(|back: u64| back == self.0)
    }

    /// True for a TCP socket that speaks MPTCP.
    #[inline(always)]
    pub(crate) fn tcp_is_mptcp(self) -> Result<bool, Fault> {
        let is_mptcp: u8 = read!(self.0, tcp_is_mptcp)?;
        Ok(is_mptcp != 0)
    }

    /// What the upper layer protocol of a TCP socket keeps; 0 for none.
    #[inline(always)]
    pub(crate) fn ulp_data(self) -> Result<u64, Fault> {
        read!(self.0, icsk_ulp_data)
    }

    /// First subflow of an MPTCP connection; none before it connects or listens.
    #[inline(always)]
    pub(crate) fn first_subflow(self) -> Option<Sock> {
        let first: u64 = read!(self.0, msk_first).ok()?;
        (first != 0).then_some(Sock(first))
    }

    /// Payload sent and received over MPTCP.
    #[inline(always)]
    pub(crate) fn msk_bytes(self) -> Result<(u64, u64), Fault> {
        Ok((
            read!(self.0, msk_bytes_sent)?,
            read!(self.0, msk_bytes_received)?,
        ))
    }

    /// Subflows beside the first one.
    #[inline(always)]
    pub(crate) fn msk_extra_subflows(self) -> Result<u8, Fault> {
        let newer = offset!(msk_extra_subflows);
        let older = offset!(msk_subflows);
        read_at(self.0, if newer == ABSENT { older } else { newer })
    }

    /// True if the kernel would let this connection fall back (`__mptcp_try_fallback`).
    #[inline(always)]
    pub(crate) fn msk_may_fall_back(self) -> bool {
        let in_order = read!(self.0, msk_out_of_order).map_or(true, |root: u64| root == 0);
        bit!(self.0, msk_allow_fallback).unwrap_or(true) && in_order
    }

    /// Whether the other end opened the connection.
    #[inline(always)]
    pub(crate) fn msk_server_side(self) -> Option<bool> {
        bit!(self.0, msk_server_side)
    }

    /// Whether the connection uses checksums.
    #[inline(always)]
    pub(crate) fn msk_has_checksums(self) -> bool {
        bit!(self.0, msk_csum_enabled) == Some(true)
    }

    /// For how long MPTCP is switched off in this socket's network namespace, milliseconds
    /// (`mptcp_active_should_disable`): the set time, doubled with each time in a row, at most six times.
    #[inline(always)]
    pub(crate) fn mptcp_off_ms(self) -> Option<u32> {
        let at = PERNET_ID_AT.load();
        let id: u32 = read_at(at, 0).ok()?;
        let net: u64 = read!(self.0, sock_net).ok()?;
        let generic: u64 = read!(net, net_gen).ok()?;
        let pernet: u64 = read_at(generic + u64::from(id) * 8, 0).ok()?;
        let timeout_s: u32 = read!(pernet, pernet_blackhole_timeout).ok()?;
        let times: u32 = read!(pernet, pernet_disable_times).ok()?;
        let doublings = times.saturating_sub(1);
        let doublings = if doublings > 6 { 6 } else { doublings };
        Some((timeout_s << doublings).wrapping_mul(1000))
    }
}

/// The bits of a subflow context that tell why a connection fell back, as `SUBFLOW_*`.
#[inline(always)]
pub(crate) fn subflow_flags(context: u64) -> u32 {
    let mut flags = 0;
    let mut add = |is_set: Option<bool>, flag: u32| {
        if is_set == Some(true) {
            flags |= flag;
        }
    };
    add(bit!(context, subflow_request_mptcp), SUBFLOW_REQUEST_MPTCP);
    add(bit!(context, subflow_mp_capable), SUBFLOW_MP_CAPABLE);
    add(bit!(context, subflow_mp_join), SUBFLOW_MP_JOIN);
    add(bit!(context, subflow_conn_finished), SUBFLOW_CONN_FINISHED);
    add(
        bit!(context, subflow_fully_established),
        SUBFLOW_FULLY_ESTABLISHED,
    );
    add(
        bit!(context, subflow_valid_csum_seen),
        SUBFLOW_VALID_CSUM_SEEN,
    );
    add(bit!(context, subflow_mpc_drop), SUBFLOW_MPC_DROP);
    add(bit!(context, subflow_remote_key_valid), SUBFLOW_REMOTE_KEY);
    add(bit!(context, subflow_can_ack), SUBFLOW_REMOTE_KEY);
    add(
        bit!(context, subflow_send_infinite_map),
        SUBFLOW_SEND_INFINITE,
    );
    add(bit!(context, subflow_send_mp_fail), SUBFLOW_SEND_MP_FAIL);
    flags
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

/// True if a packet carries a mapping without an end (RFC 8684 section 3.7): its length is 0. Found as
/// `skb_ext_find` finds it; `number` is that of the extension of MPTCP.
#[inline(always)]
pub(crate) fn has_infinite_mapping(skb: u64, number: u8) -> bool {
    let find = || -> Result<bool, Fault> {
        let active: u8 = read!(skb, skb_active_extensions)?;
        if number >= 8 || active >> number & 1 == 0 {
            return Ok(false);
        }
        let extensions: u64 = read!(skb, skb_extensions)?;
        let eighths: u8 = read!(extensions + u64::from(number), ext_offsets)?;
        let length: u16 = read!(extensions + u64::from(eighths) * 8, mapping_data_len)?;
        Ok(length == 0)
    };
    find().unwrap_or(false)
}

/// The socket that a `struct socket` stands for.
#[inline(always)]
pub(crate) fn sock_of_socket(socket: u64) -> Option<Sock> {
    let sk: u64 = read!(socket, socket_sk).ok()?;
    (sk != 0).then_some(Sock(sk))
}

/// Now, `CLOCK_BOOTTIME`, nanoseconds.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The current task, as an address.
#[inline(always)]
pub(crate) fn current_task() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_get_current_task() }
}

/// Control group (v2) of the current task.
#[inline(always)]
pub(crate) fn current_cgroup() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_get_current_cgroup_id() }
}

/// Network namespace of the current task, by inode number.
#[inline(always)]
pub(crate) fn current_netns() -> Result<u32, Fault> {
    let proxy: u64 = read!(current_task(), task_nsproxy)?;
    read!(read!(proxy, nsproxy_net)?, net_inum)
}

/// Number of this CPU.
#[inline(always)]
pub(crate) fn current_cpu() -> u32 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_get_smp_processor_id() }
}

/// The name of the current process: that of its first thread.
#[inline(always)]
pub(crate) fn process_comm(task: u64) -> [u8; 16] {
    let leader: Result<u64, Fault> = read!(task, task_group_leader);
    leader
        .and_then(|leader| read!(leader, task_comm))
        .unwrap_or([0; 16])
}

/// Real user id of a task that is not the current one.
#[inline(always)]
pub(crate) fn task_uid(task: u64) -> Result<u32, Fault> {
    let cred: u64 = read!(task, task_cred)?;
    read!(cred, cred_uid)
}

/// Control group (v2) of a task that is not the current one.
#[inline(always)]
pub(crate) fn task_cgroup(task: u64) -> Result<u64, Fault> {
    let set: u64 = read!(task, task_cgroups)?;
    let group: u64 = read!(set, cgroups_default)?;
    let node: u64 = read!(group, cgroup_node)?;
    read!(node, node_id)
}

/// True for the sockets that a query can be about.
#[inline(always)]
pub(crate) fn is_tcp_or_mptcp(family: u16, protocol: u16) -> bool {
    (family == AF_INET || family == AF_INET6)
        && (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP)
}

/// True for the protocol number of MPTCP sockets.
#[inline(always)]
pub(crate) fn is_mptcp(protocol: u16) -> bool {
    protocol == IPPROTO_MPTCP
}

/// The file behind a descriptor of the current task, as an address.
#[inline(always)]
pub(crate) fn current_file(fd: u32) -> Result<u64, Fault> {
    let task = current_task();
    let files: u64 = read!(task, task_files)?;
    let table: u64 = read!(files, files_fdt)?;
    let size: u32 = read!(table, fdt_max_fds)?;
    if fd >= size {
        return Err(Fault);
    }
    let array: u64 = read!(table, fdt_fd)?;
    let file: u64 = read_at(array + u64::from(fd) * 8, 0)?;
    if file == 0 { Err(Fault) } else { Ok(file) }
}

/// The socket behind a file, or nothing if it is no socket.
#[inline(always)]
pub(crate) fn socket_of_file(file: u64) -> Option<Sock> {
    let socket: u64 = read!(file, file_private_data).ok()?;
    // What stands behind a file of another kind is not a `struct socket`: only a socket points back.
    let back: u64 = read!(socket, socket_file).ok()?;
    if back != file {
        return None;
    }
    let sk: u64 = read!(socket, socket_sk).ok()?;
    (sk != 0).then_some(Sock(sk))
}

/// Process and thread id of a task that is not the current one.
#[inline(always)]
pub(crate) fn task_ids(task: u64) -> Result<(u32, u32), Fault> {
    Ok((read!(task, task_tgid)?, read!(task, task_pid)?))
}

/// Four bytes of the caller's memory.
#[inline(always)]
pub(crate) fn read_user_u32(address: u64) -> Result<u32, Fault> {
    // SAFETY: the helper copes with any address.
    unsafe { bpf_probe_read_user(address as *const u32) }.map_err(|_errno| Fault)
}

/// One byte of the caller's memory.
#[inline(always)]
pub(crate) fn read_user_u8(address: u64) -> Result<u8, Fault> {
    // SAFETY: the helper copes with any address.
    unsafe { bpf_probe_read_user(address as *const u8) }.map_err(|_errno| Fault)
}
