//! `mptcp-lab fingerprints`: boxes between a client and a server take MPTCP out in every known way, under
//! the tracer with each attach method: what it concludes from the packet that decided, compared with
//! the truth.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::fd::BorrowedFd,
    time::Duration,
};

use anyhow::Context as _;
use socket2::{SockAddr, Socket};

use crate::{
    boxes::{BoxKind, nft},
    cells::{judged, skipped},
    chain::Chain,
    net::{self, Family, Kind},
    netns,
    report::Cell,
    side_by_side, sys,
    traced::{PacketLine, TracedLine},
    tracer::{
        TracerArgs,
        again::{self, Only},
        suite::{Said, Suite},
    },
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    tried: TracerArgs,
    /// Also print the capture and the live lines, as a line of the report
    #[arg(long)]
    keep: bool,
}

/// Routers between the ends, and the one, counted from 1 at the client's side, that has the box.
const ROUTERS: usize = 3;
const AT: usize = 2;

/// Connections at a time: most of each is waiting for a timer of the kernel.
const AT_ONCE: u32 = 10;

/// For how long the first SYN finds no route: what the kernel sends is then sent by its timer. Over veth
/// pairs, the answer to a SYN that `connect` sends arrives before `connect` has unlocked the
/// connection, which no peer on another host achieves.
const WITHOUT_ROUTE: Duration = Duration::from_millis(300);

/// Longer than the kernel repeats a SYN with MPTCP before it leaves MPTCP out.
const PATIENCE: Duration = Duration::from_secs(20);

/// One play: what stands in the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// A box.
    Box(BoxKind),
    /// A box that clears the SYN/ACK, and for the next connection a proxy.
    ThenProxy,
    /// The router in the middle resets an open connection in the server's name.
    ForgedRst,
    /// Nothing: the server's application aborts the connection.
    Healthy,
}

/// What is true of the packet that decided at one end: one of these conclusions must be first, or
/// there is no such packet.
#[derive(Clone, Copy, Debug)]
struct Truth {
    /// The first conclusion about the last packet of this end; empty is no packet.
    first: &'static [&'static str],
    /// Another conclusion that must be there.
    also: Option<&'static str>,
}

const NO_PACKET: Truth = Truth {
    first: &[],
    also: None,
};

const fn shows(first: &'static [&'static str]) -> Truth {
    Truth { first, also: None }
}

impl Way {
    const ALL: [Self; 11] = [
        Self::Box(BoxKind::Clear),
        Self::Box(BoxKind::Compact),
        Self::Box(BoxKind::DropSyn),
        Self::Box(BoxKind::StripData),
        Self::Box(BoxKind::StripSynAck),
        Self::Box(BoxKind::Mirror),
        Self::Box(BoxKind::Proxy),
        Self::Box(BoxKind::Rewrite),
        Self::ThenProxy,
        Self::ForgedRst,
        Self::Healthy,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Box(kind) => kind.name(),
            Self::ThenProxy => "then-proxy",
            Self::ForgedRst => "forged-rst",
            Self::Healthy => "healthy",
        }
    }

    /// What is true at the client and at the server. `sees_child`: the attach method distinguishes a
    /// client that never asked for MPTCP from one whose third ACK came without it.
    fn truth(self, sees_child: bool) -> [Truth; 2] {
        // The client fell back for the SYN/ACK, so that its third ACK has no option.
        let third_ack = match sees_child {
            true => shows(&["option-absent"]),
            false => NO_PACKET,
        };
        match self {
            // The SYN arrives without its option, and the server answers without one.
            Self::Box(BoxKind::Clear | BoxKind::Compact | BoxKind::Proxy) => {
                [shows(&["option-absent"]), NO_PACKET]
            }
            // No packet decides: a timer does.
            Self::Box(BoxKind::DropSyn) => [NO_PACKET, NO_PACKET],
            // Whether the client has fallen back when the server looks is a race.
            Self::Box(BoxKind::StripData) => [
                shows(&["option-cleared"]),
                shows(&["option-cleared", "option-absent"]),
            ],
            Self::Box(BoxKind::StripSynAck) => [shows(&["option-cleared"]), third_ack],
            Self::Box(BoxKind::Mirror) => [shows(&["option-reflected"]), third_ack],
            // Sequence numbers of MPTCP are relative.
            Self::Box(BoxKind::Rewrite) | Self::Healthy => [NO_PACKET, NO_PACKET],
            Self::ThenProxy => [
                Truth {
                    first: &["option-absent"],
                    also: Some("another-machine"),
                },
                third_ack,
            ],
            Self::ForgedRst => [shows(&["rst-other-ttl"]), NO_PACKET],
        }
    }
}

