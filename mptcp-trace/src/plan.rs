//! Decides from the facts which probes each sensor gets, and what is lost if it gets fewer.
//!
//! Pure: no file, no system call, no aya. The plan is a value; `doctor` prints it,
//! [`crate::kernel`] carries it out. Only an attempt shows whether the kernel accepts a probe, so
//! the plan is a ladder: the possible attach methods, best first, and for the others the reason.

use std::fmt;

use crate::{
    host::{Fact, HostSupport},
    model::{PerSensor, Rung, SensorId},
    probes::{Attachment, Hook, Role},
};

mod resolve;
mod selection;

pub use selection::Selection;

/// What is not observed inside a PID namespace (`bpf_iter` of task files only visits tasks of its
/// own one).
pub(crate) const OTHERS_UNLISTED: &str = "open sockets of processes outside of this PID namespace \
                                          are not listed, and their fallbacks may be missed where \
                                          no probe sees them: run it in the host's PID namespace \
                                          (--pid host)";

/// What is not observed without the kernel's own type information, which `bpf_iter` needs.
pub(crate) const NONE_LISTED: &str = "sockets that are open when tracing begins cannot be listed, and their \
                                      fallbacks may be missed where no probe sees them: that needs the \
                                      kernel's own type information (CONFIG_DEBUG_INFO_BTF)";

/// What else users must know where MPTCP is switched off.
const OFF_BY_DEFAULT: &str = "some kernels, such as RHEL's, start every network namespace with \
                              net.mptcp.enabled=0: containers need it too (podman run --sysctl \
                              net.mptcp.enabled=1); and programs must request MPTCP: mptcpize run \
                              PROGRAM, mptcpize enable UNIT for a service of systemd, or \
                              SocketProtocol=mptcp in its socket unit (systemd 257 and later)";

/// Where a probe is attached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Kind of the attachment.
    pub hook: Hook,
    /// The function or tracepoint, with this kernel's name.
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

/// One program of the BPF object and its target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// The program, and those that take turns with it.
    pub attachment: &'static Attachment,
    /// Where it is attached.
    pub target: Target,
}

impl Probe {
    /// Name of the program in the object.
    #[must_use]
    pub fn program(&self) -> &'static str {
        self.attachment.program
    }

    /// True for a probe that opens a query: it is attached after all that close one.
    #[must_use]
    pub fn opens(&self) -> bool {
        self.attachment.opens
    }

    /// True if the attach method is useful without it: what it observes is not essential.
    #[must_use]
    pub fn is_optional(&self) -> bool {
        self.attachment.is_optional
    }
}

/// What a sensor does with one possible attach method.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RungPlan {
    /// The attach method.
    pub rung: Rung,
    /// Its probes in the order of attachment: those that close a query before those that open one,
    /// so that no query stays open.
    pub probes: Vec<Probe>,
    /// What it cannot observe, one sentence each.
    pub limits: Vec<String>,
    /// What it cannot observe in addition if the self-test does not find the number of the fallback
    /// bit.
    pub uncalibrated: Option<&'static str>,
}

impl RungPlan {
    fn has(&self, role: Role) -> bool {
        self.probes
            .iter()
            .any(|probe| probe.attachment.role == role)
    }

    /// True if the outermost function that answers queries is probed, not only an inner one.
    #[must_use]
    pub fn outermost_probed(&self) -> bool {
        !self.has(Role::AnswersInside)
    }

    /// True if the function that decides fallbacks is probed, so that no fallback has to be
    /// predicted.
    #[must_use]
    pub fn decision_probed(&self) -> bool {
        self.has(Role::Decision)
    }

    /// True if births and ends of connections are observed at the responsible functions.
    #[must_use]
    pub fn children_probed(&self) -> bool {
        self.has(Role::Children)
    }

    /// True if it is observed whether a connection is asked about a join.
    #[must_use]
    pub fn joins_asked(&self) -> bool {
        self.has(Role::JoinAnswer)
    }
}

/// The attach methods of one sensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SensorPlan {
    /// The sensor.
    pub sensor: SensorId,
    /// The methods to try, best first; perhaps none for an optional sensor.
    pub rungs: Vec<RungPlan>,
    /// The impossible methods, with the reason.
    pub ruled_out: Vec<(Rung, String)>,
}

impl SensorPlan {
    /// The methods to try along with another sensor on `rung`: the same one first, then the worse
    /// ones.
    pub fn beside(&self, rung: Rung) -> impl Iterator<Item = &RungPlan> {
        self.rungs.iter().filter(move |plan| plan.rung >= rung)
    }
}

/// What will be done on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    sensors: PerSensor<SensorPlan>,
    /// Notes on this host for the reader, one sentence each.
    pub notes: Vec<String>,
}

impl Plan {
    /// The plan of a sensor.
    #[must_use]
    pub fn of(&self, sensor: SensorId) -> &SensorPlan {
        self.sensors.of(sensor)
    }

    /// Mutable access to the plan of a sensor.
    pub fn of_mut(&mut self, sensor: SensorId) -> &mut SensorPlan {
        self.sensors.of_mut(sensor)
    }

    /// All sensors.
    pub fn sensors(&self) -> impl Iterator<Item = &SensorPlan> {
        SensorId::ALL
            .map(|sensor| self.sensors.of(sensor))
            .into_iter()
    }
}

/// Why nothing can be traced on this host, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal(pub String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// The message for a process that may not trace.
#[must_use]
pub fn unprivileged(why: &str) -> String {
    // No privilege helps in this case.
    if why.contains("lockdown=") {
        return why.to_owned();
    }
    format!("not enough privileges to load BPF programs: {why}")
}

/// Decides from the facts; `only` restricts the plan to one attach method.
///
/// # Errors
///
/// Why nothing can be traced on this host.
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
    let sensors = PerSensor::from_fn(|sensor| resolve::sensor(host, sensor, only));
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

/// The message for a plan without attach methods.
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
        notes.push(format!(
            "MPTCP is switched off here: {why}; type, as root: sysctl net.mptcp.enabled=1 (to keep \
             it: put net.mptcp.enabled=1 into /etc/sysctl.d/90-mptcp.conf)"
        ));
        notes.push(OFF_BY_DEFAULT.to_owned());
    }
    if host.is_v4_only() {
        notes.push(
            "this kernel has MPTCP for IPv4 only (CONFIG_MPTCP_IPV6): it creates no MPTCP sockets \
             for IPv6, and no paths"
                .to_owned(),
        );
    }
    if let Fact::No(why) = &host.option {
        notes.push(format!("{why}: every answer will be `unsupported`"));
    }
    notes
}

#[cfg(test)]
mod tests;
