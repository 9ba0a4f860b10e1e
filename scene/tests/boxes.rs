//! What each box does to the packets of a connection, captured at both ends. Needs root.

#![expect(clippy::unwrap_used, reason = "a failure is the failure of the test")]

use std::{
    io::{Read as _, Write as _},
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, BorrowedFd},
    time::Duration,
};

use mptcp_trace_scene::{
    boxes::BoxKind,
    chain::{Chain, Quoting},
    net::{self, Family, Kind},
    netns, query,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const MPTCP: u8 = 30;
const NOP: u8 = 1;

/// A captured TCP segment.
#[derive(Clone, Debug)]
struct Segment {
    source: Vec<u8>,
    flags: u8,
    sequence: u32,
    header_bytes: usize,
    /// Kind and bytes of each option; a NOP has none.
    options: Vec<(u8, Vec<u8>)>,
}

impl Segment {
    /// From an IP packet without extension headers.
    fn parse(packet: &[u8]) -> Option<Self> {
        let (source, tcp) = match packet.first()? >> 4 {
            4 if packet[9] == 6 => (&packet[12..16], &packet[20..]),
            6 if packet[6] == 6 => (&packet[8..24], &packet[40..]),
            _ => return None,
        };
        let header_bytes = usize::from(tcp[12] >> 4) * 4;
        let mut rest = &tcp[20..header_bytes];
        let mut options = Vec::new();
        while let Some(&kind) = rest.first() {
            let length = match kind {
                0 => break,
                NOP => 1,
                _ => usize::from(rest[1]),
            };
            options.push((kind, rest[1.min(length)..length].to_vec()));
            rest = &rest[length..];
        }
        Some(Self {
            source: source.to_vec(),
            flags: tcp[13],
            sequence: u32::from_be_bytes(tcp[4..8].try_into().ok()?),
            header_bytes,
            options,
        })
    }

    fn is_syn(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    fn is_syn_ack(&self) -> bool {
        self.flags & (SYN | ACK) == SYN | ACK
    }

    fn mptcp(&self) -> Option<&[u8]> {
        let found = self.options.iter().find(|(kind, _)| *kind == MPTCP);
        found.map(|(_, bytes)| bytes.as_slice())
    }

    fn has_dss(&self) -> bool {
        self.mptcp().is_some_and(|bytes| bytes[1] >> 4 == 2)
    }

    fn nops(&self) -> usize {
        self.options.iter().filter(|(kind, _)| *kind == NOP).count()
    }
}

/// All IP packets of a namespace from now on.
fn tap(namespace: BorrowedFd<'_>) -> Socket {
    let protocol = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
    netns::within(namespace, || {
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })
    .unwrap()
}

fn captured(tap: &Socket) -> Vec<Segment> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut all = Vec::new();
    while let Ok(length) = tap.recv(&mut buffer) {
        let packet: Vec<u8> = buffer[..length]
            .iter()
            // SAFETY: the kernel has written as many bytes.
            .map(|byte| unsafe { byte.assume_init() })
            .collect();
        all.extend(Segment::parse(&packet));
    }
    all
}

/// The segments at the client and at the server, and whether the connection was MPTCP when both ends
/// had received data.
struct Seen {
    client: Vec<Segment>,
    server: Vec<Segment>,
    is_mptcp: bool,
    connected: bool,
}

impl Seen {
    fn syns(segments: &[Segment]) -> Vec<&Segment> {
        segments.iter().filter(|it| it.is_syn()).collect()
    }

    fn syn_ack(segments: &[Segment]) -> &Segment {
        segments.iter().find(|it| it.is_syn_ack()).unwrap()
    }
}

fn connect(chain: &Chain, kind: Kind, family: Family) -> Seen {
    let taps = [tap(chain.client()), tap(chain.server())];
    let at = chain.server_address(family);
    let listener = netns::within(chain.server(), || {
        let socket = net::open(Kind::Mptcp, family)?;
        net::bind(&socket, SocketAddr::new(at, 0))?;
        socket.listen(1)?;
        Ok(socket)
    })
    .unwrap();
    let to: SockAddr = listener.local_addr().unwrap();
    let client = netns::within(chain.client(), || Ok(net::open(kind, family)?)).unwrap();
    let connected = client.connect_timeout(&to, Duration::from_millis(400));
    let mut is_mptcp = false;
    if connected.is_ok() {
        let (mut server, _peer) = net::accept(&listener).unwrap();
        let mut client = &client;
        for _ in 0..3 {
            net::say(client, &server).unwrap();
            net::say(&server, client).unwrap();
        }
        is_mptcp = query::ask(client.as_raw_fd(), query::Api::TcpIsMptcp).unwrap() == "1";
        client.shutdown(std::net::Shutdown::Write).unwrap();
        server.write_all(b"end").unwrap();
        drop(server);
        let mut rest = Vec::new();
        let _reset = client.read_to_end(&mut rest);
    }
    let [client, server] = taps.map(|tap| captured(&tap));
    Seen {
        client,
        server,
        is_mptcp,
        connected: connected.is_ok(),
    }
}

fn check(kind: BoxKind, family: Family) {
    let chain = Chain::new(1).unwrap();
    let installed = chain.install(kind, 1).unwrap();
    let seen = connect(&chain, Kind::Mptcp, family);
    let sent = Seen::syns(&seen.client)[0].clone();
    let arrived = Seen::syns(&seen.server);
    let what = format!("{} {family:?}: {sent:?} {arrived:?}", kind.name());
    assert_eq!(sent.mptcp().map(<[u8]>::len), Some(3), "{what}");
    let client_address = match chain.client_address(family) {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    if kind != BoxKind::DropSyn {
        assert!(seen.connected, "{what}");
        assert_eq!(arrived[0].source == client_address, kind != BoxKind::Proxy);
    }
    let answer = || Seen::syn_ack(&seen.client);
    match kind {
        BoxKind::Clear => {
            assert_eq!(arrived[0].mptcp(), None, "{what}");
            assert_eq!(arrived[0].nops(), sent.nops() + 4, "{what}");
            assert_eq!(arrived[0].header_bytes, sent.header_bytes, "{what}");
        }
        BoxKind::Compact => {
            assert_eq!(arrived[0].mptcp(), None, "{what}");
            assert_eq!(arrived[0].nops(), sent.nops(), "{what}");
            assert_eq!(arrived[0].header_bytes, sent.header_bytes - 4, "{what}");
        }
        BoxKind::DropSyn => {
            assert!(arrived.is_empty() && !seen.connected, "{what}");
            assert!(connect(&chain, Kind::Tcp, family).connected, "{what}");
        }
        BoxKind::StripData => {
            assert!(arrived[0].mptcp().is_some() && answer().mptcp().is_some());
            // The client's first data has MP_CAPABLE; the server acknowledges it with DSS.
            let of_server = |it: &&Segment| it.has_dss() && it.source != client_address;
            assert!(seen.server.iter().any(|it| of_server(&it)), "{what}");
            assert!(!seen.client.iter().any(|it| of_server(&it)), "{what}");
            assert!(!seen.is_mptcp, "{what}");
        }
        BoxKind::StripSynAck => {
            assert!(arrived[0].mptcp().is_some(), "{what}");
            let left = Seen::syn_ack(&seen.server);
            assert_eq!(left.mptcp().map(<[u8]>::len), Some(11), "{left:?}");
            assert_eq!(answer().mptcp(), None, "{:?}", answer());
            assert_eq!(answer().nops(), left.nops() + 12, "{:?}", answer());
        }
        BoxKind::Mirror => {
            assert_eq!(answer().mptcp(), sent.mptcp(), "{:?}", answer());
            let left = Seen::syn_ack(&seen.server);
            assert_eq!(answer().header_bytes, left.header_bytes - 8);
            assert!(!seen.is_mptcp, "{what}");
        }
        BoxKind::Proxy => {
            assert_eq!(arrived[0].mptcp(), None, "{what}");
            assert_eq!(answer().mptcp(), None, "{:?}", answer());
            assert_eq!(answer().nops(), 1, "{:?}", answer());
        }
        BoxKind::Rewrite => {
            assert_ne!(arrived[0].sequence, sent.sequence, "{what}");
            assert_ne!(answer().sequence, Seen::syn_ack(&seen.server).sequence);
            assert!(seen.is_mptcp, "{what}");
        }
    }
    let works = match installed.done().unwrap() {
        None => kind == BoxKind::Proxy,
        Some(done) => done != mptcp_trace_scene::middlebox::Done::default(),
    };
    assert!(works, "{what}");
}

#[test]
fn each_box_does_to_packets_what_its_name_says() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root for network namespaces");
        return;
    }
    for kind in BoxKind::ALL {
        for family in Family::BOTH {
            check(kind, family);
        }
    }
}

#[test]
fn a_chain_without_a_box_passes_mptcp_in_either_family() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root for network namespaces");
        return;
    }
    let chain = Chain::new(5).unwrap();
    let _quoted = chain.quote(2, Quoting::Short).unwrap();
    for family in Family::BOTH {
        assert!(connect(&chain, Kind::Mptcp, family).is_mptcp, "{family:?}");
    }
}
