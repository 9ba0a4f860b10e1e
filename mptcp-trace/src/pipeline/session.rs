//! A running tracer: attaches one method and runs the self-test.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;

use crate::{
    canary::{self, Complaint, Questions},
    correlate::growth,
    decode::{Observation, decode},
    host::{
        HostSupport, netstat,
        privileges::{self, RuntimeNeeds},
    },
    kernel::{LogRing, Mark, RecordRing, Tracer, TracerConfig},
    model::{
        Connection, ConnectionKind, Counted, Facts, Loss, LossReport, Query, Rung, SensorId,
        SensorState,
    },
    plan::RungPlan,
};

/// Maximum time for the canary's records to arrive from the ring.
const CANARY_WAIT_MAX: Duration = Duration::from_secs(2);

/// At most this many other records are kept during the self-test; more stay in the ring.
const BACKLOG_RECORDS_MAX: usize = 65_536;

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
    /// Better attach methods, and why they are not in use.
    pub passed_over: Vec<(Rung, String)>,
    /// Better attach methods of the fallback sensor, and why they are not in use.
    pub fallback_passed_over: Vec<(Rung, String)>,
    /// Number of the canary's own records, which are not reported.
    canary_queries: u64,
    canary_connections: u64,
    /// The kernel's counters when tracing began, by network namespace.
    baseline: BTreeMap<u32, netstat::Snapshot>,
    /// Growth of the counters, once it was read.
    counted: Vec<Counted>,
    /// Namespaces whose counters can be read.
    reach: netstat::Reach,
    /// Unneeded privileges were dropped.
    is_lean: bool,
}

/// Result of the self-test.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CanaryReport {
    /// Number of the canary's queries.
    pub asked: usize,
    /// Number of those that the probes observed.
    pub seen: usize,
    /// What is wrong with them.
    pub complaints: Vec<Complaint>,
    /// Impossible queries, with the reason.
    pub skipped: Vec<String>,
    /// A connection of the canary fell back, to test the probes.
    pub fell_back: bool,
    /// What is wrong with the observation of that fallback.
    pub fallback_complaint: Option<String>,
    /// What on this host, rather than in this kernel, may explain the complaints.
    pub disturbed: Option<String>,
}

impl CanaryReport {
    /// True if there are complaints, which may have a transient reason on this host.
    pub(super) fn has_passing_complaint(&self) -> bool {
        let has_complaint = !self.complaints.is_empty() || self.fallback_complaint.is_some();
        has_complaint && self.disturbed.is_some()
    }

    /// The complaint, and its possible reason.
    pub(super) fn in_short(&self) -> String {
        let what = match (&self.fallback_complaint, self.complaints.is_empty()) {
            (Some(why), true) => why.clone(),
            (Some(_) | None, _) => self.verdict(),
        };
        let why = self.disturbed.as_deref().unwrap_or_default();
        format!("{what} ({why})")
    }

    /// The complaints in one sentence.
    #[must_use]
    pub fn verdict(&self) -> String {
        if self.seen == 0 {
            return format!(
                "the self-test made {} queries, but no probe saw one",
                self.asked
            );
        }
        let complaints: Vec<String> = self.complaints.iter().map(ToString::to_string).collect();
        complaints.join("; ")
    }
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
    plan: &RungPlan,
    fallback: Option<&RungPlan>,
    config: &TracerConfig,
) -> Result<Session, TryError> {
    let mut tracer = Tracer::start(config, plan, fallback).map_err(TryError::Attach)?;
    let mut records = tracer.take_records()?;
    let log = if config.debug {
        Some(tracer.take_log()?)
    } else {
        None
    };
    let mut facts = facts_of(host, plan, fallback);
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
    let (questions, inside) = canary::ask(&mark)?;
    if let Some(inside) = inside
        && fallback.is_some()
        && let Err(why) = tracer.find_pernet(inside.as_fd(), canary::BLACKHOLE_TIMEOUT)
    {
        log::debug!("the blackhole period of MPTCP is unknown: {why:#}");
    }
    let mut collected = CanaryCollector::default();
    collected
        .until(&mut records, &facts, |collected| {
            collected.own.len() >= questions.asked.len()
        })
        .await?;
    let mut canary = judge(&mut facts, &questions, &collected.own);
    tracer.calibrate(facts.fallback_bit)?;
    if fallback.is_some() && canary.complaints.is_empty() {
        let proof = prove_fallback(&mark, &mut collected, &mut records, &facts).await?;
        canary.fell_back = proof.is_some();
        canary.fallback_complaint = proof.flatten();
        // There cannot be more than the tables hold, plus concurrent events.
        let limit = BACKLOG_RECORDS_MAX + config.sockets as usize;
        let listed = tracer.list(|| match collected.backlog.len() < limit {
            true => Ok(records.drain(|bytes| collected.take(bytes, &facts))?),
            false => Ok(()),
        });
        if let Err(why) = listed {
            log::warn!("existing sockets are unknown: {why:#}");
        }
    }
    canary.disturbed = disturbed(&tracer, &collected)?.or(canary.disturbed);
    if fallback.is_some() {
        list_counters(&tracer, &mut records, &mut collected, &mut facts);
    }
    let mut reach = netstat::Reach::new();
    let baseline = reach.all();
    facts.counters_read_at = baseline
        .iter()
        .map(|(netns, snapshot)| (*netns, snapshot.at))
        .collect();
    Ok(Session {
        tracer,
        records,
        log,
        facts,
        backlog: collected.backlog,
        canary,
        passed_over: Vec::new(),
        fallback_passed_over: Vec::new(),
        canary_queries: collected.own.len() as u64,
        canary_connections: (collected.own_connections.len() + collected.own_changes) as u64,
        baseline,
        counted: Vec::new(),
        reach,
        is_lean: false,
    })
}

