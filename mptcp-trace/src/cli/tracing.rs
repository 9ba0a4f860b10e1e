//! Starts tracing for every verb: inspects the host, makes a plan, attaches with the best method
//! that works, installs signal handlers, and prints notes to the user.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
};

use anyhow::Context as _;

use super::{
    CANNOT_ANSWER, Exit, FAILED, files,
    files::How,
    options::{Attaching, Scope},
    permission, select, talk,
};
use crate::{
    enrich::unreadable,
    host::{self, HostSupport, privileges},
    kernel::{CountersAt, Mark, TracerConfig},
    model::SensorId,
    pipeline::{self, Session, Signals, StartError, prefixed},
    plan::{Plan, plan},
    sink::escape,
};

/// A running tracer.
pub(super) struct Started {
    pub(super) session: Session,
    pub(super) signals: Signals,
    /// Network namespaces that tracing is limited to (inode numbers).
    pub(super) within: Vec<u32>,
    /// False in a PID namespace: open sockets of processes outside of it are not listed.
    pub(super) visits_all_tasks: bool,
    plan: Plan,
    /// Why no pod has a name, if the user asked for names.
    nameless: Option<String>,
}

/// Starts to trace.
///
/// # Errors
///
/// Reports which name is missing, or why this kernel cannot be traced.
pub(super) async fn start(
    attaching: &Attaching,
    scope: &Scope,
    verbose: u8,
) -> Result<Started, Exit> {
    if let Some(exit) = permission::refusal() {
        return Err(exit);
    }
    let host = inspect_host(attaching);
    let config = config(&host, attaching, scope, verbose)?;
    let plan = plan(&host, attaching.only)
        .map_err(|refusal| Exit::Because(CANNOT_ANSWER, refusal.to_string()))?;
    let session = pipeline::start(&host, &plan, &config, attaching.only)
        .await
        .map_err(|why| refused(why, attaching))?;
    // Signals may arrive as soon as the user sees that tracing is live.
    let signals = Signals::take().context("cannot take signals")?;
    Ok(Started {
        session,
        signals,
        within: config.netns,
        visits_all_tasks: host.visits_all_tasks,
        plan,
        nameless: attaching
            .wants_pods
            .then(|| unreadable(&attaching.pod_logs))
            .flatten(),
    })
}

impl Started {
    /// Prints notes that the reader needs before the first line.
    pub(super) fn say(&self, with_invitation: bool) {
        if let Some(why) = self.nameless.as_ref().filter(|_| talk::has_notes()) {
            stderr_line!("mptcp-trace: note: {}", escape(why));
        }
        say(&self.plan, &self.session, with_invitation);
    }
}

/// Facts about this host, without the functions to hide.
pub(super) fn inspect_host(attaching: &Attaching) -> HostSupport {
    // Without privileges the mark fails, but this user cannot run another tracer that would need it
    // either.
    let marks = Mark::new().ok();
    let mut host = host::inspect(attaching.btf.as_ref(), |socket| {
        if let Some(Err(why)) = marks.as_ref().map(|marks| marks.socket(socket)) {
            log::debug!("cannot mark our own socket: {why}");
        }
    });
    for name in &attaching.hidden {
        host.hide_function(name);
    }
    host
}

/// Configuration frozen into the BPF side.
///
/// # Errors
///
/// Reports an impossible process name or a missing namespace.
pub(super) fn config(
    host: &HostSupport,
    attaching: &Attaching,
    scope: &Scope,
    verbose: u8,
) -> anyhow::Result<TracerConfig> {
    let mut config = TracerConfig {
        layout: host.layout,
        numbers: host.numbers,
        functions: host.function_numbers.clone(),
        counters: CountersAt::of(host),
        by_pid: false,
        pids: Vec::new(),
        follow: false,
        comms: Vec::new(),
        netns: Vec::new(),
        pid_namespace: host.pid_namespace,
        visits_all_tasks: host.visits_all_tasks,
        ring_bytes: attaching.ring_bytes,
        cap: attaching.cap,
        preemptible: host.preemptible,
        sockets: attaching.sockets,
        sockets_per_user: attaching.sockets_per_user,
        debug: verbose >= 2,
    };
    match scope {
        Scope::All => {}
        // Admits only a process that cannot exist.
        Scope::SelfTestOnly => config.by_pid = true,
        Scope::Named(names) => {
            config.by_pid = names.awaits_process || !names.pids.is_empty();
            config.pids.clone_from(&names.pids);
            config.follow = names.follow;
            config.comms = names
                .comms
                .iter()
                .map(|name| select::comm(name))
                .collect::<anyhow::Result<_>>()?;
            config.netns = names
                .netns
                .iter()
                .map(|name| select::netns(name))
                .collect::<anyhow::Result<_>>()?;
        }
    }
    Ok(config)
}

/// Exit for a tracer that did not start.
fn refused(why: StartError, attaching: &Attaching) -> Exit {
    match why {
        StartError::Refused { refusal, .. } => {
            let doubt = attaching.btf.as_ref().map_or_else(String::new, |file| {
                format!("; does {} describe the running kernel?", file.display())
            });
            Exit::Because(CANNOT_ANSWER, format!("{refusal}{doubt}"))
        }
        StartError::Failed(why) => Exit::Because(FAILED, format!("{why:#}")),
    }
}

/// Writes the file that reports that tracing is live.
pub(super) fn write_ready_file(path: &Path) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        let mut file = files::open(path, How::Anew)?;
        files::empty(&file)?;
        Ok(file.write_all(format!("{}\n", std::process::id()).as_bytes())?)
    };
    write().with_context(|| format!("cannot write --ready-file {}", path.display()))
}

/// Prints notes that the reader needs before the first line.
fn say(plan: &Plan, session: &Session, with_invitation: bool) {
    let has_notes = talk::has_notes();
    for note in plan
        .notes
        .iter()
        .chain(&privileges::costs())
        .filter(|_| has_notes)
    {
        stderr_line!("mptcp-trace: note: {}", escape(note));
    }
    for sensor in SensorId::ALL {
        for (rung, why) in session.passed_over.of(sensor) {
            match sensor.is_optional() {
                true => log::info!("{} not on {rung}: {why}", sensor.events(0)),
                false => log::info!("not {rung}: {why}"),
            }
        }
        if let Some(why) = session.why_off(sensor) {
            let without_it = sensor.without_it();
            let note = format!("note: the {sensor} sensor is off, {without_it}: {why}");
            stderr!("{}", prefixed(&note));
        }
    }
    for sensor in &session.facts.sensors {
        log::info!(
            "sensor {} uses attach method {}",
            sensor.sensor,
            sensor.rung
        );
        for limit in &sensor.limits {
            log::info!("{}: {limit}", sensor.rung);
        }
    }
    if with_invitation && has_notes && io::stderr().is_terminal() {
        let limits: usize = session
            .facts
            .sensors
            .iter()
            .map(|sensor| sensor.limits.len())
            .sum();
        let limits = match limits {
            0 => String::new(),
            n => format!(" ({n} limits: see mptcp-trace doctor)"),
        };
        stderr_line!(
            "mptcp-trace: tracing with {}{limits}; press Ctrl-C to stop",
            session.tracer.rung()
        );
    }
}
