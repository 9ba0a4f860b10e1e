//! A running tracer: attaches one method and runs the self-test.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, BorrowedFd},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::self_test::{
    BACKLOG_RECORDS_MAX, CanaryCollector, CanaryReport, disturbed, judge, prove_fallback,
};
use crate::{
    canary,
    correlate::{growth, path_growth},
    host::{
        HostSupport, netstat,
        privileges::{self, RuntimeNeeds},
    },
    kernel::{LogRing, Mark, RecordRing, Tracer, TracerConfig},
    model::{Counted, Facts, Growth, LossReport, PerSensor, Rung, SensorId, SensorState},
    plan::{NONE_LISTED, Selection},
};

/// A working tracer.
pub struct Session {
    /// The live probes.
    pub tracer: Tracer,
    /// Their records.
    pub records: RecordRing,
    /// Debug messages of the probes, if enabled.
    pub log: Option<LogRing>,
    /// Facts needed to interpret the records.
    pub facts: Facts,
    /// Other records that arrived during the self-test.
    pub backlog: Vec<Vec<u8>>,
    /// Result of the self-test.
    pub canary: CanaryReport,
    /// Better attach methods of each sensor, and why they are not in use.
    pub passed_over: PerSensor<Vec<(Rung, String)>>,
    /// Number of the canary's own records, which are not reported.
    own_records: PerSensor<u64>,
    /// The kernel's counters when tracing began, by network namespace.
    baseline: BTreeMap<u32, netstat::Snapshot>,
    /// Growth of the counters, once it was read.
    counted: Vec<Counted>,
    /// Namespaces whose counters can be read.
    reach: netstat::Reach,
    /// The state when the current recording began.
    recording: Option<Begun>,
    /// Unneeded privileges were dropped.
    is_lean: bool,
    /// Why the sockets that were open before are unknown.
    pub unlisted: Option<String>,
}

/// The state when a recording began.
struct Begun {
    /// The kernel's counters, by network namespace.
    baseline: BTreeMap<u32, netstat::Snapshot>,
    losses: LossReport,
    /// Growth of the counters, once it was read at the end.
    counted: Vec<Counted>,
}

/// Why an attach method is not used.
pub(super) enum TryError {
    Attach(crate::kernel::AttachError),
    /// The self-test failed, and something on this host may be the reason.
    Disturbed(String),
    Other(anyhow::Error),
}

impl TryError {
    /// True if a retry may succeed.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Attach(why) => canary::is_passing(&why.why),
            Self::Disturbed(_) => true,
            Self::Other(why) => canary::is_passing(why),
        }
    }

    /// The error as one of this host.
    pub(super) fn of_this_host(&self) -> anyhow::Error {
        let (what, why) = match self {
            Self::Attach(why) => ("cannot start", format!("{:#}", why.why)),
            Self::Disturbed(why) => ("the self-test failed", why.clone()),
            Self::Other(why) => ("the self-test failed", format!("{why:#}")),
        };
        let advice = match why.contains("Too many open files") {
            true => "raise the limit of open files (ulimit -n, LimitNOFILE=)",
            false => "try again when the host is less busy",
        };
        anyhow::anyhow!(
            "{what} because of the state of this host, not of its kernel: {why}; {advice}"
        )
    }
}

impl From<anyhow::Error> for TryError {
    fn from(why: anyhow::Error) -> Self {
        Self::Other(why)
    }
}

