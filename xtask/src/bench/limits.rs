//! The performance budget: docs/benchmarks.md shows it and `--check` enforces it.

use super::figures::{Benchmarks, Guests, Native, Rate};

/// Minimum share of its throughput that a bulk transfer keeps.
const BULK_LEFT_MIN: f64 = 0.97;
/// Minimum share if the transfer uses two paths: the sensor of paths does nothing for packets.
const TWO_PATHS_LEFT_MIN: f64 = 0.99;
/// Maximum share of one processor that the reader uses at [`MODEST_RATE`].
const READER_SHARE_MAX: f64 = 0.05;
/// Queries per second of a host with many queries.
const MODEST_RATE: u64 = 10_000;
/// Queries per second at which none may be lost.
const STEADY_RATE: u64 = 200_000;
const START_MS_MAX: f64 = 90.0;
/// Without connections, and with 10,000.
const IDLE_MB_MAX: f64 = 12.0;
const RESIDENT_MB_MAX: f64 = 25.0;
const BINARY_MB_MAX: f64 = 6.0;

/// One limit, and the measured value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limit {
    pub(crate) what: &'static str,
    pub(crate) wanted: String,
    pub(crate) measured: String,
    pub(crate) kept: bool,
}

/// Returns every limit for which there is a measurement.
pub(crate) fn limits(all: &Benchmarks) -> Vec<Limit> {
    let native = all.native.as_ref().map_or_else(Vec::new, |native| {
        [
            beside_script(native, "in-bursts", PRINTING, 0.25),
            beside_script(native, "in-bursts", COUNTING, 1.0),
            beside_script(native, "is-mptcp", COUNTING, 1.0),
            beside_script(native, "other", COUNTING, 0.5),
            bulk(native, "iperf3", "throughput left to iperf3", BULK_LEFT_MIN),
            bulk(
                native,
                "iperf3, two paths",
                "throughput left to iperf3 on two paths",
                TWO_PATHS_LEFT_MIN,
            ),
            steady(native),
            accounted(native),
            reader(native),
            floods(native),
            start(native),
            resident(native),
            resident_with_connections(native),
            binary(native),
            stages(native),
        ]
        .into_iter()
        .flatten()
        .collect()
    });
    let guests = all.guests.iter().flat_map(|guests| {
        FEXIT
            .iter()
            .map(|limit| instructions(guests, limit))
            .collect::<Vec<_>>()
    });
    native.into_iter().chain(guests.flatten()).collect()
}

const PRINTING: &str = "bpftrace, printing";
const COUNTING: &str = "bpftrace, counting";
/// Maximum numbers of instructions that fexit adds to a traced query, and to another option of an
/// MPTCP socket. Each of the two further programs of kernels that preempt programs adds an entry
/// and an exit of the trampoline (decision 12).
const FEXIT: [Instructions; 4] = [
    Instructions {
        what: "instructions of a traced query, fexit",
        call: "is-mptcp",
        in_turns: false,
        max: 1400.0,
    },
    Instructions {
        what: "instructions of another option, fexit",
        call: "other-tcp",
        in_turns: false,
        max: 220.0,
    },
    Instructions {
        what: "instructions of a traced query, fexit, three programs",
        call: "is-mptcp",
        in_turns: true,
        max: 1600.0,
    },
    Instructions {
        what: "instructions of another option, fexit, three programs",
        call: "other-tcp",
        in_turns: true,
        max: 530.0,
    },
];

/// A limit for instructions.
struct Instructions {
    what: &'static str,
    call: &'static str,
    /// On kernels where programs take turns.
    in_turns: bool,
    max: f64,
}

/// True if three programs take turns on this kernel (`preemption.rs` of the tracer): its default is
/// lazy preemption.
fn takes_turns(kernel: &str) -> bool {
    let mut numbers = kernel
        .split('.')
        .map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(13))
}
/// Minimum number of records per second that are decoded, correlated and written as JSON.
const JSON_PER_S_MIN: f64 = 1e6;

