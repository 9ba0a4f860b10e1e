//! Benchmarks on the machine's own kernel: the lab's verbs one after the other, then the stages
//! behind the ring.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{
    criterion,
    figures::{Binary, LabLine, Native},
    machine::Machine,
};
use crate::{
    build,
    command::{self, is_root, say},
    host_packages::{self, BENCH_NEEDS},
    places::Places,
};

/// Time limit for one verb of the lab, in seconds: a hanging verb must not block the rest.
const STEP_MAX_S: &str = "600";

/// One verb of the lab.
struct Step {
    what: &'static str,
    /// Expected duration in seconds.
    takes_s: u32,
    words: Vec<&'static str>,
}

/// Returns every step; `quick` selects fewer and shorter rounds.
fn steps(quick: bool) -> Vec<Step> {
    let pick = |full: &'static str, short: &'static str| if quick { short } else { full };
    let step = |what, takes_s: [u32; 2], words: &[&'static str]| Step {
        what,
        takes_s: takes_s[usize::from(quick)],
        words: words.to_vec(),
    };
    let (few, steady) = (pick("3", "1"), pick("10", "3"));
    vec![
        step(
            "what a call costs, beside the tracer and beside bpftrace",
            [110, 25],
            &[
                "figures",
                "--json",
                "--rounds",
                pick("7", "2"),
                "--batches",
                pick("15", "5"),
            ],
        ),
        step(
            "the start",
            [10, 4],
            &["start-time", "--starts", pick("10", "3")],
        ),
        step(
            "memory with 10,000 connections",
            [8, 8],
            &["resident", "--connections", "10000"],
        ),
        step(
            "two rates for a while",
            [25, 10],
            &[
                "rates",
                "--seconds",
                steady,
                "--rate",
                "10000",
                "--rate",
                "200000",
            ],
        ),
        step(
            "rates until queries are lost",
            [25, 12],
            &[
                "rates",
                "--seconds",
                few,
                "--rate",
                "50000",
                "--rate",
                "100000",
                "--rate",
                "400000",
                "--rate",
                "0",
            ],
        ),
        step(
            "floods",
            [45, 15],
            if quick {
                &["floods", "--short"]
            } else {
                &["floods"]
            },
        ),
        step(
            "bulk transfers of iperf3",
            [210, 20],
            &[
                "bulk-cost",
                "--iperf",
                "--json",
                "--attach",
                "auto",
                "--rounds",
                pick("25", "2"),
                "--seconds",
                pick("3", "2"),
            ],
        ),
        step(
            "bulk transfers of iperf3 on two paths",
            [210, 20],
            &[
                "bulk-cost",
                "--iperf",
                "--two-paths",
                "--json",
                "--attach",
                "auto",
                "--rounds",
                pick("25", "2"),
                "--seconds",
                pick("3", "2"),
            ],
        ),
        step(
            "bulk transfers without offloads",
            [120, 15],
            &[
                "bulk-cost",
                "--json",
                "--attach",
                "auto",
                "--rounds",
                pick("25", "2"),
                "--seconds",
                pick("1.5", "1"),
            ],
        ),
    ]
}

/// Expected duration of compiling and running the stage benchmarks, in seconds.
const STAGES_TAKE_S: u32 = 150;

/// Runs all benchmarks.
pub(crate) fn measure(places: &Places, quick: bool) -> Result<Native> {
    if !is_root() {
        bail!("measuring on the running kernel needs root; type: sudo cargo xtask bench --native");
    }
    host_packages::provide(&BENCH_NEEDS, "measuring beside bpftrace and iperf3")?;
    let tracer = build::loader(places, true)?;
    let lab = build::lab(places, true)?;
    let mut native = Native {
        machine: Machine::this()?,
        quick,
        calls: Vec::new(),
        footprints: Vec::new(),
        start: None,
        resident: None,
        rates: Vec::new(),
        bulk: Vec::new(),
        floods: Vec::new(),
        stages: Vec::new(),
        binaries: vec![size("linked to the C library", &tracer)?],
    };
    let steps = steps(quick);
    let total_s: u32 = steps.iter().map(|step| step.takes_s).sum();
    say(format_args!(
        "bench: {} steps on the running kernel, about {} min",
        steps.len() + 1,
        (total_s + STAGES_TAKE_S).div_ceil(60)
    ));
    for step in &steps {
        say(format_args!(
            "bench: {}, about {} s",
            step.what, step.takes_s
        ));
        let mut command = Command::new("timeout");
        command
            .arg(STEP_MAX_S)
            .arg(&lab)
            .args(&step.words)
            .arg("--tracer")
            .arg(&tracer);
        for line in run(&mut command, step.what)? {
            native.take(line)?;
        }
    }
    say(format_args!(
        "bench: the stages behind the ring, about {STAGES_TAKE_S} s"
    ));
    native.stages = criterion::stages(places)?;
    native.rates.sort_by_key(|rate| match rate.offered {
        0 => u64::MAX,
        offered => offered,
    });
    Ok(native)
}

/// Runs one verb and returns its lines. The lab fails if a required condition does not hold; its
/// lines name it.
fn run(command: &mut Command, what: &str) -> Result<Vec<LabLine>> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start the lab to measure {what}"))?;
    let lines: Vec<LabLine> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(LabLine::parse)
        .collect::<Result<_>>()?;
    let is_whole =
        output.status.success() || lines.iter().any(|line| matches!(line, LabLine::Summary(_)));
    if !is_whole {
        bail!(
            "measuring {what}: the lab {}",
            command::describe(output.status)
        );
    }
    Ok(lines)
}

impl Native {
    fn take(&mut self, line: LabLine) -> Result<()> {
        match line {
            LabLine::Call(call) => self.calls.push(call),
            LabLine::Footprint(footprint) => self.footprints.push(footprint),
            LabLine::Start(start) => self.start = Some(start),
            LabLine::Resident(resident) => self.resident = Some(resident),
            LabLine::Rate(rate) => self.rates.push(rate),
            LabLine::Bulk(bulk) => self.bulk.push(bulk),
            LabLine::Cell(flood) => self.floods.push(flood),
            LabLine::Host(_) | LabLine::Summary(_) => {}
            LabLine::CallCost(_) | LabLine::Absent(_) => bail!("the lab measures something else"),
        }
        Ok(())
    }
}

/// Returns the size of a program file.
pub(crate) fn size(name: &str, program: &Path) -> Result<Binary> {
    let metadata = program
        .metadata()
        .with_context(|| format!("cannot look at {}", program.display()))?;
    Ok(Binary {
        name: name.to_owned(),
        bytes: metadata.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quick_takes_less() {
        let total = |quick| steps(quick).iter().map(|step| step.takes_s).sum::<u32>();
        assert!(total(true) < total(false));
        assert!(
            total(false) + STAGES_TAKE_S < 16 * 60,
            "the rest is for the machines"
        );
    }
}
