//! The generated parts of docs/benchmarks.md: one block between two markers for each kind of
//! figure.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use super::{
    figures::{Benchmarks, Bulk, Guest, Native},
    limits::limits,
    machine::Machine,
};
use crate::markers;

/// Content of an empty cell.
const ABSENT: &str = "-";

type Render = fn(&Benchmarks) -> Option<String>;

/// Every block by its name.
const BLOCKS: [(&str, Render); 11] = [
    ("machine", |all| {
        Some(machine(
            &all.native.as_ref()?.machine,
            all.native.as_ref()?.quick,
        ))
    }),
    ("calls", |all| Some(calls(all.native.as_ref()?))),
    ("footprint", |all| Some(footprint(all.native.as_ref()?))),
    ("rates", |all| Some(rates(all.native.as_ref()?))),
    ("floods", |all| Some(floods(all.native.as_ref()?))),
    ("bulk", |all| Some(bulk(&all.native.as_ref()?.bulk))),
    ("stages", |all| Some(stages(all.native.as_ref()?))),
    ("guests", |all| Some(guests(&all.guests.as_ref()?.kernels))),
    ("guest-machine", |all| {
        let guests = all.guests.as_ref()?;
        Some(machine(&guests.machine, guests.quick))
    }),
    ("guest-bulk", |all| {
        Some(guest_bulk(&all.guests.as_ref()?.kernels))
    }),
    ("limits", |all| Some(budget(all))),
];

/// Replaces every block for which there are figures.
pub(crate) fn update(path: &Path, all: &Benchmarks) -> Result<()> {
    let page =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let page = updated(page, all)
        .with_context(|| format!("cannot write the tables of {}", path.display()))?;
    fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))
}

fn updated(mut page: String, all: &Benchmarks) -> Result<String> {
    for (name, render) in BLOCKS {
        if let Some(text) = render(all) {
            let [begin, end] = marks(name);
            page = markers::replaced(&page, &begin, &end, &text)?;
        }
    }
    Ok(page)
}

fn marks(name: &str) -> [String; 2] {
    ["begin", "end"].map(|side| format!("<!-- bench {name}:{side} -->"))
}

/// A table in Markdown.
struct Table {
    text: String,
}

impl Table {
    fn new(head: &[&str]) -> Self {
        let mut table = Self {
            text: String::new(),
        };
        table.row(head);
        table.row(&vec!["---"; head.len()]);
        table
    }

    fn row(&mut self, cells: &[impl AsRef<str>]) {
        for cell in cells {
            // Writing to memory does not fail.
            let _infallible = write!(self.text, "| {} ", cell.as_ref());
        }
        self.text.push_str("|\n");
    }
}

/// Formats a number without decimals and with thousands separators.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn machine(machine: &Machine, quick: bool) -> String {
    let Machine {
        cpu,
        cores,
        memory_gb,
        kernel,
        rustc,
        bpftrace,
        iperf3,
        qemu,
        date,
    } = machine;
    let programs: Vec<String> = [("bpftrace", bpftrace), ("iperf3", iperf3), ("QEMU", qemu)]
        .into_iter()
        .filter_map(|(name, version)| Some(format!(", {name} {}", version.as_ref()?)))
        .collect();
    let quick = if quick {
        "\nMeasured with `--quick`: not to be relied on.\n"
    } else {
        ""
    };
    format!(
        "{cpu}, {cores} processors, {memory_gb} GB of memory, Linux {kernel}; rustc {rustc}{}; {date}.\n{quick}",
        programs.concat()
    )
}

fn calls(native: &Native) -> String {
    const CALLS: [&str; 4] = ["in-bursts", "is-mptcp", "other", "unrelated"];
    let mut table = Table::new(&[
        "beside the caller",
        "traced query in bursts, ns",
        "traced query, as fast as it goes, ns",
        "other option, ns",
        "unrelated call, ns",
    ]);
    let mut names: Vec<&str> = Vec::new();
    for call in &native.calls {
        if !names.contains(&call.beside.as_str()) {
            names.push(&call.beside);
        }
    }
    for beside in names {
        let mut row = vec![beside.to_owned()];
        for wanted in CALLS {
            let mut all = native.calls.iter();
            let call = all.find(|call| call.beside == beside && call.call == wanted);
            row.push(call.map_or_else(
                || ABSENT.to_owned(),
                |call| match (call.added_ns_median, call.added_ns_min) {
                    (Some(median), Some(min)) => format!("{median:+.0} ({min:+.0})"),
                    (_, _) => format!("{:.0} ({:.0})", call.ns_median, call.ns_min),
                },
            ));
        }
        table.row(&row);
    }
    table.text
}

