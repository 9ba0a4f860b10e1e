//! Every probe there can be, in one table: what of the kernel is looked at, by which programs of the BPF object, for
//! which sensor and attach method.
//!
//! [`crate::host`] looks for the functions and tracepoints that stand here, [`crate::plan`] picks from the table what
//! this kernel has, [`crate::kernel`] attaches it. Each name of the kernel stands here once. A function that got another
//! name is one more [`Place`] in its row; a sensor is rows of its own.

mod fallback;
mod names;
mod query;
mod rows;

pub use names::{alone, function, tracepoint};
pub use rows::{METHODS, OPTIONAL};

use crate::model::{Rung, SensorId};

/// How a program hangs at its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// Trampoline at the entry of a function.
    Fentry,
    /// Trampoline at the return of a function.
    Fexit,
    /// Breakpoint at the entry of a function.
    Kprobe,
    /// Breakpoint at the return of a function.
    Kretprobe,
    /// Tracepoint by its name alone, with the kernel's own arguments.
    RawTracepoint,
    /// The same, with arguments whose types the kernel describes.
    TypedTracepoint,
}

impl Hook {
    /// True for what hangs on a function.
    #[must_use]
    pub fn is_on_function(self) -> bool {
        match self {
            Self::Fentry | Self::Fexit | Self::Kprobe | Self::Kretprobe => true,
            Self::RawTracepoint | Self::TypedTracepoint => false,
        }
    }
}

/// A program of the BPF object, and how it hangs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// How.
    pub hook: Hook,
    /// Name of the program in the object.
    pub program: &'static str,
    /// Programs that take what this one is kept from where a thread can be preempted inside it, in the order in which they
    /// run behind it. What has none misses such runs: what it would have seen is seen again, or its place is too busy for
    /// more than one program.
    pub turns: &'static [&'static str],
    /// It opens a question: it is attached behind all that close one, so that none is opened that nobody closes.
    pub opens: bool,
    /// The attach method is worth having without it: what it sees is beside the question.
    pub is_optional: bool,
}

/// A place in the kernel where something can be seen.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Name of the function or tracepoint.
    pub on: &'static str,
    /// The programs, in the order in which they are attached. Which of them are of use depends on the attach method:
    /// programs that hang in another way are left out.
    pub programs: &'static [Attachment],
    /// Members of the kernel's structures that have to be known (fields of `KernelLayout`).
    pub needs: &'static [&'static str],
    /// Where the kernel has this function, this place is not the right one.
    pub unless: Option<&'static str>,
    /// A copy that the compiler made under a longer name will do, and is what is looked for.
    pub any_copy: bool,
    /// What cannot be told because it is this place, a sentence each.
    pub costs: &'static [&'static str],
}

/// When a row is of use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// On every kernel.
    Always,
    /// Where the function that decides fallbacks is told the cause.
    CauseIsTold,
    /// Where no row before has taken this place.
    Without(&'static str),
    /// Where rows before have taken all of these.
    With(&'static [&'static str]),
}

/// Which places of a row are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Take {
    /// The first one that this kernel has.
    First,
    /// Every one that it has.
    Every,
}

/// What follows where the kernel has none of the places of a row; of a row that takes every place, also [`Self::Costs`] where
/// one is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// Nothing that is worth a word.
    IsFine,
    /// This cannot be told, a sentence to which the names of what is missing are added.
    Costs(&'static str),
    /// These cannot be told, a sentence each, to which nothing is added.
    CostsAsSaid(&'static [&'static str]),
    /// The attach method is of no use.
    RulesOut,
    /// The same, with this reason.
    RulesOutSaying(&'static str),
}

/// One thing that a sensor has to see, and where that can be.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// For whom.
    pub sensor: SensorId,
    /// By which attach methods.
    pub rungs: &'static [Rung],
    /// When it is of use.
    pub when: When,
    /// Which of the places are taken.
    pub take: Take,
    /// Where it can be seen, best first.
    pub places: &'static [Place],
    /// What follows if it cannot.
    pub missing: Missing,
}

