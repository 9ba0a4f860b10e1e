//! The rings of records and debug messages, for the event loop.

use std::{
    ffi::c_void,
    io,
    os::fd::{AsFd, AsRawFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use aya_log::EbpfLogger;
use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};
use tokio::io::{Interest, unix::AsyncFd};

/// At most this many records are taken before signals and timers are polled.
const RECORDS_PER_TURN: usize = 1024;

/// Registers a descriptor with the event loop, to wait until it is readable.
///
/// # Errors
///
/// Fails if the kernel cannot watch it.
pub fn readable<T: AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: only this function's callers make an `AsyncFd`, and each gives it the owner of one
    // descriptor, which stays open and the same until that owner is dropped with it.
    let registered = unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// Records in the order in which the BPF side wrote them.
pub struct RecordRing {
    ring: AsyncFd<RingBuf<MapData>>,
    positions: Positions,
}

impl RecordRing {
    pub(super) fn new(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        let map = ebpf
            .take_map("RECORDS")
            .context("the BPF object has no map RECORDS")?;
        let ring = RingBuf::try_from(map).context("map RECORDS is not a ring buffer")?;
        let positions = Positions::of(&ring).context("cannot map the positions of the ring")?;
        let ring = readable(ring).context("cannot wait for the ring")?;
        Ok(Self { ring, positions })
    }

    /// Waits for records, without taking any.
    ///
    /// # Errors
    ///
    /// Failures of the event loop.
    pub async fn readable(&mut self) -> io::Result<()> {
        // Not cleared: the call that takes the records needs the readiness again.
        let _guard = self.ring.readable_mut().await?;
        Ok(())
    }

    /// Waits for records and passes at most a turn's worth of them to `each`; true if none remain.
    ///
    /// # Errors
    ///
    /// Errors of `each`, and failures of the event loop.
    pub async fn next_turn<E: From<io::Error>>(
        &mut self,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut guard = self.ring.readable_mut().await?;
        for _ in 0..RECORDS_PER_TURN {
            let Some(record) = guard.get_inner_mut().next() else {
                guard.clear_ready();
                return Ok(true);
            };
            each(&record)?;
        }
        Ok(false)
    }

    /// Passes the records that are in the ring now to `each`, without waiting. Those that are added
    /// meanwhile stay: in a flood of them, taking all would not end before the flood does.
    ///
    /// # Errors
    ///
    /// Errors of `each`.
    pub fn drain<E>(&mut self, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let end = self.positions.written();
        while is_before(self.positions.taken(), end)
            && let Some(record) = self.ring.get_mut().next()
        {
            each(&record)?;
        }
        Ok(())
    }
}

/// True if a position comes before another one. They count bytes and wrap around, and are never apart
/// by more than the size of the ring.
fn is_before(one: usize, other: usize) -> bool {
    other.wrapping_sub(one).cast_signed() > 0
}

/// How many bytes were written to the ring, and how many of them were taken: the first words of its
/// first two pages (`struct bpf_ringbuf`). aya maps both too, and does not offer them.
struct Positions {
    pages: NonNull<c_void>,
    page_bytes: usize,
}

// SAFETY: only this value unmaps the pages, and both words are atomic.
unsafe impl Send for Positions {}

impl Positions {
    fn of(ring: &RingBuf<MapData>) -> anyhow::Result<Self> {
        let page_bytes = page_size();
        let (protection, flags) = (ProtFlags::READ, MapFlags::SHARED);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let pages = unsafe {
            mmap(
                ptr::null_mut(),
                2 * page_bytes,
                protection,
                flags,
                ring.as_fd(),
                0,
            )
        };
        let pages = NonNull::new(pages?).context("mapped at address 0")?;
        Ok(Self { pages, page_bytes })
    }

    /// Where the next record is taken.
    fn taken(&self) -> usize {
        self.word_of_page(0)
    }

    /// Where the next record will be written.
    fn written(&self) -> usize {
        self.word_of_page(1)
    }

    fn word_of_page(&self, page: usize) -> usize {
        // SAFETY: two pages are mapped, readable, and stay so until this value is dropped.
        let word = unsafe { self.pages.byte_add(page * self.page_bytes) };
        // SAFETY: a page is aligned to more than a word, which the kernel and aya write atomically.
        let word = unsafe { word.cast::<AtomicUsize>().as_ref() };
        word.load(Ordering::Acquire)
    }
}

impl Drop for Positions {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, and no reference into it is left.
        let unmapped = unsafe { munmap(self.pages.as_ptr(), 2 * self.page_bytes) };
        if let Err(why) = unmapped {
            log::debug!("cannot unmap the positions of the ring: {why}");
        }
    }
}

/// Debug messages of the BPF side (`-vv`).
pub struct LogRing {
    ring: AsyncFd<EbpfLogger<&'static dyn log::Log>>,
}

impl LogRing {
    pub(super) fn new(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        let logger = EbpfLogger::init(ebpf).context("cannot read the log of the BPF programs")?;
        let ring = readable(logger).context("cannot wait for the log of the BPF programs")?;
        Ok(Self { ring })
    }

    /// Waits for messages and logs them.
    ///
    /// # Errors
    ///
    /// Failures of the event loop.
    pub async fn next_turn(&mut self) -> io::Result<()> {
        let mut guard = self.ring.readable_mut().await?;
        guard.get_inner_mut().flush();
        guard.clear_ready();
        Ok(())
    }

    /// Logs the remaining messages, without waiting.
    pub fn drain(&mut self) {
        self.ring.get_mut().flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_wrap_around() {
        for (one, other, is) in [
            (0, 8, true),
            (8, 8, false),
            (16, 8, false),
            (usize::MAX - 7, 8, true),
            (8, usize::MAX - 7, false),
        ] {
            assert_eq!(is_before(one, other), is, "{one} {other}");
        }
    }
}
