//! Ordinary queries of an application.

use crate::{
    askers::asker::Asker,
    net::{self, Family, Kind},
};

use super::{MPTCP, TCP};

/// Maximum number of connections to fill a listener's queue with.
const FILLERS: usize = 8;

pub(super) fn mptcp_fresh(asker: &mut Asker, family: Family) -> anyhow::Result<()> {
    let socket = net::open(Kind::Mptcp, family)?;
    asker.ask(&format!("mptcp-fresh-{}", family.suffix()), &socket, MPTCP)
}

pub(super) fn mptcp_bound(asker: &mut Asker, family: Family) -> anyhow::Result<()> {
    let socket = net::open(Kind::Mptcp, family)?;
    socket.bind(&family.loopback().into())?;
    asker.ask(&format!("mptcp-bound-{}", family.suffix()), &socket, MPTCP)
}

pub(super) fn mptcp_listening(asker: &mut Asker, family: Family) -> anyhow::Result<()> {
    let socket = net::listen(Kind::Mptcp, family)?;
    let name = format!("mptcp-listening-{}", family.suffix());
    asker.ask(&name, &socket, MPTCP)
}

/// The queue of a listener that never accepts is soon full: the next SYN stays unanswered.
pub(super) fn mptcp_connecting(asker: &mut Asker, family: Family) -> anyhow::Result<()> {
    let listener = net::open(Kind::Tcp, family)?;
    listener.bind(&family.loopback().into())?;
    listener.listen(0)?;
    let address = listener.local_addr()?;
    let mut queued = Vec::new();
    for _ in 0..FILLERS {
        let filler = net::open(Kind::Tcp, family)?;
        filler.set_nonblocking(true)?;
        let _in_progress = filler.connect(&address);
        queued.push(filler);
    }
    let socket = net::open(Kind::Mptcp, family)?;
    socket.set_nonblocking(true)?;
    let _in_progress = socket.connect(&address);
    let name = format!("mptcp-connecting-{}", family.suffix());
    asker.ask_connecting(&name, &socket, MPTCP, &address)
}

pub(super) fn mptcp_pair(asker: &mut Asker, family: Family) -> anyhow::Result<()> {
    let listener = net::listen(Kind::Mptcp, family)?;
    let (client, server) = net::pair(Kind::Mptcp, &listener, family)?;
    let suffix = family.suffix();
    asker.ask(&format!("mptcp-connected-{suffix}"), &client, MPTCP)?;
    asker.ask(&format!("mptcp-accepted-{suffix}"), &server, MPTCP)
}

pub(super) fn tcp_fresh(asker: &mut Asker, family: Family) -> anyhow::Result<()> {
    let socket = net::open(Kind::Tcp, family)?;
    asker.ask(&format!("tcp-fresh-{}", family.suffix()), &socket, TCP)
}

pub(super) fn tcp_pair(asker: &mut Asker, family: Family) -> anyhow::Result<()> {
    let listener = net::listen(Kind::Tcp, family)?;
    let (client, server) = net::pair(Kind::Tcp, &listener, family)?;
    let suffix = family.suffix();
    asker.ask(&format!("tcp-listening-{suffix}"), &listener, TCP)?;
    asker.ask(&format!("tcp-connected-{suffix}"), &client, TCP)?;
    asker.ask(&format!("tcp-accepted-{suffix}"), &server, TCP)
}

pub(super) fn tcp_from_mptcp_listener(asker: &mut Asker, family: Family) -> anyhow::Result<()> {
    let listener = net::listen(Kind::Mptcp, family)?;
    let (_client, server) = net::pair(Kind::Tcp, &listener, family)?;
    let name = format!("tcp-from-mptcp-listener-{}", family.suffix());
    asker.ask(&name, &server, TCP)
}
