//! One visit to one kernel: the commands that it runs, one after the other, and their results.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{Fleet, Job};
use crate::{
    command::say,
    matrix::Report,
    qemu::{Ended, Said},
    result::SuiteResult,
    series::{self, Must},
    signature::{self, Found},
    suite::{Suite, Task},
    times::Time,
};

/// The work for one kernel.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// Exactly these tasks.
    Tasks(Vec<Task>),
    /// The kernel's tasks by shape: all of them if it is the first of its shape, a few otherwise.
    ByShape,
    /// All tasks, whatever the kernel's shape.
    Everything,
}

/// The results of a visit.
pub(crate) struct Visited {
    pub(crate) results: Vec<SuiteResult>,
    /// The kernel's shape, if the visit determined it.
    pub(crate) found: Option<Found>,
    /// Durations outside the suites.
    pub(crate) times: Vec<Time>,
}

/// A visit in progress.
pub(super) struct Visit<'a> {
    fleet: &'a Fleet,
    series: &'a str,
    work: &'a Work,
    release: String,
    state: State,
    since: Instant,
    doctor_said: String,
    found: Option<Found>,
    tasks: Vec<Task>,
    results: Vec<SuiteResult>,
    /// Exit code of each finished task.
    codes: Vec<i64>,
    times: Vec<Time>,
}

/// The current activity of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Booting,
    /// It reports its shape.
    Doctor,
    /// It runs the task after those that have finished.
    Tasks,
}

impl Work {
    /// Estimated duration, relative to other work.
    pub(super) fn weight(&self, series: &str) -> usize {
        let tasks = match self {
            Self::Tasks(tasks) => tasks,
            Self::ByShape => &series::whole(series, 0),
            Self::Everything => &series::everything(series),
        };
        tasks.iter().map(weight_of).sum()
    }
}

/// Estimated duration of a task, in seconds of an emulated machine.
fn weight_of(task: &Task) -> usize {
    let each = match task.suite {
        Suite::Together if task.has_verdicts() => 60,
        Suite::Together | Suite::Verdicts => 30,
        Suite::Fallbacks | Suite::Paths | Suite::ManyPaths => 20,
        Suite::Queries
        | Suite::Namespaces
        | Suite::Ledgers
        | Suite::PathCost
        | Suite::Fingerprints
        | Suite::PathManagers => 10,
        Suite::Mix
        | Suite::Reuse
        | Suite::Probed
        | Suite::Pair
        | Suite::Paired
        | Suite::Floods
        | Suite::Served
        | Suite::Watched
        | Suite::Exported
        | Suite::Churn
        | Suite::Recorded => 60,
    };
    each * task.rungs.len()
}

impl<'a> Visit<'a> {
    pub(super) fn new(fleet: &'a Fleet, series: &'a str, work: &'a Work) -> Self {
        let mut visit = Self {
            fleet,
            series,
            work,
            release: String::new(),
            state: State::Booting,
            since: Instant::now(),
            doctor_said: String::new(),
            found: None,
            tasks: Vec::new(),
            results: Vec::new(),
            codes: Vec::new(),
            times: Vec::new(),
        };
        if let Work::Tasks(tasks) = work {
            visit.set_tasks(tasks.clone());
        }
        visit
    }

    fn set_tasks(&mut self, tasks: Vec<Task>) {
        let empty = |task: &Task| SuiteResult::empty(self.series, task.suite);
        self.results = tasks.iter().map(empty).collect();
        self.tasks = tasks;
    }

    /// Records that the archive has no such kernel, and why.
    pub(super) fn gone(&mut self, why: &str) {
        let is_excused = series::may_be_gone(self.series);
        self.say_of_kernel(|report| {
            if is_excused {
                report.skipped = Some(why.to_owned());
            } else {
                report.failures.push(why.to_owned());
            }
        });
    }

    /// Records the release of the kernel that boots now.
    pub(super) fn booting(&mut self, release: &str) {
        self.release = release.to_owned();
        self.since = Instant::now();
    }

    /// Handles a message of the machine. Returns the next command if the machine is ready for one.
    pub(super) fn next(&mut self, said: &Said) -> Option<Vec<String>> {
        match (said, self.state) {
            (Said::Line(line), State::Doctor) => {
                self.doctor_said.push_str(line);
                None
            }
            (Said::Line(line), State::Booting | State::Tasks) => {
                if let Some(result) = self.results.get_mut(self.codes.len()) {
                    result.report.read_line(line);
                }
                None
            }
            (Said::Ready, _) => {
                self.lap("boot");
                match self.work {
                    Work::Tasks(_) => self.next_task(),
                    Work::ByShape | Work::Everything => {
                        self.state = State::Doctor;
                        Some(self.fleet.doctor())
                    }
                }
            }
            (Said::Ended(_), State::Doctor) => {
                self.lap("shape");
                if let Err(error) = self.decide() {
                    self.fail(format!("{error:#}"));
                    return None;
                }
                self.next_task()
            }
            (Said::Ended(code), State::Booting | State::Tasks) => {
                if let Some(result) = self.results.get_mut(self.codes.len()) {
                    result.took = self.since.elapsed();
                    let (release, suite) = (&self.release, result.suite.name());
                    let seconds = result.took.as_secs();
                    say(format_args!("{release}: {suite} took {seconds} s"));
                }
                self.codes.push(*code);
                self.next_task()
            }
            (Said::Exit(_), _) => None,
        }
    }

