//! The virtual machines: each kernel boots once and runs all of its jobs; several machines run side
//! by side.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    apt,
    architecture::Architecture,
    build::StaticPrograms,
    command::say,
    compiled::{self, shapes},
    emulator::Emulator,
    flavour,
    initramfs::{self, BTF, GO, LAB, TRACER},
    kernels::{self, Found, Kernel},
    permits::Permits,
    places::Places,
    qemu::{Clock, Ended, Machine, Said},
    result::SuiteResult,
    series,
    signature::Registry,
    suite::Task,
};

mod visit;

pub(crate) use crate::initramfs::TREE;
use visit::Visit;
pub(crate) use visit::{Visited, Work};

/// Time limit for one job: software emulation is slow, and each case starts and stops a tracer.
pub(crate) const JOB_TIME_MAX_S: u64 = 1_500;
/// Most machines that run side by side: each emulates its processors in one thread and has 1 GB of
/// memory.
const MACHINES_MAX: usize = 3;
/// Kernel modules that the lab's scenarios use. A missing one is built in, or this kernel lacks the
/// feature.
const MODULES: [&str; 5] = ["veth", "inet_diag", "tcp_diag", "udp_diag", "mptcp_diag"];

/// State that all virtual machines share.
pub(crate) struct Fleet {
    places: Places,
    machinery: BTreeMap<Architecture, (StaticPrograms, Emulator)>,
    keep_log: bool,
    command_time_max: Duration,
    clock: Clock,
    hidden_functions: Vec<String>,
    tree: Option<PathBuf>,
    append: String,
    shapes: Registry,
}

/// The result of a job in a virtual machine, with the console output if it failed.
pub(crate) struct Job {
    ended: Ended,
    console_tail: String,
}

impl Fleet {
    /// Installs or fetches QEMU, and prepares the shared state.
    pub(crate) fn prepare(
        places: Places,
        programs: Vec<StaticPrograms>,
        keep_log: bool,
        timeout_s: u64,
    ) -> Result<Self> {
        let mut machinery = BTreeMap::new();
        for programs in programs {
            let architecture = programs.architecture;
            let emulator = Emulator::provide(&places, architecture)?;
            machinery.insert(architecture, (programs, emulator));
        }
        Ok(Self {
            machinery,
            places,
            keep_log,
            command_time_max: Duration::from_secs(timeout_s),
            clock: Clock::Real,
            hidden_functions: Vec::new(),
            tree: None,
            append: String::new(),
            shapes: Registry::default(),
        })
    }

    /// Counts instructions: inside the machine, one instruction takes one nanosecond.
    pub(crate) fn counting_instructions(mut self) -> Self {
        self.clock = Clock::Instructions;
        self
    }

    /// Adds parameters to every kernel's command line.
    pub(crate) fn appending(mut self, parameters: &str) -> Self {
        parameters.clone_into(&mut self.append);
        self
    }

    /// Puts a directory tree into every machine, at [`TREE`].
    pub(crate) fn with_tree(mut self, tree: &Path) -> Self {
        self.tree = Some(tree.to_owned());
        self
    }

    /// Makes the tracer plan as if no kernel had these functions.
    pub(crate) fn hiding(mut self, functions: &[String]) -> Self {
        self.hidden_functions = functions.to_vec();
        self
    }

    /// Runs all the work, one machine per series, and passes on each machine's result when it
    /// finishes. A machine holds a permit, unless it is idle most of the time.
    pub(crate) fn run(
        &self,
        work: &[(String, Work)],
        permits: &Permits,
        on_visited: impl Fn(Visited) + Sync,
    ) {
        let (waiting, busy): (Vec<usize>, Vec<usize>) = longest_first(work)
            .into_iter()
            .partition(|&index| work.get(index).is_some_and(|(it, _)| series::waits(it)));
        let visit = |series: &str, work: &Work| {
            let visited = self.visit(series, work);
            visited.results.iter().for_each(SuiteResult::show);
            on_visited(visited);
        };
        let next = AtomicUsize::new(0);
        let take_turns = || {
            loop {
                let _permit = permits.take(1);
                let turn = next.fetch_add(1, Ordering::Relaxed);
                let Some((series, work)) = busy.get(turn).and_then(|&index| work.get(index)) else {
                    return;
                };
                visit(series, work);
            }
        };
        thread::scope(|scope| {
            for (series, work) in waiting.iter().filter_map(|&index| work.get(index)) {
                scope.spawn(|| visit(series, work));
            }
            for _ in 0..machines_max() {
                scope.spawn(take_turns);
            }
        });
    }

