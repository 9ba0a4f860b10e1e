//! Passes sockets between processes.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{fd::AsFd as _, unix::net::UnixDatagram},
    path::Path,
};

use anyhow::{Context as _, bail};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use socket2::Socket;

/// Sends a socket to the actor that listens at this path.
pub(super) fn pass(socket: &Socket, to: &Path) -> anyhow::Result<()> {
    let way = UnixDatagram::unbound().context("cannot open a Unix socket")?;
    way.connect(to)
        .with_context(|| format!("no actor listens at {}", to.display()))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let passed = [socket.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&passed));
    sendmsg(
        &way,
        &[IoSlice::new(b"s")],
        &mut control,
        SendFlags::empty(),
    )?;
    Ok(())
}

/// Receives a passed socket.
pub(super) fn take(mailbox: &UnixDatagram) -> anyhow::Result<Socket> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(
        mailbox,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut sockets) = message
            && let Some(socket) = sockets.next()
        {
            return Ok(socket.into());
        }
    }
    bail!("the message contains no socket")
}
