//! System calls that no library offers in the form needed here. Unsafe code is confined to this
//! file, `link`, `middlebox` and `veth`.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsRawFd as _, RawFd},
    time::Duration,
};

/// Current time of `CLOCK_BOOTTIME`, the tracer's clock, in nanoseconds.
#[must_use]
pub fn boottime_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds * 1_000_000_000 + nanos
}

/// Result of one raw `getsockopt`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Returned {
    /// 0, or the errno as a positive number.
    pub errno: i32,
}

impl Returned {
    /// Reads `errno` after a system call that returned `rc`.
    fn of(rc: libc::c_long) -> Self {
        let errno = if rc == 0 {
            0
        } else {
            io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::EIO)
        };
        Self { errno }
    }
}

impl Returned {
    /// Return value as a C program sees it.
    #[must_use]
    pub fn rc(self) -> i32 {
        if self.errno == 0 { 0 } else { -1 }
    }
}

/// `getsockopt(fd, level, option, optval, optlen)` with arbitrary pointers.
#[must_use]
pub fn getsockopt(fd: RawFd, level: i32, option: i32, optval: usize, optlen: usize) -> Returned {
    // SAFETY: the kernel checks both pointers and fails with EFAULT; it writes only to the buffers,
    // which the callers in this crate own for the duration of the call.
    let rc = unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, option, optval, optlen) };
    Returned::of(rc)
}

/// `setsockopt(fd, level, option, value, its length)`.
#[must_use]
pub fn setsockopt(fd: RawFd, level: i32, option: i32, value: &[u8]) -> Returned {
    let (pointer, length) = (value.as_ptr(), value.len());
    // SAFETY: the kernel reads the value within its given length and writes nothing.
    let rc = unsafe { libc::syscall(libc::SYS_setsockopt, fd, level, option, pointer, length) };
    Returned::of(rc)
}

/// [`getsockopt`] through the kernel's 32-bit entry, as a 32-bit program calls it. Pointers must be
/// below 4 GiB ([`LowBuffer`]).
#[must_use]
pub fn getsockopt_32(fd: RawFd, level: i32, option: i32, optval: u32, optlen: u32) -> Returned {
    const NR_GETSOCKOPT_I386: u32 = 365;
    let [fd, level, option] = [fd, level, option].map(i32::cast_unsigned);
    syscall_32(NR_GETSOCKOPT_I386, [fd, level, option, optval, optlen])
}

/// [`getsockopt`] through the 32-bit `socketcall`, the only way for 32-bit programs before Linux
/// 4.3: `arguments` is the address of fd, level, option, optval and optlen, one 32-bit word each.
#[must_use]
pub fn getsockopt_socketcall(arguments: u32) -> Returned {
    const NR_SOCKETCALL_I386: u32 = 102;
    const SYS_GETSOCKOPT: u32 = 15;
    syscall_32(NR_SOCKETCALL_I386, [SYS_GETSOCKOPT, arguments, 0, 0, 0])
}

