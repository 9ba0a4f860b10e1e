//! The virtual machines: one boot per kernel, in which all that is to be run on it runs; several
//! machines side by side.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    build::StaticPrograms,
    command::say,
    host_packages::{self, VM_NEEDS},
    initramfs::{self, GO, LAB, TRACER},
    kernels::{self, Found, Kernel},
    matrix::Report,
    places::Places,
    qemu::{Clock, Ended, Machine, Said},
    result::SuiteResult,
    shapes::{self, SOL_TCP},
    sol_tcp,
    suite::Task,
};

/// Software emulation is slow, and a case waits for a tracer to start and to end.
pub(crate) const JOB_TIME_MAX_S: u64 = 1_500;
/// Machines that run side by side: each emulates its processors in one thread, so that two use two
/// cores. On such a machine the queries on two kernels take 16 s so, and 26 s one after the other.
const MACHINES_MAX: usize = 2;
/// What the lab's scenarios use where it is a module; what is missing is built in, or not there.
const MODULES: [&str; 6] = [
    "veth",
    "tun",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "mptcp_diag",
];

/// Everything that all virtual machines share.
pub(crate) struct Fleet {
    places: Places,
    programs: StaticPrograms,
    keep_log: bool,
    job_time_max: Duration,
    clock: Clock,
    /// Held while a kernel is fetched: there is one apt state.
    fetching: Mutex<()>,
}

/// How a job in a virtual machine ended, and what the console said if it ended badly.
pub(crate) struct Job {
    ended: Ended,
    console_tail: String,
}

impl Job {
    /// Why it is no success.
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

impl Fleet {
    /// Provides QEMU.
    pub(crate) fn prepare(
        places: Places,
        programs: StaticPrograms,
        keep_log: bool,
        timeout_s: u64,
    ) -> Result<Self> {
        host_packages::provide(&VM_NEEDS, "booting kernels")?;
        Ok(Self {
            places,
            programs,
            keep_log,
            job_time_max: Duration::from_secs(timeout_s),
            clock: Clock::Real,
            fetching: Mutex::new(()),
        })
    }

    /// The same, but inside one instruction takes a nanosecond.
    pub(crate) fn counting_instructions(mut self) -> Self {
        self.clock = Clock::Instructions;
        self
    }

    /// Runs all the work, each series in a machine of its own, and shows what a machine gave when
    /// it is done. The results come in the order of the work.
    pub(crate) fn run(&self, work: &[(String, Vec<Task>)]) -> Vec<Vec<SuiteResult>> {
        let machines = thread::available_parallelism()
            .map_or(1, usize::from)
            .min(MACHINES_MAX);
        let order = longest_first(work);
        let next = AtomicUsize::new(0);
        let (sender, done) = mpsc::channel();
        let mut results: Vec<Vec<SuiteResult>> = Vec::new();
        results.resize_with(work.len(), Vec::new);
        thread::scope(|scope| {
            for _ in 0..machines {
                let (sender, next, order) = (sender.clone(), &next, &order);
                scope.spawn(move || {
                    loop {
                        let turn = next.fetch_add(1, Ordering::Relaxed);
                        let Some(&index) = order.get(turn) else {
                            return;
                        };
                        let Some((series, tasks)) = work.get(index) else {
                            return;
                        };
                        // The receiver outlives this thread.
                        let _ = sender.send((index, self.run_one(series, tasks)));
                    }
                });
            }
            drop(sender);
            for (index, result) in done {
                result.iter().for_each(SuiteResult::show);
                if let Some(place) = results.get_mut(index) {
                    *place = result;
                }
            }
        });
        results
    }

    /// Never an error: a machine that cannot be booted is a failure in the report, and the next
    /// kernel has its turn.
    fn run_one(&self, series: &str, tasks: &[Task]) -> Vec<SuiteResult> {
        let mut results: Vec<SuiteResult> = tasks
            .iter()
            .map(|task| SuiteResult::empty(series, task.suite))
            .collect();
        if let Err(error) = self.fill(series, tasks, &mut results) {
            for report in results.iter_mut().map(|result| &mut result.report) {
                report.failures.push(format!("{error:#}"));
            }
        }
        results
    }

