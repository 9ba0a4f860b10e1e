//! Views of findings: selection, summaries, and conditions that fail a run. Most tests replay
//! captures of real kernels, without privileges; live tests check that the view is the same there.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::common::{PATIENCE, asker, json_lines, may_trace, run, stderr, tracer};

/// A capture in the repository.
fn fixture(kernel: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../captures")
        .join(kernel)
        .join("fallbacks.mpt")
}

/// Replays a capture of Linux 6.12; returns its lines, its stderr and its exit code.
fn replay(words: &[&str]) -> (Vec<Value>, String, Option<i32>) {
    let capture = fixture("6.12-fexit");
    let output = run([
        &["replay", "-v", "--json"],
        words,
        &[capture.to_str().unwrap()],
    ]
    .concat());
    (json_lines(&output), stderr(&output), output.status.code())
}

/// All lines except the first and the last.
fn findings(lines: &[Value]) -> &[Value] {
    assert_eq!(lines.first().unwrap()["type"], "start");
    assert_eq!(lines.last().unwrap()["type"], "end");
    &lines[1..lines.len() - 1]
}

#[test]
fn a_filter_shows_what_it_says_and_counts_the_rest() {
    let (all, _, _) = replay(&[]);
    let all = findings(&all);
    let of = |line: &Value, name: &str| line["data"][name].clone();
    let pid = |line: &Value| match &line["data"]["owner"]["pid"] {
        owner if owner.is_null() => of(line, "pid"),
        owner => owner.clone(),
    };
    type Holds<'a> = Box<dyn Fn(&Value) -> bool + 'a>;
    let (number, namespace) = (
        all[0]["data"]["remote"]["port"].clone(),
        all[0]["data"]["netns"].clone(),
    );
    let process = pid(&all[0]);
    let (port, netns, process_id) = (
        number.to_string(),
        namespace.to_string(),
        process.to_string(),
    );
    let rows: Vec<(Vec<&str>, Holds<'_>)> = vec![
        (
            vec!["--cause", "DssFallback"],
            Box::new(|it| of(it, "cause") == "DssFallback"),
        ),
        (
            vec!["--cause", "mptcpextdssfallback", "--cause", "InfiniteMapTx"],
            Box::new(|it| {
                ["DssFallback", "InfiniteMapTx"]
                    .iter()
                    .any(|name| of(it, "cause") == *name)
            }),
        ),
        (
            vec!["--verdict", "never-asked"],
            Box::new(|it| of(it, "verdict") == "never-asked"),
        ),
        (
            vec!["--cause", "plain"],
            Box::new(|it| it["type"] == "plain"),
        ),
        (
            vec!["--pid", &process_id],
            Box::new(|it| pid(it) == process),
        ),
        (
            vec!["--comm", "lab-client", "--verdict", "explained"],
            Box::new(|it| of(it, "comm") == "lab-client" && of(it, "verdict") == "explained"),
        ),
        (
            vec!["--port", &port],
            Box::new(|it| {
                ["local", "remote"]
                    .iter()
                    .any(|end| it["data"][end]["port"] == number)
            }),
        ),
        (
            vec!["--netns", &netns],
            Box::new(|it| it["data"]["netns"] == namespace),
        ),
        (
            vec!["--addr", "10.77.0.0/24"],
            Box::new(|it| {
                ["local", "remote"].iter().any(|end| {
                    let addr = it["data"][end]["addr"].as_str();
                    addr.is_some_and(|addr| addr.starts_with("10.77.0."))
                })
            }),
        ),
        (vec!["--addr", "10.78.0.0/16"], Box::new(|_| false)),
        (vec!["--cgroup", "/"], Box::new(|_| true)),
        (vec!["--cgroup", "1"], Box::new(|_| true)),
        (vec!["--cgroup", "/nowhere"], Box::new(|_| false)),
    ];
    for (words, holds) in rows {
        let (lines, said, code) = replay(&words);
        let expected: Vec<&Value> = all.iter().filter(|line| holds(line)).collect();
        let shown: Vec<&Value> = findings(&lines).iter().collect();
        assert_eq!(shown, expected, "{words:?}");
        assert_eq!(code, Some(0));
        let left_out = all.len() - shown.len();
        let end = &lines.last().unwrap()["data"];
        assert_eq!(end["findings"], shown.len(), "{words:?}");
        assert_eq!(end["not_shown"], left_out, "{words:?}");
        let sentence = match left_out {
            1 => "not shown: 1 finding\n".to_owned(),
            n => format!("not shown: {n} findings\n"),
        };
        assert!(said.contains(&sentence), "{words:?}: {said}");
        // The counters of the BPF side do not change.
        for losses in end["losses"].as_array().unwrap() {
            let seen = &losses["seen"];
            let sentence = format!("{seen} seen = {seen} recorded + 0 filtered + 0 lost");
            assert!(said.contains(&sentence), "{said}");
        }
    }
}

