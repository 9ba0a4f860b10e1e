//! The arrows of ARCHITECTURE.md: which module may import which. An import that no list allows
//! fails here, anywhere in the product's source: the tests parse the files rather than search them
//! for words.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod sources;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use sources::{Named, root, sources};

/// Each module of the product, the modules that it may import, and its libraries. A module without
/// a row may import nothing.
const ALLOWED: &[(&str, &[&str], &[&str])] = &[
    // The types: the standard library suffices.
    ("model", &[], &[]),
    // The possible probes, and which of them this host supports.
    ("probes", &["model"], &[]),
    (
        "host",
        &["probes"],
        &[
            "landlock",
            "libc",
            "mptcp_trace_common",
            "rustix",
            "socket2",
            "zerocopy",
        ],
    ),
    (
        "plan",
        &["host", "model", "probes"],
        &["mptcp_trace_common"],
    ),
    // Attaches and reads without interpreting. The only module that names aya.
    (
        "kernel",
        &["host", "model", "plan", "probes"],
        &[
            "aya",
            "aya_log",
            "aya_obj",
            "libc",
            "miniz_oxide",
            "mptcp_trace_common",
            "rustix",
            "tokio",
            "zerocopy",
        ],
    ),
    // Calls getsockopt as any application does.
    ("canary", &["host", "model"], &["libc", "rustix", "socket2"]),
    // From bytes to findings. Only decode knows the wire; each stage knows the model and no other
    // stage.
    ("decode", &["model"], &["mptcp_trace_common", "zerocopy"]),
    ("enrich", &["model"], &[]),
    ("correlate", &["model"], &[]),
    // Depends on the model only.
    ("coalesce", &["model"], &[]),
    ("ledger", &["model"], &[]),
    ("paths", &["model"], &[]),
    ("observe", &["model"], &[]),
    ("peers", &["model"], &[]),
    ("aggregation", &["peers", "ledger", "model"], &[]),
    ("filter", &["model"], &["strsim"]),
    ("escape", &[], &["unicode_width"]),
    // Files.
    ("bundle", &[], &["tar", "tempfile", "ruzstd"]),
    (
        "capture",
        &["model"],
        &["mptcp_trace_common", "serde", "serde_json", "zerocopy"],
    ),
    ("redact", &[], &["mptcp_trace_common", "zerocopy"]),
    // What a capture that begins later needs, and the recorder whose captures do.
    ("history", &["decode", "model"], &[]),
    (
        "recorder",
        &["capture", "decode", "filter", "history", "model"],
        &["jiff", "rustix"],
    ),
    // Views. They do not depend on the source of the findings.
    (
        "sink",
        &["escape", "model"],
        &["itoa", "jiff", "serde", "serde_json", "unicode_width"],
    ),
    (
        "report",
        &["ledger", "model", "observe", "paths", "peers", "sink"],
        &["jiff", "maud", "serde_json"],
    ),
    (
        "annotate",
        &["escape", "filter", "ledger", "model", "observe"],
        &["etherparse"],
    ),
    // The only module that sends packets.
    (
        "hops",
        &["host", "model"],
        &["etherparse", "libc", "rustix", "serde_json", "socket2"],
    ),
    (
        "pair",
        &["escape", "filter", "model", "observe"],
        &["jiff", "serde", "serde_json"],
    ),
    (
        "serve",
        &["escape", "model", "observe", "peers", "recorder", "sink"],
        &[
            "flate2",
            "http_body_util",
            "hyper",
            "hyper_util",
            "ring_crypto",
            "rustix",
            "rustls",
            "rustls_native_certs",
            "serde",
            "serde_json",
            "tokio",
            "tokio_rustls",
            "webpki",
        ],
    ),
    (
        "top",
        &["ledger", "model", "observe", "paths", "sink", "aggregation"],
        &["ratatui"],
    ),
    // The event loop.
    (
        "pipeline",
        &[
            "canary",
            "capture",
            "coalesce",
            "correlate",
            "decode",
            "enrich",
            "history",
            "host",
            "kernel",
            "model",
            "observe",
            "peers",
            "plan",
            "recorder",
            "redact",
            "sink",
            "aggregation",
            "filter",
        ],
        &["libc", "rustix", "tokio"],
    ),
    // The command line. No module imports it, and it does not name aya.
    (
        "cli",
        &[
            "annotate",
            "bundle",
            "capture",
            "coalesce",
            "correlate",
            "decode",
            "enrich",
            "history",
            "host",
            "hops",
            "kernel",
            "model",
            "observe",
            "pair",
            "pipeline",
            "plan",
            "probes",
            "recorder",
            "redact",
            "report",
            "serve",
            "sink",
            "aggregation",
            "top",
            "filter",
        ],
        &[
            "anstyle_query",
            "clap",
            "clap_complete",
            "env_logger",
            "if_addrs",
            "jiff",
            "libc",
            "miniz_oxide",
            "mptcp_trace_common",
            "mptcp_trace_scene",
            "ratatui",
            "rustix",
            "sd_notify",
            "signal_hook",
            "serde",
            "serde_json",
            "tempfile",
            "tokio",
            "toml",
            "zerocopy",
        ],
    ),
];

