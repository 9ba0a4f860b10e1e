//! A recipe or scenario that was played: where, and what the kernel answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    net::Family,
    netns::Namespaces,
    recipes::{Cleared, NotHere, Stage},
    sys,
};

/// What recipes and scenarios have in common.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scene {
    /// Name of the recipe or scenario.
    #[serde(rename = "recipe")]
    pub name: String,
    /// Address family.
    pub family: Family,
    /// Network namespaces of the ends.
    pub namespaces: Namespaces,
    /// A time on `CLOCK_BOOTTIME` before the namespaces were created: a line about an older
    /// connection belongs to an earlier namespace with the same number.
    #[serde(default)]
    pub since_ns: u64,
    /// Answers to the applications, by query name.
    pub answers: BTreeMap<String, String>,
    /// Deviations from the script.
    pub wrong: Vec<String>,
    /// Why it cannot be played here.
    pub skipped: Option<String>,
}

impl Scene {
    /// One that has not been played yet.
    pub(crate) fn new(name: &str, family: Family) -> Self {
        Self {
            name: name.to_owned(),
            family,
            namespaces: Namespaces { near: 0, far: 0 },
            since_ns: sys::boottime_ns(),
            answers: BTreeMap::new(),
            wrong: Vec::new(),
            skipped: None,
        }
    }

    /// Name of its cell.
    pub(crate) fn case(&self) -> String {
        case(&self.name, self.family)
    }

    /// Whether it has this network namespace.
    pub(crate) fn has(&self, netns: u64) -> bool {
        netns == self.namespaces.near || netns == self.namespaces.far
    }

    /// Notes how a script ended.
    pub(crate) fn note(&mut self, done: anyhow::Result<()>) {
        if let Err(why) = done {
            match why.downcast_ref::<NotHere>() {
                Some(not_here) => self.skipped = Some(not_here.to_string()),
                None => self.wrong.push(format!("{why:#}")),
            }
        }
    }

    /// Closes the sockets, and compares the answers with the table. The namespaces live as long as
    /// the returned value.
    pub(crate) fn close(
        &mut self,
        stage: Stage,
        right: &[(&str, &str)],
    ) -> anyhow::Result<Cleared> {
        self.answers = stage.answers.iter().cloned().collect();
        for (name, right) in right {
            let told = self.answers.get(*name).map(String::as_str);
            if self.skipped.is_none() && !is_answer(right, told) {
                let what = format!("{name}: the kernel says {told:?}, not {right}");
                self.wrong.push(what);
            }
        }
        let left = stage.clear()?;
        self.namespaces = left.numbers()?;
        Ok(left)
    }
}

/// Name of a cell.
pub(crate) fn case(name: &str, family: Family) -> String {
    format!("{name}-{}", family.suffix())
}

/// Kernels without `TCP_IS_MPTCP` distinguish the two kinds of socket by the errno.
fn is_answer(right: &str, told: Option<&str>) -> bool {
    told == Some(right)
        || matches!(
            (right, told),
            ("1", Some("EOPNOTSUPP")) | ("0", Some("ENOPROTOOPT"))
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernels_errno_answers_too_and_another_one_does_not() {
        for (right, told, is_right) in [
            ("1", Some("1"), true),
            ("0", Some("0"), true),
            ("1", Some("EOPNOTSUPP"), true),
            ("0", Some("ENOPROTOOPT"), true),
            ("1", Some("0"), false),
            ("0", Some("1"), false),
            ("1", Some("ENOPROTOOPT"), false),
            ("0", Some("EOPNOTSUPP"), false),
            ("ENOPROTOOPT", Some("ENOPROTOOPT"), true),
            ("0", None, false),
        ] {
            assert_eq!(is_answer(right, told), is_right, "{right} {told:?}");
        }
    }
}
