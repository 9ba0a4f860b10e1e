//! `mptcp-lab ledgers`: what the kernel accounts for each path just before its end (`MPTCP_TCPINFO`,
//! and `ss -ti` where it is installed) and the ledger in the line about that end must be the same.

use std::{
    collections::BTreeMap,
    os::fd::AsRawFd as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use super::{
    end_word,
    joined::{self, Joined, PATIENCE},
};
use crate::{
    account::{self, Path},
    cells::{judged, skipped},
    findings::balanced,
    net::{Endpoint, Family},
    netns, path_manager,
    process::{is_in_path, succeeded},
    recipes::{End, Place, TestBed},
    report::Cell,
    rules::{Rules, Treatment},
    sys,
    traced::{LedgerLine, PathLine, TracedLine},
    tracer::{
        TracerArgs, again,
        suite::{Said, Suite},
    },
};

#[cfg(test)]
mod tests;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    tried: TracerArgs,
}

/// Bytes in each direction before the second path is cut for a moment, and meanwhile.
const BULK_BYTES: usize = 600_000;
/// Drops all packets: what was sent is sent again.
const CUT: Treatment = Treatment {
    drop_all: true,
    ..Treatment::NONE
};
const CUT_DELAY: Duration = Duration::from_millis(300);
/// Nothing is on its way if nothing changes for so long.
const QUIET: Duration = Duration::from_millis(400);

/// What an end adds to a path between the reading and the end. `bytes_sent`, `bytes_retransmitted`
/// and `retransmissions` must stay; the ledger does not count the FIN as a byte.
struct More {
    /// Segments at most: FIN and the acknowledgement of the peer's FIN; of the removed path also
    /// `RM_ADDR`, of the first one also its echo, `DATA_FIN` and its acknowledgements.
    segments: u32,
    /// A path that is closed while it waits for the peer's FIN reports one byte less, because the
    /// FIN, which the kernel counts as a byte, is assumed to have come.
    bytes_received_fewer: u64,
}
const MORE: More = More {
    segments: 8,
    bytes_received_fewer: 1,
};

/// A path as the kernel accounts for it at one end just before it ends.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Read {
    at: End,
    netns: u64,
    local: Endpoint,
    remote: Endpoint,
    account: Path,
}

struct Played {
    family: Family,
    since_ns: u64,
    reads: Vec<Read>,
    /// What `ss` prints otherwise; none if it is not installed.
    unlike_ss: Option<Vec<String>>,
    _bed: TestBed,
}

/// Runs the suite; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    again::on_rungs(&args.tried, |rung, _all| {
        let judge = |played: Vec<(Family, anyhow::Result<Played>)>, said: &Said| {
            let each = played.into_iter().map(|(family, played)| match played {
                Ok(played) => played.judge(rung, &said.lines),
                Err(why) => {
                    let case = format!("ledgers-{}", family.suffix());
                    match why.downcast_ref::<Unbuilt>() {
                        Some(_) => skipped(&case, rung, format!("{why:#}")),
                        None => judged(&case, rung, "two paths", "", vec![format!("{why:#}")]),
                    }
                }
            });
            let mut cells: Vec<Cell> = each.collect();
            cells.push(balanced(rung, &said.lines));
            cells
        };
        let play = || Family::BOTH.map(|family| (family, play(family))).into();
        let suite = Suite::new(&args.tried, rung).showing_all();
        suite.run(|_watch| Ok(play()), judge)
    })
}

/// This kernel cannot have the namespaces.
#[derive(Debug)]
struct Unbuilt;

impl std::fmt::Display for Unbuilt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the namespaces cannot be created")
    }
}

impl std::error::Error for Unbuilt {}

fn play(family: Family) -> anyhow::Result<Played> {
    let since_ns = sys::boottime_ns();
    let bed = TestBed::new(Place::TwoPaths, Rules::NONE).context(Unbuilt)?;
    joined::prepare(bed.near(), bed.far(), family)?;
    let joined = Joined::open(&bed, family)?;
    joined.exchange(BULK_BYTES)?;
    let cut = |rules| bed.set_rules(1, rules);
    cut(Rules {
        to_server: CUT,
        to_client: CUT,
    })?;
    std::thread::scope(|scope| {
        let exchanged = scope.spawn(|| joined.exchange(BULK_BYTES));
        std::thread::sleep(CUT_DELAY);
        cut(Rules::NONE)?;
        let exchanged = exchanged.join();
        exchanged.map_err(|_panic| anyhow::anyhow!("the exchange panicked"))?
    })?;
    let reads = quiet(&bed, &joined)?;
    let unlike_ss = match is_in_path("ss") {
        true => Some(unlike_ss(&bed, &reads)?),
        false => None,
    };
    path_manager::delete(bed.near(), 1)?;
    ensure!(joined.has_joins(0)?, "the second path does not end");
    std::thread::sleep(QUIET);
    drop(joined);
    std::thread::sleep(QUIET);
    Ok(Played {
        family,
        since_ns,
        reads,
        unlike_ss,
        _bed: bed,
    })
}