/// Cost of a call as a share of its cost beside a bpftrace script. Compares the fastest batches,
/// because noise adds to either side without saying anything about its cost.
fn beside_script(native: &Native, call: &str, script: &str, share: f64) -> Option<Limit> {
    let added = |beside: &str| {
        let mut calls = native.calls.iter();
        calls
            .find(|it| it.beside == beside && it.call == call)?
            .added_ns_min
    };
    let (theirs, ours) = (added(script)?, added("mptcp-trace, text")?);
    let what = match (call, script) {
        ("in-bursts", PRINTING) => "a traced query in bursts, beside the printing script",
        ("in-bursts", _) => "a traced query in bursts, beside the counting script",
        ("is-mptcp", _) => "a traced query, beside the counting script",
        _ => "another option, beside a script",
    };
    Some(Limit {
        what,
        wanted: format!("<= {share} x {theirs:.0} ns"),
        measured: format!("{ours:.0} ns"),
        kept: ours <= share * theirs,
    })
}

/// Instructions with fexit, on the kernel with the highest count.
fn instructions(guests: &Guests, limit: &Instructions) -> Option<Limit> {
    let of_limit = guests
        .kernels
        .iter()
        .filter(|guest| takes_turns(&guest.kernel) == limit.in_turns);
    let (added, kernel) = of_limit
        .filter_map(|guest| Some((guest.added("fexit", limit.call)?, &guest.kernel)))
        .max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    Some(Limit {
        what: limit.what,
        wanted: format!("<= {:.0}", limit.max),
        measured: format!("{added:.0} (Linux {kernel})"),
        kept: added <= limit.max,
    })
}

fn resident_with_connections(native: &Native) -> Option<Limit> {
    let mb = native.resident.as_ref()?.resident_kb as f64 / 1e3;
    Some(Limit {
        what: "resident with 10,000 live connections",
        wanted: format!("< {RESIDENT_MB_MAX:.0} MB"),
        measured: format!("{mb:.1} MB"),
        kept: mb < RESIDENT_MB_MAX,
    })
}

fn stages(native: &Native) -> Option<Limit> {
    let json = native.stages.iter().find(|it| it.name.contains("JSON"))?;
    Some(Limit {
        what: "decode, correlate and JSON, records a second",
        wanted: format!(">= {JSON_PER_S_MIN:.0}"),
        measured: format!("{:.0}", json.records_per_second),
        kept: json.records_per_second >= JSON_PER_S_MIN,
    })
}

fn bulk(native: &Native, sender: &str, what: &'static str, left_min: f64) -> Option<Limit> {
    let bulk = native.bulk.iter().find(|bulk| bulk.sender == sender)?;
    Some(Limit {
        what,
        wanted: format!(">= {:.0} %", 100.0 * left_min),
        measured: format!("{:.1} %", 100.0 * bulk.left),
        kept: bulk.left >= left_min,
    })
}

fn rate(native: &Native, offered: u64) -> Option<&Rate> {
    native.rates.iter().find(|rate| rate.offered == offered)
}

fn steady(native: &Native) -> Option<Limit> {
    let rate = rate(native, STEADY_RATE)?;
    let lost = rate.ring_full + rate.otherwise_lost;
    Some(Limit {
        what: "queries lost at 200,000 per second",
        wanted: "0".to_owned(),
        measured: lost.to_string(),
        kept: lost == 0,
    })
}

fn accounted(native: &Native) -> Option<Limit> {
    let off = native.rates.iter().filter(|rate| !rate.balances).count();
    (!native.rates.is_empty()).then(|| Limit {
        what: "rates at which a query is not accounted for",
        wanted: "0".to_owned(),
        measured: off.to_string(),
        kept: off == 0,
    })
}

fn reader(native: &Native) -> Option<Limit> {
    let share = rate(native, MODEST_RATE)?.reader_share();
    Some(Limit {
        what: "share of one processor, at 10,000 queries per second",
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
        what: "floods: every query accounted for, no fallback lost",
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
    let mb = native.resident.as_ref()?.idle_kb as f64 / 1e3;
    Some(Limit {
        what: "resident, idle",
        wanted: format!("< {IDLE_MB_MAX:.0} MB"),
        measured: format!("{mb:.1} MB"),
        kept: mb < IDLE_MB_MAX,
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
