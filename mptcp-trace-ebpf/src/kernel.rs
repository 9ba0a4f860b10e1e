//! Typed reads of kernel memory, through the layout of the running kernel. The only unsafe reads.
//!
//! Every function here answers "could not be read" with [`Fault`]; its caller counts it.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_task, bpf_get_smp_processor_id,
        bpf_ktime_get_boot_ns, bpf_probe_read_kernel, bpf_probe_read_user, generated,
    },
    programs::{BtfTracePointContext, RawTracePointContext},
};
use mptcp_trace_common::{
    calibrated,
    layout::{ABSENT, NO_NUMBER, SYSCALL_OF_32_BITS},
    record::{
        SELF_TEST_MAP, SHARE_OF_OTHERS, SUBFLOW_CONN_FINISHED, SUBFLOW_FULLY_ESTABLISHED,
        SUBFLOW_MP_CAPABLE, SUBFLOW_MP_JOIN, SUBFLOW_MPC_DROP, SUBFLOW_REMOTE_KEY,
        SUBFLOW_REQUEST_MPTCP, SUBFLOW_SEND_INFINITE, SUBFLOW_SEND_MP_FAIL,
        SUBFLOW_VALID_CSUM_SEEN,
    },
};

use crate::maps::{CALIBRATED, LAYOUT, PER_CPU};

/// A read of kernel or user memory that failed.
#[derive(Clone, Copy)]
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

/// The same, and 0 for what cannot be read: the helper writes that. The kernel looks at one way through the program then, not
/// at two.
macro_rules! read_or_zero {
    ($base:expr, $field:ident) => {
        read_or_zero_at($base, offset!($field))
    };
}

#[inline(always)]
fn read_or_zero_at<T>(base: u64, offset: u16) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    let from = base.wrapping_add(u64::from(offset));
    // SAFETY: the helper writes as many bytes as it is told, zeroes in case of a fault, and copes with any address. Every type that
    // is asked for is an integer or an array of integers, to which zeroes are a value.
    unsafe {
        let to = value.as_mut_ptr().cast();
        generated::bpf_probe_read_kernel(to, size_of::<T>() as u32, from as *const c_void);
        value.assume_init()
    }
}

/// Reads one bit, or a `bool`; none if this kernel does not have it.
macro_rules! bit {
    ($base:expr, $field:ident) => {
        bit_at($base, offset!($field))
    };
}

#[inline(always)]
fn bit_at(base: u64, offset_bits: u16) -> Option<bool> {
    match offset_bits {
        ABSENT => None,
        _ => Some(bit_or_zero_at(base, offset_bits) == 1),
    }
}

#[inline(always)]
fn bit_or_zero_at(base: u64, offset_bits: u16) -> u32 {
    if offset_bits == ABSENT {
        return 0;
    }
    let byte: u8 = read_or_zero_at(base, offset_bits / 8);
    u32::from(byte) >> (offset_bits % 8) & 1
}

/// The first bytes of a structure, read at once: a read costs the same for one member as for many.
pub(crate) struct Head<const WORDS: usize> {
    base: MaybeUninit<u64>,
    words: MaybeUninit<[u64; WORDS]>,
}

impl<const WORDS: usize> Head<WORDS> {
    /// Nothing yet. The caller has the place: returned by value it would be twice on the stack, of which there is little.
    /// Not a byte is written: the compiler would call a function that writes them one by one.
    #[inline(always)]
    pub(crate) fn unread() -> Self {
        Self {
            base: MaybeUninit::uninit(),
            words: MaybeUninit::uninit(),
        }
    }

    #[inline(always)]
    pub(crate) fn read(&mut self, base: u64) -> Result<(), Fault> {
        self.base.write(base);
        let bytes = (WORDS * 8) as u32;
        // SAFETY: the helper writes as many bytes as it is told, to where there are so many; it copes with any address.
        let failed = unsafe {
            generated::bpf_probe_read_kernel(
                self.words.as_mut_ptr().cast(),
                bytes,
                base as *const c_void,
            )
        };
        if failed == 0 { Ok(()) } else { Err(Fault) }
    }

