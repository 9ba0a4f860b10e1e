//! What is known before the first record, and never changes after that.

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{SensorId, name_of_enumerator};

/// An attach method.
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
    /// All attach methods, best first.
    pub const LADDER: [Self; 3] = [Self::Fexit, Self::Kprobe, Self::Tracepoint];

    /// The name as typed and as printed.
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

/// State of one sensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SensorState {
    /// The sensor.
    pub sensor: SensorId,
    /// The attach method in use.
    pub rung: Rung,
    /// Its probes, each with the place where it is attached.
    pub probes: Vec<String>,
    /// What this attach method cannot observe, one sentence each.
    pub limits: Vec<String>,
}

impl Facts {
    /// State of a sensor, if it ran.
    #[must_use]
    pub fn sensor(&self, sensor: SensorId) -> Option<&SensorState> {
        self.sensors.iter().find(|it| it.sensor == sensor)
    }

    /// True if the sensor ran.
    #[must_use]
    pub fn has_sensor(&self, sensor: SensorId) -> bool {
        self.sensor(sensor).is_some()
    }

    /// Why nothing is compared with the kernel's counters, of a dump.
    pub const UNCOUNTED: &str = "this is a dump of a recording: the kernel's counters when it begins \
                                 are not in it";

    /// The time that a dump covers; `None` if this is none.
    #[must_use]
    pub fn dumped(&self) -> Option<(SystemTime, Option<SystemTime>)> {
        let wall = |at| UNIX_EPOCH + self.boot_epoch + at;
        let Dump { from, to } = self.dump?;
        Some((wall(from), to.map(wall)))
    }

    /// True if this kernel counts that cause.
    #[must_use]
    pub fn counts(&self, cause: &str) -> bool {
        self.causes
            .iter()
            .any(|(_, enumerator)| name_of_enumerator(enumerator) == Some(cause))
    }
}

/// Everything needed to interpret records: immutable, and part of every capture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Version of mptcp-trace that made the records.
    pub version: String,
    /// `uname -r` of the traced kernel.
    pub kernel: String,
    /// Wall clock minus `CLOCK_BOOTTIME` when tracing began (since the Unix epoch).
    pub boot_epoch: Duration,
    /// Number of the fallback bit in `mptcp_sock.flags`, if it was calibrated.
    pub fallback_bit: Option<u8>,
    /// Causes by the kernel's index, with the names of their enumerators (`enum
    /// linux_mptcp_mib_field`).
    pub causes: Vec<(i32, String)>,
    /// Begin and end of the first reading of the kernel's counters from `/proc`, by network
    /// namespace, on `CLOCK_BOOTTIME`: they include earlier events, and may include concurrent
    /// ones.
    pub counters_read_at: BTreeMap<u32, (Duration, Duration)>,
    /// Begin and end of the BPF side's reading in all network namespaces; `None` if it is
    /// unsupported.
    pub counters_listed_at: Option<(Duration, Duration)>,
    /// Values of that reading, by the namespace's cookie: nonzero fallback counters.
    pub counters_at_start: BTreeMap<u64, BTreeMap<String, u64>>,
    /// The sensors that ran.
    pub sensors: Vec<SensorState>,
    /// The capture is a part of a recording.
    pub dump: Option<Dump>,
}

/// The time that a dump covers, on `CLOCK_BOOTTIME`. Its first records may be older: they are of
/// connections that were open when it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dump {
    /// Its begin.
    pub from: Duration,
    /// Its end; `None` for a segment, whose end was unknown when it was begun.
    pub to: Option<Duration>,
}

#[cfg(test)]
impl Facts {
    /// Empty facts, for tests.
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
            dump: None,
        }
    }
}
