//! The `doctor` report, as data and as text.

use std::collections::BTreeMap;

use mptcp_trace_common::layout::{ABSENT, KernelLayout, KernelNumbers, NO_NUMBER};
use serde::Serialize;
use zerocopy::IntoBytes as _;

use super::Examined;
use crate::{
    cli::permission,
    host::{
        Fact, HostSupport,
        privileges::{self, Capability, Held},
    },
    kernel::CountersAt,
    model::{Rung, SensorId, fallback_causes, name_of_enumerator},
    pipeline::{CanaryReport, Session},
    plan::{Plan, Probe, unprivileged},
    sink::wrapped,
};

/// Serialised by `doctor --json`.
#[derive(Serialize)]
pub(in crate::cli) struct Report {
    pub(in crate::cli) works: bool,
    kernel: String,
    facts: Vec<FactLine>,
    capabilities: Vec<CapabilityLine>,
    sensors: Vec<SensorLine>,
    notes: Vec<String>,
    refusal: Option<String>,
    shape: Option<Shape>,
}

/// Kernel properties that determine the plan; equal for kernels that are traced alike.
#[derive(Serialize)]
struct Shape {
    /// Programs and their targets, best attach method first.
    probes: Vec<ShapeProbe>,
    /// Offsets of the structure members that are read: bytes, for bit fields bits.
    members: BTreeMap<&'static str, u16>,
    /// Values of the enumerators that records are compared with.
    numbers: BTreeMap<&'static str, u8>,
    /// Numbers of the MPTCP counters of fallbacks; of all counters where the kernel passes them to
    /// the function that decides a fallback.
    counters: BTreeMap<String, i32>,
    /// Number of the bit that marks a fallback; none if not calibrated.
    fallback_bit: Option<u8>,
    /// The kernel supports `TCP_IS_MPTCP`.
    answers: bool,
    /// Where a thread can be preempted inside a program; probes take turns there.
    preemptible: ShapePreemptible,
    /// The kernel's counters of a network namespace can be read before the namespace ends.
    reads_counters: bool,
}

/// `Preemptible`, serialised.
#[derive(Serialize)]
struct ShapePreemptible {
    functions: bool,
    tracepoints: bool,
}

/// A program of an attach method and its target.
#[derive(Serialize)]
struct ShapeProbe {
    sensor: &'static str,
    rung: &'static str,
    program: &'static str,
    target: String,
}

impl Shape {
    fn new(host: &HostSupport, plan: &Plan, fallback_bit: Option<u8>) -> Self {
        let shape = |sensor: SensorId, rung: Rung, probe: &Probe| ShapeProbe {
            sensor: sensor.name(),
            rung: rung.name(),
            program: probe.program(),
            target: probe.target.to_string(),
        };
        let mut probes = Vec::new();
        for planned in plan.sensors() {
            for rung in &planned.rungs {
                let shape = |probe| shape(planned.sensor, rung.rung, probe);
                probes.extend(rung.probes.iter().map(shape));
            }
        }
        let members = KernelLayout::members(host.architecture);
        let members = members.iter().zip(host.layout.offsets());
        let numbers = KernelNumbers::NAMES
            .into_iter()
            .zip(host.numbers.as_bytes().iter().copied());
        let counters = host.counters.iter().filter(|(_, enumerator)| {
            let name = name_of_enumerator(enumerator);
            host.has_cause_parameter
                || name.is_some_and(|name| fallback_causes().any(|it| it == name))
        });
        Self {
            probes,
            members: members
                .filter(|(_, offset)| *offset != ABSENT)
                .map(|(member, offset)| (member.path, offset))
                .collect(),
            numbers: numbers.filter(|(_, number)| *number != NO_NUMBER).collect(),
            counters: counters
                .map(|(number, name)| (name.clone(), *number))
                .collect(),
            fallback_bit,
            answers: host.option == Fact::Yes,
            preemptible: ShapePreemptible {
                functions: host.preemptible.functions,
                tracepoints: host.preemptible.tracepoints,
            },
            reads_counters: CountersAt::of(host) != CountersAt::UNKNOWN,
        }
    }
}

#[derive(Serialize)]
struct FactLine {
    fact: &'static str,
    value: &'static str,
    /// What the fact means, printed if it holds.
    #[serde(skip)]
    means: &'static str,
    why: Option<String>,
}

/// A capability that tracing can use.
#[derive(Serialize)]
struct CapabilityLine {
    name: &'static str,
    held: bool,
    mandatory: bool,
    purpose: &'static str,
    cost: &'static str,
}