/// The account of every path at both ends once nothing is on its way.
fn quiet(bed: &TestBed, joined: &Joined) -> anyhow::Result<Vec<Read>> {
    let read = || -> anyhow::Result<Vec<Read>> {
        let mut reads = Vec::new();
        for (at, end, namespace) in [
            (End::Client, &joined.client, bed.near()),
            (End::Server, &joined.server, bed.far()),
        ] {
            let fd = end.as_raw_fd();
            let netns = netns::number(namespace)?;
            let addresses = account::addresses(fd)?.into_iter();
            for ((local, remote), account) in addresses.zip(account::paths(fd)?) {
                reads.push(Read {
                    at,
                    netns,
                    local,
                    remote,
                    account,
                });
            }
        }
        Ok(reads)
    };
    let mut before = read()?;
    let is_quiet = || {
        std::thread::sleep(QUIET);
        let after = read()?;
        let is_quiet = after == before && after.iter().all(Read::is_acknowledged);
        before = after;
        Ok(is_quiet)
    };
    ensure!(PATIENCE.holds(is_quiet)?, "the paths do not come to rest");
    ensure!(before.len() == 4, "not two paths at each end: {before:?}");
    let again = before.iter().any(|it| it.account.retransmissions > 0);
    ensure!(again, "nothing was sent again: {before:?}");
    Ok(before)
}

impl Read {
    /// Everything sent has arrived. The SYN counts as a byte at the end that sent it first.
    fn is_acknowledged(&self) -> bool {
        let account = &self.account;
        let sent = account.bytes_sent - account.bytes_retransmitted;
        (sent..=sent + 1).contains(&account.bytes_acked)
    }

    fn is_of(&self, path: &PathLine) -> bool {
        path.netns == self.netns && path.local == self.local && path.remote == self.remote
    }

    fn name(&self) -> String {
        format!(
            "{} {}:{}",
            end_word(self.at),
            self.local.addr,
            self.local.port
        )
    }

    /// Differences to the line about the end of the path.
    fn unlike(&self, ledger: &LedgerLine) -> Vec<String> {
        let Path {
            bytes_sent,
            bytes_retransmitted,
            bytes_acked: _,
            bytes_received,
            retransmissions,
            segments_sent,
            segments_received,
            rtt_us: _,
            rtt_min_us,
        } = self.account;
        // The smoothed round-trip time changes with each acknowledgement, and the minimum may fall.
        let rtt_min = ledger.rtt_min_ns.map_or(0, |ns| ns / 1_000);
        let segments = |before: u32| (before.into(), u64::from(before) + u64::from(MORE.segments));
        let exactly = |bytes| (bytes, bytes);
        let rows: [(&str, u64, (u64, u64)); 7] = [
            (
                "bytes_sent",
                ledger.bytes_sent,
                exactly(bytes_sent - bytes_retransmitted),
            ),
            (
                "bytes_retransmitted",
                ledger.bytes_retransmitted,
                exactly(bytes_retransmitted),
            ),
            (
                "bytes_received",
                ledger.bytes_received,
                (bytes_received - MORE.bytes_received_fewer, bytes_received),
            ),
            (
                "retransmissions",
                ledger.retransmissions.into(),
                exactly(retransmissions.into()),
            ),
            (
                "segments_sent",
                ledger.segments_sent.into(),
                segments(segments_sent),
            ),
            (
                "segments_received",
                ledger.segments_received.into(),
                segments(segments_received),
            ),
            ("rtt_min", rtt_min, (1, rtt_min_us.into())),
        ];
        let is_wrong = |(_, traced, (least, most)): &(&str, u64, (u64, u64))| {
            !(*least..=*most).contains(traced)
        };
        let each = rows.into_iter().filter(is_wrong);
        each.map(|(field, traced, (least, most))| {
            format!(
                "{}: {field} is {least} to {most}, traced {traced}",
                self.name()
            )
        })
        .collect()
    }
}

