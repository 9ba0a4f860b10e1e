//! What we decide from the facts: which probes each sensor gets, and what is lost where it gets less.
//!
//! Pure: no file, no system call, no aya. The plan is a value; `doctor` prints it, [`crate::kernel`]
//! carries it out. Whether the kernel really takes a probe is only known by trying, so the plan is a
//! ladder: the rungs that nothing rules out, best first, and for the others the reason.

use std::fmt;

use crate::{
    host::{Fact, HostSupport, privileges::how_to_give},
    model::{Rung, SensorId},
    probes::{Attachment, Hook, function},
};

mod resolve;

/// What is not seen from inside of a PID namespace (`bpf_iter` of task files goes through the tasks of its own).
pub(crate) const OTHERS_UNLISTED: &str = "open sockets of processes outside of this PID namespace \
                                          are not listed, and their fallbacks may be missed where \
                                          no probe sees them: run it in the host's PID namespace \
                                          (--pid host)";

/// Where a probe is attached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// How.
    pub hook: Hook,
    /// The function or tracepoint, as this kernel has it.
    pub name: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hook = match self.hook {
            Hook::Fentry => "fentry",
            Hook::Fexit => "fexit",
            Hook::Kprobe => "kprobe",
            Hook::Kretprobe => "kretprobe",
            Hook::RawTracepoint => "raw tracepoint",
            Hook::TypedTracepoint => "typed tracepoint",
        };
        write!(f, "{hook} {}", self.name)
    }
}

/// One program of the BPF object and its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// The program, and those that take turns with it.
    pub attachment: &'static Attachment,
    /// Where it goes.
    pub target: Target,
}

impl Probe {
    /// Name of the program in the object.
    #[must_use]
    pub fn program(&self) -> &'static str {
        self.attachment.program
    }

    /// True for a probe that opens a question, which comes behind all that close one.
    #[must_use]
    pub fn opens(&self) -> bool {
        self.attachment.opens
    }

    /// True if the attach method is worth having without it: what it sees is beside the question.
    #[must_use]
    pub fn is_optional(&self) -> bool {
        self.attachment.is_optional
    }
}

/// What a sensor does by one attach method that nothing rules out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RungPlan {
    /// Which one.
    pub rung: Rung,
    /// Its probes in the order in which they are attached: what closes a question before what opens
    /// one, so that none is opened that nobody closes.
    pub probes: Vec<Probe>,
    /// What cannot be told by it, a sentence each.
    pub limits: Vec<String>,
}

impl RungPlan {
    /// True if a probe hangs on this function.
    fn is_on(&self, function: &str) -> bool {
        let is_it = |target: &Target| target.hook.is_on_function() && target.name == function;
        self.probes.iter().any(|probe| is_it(&probe.target))
    }

    /// True if the outermost function that answers questions is probed, not only an inner one.
    #[must_use]
    pub fn outermost_probed(&self) -> bool {
        !self.is_on(function::MPTCP_GETSOCKOPT_SOL_TCP)
    }

    /// True if the function that decides fallbacks is probed, so that nothing has to be foretold.
    #[must_use]
    pub fn decision_probed(&self) -> bool {
        self.is_on(function::MPTCP_TRY_FALLBACK)
    }

    /// True if births and ends of connections are seen at the functions that do them.
    #[must_use]
    pub fn children_probed(&self) -> bool {
        self.is_on(function::MPTCP_SUBFLOW_DROP_CTX)
    }

    /// True if `other` has a program where this one wants one: that one does both.
    #[must_use]
    pub fn shares_with(&self, other: &Self) -> bool {
        self.probes_beside(other).len() < self.probes.len()
    }

    /// The probes that are needed beside those of `other`, in the order in which they are attached.
    #[must_use]
    pub fn probes_beside(&self, other: &Self) -> Vec<Probe> {
        let is_taken = |probe: &Probe| other.probes.iter().any(|it| it.target == probe.target);
        let mut probes = self.probes.clone();
        probes.retain(|probe| !is_taken(probe));
        probes
    }
}