/// Whether this kernel runs 32-bit programs.
///
/// Without support, the entry kills its caller instead of failing, so a child process tries it.
#[must_use]
pub fn serves_32bit() -> bool {
    const NR_GETPID_I386: u32 = 20;
    // SAFETY: the child makes two system calls, touches no memory that another thread may have
    // locked, and exits without running any destructor.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = i32::from(syscall_32(NR_GETPID_I386, [0; 5]).errno != 0);
        // SAFETY: exits immediately.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: the status is a local variable; without a child the call fails.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    child > 0 && waited == child && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

#[cfg(target_arch = "x86_64")]
fn syscall_32(number: u32, arguments: [u32; 5]) -> Returned {
    let [first, second, third, fourth, fifth] = arguments.map(u64::from);
    let mut rax = u64::from(number);
    // SAFETY: the 32-bit system call takes its arguments in ebx, ecx, edx, esi, edi and returns in
    // eax. The compiler reserves rbx, so it is exchanged before and after. The kernel clobbers r8
    // to r11 here. It writes only to the buffers, which the callers in this crate own for the
    // duration of the call.
    unsafe {
        std::arch::asm!(
            "xchg {first}, rbx",
            "int 0x80",
            "xchg {first}, rbx",
            first = inout(reg) first => _,
            inout("rax") rax,
            in("rcx") second,
            in("rdx") third,
            in("rsi") fourth,
            in("rdi") fifth,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    // -1 to -4095 are errors; a process id or the 0 of a socket option is not.
    let rc = (rax as u32).cast_signed();
    Returned {
        errno: rc.wrapping_neg().max(0),
    }
}

/// This architecture has no known 32-bit entry.
#[cfg(not(target_arch = "x86_64"))]
fn syscall_32(_number: u32, _arguments: [u32; 5]) -> Returned {
    Returned {
        errno: libc::ENOSYS,
    }
}

#[cfg(target_arch = "x86_64")]
use libc::MAP_32BIT;
#[cfg(target_arch = "x86_64")]
const LOW_HINT: *mut libc::c_void = std::ptr::null_mut();
/// Other architectures lack the flag. A free address is taken as proposed.
#[cfg(not(target_arch = "x86_64"))]
const MAP_32BIT: libc::c_int = 0;
#[cfg(not(target_arch = "x86_64"))]
const LOW_HINT: *mut libc::c_void = std::ptr::without_provenance_mut(0x4000_0000);

/// Memory below 4 GiB, which a 32-bit program can address.
pub struct LowBuffer {
    address: u32,
}

impl LowBuffer {
    const BYTES: usize = 4096;

    /// Maps one page.
    ///
    /// # Errors
    ///
    /// Fails if no such memory is free.
    pub fn new() -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice replaces nothing.
        let page = unsafe {
            libc::mmap(
                LOW_HINT,
                Self::BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | MAP_32BIT,
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

    /// Reads a 32-bit word.
    #[must_use]
    pub fn get(&self, index: u32) -> i32 {
        // SAFETY: the word is inside the page, which lives as long as `self`.
        unsafe { (self.word(index) as usize as *const i32).read_volatile() }
    }

    /// Writes a 32-bit word.
    pub fn set(&self, index: u32, value: i32) {
        // SAFETY: the word is inside the page, which lives as long as `self`.
        unsafe { (self.word(index) as usize as *mut i32).write_volatile(value) }
    }
}

impl Drop for LowBuffer {
    fn drop(&mut self) {
        // SAFETY: `new` mapped the page, and no other reference to it exists.
        unsafe { libc::munmap(self.address as usize as *mut libc::c_void, Self::BYTES) };
    }
}

/// `connect(AF_UNSPEC)`: disconnects a socket.
///
/// # Errors
///
/// Fails with the kernel's error.
pub fn disconnect(fd: RawFd) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr is AF_UNSPEC.
    let address: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the address is valid and has the given length.
    let rc = unsafe { libc::connect(fd, &raw const address, length) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Loads a kernel module from a file; succeeds if it is already loaded.
///
/// # Errors
///
/// Fails with the kernel's error.
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

/// CPU time of a process, in user space and in the kernel.
///
/// # Errors
///
/// Fails if the process does not exist.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: writes the clock id to a local variable.
    let error = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: an all-zero timespec is valid.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: writes to a local variable.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = Duration::from_secs(time.tv_sec.unsigned_abs());
    Ok(seconds + Duration::from_nanos(time.tv_nsec.unsigned_abs()))
}

/// Powers the machine off; returns only on failure.
pub fn power_off() {
    // SAFETY: no precondition; unsynced data may be lost.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
}

/// Makes this process ignore these signals.
pub fn ignore_signals(signals: &[i32]) {
    for &signal in signals {
        // SAFETY: ignoring a signal runs no code of ours; for one that cannot be ignored the call
        // fails.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Kills every other process: only for the init process of a machine.
pub fn kill_all() {
    // SAFETY: the call does not touch memory.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Forks this process, which must be single-threaded; the child inherits all open files. Returns
/// none in the child, the child's number in the parent.
///
/// # Errors
///
/// Fails with the kernel's error.
pub fn fork() -> io::Result<Option<u32>> {
    // SAFETY: the caller is single-threaded, so the child inherits no lock held by another thread.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        child if child > 0 => Ok(Some(child.cast_unsigned())),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the name of this process (of its main thread).
///
/// # Errors
///
/// Fails if the name contains a NUL byte.
pub fn set_process_name(name: &str) -> io::Result<()> {
    rustix::thread::set_name(&CString::new(name)?)?;
    Ok(())
}

/// Name of an errno that `getsockopt` can return.
#[must_use]
pub fn errno_name(errno: i32) -> String {
    match errno {
        libc::EFAULT => "EFAULT".into(),
        libc::EINVAL => "EINVAL".into(),
        libc::EBADF => "EBADF".into(),
        libc::ENOTSOCK => "ENOTSOCK".into(),
        libc::ENOSYS => "ENOSYS".into(),
        libc::ENOPROTOOPT => "ENOPROTOOPT".into(),
        libc::EOPNOTSUPP => "EOPNOTSUPP".into(),
        other => format!("E{other}"),
    }
}