#[test]
fn an_unknown_name_is_wrong_usage_and_answered_with_what_to_type() {
    for (words, says) in [
        (["--cause", "DssFallbak"], "did you mean DssFallback?"),
        (["--cause", "!DssFallbak"], "did you mean DssFallback?"),
        (
            ["--cause", "DssFallback,nonsense"],
            "MPCapableFallbackSYNACK",
        ),
        (["--kind", "fallbacks"], "did you mean fallback?"),
        (["--verdict", "fine"], "never-asked"),
        (["--addr", "localhost"], "is not an address"),
        (["--addr", "[::1]:443"], "--port 443"),
        (["--port", "0"], "from 1 to 65535"),
        (["--port", "90-80"], "80-90"),
        (["--cgroup", "nginx"], "write a path"),
    ] {
        let (_, said, code) = {
            let output = run([&["replay"], &words[..], &["x"]].concat());
            ((), stderr(&output), output.status.code())
        };
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(says), "{said}");
        // The same for a live run.
        assert_eq!(run(words).status.code(), Some(2));
    }
}

#[test]
fn a_live_view_shows_what_a_replay_of_the_same_run_shows() {
    if !may_trace("a_live_view_shows_what_a_replay_of_the_same_run_shows") {
        return;
    }
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let is_elsewhere = cgroup.lines().any(|line| !line.ends_with(":/"));
    let cgroup = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
    // In the root of the cgroup v2 hierarchy, or with cgroup v1 only, no cgroup is reported.
    let is_known = cgroup.is_some_and(|path| path != "/" || !is_elsewhere);
    let netns = std::fs::metadata("/proc/self/ns/net").unwrap();
    let netns = std::os::unix::fs::MetadataExt::ino(&netns).to_string();
    // `basic` makes a query too early, falls back, makes a query after that, and one about plain
    // TCP. The asker's thread has the name that libtest takes from the test; the process has
    // another name. The listener closes first and resets the path.
    let all = [
        "query",
        "fallback",
        "query",
        "query",
        "path_down",
        "closed",
        "end",
    ];
    let thread = "asker_in_disgui";
    for (words, types, not_shown) in [
        (vec![], &all[..], 0),
        (
            vec!["--cause", "MPCapableFallbackSYNACK"],
            &["fallback", "query", "closed", "end"],
            4,
        ),
        (vec!["--verdict", "too-early"], &["query", "end"], 6),
        (vec!["--verdict", "stale"], &["end"], 7),
        (vec!["--addr", "127.0.0.0/8"], &all[1..], 1),
        (vec!["--port", "9"], &["end"], 7),
        (
            vec!["--cgroup", cgroup.unwrap_or("/")],
            if is_known { &all } else { &["end"] },
            if is_known { 0 } else { 7 },
        ),
        (vec!["--by", "cause"], &["summary", "end"], 0),
        // In a live run the kernel applies these filters, so no findings are left to hide.
        (vec!["--netns", &netns], &all, 0),
        (vec!["--netns", "1"], &["end"], 0),
        (
            vec!["--comm", thread],
            &["query", "query", "query", "end"],
            0,
        ),
    ] {
        let (_dir, capture) = crate::common::scratch("run.mpt");
        let path = capture.to_str().unwrap();
        let command = asker("basic");
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let live = run([
            &["--json", "--capture", path],
            &words[..],
            &["--"],
            &command,
        ]
        .concat());
        assert_eq!(live.status.code(), Some(0), "{}", stderr(&live));
        // Ignore the test output of the asker.
        let shown = |output: &std::process::Output| -> Vec<Value> {
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .filter(|line| line.starts_with("{\"type\""))
                .map(|line| serde_json::from_str(line).unwrap())
                .filter(|line: &Value| line["type"] != "start")
                .collect()
        };
        let replayed = shown(&run([&["replay", "--json"], &words[..], &[path]].concat()));
        assert_eq!(shown(&live), replayed, "{words:?}");
        let shown: Vec<&str> = replayed
            .iter()
            .map(|it| it["type"].as_str().unwrap())
            .collect();
        assert_eq!(shown, types, "{words:?}");
        assert_eq!(replayed.last().unwrap()["data"]["not_shown"], not_shown);
    }
}

