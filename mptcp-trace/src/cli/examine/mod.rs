//! Examines what works on this host: printed by `doctor`, packed by `bundle`.

mod page;

use anyhow::Context as _;

use self::page::Report;
use super::{
    Exit,
    options::{Attaching, Scope},
    tracing,
};
use crate::{
    host::HostSupport,
    model::{Rung, SensorId},
    pipeline::{self, Session, StartError},
    plan::{Plan, Refusal, plan},
    probes::tracepoint,
};

/// The report as one JSON object.
pub(super) fn json(attaching: &Attaching, verbose: u8) -> Result<String, Exit> {
    let report = report(attaching, false, verbose)?;
    Ok(serde_json::to_string(&report).context("cannot write the report")?)
}

/// Tries to trace. With `breaks`, the query sensor is attached to the wrong functions, and the
/// self-test must notice.
pub(super) fn report(attaching: &Attaching, breaks: bool, verbose: u8) -> Result<Report, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let host = tracing::inspect_host(attaching);
    let examined = runtime.block_on(examine(&host, attaching, breaks, verbose))?;
    Ok(Report::new(&host, &examined))
}

/// Outcome of the attempt.
enum Examined {
    Refused {
        plan: Option<Plan>,
        refusal: Refusal,
        passed_over: Vec<(Rung, String)>,
    },
    Works {
        plan: Plan,
        session: Box<Session>,
    },
}

async fn examine(
    host: &HostSupport,
    attaching: &Attaching,
    breaks: bool,
    verbose: u8,
) -> Result<Examined, Exit> {
    let mut plan = match plan(host, attaching.only) {
        Ok(plan) => plan,
        Err(refusal) => {
            return Ok(Examined::Refused {
                plan: None,
                refusal,
                passed_over: Vec::new(),
            });
        }
    };
    if breaks {
        break_query(&mut plan);
    }
    match pipeline::start(
        host,
        &plan,
        &tracing::config(host, attaching, &Scope::SelfTestOnly, verbose)?,
        attaching.only,
    )
    .await
    {
        Ok(session) => Ok(Examined::Works {
            plan,
            session: Box::new(session),
        }),
        Err(StartError::Refused {
            refusal,
            passed_over,
        }) => Ok(Examined::Refused {
            plan: Some(plan),
            refusal,
            passed_over,
        }),
        Err(StartError::Failed(why)) => Err(why.into()),
    }
}

/// Points every query probe at the setsockopt counterpart of its target.
fn break_query(plan: &mut Plan) {
    for rung in &mut plan.of_mut(SensorId::Query).rungs {
        for probe in &mut rung.probes {
            let name = &mut probe.target.name;
            match probe.target.hook.is_on_function() {
                true => *name = name.replace("getsockopt", "setsockopt"),
                false if *name == tracepoint::SYS_EXIT => tracepoint::SYS_ENTER.clone_into(name),
                false => {}
            }
        }
    }
}
