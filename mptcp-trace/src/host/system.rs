//! Facts from a single file or harmless system call.

use std::{
    fs,
    io::ErrorKind,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use socket2::{Domain, Socket, Type};

use super::{Fact, btf::KERNEL_BTF};

/// The MPTCP settings of our own network namespace (`sysctl net.mptcp`), by name.
#[must_use]
pub fn mptcp_sysctls() -> std::collections::BTreeMap<String, String> {
    let files = fs::read_dir("/proc/sys/net/mptcp").into_iter().flatten();
    files
        .flatten()
        .filter_map(|file| {
            let value = fs::read_to_string(file.path()).ok()?;
            let name = file.file_name().into_string().ok()?;
            Some((format!("net.mptcp.{name}"), value.trim().to_owned()))
        })
        .collect()
}

/// `uname -r`.
#[must_use]
pub fn kernel_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// Name of the host.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Number of possible CPUs (`nr_cpu_ids`), if their numbers have no gap.
#[must_use]
pub fn cpus() -> Option<u32> {
    numbered_from_zero(&fs::read_to_string("/sys/devices/system/cpu/possible").ok()?)
}

/// Length of a list of CPUs that is a single range from 0.
fn numbered_from_zero(list: &str) -> Option<u32> {
    let list = list.trim();
    let (first, last) = list.split_once('-').unwrap_or((list, list));
    let last: u32 = last.parse().ok()?;
    (first == "0").then(|| last.saturating_add(1))
}

/// Does the kernel have its own BTF?
#[must_use]
pub fn own_btf() -> Fact {
    exists(KERNEL_BTF, "CONFIG_DEBUG_INFO_BTF")
}

/// Does the kernel support kprobes?
#[must_use]
pub fn kprobes() -> Fact {
    exists(
        "/sys/bus/event_source/devices/kprobe/type",
        "CONFIG_KPROBE_EVENTS",
    )
}

fn exists(path: &str, option: &str) -> Fact {
    match fs::metadata(path) {
        Ok(_) => Fact::Yes,
        Err(why) if why.kind() == ErrorKind::NotFound => {
            Fact::No(format!("{path} is missing ({option})"))
        }
        Err(why) => Fact::Unknown(format!("cannot inspect {path}: {why}")),
    }
}

/// Does `net.mptcp.enabled` allow new MPTCP sockets in our network namespace?
#[must_use]
pub fn mptcp_enabled() -> Fact {
    const SYSCTL: &str = "/proc/sys/net/mptcp/enabled";
    match fs::read_to_string(SYSCTL) {
        Ok(value) => Fact::from_bool(
            value.trim() != "0",
            "net.mptcp.enabled is 0: new MPTCP sockets are refused in this network namespace",
        ),
        Err(why) => Fact::Unknown(format!("cannot read {SYSCTL}: {why}")),
    }
}

/// Queries a socket as an application would: `getsockopt(fd, SOL_TCP, TCP_IS_MPTCP)`.
///
/// # Errors
///
/// The errno of the call.
pub fn ask_is_mptcp(socket: &Socket) -> std::io::Result<i32> {
    const SOL_TCP: libc::c_int = 6;
    const TCP_IS_MPTCP: libc::c_int = 43;
    let mut value: libc::c_int = -1;
    let mut length: libc::socklen_t = 4;
    // SAFETY: both pointers are to live variables of the sizes given to the call.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            SOL_TCP,
            TCP_IS_MPTCP,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if failed == 0 {
        Ok(value)
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Does this kernel support `TCP_IS_MPTCP`? Queries a fresh TCP socket, which it must answer with
/// 0.
#[must_use]
pub fn option_known(mark: impl Fn(BorrowedFd<'_>)) -> Fact {
    let asked = Socket::new(Domain::IPV4, Type::STREAM, None).and_then(|socket| {
        mark(socket.as_fd());
        ask_is_mptcp(&socket)
    });
    match asked {
        Ok(_) => Fact::Yes,
        Err(why) if why.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            Fact::No("this kernel does not support TCP_IS_MPTCP (Linux 6.10 and later do)".into())
        }
        Err(why) => Fact::Unknown(format!("cannot query TCP_IS_MPTCP on a TCP socket: {why}")),
    }
}

/// Does this process ignore SIGHUP (`nohup`, `trap '' HUP`)?
#[must_use]
pub fn hangup_is_ignored() -> bool {
    is_ignored(libc::SIGHUP)
}

/// Does this process ignore a signal? Also right in a sandbox without `/proc`.
#[must_use]
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: all fields of the struct may be zero.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the call changes no action, and writes to a live variable.
    let failed = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut now) };
    failed == 0 && now.sa_sigaction == libc::SIG_IGN
}

/// True if this process was started without a stdout. The standard library opens `/dev/null` in its
/// place before `main`, so that it cannot be noticed later.
#[must_use]
pub fn stdout_was_closed() -> bool {
    STDOUT_WAS_CLOSED.load(Ordering::Relaxed)
}

static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// The C library calls this before `main`, and before the standard library starts.
// SAFETY: the section holds pointers to functions with the C calling convention; arguments that the
// C library passes are ignored. The function uses nothing of the standard library that needs its
// start.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = look_at_stdout;

extern "C" fn look_at_stdout() {
    // SAFETY: the call only inspects a descriptor, which may be closed.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    STDOUT_WAS_CLOSED.store(flags == -1, Ordering::Relaxed);
}

/// Prevents SIGUSR1 and SIGUSR2 from ending this process, also before handlers are installed, and
/// SIGXFSZ: a write beyond the limit of a file's size then fails. A started command gets the default
/// actions back.
pub fn survive_signals() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    for signal in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGXFSZ] {
        let handler = nothing as extern "C" fn(libc::c_int);
        // SAFETY: the handler does nothing, which is async-signal-safe.
        unsafe {
            libc::signal(signal, handler as libc::sighandler_t);
        }
    }
}

/// Makes the C library return freed memory to the system soon. By default it would keep as much as
/// the largest block ever freed, and more.
pub fn keep_little_free_memory() {
    #[cfg(target_env = "gnu")]
    {
        /// Larger blocks are mapped, and unmapped, individually.
        const PIECE_BYTES: libc::c_int = 256 * 1024;
        /// At most this many bytes stay free at the end of the heap.
        const FREE_BYTES: libc::c_int = 1024 * 1024;
        // SAFETY: the call sets parameters of the allocator, which is allowed at any time.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, PIECE_BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, FREE_BYTES);
        }
    }
}

/// Returns freed memory to the system if the C library keeps it.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call has no precondition and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted_only_where_their_numbers_have_no_gap() {
        for (list, cpus) in [
            ("0\n", Some(1)),
            ("0-1\n", Some(2)),
            ("0-511", Some(512)),
            ("0-3,8-11\n", None),
            ("1-3\n", None),
            ("", None),
        ] {
            assert_eq!(numbered_from_zero(list), cpus, "{list:?}");
        }
    }
}
