//! What was seen and lost: the counters of the kernel half, and what the kernel says of its programs.

use std::os::fd::AsFd as _;

use super::{
    attach::{Runs, Tracer, sensor_of},
    counters, turns,
};
use crate::model::{LossReport, MissedRuns, SensorId};

impl Tracer {
    /// What was seen and what was lost so far.
    ///
    /// # Errors
    ///
    /// Fails if the counters cannot be read.
    pub fn losses(&self) -> anyhow::Result<LossReport> {
        let mut missed = self.missed;
        for name in self.attached() {
            *missed.of_mut(sensor_of(name)) += self.misses(name);
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
        })
    }

    /// How many runs of a program the kernel skipped; 0 where it does not tell, and of one that takes what another misses.
    pub(super) fn misses(&self, name: &str) -> u64 {
        match self.ebpf.program(name) {
            Some(program) if !turns::is_other(name) => counters::misses(program).unwrap_or(0),
            Some(_) | None => 0,
        }
    }

    /// How many of those others took.
    pub(super) fn taken(&self) -> anyhow::Result<Runs> {
        if let Some(taken) = self.taken_at_stop {
            return Ok(taken);
        }
        Runs::try_from_fn(|sensor| counters::taken(&self.ebpf, sensor))
    }

    /// How many questions the kernel has kept from the probes so far: cheap enough to be asked with every few records.
    ///
    /// A run that one program misses is counted, and a moment later that another one took it: what was taken is read first, so that no
    /// miss is taken for one that somebody took.
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
            let links = self.query_breakpoints.iter();
            let by_links: u64 = links
                .map(|link| counters::missed_by_link(*link).unwrap_or(0))
                .sum();
            self.missed.of(QUERY) + by_programs + by_links
        };
        // Reading a map by a system call keeps breakpoints from running on that CPU (`bpf_disable_instrumentation`), and a thread
        // can be preempted in the middle of it: not without need.
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
