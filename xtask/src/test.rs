//! `cargo xtask test`: everything that can be tested on this machine, by whoever runs it.

use std::{
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    bpf,
    build::{self, StaticPrograms},
    command::{self, is_root, say},
    dist,
    docs_table::{self, Outcomes},
    fleet::{Fleet, JOB_TIME_MAX_S},
    host_packages::{self, PAIR_NEEDS},
    matrix::Report,
    otlp,
    places::Places,
    report,
    result::SuiteResult,
    shapes::{self, RUNNING},
    suite::{Suite, Task},
    tally::Tally,
};

/// Tests everything: the committed BPF object, the crates, this kernel, and kernels in QEMU.
///
/// Ends with the line `N passed, N failed, N skipped`: tests, steps and cells of the lab's suites.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask test\n  \
    cargo xtask test --no-vm\n  \
    cargo xtask test --kernel 6.12 7.3\n  \
    cargo xtask test --update-docs")]
pub(crate) struct Args {
    /// Boot no virtual machines
    #[arg(long)]
    no_vm: bool,
    /// Boot only these series (default: 5.10 6.1 6.12-oldest 6.12 6.16 6.17 6.18 6.19 7.1 7.2 7.3)
    #[arg(long, num_args = 1.., value_name = "SERIES", conflicts_with = "no_vm")]
    kernel: Vec<String>,
    /// Write the results into docs/kernels.md
    #[arg(long)]
    update_docs: bool,
}

/// Start of a line with which a test says that it could not be tried, and why.
const SKIP_MARK: &str = "skipped: ";

/// One line of the summary.
struct Row {
    name: String,
    tally: Tally,
}

/// What all steps gave.
#[derive(Default)]
struct Summary {
    rows: Vec<Row>,
    /// What failed in the suites, a line each: said again at the end, where it is looked for.
    failures: Vec<String>,
    /// For docs/kernels.md.
    results: Vec<Outcomes>,
}

/// Runs all steps, also after one that failed, and prints the summary.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    let page = places.root.join("docs/kernels.md");
    let mut summary = Summary::default();
    provide_pairs();
    summary.step("committed BPF object", || {
        bpf::check(&places)?;
        Ok(Tally::of(true))
    });
    summary.step("cargo test", || crates(&places));
    summary.step("alert rules", || alert_rules(&places));
    summary.step("report in a browser", || report::step(&places));
    if is_root() {
        summary.step("release", || dist::step(&places));
    }
    if let Err(error) = suites(places, args, &mut summary) {
        summary.step("suites of the lab", || Err(error));
    }
    if args.update_docs {
        docs_table::update(&page, &summary.results)?;
    }
    Ok(summary.close())
}

impl Summary {
    fn step(&mut self, name: &str, act: impl FnOnce() -> Result<Tally>) {
        say(format_args!("test: {name}"));
        let tally = act().unwrap_or_else(|error| {
            command::report(&error);
            Tally::of(false)
        });
        self.rows.push(Row {
            name: name.to_owned(),
            tally,
        });
    }

    fn suite(&mut self, result: SuiteResult) {
        self.failures.extend(result.failures());
        self.rows.push(Row {
            name: result.name(),
            tally: result.tally(),
        });
        self.results.extend(result.for_docs());
    }

    fn close(self) -> ExitCode {
        println!(
            "\n{:<54} {:>6} {:>6} {:>7}",
            "summary", "passed", "failed", "skipped"
        );
        let mut total = Tally::default();
        for Row { name, tally } in self.rows {
            println!(
                "{name:<54} {:>6} {:>6} {:>7}",
                tally.passed, tally.failed, tally.skipped
            );
            total.add(tally);
        }
        for failure in self.failures {
            println!("{failure}");
        }
        println!("\n{total}");
        total.exit_code()
    }
}

/// Real programs for the tests that start them. A test that misses one says so and is skipped.
fn provide_pairs() {
    if !is_root() {
        return;
    }
    if let Err(error) = host_packages::provide(&PAIR_NEEDS, "tracing real programs") {
        say(format_args!("{error:#}; going on without"));
    }
}

/// Whether the alerts of contrib/ fire and clear, as Prometheus' own tool sees it.
fn alert_rules(places: &Places) -> Result<Tally> {
    let folder = places.root.join("contrib/prometheus");
    let rules = Command::new("promtool")
        .args(["test", "rules", "mptcp-trace.rules.test.yml"])
        .current_dir(folder)
        .status();
    match rules {
        Ok(status) => Ok(Tally::of(status.success())),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
            say("skipped: there is no promtool; Debian: apt-get install prometheus");
            Ok(Tally::one_skipped())
        }
        Err(why) => Err(why).context("cannot run promtool"),
    }
}

