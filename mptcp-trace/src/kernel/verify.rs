//! Has the kernel verify programs, several at once: that is most of the work of a start, and it needs no order.

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

/// So many programs are verified at once at most. Few are dear, and everybody else on the machine wants to work too.
const AT_ONCE_MAX: usize = 4;

/// A program, and what has to be known to verify it.
#[derive(Clone, Debug)]
pub(super) struct Load {
    program: &'static str,
    how: How,
    optional: bool,
}

#[derive(Clone, Debug)]
enum How {
    /// It is verified against the function that it hangs on.
    Fentry(String),
    Fexit(String),
    /// This one against the arguments of a tracepoint.
    Typed(String),
    /// And this one against what it goes through.
    Iter(&'static str),
    /// It can hang anywhere.
    Alone,
}

impl Load {
    /// What a probe needs, and those that take turns with it.
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

    /// The function, or the type of a tracepoint, whose number has to be known.
    fn function(&self) -> Option<Cow<'_, str>> {
        match &self.how {
            How::Fentry(function) | How::Fexit(function) => Some(function.into()),
            How::Typed(tracepoint) => Some(format!("btf_trace_{tracepoint}").into()),
            How::Iter(what) => Some(format!("bpf_iter_{what}").into()),
            How::Alone => None,
        }
    }

    /// A program that goes through something, and that one can do without.
    pub(super) fn through(program: &'static str, what: &'static str) -> Self {
        Self {
            program,
            how: How::Iter(what),
            optional: true,
        }
    }

    /// A program that userspace runs itself, and can do without.
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

/// Has programs verified, the first of `loads` first. Once one is refused that is not optional, no more are begun.
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

/// Nobody panics with a lock in hand.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The types that are needed, if some are.
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

/// Each program once, with what it needs.
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
            // One program can hang in several places.
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
