//! `mptcp-lab many-paths`: very many connections with several paths each, from several processes at
//! once, and joins that fail for various causes: each path must be reported once, with its
//! connection, its owner and what it carried.
//!
//! With `--short` the connections close as soon as their second path is up, and use few ports, so
//! that addresses repeat: no path may be attributed to an earlier one or to another connection.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::BorrowedFd,
    process::Stdio,
};

use anyhow::{Context as _, ensure};

use self::app::{Listening, Made};
use crate::{
    alone::Alone,
    cells::skipped,
    findings::{balanced, balanced_in_storm},
    lines::read_lines,
    net::Family,
    netns::{self, Counters},
    path_manager::{self, Endpoint, Flags, Limits},
    process::{Running, own, succeeded},
    recipes::{
        End, Place, TestBed,
        paths::{Fate, Way},
    },
    rules::{Rules, Treatment},
    scratch::Scratch,
    side_by_side, sys,
    tracer::{
        TracerArgs, again,
        suite::{Said, Suite},
    },
    veth,
};

pub(crate) mod app;
mod judge;
#[cfg(test)]
mod tests;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    tried: TracerArgs,
    /// Number of connections
    #[arg(long, default_value_t = 2_000)]
    pub(crate) connections: u32,
    /// Number of processes with the same server that open them
    #[arg(long, default_value_t = 2)]
    pub(crate) processes: u32,
    /// Two paths each, which all come up; close them at once, and use few ports
    #[arg(long)]
    pub(crate) short: bool,
}

/// A middlebox and a server, and the paths of the connections to it.
pub(super) struct Ward {
    name: &'static str,
    family: Family,
    rules: Rules,
    /// Where the third join comes from.
    third: Third,
    /// Joins that the server accepts.
    server_limit: u32,
    /// The joins that fail.
    fails: &'static [Fate],
    /// What each connection adds to a counter.
    counted: &'static [(End, &'static str, u64)],
}

/// The address of the third join.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Third {
    /// On the second pair of devices.
    Second,
    /// One that the client does not have.
    Foreign,
}

const fn fails(at: End, causes: &'static [&'static str]) -> Fate {
    Fate::fails(at, Way::Second, causes)
}

const REJECT: Treatment = Treatment {
    reject: true,
    ..Treatment::NONE
};
const NO_SYN: Treatment = Treatment {
    strip_syn: true,
    ..Treatment::NONE
};
const PLAIN: Ward = Ward {
    name: "",
    family: Family::V4,
    rules: Rules::NONE,
    third: Third::Second,
    server_limit: ENDPOINTS as u32,
    fails: &[],
    counted: &[],
};
/// Of each connection's three joins one fails, in each ward for another cause.
const WARDS: [Ward; 4] = [
    Ward {
        name: "many-limit",
        server_limit: 2,
        fails: &[
            fails(End::Client, &["MPJoinAckRejected"]),
            Fate {
                inferred: &["MPJoinNoTokenFound", "MPJoinAckNoMPJoin"],
                nameless: true,
                ..fails(End::Server, &["MPJoinRejected"])
            },
        ],
        counted: &[
            (End::Client, "MPJoinSynTx", 3),
            (End::Client, "MPJoinSynAckRx", 3),
            (End::Server, "MPJoinSynRx", 3),
            (End::Server, "MPJoinAckRx", 2),
            (End::Server, "MPJoinRejected", 1),
        ],
        ..PLAIN
    },
    Ward {
        name: "many-reject",
        family: Family::V6,
        rules: Rules {
            to_server: REJECT,
            to_client: Treatment::NONE,
        },
        fails: &[fails(End::Client, &["MPJoinSynRefused"])],
        counted: &[
            (End::Client, "MPJoinSynTx", 3),
            (End::Client, "MPJoinSynAckRx", 2),
            (End::Server, "MPJoinSynRx", 2),
            (End::Server, "MPJoinAckRx", 2),
        ],
        ..PLAIN
    },
    Ward {
        name: "many-strip",
        rules: Rules {
            to_server: NO_SYN,
            to_client: Treatment::NONE,
        },
        fails: &[fails(End::Client, &["MPJoinSynAckNoMPJoin"])],
        counted: &[
            (End::Client, "MPJoinSynTx", 3),
            (End::Client, "MPJoinSynAckRx", 2),
            (End::Client, "MPJoinSynAckNoMPJoin", 1),
            (End::Server, "MPJoinSynRx", 2),
            (End::Server, "MPJoinAckRx", 2),
        ],
        ..PLAIN
    },
    Ward {
        name: "many-bind",
        family: Family::V6,
        third: Third::Foreign,
        fails: &[Fate {
            hidden: true,
            ..fails(End::Client, &["MPJoinSynTxBindErr"])
        }],
        counted: &[
            (End::Client, "MPJoinSynTx", 2),
            (End::Client, "MPJoinSynTxBindErr", 1),
            (End::Client, "MPJoinSynAckRx", 2),
            (End::Server, "MPJoinSynRx", 2),
            (End::Server, "MPJoinAckRx", 2),
        ],
        ..PLAIN
    },
];
/// Messages of a connection once its paths are up, and a pause before each: a few hundred connections
/// a second, which is no storm.
const MESSAGES: u32 = 3;
const PAUSE_MS: u64 = 10;
/// Joins that a connection tries.
const ENDPOINTS: u8 = 3;

