//! Counts over time.

use std::{collections::BTreeMap, time::Duration};

/// Number of time bins.
pub const BINS_MAX: usize = 96;
/// Width of the narrowest bin, nanoseconds.
const BIN_NS_MIN: i128 = 1_000_000;

/// Counts over time: a fixed number of bins that widen as the capture gets longer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bins {
    begin_ns: i128,
    width_ns: i128,
    range_ns: Option<(i128, i128)>,
    counts: Vec<BTreeMap<String, u64>>,
}

impl Bins {
    /// Extends the bins to a time, and counts a cause there, if any.
    pub(super) fn add(&mut self, at: Duration, what: Option<&str>) {
        // The duration of any capture fits.
        let at = i128::try_from(at.as_nanos()).unwrap_or(i128::MAX / 4);
        let bins_ns = |width: i128| width * BINS_MAX as i128;
        let (first, last) = self.range_ns.unwrap_or_else(|| {
            self.begin_ns = at;
            self.width_ns = BIN_NS_MIN;
            self.counts = vec![BTreeMap::new(); BINS_MAX];
            (at, at)
        });
        self.range_ns = Some((first.min(at), last.max(at)));
        while at >= self.begin_ns + bins_ns(self.width_ns) {
            self.widen(0);
        }
        while at < self.begin_ns {
            self.begin_ns -= bins_ns(self.width_ns);
            self.widen(BINS_MAX);
        }
        let Some(what) = what else {
            return;
        };
        let index = usize::try_from((at - self.begin_ns) / self.width_ns).unwrap_or(0);
        if let Some(bin) = self.counts.get_mut(index) {
            *bin.entry(what.to_owned()).or_default() += 1;
        }
    }

    /// Doubles the width, with this many empty bins in front.
    fn widen(&mut self, before: usize) {
        let old = std::mem::replace(&mut self.counts, vec![BTreeMap::new(); BINS_MAX]);
        for (index, bin) in old.into_iter().enumerate() {
            if let Some(new) = self.counts.get_mut((before + index) / 2) {
                for (what, count) in bin {
                    *new.entry(what).or_default() += count;
                }
            }
        }
        self.width_ns *= 2;
    }

    /// Width of a bin.
    #[must_use]
    pub fn width(&self) -> Duration {
        Duration::from_nanos(u64::try_from(self.width_ns).unwrap_or(u64::MAX))
    }

    /// The bins from the first to the last non-empty one, and the start of the first on
    /// `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn used(&self) -> (&[BTreeMap<String, u64>], Duration) {
        let Some((first, last)) = self.range_ns else {
            return (&[], Duration::ZERO);
        };
        let index = |at: i128| usize::try_from((at - self.begin_ns) / self.width_ns).unwrap_or(0);
        let begin = self.begin_ns + self.width_ns * index(first) as i128;
        let bins = self
            .counts
            .get(index(first)..=index(last))
            .unwrap_or_default();
        let begin = u64::try_from(begin).map_or(Duration::ZERO, Duration::from_nanos);
        (bins, begin)
    }
}
