//! Connections that fall back: at once over loopback, later through the middlebox.

use std::os::fd::AsRawFd as _;

use anyhow::Context as _;

use crate::{
    askers::asker::Asker,
    middlebox::Middlebox,
    net::{self, Family, Kind, say},
    rules::{Rules, Treatment},
    sys,
};

use super::{FALLEN, MPTCP, TCP};

/// Strips the MPTCP option from a SYN or SYN/ACK.
const NO_SYN: Treatment = Treatment {
    strip_syn: true,
    ..Treatment::NONE
};
/// Strips it from every packet after the SYN.
const NO_MORE: Treatment = Treatment {
    strip_from: Some(0),
    ..Treatment::NONE
};

/// The listener does not support MPTCP: the client falls back before connect returns.
pub(super) fn client(asker: &mut Asker, family: Family) -> anyhow::Result<()> {
    let listener = net::listen(Kind::Tcp, family)?;
    let (client, server) = net::pair(Kind::Mptcp, &listener, family)?;
    let suffix = family.suffix();
    asker.ask(&format!("fallen-client-{suffix}"), &client, FALLEN)?;
    asker.ask(&format!("tcp-peer-of-fallen-{suffix}"), &server, TCP)
}

/// A socket that connects to itself: simultaneous open, which MPTCP does not support.
pub(super) fn to_itself(asker: &mut Asker, family: Family) -> anyhow::Result<()> {
    let socket = net::open(Kind::Mptcp, family)?;
    socket.bind(&family.loopback().into())?;
    let address = socket.local_addr()?;
    socket
        .connect(&address)
        .context("cannot connect to itself")?;
    asker.ask(&format!("fallen-self-{}", family.suffix()), &socket, FALLEN)
}

/// MPTCP works at first; then the path strips it in both directions, and both ends fall back.
pub(super) fn midway(asker: &mut Asker, family: Family) -> anyhow::Result<()> {
    let middlebox = Middlebox::new()?;
    let listener = middlebox.listen(Kind::Mptcp, family)?;
    let (client, server) = middlebox.pair(Kind::Mptcp, &listener, family)?;
    say(&client, &server)?;
    say(&server, &client)?;
    let suffix = family.suffix();
    let name = |end: &str, when: &str| format!("fallen-midway-{end}-{when}-{suffix}");
    asker.ask(&name("client", "before"), &client, MPTCP)?;
    asker.ask(&name("server", "before"), &server, MPTCP)?;
    middlebox.set(Rules {
        to_server: NO_MORE,
        to_client: NO_MORE,
    })?;
    say(&client, &server)?;
    say(&server, &client)?;
    asker.ask(&name("client", "after"), &client, FALLEN)?;
    asker.ask(&name("server", "after"), &server, FALLEN)
}

/// The path strips what the server sends after the handshake: the client falls back and stops
/// sending MPTCP options, so that the server's socket, accepted as MPTCP, falls back too.
pub(super) fn server(asker: &mut Asker, family: Family) -> anyhow::Result<()> {
    let middlebox = Middlebox::new()?;
    middlebox.set(Rules {
        to_client: NO_MORE,
        ..Rules::NONE
    })?;
    let listener = middlebox.listen(Kind::Mptcp, family)?;
    let (client, server) = middlebox.pair(Kind::Mptcp, &listener, family)?;
    let suffix = family.suffix();
    asker.ask(&format!("fallen-server-before-{suffix}"), &server, MPTCP)?;
    say(&server, &client)?;
    say(&client, &server)?;
    asker.ask(&format!("fallen-server-after-{suffix}"), &server, FALLEN)?;
    let name = format!("fallen-server-its-client-{suffix}");
    asker.ask(&name, &client, FALLEN)
}

/// The SYN arrives stripped: the server never sees that the client requested MPTCP.
pub(super) fn stripped_syn(asker: &mut Asker, family: Family) -> anyhow::Result<()> {
    let rules = Rules {
        to_server: NO_SYN,
        ..Rules::NONE
    };
    in_handshake(asker, family, rules, "syn")
}

/// The SYN/ACK arrives stripped: to the client, the server seems to lack MPTCP.
pub(super) fn stripped_syn_ack(asker: &mut Asker, family: Family) -> anyhow::Result<()> {
    let rules = Rules {
        to_client: NO_SYN,
        ..Rules::NONE
    };
    in_handshake(asker, family, rules, "syn-ack")
}

fn in_handshake(asker: &mut Asker, family: Family, rules: Rules, what: &str) -> anyhow::Result<()> {
    let middlebox = Middlebox::new()?;
    middlebox.set(rules)?;
    let listener = middlebox.listen(Kind::Mptcp, family)?;
    let (client, server) = middlebox.pair(Kind::Mptcp, &listener, family)?;
    let suffix = family.suffix();
    asker.ask(&format!("stripped-{what}-client-{suffix}"), &client, FALLEN)?;
    asker.ask(&format!("stripped-{what}-server-{suffix}"), &server, TCP)
}

/// The third packet of the handshake arrives stripped: the server accepts a TCP socket, and the
/// client stays MPTCP until the server's first data.
pub(super) fn stripped_ack(asker: &mut Asker, family: Family) -> anyhow::Result<()> {
    let middlebox = Middlebox::new()?;
    middlebox.set(Rules {
        to_server: NO_MORE,
        ..Rules::NONE
    })?;
    let listener = middlebox.listen(Kind::Mptcp, family)?;
    let (client, server) = middlebox.pair(Kind::Mptcp, &listener, family)?;
    let suffix = family.suffix();
    let name = |end: &str| format!("stripped-ack-{end}-{suffix}");
    asker.ask(&name("client-before"), &client, MPTCP)?;
    asker.ask(&name("server"), &server, TCP)?;
    say(&server, &client)?;
    asker.ask(&name("client-after"), &client, FALLEN)
}

/// `connect(AF_UNSPEC)` after a fallback resets the socket to MPTCP.
pub(super) fn disconnected(asker: &mut Asker, family: Family) -> anyhow::Result<()> {
    let listener = net::listen(Kind::Tcp, family)?;
    let (client, _server) = net::pair(Kind::Mptcp, &listener, family)?;
    let suffix = family.suffix();
    asker.ask(&format!("disconnected-before-{suffix}"), &client, FALLEN)?;
    sys::disconnect(client.as_raw_fd()).context("cannot disconnect")?;
    // Linux 6.17.13 leaves the old subflow as it was, and with it the fallback.
    asker.ask_either(&format!("disconnected-{suffix}"), &client, MPTCP)
}
