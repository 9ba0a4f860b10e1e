//! Carries out one rung of the plan: programs verified, attached, and taken down again.

use std::{collections::BTreeMap, fmt, io::Read as _, os::fd::AsFd as _, thread};

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{Array, HashMap},
    programs::{BtfTracePoint, FEntry, FExit, Iter, KProbe, Program, ProgramError, RawTracePoint},
};

use super::{
    counters,
    load::{TracerConfig, load},
    ring::{LogRing, RecordRing},
    trial, turns, types,
    verify::{self, Load, Refusals},
};
use crate::{
    host::Preemptible,
    model::{LossReport, Rung},
    plan::{FALLBACK, FallbackPlan, Probe, QUERY, RungPlan, Target},
};

/// Why a rung could not be climbed: the next one may do.
#[derive(Debug)]
pub struct AttachError {
    /// Of which sensor.
    pub sensor: &'static str,
    /// Which rung.
    pub rung: Rung,
    /// Why.
    pub why: anyhow::Error,
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = self.why.chain().find_map(|why| match why.downcast_ref() {
            Some(ProgramError::LoadError { io_error, .. }) => Some(io_error),
            Some(_) | None => None,
        });
        match refused {
            // The verifier's log would fill pages; -vv shows it.
            Some(why) => write!(
                f,
                "{}: the kernel refuses to load the program: {why}",
                self.why
            ),
            None => {
                let why = format!("{:#}", self.why);
                f.write_str(why.lines().next().unwrap_or_default())?;
                f.write_str(perf_hint(&why))
            }
        }
    }
}

impl std::error::Error for AttachError {}

/// What some distributions ask for beside `CAP_PERFMON`, where a refusal looks like that.
fn perf_hint(why: &str) -> &'static str {
    match why.contains("perf_event_open") && why.contains("Permission denied") {
        true => {
            "; where kernel.perf_event_paranoid is above 2, some kernels (Debian's) ask for CAP_SYS_ADMIN here: give that \
             too, or set it to 2"
        }
        false => "",
    }
}

/// The programs of a rung, live in the kernel until dropped.
pub struct Tracer {
    ebpf: Ebpf,
    rung: Rung,
    /// The attached programs, in the order in which they were attached.
    attached: Vec<Together>,
    /// Misses of programs that are taken down already, by sensor.
    missed: Misses,
    /// Where the kernel lets a thread be preempted inside a program.
    preemptible: Preemptible,
    /// Runs that others than the first program took because that did not hang there yet.
    taken_before: Misses,
    /// What others than the first program had taken when the first of all was taken down: they take everything then.
    taken_at_stop: Option<Misses>,
    /// A fallback may happen where no probe sees it.
    may_miss: bool,
    /// Numbers of functions among the kernel's types.
    functions: BTreeMap<&'static str, u32>,
}

/// Programs that were attached one after the other and are taken down at once: all of them open something, or none does.
struct Together {
    opens: bool,
    programs: Vec<&'static str>,
}

/// Runs of programs that the kernel skipped.
#[derive(Clone, Copy, Default)]
struct Misses {
    query: u64,
    fallback: u64,
}

impl Misses {
    fn add(&mut self, program: &str, missed: u64) {
        if is_of_query(program) || program.starts_with("family_") {
            self.query += missed;
        } else {
            self.fallback += missed;
        }
    }
}

impl Misses {
    /// Without what other programs have taken since `before`.
    fn less(self, taken: Self, before: Self) -> Self {
        let less = |missed: u64, taken: u64, before: u64| {
            missed.saturating_sub(taken.saturating_sub(before))
        };
        Self {
            query: less(self.query, taken.query, before.query),
            fallback: less(self.fallback, taken.fallback, before.fallback),
        }
    }
}

fn is_of_query(program: &str) -> bool {
    program.starts_with("query_")
}

/// Slots of the map `CALIBRATED`.
const FALLBACK_BIT: u32 = 0;
const SWEEP: u32 = 1;
/// The program behind [`Tracer::list`] and [`Tracer::sweep`], and what it goes through.
const LISTER: &str = "listed_task_file";
const FILES: &str = "task_file";

