//! Verifies programs, several at once: that takes most of the time of a start, and needs no order.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::Context as _;
use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, FEntry, FExit, Iter, KProbe, Program, RawTracePoint},
};

use super::{turns, types};
use crate::{host::Preemptible, plan::Probe, probes::Hook};

/// At most this many programs are verified at once. Few are slow, and other work on the machine
/// needs CPUs too.
const AT_ONCE_MAX: usize = 4;

/// A program, and what its verification requires.
#[derive(Clone, Debug)]
pub(super) struct Load {
    program: &'static str,
    how: How,
    optional: bool,
}

#[derive(Clone, Debug)]
enum How {
    /// Verified against the function that it attaches to.
    Fentry(String),
    Fexit(String),
    /// Verified against the arguments of a tracepoint.
    Typed(String),
    /// Verified against the objects that it iterates over.
    Iter(&'static str),
    /// Can be attached anywhere.
    Alone,
}

impl Load {
    /// The program of a probe, and those that take turns with it.
    pub(super) fn of(probe: &Probe, preemptible: Preemptible) -> impl Iterator<Item = Self> {
        let first = Self::alone(probe);
        let others = turns::others(probe, preemptible).iter().map({
            let first = first.clone();
            move |program| Self {
                program,
                optional: true,
                ..first.clone()
            }
        });
        std::iter::once(first).chain(others)
    }

    fn alone(probe: &Probe) -> Self {
        let name = probe.target.name.clone();
        let how = match probe.target.hook {
            Hook::Fentry => How::Fentry(name),
            Hook::Fexit => How::Fexit(name),
            Hook::TypedTracepoint => How::Typed(name),
            Hook::Kprobe | Hook::Kretprobe | Hook::RawTracepoint => How::Alone,
        };
        Self {
            program: probe.program(),
            how,
            optional: probe.is_optional(),
        }
    }

    /// The function, or tracepoint type, whose type id is required.
    fn function(&self) -> Option<Cow<'_, str>> {
        match &self.how {
            How::Fentry(function) | How::Fexit(function) => Some(function.into()),
            How::Typed(tracepoint) => Some(format!("btf_trace_{tracepoint}").into()),
            How::Iter(what) => Some(format!("bpf_iter_{what}").into()),
            How::Alone => None,
        }
    }

    /// An optional iterator program.
    pub(super) fn through(program: &'static str, what: &'static str) -> Self {
        Self {
            program,
            how: How::Iter(what),
            optional: true,
        }
    }

    /// An optional program that userspace runs itself.
    pub(super) fn asked(program: &'static str) -> Self {
        Self {
            program,
            how: How::Alone,
            optional: true,
        }
    }
}

/// Programs that the kernel refused.
pub(super) type Refusals = BTreeMap<&'static str, anyhow::Error>;

/// Verifies programs in the order of `loads`. After a mandatory one is refused, no more are
/// started.
pub(super) fn load(
    ebpf: &mut Ebpf,
    loads: &[Load],
    functions: &BTreeMap<&'static str, u32>,
) -> Refusals {
    let types = types_for(loads, functions);
    let mut refused = Refusals::new();
    let queue = queue(ebpf, loads, &mut refused);
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    let workers = at_once.min(AT_ONCE_MAX).min(queue.len());
    let (queue, refused) = (Mutex::new(queue), Mutex::new(refused));
    let enough = AtomicBool::new(false);
    let work = || {
        while !enough.load(Ordering::Relaxed) {
            let Some((load, program)) = locked(&queue).pop_front() else {
                break;
            };
            if let Err(why) = verify(program, &load.how, types.as_ref()) {
                enough.fetch_or(!load.optional, Ordering::Relaxed);
                locked(&refused).insert(load.program, why);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(work);
        }
        work();
    });
    refused.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A poisoned lock cannot occur: no code panics while it holds one.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The required types, if any.
fn types_for(
    loads: &[Load],
    functions: &BTreeMap<&'static str, u32>,
) -> Option<anyhow::Result<Btf>> {
    let needed: Vec<_> = loads.iter().filter_map(Load::function).collect();
    let numbers = needed
        .iter()
        .filter_map(|name| functions.get_key_value(name.as_ref()))
        .map(|(name, number)| (*name, *number))
        .collect();
    (!needed.is_empty()).then(|| types::of_functions(&numbers))
}

/// Each program once, with its requirements.
fn queue<'a>(
    ebpf: &'a mut Ebpf,
    loads: &'a [Load],
    refused: &mut Refusals,
) -> VecDeque<(&'a Load, &'a mut Program)> {
    let mut programs: BTreeMap<&str, &mut Program> = ebpf.programs_mut().collect();
    let mut queue: VecDeque<(&Load, &mut Program)> = VecDeque::new();
    for load in loads {
        match programs.remove(load.program) {
            Some(program) => queue.push_back((load, program)),
            // One program can be attached at several places.
            None if queue.iter().any(|(it, _)| it.program == load.program) => {}
            None => {
                let why = anyhow::anyhow!("the BPF object has no program {}", load.program);
                refused.insert(load.program, why);
            }
        }
    }
    queue
}

fn verify(
    program: &mut Program,
    how: &How,
    types: Option<&anyhow::Result<Btf>>,
) -> anyhow::Result<()> {
    let types = || match types {
        Some(Ok(types)) => Ok(types),
        Some(Err(why)) => Err(anyhow::anyhow!("{why:#}")),
        None => Err(anyhow::anyhow!("no type information")),
    };
    match how {
        How::Fentry(function) => <&mut FEntry>::try_from(program)?.load(function, types()?)?,
        How::Fexit(function) => <&mut FExit>::try_from(program)?.load(function, types()?)?,
        How::Typed(tracepoint) => {
            <&mut BtfTracePoint>::try_from(program)?.load(tracepoint, types()?)?;
        }
        How::Iter(what) => <&mut Iter>::try_from(program)?.load(what, types()?)?,
        How::Alone => {
            if let Ok(program) = <&mut KProbe>::try_from(&mut *program) {
                program.load()?;
            } else {
                <&mut RawTracePoint>::try_from(program)
                    .context("its kind is never attached")?
                    .load()?;
            }
        }
    }
    Ok(())
}
