//! Kprobe events on `mptcp_getsockopt`, as one would add them by hand through tracefs. They are
//! removed at the end.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Mount point of tracefs.
const TRACEFS: &str = "/sys/kernel/tracing";
/// Entry, with level and option, and return, with the return value.
const DEFINITIONS: &str = "p:mptcp_lab/ask mptcp_getsockopt level=%si:s32 optname=%dx:s32\n\
                           r:mptcp_lab/told mptcp_getsockopt ret=$retval:s32\n";

/// Attached events that write to the kernel's ring buffer.
pub(crate) struct Events {
    /// Whether this process mounted tracefs.
    mounted: bool,
}

impl Events {
    /// Attaches both events.
    pub(crate) fn attach() -> anyhow::Result<Self> {
        let mounted = !Path::new(TRACEFS).join("events").is_dir();
        if mounted {
            mount("tracefs", TRACEFS, "tracefs", MountFlags::empty(), None)
                .context("cannot mount tracefs")?;
        }
        let events = Self { mounted };
        for definition in DEFINITIONS.lines() {
            append("kprobe_events", definition)?;
        }
        write("events/mptcp_lab/enable", "1")?;
        write("tracing_on", "1")?;
        Ok(events)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // An event that was never created cannot be removed.
        let _never_made = write("events/mptcp_lab/enable", "0");
        for name in ["-:mptcp_lab/told", "-:mptcp_lab/ask"] {
            let _never_made = append("kprobe_events", name);
        }
        if self.mounted {
            let _busy = unmount(TRACEFS, UnmountFlags::empty());
        }
    }
}

fn place(file: &str) -> PathBuf {
    Path::new(TRACEFS).join(file)
}

fn write(file: &str, what: &str) -> anyhow::Result<()> {
    fs::write(place(file), what).with_context(|| format!("cannot write {what:?} to {file}"))
}

fn append(file: &str, what: &str) -> anyhow::Result<()> {
    let mut open = File::options()
        .append(true)
        .open(place(file))
        .with_context(|| format!("cannot open {file} of tracefs"))?;
    open.write_all(what.as_bytes())
        .with_context(|| format!("cannot write {what:?} to {file}"))
}
