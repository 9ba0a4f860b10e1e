//! What was certainly not observed.

use std::{collections::BTreeMap, time::Duration};

use super::SensorId;

/// Queries that the kernel kept from the probes so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MissedRuns {
    /// Runs of first programs that the kernel skipped (`bpf_prog_info.recursion_misses`), and calls
    /// that exceeded the limit of a kretprobe (`struct kretprobe.nmissed`).
    pub missed: u64,
    /// Those that another program has taken over and counted.
    pub taken: u64,
    /// Other programs take over what the first one misses, shortly after.
    pub takes_turns: bool,
}

impl MissedRuns {
    /// Upper bound of the lost queries: another program may be about to take some of them over.
    #[must_use]
    pub fn lost_at_most(self) -> u64 {
        self.missed.saturating_sub(self.taken)
    }
}

/// Counters of one sensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// The sensor.
    pub sensor: SensorId,
    /// Events that its probes observed: queries, or events of connections.
    pub seen: u64,
    /// Records put into the ring.
    pub emitted: u64,
    /// Left out: the filter does not admit them.
    pub filtered: u64,
    /// Left out: the process exceeded its limit of traced queries per second (`--cap`).
    pub capped: u64,
    /// Lost: the ring was full.
    pub ring_full: u64,
    /// Lost: kernel memory could not be read.
    pub faulted: u64,
    /// Lost: the table of queries in flight was full.
    pub table_full: u64,
    /// Lost or still running: the return was not observed.
    pub unfinished: u64,
    /// Runs of a probe that the kernel skipped; not part of `seen`.
    pub missed: u64,
    /// Children of wanted processes that could not be followed, so that their queries count as
    /// filtered; for the fallback sensor, sockets that were not tracked because the table was full.
    pub unfollowed: u64,
    /// Sockets that were not tracked because their user reached the limit per user
    /// (`--sockets-per-user`).
    pub over_share: u64,
    /// Self-tests of other instances; not part of `seen`, and never a finding.
    pub self_tests: u64,
    /// Packets that decided, and whose headers had no room in the ring; not part of `seen`.
    pub packets_lost: u64,
}

impl Loss {
    /// Number of counters.
    pub const COUNTERS: usize = 13;

    /// Every counter with its name, in the order of output.
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
            packets_lost,
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
            ("packets_lost", *packets_lost),
        ]
    }

    /// A sensor that has observed nothing.
    #[must_use]
    pub fn none(sensor: SensorId) -> Self {
        Self::from_counters(sensor, |_name| 0)
    }

    /// Creates the counters of a sensor from a lookup by name.
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
            packets_lost: value("packets_lost"),
        }
    }

    /// What was counted since an earlier reading, while tracing went on at both. A reading takes a
    /// while, and events in between are in some of its counters only: `seen` is the sum of the
    /// others, so that the counters add up as those of a whole run.
    #[must_use]
    pub fn since(&self, then: &Self) -> Self {
        let now = self.counters();
        let then = then.counters();
        let since = |name: &str| {
            let of = |counters: &[(&str, u64)]| {
                let found = counters.iter().find(|(known, _)| *known == name);
                found.map_or(0, |(_, count)| *count)
            };
            of(&now).saturating_sub(of(&then))
        };
        let mut loss = Self::from_counters(self.sensor, since);
        loss.seen = sum([loss.emitted, loss.filtered, loss.capped, loss.lost()]);
        loss
    }

    /// Wanted events without a record, for any reason.
    #[must_use]
    pub fn untraced(&self) -> u64 {
        sum([self.capped, self.lost(), self.missed])
    }

    /// Wanted events that were observed, but lost before they became records.
    #[must_use]
    pub fn lost(&self) -> u64 {
        sum([
            self.ring_full,
            self.faulted,
            self.table_full,
            self.unfinished,
        ])
    }

    /// The identity that must hold: everything observed is accounted for.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.seen == sum([self.emitted, self.filtered, self.capped, self.lost()])
    }
}

/// A capture may contain any number: the sum saturates.
fn sum(counts: impl IntoIterator<Item = u64>) -> u64 {
    counts.into_iter().fold(0, u64::saturating_add)
}

/// The kernel's own counts in one network namespace during the trace (`MPTcpExt`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counted {
    /// Inode number of the namespace.
    pub netns: u32,
    /// Growth of each fallback counter until the probes began to be detached.
    pub counters: BTreeMap<String, u64>,
    /// Growth until the probes were detached: events in between may or may not have been observed.
    pub counters_after: BTreeMap<String, u64>,
    /// Growth of the counters of paths; `None` in a capture without them.
    pub paths: Option<Growth>,
    /// Why these numbers may not match the time of the trace.
    pub doubt: Option<String>,
}

