//! The tested kernels, and what must work on each: the only list that distinguishes a skip from a
//! failure. The version here only selects a package to boot; the product never looks at it.

use crate::suite::{
    Suite::{self, Floods, Mix, Namespaces, Queries, Reuse, Together, Verdicts},
    Task,
};

/// The only case of the matrix on a kernel without MPTCP: the tool reports that and exits with 3.
pub(crate) const NO_MPTCP_CASE: &str = "no-mptcp";
/// Series name of the kernel that `cargo xtask kernel` builds.
pub(crate) const SOL_TCP: &str = "sol-tcp";
/// Name of the machine's own kernel in tables.
pub(crate) const RUNNING: &str = "running";
/// Suffix of a series: the oldest release that the archive still has, not the newest.
pub(crate) const OLDEST: &str = "-oldest";

/// One kernel, described by its features.
pub(crate) struct Series {
    /// The argument of `--kernel`.
    pub(crate) series: &'static str,
    /// Why this kernel is in the list.
    pub(crate) why: &'static str,
    /// What must work on this kernel.
    pub(crate) must: Must,
    /// Whether the archive may lack the kernel.
    presence: Presence,
    /// The machine is idle most of the time.
    waits: bool,
    /// Suites that `cargo xtask test` runs besides the queries and fallbacks, which every shape
    /// gets.
    more: &'static [Suite],
}

/// What a kernel must support; anything else that is missing is a skip.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Must {
    /// Every attach method works.
    EveryRung,
    /// No MPTCP in this kernel: the tool must refuse with a proper message.
    Refuse,
    /// No expectations: the machine's own kernel, or a series that is not in the list.
    Nothing,
}

/// Archives delete superseded kernels, or parts of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// Without this kernel the test run proves too little.
    Needed,
    /// A skip if the archive no longer has the kernel.
    MayBeGone,
}

/// The matrix. `cargo xtask test` boots all of them except `sol-tcp`, which takes long to build.
const SERIES: [Series; 12] = [
    series_of("5.10", "no MPTCP in the kernel", &[]).refusing(),
    series_of("6.1", "MPTCP without TCP_IS_MPTCP", &[Verdicts]).waiting(),
    series_of(
        "6.12-oldest",
        "before the counters of fallbacks were backported",
        &[],
    ),
    series_of(
        "6.12",
        "the option, socket lookups as of Debian 13",
        &[Mix, Floods],
    ),
    series_of("6.16", "between two releases: members moved", &[]),
    series_of("6.17", "first with the new counters", &[]).may_be_gone(),
    series_of("6.18", "long-term series after 6.12", &[]),
    series_of("6.19", "between two long-term series", &[]).may_be_gone(),
    series_of("7.1", "between two long-term series", &[]).may_be_gone(),
    series_of("7.2", "second newest", &[]).may_be_gone(),
    series_of("7.3", "newest in Debian", &[Verdicts, Reuse]),
    series_of(SOL_TCP, "mptcp_getsockopt_sol_tcp is a symbol", &[]),
];

const fn series_of(series: &'static str, why: &'static str, more: &'static [Suite]) -> Series {
    Series {
        series,
        why,
        must: Must::EveryRung,
        presence: Presence::Needed,
        waits: false,
        more,
    }
}

impl Series {
    const fn refusing(self) -> Self {
        Self {
            must: Must::Refuse,
            ..self
        }
    }

