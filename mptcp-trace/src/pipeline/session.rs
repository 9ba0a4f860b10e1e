//! From the plan to a running tracer: climbs the ladder until a rung holds and is seen to fire.

use std::{
    fmt, io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};

use crate::{
    canary::{self, Complaint, Questions},
    decode::{Observation, decode},
    host::HostSupport,
    kernel::{LogRing, RecordRing, Tracer, TracerConfig},
    model::{Facts, LossReport, Query, Rung, SensorState},
    plan::{Plan, Refusal, RungPlan, no_rung},
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
    /// Counters before anyone but the canary was looked at.
    canary_queries: u64,
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
}

impl CanaryReport {
    /// The faults in one sentence.
    #[must_use]
    pub fn verdict(&self) -> String {
        if self.seen == 0 {
            return format!(
                "we asked {} questions of our own, and no probe saw one",
                self.asked
            );
        }
        let complaints: Vec<String> = self.complaints.iter().map(ToString::to_string).collect();
        complaints.join("; ")
    }
}

/// Why no rung is in use.
#[derive(Debug)]
pub enum StartError {
    /// This kernel or these privileges cannot answer.
    Refused {
        /// In one sentence.
        refusal: Refusal,
        /// Each rung, and why it is not in use.
        passed_over: Vec<(Rung, String)>,
    },
    /// Something else went wrong.
    Failed(anyhow::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { refusal, .. } => refusal.fmt(f),
            Self::Failed(why) => write!(f, "{why:#}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Attaches the best rung that the kernel takes and that fires when we ask ourselves.
///
/// # Errors
///
/// Why none does.
pub async fn start(
    host: &HostSupport,
    plan: &Plan,
    config: &TracerConfig,
    only: Option<Rung>,
) -> Result<Session, StartError> {
    let mut passed_over = plan.query.ruled_out.clone();
    for rung in &plan.query.rungs {
        match try_rung(host, rung, config).await {
            Ok(mut session) if session.canary.complaints.is_empty() => {
                passed_over.sort();
                session.passed_over = passed_over;
                return Ok(session);
            }
            Ok(session) => {
                let why = format!(
                    "attached, but it does not work: {}",
                    session.canary.verdict()
                );
                log::info!("{}: {why}", rung.rung);
                passed_over.push((rung.rung, why));
            }
            Err(TryError::Attach(why)) => {
                log::info!("{}: {why}", rung.rung);
                log::debug!("{}: {:#}", rung.rung, why.why);
                passed_over.push((rung.rung, why.to_string()));
            }
            Err(TryError::Other(why)) => return Err(StartError::Failed(why)),
        }
    }
    passed_over.sort();
    let refusal = no_rung(only, &passed_over);
    Err(StartError::Refused {
        refusal,
        passed_over,
    })
}

enum TryError {
    Attach(crate::kernel::AttachError),
    Other(anyhow::Error),
}

impl From<anyhow::Error> for TryError {
    fn from(why: anyhow::Error) -> Self {
        Self::Other(why)
    }
}

async fn try_rung(
    host: &HostSupport,
    plan: &RungPlan,
    config: &TracerConfig,
) -> Result<Session, TryError> {
    let mut tracer = Tracer::start(config, plan).map_err(TryError::Attach)?;
    let mut records = tracer.take_records()?;
    let log = if config.debug {
        Some(tracer.take_log()?)
    } else {
        None
    };
    let facts = Facts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: host.kernel.clone(),
        boot_epoch: boot_epoch(),
        fallback_bit: None,
        sensors: vec![SensorState {
            name: crate::plan::QUERY.to_owned(),
            rung: plan.rung,
            probes: plan
                .probes
                .iter()
                .map(|probe| probe.target.to_string())
                .collect(),
            limits: plan.limits.clone(),
        }],
    };
    let questions = canary::ask()?;
    let mut flight = Flight {
        facts: &facts,
        own: Vec::new(),
        backlog: Vec::new(),
    };
    let home = async {
        while flight.own.len() < questions.asked.len() && flight.has_room() {
            records.next_turn(|bytes| flight.take(bytes)).await?;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(CANARY_WAIT_MAX, home).await {
        Ok(done) => done.context("cannot read our own records back")?,
        // Silence is a finding, not an error: the complaints below say who was not seen.
        Err(_elapsed) => {}
    }
    let Flight {
        facts: _,
        own,
        backlog,
    } = flight;
    let (facts, canary) = judge(facts, &questions, &own);
    let canary_queries = own.len() as u64;
    Ok(Session {
        tracer,
        records,
        log,
        facts,
        backlog,
        canary,
        passed_over: Vec::new(),
        canary_queries,
    })
}

/// Records that come out of the ring while the canary is out.
struct Flight<'a> {
    facts: &'a Facts,
    own: Vec<Vec<u8>>,
    backlog: Vec<Vec<u8>>,
}

impl Flight<'_> {
    fn has_room(&self) -> bool {
        self.backlog.len() < BACKLOG_RECORDS_MAX
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), io::Error> {
        match decode(bytes, self.facts) {
            Ok(Observation::Canary(_)) => self.own.push(bytes.to_vec()),
            // What cannot be decoded is complained about where all the others are.
            Ok(Observation::Query(_)) | Err(_) => self.backlog.push(bytes.to_vec()),
        }
        Ok(())
    }
}

/// Calibrates what no kernel publishes, then compares what was seen with what is so.
fn judge(mut facts: Facts, questions: &Questions, own: &[Vec<u8>]) -> (Facts, CanaryReport) {
    let read = |facts: &Facts| -> Vec<Query> {
        own.iter()
            .filter_map(|bytes| match decode(bytes, facts) {
                Ok(Observation::Canary(query)) => Some(query),
                Ok(Observation::Query(_)) | Err(_) => None,
            })
            .collect()
    };
    facts.fallback_bit = questions.calibrate(&read(&facts));
    let seen = read(&facts);
    let complaints = questions.compare(&seen);
    let report = CanaryReport {
        asked: questions.asked.len(),
        seen: seen.len(),
        complaints,
        skipped: questions.skipped.clone(),
    };
    for sensor in &mut facts.sensors {
        if sensor.rung == Rung::Tracepoint && facts.fallback_bit.is_none() {
            sensor.limits.push(
                "the fallback bit could not be calibrated: the answer is read from the caller's memory"
                    .to_owned(),
            );
        }
    }
    (facts, report)
}

impl Session {
    /// What was seen and lost, without our own questions.
    ///
    /// # Errors
    ///
    /// Fails if the counters cannot be read.
    pub fn losses(&self) -> anyhow::Result<LossReport> {
        let mut report = self.tracer.losses()?;
        for sensor in &mut report.sensors {
            sensor.seen = sensor.seen.saturating_sub(self.canary_queries);
            sensor.emitted = sensor.emitted.saturating_sub(self.canary_queries);
        }
        Ok(report)
    }
}

/// Wall clock minus `CLOCK_BOOTTIME`.
fn boot_epoch() -> Duration {
    let since_boot = clock_gettime(ClockId::Boottime);
    let since_boot = Duration::new(
        u64::try_from(since_boot.tv_sec).unwrap_or_default(),
        u32::try_from(since_boot.tv_nsec).unwrap_or_default(),
    );
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    wall.saturating_sub(since_boot)
}
