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

mod net;
mod sock;
mod system_call;
mod task;

pub(crate) use net::{Net, counter, less_per_cpu, of_cpu};
pub(crate) use sock::{
    Sock, has_infinite_mapping, msk_of_context, sends_infinite_map, sock_of_skb, sock_of_socket,
    subflow_flags,
};
pub(crate) use system_call::{AtReturn, Called, is_syscall_of_32_bits, syscall_number};
pub(crate) use task::{
    asked_by_uring, current_cgroup, current_file, current_netns, current_task,
    number_in_pid_namespace, open_socket_of_file, pid_namespace_level, put_process_comm,
    socket_of_file, task_cgroup, task_ids, task_leader, task_uid,
};

/// The first bytes of a structure, read at once: a read costs the same for one member as for many.
pub(crate) struct StructPrefix<const WORDS: usize> {
    base: MaybeUninit<u64>,
    words: MaybeUninit<[u64; WORDS]>,
}

impl<const WORDS: usize> StructPrefix<WORDS> {
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

/// A structure whose members can be read, each by itself or many at once: the second is faster, and takes room on the stack.
pub(crate) trait ReadMember {
    /// The member at `offset`.
    fn member<T: Copy>(&self, offset: u16) -> Result<T, Fault>;

    /// Writes the name of the current thread into a record.
    #[inline(always)]
    fn put_comm(&self, place: &mut [u8; 16]) {
        put_comm(place);
    }

    /// The member at `offset` of what the member at `pointer` points to.
    #[inline(always)]
    fn deref<T: Copy>(&self, pointer: u16, offset: u16) -> Result<T, Fault> {
        read_at(self.member(pointer)?, offset)
    }
}

/// A `struct sock` that a program is told by its type: members are loaded, not read by a helper.
pub(crate) struct TypedSock(pub(crate) *const u8);

impl ReadMember for TypedSock {
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
    fn deref<T: Copy>(&self, pointer: u16, offset: u16) -> Result<T, Fault> {
        Self(self.member(pointer)?).member(offset)
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

/// The `struct socket` by which processes have a socket; none before it is accepted.
#[inline(always)]
pub(crate) fn socket_of(sock: &impl ReadMember) -> Result<u64, Fault> {
    sock.member(offset!(sock_socket))
}

/// Inode number of a `struct socket`. Through an address: the inode stands behind what the type of the pointer describes.
#[inline(always)]
pub(crate) fn inode_of_socket(socket: u64) -> Result<u64, Fault> {
    read!(socket, socket_alloc_inode_number)
}

/// Both ends of a `struct sock_common`.
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

/// Where a connection goes from and to; addresses in network byte order, in words as the kernel aligns them.
pub(crate) struct Endpoints {
    pub(crate) local_addr: [u32; 4],
    pub(crate) remote_addr: [u32; 4],
    pub(crate) local_port: u16,
    pub(crate) remote_port_be: u16,
}

/// The same number, of which the verifier knows nothing any more: it looks once at what follows, not once for each way that led
/// here.
#[inline(always)]
pub(crate) fn forgotten(value: u32) -> u32 {
    let held = MaybeUninit::new(value);
    read_or_zero_at(held.as_ptr() as u64, 0)
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

/// Number of this CPU.
#[inline(always)]
pub(crate) fn current_cpu() -> u32 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_get_smp_processor_id() }
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