#[derive(Serialize)]
struct SensorLine {
    #[serde(skip)]
    sensor: SensorId,
    name: &'static str,
    rung: Option<&'static str>,
    rungs: Vec<RungLine>,
    limits: Vec<String>,
    canary: Option<CanaryLine>,
    fallback_bit: Option<u8>,
}

#[derive(Serialize)]
struct RungLine {
    rung: &'static str,
    /// `in use`, `possible` (a better one is in use), or `no`.
    state: &'static str,
    why: Option<String>,
    probes: Vec<String>,
}

#[derive(Serialize)]
struct CanaryLine {
    asked: usize,
    seen: usize,
    complaints: Vec<String>,
    skipped: Vec<String>,
}

impl Report {
    pub(super) fn new(host: &HostSupport, examined: &Examined) -> Self {
        let (plan, session, refused, refusal) = match examined {
            Examined::Refused {
                plan,
                refusal,
                passed_over,
            } => (
                plan.as_ref(),
                None,
                &passed_over[..],
                Some(match &host.privileges {
                    Fact::No(why) if refusal.0 == unprivileged(why) => {
                        permission::lines(why.clone()).join("; ")
                    }
                    Fact::No(_) | Fact::Yes | Fact::Unknown(_) => refusal.to_string(),
                }),
            ),
            Examined::Works { plan, session } => {
                (Some(plan), Some(session.as_ref()), &[][..], None)
            }
        };
        Self {
            works: session.is_some(),
            kernel: host.kernel.clone(),
            facts: facts(host),
            capabilities: capabilities(),
            sensors: plan
                .map(|plan| {
                    SensorId::ALL
                        .map(|it| sensor(it, plan, session, refused))
                        .into()
                })
                .unwrap_or_default(),
            notes: plan.map(|plan| plan.notes.clone()).unwrap_or_default(),
            refusal,
            shape: plan.map(|plan| {
                let bit = session.and_then(|session| session.facts.fallback_bit);
                Shape::new(host, plan, bit)
            }),
        }
    }

    /// Text of at most this many columns.
    pub(in crate::cli) fn text(&self, width: Option<usize>) -> String {
        let mut lines = Lines::new(width);
        lines.add("kernel", &self.kernel);
        for FactLine {
            fact,
            value,
            means,
            why,
        } in &self.facts
        {
            let why = why.as_deref().unwrap_or(means);
            lines.add(fact, &format!("{value}: {why}"));
        }
        for it in &self.capabilities {
            let name = it.name;
            // The maps were created without it.
            if self.works && !it.held && name == privileges::CREATES_LARGE_MAPS {
                continue;
            }
            let detail = match (it.held, it.mandatory) {
                (true, _) => format!("held: {}", it.purpose),
                (false, true) => format!("MISSING: {}", it.purpose),
                (false, false) => format!("not held: {}", it.cost),
            };
            lines.add_below("capability", &format!("{name:<16}"), &detail);
        }
        for note in &self.notes {
            lines.add("note", note);
        }
        for sensor in &self.sensors {
            lines.add("", "");
            sensor.text(&mut lines);
        }
        lines.add("", "");
        match &self.refusal {
            None => lines.add("verdict", "works"),
            Some(_) if !self.sensors.is_empty() => lines.add(
                "verdict",
                "DOES NOT WORK: no attach method of a mandatory sensor is usable, see above",
            ),
            Some(why) => lines.add("verdict", &format!("DOES NOT WORK: {why}")),
        }
        lines.text
    }
}

/// Lines of a label and a value, which is wrapped beside its label.
struct Lines {
    text: String,
    width: usize,
}

impl Lines {
    /// Width of a label.
    const LABEL: usize = 15;
    /// Values are not wrapped more narrowly than this.
    const VALUE_MIN: usize = 20;

    fn new(width: Option<usize>) -> Self {
        Self {
            text: String::new(),
            width: width.unwrap_or(usize::MAX),
        }
    }

    fn add(&mut self, label: &str, value: &str) {
        self.add_below(label, "", value);
    }