    /// The member at `offset`, from what was read already if it is in there.
    #[inline(always)]
    fn get<T: Copy>(&self, offset: u16) -> Result<T, Fault> {
        if usize::from(offset) + size_of::<T>() > WORDS * 8 {
            // SAFETY: written by `read`; the verifier refuses a program that asks before.
            return read_at(unsafe { self.base.assume_init() }, offset);
        }
        // SAFETY: the offset is inside, as was just checked, and a member of a structure is aligned as its type; every
        // type that is asked for is an integer or an array of integers. The verifier refuses a program that asks before
        // the words were read.
        Ok(unsafe {
            self.words
                .as_ptr()
                .byte_add(usize::from(offset))
                .cast::<T>()
                .read()
        })
    }
}

/// As much of a `struct sock` as holds its IPv4 addresses and ports: what is beyond is read where it is asked for, since the
/// stack of a program that calls others is short.
pub(crate) type Common = Head<7>;

impl<const WORDS: usize> Members for Head<WORDS> {
    #[inline(always)]
    fn member<T: Copy>(&self, offset: u16) -> Result<T, Fault> {
        self.get(offset)
    }
}

impl Members for Sock {
    #[inline(always)]
    fn member<T: Copy>(&self, offset: u16) -> Result<T, Fault> {
        read_at(self.0, offset)
    }
}

/// A structure whose members can be read, each by itself or many at once: the second is faster, and takes room on the stack.
pub(crate) trait Members {
    /// The member at `offset`.
    fn member<T: Copy>(&self, offset: u16) -> Result<T, Fault>;

    /// Writes the name of the current thread into a record.
    #[inline(always)]
    fn put_comm(&self, place: &mut [u8; 16]) {
        put_comm(place);
    }

    /// The member at `offset` of what the member at `pointer` points to.
    #[inline(always)]
    fn behind<T: Copy>(&self, pointer: u16, offset: u16) -> Result<T, Fault> {
        read_at(self.member(pointer)?, offset)
    }
}

/// A `struct sock` that a program is told by its type: members are loaded, not read by a helper.
pub(crate) struct TypedSock(pub(crate) *const u8);

impl Members for TypedSock {
    #[inline(always)]
    fn member<T: Copy>(&self, offset: u16) -> Result<T, Fault> {
        if offset == ABSENT {
            return Err(Fault);
        }
        // SAFETY: the verifier checks the offset against the type; at a wrong one the program is not loaded.
        Ok(unsafe { core::ptr::read_volatile(self.0.byte_add(usize::from(offset)).cast::<T>()) })
    }

    /// The verifier knows the type of the current task, too: two loads, where the helper goes through the name.
    #[inline(always)]
    fn put_comm(&self, place: &mut [u8; 16]) {
        let offset = offset!(task_comm);
        if offset == ABSENT || !offset.is_multiple_of(8) {
            return put_comm(place);
        }
        // SAFETY: the helper has no precondition; the verifier checks the offset against the type, and that what is written
        // to is in the record, in which a name stands at a multiple of eight.
        unsafe {
            let task = generated::bpf_get_current_task_btf() as *const u8;
            let from = task.byte_add(usize::from(offset)).cast::<u64>();
            let to = place.as_mut_ptr().cast::<u64>();
            to.write(core::ptr::read_volatile(from));
            to.add(1).write(core::ptr::read_volatile(from.add(1)));
        }
    }

    /// The verifier knows the type of the pointer, too.
    #[inline(always)]
    fn behind<T: Copy>(&self, pointer: u16, offset: u16) -> Result<T, Fault> {
        Self(self.member(pointer)?).member(offset)
    }
}

/// Address family of a socket.
#[inline(always)]
pub(crate) fn family_of(sock: &impl Members) -> Result<u16, Fault> {
    sock.member(offset!(sock_family))
}

/// State of a socket.
#[inline(always)]
pub(crate) fn state_of(sock: &impl Members) -> Result<u8, Fault> {
    sock.member(offset!(sock_state))
}

/// Protocol of a socket.
#[inline(always)]
pub(crate) fn protocol_of(sock: &impl Members) -> Result<u16, Fault> {
    sock.member(offset!(sock_protocol))
}

/// Inode number of a socket's network namespace.
#[inline(always)]
pub(crate) fn netns_of(sock: &impl Members) -> Result<u32, Fault> {
    sock.behind(offset!(sock_net), offset!(net_inum))
}

/// The `struct socket` by which processes have a socket; none before it is accepted.
#[inline(always)]
pub(crate) fn socket_of(sock: &impl Members) -> Result<u64, Fault> {
    sock.member(offset!(sock_socket))
}

