//! What we know that we did not see.

/// Counters of one sensor.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Loss {
    /// Name of the sensor.
    pub sensor: String,
    /// Questions its probes saw.
    pub seen: u64,
    /// Records put into the ring.
    pub emitted: u64,
    /// Left out: the filter asked for others.
    pub filtered: u64,
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
}

impl Loss {
    /// Questions that were seen and wanted, but did not become records.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.ring_full + self.faulted + self.table_full + self.unfinished
    }

    /// The identity that must hold: everything seen is accounted for.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.seen == self.emitted + self.filtered + self.lost()
    }
}

/// The counters of all sensors.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LossReport {
    /// One entry a sensor.
    pub sensors: Vec<Loss>,
}

impl LossReport {
    /// True if nothing was lost.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.sensors.iter().all(|loss| {
            loss.lost() == 0 && loss.missed == 0 && loss.unfollowed == 0 && loss.balances()
        })
    }
}
