//! The settings of the self-test's network namespace.

use std::ffi::CStr;

use rustix::fs::{Mode, OFlags};

/// The blackhole timeout in the self-test's network namespace, in seconds: a value that no
/// administrator would choose.
pub const BLACKHOLE_TIMEOUT: u32 = 1_597_463_007;
/// The settings of the self-test's network namespace: files, and what is written to them. Some
/// distributions' kernels, such as RHEL's, refuse MPTCP in a new namespace. Kernels without a
/// blackhole timeout lack that file.
pub(super) const SETTINGS: [(&CStr, &[u8]); 2] = [
    (c"/proc/sys/net/mptcp/enabled", b"1\n"),
    (
        c"/proc/sys/net/mptcp/blackhole_timeout",
        // `BLACKHOLE_TIMEOUT` as text.
        b"1597463007\n",
    ),
];

/// Writes the settings of this thread's network namespace. Allocates nothing.
pub(super) fn put_settings() {
    for (file, value) in SETTINGS {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        // What a refused setting costs is noticed later: the kernel refuses MPTCP sockets, or the
        // index of MPTCP's data stays unknown.
        if let Ok(setting) = rustix::fs::open(file, flags, Mode::empty()) {
            let _refused = rustix::io::write(&setting, value);
        }
    }
}