/// Inode number of a `struct socket`. Through an address: the inode stands behind what the type of the pointer describes.
#[inline(always)]
pub(crate) fn inode_of_socket(socket: u64) -> Result<u64, Fault> {
    read!(socket, socket_alloc_inode_number)
}

/// Both ends of a `struct sock_common`.
#[inline(always)]
pub(crate) fn endpoints(sock: &impl Members, family: u16) -> Result<Endpoints, Fault> {
    let mut ends = Endpoints {
        local_addr: [0; 4],
        remote_addr: [0; 4],
        local_port: sock.member(offset!(sock_num))?,
        remote_port_be: sock.member(offset!(sock_dport))?,
    };
    if family == AF_INET6 {
        ends.local_addr = sock.member(offset!(sock_v6_rcv_saddr))?;
        ends.remote_addr = sock.member(offset!(sock_v6_daddr))?;
    } else {
        ends.local_addr[0] = sock.member(offset!(sock_rcv_saddr))?;
        ends.remote_addr[0] = sock.member(offset!(sock_daddr))?;
    }
    Ok(ends)
}

/// A `struct sock` of the kernel, by address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sock(pub(crate) u64);

/// Where a connection goes from and to; addresses in network byte order, in words as the kernel aligns them.
pub(crate) struct Endpoints {
    pub(crate) local_addr: [u32; 4],
    pub(crate) remote_addr: [u32; 4],
    pub(crate) local_port: u16,
    pub(crate) remote_port_be: u16,
}

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

    /// The network namespace.
    #[inline(always)]
    pub(crate) fn net(self) -> Result<Net, Fault> {
        read!(self.0, sock_net).map(Net)
    }

    /// Inode number of the socket; none before it is accepted.
    #[inline(always)]
    pub(crate) fn inode(self) -> Result<u64, Fault> {
        inode_of_socket(socket_of(&self)?)
    }

    /// The user that owns the socket; a child of a listener has its listener's.
    #[inline(always)]
    pub(crate) fn user(self) -> u32 {
        match offset!(sock_uid) {
            ABSENT => SHARE_OF_OTHERS,
            offset => read_or_zero_at(self.0, offset),
        }
    }

    /// True for a socket of a self-test, of this instance or another ([`SELF_TEST_MAP`]).
    #[inline(always)]
    pub(crate) fn is_of_self_test(self) -> bool {
        // Almost every socket has nothing there.
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

    /// Subflows beside the first one.
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
    /// (`mptcp_active_should_disable`), 0 if it is not since the last SYN with it was answered: the set time, doubled with each time in a row, at most six times.
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

/// A network namespace of the kernel (`struct net`), by address.
#[derive(Clone, Copy)]
pub(crate) struct Net(pub(crate) u64);

impl Net {
    /// Its inode number.
    #[inline(always)]
    pub(crate) fn inode(self) -> Result<u32, Fault> {
        read!(self.0, net_inum)
    }

    /// The number that no other namespace ever gets.
    #[inline(always)]
    pub(crate) fn cookie(self) -> Result<u64, Fault> {
        read!(self.0, net_cookie)
    }

    /// Where its counters of MPTCP are, less what is particular to a CPU; there are some from its first MPTCP socket on.
    #[inline(always)]
    pub(crate) fn counters(self) -> Result<u64, Fault> {
        match read!(self.0, net_mptcp_counters) {
            Ok(0) | Err(_) => Err(Fault),
            per_cpu => per_cpu,
        }
    }

    /// What the kernel keeps for it under this number (`net_generic`).
    #[inline(always)]
    fn data(self, id: u32) -> Option<u64> {
        let generic: u64 = read!(self.0, net_gen).ok()?;
        read_at(generic.wrapping_add(u64::from(id) * 8), 0).ok()
    }

    /// The blackhole timeout in seconds, if what it keeps under this number is the data of MPTCP; 0 if there is nothing.
    #[inline(always)]
    pub(crate) fn blackhole_timeout(self, id: u32) -> u32 {
        let generic: u64 = read!(self.0, net_gen).unwrap_or(0);
        // `struct net_generic` begins with how long it is.
        let length: u32 = read_or_zero_at(generic, 0);
        match self.data(id) {
            Some(data) if id < length => read!(data, pernet_blackhole_timeout).unwrap_or(0),
            Some(_) | None => 0,
        }
    }

    /// The next one in the ring of all; 0 if this one has begun to end. One place in the ring is its head, and no namespace.
    #[inline(always)]
    pub(crate) fn next(self) -> u64 {
        let prev_at = u64::from(offset!(net_list_prev));
        let list_at = prev_at.wrapping_sub(8);
        let next: u64 = read_at(self.0.wrapping_add(list_at), 0).unwrap_or(0);
        // Does it know this one, too?
        let back: u64 = read_at(next, 8).unwrap_or(0);
        match back == self.0.wrapping_add(list_at) {
            true => next.wrapping_sub(list_at),
            false => 0,
        }
    }

    /// True if it is in the list of all: it has not begun to end.
    #[inline(always)]
    pub(crate) fn is_listed(self) -> bool {
        /// What stands in place of the neighbour of what was taken off a list (`LIST_POISON2`), whatever the architecture adds
        /// to it.
        const POISON: u64 = 0x122;
        let neighbour: u64 = read!(self.0, net_list_prev).unwrap_or(POISON);
        neighbour & 0xfff != POISON
    }
}

/// What is at an address of the kernel that is particular to each CPU (`__percpu`), less that of [`PER_CPU`], which is known for
/// each CPU: so the address on a CPU is this plus [`of_cpu`].
#[inline(always)]
pub(crate) fn less_per_cpu(address: u64) -> Result<u64, Fault> {
    let map = address_of(&raw const PER_CPU)?;
    let ours: u64 = read!(map, array_per_cpu)?;
    Ok(address.wrapping_sub(ours))
}

/// The address of the value in [`PER_CPU`] of a CPU.
#[inline(always)]
pub(crate) fn of_cpu(cpu: u32) -> Result<u64, Fault> {
    let key = 0_u32;
    // SAFETY: a map with values for each CPU, and a key of its type.
    let value = unsafe {
        generated::bpf_map_lookup_percpu_elem(
            (&raw const PER_CPU).cast_mut().cast(),
            (&raw const key).cast(),
            cpu,
        )
    };
    if value.is_null() {
        return Err(Fault);
    }
    address_of(value.cast_const())
}

/// An address as a number. The verifier lets nobody calculate with what it knows to be a pointer; what a program reads as
/// memory, its own stack in this case, is a number.
#[inline(always)]
fn address_of<T>(pointer: *const T) -> Result<u64, Fault> {
    let mut held = MaybeUninit::<*const T>::uninit();
    // SAFETY: volatile, so that the pointer is on the stack and not only in a register.
    unsafe { held.as_mut_ptr().write_volatile(pointer) };
    // SAFETY: the helper copes with any address; this one is of eight bytes that were written.
    unsafe { bpf_probe_read_kernel(held.as_ptr().cast::<u64>()) }.map_err(|_errno| Fault)
}

/// The same number, of which the verifier knows nothing any more: it looks once at what follows, not once for each way that led
/// here.
#[inline(always)]
pub(crate) fn forgotten(value: u32) -> u32 {
    let held = MaybeUninit::new(value);
    read_or_zero_at(held.as_ptr() as u64, 0)
}

/// One counter of MPTCP; `counters` is where one CPU has them.
#[inline(always)]
pub(crate) fn counter(counters: u64, number: u8) -> u64 {
    if number == NO_NUMBER {
        return 0;
    }
    read_or_zero_at(counters, u16::from(number) * 8)
}

/// What BPF programs keep at one socket is looked through for the mark of a self-test up to this many elements.
const ELEMENTS_MAX: u32 = 4;

/// 1 if one of the elements in a `bpf_local_storage` belongs to a map of self-tests, by the map's name: its maker had to
/// be privileged, which the maker of an element's content need not be.
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

/// The bits of a subflow context that tell why a connection fell back, as `SUBFLOW_*`.
#[inline(always)]
pub(crate) fn subflow_flags(context: u64) -> u32 {
    let mut flags = 0;
    // No branches: the kernel would look at both ways from each of them.
    macro_rules! add {
        ($field:ident, $flag:ident) => {
            flags |= bit_or_zero_at(context, offset!($field)) << $flag.trailing_zeros()
        };
    }
    add!(subflow_request_mptcp, SUBFLOW_REQUEST_MPTCP);
    add!(subflow_mp_capable, SUBFLOW_MP_CAPABLE);
    add!(subflow_mp_join, SUBFLOW_MP_JOIN);
    add!(subflow_conn_finished, SUBFLOW_CONN_FINISHED);
    add!(subflow_fully_established, SUBFLOW_FULLY_ESTABLISHED);
    add!(subflow_valid_csum_seen, SUBFLOW_VALID_CSUM_SEEN);
    add!(subflow_mpc_drop, SUBFLOW_MPC_DROP);
    add!(subflow_remote_key_valid, SUBFLOW_REMOTE_KEY);
    add!(subflow_can_ack, SUBFLOW_REMOTE_KEY);
    add!(subflow_send_infinite_map, SUBFLOW_SEND_INFINITE);
    add!(subflow_send_mp_fail, SUBFLOW_SEND_MP_FAIL);
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

/// Writes an address into a record, in words: where the compiler does not know that there is room for one, it writes bytes.
#[inline(always)]
pub(crate) fn put_address(place: &mut [u8; 16], words: [u32; 4]) {
    // SAFETY: the place is 16 bytes, and in each record at a multiple of four, as is asserted where they are declared.
    unsafe { place.as_mut_ptr().cast::<[u32; 4]>().write(words) };
}

/// Writes the name of the current thread into a record.
#[inline(always)]
pub(crate) fn put_comm(place: &mut [u8; 16]) {
    // SAFETY: the helper writes as many bytes as it is told, to where there are so many. It cannot fail: it is told room
    // for a whole name.
    unsafe { generated::bpf_get_current_comm(place.as_mut_ptr().cast(), 16) };
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

/// A program at the return of a system call, `sys_exit(struct pt_regs *regs, long ret)`.
pub(crate) trait AtReturn: EbpfContext {
    /// The register that stands at this offset.
    fn register(&self, offset: u16) -> u64;

    /// What the call returns.
    fn returned(&self) -> i32;
}

impl AtReturn for BtfTracePointContext {
    /// The verifier knows the type of what the pointer points at: a load, no helper.
    #[inline(always)]
    fn register(&self, offset: u16) -> u64 {
        let regs = self.arg::<*const u8>(0);
        // SAFETY: the verifier checks the offset against the type; at a wrong one the program is not loaded.
        unsafe { core::ptr::read_volatile(regs.byte_add(usize::from(offset)).cast::<u64>()) }
    }

    #[inline(always)]
    fn returned(&self) -> i32 {
        self.arg::<i64>(1) as i32
    }
}

impl AtReturn for RawTracePointContext {
    #[inline(always)]
    fn register(&self, offset: u16) -> u64 {
        read_at(self.arg(0), offset).unwrap_or(0)
    }

    #[inline(always)]
    fn returned(&self) -> i32 {
        self.arg::<i64>(1) as i32
    }
}

/// Number of the system call.
#[inline(always)]
pub(crate) fn syscall_number(ctx: &impl AtReturn) -> u32 {
    ctx.register(offset!(regs_number)) as u32
}

/// What a system call was called with, each when it is asked for.
pub(crate) struct Called<'a, C>(pub(crate) &'a C);

impl<C: AtReturn> Called<'_, C> {
    #[inline(always)]
    pub(crate) fn fd(&self) -> u32 {
        self.0.register(offset!(regs_argument_0)) as u32
    }

    #[inline(always)]
    pub(crate) fn level(&self) -> u32 {
        self.0.register(offset!(regs_argument_1)) as u32
    }

    #[inline(always)]
    pub(crate) fn optname(&self) -> u32 {
        self.0.register(offset!(regs_argument_2)) as u32
    }

    /// First argument of `socket`.
    #[inline(always)]
    pub(crate) fn family(&self) -> u64 {
        self.0.register(offset!(regs_argument_0))
    }

    /// Second argument of `socket`.
    #[inline(always)]
    pub(crate) fn kind(&self) -> u64 {
        self.0.register(offset!(regs_argument_1))
    }

    /// Third argument of `socket`.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u64 {
        self.0.register(offset!(regs_argument_2))
    }

    #[inline(always)]
    pub(crate) fn optval(&self) -> u64 {
        self.0.register(offset!(regs_argument_3))
    }

    #[inline(always)]
    pub(crate) fn optlen(&self) -> u64 {
        self.0.register(offset!(regs_argument_4))
    }
}

