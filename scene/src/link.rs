//! Network namespaces and their interfaces.

use std::{fs, io, os::fd::AsRawFd as _};

use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    thread::{UnshareFlags, unshare_unsafe},
};

/// Moves this thread into a new network namespace with loopback up and MPTCP switched on: some
/// distributions' kernels, such as RHEL's, start a namespace without it.
///
/// # Errors
///
/// Fails without `CAP_SYS_ADMIN`.
pub fn enter_network_namespace() -> io::Result<()> {
    // SAFETY: only the network namespace of this thread changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    match fs::write("/proc/sys/net/mptcp/enabled", "1") {
        // A kernel without MPTCP.
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        written => written?,
    }
    bring_up("lo")
}

/// Brings an interface up.
///
/// # Errors
///
/// Fails if no interface has that name.
pub fn bring_up(name: &str) -> io::Result<()> {
    set_flags(name, libc::IFF_UP | libc::IFF_RUNNING)
}

/// Brings an interface down.
///
/// # Errors
///
/// Fails if no interface has that name.
pub fn bring_down(name: &str) -> io::Result<()> {
    set_flags(name, 0)
}

fn set_flags(name: &str, flags: libc::c_int) -> io::Result<()> {
    let mut request = interface(name);
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: this command reads flags from the request, and no pointer.
    unsafe { ioctl_interface(libc::SIOCSIFFLAGS, &mut request) }
}

/// A request about an interface.
pub(crate) fn interface(name: &str) -> libc::ifreq {
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    request
}

/// Issues a request about an interface on a temporary socket.
///
/// # Safety
///
/// If the command follows a pointer in the request, it must point to what the command expects.
pub(crate) unsafe fn ioctl_interface(
    command: libc::Ioctl,
    request: &mut libc::ifreq,
) -> io::Result<()> {
    let control = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: the request is a valid ifreq that outlives the call; the caller ensures its pointer.
    let rc = unsafe { libc::ioctl(control.as_raw_fd(), command, std::ptr::from_mut(request)) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
