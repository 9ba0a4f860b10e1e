//! The rings of records and debug messages, for the event loop.

use std::{io, os::fd::AsRawFd};

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use aya_log::EbpfLogger;
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
}

impl RecordRing {
    pub(super) fn new(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        let map = ebpf
            .take_map("RECORDS")
            .context("the BPF object has no map RECORDS")?;
        let ring = RingBuf::try_from(map).context("map RECORDS is not a ring buffer")?;
        let ring = readable(ring).context("cannot wait for the ring")?;
        Ok(Self { ring })
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

    /// Passes all remaining records to `each`, without waiting.
    ///
    /// # Errors
    ///
    /// Errors of `each`.
    pub fn drain<E>(&mut self, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        while let Some(record) = self.ring.get_mut().next() {
            each(&record)?;
        }
        Ok(())
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
