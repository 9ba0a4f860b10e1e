//! The metrics of `serve` against captures of real kernels, and what is built on them: the dashboard
//! and the alert rules.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use mptcp_trace::{
    capture::Reader,
    model::SensorId,
    pipeline::{Stages, View, play},
    serve::{
        counters::{Counters, Shared},
        paths::Paths,
    },
    sink::{Format, Source},
};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn captures() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for kernel in fs::read_dir(root().join("captures")).unwrap() {
        let kernel = kernel.unwrap().path();
        if kernel.is_dir() {
            let files = fs::read_dir(kernel).unwrap();
            found.extend(files.map(|it| it.unwrap().path()));
        }
    }
    found.retain(|path| path.extension().is_some_and(|it| it == "mpt"));
    found
}

/// Label values of all series without an owner, by family.
fn series(counters: &Counters) -> BTreeSet<String> {
    let Counters {
        fallbacks,
        refused,
        queries,
        verdicts,
        paths,
        ..
    } = counters;
    let Paths {
        connections,
        connect_failures,
        paths,
        stale: _,
        carried,
    } = paths;
    let fallbacks = fallbacks.keys().map(|it| format!("fallbacks {it:?}"));
    let refused = refused.keys().map(|it| format!("refused {it:?}"));
    let queries = queries.keys().map(|it| format!("queries {it:?}"));
    let verdicts = verdicts.keys().map(|it| format!("verdicts {it:?}"));
    let connections = connections.keys().map(|it| format!("connections {it}"));
    let failures = connect_failures.keys().map(|it| format!("failures {it}"));
    let paths = paths.keys().map(|it| format!("paths {it:?}"));
    let carried = carried.keys().map(|it| format!("carried {it}"));
    let all = fallbacks.chain(refused).chain(queries).chain(verdicts);
    let of_paths = connections.chain(failures).chain(paths).chain(carried);
    all.chain(of_paths).collect()
}

/// Kernels from 6.1 to 7.3, with every attach method.
#[test]
fn what_real_kernels_do_is_counted_in_series_that_existed_before() {
    let captures = captures();
    assert!(captures.len() >= 30, "{captures:?}");
    let mut counted = 0;
    for path in captures {
        let file = BufReader::new(File::open(&path).unwrap());
        let (mut reader, facts) = Reader::open(file).unwrap();
        let shared = Shared::new(None, &facts);
        let traces_paths = facts.has_sensor(SensorId::Subflow);
        let before = shared.with(series);
        let most = match traces_paths {
            true => 200,
            false => 120,
        };
        let view = View {
            observers: vec![Box::new(shared.clone())],
            ..View::default()
        };
        let (format, source) = (Format::Nothing, Source::Replay);
        let mut stages = Stages::new(facts, format, source, io::sink(), None, view, None);
        let played = play(&mut stages, &mut reader).unwrap();
        stages.finish(&played.losses.unwrap()).unwrap();
        assert_eq!(shared.with(series), before, "{}", path.display());
        assert!(before.len() < most, "{} series", before.len());
        counted +=
            shared.with(|counters| counters.fallbacks() + counters.queries.values().sum::<u64>());
    }
    assert!(counted > 300, "{counted} findings");
}

