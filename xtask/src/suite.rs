//! What can be run on a kernel: the verbs of the lab, and the command lines for them.

use std::path::Path;

/// Every rung of the sensors, best first.
pub(crate) const RUNGS: [&str; 3] = ["fexit", "kprobe", "tracepoint"];

/// One verb of the lab. All of them report in the same lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// Sockets of every kind are asked `TCP_IS_MPTCP`.
    Queries,
    /// Connections fall back to TCP in every way there is.
    Fallbacks,
    /// Applications ask at every moment of a connection's life, or never.
    Verdicts,
    /// The three under one start of the tracer on each rung.
    Together,
    /// Many connections at once, of which some fall back.
    Mix,
    /// Sockets that come and go, so that the kernel reuses their addresses.
    Reuse,
    /// Network namespaces that are made, used and deleted.
    Namespaces,
    /// curl and nginx, made to speak MPTCP.
    Pair,
    /// More questions than there is room for.
    Floods,
    /// What is exported to Prometheus.
    Served,
    /// What is shown on a terminal.
    Watched,
    /// What is sent to an OpenTelemetry collector.
    Exported,
    /// The same while everything around it comes and goes.
    Churn,
}

/// One command line of the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) suite: Suite,
    /// The rungs that are tried, and that a kernel of a known shape must have.
    pub(crate) rungs: Vec<String>,
    /// Options that only this suite has.
    extra: Vec<String>,
}

/// How many connections the mix makes in a virtual machine: its default takes too long in emulation.
const MIX_CONNECTIONS: u32 = 400;

/// How many processes and connections a storm has.
const STORM_PROCESSES: u32 = 8;
const STORM_CONNECTIONS: u32 = 240;

/// How many namespaces are made for a test. The kernel gives their numbers away again at once.
const NAMESPACES: u32 = 60;

/// Questions of each thread of a flood in a virtual machine, where the usual 50,000 take minutes.
const VM_FLOOD: u32 = 2_000;

/// The option of `together` that plays the scenarios.
const VERDICTS: &str = "--verdicts";

impl Suite {
    /// Its name in what is printed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queries => "queries",
            Self::Fallbacks => "fallbacks",
            Self::Verdicts => "verdicts",
            Self::Together => "together",
            Self::Mix => "mix",
            Self::Reuse => "reuse",
            Self::Namespaces => "namespaces",
            Self::Pair => "pair",
            Self::Floods => "floods",
            Self::Served => "served",
            Self::Watched => "watched",
            Self::Exported => "exported",
            Self::Churn => "churn",
        }
    }

    /// Whether it has something to play on every kernel with MPTCP.
    pub(crate) fn always_plays(self) -> bool {
        matches!(
            self,
            Self::Queries | Self::Fallbacks | Self::Verdicts | Self::Together
        )
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Queries => "matrix",
            Self::Fallbacks
            | Self::Verdicts
            | Self::Together
            | Self::Mix
            | Self::Reuse
            | Self::Namespaces
            | Self::Pair
            | Self::Floods
            | Self::Served
            | Self::Watched
            | Self::Exported
            | Self::Churn => self.name(),
        }
    }
}

impl Task {
    /// This suite on these rungs, or on all of them.
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

    /// This suite on one rung: for those that would take too long on all.
    pub(crate) fn on(suite: Suite, rung: &str) -> Self {
        Self::new(suite, &[rung.to_owned()])
    }

    /// With 8 threads that ask as fast as they can.
    pub(crate) fn flooded(mut self) -> Self {
        self.extra.push("--flood".into());
        self
    }

    /// The same with fewer questions, for a virtual machine.
    pub(crate) fn flooded_briefly(self) -> Self {
        let mut task = self.flooded();
        task.extra
            .extend(["--queries".into(), VM_FLOOD.to_string()]);
        task
    }

    /// Many processes at once that ask about each of their connections: kernels that preempt skip runs of probes then.
    pub(crate) fn stormy(mut self) -> Self {
        let options = format!(
            "--connections {STORM_CONNECTIONS} --processes {STORM_PROCESSES} --parallel 1 --ask"
        );
        self.extra.extend(options.split(' ').map(str::to_owned));
        self
    }

    /// With the queries of a dashboard.
    pub(crate) fn drawn(mut self, dashboard: &Path) -> Self {
        self.extra
            .extend(["--dashboard".into(), dashboard.display().to_string()]);
        self
    }

    /// With a Python that has the schema of OpenTelemetry.
    pub(crate) fn judged(mut self, python: Option<&Path>) -> Self {
        if let Some(python) = python {
            self.extra
                .extend(["--python".into(), python.display().to_string()]);
        }
        self
    }

    /// With smaller floods than the lab makes by itself, or a shorter time.
    pub(crate) fn short(mut self) -> Self {
        self.extra.push("--short".into());
        self
    }

    /// With fewer namespaces than the lab makes by itself.
    pub(crate) fn few(mut self) -> Self {
        self.extra
            .extend(["--namespaces".into(), NAMESPACES.to_string()]);
        self
    }

    /// With fewer connections than the lab makes by itself.
    pub(crate) fn small(mut self) -> Self {
        self.extra
            .extend(["--connections".into(), MIX_CONNECTIONS.to_string()]);
        self
    }

    /// Each play with one kind of address: IPv4 and IPv6 in turn, which `turn` moves.
    pub(crate) fn alternating(mut self, turn: usize) -> Self {
        self.extra.extend(["--alternate".into(), turn.to_string()]);
        self
    }

    /// With one kind of address alone, `v4` or `v6`.
    pub(crate) fn of_family(mut self, family: &str) -> Self {
        self.extra.extend(["--family".into(), family.to_owned()]);
        self
    }

    /// Only these of the suite's recipes.
    pub(crate) fn recipes(mut self, names: &[&str]) -> Self {
        for name in names {
            self.extra.extend(["--recipe".into(), (*name).to_owned()]);
        }
        self
    }

    /// With the scenarios of verdicts too, where there are those of queries and fallbacks.
    pub(crate) fn with_verdicts(mut self) -> Self {
        self.extra.push(VERDICTS.into());
        self
    }

    /// Whether it plays the scenarios of verdicts.
    pub(crate) fn has_verdicts(&self) -> bool {
        self.suite == Suite::Verdicts || self.extra.iter().any(|word| word == VERDICTS)
    }

    /// With a tracer that plans as if the kernel had none of these functions.
    pub(crate) fn hiding(mut self, functions: &[String]) -> Self {
        for function in functions {
            self.extra
                .extend(["--tracer-arg".into(), format!("--hide-function={function}")]);
        }
        self
    }

    /// With IPv4 alone, and what it traced as a capture in its report.
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
            Task::on(Suite::Exported, "tracepoint").judged(Some(Path::new("p"))),
            "lab exported --tracer T --attach tracepoint --python p",
        );
        check(
            Task::on(Suite::Churn, "tracepoint").short(),
            "lab churn --tracer T --attach tracepoint --short",
        );
        check(
            Task::on(Suite::Reuse, "tracepoint"),
            "lab reuse --tracer T --attach tracepoint",
        );
    }
}
