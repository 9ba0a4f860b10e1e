//! The system call `bpf` (`man 2 bpf`), for commands that aya does not offer.

use std::io;

use aya_obj::generated::{bpf_attr, bpf_cmd};

/// Runs a command that reads and writes `attr`, and the memory that it points to.
///
/// # Errors
///
/// The errno of the call.
pub(super) fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attr` has the given length; callers in this module point only to memory of their
    // own, which lives until after the call.
    let returned =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of_val(&*attr)) };
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(returned).map_err(io::Error::other)
}