/// Libraries that every module may use.
const LIBRARIES_OF_ALL: &[&str] = &["anyhow", "log"];

/// Only the event loop uses tokio.
const TOKIO_ONLY_IN: &[&str] = &[
    "mptcp-trace/src/kernel/ring.rs",
    "mptcp-trace/src/pipeline",
    "mptcp-trace/src/cli",
    "mptcp-trace/src/serve/http.rs",
    "mptcp-trace/src/serve/listen.rs",
    "mptcp-trace/src/serve/otlp/export.rs",
    "mptcp-trace/src/serve/otlp/tls.rs",
];

/// Only these files contain unsafe code.
const UNSAFE_ONLY_IN: &[&str] = &[
    "mptcp-trace-ebpf/src/maps.rs",
    "mptcp-trace-ebpf/src/kernel.rs",
    "mptcp-trace-ebpf/src/kernel/registers.rs",
    "mptcp-trace-ebpf/src/kernel/net.rs",
    "mptcp-trace-ebpf/src/kernel/system_call.rs",
    "mptcp-trace-ebpf/src/kernel/task.rs",
    "mptcp-trace-ebpf/src/admit.rs",
    "mptcp-trace-ebpf/src/emit.rs",
    "mptcp-trace-ebpf/src/entry.rs",
    "mptcp-trace-ebpf/src/kernel/packet.rs",
    "mptcp-trace-ebpf/src/kernel/path.rs",
    "mptcp-trace-ebpf/src/sensors/subflow/happened.rs",
    "mptcp-trace-ebpf/src/sensors/subflow/record.rs",
    "mptcp-trace-ebpf/src/turns.rs",
    "mptcp-trace-ebpf/src/sensors/query/kprobe.rs",
    "mptcp-trace-ebpf/src/sensors/fallback/listed.rs",
    "mptcp-trace/src/canary.rs",
    "mptcp-trace/src/canary/userns_sockets.rs",
    "mptcp-trace/src/host/system.rs",
    "mptcp-trace/src/kernel/counters.rs",
    "mptcp-trace/src/kernel/load.rs",
    "mptcp-trace/src/kernel/mark.rs",
    "mptcp-trace/src/kernel/syscall.rs",
    "mptcp-trace/src/kernel/ring.rs",
    "mptcp-trace/src/kernel/trial.rs",
    "mptcp-trace/src/pipeline/command.rs",
];

/// Maximum length of a program's main file, which only lists its parts.
const MAIN_LINES_MAX: usize = 60;
/// A longer file should be split in two.
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 80;

const PRODUCT: [&str; 3] = ["mptcp-trace", "mptcp-trace-common", "mptcp-trace-ebpf"];

/// The product module to which a path in `module` resolves; `None` if the path stays in its own
/// file or leads out of the product.
fn leads_to(path: &[String], module: &[String]) -> Option<String> {
    let mut at = module.to_vec();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => {
            at.clear();
            rest = &path[1..];
        }
        "super" => {
            while rest.first().is_some_and(|it| it == "super") {
                at.pop();
                rest = &rest[1..];
            }
        }
        _other => return None,
    }
    // In an inline module, `super` stays in the same file.
    at.first().cloned().or_else(|| rest.first().cloned())
}

