//! The system calls that no library offers as we need them. Unsafe code is here
//! and in `link`.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsRawFd as _, RawFd},
    time::Duration,
};

/// Now on the clock that the tracer gives times in, nanoseconds.
#[must_use]
pub fn boottime_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds * 1_000_000_000 + nanos
}

/// What one raw `getsockopt` gave back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Returned {
    /// 0, or the errno, positive.
    pub errno: i32,
}

impl Returned {
    /// What the system call that has just returned `rc` left in `errno`.
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
    /// What a C program sees.
    #[must_use]
    pub fn rc(self) -> i32 {
        if self.errno == 0 { 0 } else { -1 }
    }
}

/// `getsockopt(fd, level, option, optval, optlen)` with whatever pointers the caller likes.
#[must_use]
pub fn getsockopt(fd: RawFd, level: i32, option: i32, optval: usize, optlen: usize) -> Returned {
    // SAFETY: the kernel checks both pointers and fails with EFAULT; what it writes to are the buffers
    // that the callers in this crate own for the length of the call.
    let rc = unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, option, optval, optlen) };
    Returned::of(rc)
}

/// `setsockopt(fd, level, option, value, its length)`.
#[must_use]
pub fn setsockopt(fd: RawFd, level: i32, option: i32, value: &[u8]) -> Returned {
    let (pointer, length) = (value.as_ptr(), value.len());
    // SAFETY: the kernel reads the value, which is as long as it is said to be, and writes nothing.
    let rc = unsafe { libc::syscall(libc::SYS_setsockopt, fd, level, option, pointer, length) };
    Returned::of(rc)
}

/// [`getsockopt`] through the 32-bit entry of the kernel, as a 32-bit program calls it. Pointers must lie below
/// 4 GiB ([`LowBuffer`]).
#[must_use]
pub fn getsockopt_32(fd: RawFd, level: i32, option: i32, optval: u32, optlen: u32) -> Returned {
    const NR_GETSOCKOPT_I386: u32 = 365;
    let [fd, level, option] = [fd, level, option].map(i32::cast_unsigned);
    syscall_32(NR_GETSOCKOPT_I386, [fd, level, option, optval, optlen])
}

/// The same through `socketcall`, the only way that 32-bit programs had before Linux 4.3: `arguments` is the
/// address of fd, level, option, optval and optlen, one 32-bit word each.
#[must_use]
pub fn getsockopt_socketcall(arguments: u32) -> Returned {
    const NR_SOCKETCALL_I386: u32 = 102;
    const SYS_GETSOCKOPT: u32 = 15;
    syscall_32(NR_SOCKETCALL_I386, [SYS_GETSOCKOPT, arguments, 0, 0, 0])
}

/// Whether this kernel serves 32-bit programs.
///
/// Where it does not, the entry kills its caller instead of failing: a child of ours tries it.
#[must_use]
pub fn serves_32bit() -> bool {
    const NR_GETPID_I386: u32 = 20;
    // SAFETY: the child makes two system calls, touches no memory that another thread may have locked, and
    // leaves without running any destructor.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = i32::from(syscall_32(NR_GETPID_I386, [0; 5]).errno != 0);
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: the status is ours; where there is no child the call fails.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    child > 0 && waited == child && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

#[cfg(target_arch = "x86_64")]
fn syscall_32(number: u32, arguments: [u32; 5]) -> Returned {
    let [first, second, third, fourth, fifth] = arguments.map(u64::from);
    let mut rax = u64::from(number);
    // SAFETY: the 32-bit system call takes its arguments in ebx, ecx, edx, esi, edi and returns in eax. rbx
    // belongs to the compiler and is exchanged before and after. The kernel clobbers r8 to r11 here. What it
    // writes to are the buffers that the callers in this crate own for the length of the call.
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
    // -1 to -4095 are errors; a process id or a socket option's 0 is none.
    let rc = (rax as u32).cast_signed();
    Returned {
        errno: rc.wrapping_neg().max(0),
    }
}

/// No 32-bit entry of this shape is known here.
#[cfg(not(target_arch = "x86_64"))]
fn syscall_32(_number: u32, _arguments: [u32; 5]) -> Returned {
    Returned {
        errno: libc::ENOSYS,
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

/// Processor time that a process has used, in user space and in the kernel.
///
/// # Errors
///
/// Fails if there is no such process.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: writes the number of a clock into ours.
    let error = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: an all-zero timespec is valid.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: writes into ours.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = Duration::from_secs(time.tv_sec.unsigned_abs());
    Ok(seconds + Duration::from_nanos(time.tv_nsec.unsigned_abs()))
}

/// Switches the machine off; returns only if that fails.
pub fn power_off() {
    // SAFETY: no precondition; what is not on disk is meant to be lost.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
}

/// From now on these signals do nothing to this process.
pub fn ignore_signals(signals: &[i32]) {
    for &signal in signals {
        // SAFETY: to ignore a signal runs no code of ours; one that cannot be ignored stays as it is.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Ends every other process: only for the first process of a machine.
pub fn kill_all() {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Forks this process, which must have one thread: the child goes on with everything that its parent had open.
/// None in the child, its number in the parent.
///
/// # Errors
///
/// What the kernel refuses with.
pub fn fork() -> io::Result<Option<u32>> {
    // SAFETY: the one thread of the caller is also the one of the child, so that no lock stays locked for ever.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        child if child > 0 => Ok(Some(child.cast_unsigned())),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives this process, its first thread that is, a name.
///
/// # Errors
///
/// Fails if the name has a NUL in it.
pub fn set_process_name(name: &str) -> io::Result<()> {
    rustix::thread::set_name(&CString::new(name)?)?;
    Ok(())
}

/// The name of an errno that `getsockopt` can end with.
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
