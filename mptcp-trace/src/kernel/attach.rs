//! Carries out one attach method of the plan: programs are verified, attached, and later detached.

use std::{
    collections::BTreeMap,
    fmt,
    os::fd::{AsRawFd as _, BorrowedFd, RawFd},
    thread,
};

use anyhow::{Context as _, bail};
use aya::{
    Ebpf,
    maps::Array,
    programs::{
        BtfTracePoint, FEntry, FExit, KProbe, Program, ProgramError, RawTracePoint,
        RawTracePointRunOptions, TestRun as _,
    },
};

use mptcp_trace_common::calibrated;

use super::{
    counters,
    load::{TracerConfig, load},
    ring::{LogRing, RecordRing},
    trial, turns,
    verify::{self, Load, Refusals},
};
use crate::{
    host::Preemptible,
    model::{PerSensor, Rung, SensorId},
    plan::{Probe, RungPlan, Selection, Target},
    probes::{self, Hook, alone, tracepoint},
};

/// Why an attach method failed; the next one may work.
#[derive(Debug)]
pub struct AttachError {
    /// The sensor.
    pub sensor: SensorId,
    /// The attach method.
    pub rung: Rung,
    /// The reason.
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

/// Hint for distributions that require more than `CAP_PERFMON`, if the error looks like that.
fn perf_hint(why: &str) -> &'static str {
    match why.contains("perf_event_open") && why.contains("Permission denied") {
        true => {
            "; where kernel.perf_event_paranoid is above 2, some kernels (Debian's) require \
             CAP_SYS_ADMIN here: grant it too, or set the sysctl to 2"
        }
        false => "",
    }
}

/// The attached programs of one attach method; detached when dropped.
pub struct Tracer {
    pub(super) ebpf: Ebpf,
    pub(super) rung: Rung,
    /// The attached programs, in the order of attachment.
    attached: Vec<DetachBatch>,
    /// Misses of programs that are detached already, by sensor.
    pub(super) missed: Runs,
    /// Where the kernel may preempt a thread inside a program.
    pub(super) preemptible: Preemptible,
    /// False in a PID namespace: there the kernel's iterator only visits tasks of that namespace.
    pub(super) sees_all_tasks: bool,
    /// Links of attached kprobe programs for queries.
    pub(super) query_kprobe_links: Vec<RawFd>,
    /// Several programs for queries take turns at one place.
    pub(super) queries_take_turns: bool,
    /// Runs taken over because the first program was not attached yet.
    pub(super) taken_before: Runs,
    /// Total of runs taken over when the first program was detached: after that, the others take
    /// over all.
    pub(super) taken_at_stop: Option<Runs>,
    /// A fallback may happen unobserved.
    pub(super) may_miss: bool,
    /// Type ids of functions in the kernel's BTF.
    pub(super) functions: BTreeMap<&'static str, u32>,
    /// Size of the ring, bytes.
    pub(super) ring_bytes: u32,
}

/// Programs attached in sequence that can be detached at once: all of them open a query, or none
/// does.
struct DetachBatch {
    opens: bool,
    programs: Vec<&'static str>,
}

/// Runs that the kernel skipped, or that another program took over.
pub(super) type Runs = PerSensor<u64>;

/// Possible indices of MPTCP's per-namespace data: from the first one that the kernel assigns
/// (`MIN_PERNET_OPS_ID`) to more than exist.
const PERNET_IDS: std::ops::Range<u32> = 2..256;
impl Tracer {
    /// Loads and attaches the probes of one attach method of each sensor.
    ///
    /// # Errors
    ///
    /// Reports which probe the kernel refused and why; nothing remains attached in that case.
    pub fn start(config: &TracerConfig, selection: &Selection<'_>) -> Result<Self, AttachError> {
        let query = selection.query();
        let wrap = |why| AttachError {
            sensor: SensorId::Query,
            rung: query.rung,
            why,
        };
        try_trampoline(query, &config.functions).map_err(wrap)?;
        let ebpf = load(config, selection).map_err(wrap)?;
        let fallback = selection.of(SensorId::Fallback);
        let mut tracer = Self {
            ebpf,
            rung: query.rung,
            attached: Vec::new(),
            missed: Runs::default(),
            preemptible: config.preemptible,
            sees_all_tasks: config.visits_all_tasks,
            query_kprobe_links: Vec::new(),
            queries_take_turns: false,
            taken_before: Runs::default(),
            taken_at_stop: None,
            may_miss: fallback.is_some_and(|plan| !plan.decision_probed()),
            functions: config.functions.clone(),
            ring_bytes: config.ring_bytes,
        };
        tracer.fill_filters(config).map_err(wrap)?;
        let refused = tracer.load_all(selection)?;
        if let Some(namespace) = config.pid_namespace {
            let level = tracer.answer(alone::PIDNS_LEVEL, [0, 0]).map_err(wrap)?;
            let level = u32::try_from(level).map_err(|why| wrap(why.into()))?;
            let level = level.saturating_sub(namespace.levels_above);
            tracer
                .set_calibrated(calibrated::PIDNS_LEVEL, level)
                .map_err(wrap)?;
        }
        if config.follow {
            for (program, tracepoint, opens) in [
                (alone::FAMILY_FREE, tracepoint::SCHED_PROCESS_FREE, false),
                (alone::FAMILY_FORK, tracepoint::SCHED_PROCESS_FORK, true),
            ] {
                tracer.attach_raw(program, tracepoint).map_err(wrap)?;
                tracer.note(program, opens);
            }
            tracer.adopt(config).map_err(wrap)?;
        }
        // Connections must be tracked before queries refer to them.
        for (sensor, plan) in selection.sensors().rev() {
            let probes = selection.probes_of(sensor);
            let attached = tracer.attach_all(&probes, &refused);
            attached.map_err(|why| AttachError {
                sensor,
                rung: plan.rung,
                why,
            })?;
        }
        tracer.taken_before = tracer.taken().map_err(wrap)?;
        let of_query = || tracer.attached_of(SensorId::Query);
        let takes_turns = of_query().any(turns::is_other);
        let programs = of_query().filter_map(|name| tracer.ebpf.program(name));
        let kprobe_links = counters::kprobe_links(programs).map_err(wrap)?;
        tracer.queries_take_turns = takes_turns;
        tracer.query_kprobe_links = kprobe_links;
        Ok(tracer)
    }

