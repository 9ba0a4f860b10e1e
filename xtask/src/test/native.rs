//! Runs the lab's suites on this machine's own kernel, as root.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{Step, Summary};
use crate::{
    build::StaticPrograms,
    command::{self, say},
    fleet::JOB_TIME_MAX_S,
    matrix::Report,
    otlp,
    places::Places,
    result::SuiteResult,
    series::RUNNING,
    suite::{Suite, Task},
};

/// The attach method that every kernel with MPTCP supports.
const EVERYWHERE: &str = "tracepoint";

/// Suites that run alone, because they query as fast as both processors allow.
pub(super) fn alone(programs: &StaticPrograms, summary: &Summary) {
    say("floods: on their own, since they take all processors");
    suite(
        programs,
        &Task::on(Suite::Floods, EVERYWHERE).short(),
        summary,
    );
}

/// Suites that run beside virtual machines.
pub(super) fn tasks(places: &Places, everything: bool) -> Vec<Task> {
    let dashboard = places.root.join("contrib/grafana/mptcp-trace.json");
    let without = |why: &anyhow::Error| say(format_args!("{why:#}; continuing without it"));
    let python = otlp::python(places).inspect_err(without).ok();
    let collector = python
        .as_ref()
        .and_then(|_python| otlp::collector(places).inspect_err(without).ok());
    let played = |suite| match everything {
        true => Task::new(suite, &[]),
        false => Task::new(suite, &[]).alternating(0),
    };
    vec![
        Task::new(Suite::Queries, &[]).flooded(),
        played(Suite::Fallbacks),
        played(Suite::Verdicts),
        played(Suite::Paths),
        Task::on(Suite::Mix, EVERYWHERE),
        Task::on(Suite::Reuse, EVERYWHERE),
        Task::on(Suite::ManyPaths, EVERYWHERE).small(),
        Task::on(Suite::ManyPaths, EVERYWHERE).closing_at_once(),
        Task::on(Suite::Ledgers, EVERYWHERE),
        Task::on(Suite::Fingerprints, EVERYWHERE),
        Task::on(Suite::PathCost, EVERYWHERE),
        Task::on(Suite::PathManagers, EVERYWHERE),
        Task::on(Suite::Namespaces, EVERYWHERE),
        Task::on(Suite::Pair, EVERYWHERE),
        Task::on(Suite::Probed, EVERYWHERE),
        Task::on(Suite::Paired, EVERYWHERE),
        Task::on(Suite::Served, EVERYWHERE).drawn(&dashboard),
        Task::on(Suite::Watched, EVERYWHERE),
        Task::on(Suite::Exported, EVERYWHERE).judged(python.as_deref(), collector.as_ref()),
        Task::on(Suite::Churn, EVERYWHERE).short(),
        Task::on(Suite::Recorded, EVERYWHERE).short(),
    ]
}

/// Suites of `--quick`.
pub(super) fn quick_tasks() -> Vec<Task> {
    vec![
        Task::on(Suite::Queries, EVERYWHERE),
        Task::on(Suite::Fallbacks, EVERYWHERE).alternating(0),
        Task::on(Suite::Verdicts, EVERYWHERE).alternating(0),
    ]
}

/// Runs one suite and reports it.
pub(super) fn suite(programs: &StaticPrograms, task: &Task, summary: &Summary) {
    let result = on_running_kernel(programs, task);
    result.show();
    summary.suite(result);
}

/// Whether this machine's own kernel was built with MPTCP.
fn has_mptcp() -> bool {
    Path::new("/proc/sys/net/mptcp").exists()
}

/// Reports that the suites need root.
pub(super) fn skip(summary: &Summary) {
    let why = "it needs root; type: sudo cargo xtask test";
    let name = format!("suites on {RUNNING}");
    summary.step(&name, || Ok(Step::skipped(&name, why)));
}

/// Runs a suite on the running kernel, as root.
pub(crate) fn on_running_kernel(programs: &StaticPrograms, task: &Task) -> SuiteResult {
    let started = Instant::now();
    let mut result = SuiteResult::empty(RUNNING, task.suite);
    say(format_args!(
        "running {} on this machine's own kernel",
        task.suite.name()
    ));
    if let Err(error) = fill(programs, task, &mut result.report) {
        result.report.failures.push(format!("{error:#}"));
    }
    result.took = started.elapsed();
    result
}

fn fill(programs: &StaticPrograms, task: &Task, report: &mut Report) -> Result<()> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let argv = task.argv(
        &path(&programs.lab),
        &path(&programs.tracer),
        programs.go.as_deref().map(path).as_deref(),
    );
    let (program, arguments) = argv.split_first().context("the task has no program")?;
    // Use timeout(1) of coreutils, so that a hanging suite does not block the tests.
    let mut lab = Command::new("timeout");
    lab.arg(Duration::from_secs(JOB_TIME_MAX_S).as_secs().to_string())
        .arg(program)
        .args(arguments);
    let output = lab
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start mptcp-lab")?;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        report.read_line(line);
    }
    report.read_exit_code(i64::from(command::shell_code(output.status)));
    if has_mptcp() {
        report.require_rung(EVERYWHERE, task.suite.always_plays());
    }
    Ok(())
}
