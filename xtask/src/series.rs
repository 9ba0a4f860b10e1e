//! The tested kernels, and what must work on each: the only list that distinguishes a skip from a
//! failure. The version here only selects a package to boot; the product never looks at it.

use crate::{
    compiled::shapes,
    suite::{
        Suite::{
            self, Fingerprints, Floods, Ledgers, Mix, Namespaces, PathCost, PathManagers, Queries,
            Reuse, Together, Verdicts,
        },
        Task,
    },
};

/// The only case of the matrix on a kernel without MPTCP: the tool reports that and exits with 3.
pub(crate) const NO_MPTCP_CASE: &str = "no-mptcp";
/// Name of the machine's own kernel in tables.
pub(crate) const RUNNING: &str = "running";

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
    /// A few tests suffice, whatever the shape: a kernel of the same source gets all.
    brief: bool,
    /// The kernel has MPTCP for IPv4 only.
    v4_only: bool,
    /// Suites that `cargo xtask test` runs besides the queries and fallbacks, which every shape
    /// gets.
    more: &'static [Suite],
}

/// What a kernel must support; anything else that is missing is a skip.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Must {
    /// Every attach method works.
    EveryRung,
    /// Every attach method but this one works, which the kernel does not have.
    EveryRungBut(&'static str),
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

/// The matrix. `cargo xtask test` boots all of them except those that `cargo xtask kernel` builds,
/// which takes long.
const SERIES: [Series; 21] = [
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
    series_of("6.12-generic", "the flavour of servers and desktops", &[]).brief(),
    series_of(
        "6.12-rt",
        "every lock and interrupt can be preempted",
        &[Reuse],
    )
    .brief(),
    series_of("6.12-arm64", "arm64", &[]),
    series_of("6.1-arm64", "arm64 without direct calls", &[])
        .without("fexit")
        .brief(),
    series_of("6.12-arm64-16k", "arm64 with pages of 16 KB", &[]).brief(),
    series_of("7.3-arm64", "arm64, newest in Debian", &[]).brief(),
    series_of("sol-tcp", "mptcp_getsockopt_sol_tcp is a symbol", &[]),
    series_of("rhel", "MPTCP off by default, not for IPv6; lockdown", &[]).v4_only(),
    series_of("no-btf", "no type information in the kernel", &[]).without("fexit"),
    series_of("llvm", "clang with ThinLTO", &[]),
];

const fn series_of(series: &'static str, why: &'static str, more: &'static [Suite]) -> Series {
    Series {
        series,
        why,
        must: Must::EveryRung,
        presence: Presence::Needed,
        waits: false,
        brief: false,
        v4_only: false,
        more,
    }
}

impl Must {
    /// True if this attach method must work.
    pub(crate) fn needs(self, rung: &str) -> bool {
        match self {
            Self::EveryRung => true,
            Self::EveryRungBut(missing) => rung != missing,
            Self::Refuse | Self::Nothing => false,
        }
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

    const fn brief(self) -> Self {
        Self {
            brief: true,
            ..self
        }
    }

    const fn v4_only(self) -> Self {
        Self {
            v4_only: true,
            ..self
        }
    }

    const fn without(self, rung: &'static str) -> Self {
        Self {
            must: Must::EveryRungBut(rung),
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

/// Whether a few tests suffice on a series.
pub(crate) fn is_brief(series: &str) -> bool {
    find(series).is_some_and(|shape| shape.brief)
}

/// Whether a series has MPTCP for IPv4 only.
pub(crate) fn is_v4_only(series: &str) -> bool {
    find(series).is_some_and(|shape| shape.v4_only)
}

/// Why a series is in the list.
pub(crate) fn why(series: &str) -> Option<&'static str> {
    find(series).map(|shape| shape.why)
}

/// Whether the archive may lack this series.
pub(crate) fn may_be_gone(series: &str) -> bool {
    find(series).is_some_and(|shape| shape.presence == Presence::MayBeGone)
}

/// The series that `cargo xtask test` boots by default: all that need no compilation. `--kernel` names
/// others.
pub(crate) fn default_series() -> Vec<String> {
    SERIES
        .iter()
        .filter(|shape| shapes::find(shape.series).is_none())
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
    let mut together = Task::new(Together, &[]).alternating(number).with_paths(&[]);
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
        tasks.push(Task::new(Ledgers, &[]));
        tasks.push(Task::new(PathCost, &[]));
        tasks.push(Task::new(Fingerprints, &[]));
        tasks.push(Task::new(PathManagers, &[]));
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
pub(crate) fn smoke(series: &str, rungs: &[String], number: usize) -> Vec<Task> {
    let must = must(series);
    let possible =
        |rung: &&String| !matches!(must, Must::EveryRungBut(missing) if missing == *rung);
    let best = rungs.iter().find(possible).map_or(BEST, String::as_str);
    let family = ["v4", "v6"][number % 2];
    vec![
        Task::on(Together, best)
            .of_family(family)
            .recipes(&SMOKE_RECIPES)
            .with_paths(&SMOKE_PATHS),
    ]
}

/// The full product: every recipe and scenario, with both address families and every attach method.
pub(crate) fn everything(series: &str) -> Vec<Task> {
    if must(series) == Must::Refuse {
        return vec![Task::new(Queries, &[])];
    }
    let mut tasks = vec![
        Task::new(Together, &[])
            .with_verdicts()
            .with_paths(&[])
            .flooded_briefly(),
        Task::on(Mix, BEST).small(),
    ];
    tasks.extend(storms(find(series).map_or(&[], |shape| shape.more)));
    tasks.push(Task::new(Namespaces, &[]).few());
    tasks
}

/// No fallback, one in the handshake, one with data, one that compilers decide about in different
/// functions, and a TCP client of an MPTCP listener.
const SMOKE_RECIPES: [&str; 5] = [
    "healthy",
    "strip-synack",
    "strip-both-after-3",
    "dss-length-short-after-3",
    "tcp-to-mptcp-listener",
];
/// A path that comes up, one that the server refuses, one that the client refuses, and one that is
/// removed.
const SMOKE_PATHS: [&str; 4] = ["base", "limit0-server", "strip-ack4", "ep-del-client"];
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
            [format!("together --tracer T {all} --alternate 3 --paths")]
        );
        assert_eq!(
            said(&whole("7.3", 0)),
            [format!(
                "together --tracer T {all} --alternate 0 --paths --verdicts"
            )]
        );
        assert_eq!(
            said(&everything("6.12-rt"))[2..],
            said(&everything("7.3"))[2..]
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
        assert_eq!(
            suites("6.12"),
            [
                Together,
                Mix,
                Namespaces,
                Ledgers,
                PathCost,
                Fingerprints,
                PathManagers
            ]
        );
        assert_eq!(suites("not in the list"), [Together]);
        assert_eq!(
            said(&smoke(
                "6.1-arm64",
                &["fexit", "kprobe"].map(str::to_owned),
                1
            )),
            [
                "together --tracer T --attach kprobe --family v6 --recipe healthy \
                 --recipe strip-synack --recipe strip-both-after-3 \
                 --recipe dss-length-short-after-3 --recipe tcp-to-mptcp-listener \
                 --paths --path base --path limit0-server --path strip-ack4 --path ep-del-client"
            ]
        );
    }

    #[test]
    fn kernels_that_are_compiled_here_are_in_the_list_but_not_in_the_default_run() {
        let default = default_series();
        for shape in &shapes::SHAPES {
            assert!(find(shape.name).is_some(), "{}", shape.name);
            assert!(!default.contains(&shape.name.to_owned()), "{}", shape.name);
        }
        assert_eq!(default.len() + shapes::SHAPES.len(), SERIES.len());
    }

    #[test]
    fn only_what_the_list_excuses_may_be_gone() {
        for (series, want) in [("6.19", true), ("6.12-oldest", false), ("6.3", false)] {
            assert_eq!(may_be_gone(series), want, "{series}");
        }
    }
}