fn footprint(native: &Native) -> String {
    let mut table = Table::new(&["", "start, ms", "resident, MB", "at most, MB"]);
    let mb = |kb: u64| format!("{:.1}", kb as f64 / 1e3);
    if let Some(start) = &native.start {
        table.row(&[
            "mptcp-trace, nothing to do".to_owned(),
            format!("{:.0} (fastest {:.0})", start.ms_median, start.ms_min),
            mb(start.resident_kb),
            mb(start.peak_kb),
        ]);
    }
    if let Some(resident) = &native.resident {
        table.row(&[
            format!("mptcp-trace, {} connections open", resident.connections),
            ABSENT.to_owned(),
            mb(resident.resident_kb),
            mb(resident.peak_kb),
        ]);
    }
    for footprint in &native.footprints {
        table.row(&[
            format!("{}, asked as fast as it goes", footprint.beside),
            format!("{:.0}", footprint.start_ms),
            format!("{:.1}", footprint.resident_kb / 1e3),
            ABSENT.to_owned(),
        ]);
    }
    let sizes: Vec<String> = native
        .binaries
        .iter()
        .map(|binary| format!("{:.1} MB ({})", binary.bytes as f64 / 1e6, binary.name))
        .collect();
    format!("{}\nThe program: {}.\n", table.text, sizes.join(", "))
}

fn rates(native: &Native) -> String {
    let mut table = Table::new(&[
        "offered, queries per second",
        "asked per second",
        "for, s",
        "lost: ring full",
        "lost otherwise",
        "reader, of a processor",
        "reader, ms per 100,000 lines",
    ]);
    for rate in &native.rates {
        let per_line = rate.reader_cpu_s / rate.lines.max(1) as f64;
        table.row(&[
            match rate.offered {
                0 => "as fast as 2 threads can".to_owned(),
                offered => grouped(offered as f64),
            },
            grouped(rate.asked as f64 / rate.seconds),
            format!("{:.0}", rate.seconds),
            grouped(rate.ring_full as f64),
            grouped(rate.otherwise_lost as f64),
            format!("{:.1} %", 100.0 * rate.reader_share()),
            format!("{:.0}", per_line * 1e8),
        ]);
    }
    table.text
}

fn floods(native: &Native) -> String {
    let mut table = Table::new(&["proof", "asked", "traced", ""]);
    for flood in &native.floods {
        let word = |text: &Option<String>| text.clone().unwrap_or_else(|| ABSENT.to_owned());
        table.row(&[
            flood.case.clone(),
            word(&flood.caller),
            word(&flood.traced),
            flood.outcome.clone(),
        ]);
    }
    table.text
}

fn bulk(all: &[Bulk]) -> String {
    let mut table = Table::new(&[
        "sender",
        "rounds",
        "alone, MB/s",
        "beside mptcp-trace, MB/s",
        "left",
    ]);
    for bulk in all {
        table.row(&[
            bulk.sender.clone(),
            bulk.rounds.to_string(),
            format!("{:.1}", bulk.alone_mb_s),
            format!("{:.1}", bulk.beside_mb_s),
            format!("{:.1} %", 100.0 * bulk.left),
        ]);
    }
    table.text
}

fn stages(native: &Native) -> String {
    let mut table = Table::new(&["stages", "records a second"]);
    for stage in &native.stages {
        // More digits would vary from run to run.
        let rounded = (stage.records_per_second / 1e4).round() * 1e4;
        table.row(&[stage.name.clone(), grouped(rounded)]);
    }
    table.text
}

fn guests(kernels: &[Guest]) -> String {
    const CALLS: [(&str, &str); 5] = [
        ("is-mptcp", "traced query"),
        ("other-tcp", "TCP_NODELAY of MPTCP"),
        ("other", "SO_TYPE"),
        ("plain-tcp", "TCP_NODELAY of TCP"),
        ("unrelated", "getppid"),
    ];
    let mut head = vec!["Linux", "beside the caller"];
    head.extend(CALLS.map(|(_, title)| title));
    head.push("reader, per traced query");
    let mut table = Table::new(&head);
    for guest in kernels {
        let mut besides: Vec<&str> = Vec::new();
        for cost in &guest.calls {
            if !besides.contains(&cost.beside.as_str()) {
                besides.push(&cost.beside);
            }
        }
        for beside in besides {
            let mut row = vec![guest.kernel.clone(), beside.to_owned()];
            for (call, _) in CALLS {
                row.push(match guest.added(beside, call) {
                    Some(added) => format!("{added:+.0}"),
                    None => guest
                        .cost(beside, call)
                        .map_or_else(|| ABSENT.to_owned(), |cost| format!("{:.0}", cost.ns)),
                });
            }
            let reader = guest.cost(beside, "is-mptcp").map(|cost| cost.reader_ns);
            row.push(match reader {
                Some(reader) if reader > 0.0 => format!("{reader:.0}"),
                Some(_) | None => ABSENT.to_owned(),
            });
            table.row(&row);
        }
    }
    table.text
}

fn guest_bulk(kernels: &[Guest]) -> String {
    let mut table = Table::new(&[
        "Linux",
        "beside the transfer",
        "of the untraced",
        "added per packet, instructions",
    ]);
    for guest in kernels {
        for bulk in &guest.bulk {
            table.row(&[
                guest.kernel.clone(),
                format!("mptcp-trace, {}", bulk.beside),
                format!("{:.1} %", 100.0 * bulk.left),
                format!("{:+.0}", bulk.added_per_packet_ns()),
            ]);
        }
    }
    table.text
}

fn budget(all: &Benchmarks) -> String {
    let mut table = Table::new(&["limit", "wanted", "measured", ""]);
    for limit in limits(all) {
        let word = if limit.kept { "kept" } else { "**missed**" };
        table.row(&[limit.what, &limit.wanted, &limit.measured, word]);
    }
    table.text
}

#[cfg(test)]
mod tests;