    fn fill(&self, series: &str, tasks: &[Task], results: &mut [SuiteResult]) -> Result<()> {
        let kernel = match self.kernel(series)? {
            Found::Kernel(kernel) => kernel,
            Found::Gone(why) => {
                for report in results.iter_mut().map(|result| &mut result.report) {
                    if shapes::may_be_gone(series) {
                        report.skipped = Some(why.clone());
                    } else {
                        report.failures.push(why.clone());
                    }
                }
                return Ok(());
            }
        };
        match shapes::why(series) {
            Some(why) => say(format_args!("booting {} ({why})", kernel.release)),
            None => say(format_args!("booting {}", kernel.release)),
        }
        let go = self.programs.go.as_ref().map(|_built| GO);
        let commands = tasks
            .iter()
            .map(|task| task.argv(LAB, TRACER, go))
            .collect();
        let mut codes = Vec::new();
        let mut started = Instant::now();
        let job = self.boot(&kernel, commands, |said| {
            let current = results.get_mut(codes.len());
            match (said, current) {
                (Said::Line(line), Some(result)) => result.report.read_line(line),
                (Said::Ended(code), Some(result)) => {
                    result.took = started.elapsed();
                    started = Instant::now();
                    codes.push(*code);
                }
                (Said::Line(_) | Said::Ended(_), None) | (Said::Exit(_), _) => {}
            }
        })?;
        for (index, (task, result)) in tasks.iter().zip(results).enumerate() {
            let code = codes.get(index).copied();
            close(&mut result.report, task, series, code, &job);
            result.report.kernel.get_or_insert(kernel.release.clone());
        }
        Ok(())
    }

    /// The kernel of a series, fetched if the cache does not have it.
    pub(crate) fn kernel(&self, series: &str) -> Result<Found> {
        let _one_at_a_time = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        if series == SOL_TCP {
            sol_tcp::provide(&self.places).map(Found::Kernel)
        } else {
            kernels::provide(&self.places, series)
        }
    }

    /// Boots a kernel, in which the commands run one after the other.
    pub(crate) fn boot(
        &self,
        kernel: &Kernel,
        commands: Vec<Vec<String>>,
        on_said: impl FnMut(&Said),
    ) -> Result<Job> {
        let directory = tempfile::Builder::new()
            .prefix("mptcp-trace-vm-")
            .tempdir()
            .context("cannot make a directory for the virtual machine")?;
        let initramfs = directory.path().join("initramfs.cpio");
        let modules = kernel.modules(&MODULES)?;
        let all = u32::try_from(commands.len()).unwrap_or(u32::MAX);
        initramfs::write(
            &initramfs,
            &self.programs,
            &modules,
            commands,
            self.job_time_max.as_secs(),
        )?;
        let machine = Machine {
            image: &kernel.image,
            initramfs: &initramfs,
            console_log: directory.path().join("console.log"),
            job_time_max: self.job_time_max.saturating_mul(all),
            clock: self.clock,
        };
        let ended = machine.boot(on_said);
        if self.keep_log {
            let kept = self.kept_log(&kernel.release)?;
            fs::copy(&machine.console_log, &kept)
                .with_context(|| format!("cannot keep the console's log as {}", kept.display()))?;
            say(format_args!(
                "console of {}: {}",
                kernel.release,
                kept.display()
            ));
        }
        Ok(Job {
            ended: ended?,
            console_tail: machine.console_tail(),
        })
    }

    fn kept_log(&self, release: &str) -> Result<PathBuf> {
        let directory = self.places.target.join("vm");
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(directory.join(format!("{release}.console.log")))
    }
}

/// Indices of the work, what has most to run first: the last machine to end would have the others wait for it.
fn longest_first(work: &[(String, Vec<Task>)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..work.len()).collect();
    order.sort_by_key(|&index| {
        std::cmp::Reverse(work.get(index).map_or(0, |(_, tasks)| tasks.len()))
    });
    order
}

/// Takes how the command of a task ended: with a code, or not at all.
fn close(report: &mut Report, task: &Task, series: &str, code: Option<i64>, job: &Job) {
    match code {
        Some(code @ (0 | 1)) => {
            report.read_exit_code(code);
            report.require(shapes::must(series), &task.rungs);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{suite::Suite, tally::Tally};

    const CELL: &str =
        r#"{"type":"cell","data":{"case":"strip-syn","rung":"fexit","outcome":"ok"}}"#;
    const SUMMARY: &str = r#"{"type":"summary","data":{"ok":1}}"#;

    #[test]
    fn what_has_most_to_run_is_run_first() {
        let task = Task::on(Suite::Fallbacks, "fexit");
        let work = [1, 3, 1, 2].map(|tasks| (String::new(), vec![task.clone(); tasks]));
        assert_eq!(longest_first(&work), [1, 3, 0, 2]);
    }

    #[test]
    fn a_task_that_did_not_end_well_fails_and_tells_of_the_console() {
        let check = |code: Option<i64>, ended: Ended, failed: u32, says: &str| {
            let mut report = Report::default();
            report.read_line(CELL);
            report.read_line(SUMMARY);
            let job = Job {
                ended,
                console_tail: "Oops".to_owned(),
            };
            let task = Task::on(Suite::Fallbacks, "fexit");
            close(&mut report, &task, "6.12", code, &job);
            let got = report.tally(shapes::must("6.12"));
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
