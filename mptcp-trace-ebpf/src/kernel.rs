//! Typed reads of kernel memory, at the member offsets of the running kernel. All unsafe reads of
//! kernel memory are in this module.
//!
//! Every function here reports an unreadable value as [`Fault`]; its caller counts it.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_task, bpf_get_current_uid_gid,
        bpf_get_smp_processor_id, bpf_ktime_get_boot_ns, bpf_probe_read_kernel,
        bpf_probe_read_user, generated,
    },
    programs::{BtfTracePointContext, RawTracePointContext},
};
use mptcp_trace_common::{
    calibrated,
    layout::{ABSENT, NO_NUMBER, PSR_MODE32, TS_COMPAT},
    numbers::{AF_INET, AF_INET6, IPPROTO_MPTCP, IPPROTO_TCP},
    record::zone,
};

use crate::maps::{CALIBRATED, LAYOUT, PER_CPU};

/// A read of kernel or user memory that failed.
#[derive(Clone, Copy)]
pub(crate) struct Fault;

/// Offset of one member, resolved by the loader from the kernel's BTF.
macro_rules! offset {
    ($field:ident) => {{
        // SAFETY: LAYOUT is a static of this program. The read is volatile because the loader
        // writes the value between compilation and loading.
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
    // SAFETY: the helper accepts any address; a bad one returns an error instead of faulting.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.map_err(|_errno| Fault)
}

/// Like `read!`, but yields 0 for unreadable memory: the helper zeroes the destination. This leaves
/// the verifier one path to walk instead of two.
macro_rules! read_or_zero {
    ($base:expr, $field:ident) => {
        read_or_zero_at($base, offset!($field))
    };
}

#[inline(always)]
fn read_or_zero_at<T>(base: u64, offset: u16) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    let from = base.wrapping_add(u64::from(offset));
    // SAFETY: the helper writes exactly `size_of::<T>()` bytes, zeroes on a fault, and accepts any
    // address. Every `T` in use is an integer or an array of integers, for which zeroes are a valid
    // value.
    unsafe {
        let to = value.as_mut_ptr().cast();
        generated::bpf_probe_read_kernel(to, size_of::<T>() as u32, from as *const c_void);
        value.assume_init()
    }
}

/// Reads one bit, or a `bool`; `None` if this kernel does not have it.
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

mod net;
mod packet;
mod path;
mod registers;
mod sock;
mod system_call;
mod task;

pub(crate) use net::{Net, counter, per_cpu_address, per_cpu_offset};
pub(crate) use packet::{
    has_headers, origin, packet_in_progress, put_earlier_ttl, put_first_path, put_headers,
    put_peer_token,
};
pub(crate) use path::{
    JoinRequest, PATHS_MAX, PathEnd, PathsOf, RemovedIds, address_ids, context_bits, copy_options,
    device_of_packet, endpoints_of_packet, is_fully_established, is_join, is_stale, mptcp_subtypes,
    net_of_packet, put_marks_of_packet, reason_for_reset, reset_reason, sock_of_context, tcp_flags,
    token_of, wants_backup,
};
pub(crate) use registers::{argument, is_arm64, returned};
pub(crate) use sock::{
    Sock, has_infinite_mapping, msk_of_context, sends_infinite_map, sock_of_skb, sock_of_socket,
    subflow_bits,
};
pub(crate) use system_call::{AtReturn, Called, is_syscall_of_32_bits, syscall_number};
pub(crate) use task::{
    current_cgroup, current_file, current_netns, current_task, is_kernel_thread,
    number_in_pid_namespace, open_socket_of_file, pid_namespace_level, put_process_comm,
    socket_of_file, socket_queried_by_uring, task_cgroup, task_ids, task_leader, task_uid,
};

/// The first bytes of a structure, read at once: one read of many members costs the same as a read
/// of one.
pub(crate) struct StructPrefix<const WORDS: usize> {
    base: MaybeUninit<u64>,
    words: MaybeUninit<[u64; WORDS]>,
}

impl<const WORDS: usize> StructPrefix<WORDS> {
    /// An unread prefix. It stays in the caller's frame: if a function filled it and returned it by
    /// value, it would take up the scarce stack twice. It is left uninitialised: zeroing it would
    /// become a call of `memset`, byte by byte.
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
        // SAFETY: the helper writes `WORDS * 8` bytes to a buffer of that size, and accepts any
        // address.
        let failed = unsafe {
            generated::bpf_probe_read_kernel(
                self.words.as_mut_ptr().cast(),
                bytes,
                base as *const c_void,
            )
        };
        if failed == 0 { Ok(()) } else { Err(Fault) }
    }

    /// The member at `offset`: from the prefix if it lies inside, else by a read of its own.
    #[inline(always)]
    fn get<T: Copy>(&self, offset: u16) -> Result<T, Fault> {
        if usize::from(offset) + size_of::<T>() > WORDS * 8 {
            // SAFETY: written by `read`; the verifier rejects a program that uses it earlier.
            return read_at(unsafe { self.base.assume_init() }, offset);
        }
        // SAFETY: the offset is inside, as was just checked, and the member of a structure is
        // aligned for its type; every `T` in use is an integer or an array of integers. The
        // verifier rejects a program that uses the words before they are read.
        Ok(unsafe {
            self.words
                .as_ptr()
                .byte_add(usize::from(offset))
                .cast::<T>()
                .read()
        })
    }
}

