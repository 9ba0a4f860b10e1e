//! What we know that we did not see.

use std::{collections::BTreeMap, time::Duration};

use super::SensorId;

/// Questions that the kernel kept from the probes so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MissedRuns {
    /// Runs of the first programs at their places that the kernel skipped (`bpf_prog_info.recursion_misses`), and calls that were too
    /// many at once for a breakpoint (`struct kretprobe.nmissed`).
    pub missed: u64,
    /// Those of them that another program has taken, and counted by now.
    pub taken: u64,
    /// Other programs take what the first one misses, each a moment later.
    pub takes_turns: bool,
}

impl MissedRuns {
    /// How many are lost at most: another program may be about to take some of them.
    #[must_use]
    pub fn lost_at_most(self) -> u64 {
        self.missed.saturating_sub(self.taken)
    }
}

/// Counters of one sensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// Whose.
    pub sensor: SensorId,
    /// Questions its probes saw.
    pub seen: u64,
    /// Records put into the ring.
    pub emitted: u64,
    /// Left out: the filter asked for others.
    pub filtered: u64,
    /// Left out: the process had asked more often in that second than is traced (`--cap`).
    pub capped: u64,
    /// Lost: the ring was full.
    pub ring_full: u64,
    /// Lost: kernel memory could not be read.
    pub faulted: u64,
    /// Lost: too many questions in flight.
    pub table_full: u64,
    /// Lost or still running: the return was not seen.
    pub unfinished: u64,
    /// Runs of a probe that the kernel skipped; not part of `seen`.
    pub missed: u64,
    /// Children of wanted processes that could not be followed; their questions count as filtered.
    pub unfollowed: u64,
    /// Sockets about which nothing was noted, because their user had as many as one user may have
    /// (`--sockets-per-user`).
    pub over_share: u64,
    /// What other instances did to test themselves; not part of `seen`, and no finding.
    pub self_tests: u64,
}

impl Loss {
    /// Number of counters.
    pub const COUNTERS: usize = 12;

    /// Every counter with its name, in the order in which they are told.
    #[must_use]
    pub fn counters(&self) -> [(&'static str, u64); Self::COUNTERS] {
        // Destructured, so that a new counter breaks the build here and nowhere else.
        let Self {
            sensor: _,
            seen,
            emitted,
            filtered,
            capped,
            ring_full,
            faulted,
            table_full,
            unfinished,
            missed,
            unfollowed,
            over_share,
            self_tests,
        } = self;
        [
            ("seen", *seen),
            ("emitted", *emitted),
            ("filtered", *filtered),
            ("capped", *capped),
            ("ring_full", *ring_full),
            ("faulted", *faulted),
            ("table_full", *table_full),
            ("unfinished", *unfinished),
            ("missed", *missed),
            ("unfollowed", *unfollowed),
            ("over_share", *over_share),
            ("self_tests", *self_tests),
        ]
    }

    /// A sensor that has seen nothing.
    #[must_use]
    pub fn none(sensor: SensorId) -> Self {
        Self::from_counters(sensor, |_name| 0)
    }

    /// The counters of a sensor, by their names.
    #[must_use]
    pub fn from_counters(sensor: SensorId, value: impl Fn(&str) -> u64) -> Self {
        Self {
            sensor,
            seen: value("seen"),
            emitted: value("emitted"),
            filtered: value("filtered"),
            capped: value("capped"),
            ring_full: value("ring_full"),
            faulted: value("faulted"),
            table_full: value("table_full"),
            unfinished: value("unfinished"),
            missed: value("missed"),
            unfollowed: value("unfollowed"),
            over_share: value("over_share"),
            self_tests: value("self_tests"),
        }
    }

    /// What was seen and wanted but did not become a record, for whatever reason.
    #[must_use]
    pub fn untold(&self) -> u64 {
        sum([self.capped, self.lost(), self.missed])
    }

    /// Questions that were seen and wanted, but did not become records.
    #[must_use]
    pub fn lost(&self) -> u64 {
        sum([
            self.ring_full,
            self.faulted,
            self.table_full,
            self.unfinished,
        ])
    }

    /// The identity that must hold: everything seen is accounted for.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.seen == sum([self.emitted, self.filtered, self.capped, self.lost()])
    }
}

