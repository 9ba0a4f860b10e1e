//! From the table of probes and the facts about the host to the plan of one sensor with one attach
//! method.

use mptcp_trace_common::layout::{ABSENT, KernelLayout};

use super::{NONE_LISTED, OTHERS_UNLISTED, Probe, RungPlan, SensorPlan, Target};
use crate::{
    host::{Fact, HostSupport},
    model::{Rung, SensorId},
    probes::{self, Attachment, Hook, Method, Missing, Place, Probes, Row, Take, When},
};

/// The attach methods of a sensor; `only` restricts them to one.
pub(super) fn sensor(host: &HostSupport, sensor: SensorId, only: Option<Rung>) -> SensorPlan {
    let mut plan = SensorPlan {
        sensor,
        rungs: Vec::new(),
        ruled_out: Vec::new(),
    };
    for method in &probes::of(sensor).methods {
        let rung = method.rung;
        match resolve(host, sensor, method) {
            Ok(_) if only.is_some_and(|only| only != rung) => {
                let why = "another attach method was selected with --attach";
                plan.ruled_out.push((rung, why.to_owned()));
            }
            Ok(candidate) => plan.rungs.push(candidate),
            Err(why) => plan.ruled_out.push((rung, why)),
        }
    }
    plan
}

/// The plan for `method` on this host, or why it is impossible.
fn resolve(host: &HostSupport, sensor: SensorId, method: &Method) -> Result<RungPlan, String> {
    let rung = method.rung;
    if let Some(why) = objection(host, rung) {
        return Err(why);
    }
    method
        .needs
        .iter()
        .try_for_each(|fields| require(host, fields))?;
    let mut resolving = Resolving {
        host,
        rung,
        probes: Vec::new(),
        limits: method.costs.iter().map(|it| (*it).to_owned()).collect(),
        taken: Vec::new(),
    };
    let Probes { rows, .. } = probes::of(sensor);
    for row in rows.iter().filter(|row| row.rungs.contains(&rung)) {
        resolving.row(row)?;
    }
    resolving.optional_members(sensor);
    let Resolving {
        mut probes, limits, ..
    } = resolving;
    // Probes that close a query before those that open one, so that no query stays open.
    probes.sort_by_key(Probe::opens);
    Ok(RungPlan {
        rung,
        probes,
        limits,
        uncalibrated: method.uncalibrated,
    })
}

/// Why the attach method is impossible.
fn objection(host: &HostSupport, rung: Rung) -> Option<String> {
    match rung {
        Rung::Fexit => host
            .own_btf
            .objection()
            .map(|why| format!("trampolines need the kernel's own type information: {why}")),
        Rung::Kprobe => host
            .kprobes
            .objection()
            .map(|why| format!("this kernel has no kprobes: {why}")),
        Rung::Tracepoint => None,
    }
}

/// Requires readable members; returns a sentence about the first one that is not.
fn require(host: &HostSupport, fields: &[&str]) -> Result<(), String> {
    match absent(host, fields).next() {
        Some((path, why)) => Err(unreadable(path, why.unwrap_or("unknown"))),
        None => Ok(()),
    }
}

/// The members that are missing or unreadable on this kernel, with the reason; without those that
/// exist under another name.
fn absent<'a>(
    host: &'a HostSupport,
    fields: &'a [&'a str],
) -> impl Iterator<Item = (&'static str, Option<&'a str>)> {
    let members = KernelLayout::members(host.architecture);
    let offsets = members.into_iter().zip(host.layout.offsets());
    offsets
        .filter(|(member, offset)| *offset == ABSENT && fields.contains(&member.field))
        .map(|(member, _)| {
            let reasons = &mut host.missing_members.iter();
            let why = reasons.find(|(missing, _)| missing == member.path);
            (member.path, why.map(|(_, why)| why.as_str()))
        })
}

fn unreadable(path: &str, why: &str) -> String {
    format!("{path} cannot be read: {why}")
}

