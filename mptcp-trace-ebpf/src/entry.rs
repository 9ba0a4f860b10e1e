//! Values in maps.

/// A value in a map, as a lookup found it. It stays mapped while the program runs; other CPUs may
/// write to it at the same time, so there are no references to it: [`get!`] and [`set!`] read and
/// write one field at a time.
pub(crate) struct Entry<T>(*mut T);

impl<T> Clone for Entry<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Entry<T> {}

impl<T> Entry<T> {
    /// The value at this address.
    ///
    /// # Safety
    ///
    /// `value` must come from a lookup of this run, in a map of plain data.
    #[inline(always)]
    pub(crate) const unsafe fn new(value: *mut T) -> Self {
        Self(value)
    }

    /// Its address, for a helper or one of the macros of this module.
    #[inline(always)]
    pub(crate) const fn as_ptr(self) -> *mut T {
        self.0
    }
}

/// A field of an [`Entry`].
macro_rules! get {
    ($entry:expr, $($field:tt)+) => {{
        let entry = $crate::entry::Entry::as_ptr($entry);
        // SAFETY: the pointer is to a value in a map (`Entry::new`). The read is volatile because
        // other CPUs write to it: it happens once, and here.
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