/// The attach methods of one sensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SensorPlan {
    /// Whose.
    pub sensor: SensorId,
    /// Those to try, best first; of a sensor that one can do without, perhaps none.
    pub rungs: Vec<RungPlan>,
    /// Those that are out, and why.
    pub ruled_out: Vec<(Rung, String)>,
}

impl SensorPlan {
    /// Those to try beside another sensor on `rung`: that one first, then those below.
    pub fn beside(&self, rung: Rung) -> impl Iterator<Item = &RungPlan> {
        self.rungs.iter().filter(move |plan| plan.rung >= rung)
    }
}

/// What is going to be done on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// One entry a sensor, in the order of [`SensorId::ALL`].
    sensors: [SensorPlan; SensorId::ALL.len()],
    /// What the reader should know about this host, a sentence each.
    pub notes: Vec<String>,
}

impl Plan {
    /// What a sensor can do.
    #[must_use]
    pub fn of(&self, sensor: SensorId) -> &SensorPlan {
        let [query, fallback] = &self.sensors;
        match sensor {
            SensorId::Query => query,
            SensorId::Fallback => fallback,
        }
    }

    /// The same, to be changed.
    pub fn of_mut(&mut self, sensor: SensorId) -> &mut SensorPlan {
        let [query, fallback] = &mut self.sensors;
        match sensor {
            SensorId::Query => query,
            SensorId::Fallback => fallback,
        }
    }

    /// All sensors.
    pub fn sensors(&self) -> impl Iterator<Item = &SensorPlan> {
        self.sensors.iter()
    }
}

/// Why this host cannot answer at all, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal(pub String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// What to tell a process that may not trace.
#[must_use]
pub fn unprivileged(why: &str) -> String {
    // No privilege helps there.
    if why.contains("lockdown=") {
        return why.to_owned();
    }
    format!(
        "not enough privileges to load BPF programs: {why}; {}",
        how_to_give()
    )
}

/// Decides from the facts; `only` restricts it to one attach method.
///
/// # Errors
///
/// The reason why nothing can be traced on this host.
pub fn plan(host: &HostSupport, only: Option<Rung>) -> Result<Plan, Refusal> {
    if let Fact::No(why) = &host.mptcp {
        return Err(Refusal(format!(
            "this kernel ({}) is built without MPTCP, so there is nothing to trace: {why}; \
             run a kernel with CONFIG_MPTCP=y",
            host.kernel
        )));
    }
    if let Fact::No(why) = &host.privileges {
        return Err(Refusal(unprivileged(why)));
    }
    if let Fact::No(why) = &host.btf {
        return Err(Refusal(why.clone()));
    }
    let sensors = SensorId::ALL.map(|sensor| resolve::sensor(host, sensor, only));
    let plan = Plan {
        sensors,
        notes: notes(host),
    };
    let query = plan.of(SensorId::Query);
    if query.rungs.is_empty() {
        return Err(no_rung(only, &query.ruled_out));
    }
    Ok(plan)
}

/// The sentence for a ladder without rungs.
#[must_use]
pub fn no_rung(only: Option<Rung>, reasons: &[(Rung, String)]) -> Refusal {
    let relevant: Vec<String> = reasons
        .iter()
        .filter(|(rung, _)| only.is_none_or(|only| only == *rung))
        .map(|(rung, why)| format!("{rung}: {why}"))
        .collect();
    let advice = match only {
        Some(_) => "try --attach auto",
        None => "run mptcp-trace doctor for details",
    };
    Refusal(format!(
        "queries cannot be traced on this kernel: {}; {advice}",
        relevant.join("; ")
    ))
}

fn notes(host: &HostSupport) -> Vec<String> {
    let mut notes = Vec::new();
    if let Fact::No(why) = &host.mptcp_enabled {
        notes.push(format!("MPTCP is switched off here: {why}"));
    }
    if let Fact::No(why) = &host.option {
        notes.push(format!("{why}: every answer will be `unsupported`"));
    }
    notes
}

#[cfg(test)]
mod tests;