/// Attaches one method of each sensor, and runs the self-test.
pub(super) async fn try_rung(
    host: &HostSupport,
    selection: &Selection<'_>,
    config: &TracerConfig,
) -> Result<Session, TryError> {
    let mut tracer = Tracer::start(config, selection).map_err(TryError::Attach)?;
    let mut records = tracer.take_records()?;
    let log = if config.debug {
        Some(tracer.take_log()?)
    } else {
        None
    };
    let mut facts = facts_of(host, selection);
    let has_fallbacks = facts.has_sensor(SensorId::Fallback);
    let mut unlisted = None;
    let marks = match Mark::new() {
        Ok(marks) => Some(marks),
        Err(why) => {
            log::debug!("other instances will mistake this self-test for an application: {why:#}");
            None
        }
    };
    let mark = |socket: BorrowedFd<'_>| {
        if let Some(Err(why)) = marks.as_ref().map(|marks| marks.socket(socket)) {
            log::debug!("cannot mark a socket of the self-test: {why}");
        }
    };
    let (queries, inside) = canary::ask(&mark)?;
    if let Some(inside) = inside
        && has_fallbacks
        && let Err(why) = tracer.find_pernet(inside.as_fd(), canary::BLACKHOLE_TIMEOUT)
    {
        log::debug!("the blackhole period of MPTCP is unknown: {why:#}");
    }
    let mut collected = CanaryCollector::default();
    collected
        .until(&mut records, &facts, |collected| {
            collected.own.len() >= queries.asked.len()
        })
        .await?;
    let mut canary = judge(&mut facts, selection, &queries, &collected.own);
    tracer.calibrate(facts.fallback_bit)?;
    if has_fallbacks && canary.complaint().is_none() {
        let proof = prove_fallback(&mark, &mut collected, &mut records, &facts).await?;
        canary.sensors.fallback = Some(proof);
        unlisted = list_sockets(
            host,
            config,
            &mut tracer,
            &mut records,
            &mut collected,
            &facts,
        );
    }
    canary.disturbed = disturbed(&tracer, &collected)?.or(canary.disturbed);
    if has_fallbacks {
        list_counters(&tracer, &mut records, &mut collected, &mut facts);
    }
    let mut reach = netstat::Reach::new();
    let baseline = reach.all();
    facts.counters_read_at = read_at(&baseline);
    Ok(Session {
        tracer,
        records,
        log,
        facts,
        backlog: collected.backlog,
        canary,
        passed_over: PerSensor::default(),
        own_records: collected.own_records,
        baseline,
        counted: Vec::new(),
        reach,
        recording: None,
        is_lean: false,
        unlisted,
    })
}

/// Lists the sockets that are open; returns the reason if that is impossible.
fn list_sockets(
    host: &HostSupport,
    config: &TracerConfig,
    tracer: &mut Tracer,
    records: &mut RecordRing,
    collected: &mut CanaryCollector,
    facts: &Facts,
) -> Option<String> {
    // There cannot be more than the tables hold, plus concurrent events.
    let limit = BACKLOG_RECORDS_MAX + config.sockets as usize;
    let listed = tracer.list(|| match collected.backlog.len() < limit {
        true => Ok(records.drain(|bytes| collected.take(bytes, facts))?),
        false => Ok(()),
    });
    let why = match listed {
        Ok(()) => return None,
        Err(_why) if host.own_btf.objection().is_some() => NONE_LISTED.to_owned(),
        Err(why) => format!("sockets that are open now cannot be listed: {why:#}"),
    };
    log::warn!("{why}");
    Some(why)
}

/// When the kernel's counters were read, by network namespace.
fn read_at(baseline: &BTreeMap<u32, netstat::Snapshot>) -> BTreeMap<u32, (Duration, Duration)> {
    let read = baseline.iter();
    read.map(|(netns, snapshot)| (*netns, snapshot.at))
        .collect()
}

/// The facts before the first record.
fn facts_of(host: &HostSupport, selection: &Selection<'_>) -> Facts {
    Facts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: host.kernel.clone(),
        boot_epoch: boot_epoch(),
        fallback_bit: None,
        causes: host.counters.clone(),
        counters_read_at: BTreeMap::new(),
        counters_listed_at: None,
        counters_at_start: BTreeMap::new(),
        sensors: sensors(selection),
        dump: None,
    }
}

/// The kernel's counters in each namespace when tracing began, if a program can read them.
fn list_counters(
    tracer: &Tracer,
    records: &mut RecordRing,
    collected: &mut CanaryCollector,
    facts: &mut Facts,
) {
    let began = netstat::boottime();
    let listed = tracer.list_counters(|| Ok(records.drain(|bytes| collected.take(bytes, facts))?));
    match listed {
        Ok(()) => {
            facts.counters_listed_at = Some((began, netstat::boottime()));
            facts.counters_at_start = std::mem::take(&mut collected.counters_at_start);
        }
        Err(why) => log::debug!("cannot read the counters of all namespaces: {why:#}"),
    }
}

