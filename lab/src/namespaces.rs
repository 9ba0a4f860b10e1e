//! `mptcp-lab namespaces`: creates, uses and deletes network namespaces while tracing, as
//! containers and test suites do. The tracer's counts for each must match the kernel's, read just
//! before the deletion.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
};

use anyhow::{Context as _, ensure};
use socket2::Socket;

use crate::{
    cells::judged,
    findings::balanced,
    link::enter_network_namespace,
    net::{self, Family, Kind},
    netns::{self, Counters},
    report::Cell,
    side_by_side, sys,
    traced::{Found, Reconciled, TracedLine},
    tracer::{
        TracerArgs, again,
        suite::{Said, Suite},
    },
};

/// The one cause.
const CAUSE: &str = "MPCapableFallbackSYNACK";
/// Maximum number of fallbacks in one namespace.
const FALLBACKS_MAX: u32 = 4;
/// Namespaces that exist before tracing starts and are held only by a descriptor: `/proc` does not
/// show their counters.
const HELD: u32 = 8;
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    tried: TracerArgs,
    /// Number of namespaces
    #[arg(long, default_value_t = 500)]
    pub(crate) namespaces: u32,
    /// Number of simultaneous namespaces
    #[arg(long, default_value_t = 4)]
    pub(crate) parallel: u32,
}

/// A deleted namespace.
#[derive(Clone, Debug)]
struct Gone {
    netns: u64,
    counted: u64,
}

/// Runs the suite; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    ensure!(args.parallel > 0, "nothing to do");
    again::on_rungs(&args.tried, |rung, _all| {
        let held: Vec<File> = (0..HELD).map(hold).collect::<anyhow::Result<_>>()?;
        let since_ns = sys::boottime_ns();
        let perform = || {
            let mut gone = make(args)?;
            for (namespace, number) in held.iter().zip(0..) {
                gone.push(go_on(namespace, number)?);
            }
            Ok(gone)
        };
        let judge = |gone: Vec<Gone>, said: &Said| {
            let compared = compare(rung, since_ns, &gone, &said.lines);
            vec![compared, balanced(rung, &said.lines)]
        };
        Suite::new(&args.tried, rung).run(|_watch| perform(), judge)
    })
}

fn make(args: &Args) -> anyhow::Result<Vec<Gone>> {
    let all = side_by_side::each((0..args.namespaces).collect(), args.parallel, one);
    all.into_iter().collect()
}

/// Opens this number of connections that fall back.
fn fall_back(count: u32) -> anyhow::Result<Vec<(Socket, Socket)>> {
    let one = |_number| {
        let listener = net::listen(Kind::Tcp, Family::V4)?;
        let client = net::open(Kind::Mptcp, Family::V4)?;
        let to = listener.local_addr()?;
        client.connect(&to).context("cannot connect")?;
        Ok((listener, client))
    };
    (0..count).map(one).collect()
}

/// Count of the kernel in this namespace.
fn counted(namespace: &File) -> anyhow::Result<u64> {
    let counters = netns::counters(namespace.as_fd())?;
    Ok(counters.get(CAUSE).copied().unwrap_or(0))
}

/// A namespace that stays open, with fallbacks from before tracing starts.
fn hold(number: u32) -> anyhow::Result<File> {
    netns::elsewhere(move || {
        enter_network_namespace().context("cannot make a network namespace")?;
        drop(fall_back(number % (FALLBACKS_MAX + 1))?);
        netns::current()
    })
}

/// Adds fallbacks in such a namespace: only these are part of the traced period.
fn go_on(namespace: &File, number: u32) -> anyhow::Result<Gone> {
    let before = counted(namespace)?;
    let more = number % FALLBACKS_MAX + 1;
    netns::within(namespace.as_fd(), || fall_back(more).map(drop))?;
    Ok(Gone {
        netns: namespace.metadata()?.ino(),
        counted: counted(namespace)? - before,
    })
}