impl Tracer {
    /// Loads and attaches the probes of one rung.
    ///
    /// # Errors
    ///
    /// Says which probe the kernel refused and why; nothing stays behind then.
    pub fn start(
        config: &TracerConfig,
        plan: &RungPlan,
        fallback: Option<&FallbackPlan>,
    ) -> Result<Self, AttachError> {
        let wrap = |why| AttachError {
            sensor: QUERY,
            rung: plan.rung,
            why,
        };
        try_trampoline(plan, &config.functions).map_err(wrap)?;
        let ebpf = load(config, plan, fallback).map_err(wrap)?;
        let mut tracer = Self {
            ebpf,
            rung: plan.rung,
            attached: Vec::new(),
            missed: Misses::default(),
            preemptible: config.preemptible,
            taken_before: Misses::default(),
            taken_at_stop: None,
            may_miss: fallback.is_some_and(|plan| !plan.decision_probed),
            functions: config.functions.clone(),
        };
        tracer.fill_filters(config).map_err(wrap)?;
        let refused = tracer.load_all(plan, fallback)?;
        if config.follow {
            for (program, tracepoint, opens) in [
                ("family_free", "sched_process_free", false),
                ("family_fork", "sched_process_fork", true),
            ] {
                tracer.attach_raw(program, tracepoint).map_err(wrap)?;
                tracer.note(program, opens);
            }
        }
        // Connections are noted down before anything is asked about them.
        if let Some(fallback) = fallback {
            tracer
                .attach_all(&fallback.probes_beside(plan), &refused)
                .map_err(|why| AttachError {
                    sensor: FALLBACK,
                    rung: fallback.rung,
                    why,
                })?;
        }
        tracer.attach_all(&plan.probes, &refused).map_err(wrap)?;
        tracer.taken_before = tracer.taken().map_err(wrap)?;
        Ok(tracer)
    }

    /// Has everything verified that is going to be attached; what was refused although a rung can do without it.
    fn load_all(
        &mut self,
        plan: &RungPlan,
        fallback: Option<&FallbackPlan>,
    ) -> Result<Refusals, AttachError> {
        // Those of the query sensor first: without them there is no rung.
        let load = |probe| Load::of(probe, self.preemptible);
        let mut loads: Vec<Load> = plan.probes.iter().flat_map(load).collect();
        if let Some(fallback) = fallback {
            // The dearest stand at the end of the plan, and are begun first: else they would be waited for in the end.
            loads.extend(fallback.probes_beside(plan).iter().rev().flat_map(load));
            loads.push(Load::through(LISTER, FILES));
        }
        let mut refused = verify::load(&mut self.ebpf, &loads, &self.functions);
        let of_query = plan.probes.iter().map(|probe| (QUERY, plan.rung, probe));
        let of_fallback = fallback.into_iter().flat_map(|it| {
            let probes = it.probes.iter();
            probes.map(|probe| (FALLBACK, it.rung, probe))
        });
        for (sensor, rung, probe) in of_query.chain(of_fallback) {
            if probe.is_optional() {
                continue;
            }
            if let Some(why) = refused.remove(probe.program) {
                let why = why.context(format!("cannot attach {}", probe.target));
                return Err(AttachError { sensor, rung, why });
            }
        }
        Ok(refused)
    }

    /// True if a fallback may happen where no probe sees it at once.
    #[must_use]
    pub fn may_miss(&self) -> bool {
        self.may_miss
    }

    /// Tells the programs the number of the fallback bit.
    ///
    /// # Errors
    ///
    /// Fails if the map cannot be written.
    pub fn calibrate(&mut self, bit: Option<u8>) -> anyhow::Result<()> {
        self.set_calibrated(FALLBACK_BIT, bit.map_or(0, |bit| u32::from(bit) + 1))
    }

    /// Notes down, and puts into the ring, every MPTCP socket that is open in any process.
    ///
    /// # Errors
    ///
    /// Fails if this kernel does not let programs go through its files.
    pub fn list(&mut self) -> anyhow::Result<()> {
        self.set_calibrated(SWEEP, 0)?;
        self.go_through_files()
    }