    /// Runs all the work with as many machines as there are processors, and returns the results.
    pub(crate) fn results(&self, work: &[(String, Work)]) -> Vec<SuiteResult> {
        let results = Mutex::new(Vec::new());
        self.run(work, &Permits::new(machines_max()), |visited| {
            results
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(visited.results);
        });
        results.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never returns an error: a machine that fails to boot is a failure in the report, and the
    /// next kernel runs.
    fn visit(&self, series: &str, work: &Work) -> Visited {
        let mut visit = Visit::new(self, series, work);
        let outcome = self.fill(series, &mut visit);
        visit.close(outcome)
    }

    fn fill(&self, series: &str, visit: &mut Visit) -> Result<Option<Job>> {
        let kernel = match self.kernel(series)? {
            Found::Kernel(kernel) => kernel,
            Found::Gone(why) => {
                visit.gone(&why);
                return Ok(None);
            }
        };
        match series::why(series) {
            Some(why) => say(format_args!("booting {} ({why})", kernel.release)),
            None => say(format_args!("booting {}", kernel.release)),
        }
        visit.booting(&kernel.release);
        let job = self.converse(&kernel, |said| visit.next(said))?;
        Ok(Some(job))
    }

    /// The lab's command line for a task inside a machine.
    fn argv(&self, series: &str, task: &Task) -> Vec<String> {
        let programs = self.machinery.get(&flavour::architecture_of(series));
        let go = programs.and_then(|(programs, _)| programs.go.as_ref().map(|_built| GO));
        let task = match shapes::find(series) {
            Some(shape) if shape.separate_btf => task.clone().describing(BTF),
            Some(_) | None => task.clone(),
        };
        task.hiding(&self.hidden_functions).argv(LAB, TRACER, go)
    }

    /// The command that reports a kernel's shape.
    fn doctor(&self) -> Vec<String> {
        let mut argv = [TRACER, "doctor", "--json"].map(str::to_owned).to_vec();
        for function in &self.hidden_functions {
            argv.push(format!("--hide-function={function}"));
        }
        argv
    }

    /// The kernel of a series, fetched if it is not in the cache.
    pub(crate) fn kernel(&self, series: &str) -> Result<Found> {
        provide_kernel(&self.places, series)
    }

    /// Boots a kernel and runs the commands one after the other.
    pub(crate) fn boot(
        &self,
        kernel: &Kernel,
        commands: Vec<Vec<String>>,
        mut on_said: impl FnMut(&Said),
    ) -> Result<Job> {
        let mut commands = commands.into_iter();
        self.converse(kernel, |said| {
            on_said(said);
            match said {
                Said::Ready | Said::Ended(_) => commands.next(),
                Said::Line(_) | Said::Exit(_) => None,
            }
        })
    }

    /// Boots a kernel; `on_said` returns the next command when the machine is ready for one.
    fn converse(
        &self,
        kernel: &Kernel,
        on_said: impl FnMut(&Said) -> Option<Vec<String>>,
    ) -> Result<Job> {
        let directory = tempfile::Builder::new()
            .prefix("mptcp-trace-vm-")
            .tempdir()
            .context("cannot make a directory for the virtual machine")?;
        let initramfs = directory.path().join("initramfs.cpio");
        let modules = kernel.modules(&MODULES)?;
        let (programs, emulator) = self.machinery.get(&kernel.architecture).with_context(|| {
            let name = kernel.architecture.name();
            format!(
                "cannot boot {}: no programs were built for {name}",
                kernel.release
            )
        })?;
        initramfs::write(
            &initramfs,
            programs,
            &modules,
            kernel.btf.as_deref(),
            self.tree.as_deref(),
            self.command_time_max.as_secs(),
        )?;
        let machine = Machine {
            emulator,
            image: &kernel.image,
            initramfs: &initramfs,
            console_log: directory.path().join("console.log"),
            command_time_max: self.command_time_max,
            clock: self.clock,
            append: &self.append,
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

/// Number of machines that run side by side: each emulates its processors in one thread.
fn machines_max() -> usize {
    thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MACHINES_MAX)
}

/// The kernel of a series, fetched if it is not in the cache.
pub(crate) fn provide_kernel(places: &Places, series: &str) -> Result<Found> {
    let _alone = apt::one_at_a_time();
    match compiled::provide(places, series) {
        Some(kernel) => kernel.map(Found::Kernel),
        None => kernels::provide(places, series),
    }
}

/// Indices of the work, longest first, so that the last machine does not keep the run waiting.
fn longest_first(work: &[(String, Work)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..work.len()).collect();
    order.sort_by_key(|&index| {
        std::cmp::Reverse(
            work.get(index)
                .map_or(0, |(series, work)| work.weight(series)),
        )
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Suite;

    #[test]
    fn what_has_most_to_run_is_run_first() {
        let task = |suite| Task::on(suite, "fexit");
        let work = [
            Work::Tasks(vec![task(Suite::Fallbacks)]),
            Work::Tasks(vec![Task::new(Suite::Fallbacks, &[])]),
            Work::Tasks(vec![task(Suite::Queries)]),
            Work::Tasks(vec![Task::new(Suite::Verdicts, &[])]),
        ]
        .map(|work| (String::new(), work));
        assert_eq!(longest_first(&work), [3, 1, 0, 2]);
    }
}