/// True if the current system call has the number that 32-bit programs know it by. Where the kernel has no such word, what
/// those have in their registers cannot be taken for a question.
#[inline(always)]
pub(crate) fn is_syscall_of_32_bits() -> bool {
    read!(current_task(), task_syscall_status)
        .is_ok_and(|status: u32| status & SYSCALL_OF_32_BITS != 0)
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

/// Writes the name of the task's process to where it stays.
#[inline(always)]
pub(crate) fn put_process_comm(place: &mut [u8; 16], task: u64) {
    let leader = task_leader(task);
    let from = leader.wrapping_add(u64::from(offset!(task_comm)));
    // SAFETY: the helper writes as many bytes as it is told, zeroes in case of a fault, to where there are so many.
    unsafe {
        let to = place.as_mut_ptr().cast();
        generated::bpf_probe_read_kernel(to, 16, from as *const c_void);
    }
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
    let mut table = Head::<2>::unread();
    table.read(read!(files, files_fdt)?)?;
    let size: u32 = table.get(offset!(fdt_max_fds))?;
    if fd >= size {
        return Err(Fault);
    }
    let array: u64 = table.get(offset!(fdt_fd))?;
    let file: u64 = read_at(array + u64::from(fd) * 8, 0)?;
    if file == 0 { Err(Fault) } else { Ok(file) }
}

/// The socket behind a file, or nothing if it is no socket.
#[inline(always)]
pub(crate) fn socket_of_file(file: u64) -> Option<Sock> {
    open_socket_of_file(file).map(|(_socket, sk)| sk)
}

/// The same, and the `struct socket` in between.
#[inline(always)]
pub(crate) fn open_socket_of_file(file: u64) -> Option<(u64, Sock)> {
    let address: u64 = read!(file, file_private_data).ok()?;
    let mut socket = Head::<4>::unread();
    socket.read(address).ok()?;
    // What stands behind a file of another kind is not a `struct socket`: only a socket points back.
    let back: u64 = socket.get(offset!(socket_file)).ok()?;
    if back != file {
        return None;
    }
    let sk: u64 = socket.get(offset!(socket_sk)).ok()?;
    (sk != 0).then_some((address, Sock(sk)))
}

/// The socket that an `io_uring` request has asked about (`struct io_kiocb`).
#[inline(always)]
pub(crate) fn asked_by_uring(request: u64) -> Option<Sock> {
    /// Of the kernel's interface: a command of the file's own, and the one of sockets that is `getsockopt`.
    const IORING_OP_URING_CMD: u8 = 46;
    const SOCKET_URING_OP_GETSOCKOPT: u32 = 2;
    let opcode: u8 = read_or_zero!(request, uring_opcode);
    if opcode != IORING_OP_URING_CMD {
        return None;
    }
    let command: u32 = read_or_zero!(request, uring_command);
    match command {
        SOCKET_URING_OP_GETSOCKOPT => socket_of_file(read_or_zero!(request, uring_file)),
        _other => None,
    }
}

/// Process and thread id of a task that is not the current one.
#[inline(always)]
pub(crate) fn task_ids(task: u64) -> Result<(u32, u32), Fault> {
    Ok((read!(task, task_tgid)?, read!(task, task_pid)?))
}

/// First thread of a task's process.
#[inline(always)]
pub(crate) fn task_leader(task: u64) -> u64 {
    read_or_zero!(task, task_group_leader)
}

/// How deep the PID namespace of a task is: that of the initial one is 0.
#[inline(always)]
pub(crate) fn pid_namespace_level(task: u64) -> u32 {
    let numbers: u64 = read_or_zero!(task, task_numbers);
    read_or_zero!(numbers, numbers_level)
}

/// A task's number in the PID namespace with this inode number, which is as deep as userspace has found out; 0 if it has none
/// there. A function of its own: it is the same for all of a record's numbers.
#[inline(never)]
pub(crate) fn number_in_pid_namespace(task: u64, inum: u32) -> u32 {
    let level = CALIBRATED
        .get(calibrated::PIDNS_LEVEL)
        .map_or(0, |level| *level);
    let numbers: u64 = read_or_zero!(task, task_numbers);
    let deepest: u32 = read_or_zero!(numbers, numbers_level);
    if level > deepest {
        return 0;
    }
    let stride = u64::from(offset!(numbers_second)) - u64::from(offset!(numbers_first));
    let at = numbers + u64::from(level) * stride;
    let namespace: u64 = read_or_zero!(at, numbers_first_namespace);
    let its_inum: u32 = read_or_zero!(namespace, pidns_inum);
    match its_inum == inum {
        true => read_or_zero!(at, numbers_first),
        false => 0,
    }
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
