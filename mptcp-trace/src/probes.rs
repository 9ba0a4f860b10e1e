//! The table of all probes: what they observe in the kernel, with which programs of the BPF object,
//! for which sensor and attach method.
//!
//! [`crate::host`] looks up the functions and tracepoints of this table, [`crate::plan`] picks
//! those that this kernel has, [`crate::kernel`] attaches them. Each kernel name occurs once. A
//! renamed function is one more [`Place`] in its row; a new sensor is a set of rows.

mod fallback;
mod names;
mod parts;
mod query;
mod subflow;

pub use names::{alone, function, tracepoint};

use crate::model::{PerSensor, Rung, SensorId};

/// The probes of each sensor.
static SENSORS: PerSensor<Probes> = PerSensor {
    query: query::PROBES,
    fallback: fallback::PROBES,
    subflow: subflow::PROBES,
};

/// All probes of a sensor.
#[derive(Clone, Copy, Debug)]
pub struct Probes {
    /// What it observes, and where.
    pub rows: &'static [Row],
    /// Its attach methods, best first.
    pub methods: [Method; Rung::LADDER.len()],
    /// Optional members of its records.
    pub optional: &'static [Optional],
}

/// How a program is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// Trampoline at the entry of a function.
    Fentry,
    /// Trampoline at the return of a function.
    Fexit,
    /// Kprobe at the entry of a function.
    Kprobe,
    /// Kretprobe at the return of a function.
    Kretprobe,
    /// Tracepoint with the kernel's own arguments.
    RawTracepoint,
    /// Tracepoint with arguments whose types are in the kernel's BTF.
    TypedTracepoint,
}

impl Hook {
    /// True for hooks on functions.
    #[must_use]
    pub fn is_on_function(self) -> bool {
        match self {
            Self::Fentry | Self::Fexit | Self::Kprobe | Self::Kretprobe => true,
            Self::RawTracepoint | Self::TypedTracepoint => false,
        }
    }
}

/// What the rest of the plan has to know about a program that is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Nothing.
    Other,
    /// It observes an inner function that answers queries; the outermost one is not probed.
    AnswersInside,
    /// It observes the decision to fall back, so that no fallback has to be predicted.
    Decision,
    /// It observes children that are removed from MPTCP, with the births and ends of connections.
    Children,
    /// It observes what a connection answers to one more join.
    JoinAnswer,
}

/// A program of the BPF object, and its hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// The hook.
    pub hook: Hook,
    /// Name of the program in the object.
    pub program: &'static str,
    /// Programs that take over runs that this one misses where a thread can be preempted inside it,
    /// in the order in which they run after it. A program without any misses such runs: what it
    /// would have observed is observed again, or its place is too busy for more than one program.
    pub turns: &'static [&'static str],
    /// It opens a query: it is attached after all that close one, so that no query stays open.
    pub opens: bool,
    /// The attach method is useful without it: what it observes is not essential.
    pub is_optional: bool,
    /// A program of another sensor at the same place, which does the work of this one as well. If
    /// both are planned, this one is not attached.
    pub served_by: Option<&'static str>,
    /// What else follows from it.
    pub role: Role,
}

/// A place in the kernel that can be probed.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Name of the function or tracepoint.
    pub on: &'static str,
    /// The programs, in the order of attachment. The attach method determines which of them apply;
    /// those with other hooks are left out.
    pub programs: &'static [Attachment],
    /// Required members of kernel structures (fields of `KernelLayout`).
    pub needs: &'static [&'static str],
    /// If the kernel has this function, this place is not the right one.
    pub unless: Option<&'static str>,
    /// A copy that the compiler made under a longer name is what this place looks for.
    pub any_copy: bool,
    /// What cannot be observed at this place, one sentence each.
    pub costs: &'static [&'static str],
}

/// When a row applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// On every kernel.
    Always,
    /// If the function that decides fallbacks takes the cause as an argument.
    HasCauseParameter,
    /// Unless the kernel has MPTCP for IPv4 only.
    HasIpv6,
    /// If no earlier row has taken this place.
    Without(&'static str),
    /// If earlier rows have taken all of these.
    With(&'static [&'static str]),
}

/// Which places of a row are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Take {
    /// The first one that this kernel has.
    First,
    /// All that this kernel has.
    Every,
}

/// The consequence if the kernel has none of the places of a row; for a row that takes every place,
/// also [`Self::Costs`] if one is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// Nothing to report.
    IsFine,
    /// This cannot be observed; the names of the missing places are appended to the sentence.
    Costs(&'static str),
    /// These cannot be observed, one complete sentence each.
    CostsAsSaid(&'static [&'static str]),
    /// The attach method is impossible.
    RulesOut,
    /// The attach method is impossible, for this reason.
    RulesOutSaying(&'static str),
}