/// The first bytes of a `struct sock`, up to its IPv4 addresses and ports. Members beyond are read
/// one by one, since the stack of a program that calls functions is small.
pub(crate) type SockPrefix = StructPrefix<7>;

impl<const WORDS: usize> ReadMember for StructPrefix<WORDS> {
    #[inline(always)]
    fn member<T: Copy>(&self, offset: u16) -> Result<T, Fault> {
        self.get(offset)
    }
}

impl ReadMember for Sock {
    #[inline(always)]
    fn member<T: Copy>(&self, offset: u16) -> Result<T, Fault> {
        read_at(self.0, offset)
    }
}

/// A structure whose members can be read: one by one, or many at once, which is faster but needs
/// stack.
pub(crate) trait ReadMember {
    /// The member at `offset`.
    fn member<T: Copy>(&self, offset: u16) -> Result<T, Fault>;

    /// Writes the name of the current thread into a record.
    #[inline(always)]
    fn put_comm(&self, place: &mut [u8; 16]) {
        put_comm(place);
    }

    /// Follows the pointer in the member at `pointer`, and reads the member at `offset` there.
    #[inline(always)]
    fn deref<T: Copy>(&self, pointer: u16, offset: u16) -> Result<T, Fault> {
        read_at(self.member(pointer)?, offset)
    }

    /// Inode number of a socket, whose `struct socket` is at `socket`.
    #[inline(always)]
    fn inode(&self, socket: u64) -> Result<u64, Fault> {
        inode_of_socket(socket)
    }

    /// Real user id of the current task, initial user namespace.
    #[inline(always)]
    fn caller_uid(&self) -> u32 {
        bpf_get_current_uid_gid() as u32
    }

    /// Control group (v2) of the current task.
    #[inline(always)]
    fn caller_cgroup(&self) -> u64 {
        current_cgroup()
    }
}

/// A `struct sock` whose type the verifier knows: members are loaded directly, without a helper.
pub(crate) struct TypedSock(pub(crate) *const u8);

impl ReadMember for TypedSock {
    #[inline(always)]
    fn member<T: Copy>(&self, offset: u16) -> Result<T, Fault> {
        if offset == ABSENT {
            return Err(Fault);
        }
        // SAFETY: the verifier checks the offset against the type, and rejects the program at a
        // wrong one.
        Ok(unsafe { core::ptr::read_volatile(self.0.byte_add(usize::from(offset)).cast::<T>()) })
    }

