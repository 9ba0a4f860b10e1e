//! The arrows of ARCHITECTURE.md: who may know whom. A `use` against an arrow fails here.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What a pure stage that is decided by the model alone must not name.
const MODEL_ALONE: &[&str] = &[
    "aya",
    "tokio",
    "clap",
    "serde",
    "rustix",
    "std::fs",
    "mptcp_trace_common",
    "crate::decode",
    "crate::enrich",
    "crate::sink",
    "crate::kernel",
    "crate::host",
    "crate::plan",
    "crate::cli",
    "crate::pipeline",
    "crate::capture",
];

/// (files, words that must not stand in them, why).
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    (
        "mptcp-trace-common/src",
        &["std::", "aya", "mptcp_trace::"],
        "common imports core only",
    ),
    (
        "mptcp-trace-ebpf/src",
        &["std::", "mptcp_trace::", "mptcp_trace_lab"],
        "ebpf imports common and aya-ebpf",
    ),
    (
        "mptcp-trace/src/model",
        &[
            "serde",
            "aya",
            "tokio",
            "clap",
            "libc::",
            "rustix",
            "crate::",
            "mptcp_trace_common",
        ],
        "model imports std only",
    ),
    (
        "mptcp-trace/src/decode.rs",
        &[
            "aya",
            "tokio",
            "clap",
            "serde",
            "crate::host",
            "crate::plan",
            "crate::kernel",
            "crate::sink",
            "crate::enrich",
            "crate::cli",
            "crate::pipeline",
            "crate::capture",
        ],
        "decode imports common and model",
    ),
    (
        "mptcp-trace/src/enrich",
        &[
            "aya",
            "tokio",
            "clap",
            "mptcp_trace_common",
            "crate::decode",
            "crate::sink",
            "crate::kernel",
            "crate::host",
            "crate::plan",
            "crate::cli",
            "crate::pipeline",
            "crate::capture",
        ],
        "enrich imports model and no other stage",
    ),
    (
        "mptcp-trace/src/correlate",
        &[
            "aya",
            "tokio",
            "clap",
            "serde",
            "rustix",
            "mptcp_trace_common",
            "crate::decode",
            "crate::enrich",
            "crate::sink",
            "crate::kernel",
            "crate::host",
            "crate::plan",
            "crate::cli",
            "crate::pipeline",
            "crate::capture",
        ],
        "correlate imports model and no other stage",
    ),
    (
        "mptcp-trace/src/wanted.rs",
        MODEL_ALONE,
        "what is wanted is decided by the model alone",
    ),
    (
        "mptcp-trace/src/coalesce.rs",
        MODEL_ALONE,
        "what repeats is decided by the model alone",
    ),
    (
        "mptcp-trace/src/tally.rs",
        MODEL_ALONE,
        "sums are made of the model alone",
    ),
    (
        "mptcp-trace/src/serve/counters.rs",
        MODEL_ALONE,
        "what is counted is decided by the model alone",
    ),
    (
        "mptcp-trace/src/serve/exposition.rs",
        MODEL_ALONE,
        "how it is written knows no stage",
    ),
    (
        "mptcp-trace/src/serve/page.rs",
        MODEL_ALONE,
        "which metrics there are is decided by the model alone",
    ),
    (
        "mptcp-trace/src/top/board.rs",
        MODEL_ALONE,
        "what is gathered for the screen is decided by the model alone",
    ),
    (
        "mptcp-trace/src/top",
        &[
            "aya",
            "tokio",
            "clap",
            "rustix",
            "mptcp_trace_common",
            "std::fs",
            "std::thread",
            "crate::decode",
            "crate::kernel",
            "crate::host",
            "crate::plan",
            "crate::cli",
            "crate::pipeline",
            "crate::capture",
        ],
        "top draws what it is given, and takes keys; it opens nothing",
    ),
    (
        "mptcp-trace/src/serve/otlp/record.rs",
        MODEL_ALONE,
        "how a finding is sent is decided by the model alone",
    ),
    (
        "mptcp-trace/src/serve/otlp/metrics.rs",
        MODEL_ALONE,
        "which metrics are sent, the page decides",
    ),
    (
        "mptcp-trace/src/serve/otlp/queue.rs",
        MODEL_ALONE,
        "what waits and what is dropped knows no stage",
    ),
    (
        "mptcp-trace/src/report",
        &[
            "aya",
            "tokio",
            "clap",
            "serde",
            "rustix",
            "std::fs",
            "mptcp_trace_common",
            "crate::decode",
            "crate::enrich",
            "crate::kernel",
            "crate::host",
            "crate::plan",
            "crate::cli",
            "crate::pipeline",
            "crate::capture",
        ],
        "a page is made of the model alone, and only escaped like a line",
    ),
    (
        "mptcp-trace/src/sink",
        &[
            "aya",
            "tokio",
            "clap",
            "mptcp_trace_common",
            "crate::decode",
            "crate::enrich",
            "crate::kernel",
            "crate::host",
            "crate::plan",
            "crate::cli",
            "crate::pipeline",
            "crate::capture",
        ],
        "sink imports model and no other stage",
    ),
    (
        "mptcp-trace/src/capture.rs",
        &[
            "aya",
            "tokio",
            "clap",
            "mptcp_trace_common",
            "crate::decode",
            "crate::kernel",
            "crate::cli",
            "crate::pipeline",
        ],
        "capture stores bytes that it does not understand",
    ),
    (
        "mptcp-trace/src/host",
        &[
            "aya",
            "tokio",
            "clap",
            "crate::plan",
            "crate::kernel",
            "crate::cli",
            "crate::pipeline",
            "crate::model",
        ],
        "host never touches aya, and knows nothing of what its facts are for",
    ),
    (
        "mptcp-trace/src/plan.rs",
        &[
            "aya",
            "tokio",
            "clap",
            "std::fs",
            "rustix",
            "libc::",
            "crate::kernel::{",
            "crate::cli",
            "crate::pipeline",
        ],
        "plan is pure",
    ),
    (
        "mptcp-trace/src/canary.rs",
        &[
            "aya::",
            "tokio",
            "clap",
            "crate::kernel",
            "crate::cli",
            "crate::pipeline",
        ],
        "the canary asks like any application",
    ),
    (
        "mptcp-trace/src/canary",
        &[
            "aya::",
            "tokio",
            "clap",
            "crate::kernel",
            "crate::cli",
            "crate::pipeline",
        ],
        "the canary asks like any application",
    ),
    (
        "mptcp-trace/src/kernel",
        &[
            "clap",
            "crate::cli",
            "crate::pipeline",
            "crate::sink",
            "crate::decode",
            "crate::enrich",
        ],
        "kernel attaches and reads; it does not interpret",
    ),
    (
        "mptcp-trace/src/pipeline",
        &["aya", "clap", "crate::cli"],
        "only kernel names aya; nothing imports cli",
    ),
    ("mptcp-trace/src/cli", &["aya"], "only kernel names aya"),
];