    /// Looks at every open MPTCP socket for a fallback that no probe saw; [`Self::list`] has been called.
    ///
    /// # Errors
    ///
    /// Fails if this kernel does not let programs go through its files.
    pub fn sweep(&mut self) -> anyhow::Result<()> {
        if self.lister()?.fd().is_err() {
            return Ok(());
        }
        self.set_calibrated(SWEEP, 1)?;
        self.go_through_files()
    }

    fn go_through_files(&mut self) -> anyhow::Result<()> {
        let what = "cannot go through the files of all tasks";
        if self.lister()?.fd().is_err() {
            let types = types::of_functions(&self.functions)?;
            self.lister()?.load(FILES, &types).context(what)?;
        }
        let program = self.lister()?;
        let link = program.attach().context(what)?;
        let mut file = program.take_link(link)?.into_file().context(what)?;
        // It has nothing to say in here: reading makes it run, and what it finds is in the ring.
        let mut nothing = [0; 4096];
        while file.read(&mut nothing).context(what)? > 0 {}
        Ok(())
    }

    fn lister(&mut self) -> anyhow::Result<&mut Iter> {
        let program = self.ebpf.program_mut(LISTER);
        let program = program.with_context(|| format!("the BPF object has no program {LISTER}"))?;
        Ok(program.try_into()?)
    }

    fn set_calibrated(&mut self, slot: u32, value: u32) -> anyhow::Result<()> {
        let map = self
            .ebpf
            .map_mut("CALIBRATED")
            .context("the BPF object has no map CALIBRATED")?;
        let mut map: Array<_, u32> =
            Array::try_from(map).context("map CALIBRATED has another type")?;
        map.set(slot, value, 0)
            .context("cannot tell the BPF programs what was calibrated")
    }

    /// The rung in use.
    #[must_use]
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// The ring of records; there is one.
    ///
    /// # Errors
    ///
    /// Fails if it was taken already.
    pub fn take_records(&mut self) -> anyhow::Result<RecordRing> {
        RecordRing::new(&mut self.ebpf)
    }

    /// The ring of debug messages; there is one.
    ///
    /// # Errors
    ///
    /// Fails if it was taken already.
    pub fn take_log(&mut self) -> anyhow::Result<LogRing> {
        LogRing::new(&mut self.ebpf)
    }

    /// Adds a process to those whose questions are wanted.
    ///
    /// # Errors
    ///
    /// Fails if there is no room for more.
    pub fn admit(&mut self, pid: u32) -> anyhow::Result<()> {
        self.pids()?
            .insert(pid, 1, 0)
            .with_context(|| format!("cannot add process {pid} to the filter"))
    }

    /// Takes a process out of those whose questions are wanted.
    ///
    /// # Errors
    ///
    /// Fails if the filter cannot be changed; a process that is not in it is no error.
    pub fn dismiss(&mut self, pid: u32) -> anyhow::Result<()> {
        match self.pids()?.remove(&pid) {
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
            Err(why) => {
                Err(why).with_context(|| format!("cannot take process {pid} out of the filter"))
            }
        }
    }

    /// True if a followed child is still there (they leave when they end).
    ///
    /// # Errors
    ///
    /// Fails if the filter cannot be read.
    pub fn has_children(&self) -> anyhow::Result<bool> {
        let map = self
            .ebpf
            .map("FAMILY")
            .context("the BPF object has no map FAMILY")?;
        let family: HashMap<_, u32, u8> =
            HashMap::try_from(map).context("map FAMILY has another type")?;
        Ok(family.keys().next().is_some())
    }