/// One thing that a sensor has to observe, and the places for it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The attach methods.
    pub rungs: &'static [Rung],
    /// When the row applies.
    pub when: When,
    /// Which of the places are taken.
    pub take: Take,
    /// The places, best first.
    pub places: &'static [Place],
    /// The consequence if they are missing.
    pub missing: Missing,
}

/// Requirements and costs of an attach method for a sensor, on any kernel.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// The attach method.
    pub rung: Rung,
    /// Required members of kernel structures (fields of `KernelLayout`).
    pub needs: &'static [&'static [&'static str]],
    /// What it cannot observe on any kernel, one sentence each.
    pub costs: &'static [&'static str],
    /// What it cannot observe if the self-test did not find the number of the fallback bit.
    pub uncalibrated: Option<&'static str>,
}

/// Optional members of a record.
#[derive(Clone, Copy, Debug)]
pub struct Optional {
    /// The attach methods.
    pub rungs: &'static [Rung],
    /// Fields of `KernelLayout`.
    pub fields: &'static [&'static str],
    /// What is lost without one of them.
    pub costs: &'static str,
}

/// All probes of a sensor.
#[must_use]
pub fn of(sensor: SensorId) -> &'static Probes {
    SENSORS.of(sensor)
}

fn places() -> impl Iterator<Item = (SensorId, &'static Place)> {
    SensorId::ALL.into_iter().flat_map(|sensor| {
        let places = of(sensor).rows.iter().flat_map(|row| row.places);
        places.map(move |place| (sensor, place))
    })
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

/// The kernel functions that a probe may attach to.
#[must_use]
pub fn functions() -> Vec<&'static str> {
    names(Hook::is_on_function)
}

/// The tracepoints that a probe may attach to.
#[must_use]
pub fn tracepoints() -> Vec<&'static str> {
    names(|hook| !hook.is_on_function())
}

/// Every attachment of a program.
pub fn attachments() -> impl Iterator<Item = &'static Attachment> {
    places().flat_map(|(_, place)| place.programs)
}

/// The sensor that a program belongs to, including programs that take turns; `None` for programs
/// outside of the sensors.
#[must_use]
pub fn sensor_of(program: &str) -> Option<SensorId> {
    let is_it = |it: &Attachment| it.program == program || it.turns.contains(&program);
    places()
        .find(|(_, place)| place.programs.iter().any(is_it))
        .map(|(sensor, _)| sensor)
}

/// The sensor that is incomplete if the kernel skips a run of this program.
#[must_use]
pub fn sensor_affected_by(program: &str) -> Option<SensorId> {
    let alone = || alone::ALL.iter().find(|(name, _)| *name == program);
    sensor_of(program).or_else(|| alone().map(|(_, sensor)| *sensor))
}

/// Every program that the BPF object must have.
#[must_use]
pub fn programs() -> Vec<&'static str> {
    let mut programs: Vec<_> = attachments()
        .flat_map(|it| [it.program].into_iter().chain(it.turns.iter().copied()))
        .chain(alone::ALL.iter().map(|(program, _)| *program))
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
        assert!(alone::ALL.iter().all(|(it, _)| sensor_of(it).is_none()));
        for program in programs() {
            assert!(sensor_affected_by(program).is_some(), "{program}");
        }
    }

    #[test]
    fn every_sensor_has_every_attach_method_once_best_first() {
        for sensor in SensorId::ALL {
            let Probes { rows, methods, .. } = of(sensor);
            assert_eq!(methods.map(|it| it.rung), Rung::LADDER, "{sensor}");
            for rung in Rung::LADDER {
                let has_rows = rows.iter().any(|it| it.rungs.contains(&rung));
                assert!(has_rows, "{sensor} {rung}");
            }
        }
    }

    #[test]
    fn a_program_that_serves_another_sensor_hangs_at_the_same_place() {
        let all = || {
            places().flat_map(|(sensor, place)| {
                place.programs.iter().map(move |it| (sensor, place.on, it))
            })
        };
        for (sensor, on, it) in all() {
            let Some(server) = it.served_by else { continue };
            let mut servers = all().filter(|(_, _, other)| other.program == server);
            let (other, its_place, serves) = servers.next().unwrap();
            assert!(other < sensor && servers.next().is_none(), "{server}");
            assert_eq!((its_place, serves.hook), (on, it.hook), "{server}");
        }
    }
}