/// By how much counters grew.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Growth {
    /// Until the probes began to be detached.
    pub before: BTreeMap<String, u64>,
    /// Until they were detached.
    pub after: BTreeMap<String, u64>,
}

/// The kernel's counters of one network namespace since its creation, at one moment
/// (`net.mib.mptcp_statistics`, the source of `/proc/net/netstat`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetnsCounters {
    /// Inode number of the namespace.
    pub netns: u32,
    /// Its `net_cookie`, never reused.
    pub cookie: u64,
    /// When it was read, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// Nonzero fallback counters.
    pub counters: BTreeMap<String, u64>,
}

/// The kernel's counts compared with the traced events.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reconciliation {
    /// Inode number of the network namespace; 0 for the merged account of ended ones.
    pub netns: u32,
    /// Fallbacks by cause, or events of paths by counter, as counted by the kernel; only what it
    /// counts.
    pub counted: BTreeMap<String, u64>,
    /// The same as traced.
    pub traced: BTreeMap<String, u64>,
    /// The difference, and possible reasons for it.
    pub why: Option<String>,
    /// The reasons in `why` account for the whole difference.
    pub explained: bool,
    /// The kernel's counters could not be read: there is nothing to compare.
    pub unread: bool,
}

impl Reconciliation {
    /// True if the counts are equal, or their difference is explained.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.why.is_none() || self.explained
    }

    /// True if the counters were read, and contradict what was traced.
    #[must_use]
    pub fn differs(&self) -> bool {
        !self.agrees() && !self.unread
    }

    /// How many fallbacks the kernel counted beyond the traced ones; 0 if the account agrees or is
    /// impossible.
    #[must_use]
    pub fn missing(&self) -> u64 {
        if self.agrees() {
            return 0;
        }
        self.untraced()
    }

    /// How many fallbacks the kernel counted and no finding reports as such; 0 if the counters
    /// could not be read.
    #[must_use]
    pub fn untraced(&self) -> u64 {
        if self.unread {
            return 0;
        }
        let of = |(cause, counted): (&String, &u64)| {
            let traced = self.traced.get(cause).copied().unwrap_or(0);
            counted.saturating_sub(traced)
        };
        sum(self.counted.iter().map(of))
    }
}

/// The kernel's counts compared with the traced events, by network namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reconciliations {
    /// Fallbacks.
    pub fallbacks: Vec<Reconciliation>,
    /// Events of paths.
    pub paths: Vec<Reconciliation>,
}

/// The counters of all sensors.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LossReport {
    /// One entry per sensor.
    pub sensors: Vec<Loss>,
    /// The kernel's counts, one entry per network namespace.
    pub counted: Vec<Counted>,
    /// Paths with something that no record has reported yet: they are being opened, were not
    /// reported when they came up, or were removed and have not ended.
    pub paths_under_way: u64,
}

impl LossReport {
    /// True if nothing wanted is missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.sensors.iter().all(|loss| {
            loss.untraced() == 0 && loss.unfollowed == 0 && loss.over_share == 0 && loss.balances()
        })
    }

    /// The counters of a sensor, if it ran.
    #[must_use]
    pub fn of(&self, sensor: SensorId) -> Option<&Loss> {
        self.sensors.iter().find(|loss| loss.sensor == sensor)
    }

    /// Wanted events of a sensor without a record.
    #[must_use]
    pub fn untraced(&self, sensor: SensorId) -> u64 {
        let of_it = self.sensors.iter().filter(|loss| loss.sensor == sensor);
        sum(of_it.map(Loss::untraced))
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

    #[test]
    fn an_interval_counts_what_came_in_it_and_adds_up() {
        let loss = |seen, emitted, capped, unfinished| Loss {
            seen,
            emitted,
            capped,
            unfinished,
            ..Loss::none(SensorId::Query)
        };
        for (then, now, expected) in [
            (loss(5, 3, 2, 0), loss(9, 6, 3, 0), loss(4, 3, 1, 0)),
            // A query was in flight at the first reading, and another one is at the second.
            (loss(5, 4, 0, 1), loss(7, 6, 0, 0), loss(2, 2, 0, 0)),
            (loss(5, 5, 0, 0), loss(7, 6, 0, 1), loss(2, 1, 0, 1)),
        ] {
            let got = now.since(&then);
            assert_eq!(got, expected);
            assert!(got.balances());
        }
    }
}
