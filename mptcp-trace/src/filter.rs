//! Which findings are shown, and which ones fail the run. Pure: between correlate and sink, the
//! same for a live run and for a replay.
//!
//! Values of one option are alternatives, and those after `!` are left out; all options must match.

mod choice;

use std::net::SocketAddr;

pub use self::choice::{
    ALL_KINDS, Choice, PATH_KINDS, Ports, addr, choice, closest, kind, pid, reset_reason, unknown,
};
use self::choice::{admits, named};
use crate::model::{Finding, Prefix, Shown, Subject, Verdict, all_causes, find_cause, path_causes};

/// A control group as given by the user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cgroup {
    /// By its inode number.
    Id(u64),
    /// By its path, including those below it.
    Path(String),
}

impl Cgroup {
    /// Parses a number, or a path from the root of the hierarchy.
    ///
    /// # Errors
    ///
    /// Explains the syntax.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        let path = text.strip_prefix("/sys/fs/cgroup").unwrap_or(text);
        match path.strip_prefix('/') {
            Some(rest) => Ok(Self::Path(format!("/{}", rest.trim_matches('/')))),
            None if path.is_empty() && !text.is_empty() => Ok(Self::Path("/".into())),
            None => Err(
                "write a path as in /proc/PID/cgroup, like /system.slice/nginx.service, or an inode number"
                    .into(),
            ),
        }
    }

    fn is_or_holds(&self, id: Option<u64>, path: Option<&str>) -> bool {
        match self {
            Self::Id(wanted) => id == Some(*wanted),
            Self::Path(wanted) => path.is_some_and(|path| {
                let below = path.strip_prefix(wanted.trim_end_matches('/'));
                below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }),
        }
    }
}

/// The catalogue's name of a cause.
///
/// # Errors
///
/// Names the closest cause, or lists all.
pub fn cause(name: &str) -> Result<&'static str, String> {
    find_cause(name)
        .map(|cause| cause.name)
        .ok_or_else(|| match Shown::find(name) {
            Some(shown) => format!("that is what a packet shows: --packet {}", shown.name()),
            None => unknown(name, &cause_names(), EXPLAINED),
        })
}

/// What a packet shows, by its name.
///
/// # Errors
///
/// Names the closest conclusion, or lists all.
pub fn packet(name: &str) -> Result<Shown, String> {
    Shown::find(name).ok_or_else(|| unknown(name, &Shown::ALL.map(Shown::name), EXPLAINED))
}

/// Where to read about causes.
const EXPLAINED: &str = " (mptcp-trace explain describes all)";

/// A verdict by its name.
///
/// # Errors
///
/// Names the closest verdict, or lists all.
pub fn verdict(name: &str) -> Result<Verdict, String> {
    Verdict::find(name).ok_or_else(|| unknown(name, &Verdict::ALL.map(Verdict::name), ""))
}

fn cause_names() -> Vec<&'static str> {
    all_causes().map(|cause| cause.name).collect()
}

/// Conditions on findings; an empty filter admits all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FindingFilter {
    /// Kinds of findings, with the names of [`Finding::KINDS`], or of a group of them.
    pub kinds: Vec<Choice<&'static str>>,
    /// Causes, with the catalogue's names.
    pub causes: Vec<Choice<&'static str>>,
    /// Verdicts.
    pub verdicts: Vec<Choice<Verdict>>,
    /// What the packet shows that decided.
    pub packets: Vec<Choice<Shown>>,
    /// Reasons in an RST, by their code.
    pub reset_reasons: Vec<Choice<u8>>,
    /// Addresses, local or remote.
    pub addrs: Vec<Choice<Prefix>>,
    /// Ports, local or remote.
    pub ports: Vec<Choice<Ports>>,
    /// Processes that made the query or hold the connection.
    pub pids: Vec<u32>,
    /// Names of threads that made the query, or of processes that hold the connection.
    pub comms: Vec<String>,
    /// Inode numbers of network namespaces.
    pub netns: Vec<u32>,
    /// Control groups of the process that made the query or holds the connection.
    pub cgroups: Vec<Cgroup>,
}

impl FindingFilter {
    /// True if it is asked for by name: its kind or a group that it belongs to, its cause, what its
    /// packet shows, or the reason in its RST.
    #[must_use]
    pub fn names(&self, finding: &Finding) -> bool {
        let subject = Subject::of(finding);
        named(&self.kinds, |kind| choice::is_of(finding, kind))
            || named(&self.causes, |cause| subject.cause == Some(*cause))
            || named(&self.packets, |it| shows(finding, *it))
            || named(&self.reset_reasons, |code| subject.reset == Some(*code))
    }

