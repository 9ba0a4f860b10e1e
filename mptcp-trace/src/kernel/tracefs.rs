//! tracefs for ourselves, where the host has not mounted it.
//!
//! The number of a tracepoint stands in tracefs, and nowhere else. On a host that never mounted it we do
//! so in a mount namespace that lives as long as one thread: the host is left as found.

use std::{panic::resume_unwind, path::Path, thread};

use anyhow::Context as _;
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

use crate::host::system::TRACEFS;

/// Runs `act` where tracefs is mounted, if that is needed. Where it cannot be mounted, `act` will not find what it wants.
pub(super) fn with_tracefs<T: Send>(is_needed: bool, act: impl FnOnce() -> T + Send) -> T {
    if !is_needed || Path::new(TRACEFS).join("events").is_dir() {
        return act();
    }
    let acted = thread::scope(|scope| {
        let acting = scope.spawn(|| {
            if let Err(why) = mount_privately() {
                log::warn!("{why:#}");
            }
            act()
        });
        acting.join()
    });
    acted.unwrap_or_else(|panic| resume_unwind(panic))
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