/// A play, and where it was.
struct Played {
    way: Way,
    family: Family,
    since_ns: u64,
    /// Of the client and the server.
    namespaces: [u64; 2],
    failed: Option<String>,
    /// Keeps the numbers of the namespaces.
    _chain: Chain,
}

/// Runs everything; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    again::on_rungs(&args.tried, |rung, only| {
        let judge = |played: Vec<anyhow::Result<Played>>, said: &Said| {
            played.iter().map(|it| of_play(it, rung, said)).collect()
        };
        let mut suite = Suite::new(&args.tried, rung).showing_all();
        suite = suite.replayed(args.keep.then_some("fingerprints"));
        suite.run(|_watch| Ok(play_all(only)), judge)
    })
}

fn case(way: Way, family: Family) -> String {
    format!("fingerprint-{}-{}", way.name(), family.suffix())
}

fn play_all(only: Only<'_>) -> Vec<anyhow::Result<Played>> {
    let all = Way::ALL
        .into_iter()
        .flat_map(|way| Family::BOTH.map(|family| (way, family)))
        .filter(|(way, family)| only.has(&case(*way, *family)))
        .collect();
    side_by_side::each(all, AT_ONCE, |(way, family)| play(way, family))
}

/// Fails if it cannot be played here, such as without a program.
fn play(way: Way, family: Family) -> anyhow::Result<Played> {
    let since_ns = sys::boottime_ns();
    let chain = Chain::new(ROUTERS)?;
    let namespaces = [
        netns::number(chain.client())?,
        netns::number(chain.server())?,
    ];
    let done = match way {
        Way::Box(BoxKind::DropSyn) => {
            let _installed = chain.install(BoxKind::DropSyn, AT)?;
            // Kernels before 6.12 never leave MPTCP out, so that no connection comes about.
            let _refused = connect(&chain, family, talk);
            Ok(())
        }
        Way::Box(kind) => {
            let _installed = chain.install(kind, AT)?;
            connect(&chain, family, talk)
        }
        Way::ThenProxy => {
            {
                let _installed = chain.install(BoxKind::StripSynAck, AT)?;
                connect(&chain, family, talk)?;
            }
            let _installed = chain.install(BoxKind::Proxy, AT)?;
            connect(&chain, family, talk)
        }
        Way::ForgedRst => {
            // Else it cannot be played here.
            nft("list tables")?;
            connect(&chain, family, |client, server| {
                reset(&chain, client, server)
            })
        }
        Way::Healthy => connect(&chain, family, talk),
    };
    Ok(Played {
        way,
        family,
        since_ns,
        namespaces,
        failed: done.err().map(|why| format!("{why:#}")),
        _chain: chain,
    })
}

/// Opens a connection, and makes both ends use it.
fn connect(
    chain: &Chain,
    family: Family,
    act: impl FnOnce(&Socket, &Socket) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    const PORT: u16 = 4433;
    let at = SocketAddr::new(chain.server_address(family), PORT);
    let listener = netns::within(chain.server(), || {
        let socket = net::open(Kind::Mptcp, family)?;
        socket.set_reuse_address(true)?;
        net::bind(&socket, at)?;
        socket.listen(4)?;
        Ok(socket)
    })?;
    let client = netns::within(chain.client(), || Ok(net::open(Kind::Mptcp, family)?))?;
    forward(chain.router(1), false)?;
    let to: SockAddr = at.into();
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| client.connect_timeout(&to, PATIENCE));
        std::thread::sleep(WITHOUT_ROUTE);
        forward(chain.router(1), true)?;
        let connected = connecting.join();
        connected
            .map_err(|_panic| anyhow::anyhow!("the client's thread panicked"))?
            .context("cannot connect")
    })?;
    listener.set_read_timeout(Some(PATIENCE))?;
    let (server, _peer) = net::accept(&listener)?;
    act(&client, &server)
}

