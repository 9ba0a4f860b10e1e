//! A running tracer: attaches one rung and puts it to the test.

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

/// How long our own questions may take to come out of the ring.
const CANARY_WAIT_MAX: Duration = Duration::from_secs(2);

/// Foreign records that are kept while the canary is out; more of them stay in the ring.
const BACKLOG_RECORDS_MAX: usize = 65_536;

/// A tracer that works.
pub struct Session {
    /// The live probes.
    pub tracer: Tracer,
    /// Their records.
    pub records: RecordRing,
    /// Their debug messages, if they were asked for.
    pub log: Option<LogRing>,
    /// What a reader of the records has to know.
    pub facts: Facts,
    /// Records of others that came while the canary was out.
    pub backlog: Vec<Vec<u8>>,
    /// What the canary did.
    pub canary: CanaryReport,
    /// Better rungs, and why they are not in use.
    pub passed_over: Vec<(Rung, String)>,
    /// The same for the fallback sensor.
    pub fallback_passed_over: Vec<(Rung, String)>,
    /// Our own questions, and what was told of our own connections: nobody else's business.
    canary_queries: u64,
    canary_connections: u64,
    /// The kernel's counters when tracing began, by network namespace.
    baseline: BTreeMap<u32, netstat::Snapshot>,
    /// By how much they have grown, once that was looked at.
    counted: Vec<Counted>,
    /// Where counters can be read.
    reach: netstat::Reach,
    /// Privileges that are not needed any more are gone.
    is_lean: bool,
}

/// How our own questions fared.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CanaryReport {
    /// How many we asked.
    pub asked: usize,
    /// How many our probes saw.
    pub seen: usize,
    /// What is wrong with them.
    pub complaints: Vec<Complaint>,
    /// What we could not ask, and why.
    pub skipped: Vec<String>,
    /// A connection of our own fell back, to see whether our probes see it.
    pub fell_back: bool,
    /// What is wrong with what was seen of our own fallback.
    pub fallback_complaint: Option<String>,
    /// What on this host, rather than of this kernel, may be the reason of complaints.
    pub disturbed: Option<String>,
}

impl CanaryReport {
    /// True if something is wrong, and the reason may be one of this host that passes.
    pub(super) fn has_passing_complaint(&self) -> bool {
        let has_complaint = !self.complaints.is_empty() || self.fallback_complaint.is_some();
        has_complaint && self.disturbed.is_some()
    }

    /// What is wrong, and what may be the reason.
    pub(super) fn in_short(&self) -> String {
        let what = match (&self.fallback_complaint, self.complaints.is_empty()) {
            (Some(why), true) => why.clone(),
            (Some(_) | None, _) => self.verdict(),
        };
        let why = self.disturbed.as_deref().unwrap_or_default();
        format!("{what} ({why})")
    }

    /// The faults in one sentence.
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
    /// True if another try may succeed.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Attach(why) => canary::is_passing(&why.why),
            Self::Disturbed(_) => true,
            Self::Other(why) => canary::is_passing(why),
        }
    }

    /// What is wrong on this host.
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

/// One rung of each sensor: attached, and put to the test.
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
        // More than the tables hold there cannot be, beside what others do meanwhile.
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

/// What is known before the first record.
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

/// What the kernel had counted in each namespace when tracing began, where a program can read that.
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
    let running = [
        (SensorId::Query, Some(query)),
        (SensorId::Fallback, fallback),
    ];
    running
        .into_iter()
        .filter_map(|(sensor, plan)| Some((sensor, plan?)))
        .map(|(sensor, plan)| SensorState {
            sensor,
            rung: plan.rung,
            probes: plan.probes.iter().map(|it| it.target.to_string()).collect(),
            limits: plan.limits.clone(),
        })
        .collect()
}

/// Falls back ourselves, now that the state bit is known; what is wrong with what the probes saw of it, or
/// nothing if there can be no connection of our own.
async fn prove_fallback(
    mark: canary::Mark<'_>,
    collected: &mut CanaryCollector,
    records: &mut RecordRing,
    facts: &Facts,
) -> anyhow::Result<Option<Option<String>>> {
    let fallen = match canary::fall_back(mark)? {
        Ok(fallen) => fallen,
        Err(why) if canary::is_passing(&why) => return Err(why),
        // It was said already why there are no connections of our own.
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

/// What may have kept our own records from us.
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

/// Records that come out of the ring while the canary is out.
#[derive(Default)]
struct CanaryCollector {
    own: Vec<Vec<u8>>,
    own_connections: Vec<Connection>,
    own_changes: usize,
    backlog: Vec<Vec<u8>>,
    /// What the kernel half read when tracing began, by the namespace's cookie.
    counters_at_start: BTreeMap<u64, BTreeMap<String, u64>>,
}

impl CanaryCollector {
    /// Reads until `enough`, or for [`CANARY_WAIT_MAX`], or until there is no room for what others do.
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
            // Silence is a finding, not an error: whoever compares says who was not seen.
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
            // What cannot be decoded is complained about where all the others are.
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

/// Calibrates what no kernel publishes, then compares what was seen with what is so.
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
        // What the kernel plans to do with a socket stands among its state bits too, until it is done.
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
    /// What was seen and lost, without our own questions, and what the kernel counted meanwhile.
    ///
    /// # Errors
    ///
    /// Fails if the counters cannot be read.
    pub fn losses(&self) -> anyhow::Result<LossReport> {
        let mut report = self.tracer.losses()?;
        // Counters of a sensor that does not run say nothing, least of all that nothing was lost.
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

    /// The same in the middle of a run: the kernel's counters are read now.
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

    /// Gives up the privileges that are not needed once everything is attached, and what is written to is open: of this
    /// process, not of a command that was forked before. Asked again, it does nothing.
    ///
    /// # Errors
    ///
    /// Fails if the kernel lets this process keep one of them.
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
        // Whether the kernel asks for privileges whenever a map is looked at, it tells best itself.
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

    /// Why fallbacks are not traced; none if they are.
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

    /// Looks for what nobody saw, reads the kernel's counters, and detaches.
    ///
    /// # Errors
    ///
    /// Fails if the kernel does not let go of a probe.
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

    /// By how much the counters of each namespace had grown before the probes were taken down, and after. A
    /// namespace that was not there when tracing began has counted from nothing.
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
