//! What the kernel accounts to this process, as metrics. Nothing here needs a privilege: a process may
//! always read `/proc/self`.

use std::{fs, io, time::Duration};

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::exposition::{Family, Kind};

/// Resources that this process uses; `None` if unreadable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Processor time of all its threads, in user and kernel mode.
    pub cpu: Option<Duration>,
    /// Open descriptors.
    pub open_fds: Option<u64>,
    /// Most open descriptors; `None` also without a limit.
    pub max_fds: Option<u64>,
    /// Virtual memory, bytes.
    pub virtual_bytes: Option<u64>,
    /// Resident memory, bytes.
    pub resident_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Start, since the epoch.
    pub started: Option<Duration>,
}

impl Usage {
    /// Reads it. `boot_epoch` is the wall clock minus `CLOCK_BOOTTIME`: the kernel knows the start of
    /// a process relative to boot. The same value gives the same start, even if the wall clock was
    /// set since.
    #[must_use]
    pub fn of_self(boot_epoch: Duration) -> Self {
        let stat = fs::read_to_string("/proc/self/stat");
        let stat = stat.as_deref().ok().and_then(Stat::parse);
        if stat.is_none() {
            log::debug!("cannot read /proc/self/stat: most metrics of the process are absent");
        }
        let ticks = |ticks: u64| {
            let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(clock_ticks_per_second());
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        };
        let pages = |pages: u64| pages.saturating_mul(page_size() as u64);
        Self {
            cpu: Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).ok(),
            open_fds: open_fds().ok(),
            max_fds: getrlimit(Resource::Nofile).current,
            virtual_bytes: stat.map(|it| it.virtual_bytes),
            resident_bytes: stat.map(|it| pages(it.resident_pages)),
            threads: stat.map(|it| it.threads),
            started: stat.map(|it| boot_epoch + ticks(it.started_ticks)),
        }
    }
}

/// Counts the open descriptors, without the one that it needs to count.
fn open_fds() -> io::Result<u64> {
    let mut count: u64 = 0;
    for entry in fs::read_dir("/proc/self/fd")? {
        let _fd = entry?;
        count += 1;
    }
    Ok(count.saturating_sub(1))
}

/// Fields of `/proc/PID/stat` (`man 5 proc_pid_stat`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stat {
    threads: u64,
    started_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name of the program stands in parentheses and may contain any.
        let (_pid_and_name, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // `rest` begins with field 3.
        let field = |number: usize| fields.get(number - 3)?.parse().ok();
        Some(Self {
            threads: field(20)?,
            started_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// The metrics that every Prometheus client library exports about its process, with their names and
/// descriptions. Values that could not be read are absent.
#[must_use]
pub fn families(usage: Usage) -> Vec<Family> {
    // Prometheus has only floating-point numbers.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    let number = |count: Option<u64>| count.map(|it| it as f64);
    let seconds = |time: Option<Duration>| time.map(|it| it.as_secs_f64());
    let Usage {
        cpu,
        open_fds,
        max_fds,
        virtual_bytes,
        resident_bytes,
        threads,
        started,
    } = usage;
    [
        (
            "process_cpu_seconds",
            Kind::TimeCounter,
            "Total user and system CPU time spent in seconds.",
            seconds(cpu),
        ),
        (
            "process_open_fds",
            Kind::Gauge,
            "Number of open file descriptors.",
            number(open_fds),
        ),
        (
            "process_max_fds",
            Kind::Gauge,
            "Maximum number of open file descriptors.",
            number(max_fds),
        ),
        (
            "process_virtual_memory_bytes",
            Kind::Gauge,
            "Virtual memory size in bytes.",
            number(virtual_bytes),
        ),
        (
            "process_resident_memory_bytes",
            Kind::Gauge,
            "Resident memory size in bytes.",
            number(resident_bytes),
        ),
        (
            "process_threads",
            Kind::Gauge,
            "Number of OS threads in the process.",
            number(threads),
        ),
        (
            "process_start_time_seconds",
            Kind::Gauge,
            "Start time of the process since unix epoch in seconds.",
            seconds(started),
        ),
    ]
    .into_iter()
    .map(|(name, kind, help, value)| Family {
        name,
        kind,
        help,
        samples: value.map(|it| (Vec::new(), it)).into_iter().collect(),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::exposition::Flavour;

    #[test]
    fn what_cannot_be_read_is_absent() {
        let usage = Usage {
            cpu: Some(Duration::from_millis(1250)),
            threads: Some(2),
            ..Usage::default()
        };
        let text = Flavour::Prometheus.render(&families(usage));
        let samples: Vec<&str> = text.lines().filter(|it| !it.starts_with('#')).collect();
        assert_eq!(
            samples,
            ["process_cpu_seconds_total 1.25", "process_threads 2"]
        );
    }

    #[test]
    fn a_program_may_have_any_name() {
        let text =
            "7 (a) b) 1 (c) S 1 7 7 0 -1 4194560 4 5 6 7 8 9 10 11 20 0 3 0 4711 123456 77 1844\n";
        let want = Stat {
            threads: 3,
            started_ticks: 4711,
            virtual_bytes: 123_456,
            resident_pages: 77,
        };
        assert_eq!(Stat::parse(text), Some(want));
        for text in ["", "7 (a) S 1 2", "7 (a S"] {
            assert_eq!(Stat::parse(text), None, "{text}");
        }
    }

    #[test]
    fn this_process_is_described_as_the_kernel_does() {
        let now = |clock| Duration::try_from(clock_gettime(clock)).unwrap();
        let boot_epoch = now(ClockId::Realtime) - now(ClockId::Boottime);
        let before = Usage::of_self(boot_epoch);
        let open = fs::File::open("/proc/self/status").unwrap();
        let status = io::read_to_string(&open).unwrap();
        let after = Usage::of_self(boot_epoch);
        let line = |name: &str| -> u64 {
            let line = status.lines().find(|it| it.starts_with(name)).unwrap();
            line.split_ascii_whitespace()
                .nth(1)
                .unwrap()
                .parse()
                .unwrap()
        };
        // Other tests run in other threads meanwhile.
        let is_near = |mine: Option<u64>, kernels: u64| {
            let mine = mine.unwrap();
            mine / 2 <= kernels && kernels <= mine * 2
        };
        assert!(
            is_near(after.resident_bytes, line("VmRSS:") * 1024),
            "{after:?}"
        );
        assert!(
            is_near(after.virtual_bytes, line("VmSize:") * 1024),
            "{after:?}"
        );
        assert!(is_near(after.threads, line("Threads:")), "{after:?}");
        assert!(after.open_fds.unwrap() >= 3, "{after:?}");
        assert!(after.max_fds > after.open_fds, "{after:?}");
        assert!(
            after.cpu >= before.cpu && after.cpu > Some(Duration::ZERO),
            "{after:?}"
        );
        assert_eq!(after.started, before.started);
        let age = now(ClockId::Realtime) - after.started.unwrap();
        assert!(age < Duration::from_secs(3600), "{age:?}");
    }
}