/// What a sensor needs for an attach method, whatever it then finds.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Which sensor.
    pub sensor: SensorId,
    /// Which attach method.
    pub rung: Rung,
    /// Members of the kernel's structures without which it is of no use (fields of `KernelLayout`).
    pub needs: &'static [&'static [&'static str]],
    /// What it cannot tell on any kernel, a sentence each.
    pub costs: &'static [&'static str],
}

/// Members that a record can do without.
#[derive(Clone, Copy, Debug)]
pub struct Optional {
    /// For which sensor.
    pub sensor: SensorId,
    /// By which attach methods.
    pub rungs: &'static [Rung],
    /// Fields of `KernelLayout`.
    pub fields: &'static [&'static str],
    /// What cannot be told without one of them.
    pub costs: &'static str,
}

/// Every probe there can be.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    query::ROWS.iter().chain(fallback::ROWS)
}

fn places() -> impl Iterator<Item = (SensorId, &'static Place)> {
    rows().flat_map(|row| row.places.iter().map(|place| (row.sensor, place)))
}

fn names(is_of: fn(Hook) -> bool) -> Vec<&'static str> {
    let mut names: Vec<_> = places()
        .filter(|(_, place)| place.programs.iter().any(|it| is_of(it.hook)))
        .map(|(_, place)| place.on)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The functions of the kernel on which a probe may hang.
#[must_use]
pub fn functions() -> Vec<&'static str> {
    names(Hook::is_on_function)
}

/// The tracepoints on which one may.
#[must_use]
pub fn tracepoints() -> Vec<&'static str> {
    names(|hook| !hook.is_on_function())
}

/// Every program that hangs somewhere, as it does there.
pub fn attachments() -> impl Iterator<Item = &'static Attachment> {
    places().flat_map(|(_, place)| place.programs)
}

/// The sensor that a program belongs to, also one that takes turns; none for those that hang beside the sensors.
#[must_use]
pub fn sensor_of(program: &str) -> Option<SensorId> {
    let is_it = |it: &Attachment| it.program == program || it.turns.contains(&program);
    places()
        .find(|(_, place)| place.programs.iter().any(is_it))
        .map(|(sensor, _)| sensor)
}

/// Every program that the BPF object has to have.
#[must_use]
pub fn programs() -> Vec<&'static str> {
    let mut programs: Vec<_> = attachments()
        .flat_map(|it| [it.program].into_iter().chain(it.turns.iter().copied()))
        .chain(alone::ALL)
        .collect();
    programs.sort_unstable();
    programs.dedup();
    programs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_of_one_sensor_and_always_hangs_in_the_same_way() {
        let all: Vec<_> = places()
            .flat_map(|(sensor, place)| place.programs.iter().map(move |it| (sensor, it)))
            .collect();
        for (sensor, it) in &all {
            for (other, same) in all.iter().filter(|(_, same)| same.program == it.program) {
                assert_eq!((sensor, it), (other, same));
            }
            assert_eq!(sensor_of(it.program), Some(*sensor));
            for turn in it.turns {
                assert_eq!(sensor_of(turn), Some(*sensor), "{turn}");
                assert!(all.iter().all(|(_, other)| other.program != *turn));
            }
        }
        assert!(alone::ALL.iter().all(|it| sensor_of(it).is_none()));
    }

    #[test]
    fn every_sensor_has_every_attach_method_once() {
        for sensor in SensorId::ALL {
            for rung in Rung::LADDER {
                let of_it = |it: &&Method| it.sensor == sensor && it.rung == rung;
                assert_eq!(METHODS.iter().filter(of_it).count(), 1, "{sensor} {rung}");
                let has_rows = |it: &Row| it.sensor == sensor && it.rungs.contains(&rung);
                assert!(rows().any(has_rows), "{sensor} {rung}");
            }
        }
    }
}
