//! The suites that run on a kernel: the lab's verbs, and their command lines.

use std::path::Path;

use crate::otlp::Collector;

/// Every attach method, best first.
pub(crate) const RUNGS: [&str; 3] = ["fexit", "kprobe", "tracepoint"];

/// One verb of the lab. All of them print the same types of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// Query `TCP_IS_MPTCP` on sockets of every kind.
    Queries,
    /// Make connections fall back to TCP in every possible way.
    Fallbacks,
    /// Applications query at every stage of a connection, or never.
    Verdicts,
    /// Make paths come up, fail and end in every possible way.
    Paths,
    /// The suites above with one start of the tracer per attach method.
    Together,
    /// Many concurrent connections, of which some fall back.
    Mix,
    /// Short-lived sockets, so that the kernel reuses their addresses.
    Reuse,
    /// What the packet that decided shows, with boxes in the way.
    Fingerprints,
    /// Many connections with several paths each.
    ManyPaths,
    /// What a path carried, compared with the kernel's own account of it.
    Ledgers,
    /// What the sensor of paths does for packets, and how many records it writes.
    PathCost,
    /// Path managers in userspace, with and without the tracer.
    PathManagers,
    /// Network namespaces that are created, used and deleted.
    Namespaces,
    /// `probe` over a chain of routers.
    Probed,
    /// curl and nginx over MPTCP.
    Pair,
    /// Captures of both ends, compared.
    Paired,
    /// More queries than the ring can hold.
    Floods,
    /// The Prometheus exporter.
    Served,
    /// The terminal view.
    Watched,
    /// The export to an OpenTelemetry collector.
    Exported,
    /// `serve`, while processes, sockets and namespaces come and go.
    Churn,
    /// The flight recorder.
    Recorded,
}

/// One command line of the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) suite: Suite,
    /// The attach methods to test; a kernel of a known shape must support all of them.
    pub(crate) rungs: Vec<String>,
    /// Options of this suite only.
    extra: Vec<String>,
}

/// Connections of the mix in a virtual machine: the default takes too long in emulation.
const MIX_CONNECTIONS: u32 = 400;

/// Connections whose addresses repeat.
const SHORT_CONNECTIONS: u32 = 10_000;

/// Processes and connections of a storm.
const STORM_PROCESSES: u32 = 8;
const STORM_CONNECTIONS: u32 = 240;

/// Namespaces per test. The kernel reuses their numbers at once.
const NAMESPACES: u32 = 60;

/// Queries per thread of a flood in a virtual machine, where the default of 50,000 takes minutes.
const VM_FLOOD: u32 = 2_000;

/// The option of `together` that adds the scenarios.
const VERDICTS: &str = "--verdicts";

impl Suite {
    /// Name of the suite in output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queries => "queries",
            Self::Fallbacks => "fallbacks",
            Self::Verdicts => "verdicts",
            Self::Paths => "paths",
            Self::Together => "together",
            Self::Mix => "mix",
            Self::Reuse => "reuse",
            Self::Fingerprints => "fingerprints",
            Self::ManyPaths => "many-paths",
            Self::Ledgers => "ledgers",
            Self::PathCost => "path-cost",
            Self::PathManagers => "path-managers",
            Self::Namespaces => "namespaces",
            Self::Probed => "probed",
            Self::Pair => "pair",
            Self::Paired => "paired",
            Self::Floods => "floods",
            Self::Served => "served",
            Self::Watched => "watched",
            Self::Exported => "exported",
            Self::Churn => "churn",
            Self::Recorded => "recorded",
        }
    }

    /// Whether the suite has cases on every kernel with MPTCP.
    pub(crate) fn always_plays(self) -> bool {
        matches!(
            self,
            Self::Queries | Self::Fallbacks | Self::Verdicts | Self::Paths | Self::Together
        )
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Queries => "matrix",
            Self::Fallbacks
            | Self::Verdicts
            | Self::Paths
            | Self::Together
            | Self::Mix
            | Self::Reuse
            | Self::Fingerprints
            | Self::ManyPaths
            | Self::Ledgers
            | Self::PathCost
            | Self::PathManagers
            | Self::Namespaces
            | Self::Probed
            | Self::Pair
            | Self::Paired
            | Self::Floods
            | Self::Served
            | Self::Watched
            | Self::Exported
            | Self::Churn
            | Self::Recorded => self.name(),
        }
    }
}

