//! From the plan to a running tracer: tries the attach methods in order until one works and fires.

use std::{fmt, time::Duration};

use super::session::{Session, TryError, try_rung};
use crate::{
    canary,
    host::HostSupport,
    kernel::TracerConfig,
    model::{PerSensor, Rung, SensorId},
    plan::{Plan, Refusal, RungPlan, Selection, no_rung},
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
            Ok(mut session) => match session.canary.complaint() {
                None => {
                    passed_over.sort();
                    session.passed_over.query = passed_over;
                    return Ok(session);
                }
                Some((_, why)) => {
                    let why = format!("attached, but it does not work: {why}");
                    log::info!("{}: {why}", rung.rung);
                    passed_over.push((rung.rung, why));
                }
            },
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
        let why = match try_with_others(host, plan, query, config).await {
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

/// Attaches one method of the query sensor, with the best working method of each other sensor, or
/// none.
async fn try_with_others(
    host: &HostSupport,
    plan: &Plan,
    query: &RungPlan,
    config: &TracerConfig,
) -> Result<Session, TryError> {
    let mut passed_over = PerSensor::from_fn(|sensor| plan.of(sensor).ruled_out.clone());
    let mut selection = Selection::best(plan, query);
    loop {
        let (sensor, why) = match try_rung(host, &selection, config).await {
            Ok(mut session) => {
                if let Some(why) = session.canary.passing_complaint() {
                    return Err(TryError::Disturbed(why));
                }
                match session.canary.complaint() {
                    Some((sensor, why)) if sensor.is_optional() => (sensor, why),
                    Some(_) | None => {
                        for sensor in SensorId::ALL {
                            passed_over.of_mut(sensor).sort();
                        }
                        session.passed_over = passed_over;
                        return Ok(session);
                    }
                }
            }
            Err(TryError::Attach(why))
                if why.sensor.is_optional() && !canary::is_passing(&why.why) =>
            {
                let sensor = why.sensor;
                log::debug!("{} on {}: {:#}", sensor.events(0), why.rung, why.why);
                (sensor, why.to_string())
            }
            Err(other) => return Err(other),
        };
        let (Some(failed), Some(next)) = (selection.of(sensor), selection.with_worse(plan, sensor))
        else {
            let why = anyhow::anyhow!("the sensor {sensor} failed, which was off: {why}");
            return Err(TryError::Other(why));
        };
        log::info!("{} on {}: {why}", sensor.events(0), failed.rung);
        passed_over.of_mut(sensor).push((failed.rung, why));
        selection = next;
    }
}