fn sensors(selection: &Selection<'_>) -> Vec<SensorState> {
    selection
        .sensors()
        .map(|(sensor, plan)| SensorState {
            sensor,
            rung: plan.rung,
            probes: plan.probes.iter().map(|it| it.target.to_string()).collect(),
            limits: plan.limits.clone(),
        })
        .collect()
}

impl Session {
    /// Losses without the canary's own records, and the kernel's counters.
    ///
    /// # Errors
    ///
    /// Fails if the counters cannot be read.
    pub fn losses(&self) -> anyhow::Result<LossReport> {
        let mut report = self.tracer.losses()?;
        // Counters of a sensor that does not run prove nothing, and not that nothing was lost.
        report
            .sensors
            .retain(|loss| self.facts.has_sensor(loss.sensor));
        for sensor in &mut report.sensors {
            let own = self.own_records.of(sensor.sensor);
            sensor.seen = sensor.seen.saturating_sub(*own);
            sensor.emitted = sensor.emitted.saturating_sub(*own);
        }
        report.counted = self.counted.clone();
        Ok(report)
    }

    /// The growth of the kernel's counters since tracing began, which had the values `before` and then
    /// `after`, while records were taken.
    pub(super) fn counted_between(
        &self,
        before: &BTreeMap<u32, netstat::Snapshot>,
        after: &BTreeMap<u32, netstat::Snapshot>,
    ) -> Vec<Counted> {
        growths(&self.baseline, before, after)
    }

    /// The kernel's counters now.
    pub(super) fn read_again(&mut self) -> BTreeMap<u32, netstat::Snapshot> {
        self.reach.all()
    }

    /// Begins a recording: returns the facts of this moment, and the records that arrived while
    /// they were collected. `losses` were read before the earlier records were taken.
    ///
    /// # Errors
    ///
    /// Fails if the counters cannot be read.
    pub(super) fn begin_recording(
        &mut self,
        losses: LossReport,
    ) -> anyhow::Result<(Facts, Vec<Vec<u8>>)> {
        let mut facts = self.facts.clone();
        facts.counters_listed_at = None;
        facts.counters_at_start = BTreeMap::new();
        let mut collected = CanaryCollector::default();
        if self.has_fallbacks() {
            let Self {
                tracer, records, ..
            } = self;
            list_counters(tracer, records, &mut collected, &mut facts);
        }
        let baseline = self.reach.all();
        facts.counters_read_at = read_at(&baseline);
        self.recording = Some(Begun {
            baseline,
            losses,
            counted: Vec::new(),
        });
        Ok((facts, collected.backlog))
    }

    /// The recording has failed.
    pub(super) fn drop_recording(&mut self) {
        self.recording = None;
    }

    /// Searches for unobserved fallbacks, and reads the kernel's counters.
    pub(super) fn counters_now(&mut self) -> anyhow::Result<BTreeMap<u32, netstat::Snapshot>> {
        if self.has_fallbacks() {
            self.tracer.sweep()?;
            self.tracer.read_counters();
        }
        Ok(self.reach.all())
    }

    /// Ends the recording, after the records were taken that had arrived when the counters had the
    /// values `before`, and the losses were `losses`: returns those since it began.
    pub(super) fn end_recording(
        &mut self,
        before: &BTreeMap<u32, netstat::Snapshot>,
        losses: LossReport,
    ) -> Option<LossReport> {
        let after = self.reach.all();
        if let Some(begun) = &mut self.recording {
            begun.counted = growths(&begun.baseline, before, &after);
        }
        self.take_recording(losses)
    }

    /// The part of these losses since the recording began, which ends here; `None` if there is none.
    #[must_use]
    pub fn take_recording(&mut self, mut losses: LossReport) -> Option<LossReport> {
        let begun = self.recording.take()?;
        for loss in &mut losses.sensors {
            if let Some(then) = begun.losses.of(loss.sensor) {
                *loss = loss.since(then);
            }
        }
        losses.counted = begun.counted;
        Some(losses)
    }