    /// The same, without the conditions on what a finding says: whose connections are shown.
    #[must_use]
    pub fn of_connections(&self) -> Self {
        Self {
            kinds: Vec::new(),
            causes: Vec::new(),
            verdicts: Vec::new(),
            packets: Vec::new(),
            reset_reasons: Vec::new(),
            ..self.clone()
        }
    }

    /// True if the finding is shown. `path_of` returns control group paths that the finding does
    /// not contain.
    pub fn matches<'a>(
        &self,
        finding: &'a Finding,
        path_of: &dyn Fn(u64) -> Option<&'a str>,
    ) -> bool {
        admits(&self.kinds, |kind| choice::is_of(finding, kind))
            && self.matches_beside_kind(finding, path_of)
    }

    /// The same, whatever its kind.
    pub fn matches_beside_kind<'a>(
        &self,
        finding: &'a Finding,
        path_of: &dyn Fn(u64) -> Option<&'a str>,
    ) -> bool {
        let Self {
            kinds: _,
            causes,
            verdicts,
            packets,
            reset_reasons,
            addrs,
            ports,
            pids,
            comms,
            netns,
            cgroups,
        } = self;
        let subject = Subject::of(finding);
        let ends = subject.socket.map(|it| [it.local, it.remote]);
        let an_end =
            |holds: &dyn Fn(&SocketAddr) -> bool| ends.is_some_and(|ends| ends.iter().any(holds));
        admits(causes, |cause| subject.cause == Some(*cause))
            && admits(verdicts, |verdict| subject.verdict == Some(*verdict))
            && admits(packets, |it| shows(finding, *it))
            && admits(reset_reasons, |code| subject.reset == Some(*code))
            && admits(addrs, |prefix| an_end(&|end| prefix.contains(*end)))
            && admits(ports, |ports| an_end(&|end| ports.contains(end.port())))
            && any(pids, |pid| {
                subject.process.is_some_and(|it| it.pid == Some(*pid))
            })
            && any(comms, |comm| {
                subject.process.is_some_and(|it| it.comm == *comm)
            })
            && any(netns, |netns| subject.netns == *netns)
            && any(cgroups, |cgroup| {
                let id = subject.process.map(|it| it.cgroup_id);
                let path = subject.cgroup.or_else(|| id.and_then(path_of));
                cgroup.is_or_holds(id, path)
            })
    }
}

/// True if the packet shows this that decided.
fn shows(finding: &Finding, what: Shown) -> bool {
    finding.packet().is_some_and(|packet| packet.shows(what))
}

/// True if the condition is empty, or one of its values matches.
fn any<T>(wanted: &[T], holds: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(holds)
}

/// What fails a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailOn {
    /// Any fallback.
    Fallback,
    /// A query or closing verdict with this verdict.
    Verdict(Verdict),
    /// A finding with this cause.
    Cause(&'static str),
}

impl FailOn {
    /// Parses `fallback`, a verdict, or a cause.
    ///
    /// # Errors
    ///
    /// Names the closest valid value, or lists all.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("fallback") {
            return Ok(Self::Fallback);
        }
        if let Some(verdict) = Verdict::find(text) {
            return Ok(Self::Verdict(verdict));
        }
        find_cause(text)
            .map(|cause| Self::Cause(cause.name))
            .ok_or_else(|| {
                let verdicts = Verdict::ALL.map(Verdict::name);
                let all = [&["fallback"], &verdicts[..], &cause_names()].concat();
                unknown(text, &all, EXPLAINED)
            })
    }

    /// True if it requires the fallback sensor.
    #[must_use]
    pub fn rests_on_fallbacks(self) -> bool {
        match self {
            Self::Fallback => true,
            Self::Cause(_) => !self.rests_on_paths(),
            Self::Verdict(verdict) => verdict.rests_on_fallbacks(),
        }
    }

    /// True if it requires the sensor of paths.
    #[must_use]
    pub fn rests_on_paths(self) -> bool {
        match self {
            Self::Fallback | Self::Verdict(_) => false,
            Self::Cause(cause) => path_causes().any(|it| it.name == cause),
        }
    }

    /// True if an untraced query may have been, or have led to, such a finding.
    #[must_use]
    pub fn rests_on_queries(self) -> bool {
        match self {
            Self::Fallback | Self::Cause(_) => false,
            Self::Verdict(_) => true,
        }
    }

    /// True if the finding matches.
    #[must_use]
    pub fn matches(self, finding: &Finding) -> bool {
        let subject = Subject::of(finding);
        match self {
            Self::Fallback => subject.falls_at.is_some(),
            Self::Verdict(verdict) => subject.verdict == Some(verdict),
            // The fallback itself has a finding.
            Self::Cause(cause) => {
                subject.cause == Some(cause) && !matches!(finding, Finding::Closed(_))
            }
        }
    }
}

#[cfg(test)]
mod tests;
