//! Sockets in a network namespace that an unprivileged user may create.
//!
//! A multithreaded process cannot create a user namespace. So a child process creates one, with a
//! network namespace in it, opens sockets there, and passes them back: a socket stays in the
//! namespace in which it was opened, while this process connects and queries it.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::Context as _;
use rustix::{
    fs::{Mode, OFlags},
    io::{IoSlice, IoSliceMut},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
    thread::{UnshareFlags, unshare_unsafe},
};
use socket2::{Protocol, Socket};

use super::{bring_loopback_up, open, settings::put_settings};

/// Sufficient for all connections of the canary.
const TCP_SOCKETS: usize = 2;
const MPTCP_SOCKETS: usize = 4;
/// Additional ones, in case connections fall back for reasons of this host.
const SPARE_SOCKETS: usize = 8;

/// Sockets that are not yet used.
pub(super) struct UsernsSockets {
    tcp: Vec<Socket>,
    mptcp: Vec<Socket>,
    /// The counters of the namespace (`/proc/self/net/netstat`).
    netstat: File,
}

impl UsernsSockets {
    /// Creates the namespace and its sockets.
    ///
    /// # Errors
    ///
    /// Reports why an unprivileged user may not.
    pub(super) fn new() -> anyhow::Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .context("cannot create a socket pair")?;
        // SAFETY: the child only makes system calls on descriptors and memory that it has at the
        // fork, and ends by _exit: it does not allocate, take a lock, or return.
        let child = unsafe { libc::fork() };
        match child {
            -1 => Err(io::Error::last_os_error()).context("cannot create a process"),
            0 => {
                let code = match lend(&theirs) {
                    Ok(()) => 0,
                    Err(why) => why.raw_os_error().unwrap_or(libc::EIO),
                };
                // SAFETY: ends this process at once; nothing of the parent's is flushed or undone.
                unsafe { libc::_exit(code) }
            }
            child => {
                drop(theirs);
                let taken = Self::take(&ours);
                let code = wait_for(child)?;
                if code != 0 {
                    let what = match code {
                        libc::EPERM | libc::EACCES | libc::ENOSPC | libc::EUSERS => {
                            "an ordinary user may not create network namespaces here \
                             (user.max_user_namespaces, kernel.unprivileged_userns_clone, \
                             AppArmor), and CAP_SYS_ADMIN with CAP_NET_ADMIN is missing"
                        }
                        _ => "an ordinary user cannot get a network namespace now",
                    };
                    return Err(io::Error::from_raw_os_error(code)).context(what);
                }
                taken
            }
        }
    }

    fn take(from: &OwnedFd) -> anyhow::Result<Self> {
        let take = |count: usize| -> anyhow::Result<Vec<Socket>> {
            (0..count)
                .map(|_| receive(from).map(Socket::from))
                .collect()
        };
        Ok(Self {
            tcp: take(TCP_SOCKETS)?,
            mptcp: take(MPTCP_SOCKETS + SPARE_SOCKETS)?,
            netstat: File::from(receive(from)?),
        })
    }

    /// True if there are more MPTCP sockets than the self-test needs.
    pub(super) fn has_spare(&self) -> bool {
        self.mptcp.len() > MPTCP_SOCKETS
    }

    /// The kernel's counters in the namespace, as text.
    pub(super) fn netstat(&mut self) -> Option<String> {
        let mut text = String::new();
        self.netstat.seek(SeekFrom::Start(0)).ok()?;
        self.netstat.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// Takes one of the sockets.
    pub(super) fn open(&mut self, protocol: Option<Protocol>) -> io::Result<Socket> {
        let sockets = match protocol {
            None => &mut self.tcp,
            Some(_) => &mut self.mptcp,
        };
        sockets
            .pop()
            .ok_or_else(|| io::Error::other("no more sockets were created for us"))
    }
}

/// The child's work.
fn lend(to: &OwnedFd) -> io::Result<()> {
    // SAFETY: this process has one thread, shares nothing with the parent, and ends soon.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET) }?;
    bring_loopback_up()?;
    put_settings();
    for number in 0..TCP_SOCKETS + MPTCP_SOCKETS + SPARE_SOCKETS {
        let protocol = (number >= TCP_SOCKETS).then_some(Protocol::MPTCP);
        send(to, &open(protocol)?)?;
    }
    // Without the counters the self-test goes on; opened by a path that needs no allocation.
    let open_file = |path| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let netstat = open_file(c"/proc/self/net/netstat").or_else(|_why| open_file(c"/dev/null"))?;
    send(to, &netstat)?;
    Ok(())
}

fn send(to: &OwnedFd, socket: &impl AsFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [socket.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(to, &[IoSlice::new(b".")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(from: &OwnedFd) -> anyhow::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let what = "cannot receive a socket";
    recvmsg(
        from,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .context(what)?;
    let rights = control.drain().find_map(|message| {
        let RecvAncillaryMessage::ScmRights(mut descriptors) = message else {
            return None;
        };
        descriptors.next()
    });
    // The kernel drops a descriptor that does not fit into our table, and still delivers the
    // message.
    rights
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))
        .context(what)
}

/// Exit code of a child, which is known to end.
fn wait_for(child: libc::pid_t) -> anyhow::Result<i32> {
    let pid = rustix::process::Pid::from_raw(child).context("a child without a process ID")?;
    loop {
        match rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(status.exit_status().unwrap_or(libc::EINTR)),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(why) => return Err(why).context("cannot wait for a child"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether unprivileged users may depends on the host: either there are sockets, or a reason.
    #[test]
    fn sockets_are_lent_or_it_is_said_why_not() {
        match UsernsSockets::new() {
            Ok(mut userns) => {
                for _ in 0..MPTCP_SOCKETS + SPARE_SOCKETS {
                    let socket = userns.open(Some(Protocol::MPTCP)).unwrap();
                    assert_eq!(socket.protocol().unwrap(), Some(Protocol::MPTCP));
                }
                assert!(userns.open(Some(Protocol::MPTCP)).is_err());
                assert!(userns.netstat().unwrap().contains("MPTcpExt: "));
                assert_eq!(
                    userns.open(None).unwrap().protocol().unwrap(),
                    Some(Protocol::TCP)
                );
            }
            Err(why) => assert!(format!("{why:#}").contains("ordinary user"), "{why:#}"),
        }
    }
}