    /// The verifier also knows the type of the current task: two loads replace a helper that copies
    /// a string.
    #[inline(always)]
    fn put_comm(&self, place: &mut [u8; 16]) {
        let offset = offset!(task_comm);
        if offset == ABSENT || !offset.is_multiple_of(8) {
            return put_comm(place);
        }
        // SAFETY: the helper has no precondition. The verifier checks the offset against the type,
        // and that the destination lies in the record, where names are aligned to eight bytes.
        unsafe {
            let from = Self::current_task()
                .0
                .byte_add(usize::from(offset))
                .cast::<u64>();
            let to = place.as_mut_ptr().cast::<u64>();
            to.write(core::ptr::read_volatile(from));
            to.add(1).write(core::ptr::read_volatile(from.add(1)));
        }
    }

    /// The verifier also knows the type of the pointer's target.
    #[inline(always)]
    fn deref<T: Copy>(&self, pointer: u16, offset: u16) -> Result<T, Fault> {
        self.follow(pointer)?.member(offset)
    }

    /// By way of the file, to which the verifier knows the types; the inode beside the socket lies
    /// behind the structure that the pointer's type describes.
    #[inline(always)]
    fn inode(&self, socket: u64) -> Result<u64, Fault> {
        let by_file = || {
            self.follow(offset!(sock_socket))?
                .follow(offset!(socket_file))?
                .deref(offset!(file_inode), offset!(inode_number))
        };
        match by_file() {
            Ok(number) if number != 0 => Ok(number),
            Ok(_) | Err(Fault) => inode_of_socket(socket),
        }
    }

    #[inline(always)]
    fn caller_uid(&self) -> u32 {
        let uid = || {
            Self::current_task()
                .follow_rcu(offset!(task_cred))?
                .member(offset!(cred_uid))
        };
        uid().unwrap_or_else(|Fault| bpf_get_current_uid_gid() as u32)
    }

    #[inline(always)]
    fn caller_cgroup(&self) -> u64 {
        let id = || {
            Self::current_task()
                .follow_rcu(offset!(task_cgroups))?
                .follow(offset!(cgroups_default))?
                .deref(offset!(cgroup_node), offset!(node_id))
        };
        id().unwrap_or_else(|Fault| current_cgroup())
    }
}

impl TypedSock {
    /// What the member at `pointer` points to. The verifier knows its type; a null pointer reads as
    /// zeroes.
    #[inline(always)]
    fn follow(&self, pointer: u16) -> Result<Self, Fault> {
        self.member(pointer).map(Self)
    }

    /// [`follow`](Self::follow) for a member that the kernel declares `__rcu`. Where the types of the
    /// kernel say so (clang's do), the verifier adds an offset to its value only after a comparison
    /// with null.
    #[inline(always)]
    fn follow_rcu(&self, pointer: u16) -> Result<Self, Fault> {
        let target = self.follow(pointer)?;
        if target.0.is_null() {
            return Err(Fault);
        }
        Ok(target)
    }

    /// The current task, as a structure whose type the verifier knows.
    #[inline(always)]
    fn current_task() -> Self {
        // SAFETY: the helper has no precondition.
        Self(unsafe { generated::bpf_get_current_task_btf() } as *const u8)
    }
}

/// Address family of a socket.
#[inline(always)]
pub(crate) fn family_of(sock: &impl ReadMember) -> Result<u16, Fault> {
    sock.member(offset!(sock_family))
}

/// State of a socket.
#[inline(always)]
pub(crate) fn state_of(sock: &impl ReadMember) -> Result<u8, Fault> {
    sock.member(offset!(sock_state))
}

/// Protocol of a socket.
#[inline(always)]
pub(crate) fn protocol_of(sock: &impl ReadMember) -> Result<u16, Fault> {
    sock.member(offset!(sock_protocol))
}

/// Inode number of a socket's network namespace.
#[inline(always)]
pub(crate) fn netns_of(sock: &impl ReadMember) -> Result<u32, Fault> {
    sock.deref(offset!(sock_net), offset!(net_inum))
}

