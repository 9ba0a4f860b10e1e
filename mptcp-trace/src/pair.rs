//! Two captures of the same connections, one of each end -> what left one end, and what arrived at the
//! other one. Pure, and bounded.
//!
//! It decides which connections and paths of the two are the same ones ([`join`]), how far the clocks
//! are apart ([`clock`]), and what happened between the two ends ([`judge`]). Where records were lost,
//! or a capture does not cover the time, it concludes nothing from what is missing.

mod clock;
mod join;
mod judge;
mod lines;
mod seen;
#[cfg(test)]
mod tests;

pub use clock::Offset;
pub use join::{By, Pair, joined};
pub use judge::{Judged, Judgement, Packet};
pub use lines::{Look, Options, Paired, json, text};
pub use seen::{CONNECTIONS_MAX, Ends, Shared};

use std::time::Duration;

/// Nanoseconds since the Unix epoch, or between two such times.
pub type Ns = i64;

/// What is known about a capture beside its findings.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct About {
    /// Its name.
    pub name: String,
    /// Wall clock minus `CLOCK_BOOTTIME`, since the Unix epoch.
    pub epoch: Duration,
    /// Its first and last moment, on `CLOCK_BOOTTIME`.
    pub span: (Duration, Duration),
    /// Why something may be missing in it: records were lost, or it is cut off.
    pub gap: Option<String>,
    /// Events of connections and paths that its filter left out.
    pub filtered: u64,
    /// Connections beyond [`CONNECTIONS_MAX`].
    pub beyond: u64,
    /// Its addresses are pseudonyms, which mean something else in another capture.
    pub redacted: bool,
}

impl About {
    /// A time of this capture on the wall clock of its host.
    #[must_use]
    pub fn wall(&self, at: Duration) -> Ns {
        ns(self.epoch.saturating_add(at))
    }
}

/// A capture: what is known about it, and the ends of connections in it.
#[derive(Clone, Debug)]
pub struct Capture {
    /// What is known about it.
    pub about: About,
    /// The ends of connections, in the order in which they were first mentioned.
    pub ends: Ends,
}

/// Nanoseconds of a duration; beyond the range, the nearest.
fn ns(duration: Duration) -> Ns {
    Ns::try_from(duration.as_nanos()).unwrap_or(Ns::MAX)
}