/// A plan under construction.
struct Resolving<'a> {
    host: &'a HostSupport,
    rung: Rung,
    probes: Vec<Probe>,
    limits: Vec<String>,
    /// Places that were taken.
    taken: Vec<&'static str>,
}

/// Result of looking up a place.
enum Had {
    Probes(Vec<Probe>),
    /// Nothing, and what is missing.
    Nothing(String),
    /// Not the right place on this kernel.
    IsNotIt,
}

impl Resolving<'_> {
    fn row(&mut self, row: &'static Row) -> Result<(), String> {
        let is_of_use = match row.when {
            When::Always => true,
            When::HasCauseParameter => self.host.has_cause_parameter,
            When::HasIpv6 => !self.host.is_v4_only(),
            When::Without(place) => !self.taken.contains(&place),
            When::With(places) => places.iter().all(|it| self.taken.contains(it)),
        };
        if !is_of_use {
            return Ok(());
        }
        let (mut taken, mut wanting) = (0_usize, Vec::new());
        for place in row.places {
            match self.look_at(place) {
                Had::Probes(probes) => {
                    taken += 1;
                    self.probes.extend(probes);
                    self.taken.push(place.on);
                    self.limits
                        .extend(place.costs.iter().map(|it| (*it).to_owned()));
                    if row.take == Take::First {
                        return Ok(());
                    }
                }
                // One name can occur at several places of a row.
                Had::Nothing(why) if wanting.contains(&why) => {}
                Had::Nothing(why) => wanting.push(why),
                Had::IsNotIt => {}
            }
        }
        let none = taken == 0;
        match row.missing {
            Missing::CostsAsSaid(sentences) if none => {
                self.limits
                    .extend(sentences.iter().map(|it| (*it).to_owned()));
            }
            Missing::RulesOut if none => return Err(one_sentence(&wanting)),
            Missing::RulesOutSaying(why) if none => return Err(why.to_owned()),
            Missing::Costs(sentence) if !wanting.is_empty() => {
                self.limits
                    .push(format!("{sentence}: {}", one_sentence(&wanting)));
            }
            Missing::IsFine
            | Missing::Costs(_)
            | Missing::CostsAsSaid(_)
            | Missing::RulesOut
            | Missing::RulesOutSaying(_) => {}
        }
        Ok(())
    }

    fn look_at(&self, place: &'static Place) -> Had {
        if place.unless.is_some_and(|other| self.has_function(other)) {
            return Had::IsNotIt;
        }
        if let Err(why) = require(self.host, place.needs) {
            return Had::Nothing(why);
        }
        if place.any_copy {
            return self.look_at_copy(place);
        }
        let of_use = place.programs.iter().filter(|it| self.can_hang(it.hook));
        let probes: Vec<Probe> = of_use
            .filter_map(|it| Some(probe(it, self.find(it.hook, place.on)?)))
            .collect();
        match probes.is_empty() {
            true => Had::Nothing(self.why_not(place)),
            false => Had::Probes(probes),
        }
    }

    /// A copy made by the compiler: its symbol shows that it exists, and only a kprobe reaches it.
    fn look_at_copy(&self, place: &'static Place) -> Had {
        if let Fact::No(why) = &self.host.kprobes {
            let copy = format!("only a kprobe could trace a copy of {}", place.on);
            return Had::Nothing(format!("{copy}: {why}"));
        }
        match self.host.symbols.find(place.on) {
            Ok(Some(symbol)) => {
                Had::Probes(place.programs.iter().map(|it| probe(it, symbol)).collect())
            }
            Ok(None) | Err(_) => Had::IsNotIt,
        }
    }

    /// True if this attach method uses that hook, and the kernel supports it.
    fn can_hang(&self, hook: Hook) -> bool {
        match hook {
            Hook::Fentry | Hook::Fexit => self.rung == Rung::Fexit,
            Hook::Kprobe | Hook::Kretprobe => self.rung == Rung::Kprobe,
            Hook::TypedTracepoint => self.host.own_btf.objection().is_none(),
            Hook::RawTracepoint => true,
        }
    }

    /// This kernel's name of a function or tracepoint, if it has it.
    fn find<'b>(&'b self, hook: Hook, name: &'b str) -> Option<&'b str> {
        match hook.is_on_function() {
            true => self.find_function(name),
            false => {
                let mut tracepoints = self.host.raw_tracepoints.iter();
                tracepoints.any(|it| it == name).then_some(name)
            }
        }
    }

    fn has_function(&self, name: &str) -> bool {
        self.find_function(name).is_some()
    }

    /// This kernel's name of a function, but not of a compiler's copy, which may lack arguments.
    fn find_function<'b>(&'b self, name: &'b str) -> Option<&'b str> {
        let symbol = self.host.symbols.find_itself(name);
        match self.rung {
            Rung::Kprobe => symbol.ok().flatten(),
            // The kernel attaches trampolines by the name in the type information, which is always
            // the plain one.
            Rung::Fexit | Rung::Tracepoint => {
                (self.has_type(name) && !self.is_inlined(name)).then_some(name)
            }
        }
    }

    /// True if the kernel's type information has the function.
    fn has_type(&self, name: &str) -> bool {
        self.host.btf_functions.iter().any(|it| it == name)
    }

    /// True if the function certainly has no symbol of this name: the compiler inlined or renamed it.
    fn is_inlined(&self, name: &str) -> bool {
        let symbol = self.host.symbols.find(name);
        symbol.is_ok_and(|symbol| symbol != Some(name))
    }

    /// What is missing at a place without usable probes.
    fn why_not(&self, place: &Place) -> String {
        let on_function = place.programs.iter().any(|it| it.hook.is_on_function());
        let who = match (on_function, self.rung) {
            (false, _) => "this kernel has no tracepoint",
            (true, Rung::Kprobe) => match self.host.symbols.find(place.on) {
                Err(why) => return why.to_owned(),
                Ok(_) => "the kernel has no function",
            },
            (true, Rung::Fexit | Rung::Tracepoint) => {
                if let Ok(Some(symbol)) = self.host.symbols.find_itself(place.on)
                    && symbol != place.on
                {
                    return format!("the compiler renamed the kernel's function {symbol}");
                }
                if self.has_type(place.on) {
                    return format!("the kernel has no function {}", place.on);
                }
                "the kernel's type information has no function"
            }
        };
        format!("{who} {}", place.on)
    }

    /// Adds what is lost without optional members of a record.
    fn optional_members(&mut self, sensor: SensorId) {
        let host = self.host;
        if sensor == SensorId::Fallback {
            if host.own_btf.objection().is_some() {
                self.limits.push(NONE_LISTED.to_owned());
            } else if !host.visits_all_tasks {
                self.limits.push(OTHERS_UNLISTED.to_owned());
            }
        }
        for members in probes::of(sensor).optional {
            if members.rungs.contains(&self.rung)
                && let Some((path, why)) =
                    absent(host, members.fields).find_map(|(path, why)| Some((path, why?)))
            {
                let why = unreadable(path, why);
                self.limits.push(format!("{}: {why}", members.costs));
            }
        }
    }
}

/// Merges what is missing at several places: the same words once, then the names.
fn one_sentence(wanting: &[String]) -> String {
    let mut sentence = String::new();
    let mut before = "";
    for why in wanting {
        let (words, name) = why.rsplit_once(' ').unwrap_or(("", why));
        if sentence.is_empty() {
            sentence.push_str(why);
        } else if words == before {
            sentence.push_str(" or ");
            sentence.push_str(name);
        } else if !sentence.contains(why.as_str()) {
            sentence.push_str("; ");
            sentence.push_str(why);
        }
        before = words;
    }
    sentence
}

fn probe(attachment: &'static Attachment, on: &str) -> Probe {
    Probe {
        attachment,
        target: Target {
            hook: attachment.hook,
            name: on.to_owned(),
        },
    }
}
