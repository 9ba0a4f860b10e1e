//! The schema of docs/benchmarks.json, the source of the tables and the plot, and of the lab's JSON
//! lines.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::machine::Machine;

/// All measurements. A run that measures only one part keeps the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Benchmarks {
    /// Wall-clock times on a machine's own kernel.
    pub(crate) native: Option<Native>,
    /// Instruction counts in virtual machines.
    pub(crate) guests: Option<Guests>,
}

/// Measurements by wall clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Native {
    pub(crate) machine: Machine,
    /// True if the run used too few rounds for reliable figures.
    pub(crate) quick: bool,
    pub(crate) calls: Vec<Call>,
    pub(crate) footprints: Vec<Footprint>,
    pub(crate) start: Option<Start>,
    pub(crate) resident: Option<Resident>,
    pub(crate) rates: Vec<Rate>,
    pub(crate) bulk: Vec<Bulk>,
    pub(crate) floods: Vec<Flood>,
    pub(crate) stages: Vec<Stage>,
    pub(crate) binaries: Vec<Binary>,
}

/// Measurements by instruction count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Guests {
    pub(crate) machine: Machine,
    pub(crate) quick: bool,
    pub(crate) kernels: Vec<Guest>,
}

/// Instruction counts on one kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Guest {
    /// Kernel version.
    pub(crate) kernel: String,
    pub(crate) calls: Vec<CallCost>,
    pub(crate) bulk: Vec<Bulk>,
}

impl Guest {
    /// The cost of `call` while `beside` is running.
    pub(crate) fn cost(&self, beside: &str, call: &str) -> Option<&CallCost> {
        let mut all = self.calls.iter();
        all.find(|cost| cost.beside == beside && cost.call == call)
    }

    /// The instructions that `beside` adds to `call`; `None` for the baseline.
    pub(crate) fn added(&self, beside: &str, call: &str) -> Option<f64> {
        let untraced = self.cost(NOTHING, call)?.ns;
        let traced = self.cost(beside, call)?.ns;
        (beside != NOTHING).then_some(traced - untraced)
    }
}

/// Name of the baseline, in which no tracer runs.
const NOTHING: &str = "nothing";

/// Time of a call while another program runs; `added_*` is absent for the baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) beside: String,
    pub(crate) call: String,
    pub(crate) ns_median: f64,
    pub(crate) ns_min: f64,
    pub(crate) added_ns_median: Option<f64>,
    pub(crate) added_ns_min: Option<f64>,
}

/// Memory and processor use of a tracer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Footprint {
    pub(crate) beside: String,
    pub(crate) start_ms: f64,
    pub(crate) resident_kb: f64,
}

/// Time from exec until the tracer is live.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) ms_min: f64,
    pub(crate) ms_median: f64,
    pub(crate) resident_kb: u64,
    pub(crate) peak_kb: u64,
}

/// Resident memory with many open connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Resident {
    pub(crate) connections: u64,
    pub(crate) idle_kb: u64,
    pub(crate) resident_kb: u64,
    pub(crate) peak_kb: u64,
}

/// Queries at a fixed rate; `offered` 0 means as fast as possible.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rate {
    pub(crate) offered: u64,
    pub(crate) seconds: f64,
    pub(crate) asked: u64,
    pub(crate) lines: u64,
    pub(crate) ring_full: u64,
    pub(crate) otherwise_lost: u64,
    pub(crate) balances: bool,
    pub(crate) reader_cpu_s: f64,
    pub(crate) peak_kb: u64,
}

impl Rate {
    /// Share of one processor that the reader uses.
    pub(crate) fn reader_share(&self) -> f64 {
        self.reader_cpu_s / self.seconds
    }
}

/// A bulk transfer while a tracer runs with one attach method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bulk {
    /// `iperf3` or `lab`.
    pub(crate) sender: String,
    pub(crate) beside: String,
    pub(crate) rounds: u64,
    pub(crate) alone_mb_s: f64,
    pub(crate) beside_mb_s: f64,
    pub(crate) left: f64,
}

/// Payload bytes of one packet in the lab's transfers, which disable offloads.
const PACKET_BYTES: f64 = 1448.0;

impl Bulk {
    /// Overhead per packet in nanoseconds, or in instructions on the instruction clock.
    pub(crate) fn added_per_packet_ns(&self) -> f64 {
        let per_packet_ns = |mb_s: f64| PACKET_BYTES * 1e3 / mb_s;
        per_packet_ns(self.beside_mb_s) - per_packet_ns(self.alone_mb_s)
    }
}

/// Instructions that a call takes while another program runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CallCost {
    pub(crate) beside: String,
    pub(crate) call: String,
    pub(crate) ns: f64,
    pub(crate) reader_ns: f64,
}

/// Result of one flood check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Flood {
    pub(crate) case: String,
    pub(crate) outcome: String,
    pub(crate) caller: Option<String>,
    pub(crate) traced: Option<String>,
    #[serde(default)]
    pub(crate) why: String,
}

/// Records per second of one stage behind the ring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) records_per_second: f64,
}

/// Size of a program file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Binary {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// The kernel on which the lab runs.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Host {
    pub(crate) kernel: String,
}

/// An attach method that this kernel lacks, and the reason.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Absent {
    pub(crate) beside: String,
    pub(crate) why: String,
}

/// One JSON line of the lab.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub(crate) enum LabLine {
    Host(Host),
    Call(Call),
    Footprint(Footprint),
    Start(Start),
    Resident(Resident),
    Rate(Rate),
    Bulk(Bulk),
    CallCost(CallCost),
    Absent(Absent),
    Cell(Flood),
    Summary(serde::de::IgnoredAny),
}

impl LabLine {
    /// Parses one line.
    pub(crate) fn parse(line: &str) -> Result<Self> {
        serde_json::from_str(line).with_context(|| format!("cannot parse the lab's line {line:?}"))
    }
}

impl Benchmarks {
    /// Reads earlier measurements; returns the default if the file is missing.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| {
            format!(
                "cannot parse {}; delete it and measure again",
                path.display()
            )
        })
    }

    /// Writes the measurements to the file.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("cannot write the figures")?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_lab_becomes_a_figure() {
        let line = r#"{"type":"call","data":{"beside":"nothing","call":"other","ns_median":2.0,"ns_min":1.0,"added_ns_median":null,"added_ns_min":null}}"#;
        assert!(matches!(LabLine::parse(line), Ok(LabLine::Call(call)) if call.ns_min == 1.0));
        let line = r#"{"type":"summary","data":{"ok":4}}"#;
        assert!(matches!(LabLine::parse(line), Ok(LabLine::Summary(_))));
        assert!(LabLine::parse("no json").is_err());
    }

    #[test]
    fn a_packet_takes_what_its_bytes_take() {
        let bulk = Bulk {
            sender: "lab".to_owned(),
            beside: "fexit".to_owned(),
            rounds: 1,
            alone_mb_s: 144.8,
            beside_mb_s: 72.4,
            left: 0.5,
        };
        // A packet takes 10 microseconds without a tracer, and 20 with one.
        assert!((bulk.added_per_packet_ns() - 10_000.0).abs() < 1e-6);
    }
}
