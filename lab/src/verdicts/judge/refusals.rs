//! Compares refusals with their lines. The kernel's return value to the application is the truth: a
//! refusal on an MPTCP socket is one line, and anything else is none.

use super::Acted;
use crate::{
    net::Family,
    option::Choice,
    recipes::{Aim, Held, Tried},
    report::Endpoint,
    traced::{Denied, TracedLine},
};

/// Errno values with which a socket reports an unknown option.
const REFUSALS: [&str; 2] = ["EOPNOTSUPP", "ENOPROTOOPT"];

/// One expected line.
struct Expected<'a> {
    tried: &'a Tried,
    option: Option<(Choice, &'a Endpoint, Option<&'a Endpoint>)>,
}

impl<'a> Expected<'a> {
    /// None if no line is expected: the call succeeded, failed for another reason, or TCP refused
    /// it.
    fn new(tried: &'a Tried) -> Option<Self> {
        let option = match &tried.what {
            Aim::Socket => None,
            Aim::Option {
                choice,
                held: Held::Mptcp,
                local,
                remote,
            } if REFUSALS.contains(&tried.told.as_str()) => Some((*choice, local, remote.as_ref())),
            Aim::Option { .. } => return None,
        };
        Some(Self { tried, option })
    }

    fn said(&self) -> String {
        let (comm, told) = (self.tried.who.comm(), &self.tried.told);
        match self.option {
            None => format!("{comm} socket: {told}"),
            Some((choice, ..)) => {
                let Choice { level, optname, .. } = choice;
                format!("{comm} {} {level}/{optname}: {told}", choice.call())
            }
        }
    }

    /// Whether a line matches, in every field that the application knows.
    fn is(&self, rung: &str, acted: &Acted, line: &Denied) -> bool {
        let Tried { who, pid, told, .. } = self.tried;
        let about_caller = line.pid == *pid
            && line.tid == *pid
            && line.comm == who.comm()
            && line.netns == acted.netns_of(*who)
            && line.family == family_word(acted.scene.family)
            && line.errno == *told
            && !line.why.is_empty();
        let about_option = match (self.option, &line.option) {
            (None, None) => line.rung == rung,
            (Some((choice, local, remote)), Some(option)) => {
                line.rung == rung
                    && option.call == choice.call()
                    && option.level == choice.level
                    && option.optname == choice.optname
                    && option.option.as_deref() == choice.name
                    && option.local == *local
                    && remote.map_or(option.remote.port == 0, |remote| option.remote == *remote)
            }
            (None, Some(_)) | (Some(_), None) => false,
        };
        about_caller && about_option
    }
}

/// Expected refusals and reported ones.
pub(super) struct Compared {
    pub(super) told: usize,
    pub(super) traced: usize,
    pub(super) differences: Vec<String>,
}

/// Compares the attempts of a scenario with the lines in its namespaces.
pub(super) fn compare(rung: &str, acted: &Acted, lines: &[TracedLine]) -> Compared {
    let expected: Vec<Expected<'_>> = acted.tried.iter().filter_map(Expected::new).collect();
    let mut left: Vec<&Denied> = lines.iter().filter_map(TracedLine::denied).collect();
    left.retain(|line| acted.has(line.netns, line.boottime_ns));
    let traced = left.len();
    let mut differences = Vec::new();
    for row in &expected {
        match left.iter().position(|line| row.is(rung, acted, line)) {
            Some(index) => {
                left.remove(index);
            }
            None => differences.push(format!("no line: {}", row.said())),
        }
    }
    differences.extend(left.iter().map(|line| format!("surplus line: {line:?}")));
    Compared {
        told: expected.len(),
        traced,
        differences,
    }
}

fn family_word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 | Family::Mapped => "ipv6",
    }
}