/// The facts before the first record.
fn facts_of(host: &HostSupport, query: &RungPlan, fallback: Option<&RungPlan>) -> Facts {
    Facts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: host.kernel.clone(),
        boot_epoch: boot_epoch(),
        fallback_bit: None,
        causes: host.counters.clone(),
        counters_read_at: BTreeMap::new(),
        counters_listed_at: None,
        counters_at_start: BTreeMap::new(),
        sensors: sensors(query, fallback),
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

fn sensors(query: &RungPlan, fallback: Option<&RungPlan>) -> Vec<SensorState> {
    let plan_of = |sensor| match sensor {
        SensorId::Query => Some(query),
        SensorId::Fallback => fallback,
    };
    SensorId::ALL
        .into_iter()
        .filter_map(|sensor| Some((sensor, plan_of(sensor)?)))
        .map(|(sensor, plan)| SensorState {
            sensor,
            rung: plan.rung,
            probes: plan.probes.iter().map(|it| it.target.to_string()).collect(),
            limits: plan.limits.clone(),
        })
        .collect()
}

/// Provokes a fallback, now that the state bit is known; returns what is wrong with its
/// observation, or nothing if no connection of our own is possible.
async fn prove_fallback(
    mark: canary::Mark<'_>,
    collected: &mut CanaryCollector,
    records: &mut RecordRing,
    facts: &Facts,
) -> anyhow::Result<Option<Option<String>>> {
    let fallen = match canary::fall_back(mark)? {
        Ok(fallen) => fallen,
        Err(why) if canary::is_passing(&why) => return Err(why),
        // The reason was reported before.
        Err(_why) => return Ok(None),
    };
    let ours = |connection: &Connection| {
        connection.kind == ConnectionKind::Fallback && connection.socket.local == fallen.local
    };
    collected
        .until(records, facts, |collected| {
            collected.own_connections.iter().any(ours)
        })
        .await?;
    let seen: Vec<&Connection> = collected
        .own_connections
        .iter()
        .filter(|it| ours(it))
        .collect();
    Ok(Some(fallen.complaint(&seen)))
}

/// What may have kept the canary's records from us.
fn disturbed(tracer: &Tracer, collected: &CanaryCollector) -> anyhow::Result<Option<String>> {
    if collected.backlog.len() >= BACKLOG_RECORDS_MAX {
        let why = format!("{} other records came first", collected.backlog.len());
        return Ok(Some(why));
    }
    let losses = tracer.losses()?;
    let count = |of: fn(&Loss) -> u64| losses.sensors.iter().map(of).sum::<u64>();
    let (full, skipped) = (count(|it| it.ring_full), count(|it| it.missed));
    let why = match (full, skipped) {
        (0, 0) => None,
        (0, skipped) => Some(format!(
            "{skipped} runs of a probe were skipped by the kernel"
        )),
        (full, _) => Some(format!("{full} records did not fit into the ring")),
    };
    Ok(why)
}

/// Records that arrive from the ring during the self-test.
#[derive(Default)]
struct CanaryCollector {
    own: Vec<Vec<u8>>,
    own_connections: Vec<Connection>,
    own_changes: usize,
    backlog: Vec<Vec<u8>>,
    /// The BPF side's readings when tracing began, by the namespace's cookie.
    counters_at_start: BTreeMap<u64, BTreeMap<String, u64>>,
}

impl CanaryCollector {
    /// Reads until `enough`, for [`CANARY_WAIT_MAX`], or until the backlog is full.
    async fn until(
        &mut self,
        records: &mut RecordRing,
        facts: &Facts,
        enough: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        let home = async {
            while !enough(self) && self.backlog.len() < BACKLOG_RECORDS_MAX {
                records.next_turn(|bytes| self.take(bytes, facts)).await?;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(CANARY_WAIT_MAX, home).await {
            Ok(done) => done.context("cannot read our own records back"),
            // A timeout is a result, not an error: the comparison reports what is missing.
            Err(_elapsed) => Ok(()),
        }
    }

    fn take(&mut self, bytes: &[u8], facts: &Facts) -> Result<(), io::Error> {
        match decode(bytes, facts) {
            Ok(Observation::Canary(_)) => self.own.push(bytes.to_vec()),
            Ok(Observation::CanaryConnection(connection)) => self.own_connections.push(*connection),
            Ok(Observation::CanaryChange(_)) => self.own_changes += 1,
            Ok(Observation::CountersAtStart(read)) => {
                if !read.counters.is_empty() {
                    self.counters_at_start.insert(read.cookie, read.counters);
                }
            }
            // Undecodable records are reported later, with all others.
            Ok(
                Observation::Query(_)
                | Observation::Connection(_)
                | Observation::Change(_)
                | Observation::Refusal(_)
                | Observation::Counters(_),
            )
            | Err(_) => {
                self.backlog.push(bytes.to_vec());
            }
        }
        Ok(())
    }
}

/// Calibrates what no kernel publishes, then compares the observed queries with the facts.
fn judge(facts: &mut Facts, questions: &Questions, own: &[Vec<u8>]) -> CanaryReport {
    let read = |facts: &Facts| -> Vec<Query> {
        own.iter()
            .filter_map(|bytes| match decode(bytes, facts) {
                Ok(Observation::Canary(query)) => Some(query),
                Ok(
                    Observation::Query(_)
                    | Observation::Connection(_)
                    | Observation::Refusal(_)
                    | Observation::Counters(_)
                    | Observation::CountersAtStart(_)
                    | Observation::CanaryConnection(_)
                    | Observation::Change(_)
                    | Observation::CanaryChange(_),
                )
                | Err(_) => None,
            })
            .collect()
    };
    let candidates = questions.fallback_bits(&read(facts));
    facts.fallback_bit = canary::only_bit(candidates);
    let seen = read(facts);
    let complaints = questions.compare(&seen);
    let report = CanaryReport {
        asked: questions.asked.len(),
        seen: seen.len(),
        complaints,
        skipped: questions.skipped.clone(),
        fell_back: false,
        fallback_complaint: None,
        // Pending work on a socket is also among its state bits, until it is done.
        disturbed: (candidates.count_ones() > 1)
            .then(|| "several state bits of our own connection changed at once".to_owned()),
    };
    if facts.fallback_bit.is_none() {
        for sensor in &mut facts.sensors {
            let limit = match (sensor.sensor, sensor.rung) {
                (SensorId::Query, Rung::Tracepoint) => {
                    "the fallback bit could not be calibrated: the answer is read from the caller's \
                     memory"
                }
                (SensorId::Query, Rung::Fexit | Rung::Kprobe) => continue,
                (SensorId::Fallback, Rung::Fexit | Rung::Kprobe | Rung::Tracepoint) => {
                    "the fallback bit could not be calibrated: fallbacks are only seen where a \
                     function reports them"
                }
            };
            sensor.limits.push(limit.to_owned());
        }
    }
    report
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
            let own = match sensor.sensor {
                SensorId::Query => self.canary_queries,
                SensorId::Fallback => self.canary_connections,
            };
            sensor.seen = sensor.seen.saturating_sub(own);
            sensor.emitted = sensor.emitted.saturating_sub(own);
        }
        report.counted = self.counted.clone();
        Ok(report)
    }

    /// Variant for the middle of a run: reads the kernel's counters now.
    ///
    /// # Errors
    ///
    /// Fails if the counters cannot be read.
    pub fn losses_now(&mut self) -> anyhow::Result<LossReport> {
        if self.has_fallbacks() {
            self.tracer.sweep()?;
            self.tracer.read_counters();
        }
        let now = self.reach.all();
        self.counted = self.growth(&now, &now);
        self.losses()
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
        let needs = RuntimeNeeds {
            reads_counters: true,
            ..later
        }
        .needs();
        privileges::drop_effective(needs)?;
        // A trial shows whether this kernel requires privileges for access to maps.
        let looked = match self.has_fallbacks() {
            true => self.tracer.sweep().and_then(|()| self.tracer.losses()),
            false => self.tracer.losses(),
        };
        let keep = privileges::with(needs, looked.is_err());
        let given_up = privileges::drop_permanently(keep)?;
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

    /// Why fallbacks are not traced; `None` if they are.
    #[must_use]
    pub fn why_no_fallbacks(&self) -> Option<String> {
        if self.has_fallbacks() {
            return None;
        }
        let last = self.fallback_passed_over.last();
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
        self.counted = self.growth(&before, &after);
        Ok(())
    }

    /// Growth of each namespace's counters until the probes were detached, and after. A namespace
    /// that did not exist when tracing began started at zero.
    fn growth(
        &self,
        before: &BTreeMap<u32, netstat::Snapshot>,
        after: &BTreeMap<u32, netstat::Snapshot>,
    ) -> Vec<Counted> {
        let one = |(netns, snapshot): (&u32, &netstat::Snapshot)| {
            let begin = self.baseline.get(netns).map(|it| &it.counters);
            let last = after.get(netns).unwrap_or(snapshot);
            Counted {
                netns: *netns,
                counters: growth(begin, &snapshot.counters),
                counters_after: growth(begin, &last.counters),
                doubt: begin.is_none().then(|| {
                    "this namespace is new, or was inaccessible when tracing began".to_owned()
                }),
            }
        };
        before.iter().map(one).collect()
    }
}

/// Wall clock minus `CLOCK_BOOTTIME`.
fn boot_epoch() -> Duration {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    wall.saturating_sub(netstat::boottime())
}