/// Crate names of the product's dependencies, as written in code.
fn libraries() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for of in PRODUCT {
        let manifest = fs::read_to_string(root().join(of).join("Cargo.toml")).unwrap();
        let mut is_in = false;
        for line in manifest.lines() {
            if line.starts_with('[') {
                is_in = line.contains("dependencies") && !line.contains("dev-");
            } else if let Some(name) = line.split(['.', ' ', '=']).next().filter(|_| is_in)
                && !name.is_empty()
                && !name.starts_with('#')
            {
                found.insert(name.replace('-', "_"));
            }
        }
    }
    found
}

#[test]
fn no_folder_imports_what_it_must_not() {
    let libraries = libraries();
    assert!(libraries.contains("aya") && libraries.contains("clap"));
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for source in sources("mptcp-trace") {
        let Some(own) = source.module.first() else {
            continue;
        };
        seen.insert(own.clone());
        let allowed = ALLOWED.iter().find(|(name, ..)| name == own);
        let (modules, its_libraries) = allowed.map_or((&[][..], &[][..]), |it| (it.1, it.2));
        for (path, line) in Named::of(&source).all() {
            let library = path
                .first()
                .filter(|it| libraries.contains(it.as_str()) && path.len() > 1);
            if let Some(library) = library
                && !its_libraries.contains(&library.as_str())
                && !LIBRARIES_OF_ALL.contains(&library.as_str())
            {
                faults.push(format!(
                    "{}:{line}: {own} uses the library {library}",
                    source.path
                ));
            }
            if let Some(other) = leads_to(path, &source.module)
                && other != *own
                && !modules.contains(&other.as_str())
            {
                faults.push(format!("{}:{line}: {own} knows {other}", source.path));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    let listed: BTreeSet<String> = ALLOWED.iter().map(|it| it.0.to_owned()).collect();
    assert_eq!(
        listed, seen,
        "modules that are listed, and those that there are"
    );
}

#[test]
fn the_arrows_make_no_circle() {
    let arrows: BTreeMap<&str, &[&str]> = ALLOWED.iter().map(|it| (it.0, it.1)).collect();
    let mut left: BTreeSet<&str> = arrows.keys().copied().collect();
    while let Some(last) = left
        .iter()
        .copied()
        .find(|it| arrows[it].iter().all(|other| !left.contains(other)))
    {
        left.remove(last);
    }
    assert!(left.is_empty(), "these know each other: {left:?}");
}

/// Files of one directory must not import each other in a cycle, however long: such files are one
/// unit split in two.
#[test]
fn files_of_one_folder_make_no_circle() {
    let mut faults = Vec::new();
    for of in [
        "mptcp-trace",
        "mptcp-trace-ebpf",
        "mptcp-trace-common",
        "scene",
        "lab",
        "xtask",
    ] {
        let mut arrows: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
        let all = sources(of);
        let modules: BTreeSet<Vec<String>> = all.iter().map(|it| it.module.clone()).collect();
        for source in &all {
            let from = &source.module;
            for (path, _) in &Named::of(source).paths {
                if let Some(to) = file_of(path, from, &modules)
                    && to != *from
                    // A directory's own file and the files in it count as one.
                    && !to.starts_with(from)
                    && !from.starts_with(&to)
                    && to[..to.len() - 1] == from[..from.len() - 1]
                {
                    arrows.entry(from.clone()).or_default().insert(to);
                }
            }
        }
        // Remove files that only lead to a cycle without being part of it.
        let mut left: BTreeSet<&Vec<String>> = arrows.keys().collect();
        if std::env::var("SHOW").is_ok() {
            for (a, b) in &arrows {
                println!(
                    "{of} {} -> {}",
                    a.join("::"),
                    b.iter().map(|x| x.join("::")).collect::<Vec<_>>().join(" ")
                );
            }
        }
        while let Some(last) = left
            .iter()
            .copied()
            .find(|it| arrows[*it].iter().all(|other| !left.contains(other)))
        {
            left.remove(last);
        }
        // Some of these only lead to a cycle; their imports show which.
        for it in left.iter().copied() {
            let imports = arrows[it].iter().filter(|other| left.contains(other));
            let imports: Vec<_> = imports.map(|it| it.join("::")).collect();
            faults.push(format!(
                "{of}: {} imports {}",
                it.join("::"),
                imports.join(", ")
            ));
        }
    }
    assert!(
        faults.is_empty(),
        "these know each other:\n{}",
        faults.join("\n")
    );
}

/// The module with its own file to which a path resolves.
fn file_of(
    path: &[String],
    from: &[String],
    modules: &BTreeSet<Vec<String>>,
) -> Option<Vec<String>> {
    let mut at = from.to_vec();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => {
            at.clear();
            rest = &path[1..];
        }
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|it| it == "super") {
                at.pop();
                rest = &rest[1..];
            }
        }
        _other => return None,
    }
    for segment in rest {
        let mut next = at.clone();
        next.push(segment.clone());
        if !modules.contains(&next) {
            break;
        }
        at = next;
    }
    (!at.is_empty()).then_some(at)
}