fn dashboard() -> Value {
    let file = root().join("contrib/grafana/mptcp-trace.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// All panels that show data.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let all = dashboard["panels"].as_array().unwrap().iter();
    all.filter(|panel| panel["type"] != "row").collect()
}

fn queries(panel: &Value) -> Vec<&str> {
    let targets = panel["targets"].as_array().unwrap().iter();
    targets
        .map(|target| target["expr"].as_str().unwrap())
        .collect()
}

/// The metrics that a query or an alert names.
fn named(query: &str) -> BTreeSet<String> {
    let words = query.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    words
        .filter(|word| word.starts_with("mptcp_trace_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// The metrics in the table of docs/metrics.md, as they are queried.
fn documented() -> BTreeSet<String> {
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let names = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let names: BTreeSet<String> = names
        .filter(|name| name.starts_with("mptcp_trace_") || name.starts_with("process_"))
        .map(str::to_owned)
        .collect();
    assert!(names.len() > 30, "{names:?}");
    names
}

#[test]
fn each_panel_says_what_to_do_and_each_query_heeds_the_variables() {
    let dashboard = dashboard();
    let panels = panels(&dashboard);
    assert!(panels.len() >= 20);
    let mut titles = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(titles.insert(title), "{title} stands there twice");
        let description = panel["description"].as_str().unwrap_or("");
        assert!(description.len() >= 60, "{title}: {description:?}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let queries = queries(panel);
        assert!(!queries.is_empty(), "{title}");
        for query in queries {
            let metrics = named(query);
            assert!(!metrics.is_empty(), "{title}: {query}");
            // Each selector has both variables.
            let heeds = query
                .matches("{job=~\"$job\",instance=~\"$instance\"")
                .count();
            let selectors = query.matches('{').count();
            assert_eq!(heeds, selectors, "{title}: {query}");
            let mentions: usize = metrics
                .iter()
                .map(|it| query.matches(it.as_str()).count())
                .sum();
            assert_eq!(mentions, selectors, "{title}: {query}");
        }
    }
}

#[test]
fn the_variables_of_the_dashboard_are_those_of_its_queries() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
    for variable in &variables[1..] {
        // With `.*`, "All" would also match the processes of other jobs.
        assert!(variable.get("allValue").is_none(), "{variable}");
        assert_eq!(variable["includeAll"], true);
    }
    let instances = variables[2]["query"]["query"].as_str().unwrap();
    assert!(instances.contains("job=~\"$job\""), "{instances}");
}

#[test]
fn every_metric_has_its_panel_and_no_other_is_named() {
    let documented = documented();
    let dashboard = dashboard();
    let shown: BTreeSet<String> = panels(&dashboard)
        .into_iter()
        .flat_map(queries)
        .flat_map(named)
        .collect();
    let unknown: Vec<_> = shown.difference(&documented).collect();
    assert!(unknown.is_empty(), "the dashboard names {unknown:?}");
    // A size that means nothing to an operator.
    let left_out = ["process_threads", "process_virtual_memory_bytes"];
    let unseen: Vec<_> = documented.difference(&shown).collect();
    assert_eq!(unseen, left_out, "metrics without a panel");
    let rules = root().join("contrib/prometheus/mptcp-trace.rules.yml");
    let rules = fs::read_to_string(rules).unwrap();
    // An expression may have several lines.
    let exprs = rules.lines().filter(|line| {
        let others = ["#", "summary:", "description:", "runbook_url:"];
        !others.iter().any(|it| line.trim_start().starts_with(it))
    });
    let unknown: Vec<_> = exprs
        .flat_map(named)
        .filter(|it| !documented.contains(it))
        .collect();
    assert!(unknown.is_empty(), "the rules name {unknown:?}");
}

/// The lines of each alert rule, by its name.
fn rules(text: &str) -> Vec<(&str, &str)> {
    let rules = text.split("      - alert: ").skip(1);
    rules.filter_map(|rule| rule.split_once('\n')).collect()
}

#[test]
fn every_alert_names_its_host_and_its_job_and_leads_to_its_runbook() {
    const WHERE: &str = "runbook_url: \"file:///usr/share/doc/mptcp-trace/docs/alerts.md#";
    let read = |path| fs::read_to_string(root().join(path)).unwrap();
    let (text, page) = (
        read("contrib/prometheus/mptcp-trace.rules.yml"),
        read("docs/alerts.md"),
    );
    let rules = rules(&text);
    let names: Vec<&str> = rules.iter().map(|(name, _)| *name).collect();
    assert!(names.len() >= 12, "{names:?}");
    let sections: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    assert_eq!(sections, names.iter().copied().collect(), "docs/alerts.md");
    for (name, rule) in &rules {
        let link = rule.split_once(WHERE).map(|(_, rest)| rest.lines().next());
        // The anchor of a heading of one word.
        let anchor = format!("{}\"", name.to_lowercase());
        assert_eq!(link, Some(Some(&*anchor)), "{name}");
        for part in ["summary: ", "description: "] {
            assert!(rule.contains(part), "{name}");
        }
        // Without an aggregation, all labels stay.
        for by in rule.split(" by (").skip(1) {
            assert!(by.starts_with("job, instance"), "{name}: by ({by}");
        }
    }
}

/// pmdaopenmetrics ignores a file whose name cannot be part of a metric name, and takes the first
/// line as the URL.
#[test]
fn the_line_for_pcp_names_the_default_address() {
    let mut files = fs::read_dir(root().join("contrib/pcp")).unwrap();
    let file = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none());
    assert_eq!(file.extension().unwrap(), "url");
    let name = file.file_stem().unwrap().to_str().unwrap();
    assert!(name.chars().all(|it| it.is_ascii_lowercase() || it == '_'));
    let text = fs::read_to_string(file).unwrap();
    let serve = fs::read_to_string(root().join("contrib/serve.toml")).unwrap();
    let address = serve.split_once("#listen = \"127.0.0.1").unwrap().1;
    let port = address.split_once('"').unwrap().0;
    assert_eq!(text, format!("http://localhost{port}/metrics\n"));
}
