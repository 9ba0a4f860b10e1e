//! Network namespaces, and what is particular to a CPU.

use super::*;

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
    pub(super) fn data(self, id: u32) -> Option<u64> {
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

/// One counter of MPTCP; `counters` is where one CPU has them.
#[inline(always)]
pub(crate) fn counter(counters: u64, number: u8) -> u64 {
    if number == NO_NUMBER {
        return 0;
    }
    read_or_zero_at(counters, u16::from(number) * 8)
}