#[test]
fn no_verb_knows_another() {
    let mut faults = Vec::new();
    let verbs = |path: &[String]| path.len() > 2 && path[..2] == ["cli", "verbs"];
    for source in sources("mptcp-trace").iter().filter(|it| verbs(&it.module)) {
        for (path, line) in Named::of(source).all() {
            let names = path.iter().position(|it| it == "verbs");
            let other = names.and_then(|at| path.get(at + 1));
            if other.is_some_and(|it| *it != source.module[2]) {
                faults.push(format!("{}:{line}: {}", source.path, path.join("::")));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_bpf_side_and_the_wire_import_neither_std_nor_userspace() {
    for (of, forbidden) in [
        (
            "mptcp-trace-common",
            &["std", "aya", "mptcp_trace", "aya_ebpf"][..],
        ),
        (
            "mptcp-trace-ebpf",
            &["std", "mptcp_trace", "mptcp_trace_lab", "mptcp_trace_scene"],
        ),
    ] {
        for source in sources(of) {
            for (path, line) in Named::of(&source).all() {
                let first = path.first().map_or("", String::as_str);
                let is_name_alone = path.len() == 1;
                assert!(
                    is_name_alone || !forbidden.contains(&first),
                    "{}:{line}: {first}",
                    source.path
                );
            }
        }
    }
}

fn is_within(path: &str, places: &[&str]) -> bool {
    places
        .iter()
        .any(|place| Path::new(path).starts_with(place))
}

#[test]
fn tokio_is_only_in_the_event_loop() {
    for source in sources("mptcp-trace") {
        let named = Named::of(&source);
        let uses = named
            .all()
            .find(|(path, _)| path.first().is_some_and(|it| it == "tokio"));
        assert!(
            uses.is_none() || is_within(&source.path, TOKIO_ONLY_IN),
            "{}: {uses:?}",
            source.path
        );
    }
}

#[test]
fn unsafe_code_is_only_in_named_files() {
    let mut faults = Vec::new();
    let mut has = BTreeSet::new();
    for source in PRODUCT.iter().flat_map(|of| sources(of)) {
        if let Some(line) = Named::of(&source).has_unsafe {
            has.insert(source.path.clone());
            if !is_within(&source.path, UNSAFE_ONLY_IN) {
                faults.push(format!("{}:{line}", source.path));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    let idle: Vec<_> = UNSAFE_ONLY_IN
        .iter()
        .filter(|it| !has.contains(**it))
        .collect();
    assert!(idle.is_empty(), "named, and without any: {idle:?}");
}

#[test]
fn files_and_functions_stay_short() {
    let mut faults = Vec::new();
    for source in PRODUCT.iter().flat_map(|of| sources(of)) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!("{} has {lines} lines", source.path));
        }
        for (name, lines) in Named::of(&source).functions {
            if lines > FUNCTION_LINES_MAX {
                faults.push(format!("{}: {name} has {lines} lines", source.path));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
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