    /// Detaches everything, what opens a question first. Records stay in the ring, counters readable.
    ///
    /// # Errors
    ///
    /// Fails if the kernel does not let go of a probe.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        // Where it cannot be read, programs are taken down all the same.
        self.taken_at_stop = self.taken().ok();
        while let Some(Together { programs, .. }) = self.attached.pop() {
            for name in &programs {
                self.missed.add(name, self.misses(name));
            }
            let attached = self.ebpf.programs_mut();
            let attached = attached.filter(|(name, _)| programs.contains(name));
            // The kernel waits until no CPU runs a program any more, for each of them: it does so for all at once.
            thread::scope(|scope| {
                let waiting: Vec<_> = attached
                    .map(|(name, program)| (name, scope.spawn(|| detach(program))))
                    .collect();
                waiting.into_iter().try_for_each(|(name, detached)| {
                    let what = || format!("cannot detach {name}");
                    let detached = detached.join();
                    detached
                        .map_err(|_panic| anyhow::anyhow!(what()))?
                        .with_context(what)
                })
            })?;
        }
        Ok(())
    }

    /// What was seen and what was lost so far.
    ///
    /// # Errors
    ///
    /// Fails if the counters cannot be read.
    pub fn losses(&self) -> anyhow::Result<LossReport> {
        let mut missed = self.missed;
        for name in self.attached() {
            missed.add(name, self.misses(name));
        }
        let missed = missed.less(self.taken()?, self.taken_before);
        let mut query = counters::query(&self.ebpf)?;
        query.missed = missed.query;
        let mut fallback = counters::fallback(&self.ebpf)?;
        fallback.missed = missed.fallback;
        Ok(LossReport {
            sensors: vec![query, fallback],
            counted: Vec::new(),
        })
    }

    /// How many runs of a program the kernel skipped; 0 where it does not tell, and of one that takes what another misses.
    fn misses(&self, name: &str) -> u64 {
        match self.ebpf.program(name) {
            Some(program) if !turns::is_other(name) => counters::misses(program).unwrap_or(0),
            Some(_) | None => 0,
        }
    }

    /// How many of those others took.
    fn taken(&self) -> anyhow::Result<Misses> {
        if let Some(taken) = self.taken_at_stop {
            return Ok(taken);
        }
        Ok(Misses {
            query: counters::taken(&self.ebpf, counters::OF_QUERY)?,
            fallback: counters::taken(&self.ebpf, counters::OF_FALLBACK)?,
        })
    }

    /// How many questions the kernel may have kept from the probes so far, but for what only the links of breakpoints tell
    /// (`nmissed`): cheap enough to be asked with every few records.
    ///
    /// # Errors
    ///
    /// Fails if the counters cannot be read.
    pub fn missed_queries(&self) -> anyhow::Result<u64> {
        let of_query = self.attached().filter(|name| is_of_query(name));
        let missed: u64 = of_query
            .filter(|name| !turns::is_other(name))
            .filter_map(|name| self.ebpf.program(name)?.fd().ok())
            .map(|program| counters::recursion_misses(program.as_fd()).unwrap_or(0))
            .sum();
        // Reading a map by a system call keeps breakpoints from running on that CPU (`bpf_disable_instrumentation`), and a thread
        // can be preempted in the middle of it: not without need.
        let takes_turns = |name: &str| is_of_query(name) && turns::is_other(name);
        if missed == 0 || !self.attached().any(takes_turns) {
            return Ok(missed);
        }
        let missed = Misses {
            query: missed,
            fallback: 0,
        };
        Ok(missed.less(self.taken()?, self.taken_before).query)
    }

    fn pids(&mut self) -> anyhow::Result<HashMap<&mut aya::maps::MapData, u32, u8>> {
        let map = self
            .ebpf
            .map_mut("PIDS")
            .context("the BPF object has no map PIDS")?;
        HashMap::try_from(map).context("map PIDS has another type")
    }

    fn fill_filters(&mut self, config: &TracerConfig) -> anyhow::Result<()> {
        for pid in &config.pids {
            self.admit(*pid)?;
        }
        let map = self
            .ebpf
            .map_mut("COMMS")
            .context("the BPF object has no map COMMS")?;
        let mut comms: HashMap<_, [u8; 16], u8> = HashMap::try_from(map)?;
        for comm in &config.comms {
            comms
                .insert(comm, 1, 0)
                .context("too many names for --comm")?;
        }
        let map = self
            .ebpf
            .map_mut("NETNS")
            .context("the BPF object has no map NETNS")?;
        let mut netns: HashMap<_, u32, u8> = HashMap::try_from(map)?;
        for inum in &config.netns {
            netns
                .insert(inum, 1, 0)
                .context("too many namespaces for --netns")?;
        }
        Ok(())
    }

    fn attach_raw(&mut self, name: &'static str, tracepoint: &str) -> anyhow::Result<()> {
        let program: &mut RawTracePoint = self
            .ebpf
            .program_mut(name)
            .with_context(|| format!("the BPF object has no program {name}"))?
            .try_into()?;
        let what = || format!("cannot attach to raw tracepoint {tracepoint}");
        program.load().with_context(what)?;
        program.attach(tracepoint).with_context(what)?;
        Ok(())
    }

    fn attach_all(&mut self, probes: &[Probe], refused: &Refusals) -> anyhow::Result<()> {
        probes
            .iter()
            .try_for_each(|probe| self.attach(probe, refused))
    }

    /// Notes down that a program is attached.
    fn note(&mut self, program: &'static str, opens: bool) {
        // One program can hang in several places.
        if self.attached().any(|name| name == program) {
            return;
        }
        match self.attached.last_mut() {
            Some(together) if together.opens == opens => together.programs.push(program),
            Some(_) | None => self.attached.push(Together {
                opens,
                programs: vec![program],
            }),
        }
    }

    fn attached(&self) -> impl Iterator<Item = &'static str> {
        self.attached
            .iter()
            .flat_map(|it| it.programs.iter().copied())
    }

    fn attach(&mut self, probe: &Probe, refused: &Refusals) -> anyhow::Result<()> {
        let unseen = |why: &anyhow::Error| {
            log::warn!("what {} would see is not seen: {why}", probe.target);
            log::debug!("{}: {why:#}", probe.target);
        };
        if let Some(why) = refused.get(probe.program) {
            unseen(why);
            return Ok(());
        }
        let mut programs = vec![probe.program];
        programs.extend(turns::others(probe, self.preemptible));
        if turns::is_stack(&probe.target) {
            programs.reverse();
        }
        for name in programs {
            let attached = self
                .ebpf
                .program_mut(name)
                .with_context(|| format!("the BPF object has no program {name}"))
                .and_then(|program| attach(program, &probe.target))
                .with_context(|| format!("cannot attach {}", probe.target));
            match attached {
                Ok(()) => self.note(name, probe.opens()),
                // Without it more is missed, and counted.
                Err(why) if turns::is_other(name) => log::debug!("{name}: {why:#}"),
                Err(why) if probe.is_optional() => unseen(&why),
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }
}

/// Where a rung hangs on trampolines: does the kernel let us have one?
fn try_trampoline(plan: &RungPlan, functions: &BTreeMap<&'static str, u32>) -> anyhow::Result<()> {
    for probe in &plan.probes {
        if let Target::Fexit(function) = &probe.target
            && let Some(number) = functions.get(function.as_str())
            && !probe.is_optional()
        {
            let what = || {
                let target = &probe.target;
                format!("cannot attach {target}: the kernel refuses to load the program")
            };
            return trial::trampoline(*number).with_context(what);
        }
    }
    Ok(())
}

/// Attaches a program that was verified.
fn attach(program: &mut Program, target: &Target) -> anyhow::Result<()> {
    match target {
        Target::Fentry(_) => {
            <&mut FEntry>::try_from(program)?.attach()?;
        }
        Target::Fexit(_) => {
            <&mut FExit>::try_from(program)?.attach()?;
        }
        Target::Kprobe(function) | Target::Kretprobe(function) => {
            <&mut KProbe>::try_from(program)?.attach(function, 0)?;
        }
        Target::TypedTracepoint(_) => {
            <&mut BtfTracePoint>::try_from(program)?.attach()?;
        }
        Target::RawTracepoint(name) => {
            <&mut RawTracePoint>::try_from(program)?.attach(name)?;
        }
    }
    Ok(())
}

/// Takes down a program of any kind that is attached.
fn detach(program: &mut Program) -> Result<(), ProgramError> {
    if let Ok(program) = <&mut FEntry>::try_from(&mut *program) {
        program.unload()
    } else if let Ok(program) = <&mut FExit>::try_from(&mut *program) {
        program.unload()
    } else if let Ok(program) = <&mut KProbe>::try_from(&mut *program) {
        program.unload()
    } else if let Ok(program) = <&mut BtfTracePoint>::try_from(&mut *program) {
        program.unload()
    } else {
        <&mut RawTracePoint>::try_from(program).and_then(RawTracePoint::unload)
    }
}