/// What a connection of `--short` adds.
const SHORT: [Ward; 2] = [
    Ward {
        name: "short-v4",
        counted: ONE_JOIN,
        ..PLAIN
    },
    Ward {
        name: "short-v6",
        family: Family::V6,
        counted: ONE_JOIN,
        ..PLAIN
    },
];
const ONE_JOIN: &[(End, &str, u64)] = &[
    (End::Client, "MPJoinSynTx", 1),
    (End::Client, "MPJoinSynAckRx", 1),
    (End::Server, "MPJoinSynRx", 1),
    (End::Server, "MPJoinAckRx", 1),
];
/// The ports of `--short`: more than connections and joins at one time.
const FEW_PORTS: &str = "20000 20127";

/// The connections of a ward, with the kernel's counters.
pub(super) struct Crowd {
    ward: &'static Ward,
    is_short: bool,
    /// A time on `CLOCK_BOOTTIME` before the namespaces were created.
    since_ns: u64,
    netns: [u64; 2],
    /// The clients' connections, by process.
    clients: BTreeMap<u32, Vec<Made>>,
    server_pid: u32,
    /// The same connections as the server knows them.
    served: Vec<Made>,
    /// Growth of the kernel's counters at the client's and the server's end, with those that did not
    /// grow.
    grown: [Counters; 2],
}

/// What must live until the tracer has ended.
struct Held {
    bed: TestBed,
    before: [Counters; 2],
    _server: Running,
}

/// Runs the suite; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    ensure!(args.processes > 0, "nothing to do");
    let _alone = Alone::claim(
        "many-paths",
        "very many connections load all CPUs, and every tracer of the host sees their paths",
    )?;
    again::on_rungs(&args.tried, |rung, _all| {
        let judge = |all: anyhow::Result<Vec<(Crowd, Held)>>, said: &Said| {
            // As for recipes, the kernel may lack required modules.
            let mut all = match all {
                Ok(all) => all,
                Err(why) => return vec![skipped("many-paths", rung, format!("{why:#}"))],
            };
            let each = all.iter_mut().map(|(crowd, held)| match held.grown() {
                Ok(grown) => {
                    crowd.grown = grown;
                    judge::cell(rung, crowd, &said.lines)
                }
                Err(why) => skipped(crowd.ward.name, rung, format!("{why:#}")),
            });
            let mut cells: Vec<_> = each.collect();
            cells.push(match args.short {
                true => balanced_in_storm(rung, &said.lines),
                false => balanced(rung, &said.lines),
            });
            cells
        };
        let suite = Suite::new(&args.tried, rung).showing_all();
        suite.run(|_watch| perform(args), judge)
    })
}

/// The inner error explains why this kernel cannot run it.
fn perform(args: &Args) -> anyhow::Result<anyhow::Result<Vec<(Crowd, Held)>>> {
    let wards: &'static [Ward] = match args.short {
        true => &SHORT,
        false => &WARDS,
    };
    let since_ns = sys::boottime_ns();
    let beds: anyhow::Result<Vec<_>> = wards
        .iter()
        .map(|ward| Ok((ward, ward.prepared(args.short)?)))
        .collect();
    let beds = match beds {
        Ok(beds) => beds,
        Err(why) => return Ok(Err(why)),
    };
    let of_each = args.connections / (wards.len() as u32 * args.processes);
    side_by_side::all(beds, |(ward, bed)| {
        let play = ward.play(bed, args, of_each.max(1), since_ns);
        play.context(ward.name)
    })
    .map(Ok)
}

impl Held {
    fn grown(&self) -> anyhow::Result<[Counters; 2]> {
        let grown = |namespace, before: &Counters| {
            let after = netns::counters(namespace)?;
            let each = after.into_iter().map(|(name, count)| {
                let earlier = before.get(&name).copied().unwrap_or(0);
                (name, count.saturating_sub(earlier))
            });
            anyhow::Ok(each.collect())
        };
        let [near, far] = &self.before;
        Ok([grown(self.bed.near(), near)?, grown(self.bed.far(), far)?])
    }
}