impl Played {
    fn judge(&self, rung: &str, lines: &[TracedLine]) -> Cell {
        let case = format!("ledgers-{}", self.family.suffix());
        let ends = || {
            let down = lines.iter().filter_map(|line| {
                let TracedLine::PathDown(path) = line else {
                    return None;
                };
                Some(path)
            });
            down.filter(|path| path.boottime_ns >= self.since_ns)
        };
        let mut wrong = self.unlike_ss.clone().unwrap_or_default();
        let mut traced = Vec::new();
        for read in &self.reads {
            let mut of_it = ends().filter(|path| read.is_of(path));
            let (first, more) = (of_it.next(), of_it.count());
            match first.and_then(|path| path.ledger.as_ref()) {
                Some(ledger) if more == 0 => {
                    let grown = [
                        ledger
                            .segments_sent
                            .saturating_sub(read.account.segments_sent),
                        ledger
                            .segments_received
                            .saturating_sub(read.account.segments_received),
                    ];
                    traced.push(format!("{} +{} +{}", read.name(), grown[0], grown[1]));
                    wrong.extend(read.unlike(ledger));
                }
                _ => wrong.push(format!("{}: not one line about its end", read.name())),
            }
        }
        let ss = match &self.unlike_ss {
            Some(_) => "as ss prints it",
            None => "ss is not installed",
        };
        let caller = format!("{} ends of paths, {ss}", self.reads.len());
        let traced = format!("segments since then: {}", traced.join(", "));
        judged(&case, rung, &caller, &traced, wrong)
    }
}

/// Compares the readings with `ss -ti` in both namespaces.
fn unlike_ss(bed: &TestBed, reads: &[Read]) -> anyhow::Result<Vec<String>> {
    let print = |namespace| {
        netns::within(namespace, || {
            let mut ss = Command::new("ss");
            ss.args(["-t", "-i", "-n", "-H"]).stdin(Stdio::null());
            let output = ss.output().context("cannot run ss")?;
            succeeded("ss", output.status)?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        })
    };
    let printed = [parsed(&print(bed.near())?), parsed(&print(bed.far())?)];
    let mut unlike = Vec::new();
    for read in reads {
        let all = match read.at {
            End::Client => &printed[0],
            End::Server => &printed[1],
        };
        let ends = [shown(&read.local), shown(&read.remote)];
        match all.get(&ends) {
            Some(path) if *path == read.account => {}
            other => unlike.push(format!(
                "{}: {:?}, ss: {other:?}",
                read.name(),
                read.account
            )),
        }
    }
    Ok(unlike)
}

/// An address as `ss` prints it.
fn shown(of: &Endpoint) -> String {
    match of.addr.contains(':') {
        true => format!("[{}]:{}", of.addr, of.port),
        false => format!("{}:{}", of.addr, of.port),
    }
}

/// The sockets that `ss -tinH` prints: a line with the addresses, and one with the account.
fn parsed(printed: &str) -> BTreeMap<[String; 2], Path> {
    let mut all = BTreeMap::new();
    let mut ends = None;
    for line in printed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !line.starts_with(char::is_whitespace) {
            let end = |index: usize| {
                let word = words.get(index)?;
                // A socket that is bound to a device has its name in the address.
                let (address, port) = word.rsplit_once(':')?;
                let (bare, _device) = address.split_once('%').unwrap_or((address, ""));
                let close = if bare.starts_with('[') && !bare.ends_with(']') {
                    "]"
                } else {
                    ""
                };
                Some(format!("{bare}{close}:{port}"))
            };
            ends = end(3).zip(end(4)).map(|(local, remote)| [local, remote]);
            continue;
        }
        let value = |name: &str| words.iter().find_map(|word| word.strip_prefix(name));
        let number = |name| value(name).and_then(|it| it.parse().ok()).unwrap_or(0);
        let count = |name| u32::try_from(number(name)).unwrap_or(u32::MAX);
        // Milliseconds, and after a slash the variance.
        let micros = |name| {
            let first = value(name).and_then(|it| it.split('/').next());
            let ms: f64 = first.and_then(|it| it.parse().ok()).unwrap_or(0.0);
            (ms * 1_000.0).round() as u32
        };
        // How many are on their way, a slash, and how many there were.
        let again = value("retrans:").and_then(|it| it.split_once('/')?.1.parse().ok());
        let path = Path {
            bytes_sent: number("bytes_sent:"),
            bytes_retransmitted: number("bytes_retrans:"),
            bytes_acked: number("bytes_acked:"),
            bytes_received: number("bytes_received:"),
            retransmissions: again.unwrap_or(0),
            segments_sent: count("segs_out:"),
            segments_received: count("segs_in:"),
            rtt_us: micros("rtt:"),
            rtt_min_us: micros("minrtt:"),
        };
        if let Some(ends) = ends.take() {
            all.insert(ends, path);
        }
    }
    all
}
