//! What is known before the first record, and never changes after.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use super::{SensorId, name_of_enumerator};

/// A way of asking the kernel, best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rung {
    /// Trampolines at entry and return of kernel functions.
    Fexit,
    /// Breakpoints at entry and return of kernel functions.
    Kprobe,
    /// The tracepoints of the system call.
    Tracepoint,
}

impl Rung {
    /// All of them, best first.
    pub const LADDER: [Self; 3] = [Self::Fexit, Self::Kprobe, Self::Tracepoint];

    /// The word for it, as typed and as printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Rung {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::LADDER
            .into_iter()
            .find(|rung| rung.name() == word)
            .ok_or_else(|| format!("unknown attach method: {word:?}"))
    }
}

/// How one sensor runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SensorState {
    /// Which one.
    pub sensor: SensorId,
    /// The rung in use.
    pub rung: Rung,
    /// Its probes, each with the place where it is attached.
    pub probes: Vec<String>,
    /// What this rung cannot tell, a sentence each.
    pub limits: Vec<String>,
}

impl Facts {
    /// How a sensor runs, if it does.
    #[must_use]
    pub fn sensor(&self, sensor: SensorId) -> Option<&SensorState> {
        self.sensors.iter().find(|it| it.sensor == sensor)
    }

    /// True if the sensor ran.
    #[must_use]
    pub fn has_sensor(&self, sensor: SensorId) -> bool {
        self.sensor(sensor).is_some()
    }

    /// True if this kernel counts that cause.
    #[must_use]
    pub fn counts(&self, cause: &str) -> bool {
        self.causes
            .iter()
            .any(|(_, enumerator)| name_of_enumerator(enumerator) == Some(cause))
    }
}

/// Everything a reader of records has to know beside the records: immutable, and part of every capture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Version of mptcp-trace that made the records.
    pub version: String,
    /// `uname -r` of the traced kernel.
    pub kernel: String,
    /// Wall clock minus `CLOCK_BOOTTIME` when tracing began (since the Unix epoch).
    pub boot_epoch: Duration,
    /// Number of the bit in `mptcp_sock.flags` that says "fell back", if it was calibrated.
    pub fallback_bit: Option<u8>,
    /// Causes by the kernel's number for them, with the names of their enumerators
    /// (`enum linux_mptcp_mib_field`).
    pub causes: Vec<(i32, String)>,
    /// From when to when the kernel's own counters were first read, by network namespace, on
    /// `CLOCK_BOOTTIME`: what happened before is in them already, what happened meanwhile may be.
    pub counters_read_at: BTreeMap<u32, (Duration, Duration)>,
    /// From when to when the kernel half read them, in all network namespaces that there were; none where it cannot do that.
    pub counters_listed_at: Option<(Duration, Duration)>,
    /// What they were then, by the namespace's cookie: counters of fallbacks, without those that were 0.
    pub counters_at_start: BTreeMap<u64, BTreeMap<String, u64>>,
    /// The sensors that ran.
    pub sensors: Vec<SensorState>,
}

#[cfg(test)]
impl Facts {
    /// Facts that say nothing, for tests.
    pub(crate) fn unknown() -> Self {
        Self {
            version: String::new(),
            kernel: String::new(),
            boot_epoch: Duration::ZERO,
            fallback_bit: None,
            causes: Vec::new(),
            counters_read_at: BTreeMap::new(),
            counters_listed_at: None,
            counters_at_start: BTreeMap::new(),
            sensors: Vec::new(),
        }
    }
}
