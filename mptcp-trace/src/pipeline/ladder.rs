//! From the plan to a running tracer: tries the attach methods in order until one works and fires.

use std::{fmt, time::Duration};

use super::session::{Session, TryError, try_rung};
use crate::{
    canary,
    host::HostSupport,
    kernel::TracerConfig,
    model::{Rung, SensorId},
    plan::{Plan, Refusal, RungPlan, no_rung},
};

/// Delay before each retry after a transient failure.
const RETRY_AFTER: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// Why no attach method is in use.
#[derive(Debug)]
pub enum StartError {
    /// This kernel or these privileges cannot answer.
    Refused {
        /// The reason, in one sentence.
        refusal: Refusal,
        /// Each attach method, and why it is not in use.
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

/// Attaches the best method that the kernel accepts and that passes the self-test.
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
    let mut passed_over = plan.of(SensorId::Query).ruled_out.clone();
    for rung in &plan.of(SensorId::Query).rungs {
        match try_patiently(host, plan, rung, config).await {
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
            Err(why @ TryError::Disturbed(_)) => {
                return Err(StartError::Failed(why.of_this_host()));
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

/// Tries an attach method until it works or fails permanently. A transient failure is no reason to
/// use a worse method, or to omit a sensor: if it persists, the start fails, and may be repeated.
async fn try_patiently(
    host: &HostSupport,
    plan: &Plan,
    query: &RungPlan,
    config: &TracerConfig,
) -> Result<Session, TryError> {
    let mut pauses = RETRY_AFTER.into_iter();
    loop {
        let why = match try_with_fallbacks(host, plan, query, config).await {
            Ok(session) => return Ok(session),
            Err(why) if why.is_passing() => why,
            Err(why) => return Err(why),
        };
        let Some(pause) = pauses.next() else {
            return Err(TryError::Other(why.of_this_host()));
        };
        log::info!("{}: {:#}; trying again", query.rung, why.of_this_host());
        tokio::time::sleep(pause).await;
    }
}

/// Attaches one method of the query sensor, with the best working method of the fallback sensor, or
/// none.
async fn try_with_fallbacks(
    host: &HostSupport,
    plan: &Plan,
    query: &RungPlan,
    config: &TracerConfig,
) -> Result<Session, TryError> {
    let mut passed_over = plan.of(SensorId::Fallback).ruled_out.clone();
    let candidates = plan
        .of(SensorId::Fallback)
        .beside(query.rung)
        .map(Some)
        .chain([None]);
    for fallback in candidates {
        match try_rung(host, query, fallback, config).await {
            Ok(session) if session.canary.has_passing_complaint() => {
                return Err(TryError::Disturbed(session.canary.in_short()));
            }
            Ok(mut session) => match (fallback, session.canary.fallback_complaint.take()) {
                (Some(fallback), Some(why)) if session.canary.complaints.is_empty() => {
                    log::info!("fallbacks on {}: {why}", fallback.rung);
                    passed_over.push((fallback.rung, why));
                }
                (Some(_) | None, _) => {
                    passed_over.sort();
                    session.fallback_passed_over = passed_over;
                    return Ok(session);
                }
            },
            Err(TryError::Attach(why))
                if why.sensor == SensorId::Fallback && !canary::is_passing(&why.why) =>
            {
                log::info!("fallbacks on {}: {why}", why.rung);
                log::debug!("fallbacks on {}: {:#}", why.rung, why.why);
                passed_over.push((why.rung, why.to_string()));
            }
            Err(other) => return Err(other),
        }
    }
    Err(TryError::Other(anyhow::anyhow!(
        "the query sensor was not tried on {}",
        query.rung
    )))
}