/// tokio belongs to the event loop and to nobody else.
const TOKIO_ONLY_IN: &[&str] = &[
    "mptcp-trace/src/kernel/ring.rs",
    "mptcp-trace/src/pipeline",
    "mptcp-trace/src/cli",
    "mptcp-trace/src/serve/http.rs",
    "mptcp-trace/src/serve/otlp/export.rs",
];

/// Unsafe code lives in few named files.
const UNSAFE_ONLY_IN: &[&str] = &[
    "mptcp-trace-ebpf/src/main.rs",
    "mptcp-trace-ebpf/src/maps.rs",
    "mptcp-trace-ebpf/src/kernel.rs",
    "mptcp-trace-ebpf/src/admit.rs",
    "mptcp-trace-ebpf/src/emit.rs",
    "mptcp-trace-ebpf/src/turns.rs",
    "mptcp-trace-ebpf/src/sensors/query/kprobe.rs",
    "mptcp-trace-ebpf/src/sensors/tell.rs",
    "mptcp-trace-ebpf/src/sensors/fallback/listed.rs",
    "mptcp-trace/src/canary.rs",
    "mptcp-trace/src/canary/lent.rs",
    "mptcp-trace/src/host/system.rs",
    "mptcp-trace/src/kernel/counters.rs",
    "mptcp-trace/src/kernel/load.rs",
    "mptcp-trace/src/kernel/mark.rs",
    "mptcp-trace/src/kernel/syscall.rs",
    "mptcp-trace/src/kernel/ring.rs",
    "mptcp-trace/src/kernel/trial.rs",
    "mptcp-trace/src/pipeline/command.rs",
];

/// A program's main file only says what there is.
const MAIN_LINES_MAX: usize = 60;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

/// Lines of code with their numbers: no comments, no tests.
fn code(file: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(file).unwrap();
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number + 1, line.to_owned()))
        .collect()
}

fn is_within(file: &Path, places: &[&str]) -> bool {
    let relative = file.strip_prefix(root()).unwrap();
    places.iter().any(|place| relative.starts_with(place))
}

fn mentions(line: &str, word: &str) -> bool {
    // `aya` must not be found in `payayable`; a path ends in a colon or a brace of its own.
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !part_of_word(before) && (word.ends_with([':', '{']) || !part_of_word(after))
    })
}

fn imports(line: &str) -> bool {
    // A name counts where it is imported or used as a path, not where a sentence speaks of it.
    line.trim_start().starts_with("use ")
        || line.trim_start().starts_with("pub use ")
        || line.contains("::") && !line.contains('"')
}

#[test]
fn nobody_knows_whom_he_must_not_know() {
    let mut faults = Vec::new();
    for (place, words, why) in FORBIDDEN {
        let mut files = Vec::new();
        sources(&root().join(place), &mut files);
        assert!(
            !files.is_empty(),
            "{place} has no sources: is the arrow still right?"
        );
        for file in files {
            for (number, line) in code(&file) {
                for word in words
                    .iter()
                    .filter(|word| imports(&line) && mentions(&line, word))
                {
                    faults.push(format!("{}:{number}: {word}: {why}", file.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn only_in(word: &str, places: &[&str]) -> Vec<String> {
    let mut files = Vec::new();
    for place in [
        "mptcp-trace/src",
        "mptcp-trace-common/src",
        "mptcp-trace-ebpf/src",
    ] {
        sources(&root().join(place), &mut files);
    }
    files
        .iter()
        .filter(|file| !is_within(file, places))
        .flat_map(|file| {
            code(file)
                .into_iter()
                .filter(|(_, line)| mentions(line, word))
                .map(|(number, line)| format!("{}:{number}: {}", file.display(), line.trim()))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn tokio_is_only_in_the_event_loop() {
    let faults = only_in("tokio", TOKIO_ONLY_IN);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn unsafe_code_is_only_in_named_files() {
    let faults: Vec<String> = only_in("unsafe", UNSAFE_ONLY_IN)
        .into_iter()
        // A word of the policy of a page.
        .filter(|fault| !fault.contains("#[unsafe(") && !fault.contains("'unsafe-inline'"))
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn main_files_stay_short() {
    for name in ["mptcp-trace", "mptcp-trace-ebpf", "lab", "xtask"] {
        let main = root().join(name).join("src/main.rs");
        let lines = fs::read_to_string(&main).unwrap().lines().count();
        assert!(
            lines <= MAIN_LINES_MAX,
            "{} has {lines} lines",
            main.display()
        );
    }
}
