//! What the figures must not exceed: the budget that docs/benchmarks.md shows and `--check` enforces.

use super::figures::{Benchmarks, Native, Rate};

/// What a bulk transfer keeps of its throughput, at least.
const BULK_LEFT_MIN: f64 = 0.97;
/// What the reader takes of a processor at [`MODEST_RATE`], at most.
const READER_SHARE_MAX: f64 = 0.05;
/// Questions a second of a host that asks much.
const MODEST_RATE: u64 = 10_000;
/// Questions a second of which none may be lost.
const STEADY_RATE: u64 = 200_000;
const START_MS_MAX: f64 = 150.0;
const RESIDENT_MB_MAX: f64 = 25.0;
const BINARY_MB_MAX: f64 = 6.0;

/// One limit, and what was measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limit {
    pub(crate) what: &'static str,
    pub(crate) wanted: String,
    pub(crate) measured: String,
    pub(crate) kept: bool,
}

/// All limits of which something was measured.
pub(crate) fn limits(all: &Benchmarks) -> Vec<Limit> {
    let Some(native) = &all.native else {
        return Vec::new();
    };
    [
        cheaper_than_bpftrace(native),
        bulk(native),
        steady(native),
        accounted(native),
        reader(native),
        floods(native),
        start(native),
        resident(native),
        binary(native),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn added(native: &Native, beside: &str) -> Option<f64> {
    let mut calls = native.calls.iter();
    calls
        .find(|call| call.beside == beside && call.call == "is-mptcp")?
        .added_ns_median
}

fn cheaper_than_bpftrace(native: &Native) -> Option<Limit> {
    let script = added(native, "bpftrace, printing")?;
    let ours = added(native, "mptcp-trace, text")?;
    Some(Limit {
        what: "a traced query, against the same bpftrace script",
        wanted: format!("< {script:.0} ns"),
        measured: format!("{ours:.0} ns"),
        kept: ours < script,
    })
}

fn bulk(native: &Native) -> Option<Limit> {
    let bulk = native.bulk.iter().find(|bulk| bulk.sender == "iperf3")?;
    Some(Limit {
        what: "throughput left to iperf3",
        wanted: format!(">= {:.0} %", 100.0 * BULK_LEFT_MIN),
        measured: format!("{:.1} %", 100.0 * bulk.left),
        kept: bulk.left >= BULK_LEFT_MIN,
    })
}

fn rate(native: &Native, offered: u64) -> Option<&Rate> {
    native.rates.iter().find(|rate| rate.offered == offered)
}

fn steady(native: &Native) -> Option<Limit> {
    let rate = rate(native, STEADY_RATE)?;
    let lost = rate.ring_full + rate.otherwise_lost;
    Some(Limit {
        what: "lost of 200,000 questions a second",
        wanted: "0".to_owned(),
        measured: lost.to_string(),
        kept: lost == 0,
    })
}

fn accounted(native: &Native) -> Option<Limit> {
    let off = native.rates.iter().filter(|rate| !rate.balances).count();
    (!native.rates.is_empty()).then(|| Limit {
        what: "rates at which a question is not accounted for",
        wanted: "0".to_owned(),
        measured: off.to_string(),
        kept: off == 0,
    })
}

fn reader(native: &Native) -> Option<Limit> {
    let share = rate(native, MODEST_RATE)?.reader_share();
    Some(Limit {
        what: "of one processor, at 10,000 questions a second",
        wanted: format!("< {:.0} %", 100.0 * READER_SHARE_MAX),
        measured: format!("{:.1} %", 100.0 * share),
        kept: share < READER_SHARE_MAX,
    })
}

fn floods(native: &Native) -> Option<Limit> {
    let wrong: Vec<&str> = native
        .floods
        .iter()
        .filter(|flood| flood.outcome != "ok")
        .map(|flood| flood.case.as_str())
        .collect();
    (!native.floods.is_empty()).then(|| Limit {
        what: "floods: every question accounted for, no fallback lost",
        wanted: "all".to_owned(),
        measured: if wrong.is_empty() {
            "all".to_owned()
        } else {
            format!("not {}", wrong.join(", "))
        },
        kept: wrong.is_empty(),
    })
}

fn start(native: &Native) -> Option<Limit> {
    let ms = native.start.as_ref()?.ms_median;
    Some(Limit {
        what: "start, median",
        wanted: format!("< {START_MS_MAX:.0} ms"),
        measured: format!("{ms:.0} ms"),
        kept: ms < START_MS_MAX,
    })
}

fn resident(native: &Native) -> Option<Limit> {
    let mb = native.start.as_ref()?.resident_kb as f64 / 1e3;
    Some(Limit {
        what: "resident when live",
        wanted: format!("< {RESIDENT_MB_MAX:.0} MB"),
        measured: format!("{mb:.1} MB"),
        kept: mb < RESIDENT_MB_MAX,
    })
}

fn binary(native: &Native) -> Option<Limit> {
    let bytes = native.binaries.iter().map(|binary| binary.bytes).max()?;
    let mb = bytes as f64 / 1e6;
    Some(Limit {
        what: "the program, the largest of its builds",
        wanted: format!("< {BINARY_MB_MAX:.0} MB"),
        measured: format!("{mb:.1} MB"),
        kept: mb < BINARY_MB_MAX,
    })
}
