//! Benchmarks in virtual machines whose clock counts instructions. Other load on the host does not
//! change the results.

use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};

use super::{
    figures::{Guest, Guests, LabLine},
    machine::{self, Machine},
};
use crate::{
    build::StaticPrograms,
    command::say,
    fleet::Fleet,
    initramfs::{LAB, TRACER},
    kernels::Found,
    places::Places,
    qemu::Said,
};

/// Kernels of different shapes: without the option, long-term, between two releases, newest.
pub(crate) const SERIES: [&str; 4] = ["6.1", "6.12", "6.16", "7.3"];
/// Time limit for one command in one machine, in seconds.
const JOB_TIME_MAX_S: u64 = 600;
/// Expected duration of one machine in seconds, with two running at a time.
const MACHINE_TAKES_S: usize = 150;
/// Most machines that run at a time: each emulates its processor in one thread.
const MACHINES_MAX: usize = 2;

/// Runs the benchmarks on all kernels.
pub(crate) fn measure(
    places: Places,
    programs: StaticPrograms,
    series: &[String],
    quick: bool,
) -> Result<Guests> {
    let fleet =
        Fleet::prepare(places, vec![programs], false, JOB_TIME_MAX_S)?.counting_instructions();
    say(format_args!(
        "bench: {} kernels in virtual machines that count instructions, about {} min",
        series.len(),
        (series.len().div_ceil(MACHINES_MAX) * MACHINE_TAKES_S).div_ceil(60)
    ));
    let mut kernels = Vec::new();
    for some in series.chunks(MACHINES_MAX) {
        let measured: Vec<Result<Guest>> = thread::scope(|scope| {
            let machines: Vec<_> = some
                .iter()
                .map(|series| scope.spawn(|| one(&fleet, series, quick)))
                .collect();
            machines
                .into_iter()
                .map(|machine| {
                    machine
                        .join()
                        .unwrap_or_else(|_panic| Err(anyhow!("a machine's thread panicked")))
                })
                .collect()
        });
        for (series, guest) in some.iter().zip(measured) {
            kernels.push(guest.with_context(|| format!("cannot measure on {series}"))?);
        }
    }
    Ok(Guests {
        machine: Machine::this()?,
        quick,
        kernels,
    })
}

fn one(fleet: &Fleet, series: &str, quick: bool) -> Result<Guest> {
    let kernel = match fleet.kernel(series)? {
        Found::Kernel(kernel) => kernel,
        Found::Gone(why) => bail!("{why}"),
    };
    say(format_args!("bench: booting {}", kernel.release));
    let mut guest = Guest {
        kernel: machine::series(&kernel.release),
        ..Guest::default()
    };
    let mut broken = None;
    let ended = fleet.boot(&kernel, commands(quick), |said| match said {
        Said::Line(line) => {
            if let Err(why) = guest.take(line) {
                broken.get_or_insert(why);
            }
        }
        Said::Ready | Said::Ended(_) | Said::Exit(_) => {}
    })?;
    if let Some(failure) = ended.failure() {
        bail!("{failure}");
    }
    broken.map_or(Ok(guest), Err)
}

fn commands(quick: bool) -> Vec<Vec<String>> {
    // Instruction counts are repeatable, so few rounds suffice.
    let calls = [
        LAB,
        "call-cost",
        "--tracer",
        TRACER,
        "--batches",
        if quick { "3" } else { "8" },
    ];
    let bulk = [
        LAB,
        "bulk-cost",
        "--json",
        "--tracer",
        TRACER,
        "--rounds",
        "1",
        "--seconds",
        if quick { "0.2" } else { "0.4" },
    ];
    vec![
        calls.map(str::to_owned).to_vec(),
        bulk.map(str::to_owned).to_vec(),
    ]
}

impl Guest {
    fn take(&mut self, line: &str) -> Result<()> {
        match LabLine::parse(line)? {
            LabLine::CallCost(cost) => self.calls.push(cost),
            LabLine::Bulk(bulk) => self.bulk.push(bulk),
            LabLine::Absent(absent) => say(format_args!(
                "bench: {} has no {}: {}",
                self.kernel, absent.beside, absent.why
            )),
            LabLine::Host(host) if machine::series(&host.kernel) == self.kernel => {}
            LabLine::Host(host) => bail!("the machine says that it is {}", host.kernel),
            LabLine::Call(_)
            | LabLine::Footprint(_)
            | LabLine::Start(_)
            | LabLine::Resident(_)
            | LabLine::Rate(_)
            | LabLine::Cell(_)
            | LabLine::Summary(_) => bail!("the lab measures something else"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_says_becomes_figures_of_its_kernel() {
        let mut guest = Guest {
            kernel: "6.12".to_owned(),
            ..Guest::default()
        };
        let cost = r#"{"type":"call_cost","data":{"beside":"fexit","call":"other","ns":1.0,"reader_ns":0.0}}"#;
        guest.take(cost).unwrap();
        guest
            .take(r#"{"type":"host","data":{"kernel":"6.12.118+deb13-cloud-amd64"}}"#)
            .unwrap();
        assert_eq!(guest.calls.len(), 1);
        let other = r#"{"type":"host","data":{"kernel":"6.1.0-56-cloud-amd64"}}"#;
        assert!(guest.take(other).is_err());
    }
}