/// Makes a router forward packets, or drop them.
fn forward(router: BorrowedFd<'_>, forwards: bool) -> anyhow::Result<()> {
    let value = if forwards { "1" } else { "0" };
    for name in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        netns::set_sysctl(router, name, value)?;
    }
    Ok(())
}

/// Data in both directions, and an end in order.
fn talk(client: &Socket, server: &Socket) -> anyhow::Result<()> {
    for _ in 0..3 {
        net::say(client, server)?;
        net::say(server, client)?;
    }
    client.shutdown(std::net::Shutdown::Write)?;
    server.shutdown(std::net::Shutdown::Write)?;
    for mut end in [client, server] {
        end.set_read_timeout(Some(PATIENCE))?;
        end.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

/// The router in the middle answers what the client sends with an RST, while the client has data of the
/// server that it did not read.
fn reset(chain: &Chain, mut client: &Socket, mut server: &Socket) -> anyhow::Result<()> {
    for _ in 0..2 {
        net::say(client, server)?;
        net::say(server, client)?;
    }
    server.write_all(b"not read")?;
    std::thread::sleep(WITHOUT_ROUTE);
    let device = chain.place(AT).to_client;
    netns::within(chain.router(AT), || {
        nft(&format!(
            "add table inet lab; add chain inet lab f {{ type filter hook forward priority 0; }}; add \
             rule inet lab f iifname {device} meta l4proto tcp reject with tcp reset"
        ))
    })?;
    client.write_all(b"is reset")?;
    std::thread::sleep(WITHOUT_ROUTE);
    Ok(())
}

/// The cell of one play.
fn of_play(played: &anyhow::Result<Played>, rung: &str, said: &Said) -> Cell {
    let played = match played {
        Ok(played) => played,
        Err(why) => return skipped("fingerprint", rung, format!("{why:#}")),
    };
    let Played {
        way,
        family,
        since_ns,
        namespaces,
        failed,
        _chain: _,
    } = played;
    let truth = way.truth(rung != "tracepoint");
    let mut wrong: Vec<String> = failed.iter().cloned().collect();
    let mut traced = Vec::new();
    for ((end, namespace), truth) in ["client", "server"].iter().zip(namespaces).zip(truth) {
        let packets: Vec<&PacketLine> = said
            .lines
            .iter()
            .filter_map(packet_of)
            .filter(|(netns, at_ns, _)| netns == namespace && at_ns >= since_ns)
            .map(|(_, _, packet)| packet)
            .collect();
        let found = packets.last().map_or_else(
            || "no packet".to_owned(),
            |packet| packet.names().join(", "),
        );
        traced.push(format!("{end}: {found}"));
        wrong.extend(truth.differs(&packets).map(|why| format!("{end}: {why}")));
    }
    let caller = truth.map(|truth| match truth.first {
        [] => "no packet".to_owned(),
        first => first.join(" or "),
    });
    let caller = format!("client: {}; server: {}", caller[0], caller[1]);
    judged(
        &case(*way, *family),
        rung,
        &caller,
        &traced.join("; "),
        wrong,
    )
}

impl Truth {
    /// What is wrong about the packets of an end.
    fn differs(&self, packets: &[&PacketLine]) -> Option<String> {
        let Some(last) = packets.last() else {
            return (!self.first.is_empty()).then(|| format!("no packet, not {:?}", self.first));
        };
        let names = last.names();
        let is_right = names.first().is_some_and(|name| self.first.contains(name))
            && match self.also {
                Some(also) => names.contains(&also),
                None => names.len() == 1,
            };
        (!is_right).then(|| format!("{last:?}, not {:?} {:?}", self.first, self.also))
    }
}

/// Namespace, time and packet of a line that has one.
fn packet_of(line: &TracedLine) -> Option<(u64, u64, &PacketLine)> {
    if let TracedLine::Fallback(found) | TracedLine::Refused(found) | TracedLine::Plain(found) =
        line
    {
        return Some((found.netns, found.boottime_ns, found.packet.as_ref()?));
    }
    if let TracedLine::PathFailed(line)
    | TracedLine::ConnectFailed(line)
    | TracedLine::PathDown(line) = line
    {
        return Some((line.netns, line.boottime_ns, line.packet.as_ref()?));
    }
    None
}