    /// Verifies all programs to be attached; returns optional ones that the kernel refused.
    fn load_all(&mut self, selection: &Selection<'_>) -> Result<Refusals, AttachError> {
        // Those of the query sensor first: without them the attach method fails.
        let mut probes = selection.query().probes.clone();
        for sensor in SensorId::ALL.into_iter().filter(|it| it.is_optional()) {
            // The slowest to verify are at the end of the plan, and are started first, so that they
            // do not finish last.
            probes.extend(selection.probes_of(sensor).into_iter().rev());
        }
        let load = |probe| Load::of(probe, self.preemptible);
        let mut loads: Vec<Load> = probes.iter().flat_map(load).collect();
        if selection.of(SensorId::Fallback).is_some() {
            loads.push(Load::through(alone::LISTER, alone::FILES));
            loads.extend(
                [
                    alone::COUNTED_NOW,
                    alone::COUNTED_NEXT,
                    alone::COUNTED_PERNET,
                ]
                .map(Load::asked),
            );
        }
        if !self.sees_all_tasks {
            loads.push(Load::asked(alone::PIDNS_LEVEL));
        }
        let mut refused = verify::load(&mut self.ebpf, &loads, &self.functions);
        for (sensor, plan) in selection.sensors() {
            for probe in plan.probes.iter().filter(|it| !it.is_optional()) {
                if let Some(why) = refused.remove(probe.program()) {
                    let why = why.context(format!("cannot attach {}", probe.target));
                    let rung = plan.rung;
                    return Err(AttachError { sensor, rung, why });
                }
            }
        }
        Ok(refused)
    }

    /// True if a fallback may happen unobserved.
    #[must_use]
    pub fn may_miss(&self) -> bool {
        self.may_miss
    }

    /// Passes the number of the fallback bit to the programs.
    ///
    /// # Errors
    ///
    /// Fails if the map cannot be written.
    pub fn calibrate(&mut self, bit: Option<u8>) -> anyhow::Result<()> {
        self.set_calibrated(
            calibrated::FALLBACK_BIT,
            bit.map_or(0, |bit| u32::from(bit) + 1),
        )
    }

    /// Finds the index of MPTCP's per-namespace data: the namespace in which `inside` was opened
    /// has this blackhole timeout, in seconds, and no other per-namespace data has that value at
    /// that offset.
    ///
    /// # Errors
    ///
    /// Fails if the kernel does not allow such a program.
    pub fn find_pernet(&mut self, inside: BorrowedFd<'_>, seconds: u32) -> anyhow::Result<()> {
        let inside = u64::from(inside.as_raw_fd().cast_unsigned());
        let mut found = Vec::new();
        for id in PERNET_IDS {
            match self.answer(alone::COUNTED_PERNET, [inside, u64::from(id)])? {
                calibrated::NO_DATA => break,
                answer if answer == u64::from(seconds) => found.push(id),
                _other => {}
            }
        }
        let [id] = found[..] else {
            bail!("{} data of a namespace have such a number", found.len());
        };
        self.set_calibrated(calibrated::PERNET_ID, id)
    }

    /// Runs a program that is not attached; returns its result.
    pub(super) fn answer(&self, name: &str, args: [u64; 2]) -> anyhow::Result<u64> {
        let Some(Program::RawTracePoint(program)) = self.ebpf.program(name) else {
            bail!("the BPF object has no program {name}");
        };
        let mut options = RawTracePointRunOptions::new();
        options.args[..args.len()].copy_from_slice(&args);
        program.test_run(options)?;
        let map = self
            .ebpf
            .map("ANSWER")
            .context("the BPF object has no map ANSWER")?;
        let answer = Array::<_, u64>::try_from(map).context("map ANSWER has another type")?;
        Ok(answer.get(&0, 0)?)
    }