    /// Drops the privileges that are not needed once everything is attached and outputs are open:
    /// those of this process, not of a command forked before. A second call does nothing.
    ///
    /// # Errors
    ///
    /// Fails if this process keeps one of them.
    pub fn drop_privileges(&mut self, later: RuntimeNeeds) -> anyhow::Result<()> {
        if self.is_lean {
            return Ok(());
        }
        let later = RuntimeNeeds {
            reads_counters: true,
            ..later
        };
        let needs = later.needs();
        privileges::drop_effective(needs)?;
        // A trial shows whether this kernel requires privileges for access to maps.
        let looked = match self.has_fallbacks() {
            true => self.tracer.sweep().and_then(|()| self.tracer.losses()),
            false => self.tracer.losses(),
        };
        let keep = privileges::with(needs, looked.is_err());
        let given_up = privileges::drop_permanently(keep, later.dormant())?;
        let list = |names: &[String]| match names {
            [] => "nothing".to_owned(),
            _ => names.join(", "),
        };
        if let Err(why) = looked {
            log::info!("this kernel requires CAP_BPF to read maps: {why:#}");
        }
        log::info!("privileges kept: {}", list(&given_up.kept));
        log::info!("privileges dropped: {}", list(&given_up.dropped));
        if !given_up.bounded {
            log::debug!("the bounding set is unchanged: CAP_SETPCAP is missing");
        }
        self.is_lean = true;
        Ok(())
    }

    /// True if fallbacks are traced.
    #[must_use]
    pub fn has_fallbacks(&self) -> bool {
        self.facts.has_sensor(SensorId::Fallback)
    }

    /// Why a sensor does not run; `None` if it does.
    #[must_use]
    pub fn why_off(&self, sensor: SensorId) -> Option<String> {
        if self.facts.has_sensor(sensor) {
            return None;
        }
        let last = self.passed_over.of(sensor).last();
        Some(last.map_or_else(
            || "no attach method works on this kernel; see mptcp-trace doctor".to_owned(),
            |(rung, why)| format!("{rung}: {why}"),
        ))
    }

    /// Searches for unobserved fallbacks, reads the kernel's counters, and detaches.
    ///
    /// # Errors
    ///
    /// Fails if the kernel does not detach a probe.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        if self.has_fallbacks()
            && let Err(why) = self.tracer.sweep()
        {
            log::warn!("cannot search for fallbacks that no probe saw: {why:#}");
        }
        if self.has_fallbacks() {
            self.tracer.read_counters();
        }
        let before = self.reach.all();
        self.tracer.stop()?;
        let after = self.reach.all();
        self.counted = growths(&self.baseline, &before, &after);
        if let Some(begun) = &mut self.recording {
            begun.counted = growths(&begun.baseline, &before, &after);
        }
        Ok(())
    }
}

/// Growth of each namespace's counters since they had the values `baseline`: until the probes were
/// detached, and after. A namespace that did not exist when tracing began started at zero.
fn growths(
    baseline: &BTreeMap<u32, netstat::Snapshot>,
    before: &BTreeMap<u32, netstat::Snapshot>,
    after: &BTreeMap<u32, netstat::Snapshot>,
) -> Vec<Counted> {
    let one = |(netns, snapshot): (&u32, &netstat::Snapshot)| {
        let begin = baseline.get(netns).map(|it| &it.counters);
        let last = after.get(netns).unwrap_or(snapshot);
        let doubt = match (begin, after.contains_key(netns)) {
            (None, _) => Some("this namespace is new, or was inaccessible when tracing began"),
            (Some(_), false) => Some("this namespace ended while its counters were read"),
            (Some(_), true) => None,
        };
        Counted {
            netns: *netns,
            counters: growth(begin, &snapshot.counters),
            counters_after: growth(begin, &last.counters),
            paths: Some(Growth {
                before: path_growth(begin, &snapshot.counters),
                after: path_growth(begin, &last.counters),
            }),
            doubt: doubt.map(str::to_owned),
        }
    };
    before.iter().map(one).collect()
}

/// Wall clock minus `CLOCK_BOOTTIME`, to a microsecond: the times of packets are compared with it.
fn boot_epoch() -> Duration {
    const READINGS: usize = 5;
    let reading = |_number| {
        let before = netstat::boottime();
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let took = netstat::boottime().saturating_sub(before);
        (took, wall.saturating_sub(before + took / 2))
    };
    // Whatever interrupts a reading makes it longer.
    let shortest = (0..READINGS).map(reading).min();
    shortest.map_or(Duration::ZERO, |(_, epoch)| epoch)
}