/// A capture may say anything: what is more than a number holds is the largest.
fn sum(counts: impl IntoIterator<Item = u64>) -> u64 {
    counts.into_iter().fold(0, u64::saturating_add)
}

/// What the kernel itself counted in one network namespace while it was watched (`MPTcpExt`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counted {
    /// Inode number of the namespace.
    pub netns: u32,
    /// By how much each counter of a fallback had grown when the probes began to be taken down.
    pub counters: BTreeMap<String, u64>,
    /// The same when they were gone: what happened in between may or may not have been seen.
    pub counters_after: BTreeMap<String, u64>,
    /// Why these numbers may not be those of the time that was watched.
    pub doubt: Option<String>,
}

/// What the kernel had counted in one network namespace since that began, at one moment (`net.mib.mptcp_statistics`, which is
/// where `/proc/net/netstat` has it from).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetnsCounters {
    /// Inode number of the namespace.
    pub netns: u32,
    /// Its `net_cookie`, which no other namespace ever gets.
    pub cookie: u64,
    /// When it was read, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// Counters of fallbacks; those that are 0 are left out.
    pub counters: BTreeMap<String, u64>,
}

/// What the kernel counted against what was traced.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reconciliation {
    /// Inode number of the network namespace; 0 for all that are gone and no longer told apart.
    pub netns: u32,
    /// Fallbacks by cause, as the kernel counted them; only causes that it counts.
    pub counted: BTreeMap<String, u64>,
    /// The same as they were traced.
    pub traced: BTreeMap<String, u64>,
    /// What does not agree, and what is known of the reason.
    pub why: Option<String>,
    /// The kernel's counters could not be read: there is nothing to compare with.
    pub unread: bool,
}

impl Reconciliation {
    /// True if the kernel counted what was traced, no more and no less.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.why.is_none()
    }

    /// How many fallbacks the kernel counted beyond those that were traced; 0 where the account agrees or cannot be drawn.
    #[must_use]
    pub fn missing(&self) -> u64 {
        if self.agrees() || self.unread {
            return 0;
        }
        let of = |(cause, counted): (&String, &u64)| {
            let traced = self.traced.get(cause).copied().unwrap_or(0);
            counted.saturating_sub(traced)
        };
        sum(self.counted.iter().map(of))
    }
}

/// The counters of all sensors.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LossReport {
    /// One entry a sensor.
    pub sensors: Vec<Loss>,
    /// What the kernel counted, one entry a network namespace.
    pub counted: Vec<Counted>,
}

impl LossReport {
    /// True if nothing that was wanted is missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.sensors.iter().all(|loss| {
            loss.untold() == 0 && loss.unfollowed == 0 && loss.over_share == 0 && loss.balances()
        })
    }

    /// The counters of a sensor, if it ran.
    #[must_use]
    pub fn of(&self, sensor: SensorId) -> Option<&Loss> {
        self.sensors.iter().find(|loss| loss.sensor == sensor)
    }

    /// What a sensor could not tell.
    #[must_use]
    pub fn untold(&self, sensor: SensorId) -> u64 {
        let of_it = self.sensors.iter().filter(|loss| loss.sensor == sensor);
        sum(of_it.map(Loss::untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_survives_the_way_through_its_name() {
        let mut next = 0;
        let mut names = Vec::new();
        let loss = Loss::none(SensorId::Query);
        for (name, _) in loss.counters() {
            next += 1;
            names.push((name, next));
        }
        let of = |name: &str| {
            names
                .iter()
                .find(|(known, _)| *known == name)
                .map_or(0, |it| it.1)
        };
        let loss = Loss::from_counters(SensorId::Query, of);
        assert_eq!(loss.counters().to_vec(), names);
    }
}
