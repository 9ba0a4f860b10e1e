//! Network namespaces and per-CPU data.

use super::*;

/// A network namespace of the kernel (`struct net`), by address.
#[derive(Clone, Copy)]
pub(crate) struct Net(pub(crate) u64);

impl Net {
    /// Inode number.
    #[inline(always)]
    pub(crate) fn inode(self) -> Result<u32, Fault> {
        read!(self.0, net_inum)
    }

    /// Cookie, never reused.
    #[inline(always)]
    pub(crate) fn cookie(self) -> Result<u64, Fault> {
        read!(self.0, net_cookie)
    }

    /// The `__percpu` address of the MPTCP counters; [`per_cpu_offset`] converts it. The kernel
    /// allocates them with the first MPTCP socket of the namespace.
    #[inline(always)]
    pub(crate) fn counters(self) -> Result<u64, Fault> {
        match read!(self.0, net_mptcp_counters) {
            Ok(0) | Err(_) => Err(Fault),
            per_cpu => per_cpu,
        }
    }

    /// Per-namespace data of the module with this index (`net_generic`).
    #[inline(always)]
    pub(super) fn data(self, id: u32) -> Option<u64> {
        let generic: u64 = read!(self.0, net_gen).ok()?;
        read_at(generic.wrapping_add(u64::from(id) * 8), 0).ok()
    }

    /// Number of indices of per-namespace data; 0 if it cannot be read.
    #[inline(always)]
    pub(crate) fn data_count(self) -> u32 {
        // `struct net_generic` begins with its length.
        read_or_zero_at(read!(self.0, net_gen).unwrap_or(0), 0)
    }

    /// The blackhole timeout in seconds, assuming that `id` is the index of MPTCP's data; 0 if
    /// there is no data.
    #[inline(always)]
    pub(crate) fn blackhole_timeout(self, id: u32) -> u32 {
        match self.data(id) {
            Some(data) if id < self.data_count() => {
                read!(data, pernet_blackhole_timeout).unwrap_or(0)
            }
            Some(_) | None => 0,
        }
    }

    /// The next namespace in the circular list of all; 0 if this one is being removed. One element
    /// of the circle is the list head, not a namespace.
    #[inline(always)]
    pub(crate) fn next(self) -> u64 {
        let prev_at = u64::from(offset!(net_list_prev));
        let list_at = prev_at.wrapping_sub(8);
        let next: u64 = read_at(self.0.wrapping_add(list_at), 0).unwrap_or(0);
        // Does its `prev` point back to this one?
        let back: u64 = read_at(next, 8).unwrap_or(0);
        match back == self.0.wrapping_add(list_at) {
            true => next.wrapping_sub(list_at),
            false => 0,
        }
    }

    /// True if it is in the list of all namespaces, that is, its removal has not begun.
    #[inline(always)]
    pub(crate) fn is_listed(self) -> bool {
        /// What replaces `prev` in an element removed from a list (`LIST_POISON2`), without the
        /// base that some architectures add.
        const POISON: u64 = 0x122;
        let neighbour: u64 = read!(self.0, net_list_prev).unwrap_or(POISON);
        neighbour & 0xfff != POISON
    }
}

/// Converts a `__percpu` address of the kernel into an offset from [`PER_CPU`], whose address is
/// known for each CPU: the address on a CPU is this offset plus [`per_cpu_address`].
#[inline(always)]
pub(crate) fn per_cpu_offset(address: u64) -> Result<u64, Fault> {
    let map = address_of(&raw const PER_CPU)?;
    let ours: u64 = read!(map, array_per_cpu)?;
    Ok(address.wrapping_sub(ours))
}

/// Address of a CPU's value in [`PER_CPU`].
#[inline(always)]
pub(crate) fn per_cpu_address(cpu: u32) -> Result<u64, Fault> {
    let key = 0_u32;
    // SAFETY: a per-CPU map, and a key of its type.
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

/// A pointer as a number. The verifier forbids arithmetic on known pointers; a value that a program
/// reads back from memory, here from its own stack, is a number.
#[inline(always)]
fn address_of<T>(pointer: *const T) -> Result<u64, Fault> {
    let mut held = MaybeUninit::<*const T>::uninit();
    // SAFETY: volatile, so that the pointer is stored on the stack and not only in a register.
    unsafe { held.as_mut_ptr().write_volatile(pointer) };
    // SAFETY: the helper accepts any address; this one is of eight initialised bytes.
    unsafe { bpf_probe_read_kernel(held.as_ptr().cast::<u64>()) }.map_err(|_errno| Fault)
}

/// One MPTCP counter; `counters` is the address of one CPU's counters.
#[inline(always)]
pub(crate) fn counter(counters: u64, number: u8) -> u64 {
    if number == NO_NUMBER {
        return 0;
    }
    read_or_zero_at(counters, u16::from(number) * 8)
}