    pub(super) fn set_calibrated(&mut self, slot: u32, value: u32) -> anyhow::Result<()> {
        let map = self
            .ebpf
            .map_mut("CALIBRATED")
            .context("the BPF object has no map CALIBRATED")?;
        let mut map: Array<_, u32> =
            Array::try_from(map).context("map CALIBRATED has another type")?;
        map.set(slot, value, 0)
            .context("cannot pass the calibration to the BPF programs")
    }

    /// The attach method in use.
    #[must_use]
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// The ring of records; it can be taken once.
    ///
    /// # Errors
    ///
    /// Fails if it was taken already.
    pub fn take_records(&mut self) -> anyhow::Result<RecordRing> {
        RecordRing::new(&mut self.ebpf)
    }

    /// The ring of debug messages; it can be taken once.
    ///
    /// # Errors
    ///
    /// Fails if it was taken already.
    pub fn take_log(&mut self) -> anyhow::Result<LogRing> {
        LogRing::new(&mut self.ebpf)
    }

    /// Detaches everything, programs that open a query first. Records in the ring and counters stay
    /// readable.
    ///
    /// # Errors
    ///
    /// Fails if the kernel does not detach a probe.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        // If it is unreadable, programs are still detached.
        self.taken_at_stop = self.taken().ok();
        self.query_kprobe_links.clear();
        while let Some(DetachBatch { programs, .. }) = self.attached.pop() {
            for name in &programs {
                if let Some(sensor) = probes::sensor_affected_by(name) {
                    *self.missed.of_mut(sensor) += self.misses(name);
                }
            }
            let attached = self.ebpf.programs_mut();
            let attached = attached.filter(|(name, _)| programs.contains(name));
            // For each program the kernel waits until no CPU runs it any more: the threads let it
            // wait for all at once.
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

    /// Records that a program is attached.
    fn note(&mut self, program: &'static str, opens: bool) {
        // One program can be attached at several places.
        if self.attached().any(|name| name == program) {
            return;
        }
        match self.attached.last_mut() {
            Some(together) if together.opens == opens => together.programs.push(program),
            Some(_) | None => self.attached.push(DetachBatch {
                opens,
                programs: vec![program],
            }),
        }
    }

    pub(super) fn attached(&self) -> impl Iterator<Item = &'static str> {
        self.attached
            .iter()
            .flat_map(|it| it.programs.iter().copied())
    }

    /// The attached programs of a sensor, without those that belong to no sensor.
    pub(super) fn attached_of(&self, sensor: SensorId) -> impl Iterator<Item = &'static str> {
        let is_its = move |name: &&str| probes::sensor_of(name) == Some(sensor);
        self.attached().filter(is_its)
    }

    fn attach(&mut self, probe: &Probe, refused: &Refusals) -> anyhow::Result<()> {
        let unseen = |why: &anyhow::Error| {
            log::warn!("events of {} are not traced: {why}", probe.target);
            log::debug!("{}: {why:#}", probe.target);
        };
        if let Some(why) = refused.get(probe.program()) {
            unseen(why);
            return Ok(());
        }
        let mut programs = vec![probe.program()];
        programs.extend(turns::others(probe, self.preemptible));
        if turns::is_stack(probe.target.hook) {
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
                // Without it more runs are missed, and counted.
                Err(why) if turns::is_other(name) => log::debug!("{name}: {why:#}"),
                Err(why) if probe.is_optional() => unseen(&why),
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }
}

/// Tests whether the kernel supports trampolines, if the attach method uses them.
fn try_trampoline(plan: &RungPlan, functions: &BTreeMap<&'static str, u32>) -> anyhow::Result<()> {
    for probe in &plan.probes {
        if probe.target.hook == Hook::Fexit
            && let Some(number) = functions.get(probe.target.name.as_str())
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

/// Attaches a verified program.
fn attach(program: &mut Program, target: &Target) -> anyhow::Result<()> {
    match target.hook {
        Hook::Fentry => {
            <&mut FEntry>::try_from(program)?.attach()?;
        }
        Hook::Fexit => {
            <&mut FExit>::try_from(program)?.attach()?;
        }
        Hook::Kprobe | Hook::Kretprobe => {
            <&mut KProbe>::try_from(program)?.attach(&target.name, 0)?;
        }
        Hook::TypedTracepoint => {
            <&mut BtfTracePoint>::try_from(program)?.attach()?;
        }
        Hook::RawTracepoint => {
            <&mut RawTracePoint>::try_from(program)?.attach(&target.name)?;
        }
    }
    Ok(())
}

/// Detaches a program of any kind.
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