/// One namespace, which ends with its thread. In every other one the sockets are closed before the
/// counters are read.
fn one(number: u32) -> anyhow::Result<Gone> {
    netns::elsewhere(move || {
        enter_network_namespace().context("cannot make a network namespace")?;
        let mut open = fall_back(number % (FALLBACKS_MAX + 1))?;
        if number.is_multiple_of(2) {
            open.clear();
        }
        let counted = counted(&netns::current()?)?;
        let netns = fs::metadata("/proc/thread-self/ns/net")?.ino();
        drop(open);
        Ok(Gone { netns, counted })
    })
}

/// Each namespace with a fallback must have an account that agrees. The kernel reuses namespace
/// numbers, so there may be several with one number, in any order.
fn compare(rung: &str, since_ns: u64, gone: &[Gone], lines: &[TracedLine]) -> Cell {
    let mut wrong = Vec::new();
    let mut kernel: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for it in gone.iter().filter(|it| it.counted > 0) {
        kernel.entry(it.netns).or_default().push(it.counted);
    }
    let mut accounts: BTreeMap<u64, Vec<&Reconciled>> = BTreeMap::new();
    let ends = lines.iter().filter_map(TracedLine::end);
    for account in ends.flat_map(|end| &end.reconciliation) {
        accounts.entry(account.netns).or_default().push(account);
    }
    let count = |counters: &Counters| counters.get(CAUSE).copied().unwrap_or(0);
    let (mut all, mut right) = (0, 0);
    for (netns, counts) in &mut kernel {
        all += counts.len();
        let told = accounts.get(netns).map_or(&[][..], |it| it);
        let disagree = told.iter().filter(|it| !it.agrees);
        wrong.extend(disagree.map(|it| format!("{it:?}")));
        let mut told: Vec<u64> = told.iter().map(|it| count(&it.counted)).collect();
        told.sort_unstable();
        counts.sort_unstable();
        match *counts == told {
            true => right += counts.len(),
            false => wrong.push(format!(
                "{netns}: the kernel counted {counts:?}, told {told:?}"
            )),
        }
    }
    let is_ours = |found: &&Found| kernel.contains_key(&found.netns) && !found.is_before(since_ns);
    let traced = lines.iter().filter_map(TracedLine::fallback);
    let traced = traced.filter(is_ours).count() as u64;
    let fell: u64 = gone.iter().map(|it| it.counted).sum();
    if traced != fell {
        wrong.push(format!("{fell} connections fell back, {traced} lines"));
    }
    let caller = format!("{all} network namespaces, {fell} fallbacks");
    let got = format!("{right} accounts, {traced} lines");
    judged("namespaces", rung, &caller, &got, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::Outcome, traced::End};

    #[test]
    fn each_namespace_has_an_account_of_its_own_which_agrees() {
        let account = |netns, dss: u64, agrees| Reconciled {
            netns,
            counted: [(CAUSE.to_owned(), dss)].into(),
            traced: [(CAUSE.to_owned(), dss)].into(),
            agrees,
            why: None,
        };
        let gone = |netns, counted| Gone { netns, counted };
        for (gone, accounts, outcome) in [
            (vec![], vec![], Outcome::Ok),
            (vec![gone(1, 0)], vec![], Outcome::Ok),
            (vec![gone(1, 2)], vec![], Outcome::Mismatch),
            (
                vec![gone(1, 2), gone(1, 1)],
                vec![account(1, 3, true)],
                Outcome::Mismatch,
            ),
            (
                vec![gone(1, 2)],
                vec![account(1, 2, false)],
                Outcome::Mismatch,
            ),
            (
                vec![gone(1, 2)],
                vec![account(2, 2, true)],
                Outcome::Mismatch,
            ),
        ] {
            let end = End {
                routine: 0,
                findings: 0,
                losses: Vec::new(),
                reconciliation: accounts,
                path_reconciliation: Vec::new(),
            };
            let cell = compare("fexit", 0, &gone, &[TracedLine::End(end)]);
            assert_eq!(cell.outcome, outcome, "{gone:?} {cell:?}");
        }
    }
}
