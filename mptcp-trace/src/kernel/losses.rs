//! Observed and lost events: the counters of the BPF side, and the kernel's statistics about its
//! programs.

use std::os::fd::AsFd as _;

use super::{
    attach::{Runs, Tracer},
    counters, turns,
};
use crate::{
    model::{LossReport, MissedRuns, SensorId},
    probes,
};

impl Tracer {
    /// Observed and lost events so far.
    ///
    /// # Errors
    ///
    /// Fails if the counters cannot be read.
    pub fn losses(&self) -> anyhow::Result<LossReport> {
        let mut missed = self.missed;
        for name in self.attached() {
            if let Some(sensor) = probes::sensor_affected_by(name) {
                *missed.of_mut(sensor) += self.misses(name);
            }
        }
        let taken = self.taken()?;
        let sensors = SensorId::ALL.into_iter().map(|sensor| {
            let mut loss = counters::of(&self.ebpf, sensor)?;
            let taken = taken
                .of(sensor)
                .saturating_sub(*self.taken_before.of(sensor));
            loss.missed = missed.of(sensor).saturating_sub(taken);
            Ok(loss)
        });
        Ok(LossReport {
            sensors: sensors.collect::<anyhow::Result<_>>()?,
            counted: Vec::new(),
            paths_under_way: counters::paths_under_way(&self.ebpf)?,
        })
    }

    /// How many runs of a program the kernel skipped; 0 if unknown, and for a program that only
    /// takes over runs.
    pub(super) fn misses(&self, name: &str) -> u64 {
        match self.ebpf.program(name) {
            Some(program) if !turns::is_other(name) => counters::misses(program).unwrap_or(0),
            Some(_) | None => 0,
        }
    }

    /// How many of those other programs took over.
    pub(super) fn taken(&self) -> anyhow::Result<Runs> {
        if let Some(taken) = self.taken_at_stop {
            return Ok(taken);
        }
        Runs::try_from_fn(|sensor| counters::taken(&self.ebpf, sensor))
    }

    /// How many queries the probes have missed so far: cheap enough to call every few records.
    ///
    /// A missed run is counted at once, and a moment later its takeover: takeovers are read first,
    /// so that no miss is hidden by a later one's takeover.
    ///
    /// # Errors
    ///
    /// Fails if the counters cannot be read.
    pub fn missed_queries(&self) -> anyhow::Result<MissedRuns> {
        const QUERY: SensorId = SensorId::Query;
        let missed = || -> u64 {
            let by_programs: u64 = self
                .attached_of(QUERY)
                .filter(|name| !turns::is_other(name))
                .filter_map(|name| self.ebpf.program(name)?.fd().ok())
                .map(|program| counters::recursion_misses(program.as_fd()).unwrap_or(0))
                .sum();
            let links = self.query_kprobe_links.iter();
            let by_links: u64 = links
                .map(|link| counters::missed_by_link(*link).unwrap_or(0))
                .sum();
            self.missed.of(QUERY) + by_programs + by_links
        };
        // Reading a map by a system call disables kprobes on that CPU
        // (`bpf_disable_instrumentation`), and the thread can be preempted meanwhile: only done if
        // necessary.
        let taken = match self.queries_take_turns && missed() > 0 {
            true => {
                let taken = self.taken()?;
                taken.of(QUERY).saturating_sub(*self.taken_before.of(QUERY))
            }
            false => 0,
        };
        Ok(MissedRuns {
            missed: missed(),
            taken,
            takes_turns: self.queries_take_turns,
        })
    }
}
