//! Network namespaces, and the interfaces in them.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// A network namespace of this thread's own, with loopback up.
///
/// # Errors
///
/// Fails without `CAP_SYS_ADMIN`.
pub fn enter_network_namespace() -> io::Result<()> {
    // SAFETY: only the network namespace of this thread changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    bring_up("lo")
}

/// Brings an interface up.
///
/// # Errors
///
/// Fails if there is none of that name.
pub fn bring_up(name: &str) -> io::Result<()> {
    let mut request = interface(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    ioctl_interface(libc::SIOCSIFFLAGS, &mut request)
}

/// Gives an interface an IPv6 address with a netmask of 64 bits.
///
/// # Errors
///
/// Fails if there is no interface of that name, or no IPv6.
pub fn set_address_v6(name: &str, address: Ipv6Addr) -> io::Result<()> {
    let mut request = interface(name);
    ioctl_interface(libc::SIOCGIFINDEX, &mut request)?;
    // SAFETY: the ioctl has just written this member of the union.
    let index = unsafe { request.ifr_ifru.ifru_ifindex };
    let request = libc::in6_ifreq {
        ifr6_addr: libc::in6_addr {
            s6_addr: address.octets(),
        },
        ifr6_prefixlen: 64,
        ifr6_ifindex: index,
    };
    let control = control(libc::AF_INET6)?;
    // SAFETY: an in6_ifreq, which this ioctl takes on an IPv6 socket, that lives until after the call.
    let rc = unsafe {
        libc::ioctl(
            control.as_raw_fd(),
            libc::SIOCSIFADDR,
            std::ptr::from_ref(&request),
        )
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Gives an interface an IPv4 address with a netmask of 24 bits.
///
/// # Errors
///
/// Fails if there is no interface of that name.
pub fn set_address_v4(name: &str, address: Ipv4Addr) -> io::Result<()> {
    for (command, bytes) in [
        (libc::SIOCSIFADDR, address.octets()),
        (libc::SIOCSIFNETMASK, [255, 255, 255, 0]),
    ] {
        let mut request = interface(name);
        let mut data = [0; 14];
        for (slot, byte) in data[2..6].iter_mut().zip(bytes) {
            *slot = byte.cast_signed();
        }
        request.ifr_ifru.ifru_addr = libc::sockaddr {
            sa_family: libc::AF_INET as libc::sa_family_t,
            sa_data: data,
        };
        ioctl_interface(command, &mut request)?;
    }
    Ok(())
}

/// A TUN device: what the kernel sends to it can be read, what is written to it the kernel receives.
///
/// # Errors
///
/// Fails if the kernel has no TUN driver.
pub fn open_tun(name: &str) -> io::Result<File> {
    let tun = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let mut request = interface(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request is a valid ifreq that lives until after the call.
    let rc = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if rc == 0 {
        Ok(tun)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn interface(name: &str) -> libc::ifreq {
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte.cast_signed();
    }
    request
}

/// A socket to configure interfaces through.
fn control(family: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: plain socket(2); the descriptor is owned right away.
    let control = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if control < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(control) })
}

fn ioctl_interface(command: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    let control = control(libc::AF_INET)?;
    // SAFETY: the request is a valid ifreq that lives until after the call.
    let rc = unsafe { libc::ioctl(control.as_raw_fd(), command, std::ptr::from_mut(request)) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
