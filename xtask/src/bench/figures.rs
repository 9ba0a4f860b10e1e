//! The figures of docs/benchmarks.json: what the tables and the plot are made from, and what the lab reports line by line.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::machine::Machine;

/// All that was measured; a run that measures a part keeps the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Benchmarks {
    /// On a machine's own kernel, by its clock.
    pub(crate) native: Option<Native>,
    /// In virtual machines, by their instructions.
    pub(crate) guests: Option<Guests>,
}

/// By wall clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Native {
    pub(crate) machine: Machine,
    /// With fewer rounds than it takes for figures to be relied on.
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

/// By instructions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Guests {
    pub(crate) machine: Machine,
    pub(crate) quick: bool,
    pub(crate) kernels: Vec<Guest>,
}

/// One kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Guest {
    /// Its version.
    pub(crate) kernel: String,
    pub(crate) calls: Vec<CallCost>,
    pub(crate) bulk: Vec<Bulk>,
}

impl Guest {
    /// What a call takes beside something.
    pub(crate) fn cost(&self, beside: &str, call: &str) -> Option<&CallCost> {
        let mut all = self.calls.iter();
        all.find(|cost| cost.beside == beside && cost.call == call)
    }

    /// What is added to it; none beside nothing.
    pub(crate) fn added(&self, beside: &str, call: &str) -> Option<f64> {
        let untraced = self.cost(NOTHING, call)?.ns;
        let traced = self.cost(beside, call)?.ns;
        (beside != NOTHING).then_some(traced - untraced)
    }
}

/// Beside which a call takes what it takes.
const NOTHING: &str = "nothing";

/// What a call takes beside something; `added_*` only beside something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) beside: String,
    pub(crate) call: String,
    pub(crate) ns_median: f64,
    pub(crate) ns_min: f64,
    pub(crate) added_ns_median: Option<f64>,
    pub(crate) added_ns_min: Option<f64>,
}

/// What something needs besides time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Footprint {
    pub(crate) beside: String,
    pub(crate) start_ms: f64,
    pub(crate) resident_kb: f64,
}

/// From exec until the tracer is live.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) ms_min: f64,
    pub(crate) ms_median: f64,
    pub(crate) resident_kb: u64,
    pub(crate) peak_kb: u64,
}

/// Memory with very many open connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Resident {
    pub(crate) connections: u64,
    pub(crate) idle_kb: u64,
    pub(crate) resident_kb: u64,
    pub(crate) peak_kb: u64,
}

/// Questions at a rate; `offered` 0: as many as possible.
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
    /// What the reader needs of one processor.
    pub(crate) fn reader_share(&self) -> f64 {
        self.reader_cpu_s / self.seconds
    }
}

/// A bulk transfer beside a tracer on one rung.
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

/// Payload of a packet of the lab's transfers, whose offloads are off.
const PACKET_BYTES: f64 = 1448.0;

impl Bulk {
    /// What is added to each packet, nanoseconds (instructions, where those are the clock).
    pub(crate) fn added_per_packet_ns(&self) -> f64 {
        let per_packet_ns = |mb_s: f64| PACKET_BYTES * 1e3 / mb_s;
        per_packet_ns(self.beside_mb_s) - per_packet_ns(self.alone_mb_s)
    }
}

/// Instructions of a call beside something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CallCost {
    pub(crate) beside: String,
    pub(crate) call: String,
    pub(crate) ns: f64,
    pub(crate) reader_ns: f64,
}

/// One proof about floods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Flood {
    pub(crate) case: String,
    pub(crate) outcome: String,
    pub(crate) caller: Option<String>,
    pub(crate) traced: Option<String>,
    #[serde(default)]
    pub(crate) why: String,
}

/// Records a second of one stage behind the ring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) records_per_second: f64,
}

/// Size of the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Binary {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// A kernel, or what it cannot do.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Host {
    pub(crate) kernel: String,
}

/// A rung that is not there, and why.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Absent {
    pub(crate) beside: String,
    pub(crate) why: String,
}

/// A line of the lab.
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
    /// Reads a line.
    pub(crate) fn parse(line: &str) -> Result<Self> {
        serde_json::from_str(line)
            .with_context(|| format!("the lab's line {line:?} makes no sense"))
    }
}

impl Benchmarks {
    /// What was measured before; nothing if there is no such file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} makes no sense; delete it and measure anew",
                path.display()
            )
        })
    }

    /// Keeps it.
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
        // 10 microseconds a packet alone, 20 beside the tracer.
        assert!((bulk.added_per_packet_ns() - 10_000.0).abs() < 1e-6);
    }
}