impl Task {
    /// The suite with these attach methods; an empty list means all.
    pub(crate) fn new(suite: Suite, rungs: &[String]) -> Self {
        let rungs = if rungs.is_empty() {
            RUNGS.map(str::to_owned).to_vec()
        } else {
            rungs.to_vec()
        };
        Self {
            suite,
            rungs,
            extra: Vec::new(),
        }
    }

    /// The suite with one attach method, for suites that take too long with all of them.
    pub(crate) fn on(suite: Suite, rung: &str) -> Self {
        Self::new(suite, &[rung.to_owned()])
    }

    /// Adds 8 threads that query as fast as they can.
    pub(crate) fn flooded(mut self) -> Self {
        self.extra.push("--flood".into());
        self
    }

    /// Like `flooded`, with fewer queries, for a virtual machine.
    pub(crate) fn flooded_briefly(self) -> Self {
        let mut task = self.flooded();
        task.extra
            .extend(["--queries".into(), VM_FLOOD.to_string()]);
        task
    }

    /// Adds many concurrent processes that query each of their connections: in this load,
    /// preemptible kernels skip runs of probes.
    pub(crate) fn stormy(mut self) -> Self {
        let options = format!(
            "--connections {STORM_CONNECTIONS} --processes {STORM_PROCESSES} --parallel 1 --ask"
        );
        self.extra.extend(options.split(' ').map(str::to_owned));
        self
    }

    /// Adds the queries of a dashboard.
    pub(crate) fn drawn(mut self, dashboard: &Path) -> Self {
        self.extra
            .extend(["--dashboard".into(), dashboard.display().to_string()]);
        self
    }

    /// Validates with a Python that has the schema of OpenTelemetry, and with a collector.
    pub(crate) fn judged(mut self, python: Option<&Path>, collector: Option<&Collector>) -> Self {
        if let Some(python) = python {
            self.extra
                .extend(["--python".into(), python.display().to_string()]);
        }
        match collector {
            Some(Collector::Program(program)) => self
                .extra
                .extend(["--collector".into(), program.display().to_string()]),
            Some(Collector::Nowhere) => self.extra.push("--no-collector".into()),
            None => {}
        }
        self
    }

    /// Uses smaller floods than the lab's default, or a shorter duration.
    pub(crate) fn short(mut self) -> Self {
        self.extra.push("--short".into());
        self
    }

    /// Uses fewer namespaces than the lab's default.
    pub(crate) fn few(mut self) -> Self {
        self.extra
            .extend(["--namespaces".into(), NAMESPACES.to_string()]);
        self
    }

    /// Uses fewer connections than the lab's default.
    pub(crate) fn small(mut self) -> Self {
        self.extra
            .extend(["--connections".into(), MIX_CONNECTIONS.to_string()]);
        self
    }

    /// Alternates between IPv4 and IPv6 from play to play; `turn` shifts the sequence.
    pub(crate) fn alternating(mut self, turn: usize) -> Self {
        self.extra.extend(["--alternate".into(), turn.to_string()]);
        self
    }

    /// Closes the connections as soon as their second path is up, on few ports.
    pub(crate) fn closing_at_once(mut self) -> Self {
        let options = format!("--short --connections {SHORT_CONNECTIONS}");
        self.extra.extend(options.split(' ').map(str::to_owned));
        self
    }

    /// Uses one address family only, `v4` or `v6`.
    pub(crate) fn of_family(mut self, family: &str) -> Self {
        self.extra.extend(["--family".into(), family.to_owned()]);
        self
    }

    /// Plays only these recipes of the suite.
    pub(crate) fn recipes(mut self, names: &[&str]) -> Self {
        for name in names {
            self.extra.extend(["--recipe".into(), (*name).to_owned()]);
        }
        self
    }

    /// Adds the scenarios of verdicts to a suite with queries and fallbacks.
    pub(crate) fn with_verdicts(mut self) -> Self {
        self.extra.push(VERDICTS.into());
        self
    }

    /// Adds the recipes of paths to a suite with queries and fallbacks: these, or all of them.
    pub(crate) fn with_paths(mut self, names: &[&str]) -> Self {
        self.extra.push("--paths".into());
        for name in names {
            self.extra.extend(["--path".into(), (*name).to_owned()]);
        }
        self
    }

    /// Whether the suite plays the scenarios of verdicts.
    pub(crate) fn has_verdicts(&self) -> bool {
        self.suite == Suite::Verdicts || self.extra.iter().any(|word| word == VERDICTS)
    }