    /// On this kernel, attaching a program to a function waits for an RCU tasks grace period each
    /// time. Attaching takes over a minute, of which the processor is busy for ten seconds.
    const fn waiting(self) -> Self {
        Self {
            waits: true,
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

fn find(series: &str) -> Option<&'static Series> {
    SERIES.iter().find(|shape| shape.series == series)
}

/// What must work on a series.
pub(crate) fn must(series: &str) -> Must {
    find(series).map_or(Must::Nothing, |shape| shape.must)
}

/// Whether a machine with this series is idle most of the time.
pub(crate) fn waits(series: &str) -> bool {
    find(series).is_some_and(|shape| shape.waits)
}

/// Why a series is in the list.
pub(crate) fn why(series: &str) -> Option<&'static str> {
    find(series).map(|shape| shape.why)
}

/// Whether the archive may lack this series.
pub(crate) fn may_be_gone(series: &str) -> bool {
    find(series).is_some_and(|shape| shape.presence == Presence::MayBeGone)
}

/// The series that `cargo xtask test` boots: all that need no compilation.
pub(crate) fn default_series() -> Vec<String> {
    SERIES
        .iter()
        .filter(|shape| shape.series != SOL_TCP)
        .map(|shape| shape.series.to_owned())
        .collect()
}

/// Tasks of the first kernel of a shape: the queries, and each recipe and scenario with each attach
/// method, with one address family. The family alternates between recipes, attach methods and
/// shapes.
pub(crate) fn whole(series: &str, number: usize) -> Vec<Task> {
    if must(series) == Must::Refuse {
        return vec![Task::new(Queries, &[])];
    }
    let more = find(series).map_or(&[][..], |shape| shape.more);
    let mut together = Task::new(Together, &[]).alternating(number);
    if more.contains(&Verdicts) {
        together = together.with_verdicts();
    }
    if more.contains(&Floods) {
        together = together.flooded_briefly();
    }
    let mut tasks = vec![together];
    if more.contains(&Mix) {
        tasks.push(Task::on(Mix, BEST).small());
        tasks.push(Task::new(Namespaces, &[]).few());
    }
    tasks
}

/// Storms, for each attach method on which the kernel skips runs of probes.
fn storms(more: &[Suite]) -> impl Iterator<Item = Task> {
    let rungs: &[&str] = match more.contains(&Reuse) {
        true => &["fexit", "tracepoint"],
        false => &[],
    };
    rungs.iter().map(|rung| Task::on(Reuse, rung).stormy())
}

/// Tasks of another kernel of a known shape: a few recipes with its best attach method, and the
/// queries with one address family.
pub(crate) fn smoke(rungs: &[String], number: usize) -> Vec<Task> {
    let best = rungs.first().map_or(BEST, String::as_str);
    let family = ["v4", "v6"][number % 2];
    vec![
        Task::on(Together, best)
            .of_family(family)
            .recipes(&SMOKE_RECIPES),
    ]
}

/// The full product: every recipe and scenario, with both address families and every attach method.
pub(crate) fn everything(series: &str) -> Vec<Task> {
    if must(series) == Must::Refuse {
        return vec![Task::new(Queries, &[])];
    }
    let mut tasks = vec![
        Task::new(Together, &[]).with_verdicts().flooded_briefly(),
        Task::on(Mix, BEST).small(),
    ];
    tasks.extend(storms(find(series).map_or(&[], |shape| shape.more)));
    tasks.push(Task::new(Namespaces, &[]).few());
    tasks
}

/// No fallback, one in the handshake, one with data, and a TCP client of an MPTCP listener.
const SMOKE_RECIPES: [&str; 4] = [
    "healthy",
    "strip-synack",
    "strip-both-after-3",
    "tcp-to-mptcp-listener",
];
/// The best attach method.
const BEST: &str = "fexit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_shape_gets_every_rung_and_a_known_one_a_few_recipes() {
        let said = |tasks: &[Task]| -> Vec<String> {
            let argv = |task: &Task| task.argv("lab", "T", None)[1..].join(" ");
            tasks.iter().map(argv).collect()
        };
        let storm = "--connections 240 --processes 8 --parallel 1 --ask";
        let all = "--attach fexit --attach kprobe --attach tracepoint";
        assert_eq!(
            said(&whole("6.18", 3)),
            [format!("together --tracer T {all} --alternate 3")]
        );
        assert_eq!(
            said(&whole("7.3", 0)),
            [format!(
                "together --tracer T {all} --alternate 0 --verdicts"
            )]
        );
        assert_eq!(
            said(&everything("7.3"))[2..],
            [
                format!("reuse --tracer T --attach fexit {storm}"),
                format!("reuse --tracer T --attach tracepoint {storm}"),
                format!("namespaces --tracer T {all} --namespaces 60"),
            ]
        );
        let suites = |series| -> Vec<Suite> {
            let tasks = whole(series, 0);
            tasks.iter().map(|task| task.suite).collect()
        };
        assert_eq!(suites("5.10"), [Queries]);
        assert_eq!(suites("6.12"), [Together, Mix, Namespaces]);
        assert_eq!(suites("not in the list"), [Together]);
        assert_eq!(
            said(&smoke(&["kprobe".to_owned()], 1)),
            [
                "together --tracer T --attach kprobe --family v6 --recipe healthy \
                 --recipe strip-synack --recipe strip-both-after-3 --recipe tcp-to-mptcp-listener"
            ]
        );
    }

    #[test]
    fn only_what_the_list_excuses_may_be_gone() {
        for (series, want) in [("6.19", true), ("6.12-oldest", false), ("6.3", false)] {
            assert_eq!(may_be_gone(series), want, "{series}");
        }
    }
}
