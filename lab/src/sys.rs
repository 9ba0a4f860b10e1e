//! The system calls that no library offers as we need them. All unsafe code of the lab.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
};

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// What one raw `getsockopt` gave back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Returned {
    /// 0, or the errno, positive.
    pub errno: i32,
}

/// `getsockopt(fd, level, option, optval, optlen)` with whatever pointers the caller likes.
#[must_use]
pub fn getsockopt(fd: RawFd, level: i32, option: i32, optval: usize, optlen: usize) -> Returned {
    // SAFETY: the kernel checks both pointers and fails with EFAULT; what it writes to are the buffers
    // that the callers in this crate own for the length of the call.
    let rc = unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, option, optval, optlen) };
    let errno = if rc == 0 {
        0
    } else {
        io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO)
    };
    Returned { errno }
}

/// The same through the 32-bit entry of the kernel, as a 32-bit program calls it. Pointers must lie below
/// 4 GiB ([`LowBuffer`]).
#[cfg(target_arch = "x86_64")]
#[must_use]
pub fn getsockopt_32(fd: RawFd, level: i32, option: i32, optval: u32, optlen: u32) -> Returned {
    const NR_GETSOCKOPT_I386: u64 = 365;
    let mut rax: u64 = NR_GETSOCKOPT_I386;
    // SAFETY: the 32-bit system call takes its arguments in ebx, ecx, edx, esi, edi and returns in eax. rbx
    // belongs to the compiler and is exchanged before and after. The kernel clobbers r8 to r11 here.
    unsafe {
        std::arch::asm!(
            "xchg {fd}, rbx",
            "int 0x80",
            "xchg {fd}, rbx",
            fd = inout(reg) i64::from(fd) => _,
            inout("rax") rax,
            in("rcx") i64::from(level),
            in("rdx") i64::from(option),
            in("rsi") u64::from(optval),
            in("rdi") u64::from(optlen),
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    let rc = (rax & 0xffff_ffff) as u32;
    Returned {
        errno: rc.cast_signed().wrapping_neg().max(0),
    }
}

/// Memory below 4 GiB, where a 32-bit program can point.
pub struct LowBuffer {
    address: u32,
}

impl LowBuffer {
    const BYTES: usize = 4096;

    /// Maps a page of it.
    ///
    /// # Errors
    ///
    /// Fails if there is none left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice replaces nothing.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = u32::try_from(page as usize)
            .map_err(|_too_high| io::Error::other("the kernel mapped it above 4 GiB"))?;
        Ok(Self { address })
    }

    /// Address of the `index`-th 32-bit word.
    #[must_use]
    pub fn word(&self, index: u32) -> u32 {
        self.address + index * 4
    }

    /// Reads a word.
    #[must_use]
    pub fn get(&self, index: u32) -> i32 {
        // SAFETY: the word is inside of the page, which lives as long as `self`.
        unsafe { (self.word(index) as usize as *const i32).read_volatile() }
    }

    /// Writes a word.
    pub fn set(&self, index: u32, value: i32) {
        // SAFETY: the word is inside of the page, which lives as long as `self`.
        unsafe { (self.word(index) as usize as *mut i32).write_volatile(value) }
    }
}

impl Drop for LowBuffer {
    fn drop(&mut self) {
        // SAFETY: the page was mapped by `new` and nobody else knows it.
        unsafe { libc::munmap(self.address as usize as *mut libc::c_void, Self::BYTES) };
    }
}

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

/// Gives an interface an IPv4 address with a netmask of 24 bits.
///
/// # Errors
///
/// Fails if there is no interface of that name.
pub fn set_address(name: &str, address: [u8; 4]) -> io::Result<()> {
    for (command, bytes) in [
        (libc::SIOCSIFADDR, address),
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

fn ioctl_interface(command: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: plain socket(2); the descriptor is owned right away.
    let control = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if control < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open and nobody else's.
    let control = unsafe { OwnedFd::from_raw_fd(control) };
    // SAFETY: the request is a valid ifreq that lives until after the call.
    let rc = unsafe { libc::ioctl(control.as_raw_fd(), command, std::ptr::from_mut(request)) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `connect(AF_UNSPEC)`: takes the connection away from a socket.
///
/// # Errors
///
/// What the kernel refuses with.
pub fn disconnect(fd: RawFd) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr is AF_UNSPEC.
    let address: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the address is valid and as long as it is said to be.
    let rc = unsafe { libc::connect(fd, &raw const address, length) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Loads a kernel module from a file; one that is there already is no error.
///
/// # Errors
///
/// What the kernel refuses with.
pub fn load_module(file: &File) -> io::Result<()> {
    let none = CString::default();
    // SAFETY: the descriptor is open and the parameter string ends in NUL.
    let rc = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), none.as_ptr(), 0) };
    let why = io::Error::last_os_error();
    if rc == 0 || why.raw_os_error() == Some(libc::EEXIST) {
        Ok(())
    } else {
        Err(why)
    }
}

/// Switches the machine off; returns only if that fails.
pub fn power_off() {
    // SAFETY: no precondition; what is not on disk is meant to be lost.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
}