    /// Selects the tasks for the kernel's shape.
    fn decide(&mut self) -> Result<()> {
        let shape = signature::of_report(&self.doctor_said)
            .with_context(|| format!("cannot determine the shape of {}", self.release))?;
        let tasks = match shape {
            None => series::whole(self.series, 0),
            Some(shape) => {
                let found =
                    self.fleet
                        .shapes
                        .claim(&self.release, shape, series::is_brief(self.series));
                let tasks = match self.work {
                    Work::Everything => series::everything(self.series),
                    Work::Tasks(tasks) => tasks.clone(),
                    Work::ByShape if found.is_first => series::whole(self.series, found.number),
                    Work::ByShape => series::smoke(self.series, &found.rungs, found.number),
                };
                self.found = Some(found);
                tasks
            }
        };
        self.set_tasks(tasks);
        Ok(())
    }

    fn next_task(&mut self) -> Option<Vec<String>> {
        self.state = State::Tasks;
        self.since = Instant::now();
        let task = self.tasks.get(self.codes.len())?;
        Some(self.fleet.argv(self.series, task))
    }

    fn lap(&mut self, phase: &str) {
        self.times
            .push(Time::new(&self.release, phase, self.since.elapsed()));
        self.since = Instant::now();
    }

    /// Adds a report about the kernel as a whole.
    fn say_of_kernel(&mut self, say: impl FnOnce(&mut Report)) {
        if self.results.is_empty() {
            let suite = Suite::Fallbacks;
            self.results.push(SuiteResult::empty(self.series, suite));
        }
        if let Some(first) = self.results.first_mut() {
            say(&mut first.report);
        }
    }

    fn fail(&mut self, why: String) {
        self.say_of_kernel(|report| report.failures.push(why));
    }

    /// Handles the end of the machine; `None` means that it never started.
    pub(super) fn close(mut self, outcome: Result<Option<Job>>) -> Visited {
        match outcome {
            Err(error) => self.fail(format!("{error:#}")),
            Ok(None) => {}
            Ok(Some(job)) => {
                let must = series::must(self.series);
                if self.tasks.is_empty()
                    && let Some(why) = job.failure()
                {
                    self.fail(why);
                }
                for (index, (task, result)) in self.tasks.iter().zip(&mut self.results).enumerate()
                {
                    let code = self.codes.get(index).copied();
                    close(&mut result.report, task, must, code, &job);
                }
            }
        }
        for result in &mut self.results {
            if !self.release.is_empty() {
                result.report.kernel.get_or_insert(self.release.clone());
            }
        }
        Visited {
            results: self.results,
            found: self.found,
            times: self.times,
        }
    }
}

/// Handles the end of a task's command: an exit code, or `None` if it did not finish.
fn close(report: &mut Report, task: &Task, must: Must, code: Option<i64>, job: &Job) {
    match code {
        Some(code @ (0 | 1)) => {
            report.read_exit_code(code);
            report.require(must, &task.rungs, task.suite.always_plays());
        }
        Some(code) => report
            .failures
            .push(job.with_console(&format!("the lab exited with code {code}"))),
        None => {
            let why = job.failure();
            report
                .failures
                .push(why.unwrap_or_else(|| "it was not run".to_owned()));
        }
    }
}

impl Job {
    /// Why the visit failed.
    pub(crate) fn failure(&self) -> Option<String> {
        let what = match self.ended {
            Ended::Job(0) => return None,
            Ended::Job(code) => format!("the job exited with code {code}"),
            Ended::Silent => "the machine stopped before its job ended".to_owned(),
            Ended::TimedOut => "the machine was killed at the deadline".to_owned(),
        };
        Some(self.with_console(&what))
    }

    fn with_console(&self, what: &str) -> String {
        let tail = &self.console_tail;
        format!("{what}; the console's last lines:\n{tail}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Tally;

    const CELL: &str =
        r#"{"type":"cell","data":{"case":"strip-syn","rung":"fexit","outcome":"ok"}}"#;
    const SUMMARY: &str = r#"{"type":"summary","data":{"ok":1}}"#;

    #[test]
    fn a_task_that_did_not_end_well_fails_and_shows_the_console() {
        let check = |code: Option<i64>, ended: Ended, failed: u32, says: &str| {
            let mut report = Report::default();
            report.read_line(CELL);
            report.read_line(SUMMARY);
            let job = Job {
                ended,
                console_tail: "Oops".to_owned(),
            };
            let task = Task::on(Suite::Fallbacks, "fexit");
            let must = series::must("6.12");
            close(&mut report, &task, must, code, &job);
            let got = report.tally(must);
            assert_eq!(
                got,
                Tally {
                    passed: 1,
                    failed,
                    skipped: 0
                }
            );
            assert!(
                report.failures.join("").contains(says),
                "{:?}",
                report.failures
            );
        };
        check(Some(0), Ended::Job(0), 0, "");
        check(Some(0), Ended::Silent, 0, "");
        check(Some(1), Ended::Job(1), 1, "code 1");
        check(Some(124), Ended::Job(124), 1, "Oops");
        check(None, Ended::Silent, 1, "Oops");
        check(None, Ended::Job(0), 1, "not run");
    }
}