    /// Makes the tracer plan as if the kernel had none of these functions.
    pub(crate) fn hiding(mut self, functions: &[String]) -> Self {
        for function in functions {
            self.extra
                .extend(["--tracer-arg".into(), format!("--hide-function={function}")]);
        }
        self
    }

    /// Gives the tracer a file that describes the kernel's types.
    pub(crate) fn describing(mut self, file: &str) -> Self {
        self.extra
            .extend(["--tracer-arg".into(), format!("--btf={file}")]);
        self
    }

    /// Uses IPv4 only, and records a capture into the report.
    pub(crate) fn kept(mut self, more: &[&str]) -> Self {
        let words = ["--family", "v4", "--keep"];
        self.extra
            .extend(words.iter().chain(more).map(|&word| word.to_owned()));
        self
    }

    /// The lab's command line.
    pub(crate) fn argv(&self, lab: &str, tracer: &str, go: Option<&str>) -> Vec<String> {
        let mut argv: Vec<String> = [lab, self.suite.verb(), "--tracer", tracer]
            .map(str::to_owned)
            .to_vec();
        for rung in &self.rungs {
            argv.extend(["--attach".into(), rung.clone()]);
        }
        argv.extend(self.extra.iter().cloned());
        if let (true, Some(go)) = (self.has_verdicts(), go) {
            argv.extend(["--go".into(), go.into()]);
        }
        argv
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_one_command_line() {
        let check =
            |task: Task, want: &str| assert_eq!(task.argv("lab", "T", Some("G")).join(" "), want);
        check(
            Task::new(Suite::Queries, &[]).flooded(),
            "lab matrix --tracer T --attach fexit --attach kprobe --attach tracepoint --flood",
        );
        check(
            Task::new(Suite::Fallbacks, &["kprobe".to_owned()]),
            "lab fallbacks --tracer T --attach kprobe",
        );
        check(
            Task::on(Suite::Verdicts, "tracepoint"),
            "lab verdicts --tracer T --attach tracepoint --go G",
        );
        check(
            Task::on(Suite::Together, "kprobe").with_verdicts(),
            "lab together --tracer T --attach kprobe --verdicts --go G",
        );
        check(
            Task::on(Suite::Together, "kprobe").with_paths(&["base"]),
            "lab together --tracer T --attach kprobe --paths --path base",
        );
        check(
            Task::on(Suite::Mix, "fexit").small(),
            "lab mix --tracer T --attach fexit --connections 400",
        );
        check(
            Task::on(Suite::Fallbacks, "fexit").kept(&["--more"]),
            "lab fallbacks --tracer T --attach fexit --family v4 --keep --more",
        );
        check(
            Task::on(Suite::Fallbacks, "fexit")
                .alternating(1)
                .recipes(&["a", "b"])
                .hiding(&["f".to_owned()]),
            "lab fallbacks --tracer T --attach fexit --alternate 1 --recipe a --recipe b \
             --tracer-arg --hide-function=f",
        );
        check(
            Task::on(Suite::Queries, "kprobe").describing("/k.btf"),
            "lab matrix --tracer T --attach kprobe --tracer-arg --btf=/k.btf",
        );
        check(
            Task::on(Suite::Queries, "fexit").of_family("v6"),
            "lab matrix --tracer T --attach fexit --family v6",
        );
        check(
            Task::on(Suite::Floods, "tracepoint").short(),
            "lab floods --tracer T --attach tracepoint --short",
        );
        check(
            Task::on(Suite::Served, "tracepoint").drawn(Path::new("d.json")),
            "lab served --tracer T --attach tracepoint --dashboard d.json",
        );
        check(
            Task::on(Suite::Exported, "tracepoint")
                .judged(Some(Path::new("p")), Some(&Collector::Program("c".into()))),
            "lab exported --tracer T --attach tracepoint --python p --collector c",
        );
        check(
            Task::on(Suite::Exported, "tracepoint").judged(None, Some(&Collector::Nowhere)),
            "lab exported --tracer T --attach tracepoint --no-collector",
        );
        check(
            Task::on(Suite::Churn, "tracepoint").short(),
            "lab churn --tracer T --attach tracepoint --short",
        );
        check(
            Task::on(Suite::Recorded, "tracepoint").short(),
            "lab recorded --tracer T --attach tracepoint --short",
        );
        check(
            Task::on(Suite::ManyPaths, "tracepoint").closing_at_once(),
            "lab many-paths --tracer T --attach tracepoint --short --connections 10000",
        );
        check(
            Task::on(Suite::Reuse, "tracepoint"),
            "lab reuse --tracer T --attach tracepoint",
        );
    }
}
