//! tracefs for ourselves, where the host has not mounted it.
//!
//! The number of a tracepoint stands in tracefs, and nowhere else. On a host that never mounted it we do
//! so in a mount namespace that lives as long as one thread: the host is left as found.

use std::{path::Path, thread};

use anyhow::Context as _;
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

use crate::host::system::TRACEFS;

/// Runs `act` where tracefs is mounted.
pub(super) fn with_tracefs<T: Send>(
    act: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    if Path::new(TRACEFS).join("events").is_dir() {
        return act();
    }
    thread::scope(|scope| {
        scope
            .spawn(|| {
                mount_privately()?;
                act()
            })
            .join()
            .map_err(|_panic| anyhow::anyhow!("the thread that attaches tracepoints panicked"))?
    })
}

fn mount_privately() -> anyhow::Result<()> {
    let what = || format!("cannot mount tracefs privately at {TRACEFS}");
    // SAFETY: the flags make a mount namespace and a filesystem context of this thread's own; descriptors
    // and memory stay shared, so nothing that other threads rely on is taken away.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.with_context(what)?;
    // Without this the mount would travel back to the host where / is shared, as systemd makes it.
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .with_context(what)?;
    mount("tracefs", TRACEFS, "tracefs", MountFlags::empty(), None).with_context(what)
}
