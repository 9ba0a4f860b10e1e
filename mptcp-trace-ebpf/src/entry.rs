//! Access to values in maps, field by field.

use mptcp_trace_common::{map_values::Conn, record::Owner};

/// Pointer to a value in a map, returned by a lookup. The value stays valid while the program runs,
/// but other CPUs may write to it at the same time. So no Rust reference to it exists: [`get!`] and
/// [`set!`] read and write one field at a time.
pub(crate) struct Entry<T>(*mut T);

impl<T> Clone for Entry<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Entry<T> {}

impl<T> Entry<T> {
    /// Wraps the result of a lookup.
    ///
    /// # Safety
    ///
    /// `value` must come from a lookup of this run, in a map of plain data.
    #[inline(always)]
    pub(crate) const unsafe fn new(value: *mut T) -> Self {
        Self(value)
    }

    /// The raw pointer, for a helper or one of the macros of this module.
    #[inline(always)]
    pub(crate) const fn as_ptr(self) -> *mut T {
        self.0
    }
}

impl Entry<Conn> {
    /// Copies the owner to a record.
    #[inline(always)]
    pub(crate) fn put_owner(self, place: &mut Owner) {
        self.copy_owner(&raw mut *place);
    }

    /// Copies the owner from the entry of another socket.
    #[inline(always)]
    pub(crate) fn set_owner_of(self, other: Self) {
        // SAFETY: the address of a field of a value in a map.
        other.copy_owner(unsafe { &raw mut (*self.0).owner });
    }

    /// Copies word by word, because the stack has no room for a whole owner.
    #[inline(always)]
    fn copy_owner(self, to: *mut Owner) {
        const {
            assert!(size_of::<Owner>().is_multiple_of(8) && align_of::<Owner>() == 8);
        }
        for word in 0..size_of::<Owner>() / 8 {
            // SAFETY: both are owners, a whole number of words long; any bits are a valid owner.
            unsafe {
                let from = (&raw const (*self.0).owner).cast::<u64>();
                let to = to.cast::<u64>().add(word);
                to.write_volatile(from.add(word).read_volatile());
            }
        }
    }
}

/// A field of an [`Entry`].
macro_rules! get {
    ($entry:expr, $($field:tt)+) => {{
        let entry = $crate::entry::Entry::as_ptr($entry);
        // SAFETY: the pointer is to a value in a map (`Entry::new`). The read is volatile because
        // other CPUs may write to the field: the compiler must neither repeat nor move it.
        unsafe { core::ptr::read_volatile(&raw const (*entry).$($field)+) }
    }};
}

/// Sets a field of an [`Entry`].
macro_rules! set {
    ($entry:expr, $field:ident $(. $more:ident)*, $value:expr) => {{
        let value = $value;
        let entry = $crate::entry::Entry::as_ptr($entry);
        // SAFETY: as for `get!`.
        unsafe { core::ptr::write_volatile(&raw mut (*entry).$field $(. $more)*, value) }
    }};
}

pub(crate) use {get, set};