impl Ward {
    /// The namespaces, with addresses, limits and endpoints.
    fn prepared(&self, is_short: bool) -> anyhow::Result<TestBed> {
        let bed = TestBed::new(Place::TwoPaths, Rules::NONE)?;
        bed.set_rules(1, self.rules)?;
        let limits = |namespace, paths| {
            let addresses = 0;
            path_manager::limit(namespace, Limits { paths, addresses })
        };
        limits(bed.near(), ENDPOINTS.into())?;
        limits(bed.far(), self.server_limit)?;
        let join_from = |address, device| {
            let port = None;
            let flags = Flags::SUBFLOW;
            let endpoint = Endpoint {
                address,
                port,
                device,
                flags,
            };
            path_manager::add(bed.near(), endpoint)
        };
        let [first, second, third, foreign] = self.addresses();
        if is_short {
            join_from(third, Some(veth::SECOND_DEVICE))?;
            for namespace in [bed.near(), bed.far()] {
                for (name, value) in [
                    ("net.ipv4.ip_local_port_range", FEW_PORTS),
                    // Addresses are free again at once.
                    ("net.ipv4.tcp_max_tw_buckets", "0"),
                ] {
                    let is_there = netns::set_sysctl(namespace, name, value)?;
                    ensure!(is_there, "this kernel has no {name} of a namespace");
                }
            }
            return Ok(bed);
        }
        for address in [first, second] {
            veth::add_address(bed.near(), veth::DEVICE, address)?;
            join_from(address, None)?;
        }
        match self.third {
            Third::Second => join_from(third, Some(veth::SECOND_DEVICE))?,
            Third::Foreign => join_from(foreign, None)?,
        }
        Ok(bed)
    }

    /// Addresses to join from: two more on the first pair of devices, one on the second pair, one
    /// that the client does not have.
    fn addresses(&self) -> [IpAddr; 4] {
        let v4 = |third, last| IpAddr::from(Ipv4Addr::new(10, third, 0, last));
        let v6 = |first, last| IpAddr::from(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last));
        match self.family {
            Family::V4 | Family::Mapped => [v4(77, 3), v4(77, 4), v4(78, 1), v4(79, 1)],
            Family::V6 => [v6(0xfd77, 3), v6(0xfd77, 4), v6(0xfd78, 1), v6(0xfd79, 1)],
        }
    }

    fn play(
        &'static self,
        bed: TestBed,
        args: &Args,
        connections: u32,
        since_ns: u64,
    ) -> anyhow::Result<(Crowd, Held)> {
        let before = [netns::counters(bed.near())?, netns::counters(bed.far())?];
        let (client, server) = bed.addresses(self.family);
        let served = Scratch::new(&format!("{}-served", self.name));
        let (server, at) = start_server(bed.far(), server, &served)?;
        let start = |number: u32| {
            let out = Scratch::new(&format!("{}-made-{number}", self.name));
            let mut command = own("many-client")?;
            let (endpoints, joins) = match args.short {
                true => (1, 1),
                false => (ENDPOINTS, ENDPOINTS - 1),
            };
            let (bytes, messages) = match args.short {
                true => (20, 0),
                false => (1_000 + number * 400, MESSAGES),
            };
            let from = SocketAddr::new(client, 0);
            command.args(["--from", &from.to_string(), "--to", &at.to_string()]);
            command.args(["--connections", &connections.to_string()]);
            command.args(["--endpoints", &endpoints.to_string()]);
            command.args(["--joins", &joins.to_string()]);
            command.args(["--bytes", &bytes.to_string()]);
            command.args(["--messages", &messages.to_string()]);
            command.args(["--pause-ms", &PAUSE_MS.to_string()]);
            command.args(args.short.then_some("--abort"));
            command.arg("--out").arg(&out.0);
            let running = netns::within(bed.near(), || Running::start("a client", &mut command))?;
            anyhow::Ok((running, out))
        };
        let running: Vec<_> = (0..args.processes)
            .map(start)
            .collect::<anyhow::Result<_>>()?;
        let mut clients = BTreeMap::new();
        for (mut client, out) in running {
            let status = client.0.wait().context("cannot wait for a client")?;
            succeeded("a client", status)?;
            clients.insert(client.pid(), read_lines::<Made>(&out.0)?);
        }
        // The server writes its last line once it has read the end.
        std::thread::sleep(std::time::Duration::from_millis(500));
        let crowd = Crowd {
            ward: self,
            is_short: args.short,
            since_ns,
            netns: [netns::number(bed.near())?, netns::number(bed.far())?],
            clients,
            server_pid: server.pid(),
            served: read_lines(&served.0)?,
            grown: [Counters::new(), Counters::new()],
        };
        let held = Held {
            bed,
            before,
            _server: server,
        };
        Ok((crowd, held))
    }
}

fn start_server(
    namespace: BorrowedFd<'_>,
    address: IpAddr,
    out: &Scratch,
) -> anyhow::Result<(Running, SocketAddr)> {
    let mut command = own("many-server")?;
    let at = SocketAddr::new(address, 0);
    command.args(["--at", &at.to_string()]);
    command.arg("--out").arg(&out.0).stdout(Stdio::piped());
    let mut server = netns::within(namespace, || Running::start("the server", &mut command))?;
    let stdout = server.0.stdout.take().context("the server has no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let Listening { at } = serde_json::from_str(&line).context("the server does not listen")?;
    Ok((server, at))
}
