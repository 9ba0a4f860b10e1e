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
    layout::{ABSENT, SYSCALL_OF_32_BITS},
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

/// Inode number of a socket; none before it is accepted. Through an address: the inode stands behind what the type of
/// the pointer describes.
#[inline(always)]
pub(crate) fn inode_of(sock: &impl Members) -> Result<u64, Fault> {
    read!(
        sock.member(offset!(sock_socket))?,
        socket_alloc_inode_number
    )
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

    /// Inode number of the network namespace.
    #[inline(always)]
    pub(crate) fn netns(self) -> Result<u32, Fault> {
        netns_of(&self)
    }

    /// Inode number of the socket; none before it is accepted.
    #[inline(always)]
    pub(crate) fn inode(self) -> Result<u64, Fault> {
        inode_of(&self)
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
    let mut socket = Head::<4>::unread();
    socket.read(read!(file, file_private_data).ok()?).ok()?;
    // What stands behind a file of another kind is not a `struct socket`: only a socket points back.
    let back: u64 = socket.get(offset!(socket_file)).ok()?;
    if back != file {
        return None;
    }
    let sk: u64 = socket.get(offset!(socket_sk)).ok()?;
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