fn suites(places: Places, args: &Args, summary: &mut Summary) -> Result<()> {
    let programs = build::static_programs(&places)?.with_go(&places);
    if is_root() {
        let dashboard = places.root.join("contrib/grafana/mptcp-trace.json");
        let python = otlp::python(&places)
            .inspect_err(|why| say(format_args!("{why:#}; going on without")))
            .ok();
        for task in tasks_of_running_kernel(&dashboard, python.as_deref()) {
            let result = on_running_kernel(&programs, &task);
            result.show();
            summary.suite(result);
        }
    } else {
        say("the running kernel is skipped: it needs root; type: sudo cargo xtask test");
        let name = format!("suites on {RUNNING}");
        summary.rows.push(Row {
            name,
            tally: Tally::one_skipped(),
        });
    }
    let series = series(args);
    if series.is_empty() {
        return Ok(());
    }
    let fleet = Fleet::prepare(places, programs, false, JOB_TIME_MAX_S)?;
    let work: Vec<(String, Vec<Task>)> = series
        .into_iter()
        .map(|series| {
            let tasks = shapes::default_tasks(&series);
            (series, tasks)
        })
        .collect();
    for result in fleet.run(&work).into_iter().flatten() {
        summary.suite(result);
    }
    Ok(())
}

fn series(args: &Args) -> Vec<String> {
    match (args.no_vm, args.kernel.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => shapes::default_series(),
        (false, false) => args.kernel.clone(),
    }
}

fn crates(places: &Places) -> Result<Tally> {
    let mut cargo = command::cargo(&places.root);
    // A test that cannot be tried says so on its output, which is hidden unless asked for.
    cargo
        .args(["test", "--no-fail-fast", "--", "--show-output"])
        .stderr(Stdio::inherit());
    let output = cargo.output().context("cannot start cargo test")?;
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines().filter(|line| is_worth_showing(line)) {
        println!("{line}");
    }
    let mut tally = count(&text);
    if output.status.success() {
        return Ok(tally);
    }
    if tally.failed == 0 {
        // It did not compile, or a test program crashed: no line counts that.
        tally.failed = 1;
    }
    println!("{text}");
    Ok(tally)
}

fn is_worth_showing(line: &str) -> bool {
    line.starts_with("test result: ") || line.starts_with(SKIP_MARK) || line.contains("... FAILED")
}

/// Adds up the result lines of all test programs; a test that says that it was skipped did not pass.
fn count(output: &str) -> Tally {
    let mut tally = Tally::default();
    let mut said_skipped = 0;
    for line in output.lines() {
        if let Some(result) = line.strip_prefix("test result: ") {
            let number = |what: &str| {
                result
                    .split(['.', ';'])
                    .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
                    .unwrap_or(0)
            };
            tally.add(Tally {
                passed: number("passed"),
                failed: number("failed"),
                skipped: number("ignored"),
            });
        } else if line.starts_with(SKIP_MARK) {
            said_skipped += 1;
        }
    }
    tally.passed = tally.passed.saturating_sub(said_skipped);
    tally.skipped += said_skipped;
    tally
}

/// The last eight on the one rung that every kernel with MPTCP has.
fn tasks_of_running_kernel(dashboard: &Path, python: Option<&Path>) -> [Task; 11] {
    [
        Task::new(Suite::Queries, &[]).flooded(),
        Task::new(Suite::Fallbacks, &[]),
        Task::new(Suite::Verdicts, &[]),
        Task::on(Suite::Mix, "tracepoint"),
        Task::on(Suite::Reuse, "tracepoint"),
        Task::on(Suite::Pair, "tracepoint"),
        Task::on(Suite::Floods, "tracepoint").short(),
        Task::on(Suite::Served, "tracepoint").drawn(dashboard),
        Task::on(Suite::Watched, "tracepoint"),
        Task::on(Suite::Exported, "tracepoint").judged(python),
        Task::on(Suite::Churn, "tracepoint").short(),
    ]
}

/// Runs a suite here, as root.
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
    let argv = task.argv(
        &programs.lab.to_string_lossy(),
        &programs.tracer.to_string_lossy(),
        programs
            .go
            .as_ref()
            .map(|go| go.to_string_lossy())
            .as_deref(),
    );
    let (program, arguments) = argv.split_first().context("the task has no program")?;
    // The limit is coreutils' own: a suite that hangs must not hang the tests.
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_test_programs_add_up() {
        let check = |output: &str, passed, failed, skipped| {
            assert_eq!(
                count(output),
                Tally {
                    passed,
                    failed,
                    skipped
                }
            );
        };
        check(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            3,
            0,
            1,
        );
        check(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured",
            1,
            2,
            0,
        );
        check(
            "skipped: live: needs root\ntest result: ok. 3 passed; 0 failed; 0 ignored",
            2,
            0,
            1,
        );
        check(
            "test result: ok. 3 passed; 0 failed\nskipped: live: needs root\n",
            2,
            0,
            1,
        );
        check("", 0, 0, 0);
    }
}
