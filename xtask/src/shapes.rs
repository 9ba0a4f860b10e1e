//! The kernels that are tested, and what must work on each: the one list that tells a skip from a
//! failure. A kernel's number names a package to boot here; nothing in the product looks at it.

use crate::suite::{
    Suite::{self, Fallbacks, Mix, Queries, Verdicts},
    Task,
};

/// Every rung of the sensors, best first.
pub(crate) const RUNGS: [&str; 3] = ["fexit", "kprobe", "tracepoint"];
/// The one case of the matrix on a kernel without MPTCP: the tool says so and exits 3.
pub(crate) const NO_MPTCP_CASE: &str = "no-mptcp";
/// Series name of the kernel that `cargo xtask kernel` builds.
pub(crate) const SOL_TCP: &str = "sol-tcp";
/// Name of the machine's own kernel in tables.
pub(crate) const RUNNING: &str = "running";
/// Behind a series: not its newest release but the oldest that the archive still has.
pub(crate) const OLDEST: &str = "-oldest";

/// One kernel, by what it offers.
pub(crate) struct Shape {
    /// What `--kernel` takes.
    pub(crate) series: &'static str,
    /// Why this kernel is in the list.
    pub(crate) why: &'static str,
    /// What must not be missing here.
    pub(crate) must: Must,
    /// Whether the kernel itself may be missing.
    presence: Presence,
    /// What `cargo xtask test` runs on it.
    suites: &'static [Suite],
    /// On the best rung only.
    is_brief: bool,
}

/// What a kernel must offer; what is missing beyond it is a skip.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Must {
    /// Every rung attaches.
    EveryRung,
    /// No MPTCP in this kernel: the tool must refuse, and well.
    Refuse,
    /// Nobody knows: a machine's own kernel, or a series that is not in the list.
    Nothing,
}

/// Archives throw away kernels that were superseded, or parts of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// Without it the tests would say too little.
    Needed,
    /// If the archive has it no more, that is a skip.
    MayBeGone,
}

/// The matrix. `cargo xtask test` boots them all except `sol-tcp`, which takes long to build.
const SHAPES: [Shape; 12] = [
    shape("5.10", "no MPTCP in the kernel", &[Queries]).refusing(),
    shape(
        "6.1",
        "MPTCP without TCP_IS_MPTCP",
        &[Queries, Fallbacks, Verdicts, Mix],
    ),
    shape(
        "6.12-oldest",
        "before the counters of fallbacks were backported",
        &[Fallbacks],
    ),
    shape(
        "6.12",
        "the option, socket lookups as of Debian 13",
        &[Queries, Fallbacks, Verdicts, Mix],
    ),
    shape(
        "6.16",
        "between two releases: members moved",
        &[Queries, Fallbacks],
    ),
    shape("6.17", "first with the new counters", &[Fallbacks]).may_be_gone(),
    shape("6.18", "long-term series after 6.12", &[Queries, Fallbacks]),
    shape("6.19", "between two long-term series", &[Fallbacks])
        .may_be_gone()
        .briefly(),
    shape("7.1", "between two long-term series", &[Fallbacks])
        .may_be_gone()
        .briefly(),
    shape("7.2", "last before the newest", &[Fallbacks])
        .may_be_gone()
        .briefly(),
    shape(
        "7.3",
        "newest that Debian has",
        &[Queries, Fallbacks, Verdicts],
    ),
    shape(
        SOL_TCP,
        "mptcp_getsockopt_sol_tcp is a symbol",
        &[Queries, Fallbacks],
    ),
];

const fn shape(series: &'static str, why: &'static str, suites: &'static [Suite]) -> Shape {
    Shape {
        series,
        why,
        must: Must::EveryRung,
        presence: Presence::Needed,
        suites,
        is_brief: false,
    }
}

impl Shape {
    const fn refusing(self) -> Self {
        Self {
            must: Must::Refuse,
            ..self
        }
    }

    /// Its neighbours in the list have the same shape: `cargo xtask vm` runs all of it.
    const fn briefly(self) -> Self {
        Self {
            is_brief: true,
            ..self
        }
    }

    const fn may_be_gone(self) -> Self {
        Self {
            presence: Presence::MayBeGone,
            ..self
        }
    }
}

fn find(series: &str) -> Option<&'static Shape> {
    SHAPES.iter().find(|shape| shape.series == series)
}

/// What the list says about a series.
pub(crate) fn must(series: &str) -> Must {
    find(series).map_or(Must::Nothing, |shape| shape.must)
}

/// Why a series is in the list.
pub(crate) fn why(series: &str) -> Option<&'static str> {
    find(series).map(|shape| shape.why)
}

/// Whether it is no failure that the archive has no kernel of this series.
pub(crate) fn may_be_gone(series: &str) -> bool {
    find(series).is_some_and(|shape| shape.presence == Presence::MayBeGone)
}

/// The series that `cargo xtask test` boots: all that need no compiling.
pub(crate) fn default_series() -> Vec<String> {
    SHAPES
        .iter()
        .filter(|shape| shape.series != SOL_TCP)
        .map(|shape| shape.series.to_owned())
        .collect()
}

/// What `cargo xtask test` runs on a series.
pub(crate) fn default_tasks(series: &str) -> Vec<Task> {
    let suites = find(series).map_or(&[Queries, Fallbacks][..], |shape| shape.suites);
    let is_brief = find(series).is_some_and(|shape| shape.is_brief);
    suites
        .iter()
        .map(|&suite| match suite {
            Queries if series == FLOODED => Task::new(suite, &[]).flooded(),
            Queries | Fallbacks | Verdicts if is_brief => Task::on(suite, BEST),
            Queries | Fallbacks | Verdicts => Task::new(suite, &[]),
            Mix => Task::on(suite, MIXED_ON).small(),
            Suite::Reuse | Suite::Pair => Task::on(suite, MIXED_ON),
            Suite::Floods | Suite::Churn => Task::on(suite, MIXED_ON).short(),
            Suite::Exported | Suite::Served | Suite::Watched => Task::on(suite, MIXED_ON),
        })
        .collect()
}

/// The series whose matrix is flooded by `cargo xtask test`: the flood takes minutes in emulation, and
/// one kernel with every rung is enough to prove the counters of each.
const FLOODED: &str = "6.12";
/// The best rung.
const BEST: &str = "fexit";
/// The rung of the mix in a virtual machine: the machine's own kernel does the cheap one.
const MIXED_ON: &str = BEST;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_tells_what_runs_on_it() {
        let check = |series: &str, want: &[Suite]| {
            let suites: Vec<Suite> = default_tasks(series)
                .iter()
                .map(|task| task.suite)
                .collect();
            assert_eq!(suites, want, "{series}");
        };
        check("5.10", &[Queries]);
        check("6.12", &[Queries, Fallbacks, Verdicts, Mix]);
        check("6.12-oldest", &[Fallbacks]);
        check("not in the list", &[Queries, Fallbacks]);
    }

    #[test]
    fn only_what_the_list_excuses_may_be_gone() {
        for (series, want) in [("6.19", true), ("6.12-oldest", false), ("6.3", false)] {
            assert_eq!(may_be_gone(series), want, "{series}");
        }
    }
}