/// The `struct socket` of a `struct sock`; null before it is accepted.
#[inline(always)]
pub(crate) fn socket_of(sock: &impl ReadMember) -> Result<u64, Fault> {
    sock.member(offset!(sock_socket))
}

/// Inode number of a `struct socket`. Read by address: the inode lies behind the structure that the
/// pointer's type describes.
#[inline(always)]
pub(crate) fn inode_of_socket(socket: u64) -> Result<u64, Fault> {
    read!(socket, socket_alloc_inode_number)
}

/// Addresses and ports of a `struct sock_common`.
#[inline(always)]
pub(crate) fn endpoints(sock: &impl ReadMember, family: u16) -> Result<Endpoints, Fault> {
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

/// Addresses and ports of both ends of a connection. Addresses are in network byte order, as 32-bit
/// words, aligned as in the kernel.
pub(crate) struct Endpoints {
    pub(crate) local_addr: [u32; 4],
    pub(crate) remote_addr: [u32; 4],
    pub(crate) local_port: u16,
    pub(crate) remote_port_be: u16,
}

impl Endpoints {
    /// Adds the interface to link-local addresses, where the record has room for it
    /// ([`zone`]).
    #[inline(always)]
    pub(crate) fn put_zone(&mut self, device: impl FnOnce() -> u32) {
        let is_link_local = |addr: [u32; 4]| zone::is_link_local(addr[0].to_ne_bytes());
        let is_local = is_link_local(self.local_addr);
        let is_remote = is_link_local(self.remote_addr);
        if is_local || is_remote {
            let device = device();
            if is_local {
                self.local_addr[1] = device;
            }
            if is_remote {
                self.remote_addr[1] = device;
            }
        }
    }
}

/// Returns the same number, but hides its value from the verifier. The verifier then checks the
/// code that follows once, instead of once per path that leads here.
#[inline(always)]
pub(crate) fn opaque(value: u32) -> u32 {
    let held = MaybeUninit::new(value);
    read_or_zero_at(held.as_ptr() as u64, 0)
}

/// The address of a structure as a number: the verifier forbids arithmetic on a pointer whose type it
/// knows.
#[inline(always)]
pub(crate) fn as_number(address: u64) -> u64 {
    let held = MaybeUninit::new(address);
    read_or_zero_at(held.as_ptr() as u64, 0)
}

/// Writes an address into a record as words: the compiler would write bytes if it could not prove
/// the alignment.
#[inline(always)]
pub(crate) fn put_address(place: &mut [u8; 16], words: [u32; 4]) {
    // SAFETY: the place is 16 bytes, and aligned to four in each record, as is asserted where they
    // are declared.
    unsafe { place.as_mut_ptr().cast::<[u32; 4]>().write(words) };
}

/// Writes the name of the current thread into a record.
#[inline(always)]
pub(crate) fn put_comm(place: &mut [u8; 16]) {
    // SAFETY: the helper writes at most the given 16 bytes, and the place has 16. It cannot fail: a
    // name always fits.
    unsafe { generated::bpf_get_current_comm(place.as_mut_ptr().cast(), 16) };
}

/// Current time, `CLOCK_BOOTTIME`, nanoseconds.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Number of the current CPU.
#[inline(always)]
pub(crate) fn current_cpu() -> u32 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_get_smp_processor_id() }
}

/// True for sockets on which a query is traced.
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

/// Four bytes of the caller's memory.
#[inline(always)]
pub(crate) fn read_user_u32(address: u64) -> Result<u32, Fault> {
    // SAFETY: the helper accepts any address.
    unsafe { bpf_probe_read_user(address as *const u32) }.map_err(|_errno| Fault)
}

/// One byte of the caller's memory.
#[inline(always)]
pub(crate) fn read_user_u8(address: u64) -> Result<u8, Fault> {
    // SAFETY: the helper accepts any address.
    unsafe { bpf_probe_read_user(address as *const u8) }.map_err(|_errno| Fault)
}
