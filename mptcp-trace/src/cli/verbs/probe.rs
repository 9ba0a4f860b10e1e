//! `mptcp-trace probe`: where on the way to a peer does MPTCP get lost?

use std::{
    io::{self, IsTerminal as _},
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    os::fd::BorrowedFd,
    time::Instant,
};

use anyhow::{Context as _, anyhow};

use crate::{
    cli::{
        CANNOT_ANSWER, DONE, Exit, FOUND, UNPROVEN, USAGE, args::ProbeArgs, print, talk, terminal,
    },
    hops::{
        About, Choice, Ends, Limits, Passes, RawWire, conclude, json, may_send, source_for, survey,
        text,
    },
    kernel::Mark,
    sink::{escape, wrapped},
};

/// Width of text without a terminal, columns.
const WIDTH: usize = 100;

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: &ProbeArgs) -> Result<u8, Exit> {
    if !may_send()? {
        let why = "not enough privileges to send packets of its own: probe needs CAP_NET_RAW, or root; \
                   to grant it to this command only: setpriv, capsh, or sudo";
        return Err(Exit::Because(CANNOT_ANSWER, why.into()));
    }
    if let Some((address, port)) = args.target.perhaps.filter(|_| talk::has_notes()) {
        let host = &args.target.host;
        stderr_line!("mptcp-trace: took {host} as an address; write [{address}]:{port} for a port");
    }
    let addresses = resolve(args)?;
    let peer = addresses
        .first()
        .copied()
        .context("the name has no address")?;
    let choice = Choice {
        source: args.source,
        interface: args.interface.clone(),
    };
    is_possible(peer, &choice)?;
    let ends = Ends {
        source: source_for(peer, &choice)?,
        destination: peer.ip(),
        port: peer.port(),
    };
    let limits = Limits {
        timeout: args.timeout,
        max_hops: args.max_hops,
        max_packets: args.max_packets,
    };
    let start = Instant::now();
    let shows = io::stderr().is_terminal() && talk::has_notes();
    let mut show = |what: &str| {
        if shows {
            stderr!("\r\x1b[Kmptcp-trace: probing {}: {what}", ends.destination);
        }
    };
    // With CAP_BPF; else an instance that traces shows the connection, with the name of this program.
    let marks = Mark::new().ok();
    let mark = |socket: BorrowedFd<'_>| {
        if let Some(Err(why)) = marks.as_ref().map(|marks| marks.socket(socket)) {
            log::debug!("cannot mark the connection: {why}");
        }
    };
    let mut wire = RawWire::new(ends, choice, &mark, &mut show)?;
    let found = survey(ends, limits, &mut wire);
    drop(wire);
    if shows {
        stderr!("\r\x1b[K");
    }
    let found = found?;
    let concluded = conclude(&found);
    let host = escape(&args.target.host);
    let about = About {
        host: &host,
        addresses: addresses.len(),
        took: start.elapsed(),
        width: terminal::columns().unwrap_or(WIDTH).min(WIDTH),
    };
    match args.json {
        true => print(&json(about, &found, &concluded))?,
        false => print(&text(about, &found, &concluded, wrapped))?,
    }
    Ok(match concluded.outcome.passes() {
        Passes::Yes => DONE,
        Passes::No => FOUND,
        Passes::Unknown => UNPROVEN,
    })
}

/// The device of every network namespace that leads to this host only.
const LOOPBACK: &str = "lo";

/// Refuses another host through the device that leads to none.
fn is_possible(peer: SocketAddr, choice: &Choice) -> Result<(), Exit> {
    if choice.interface.as_deref() != Some(LOOPBACK) || peer.ip().is_loopback() {
        return Ok(());
    }
    // The source of what this host sends to an address of its own is that address.
    match source_for(peer, &Choice::default()) {
        Ok(source) if source == peer.ip() => Ok(()),
        Ok(_) | Err(_) => {
            let why = format!(
                "{LOOPBACK} leads to this host only, and {} is another one: choose the interface of an \
                 uplink (ip -br link)",
                peer.ip()
            );
            Err(Exit::Because(USAGE, why))
        }
    }
}

/// The addresses of the peer that the options allow, in the order of the system's resolver.
fn resolve(args: &ProbeArgs) -> Result<Vec<SocketAddr>, Exit> {
    let host = &args.target.host;
    let all: Vec<SocketAddr> = (host.as_str(), args.target.port)
        .to_socket_addrs()
        .map_err(|why| anyhow!("cannot resolve {host}: {why}"))?
        .collect();
    let is_allowed = |address: &IpAddr| {
        let is_v4 = address.is_ipv4();
        let of_source = args.source.is_none_or(|source| source.is_ipv4() == is_v4);
        of_source && (is_v4 && !args.ipv6 || !is_v4 && !args.ipv4)
    };
    let mut allowed: Vec<SocketAddr> = Vec::new();
    for mut address in all {
        address.set_ip(address.ip().to_canonical());
        if is_allowed(&address.ip()) && !allowed.contains(&address) {
            allowed.push(address);
        }
    }
    let Some(first) = allowed.first() else {
        let why = format!("{host} has no address of the family that --source, -4 or -6 asks for");
        return Err(Exit::Because(USAGE, why));
    };
    let is_link_local = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let ip = first.ip();
    if is_link_local(ip) || ip.is_multicast() || ip.is_unspecified() {
        let why = format!(
            "there is no way with routers to {ip}: it is no address of another host behind them"
        );
        return Err(Exit::Because(USAGE, why));
    }
    Ok(allowed)
}