    /// A value whose lines are indented by the width of a name at its beginning.
    fn add_below(&mut self, label: &str, name: &str, value: &str) {
        let mut begin = format!("{label:<width$} ", width = Self::LABEL);
        if !name.is_empty() {
            begin.push_str(name);
            begin.push(' ');
        }
        let indent = " ".repeat(begin.len());
        let width = self.width.saturating_sub(indent.len()).max(Self::VALUE_MIN);
        let mut rest = wrapped(value, width).into_iter();
        let first = begin + &rest.next().unwrap_or_default();
        for line in std::iter::once(first).chain(rest.map(|it| format!("{indent}{it}"))) {
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
    }
}

impl SensorLine {
    fn text(&self, lines: &mut Lines) {
        let rung = self.rung.unwrap_or("NOT RUNNING");
        lines.add(&format!("sensor {}", self.name), rung);
        for it in &self.rungs {
            let detail = match &it.why {
                Some(why) => format!("{}: {why}", it.state),
                None => format!("{} ({})", it.state, it.probes.join(", ")),
            };
            lines.add(&format!("  {}", it.rung), &detail);
        }
        for limit in &self.limits {
            lines.add("  limit", limit);
        }
        if let Some(canary) = &self.canary {
            let right = match canary.complaints.is_empty() {
                true => "all correct",
                false => "WRONG",
            };
            let (asked, seen) = (canary.asked, canary.seen);
            let what = self.sensor.events(asked);
            let text = format!("{asked} {what} made, {seen} seen, {right}");
            lines.add("  self-test", &text);
            for complaint in &canary.complaints {
                lines.add("", complaint);
            }
            for skip in &canary.skipped {
                lines.add("  not tested", skip);
            }
        }
    }
}

fn capabilities() -> Vec<CapabilityLine> {
    let line = |Held { capability, held }| {
        let Capability {
            name,
            bit: _,
            mandatory,
            purpose,
            cost,
        } = capability;
        CapabilityLine {
            name,
            held,
            mandatory,
            purpose,
            cost,
        }
    };
    privileges::held().into_iter().map(line).collect()
}

/// Names of the facts, and what each means if it holds.
const FACTS: [(&str, &str); 10] = [
    ("MPTCP", "the kernel is built with it"),
    (
        "MPTCP enabled",
        "net.mptcp.enabled is 1 in this network namespace",
    ),
    (
        "TCP_IS_MPTCP",
        "applications can query the kernel with this option",
    ),
    ("privileges", "this process may load BPF programs"),
    (
        "BTF",
        "the kernel's type information is available; it says where the kernel keeps what is read",
    ),
    (
        "BTF of kernel",
        "the running kernel provides it itself; the attach method fexit needs that",
    ),
    (
        "BTF complete",
        "it has every structure member that the tracer reads",
    ),
    (
        "kprobes",
        "the kernel has them; the attach method kprobe needs them",
    ),
    (
        "names causes",
        "a function of this kernel gets the cause of a fallback as a parameter",
    ),
    (
        "host's PIDs",
        "process ids are those of the PID namespace of the host",
    ),
];

fn facts(host: &HostSupport) -> Vec<FactLine> {
    let HostSupport {
        kernel: _,
        privileges,
        btf,
        own_btf,
        mptcp,
        mptcp_enabled,
        option,
        kprobes,
        symbols: _,
        btf_functions: _,
        function_numbers: _,
        architecture: _,
        layout: _,
        missing_members,
        raw_tracepoints: _,
        has_cause_parameter,
        counters: _,
        numbers: _,
        pid_namespace,
        visits_all_tasks: _,
        preemptible: _,
        cpus: _,
    } = host;
    let names_causes = match btf {
        Fact::Yes => Fact::from_bool(
            *has_cause_parameter,
            "this kernel has no function __mptcp_try_fallback with a parameter fb_mib",
        ),
        Fact::No(_) | Fact::Unknown(_) => Fact::Unknown("no type information".into()),
    };
    let members = match missing_members.first() {
        None if *btf == Fact::Yes => Fact::Yes,
        None => Fact::Unknown("no type information".into()),
        Some((path, why)) => Fact::No(format!(
            "{} required structure members are missing, among them {path}: {why}",
            missing_members.len()
        )),
    };
    let initial = Fact::from_bool(
        pid_namespace.is_none(),
        "PIDs are those of this PID namespace; processes outside of it cannot be identified: mount the \
         host's /proc and name it with --proc, or share its PID namespace",
    );
    let facts = [
        mptcp,
        mptcp_enabled,
        option,
        privileges,
        btf,
        own_btf,
        &members,
        kprobes,
        &names_causes,
        &initial,
    ];
    FACTS
        .into_iter()
        .zip(facts)
        .map(|((name, means), fact)| {
            let (value, why) = match fact {
                Fact::Yes => ("yes", None),
                Fact::No(why) => ("no", Some(why.clone())),
                Fact::Unknown(why) => ("unknown", Some(why.clone())),
            };
            FactLine {
                fact: name,
                value,
                means,
                why,
            }
        })
        .collect()
}

/// What is known about a sensor; `refused` has the reasons if the query sensor does not work.
fn sensor(
    sensor: SensorId,
    plan: &Plan,
    session: Option<&Session>,
    refused: &[(Rung, String)],
) -> SensorLine {
    let planned: Vec<(Rung, &[Probe])> = plan
        .of(sensor)
        .rungs
        .iter()
        .map(|planned| (planned.rung, &planned.probes[..]))
        .collect();
    let in_use = session
        .and_then(|session| session.facts.sensor(sensor))
        .map(|sensor| sensor.rung);
    let mut reasons = match session {
        Some(session) => session.passed_over.of(sensor).clone(),
        None if sensor.is_optional() => plan.of(sensor).ruled_out.clone(),
        None => refused.to_vec(),
    };
    // No sensor uses a better method than the query sensor: methods that the latter cannot use were
    // not tried.
    if let Some(session) = session {
        let better = Rung::LADDER
            .into_iter()
            .filter(|rung| *rung < session.tracer.rung());
        reasons.extend(better.map(|rung| {
            (
                rung,
                format!("not tried: the sensor {} cannot use it", SensorId::Query),
            )
        }));
    }
    let calibrates = |session: &&Session| !sensor.is_optional() && session.facts.has_sensor(sensor);
    SensorLine {
        sensor,
        name: sensor.name(),
        rung: in_use.map(Rung::name),
        rungs: rungs(&planned, in_use, &reasons),
        limits: limits(session, sensor),
        canary: session.and_then(|session| canary(&session.canary, sensor)),
        fallback_bit: session
            .filter(calibrates)
            .and_then(|session| session.facts.fallback_bit),
    }
}

fn rungs(
    planned: &[(Rung, &[Probe])],
    in_use: Option<Rung>,
    reasons: &[(Rung, String)],
) -> Vec<RungLine> {
    let reason = |rung: Rung| {
        reasons
            .iter()
            .find(|(passed, _)| *passed == rung)
            .map(|(_, why)| why.clone())
    };
    let line = |rung: Rung| {
        let probes = planned
            .iter()
            .find(|(it, _)| *it == rung)
            .map(|(_, probes)| probes.iter().map(|it| it.target.to_string()).collect())
            .unwrap_or_default();
        let (state, why) = match (in_use, reason(rung)) {
            (Some(used), _) if used == rung => ("in use", None),
            (_, Some(why)) => ("no", Some(why)),
            (_, None) => ("possible", None),
        };
        RungLine {
            rung: rung.name(),
            state,
            why,
            probes,
        }
    };
    Rung::LADDER.into_iter().map(line).collect()
}

fn limits(session: Option<&Session>, sensor: SensorId) -> Vec<String> {
    session
        .and_then(|session| session.facts.sensor(sensor))
        .map(|sensor| sensor.limits.clone())
        .unwrap_or_default()
}

/// The result of the self-test, which every sensor in use has passed.
fn canary(report: &CanaryReport, sensor: SensorId) -> Option<CanaryLine> {
    let test = report.sensors.of(sensor).as_ref()?;
    Some(CanaryLine {
        asked: test.made,
        seen: test.seen,
        complaints: test.complaints.clone(),
        skipped: report.skipped.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_wrapped_beside_its_label_and_nothing_is_lost() {
        const VALUE: &str = "a sentence that is longer than the line of a narrow terminal can be";
        for width in [48, 60, 80, 1000] {
            let mut lines = Lines::new(Some(width));
            lines.add("  self-test", VALUE);
            lines.add_below("capability", "CAP_BPF", VALUE);
            let Lines { text, .. } = lines;
            assert!(text.lines().all(|line| line.len() <= width), "{text}");
            let words = |text: &str| -> Vec<String> {
                text.split_whitespace().map(str::to_owned).collect()
            };
            let all = format!("self-test {VALUE} capability CAP_BPF {VALUE}");
            assert_eq!(words(&text), words(&all));
            for line in text.lines() {
                let is_labelled = line.starts_with("  self") || line.starts_with("capa");
                assert!(is_labelled || line.starts_with(&" ".repeat(16)), "{text}");
            }
        }
        let mut whole = Lines::new(None);
        whole.add("kernel", VALUE);
        assert_eq!(whole.text, format!("{:<15} {VALUE}\n", "kernel"));
    }
}