#[test]
fn a_run_fails_on_what_was_named_shown_or_not() {
    let (all, _, _) = replay(&[]);
    let count =
        |is_it: &dyn Fn(&Value) -> bool| findings(&all).iter().filter(|it| is_it(it)).count();
    let of = |field: &'static str, word: &'static str| count(&|it| it["data"][field] == word);
    let closing_verdict = format!("closing verdicts: {} printed", of("verdict", "never-asked"));
    for (words, fails, first) in [
        (
            &["--fail-on", "fallback"][..],
            count(&|it| it["type"] == "fallback"),
            "fallback MPCapable",
        ),
        (
            &["--fail-on", "never-asked", "--cause", "plain"],
            of("verdict", "never-asked"),
            "verdict never-asked lab-client",
        ),
        (
            &["--fail-on", "never-asked", "--verdict", "never-asked"],
            of("verdict", "never-asked"),
            &closing_verdict,
        ),
        (
            &["--fail-on", "InfiniteMapTx", "--summary"],
            of("cause", "InfiniteMapTx"),
            "fallback InfiniteMapTx",
        ),
        (
            &["--fail-on", "Blackhole"],
            count(&|it| it["type"] == "blackhole"),
            "blackhole MPTCP off",
        ),
        (
            &["--fail-on", "contradicted", "--fail-on", "MD5SigFallback"],
            0,
            "",
        ),
    ] {
        let (_, said, exit) = replay(words);
        let code = if fails == 0 { 0 } else { 4 };
        let sentence = match fails {
            0 => String::new(),
            1 => "1 finding fails the run: ".to_owned(),
            n => format!("{n} findings fail the run, the first of them: "),
        };
        assert_eq!(exit, Some(code), "{words:?}: {said}");
        assert!(said.contains(&sentence), "{words:?}: {said}");
        assert!(said.contains(first), "{words:?}: {said}");
        assert_eq!(said.contains("--fail-on"), code == 4, "{said}");
    }
    let output = run(["--fail-on", "fallbak"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("did you mean fallback?"));
}

#[test]
fn a_command_that_fails_says_so_itself_and_one_that_does_not_is_failed_by_what_was_seen() {
    if !may_trace(
        "a_command_that_fails_says_so_itself_and_one_that_does_not_is_failed_by_what_was_seen",
    ) {
        return;
    }
    for (role, on, code) in [
        ("basic", "stale,fallback", 4),
        ("basic", "fallback", 4),
        ("basic", "contradicted", 0),
        ("exit 7", "too-early", 7),
        ("exit 0", "too-early", 4),
    ] {
        let mut words = ["--fail-on", on, "--"].map(str::to_owned).to_vec();
        words.extend(asker(role));
        let output = run(words);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{role} {on}: {said}");
    }
}

#[test]
fn the_end_is_one_line_if_all_is_well_and_quiet_prints_none() {
    let well = fixture("6.12-fexit");
    let well = well.to_str().unwrap();
    // A namespace that was gone at the end: nothing says that the kernel agrees.
    let doubtful = "../captures/sessions/host.mpt";
    let said = |words: &[&str]| stderr(&run([&["replay"], words].concat()));
    let brief = said(&[well]);
    assert!(
        brief.lines().count() == 1
            && brief.starts_with("mptcp-trace: 103 findings (11 fallbacks never asked about")
            && brief.ends_with("; 0 lost, kernel agrees (38 fallbacks on the host)\n"),
        "{brief}"
    );
    let filtered = said(&["--cause", "DssFallback", well]);
    assert!(filtered.contains(" not shown; 0 lost"), "{filtered}");
    let full = said(&["-v", well]);
    assert!(full.contains("query: 59 printed; 59 seen"), "{full}");
    assert_eq!(said(&["-q", well]), "");
    let failing = said(&["--fail-on", "fallback", well]);
    assert!(
        failing.lines().count() == 2 && failing.contains("--fail-on: 38 findings fail the run"),
        "{failing}"
    );
    assert_eq!(
        said(&["-q", "--fail-on", "fallback", well]).lines().count(),
        1
    );
    let doubt = said(&[doubtful]);
    assert_eq!(
        doubt,
        "mptcp-trace: 9 findings; 0 lost; kernel counters could not be read in 1 network \
         namespace (-v)\n"
    );
    let why = said(&["-v", doubtful]);
    assert!(why.contains("the namespace is gone"), "{why}");
    assert_eq!(said(&["-q", doubtful]), doubt);
    assert_eq!(run(["-q", "-v", "replay", well]).status.code(), Some(2));
}

#[test]
fn lines_fit_the_terminal_and_are_whole_elsewhere() {
    let capture = fixture("6.12-fexit");
    let capture = capture.to_str().unwrap();
    let print = |columns: Option<&str>, words: &[&str]| {
        let mut command = tracer();
        command.args([&["replay", "--utc"], words, &[capture]].concat());
        match columns {
            Some(columns) => command.env("COLUMNS", columns),
            None => command.env_remove("COLUMNS"),
        };
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    for columns in ["60", "80", "132"] {
        let width: usize = columns.parse().unwrap();
        let text = print(Some(columns), &[]);
        assert!(text.lines().count() > 50, "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= width),
            "{text}"
        );
    }
    let whole = print(None, &[]);
    assert_eq!(print(Some("80"), &["--wide"]), whole);
    assert!(!whole.contains('…'), "{whole}");
    let chosen = print(None, &["--columns", "result,pid", "--kind", "fallback"]);
    let first: Vec<&str> = chosen.lines().next().unwrap().split_whitespace().collect();
    assert!(
        first.len() == 2 && first[1].parse::<u32>().is_ok(),
        "{chosen}"
    );
    let why = print(Some("80"), &["--why", "--kind", "fallback"]);
    assert!(why.lines().any(|line| line.starts_with("    ")), "{why}");
    let listed = print(None, &["--kind", "verdict"]);
    assert!(listed.contains("never-asked"), "{listed}");
    assert!(!whole.contains("never-asked"), "{whole}");
}

#[test]
fn sums_stand_in_place_of_lines_and_add_up() {
    let (all, _, _) = replay(&[]);
    let all = findings(&all);
    let count = |name: &str| all.iter().filter(|line| line["type"] == name).count();
    let fallen: BTreeSet<&str> = all
        .iter()
        .filter(|line| line["type"] == "fallback")
        .map(|line| line["data"]["id"].as_str().unwrap())
        .collect();
    for by in [
        "dest",
        "process",
        "cause",
        "netns",
        "cgroup",
        "verdict",
        "path",
        "endpoint",
        "interface",
    ] {
        let (lines, said, code) = replay(&["--by", by]);
        assert_eq!(code, Some(0));
        let [summary] = findings(&lines) else {
            panic!("{lines:?}")
        };
        assert_eq!(summary["type"], "summary");
        let data = &summary["data"];
        assert_eq!(data["by"], by);
        assert_eq!(data["others"], Value::Null);
        let rows = data["rows"].as_array().unwrap();
        let total =
            |field: &str| -> u64 { rows.iter().map(|row| row[field].as_u64().unwrap()).sum() };
        let verdicts: u64 = rows
            .iter()
            .flat_map(|row| row["verdicts"].as_object().unwrap().values())
            .map(|count| count.as_u64().unwrap())
            .sum();
        assert_eq!(total("questions"), count("query") as u64, "{by}");
        // A line with a verdict does not show that its socket reconnected and fell back again.
        let fallbacks = if by == "verdict" {
            fallen.len()
        } else {
            count("fallback")
        };
        assert_eq!(total("fallbacks"), fallbacks as u64, "{by}");
        assert_eq!(verdicts, (count("query") + count("verdict")) as u64, "{by}");
        assert_eq!(lines.last().unwrap()["data"]["findings"], all.len());
        let counted = count("query") + count("option_refused") + count("socket_refused");
        let sentence = format!("query: {counted} summed up; {counted} seen");
        assert!(said.contains(&sentence), "{said}");
    }
    let capture = fixture("6.12-fexit");
    let output = run(["replay", "--summary", capture.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    let heads: Vec<&str> = text
        .split("\n\n")
        .filter_map(|table| table.split_whitespace().next())
        .collect();
    assert_eq!(heads, ["PROCESS", "CAUSE", "DEST"], "{text}");
    // The table shows the same values as the JSON object.
    let (lines, _, _) = replay(&["--by", "dest"]);
    let row = &lines[1]["data"]["rows"][0];
    let share = format!("{:.0}%", row["share"].as_f64().unwrap() * 100.0);
    let expected = [
        row["key"].as_str().unwrap(),
        &row["connections"].to_string(),
        &row["fallbacks"].to_string(),
        &share,
        &row["questions"].to_string(),
    ];
    let shown = text
        .lines()
        .map(|line| line.split_whitespace().take(5).collect::<Vec<_>>())
        .find(|words| words.first() == expected.first());
    assert_eq!(shown.unwrap(), expected, "{text}");
}

/// In each table, the verdicts are the answers, and the connections that nobody asked about.
#[test]
fn sums_count_each_answer_once_and_a_connection_that_was_never_asked_once() {
    for kernel in ["6.1-kprobe", "6.12-fexit", "7.3-tracepoint"] {
        let capture = fixture(kernel).with_file_name("verdicts.mpt");
        let capture = capture.to_str().unwrap();
        let lines = json_lines(&run(["replay", "--json", capture]));
        let mut asked = BTreeSet::new();
        let (mut expected, mut closed) = (0, 0);
        for line in findings(&lines) {
            let id = line["data"]["id"].to_string();
            match line["type"].as_str().unwrap() {
                "query" if !line["data"]["verdict"].is_null() => {
                    asked.insert(id);
                    expected += 1;
                }
                "verdict" => {
                    closed += 1;
                    expected += u64::from(!asked.contains(&id));
                }
                _other => {}
            }
        }
        assert!(closed >= 4, "{kernel}: {closed}");
        for by in ["process", "cause", "dest", "netns", "cgroup", "verdict"] {
            let lines = json_lines(&run(["replay", "--json", "--by", by, capture]));
            let rows = findings(&lines)[0]["data"]["rows"].as_array().unwrap();
            let verdicts = rows.iter().flat_map(|row| {
                let verdicts = row["verdicts"].as_object().unwrap();
                verdicts.values().map(|count| count.as_u64().unwrap())
            });
            assert_eq!(verdicts.sum::<u64>(), expected, "{kernel}, by {by}");
        }
    }
}

#[test]
fn paths_are_summed_up_by_the_interface_of_this_namespace() {
    if !may_trace("paths_are_summed_up_by_the_interface_of_this_namespace") {
        return;
    }
    let (_dir, capture) = crate::common::scratch("run.mpt");
    let path = capture.to_str().unwrap();
    let command = asker("basic");
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let words = ["--json", "--by", "interface", "--capture", path, "--"];
    let live = run([&words[..], &command].concat());
    // A replay may be on another host.
    let replayed = run(["replay", "--json", "--by", "interface", path]);
    for (output, key) in [(live, "lo"), (replayed, "127.0.0.1")] {
        let text = String::from_utf8_lossy(&output.stdout);
        let mut lines = text.lines();
        let summary = lines.find(|line| line.starts_with("{\"type\":\"summary\""));
        let summary: Value = serde_json::from_str(summary.unwrap()).unwrap();
        let rows = summary["data"]["rows"].as_array().unwrap();
        let row = rows.iter().find(|row| row["key"] == key);
        let row = row.unwrap_or_else(|| panic!("{summary}"));
        assert_eq!(row["connections"], 1, "{summary}");
        assert_eq!(row["fallbacks"], 1, "{summary}");
        assert_eq!(row["paths_up"], 1, "{summary}");
        assert_eq!(row["paths_down"], 1, "{summary}");
    }
}

#[test]
fn a_signal_asks_for_the_sums_so_far() {
    if !may_trace("a_signal_asks_for_the_sums_so_far") {
        return;
    }
    use std::io::Write as _;
    let mut child = crate::common::spawn_asker("falls");
    let tracer = crate::common::Background::start(&[
        "--json",
        "--by",
        "cause",
        "--pid",
        &child.id().to_string(),
    ]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b".").unwrap();
    // The fallback may not have arrived yet: request again.
    let start = std::time::Instant::now();
    let first = |line: &str| line.contains("\"summary\"") && line.contains("\"fallbacks\":1,");
    while !tracer.printed().lines().any(first) {
        assert!(start.elapsed() < PATIENCE, "{}", tracer.printed());
        tracer.signal(rustix::process::Signal::USR1);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    stdin.write_all(b".").unwrap();
    drop(stdin);
    child.wait().unwrap();
    let lines = json_lines(&tracer.output());
    let mut counts: Vec<u64> = findings(&lines)
        .iter()
        .map(|line| line["data"]["rows"][0]["fallbacks"].as_u64().unwrap_or(0))
        .collect();
    counts.dedup();
    assert!(
        [&[0, 1, 2][..], &[1, 2]].contains(&&counts[..]),
        "{lines:?}"
    );
}

#[test]
fn colours_are_where_they_are_wanted() {
    let capture = concat!(env!("CARGO_MANIFEST_DIR"), "/../captures/sessions/path.mpt");
    let is_coloured = |words: &[&str], set: &[(&str, &str)]| {
        let mut tracer = tracer();
        tracer.args(["replay", capture]).args(words);
        tracer.envs(set.iter().copied());
        tracer.output().unwrap().stdout.contains(&0x1b)
    };
    // Not on a terminal.
    for (words, set, colours) in [
        (&[][..], &[][..], false),
        (&["--color", "always"], &[], true),
        (&["--color", "never"], &[("CLICOLOR_FORCE", "1")], false),
        (&[], &[("CLICOLOR_FORCE", "1")], true),
        (&[], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
        (&["--color", "always"], &[("NO_COLOR", "1")], true),
    ] {
        assert_eq!(is_coloured(words, set), colours, "{words:?} {set:?}");
    }
}
