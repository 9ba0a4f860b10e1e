//! The JSON Schema is that of docs/output.md, and the lines are those of the schema.
//!
//! `UPDATE_GOLDENS=1 cargo test -p mptcp-trace --test schema` writes docs/schema.json anew.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test")]

mod page;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use jsonschema::Validator;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

const PAGE: &str = include_str!("../../../docs/output.md");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_mptcp-trace"))
        .args(words)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{words:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The schema that the program prints, in a validator that is not ours.
fn validator() -> Validator {
    let schema: Value = serde_json::from_str(&run(&["schema"])).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    jsonschema::draft202012::new(&schema).unwrap()
}

fn captures() -> Vec<PathBuf> {
    let folders = fs::read_dir(root().join("captures")).unwrap();
    let files = folders.filter_map(|folder| fs::read_dir(folder.unwrap().path()).ok());
    let files = files.flatten().map(|file| file.unwrap().path());
    let captures: Vec<_> = files
        .filter(|it| it.extension().is_some_and(|it| it == "mpt"))
        .collect();
    assert!(captures.len() > 20, "{captures:?}");
    captures
}

fn parsed(lines: &str) -> Vec<Value> {
    let lines = lines.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The lines that the captures print, in all forms.
fn replayed() -> Vec<Value> {
    let mut lines = Vec::new();
    for capture in captures() {
        let capture = capture.to_str().unwrap();
        for more in [
            &[][..],
            &["--summary"],
            &["--coalesce"],
            &["--by", "netns"],
            &["--by", "cgroup"],
        ] {
            let printed = run(&[&["replay", "--json", capture], more].concat());
            let printed: Vec<Value> = parsed(&printed);
            assert_eq!(printed.first().unwrap()["type"], "start");
            assert_eq!(printed.last().unwrap()["type"], "end");
            lines.extend(printed);
        }
    }
    lines
}

#[test]
fn the_schema_is_that_of_the_page() {
    let schema = page::schema(PAGE);
    let file = root().join("docs/schema.json");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(&file, serde_json::to_string_pretty(&schema).unwrap() + "\n").unwrap();
        return;
    }
    let written = fs::read_to_string(&file).unwrap();
    assert!(
        schema == serde_json::from_str::<Value>(&written).unwrap(),
        "docs/schema.json is not that of docs/output.md and the model: UPDATE_GOLDENS=1 cargo test \
         -p mptcp-trace --test schema"
    );
    assert_eq!(run(&["schema"]), written);
}

#[test]
fn every_line_of_every_capture_is_valid_and_every_type_of_a_line_appears() {
    let validator = validator();
    let mut kinds = BTreeSet::new();
    for line in replayed() {
        if let Err(why) = validator.validate(&line) {
            panic!("{why}: {line}");
        }
        kinds.insert(line["type"].as_str().unwrap().to_owned());
    }
    // No capture has a refused fallback, and `list` prints sockets: tests below. Lines of paths
    // that work are printed on request.
    let expected = [
        "blackhole",
        "closed",
        "end",
        "existing",
        "fallback",
        "option_refused",
        "path_down",
        "path_failed",
        "plain",
        "query",
        "socket_refused",
        "start",
        "summary",
        "verdict",
    ];
    assert_eq!(kinds, expected.map(str::to_owned).into());
}

/// A capture that has both ends can be compared with itself.
#[test]
fn lines_of_pair_are_valid() {
    let validator = validator();
    let mut types = BTreeSet::new();
    let captures = captures();
    for pair in captures.windows(2) {
        let [one, other] = [0, 1].map(|it| pair[it].to_str().unwrap());
        for line in parsed(&run(&["pair", "-v", "--json", one, other])) {
            if let Err(why) = validator.validate(&line) {
                panic!("{why}: {line}");
            }
            types.insert(line["type"].as_str().unwrap().to_owned());
        }
    }
    let expected = ["pair", "pair_end", "pair_start"];
    assert_eq!(types, expected.map(str::to_owned).into());
}

/// A capture of a host with pods is one with more frames.
#[test]
fn lines_of_pods_are_valid_and_name_them() {
    use mptcp_trace::{
        capture::{Frame, Reader, Writer},
        model::Pod,
    };
    let pod = Pod {
        uid: Some("0a1b2c3d-4e5f-6789-abcd-ef0123456789".into()),
        namespace: Some("shop".into()),
        name: Some("web-0".into()),
        container: None,
    };
    let folder = tempfile::tempdir().unwrap();
    let with_pods = folder.path().join("pods.mpt");
    let validator = validator();
    let mut named = 0;
    for capture in captures() {
        let (mut reader, facts) = Reader::open(fs::File::open(capture).unwrap()).unwrap();
        let mut writer = Writer::new(fs::File::create(&with_pods).unwrap(), &facts).unwrap();
        loop {
            let frame = reader.next_frame().unwrap();
            writer.add(&frame).unwrap();
            if let Frame::Place(id, _) = frame {
                writer.pod(id, &pod).unwrap();
            }
            if frame.is_last() {
                break;
            }
        }
        for line in parsed(&run(&["replay", "--json", with_pods.to_str().unwrap()])) {
            assert!(validator.is_valid(&line), "{line}");
            let owner = &line["data"]["owner"];
            if owner["cgroup"].is_string() {
                assert_eq!(owner["k8s.namespace.name"], "shop", "{line}");
                assert_eq!(owner["k8s.pod.name"], "web-0");
                assert_eq!(owner.get("k8s.container.name"), None);
                named += 1;
            }
        }
    }
    assert!(named > 100, "{named}");
}

/// A line of each type and shape.
fn samples() -> Vec<Value> {
    let mut shapes = BTreeSet::new();
    let mut samples = replayed();
    samples.retain(|line| {
        let data = line["data"].as_object().unwrap();
        let is_empty = |it: &Value| it.is_null() || it.as_array().is_some_and(Vec::is_empty);
        let empty: Vec<&String> = data
            .iter()
            .filter(|it| is_empty(it.1))
            .map(|it| it.0)
            .collect();
        shapes.insert(format!("{} {empty:?}", line["type"]))
    });
    let fallback = samples.iter().find(|it| it["type"] == "fallback").unwrap();
    let mut refused = fallback.clone();
    refused["type"] = json!("refused");
    samples.push(refused);
    assert!(samples.len() > 20);
    samples
}

/// All objects in a line, as JSON pointers.
fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            found.push(at.to_owned());
            for (name, value) in object {
                objects(value, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(values) => {
            for (number, value) in values.iter().enumerate() {
                objects(value, &format!("{at}/{number}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Objects with names from outside: any name is valid.
fn is_map(pointer: &str) -> bool {
    ["/counted", "/traced"]
        .iter()
        .any(|end| pointer.ends_with(end))
}

#[test]
fn a_line_with_a_field_too_many_or_too_few_is_not_valid() {
    let validator = validator();
    for line in samples() {
        assert!(validator.is_valid(&line), "{line}");
        let mut all = Vec::new();
        objects(&line, "", &mut all);
        for pointer in all.iter().filter(|it| !is_map(it)) {
            let mut more = line.clone();
            more.pointer_mut(pointer).unwrap()["surplus"] = json!(1);
            assert!(!validator.is_valid(&more), "{pointer} of {more}");
            if pointer.ends_with("/verdicts") {
                continue;
            }
            let names: Vec<String> = line
                .pointer(pointer)
                .unwrap()
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect();
            for name in names.iter().filter(|it| !it.starts_with("host_")) {
                let mut less = line.clone();
                less.pointer_mut(pointer)
                    .unwrap()
                    .as_object_mut()
                    .unwrap()
                    .remove(name);
                assert!(
                    !validator.is_valid(&less),
                    "{name} is missing in {pointer} of {less}"
                );
            }
        }
    }
}

/// All values that are neither objects nor arrays.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                leaves(value, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(values) => {
            for (number, value) in values.iter().enumerate() {
                leaves(value, &format!("{at}/{number}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            found.push(at.to_owned());
        }
    }
}

#[test]
fn a_value_of_another_type_and_an_unknown_word_are_not_valid() {
    // Texts that the kernel, a person or a newer version may choose.
    const FREE: [&str; 22] = [
        "addr",
        "cause",
        "because",
        "cgroup",
        "comm",
        "container",
        "doubt",
        "kernel",
        "key",
        "limits",
        "option",
        "probes",
        "state",
        "errno",
        "flags",
        "options",
        "over",
        "time",
        "unit",
        "version",
        "why",
        "socket",
    ];
    let validator = validator();
    let mut words = BTreeSet::new();
    for line in samples() {
        let mut all = Vec::new();
        leaves(&line, "", &mut all);
        for pointer in all {
            let was = line.pointer(&pointer).unwrap();
            let with = |value: Value| {
                let mut line = line.clone();
                *line.pointer_mut(&pointer).unwrap() = value;
                validator.is_valid(&line)
            };
            for wrong in [json!({}), json!([[]]), json!(-1), json!(1.5)] {
                assert!(!with(wrong.clone()), "{pointer}: {wrong} for {was}");
            }
            assert_eq!(
                with(json!(true)),
                was.is_boolean() || with(json!(false)),
                "{pointer}"
            );
            let name = pointer
                .rsplit('/')
                .find(|it| it.parse::<usize>().is_err())
                .unwrap();
            if was.is_string() && !FREE.contains(&name) {
                assert!(!with(json!("no such word")), "{pointer}: {was}");
                words.insert(name.to_owned());
            }
            // A text that has a form.
            if was.is_string() && ["time", "id", "socket", "msk", "errno", "state"].contains(&name)
            {
                assert!(!with(json!("no such form")), "{pointer}: {was}");
            }
        }
    }
    let expected = [
        "answer",
        "api",
        "by",
        "call",
        "certainty",
        "closed_by",
        "decided_by",
        "evidence",
        "family",
        "id",
        "ip",
        "known",
        "msk",
        "name",
        "never_tried",
        "outcome",
        "path_id",
        "peer_or_path",
        "protocol",
        "role",
        "rung",
        "sensor",
        "side",
        "source",
        "stage",
        "tcp",
        "type",
        "verdict",
        "via",
    ];
    assert_eq!(words, expected.map(str::to_owned).into());
}

#[test]
fn lines_of_the_running_kernel_are_valid() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: lines_of_the_running_kernel_are_valid needs root to load BPF programs");
        return;
    }
    let validator = validator();
    // The list has a line for this one.
    let _socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).unwrap();
    for (words, kind) in [
        (["demo", "--json"], "fallback"),
        (["list", "--json"], "socket"),
    ] {
        let words = &words[..];
        let printed = run(words);
        let lines = parsed(&printed);
        assert!(lines.iter().any(|line| line["type"] == kind), "{printed}");
        for line in lines {
            if let Err(why) = validator.validate(&line) {
                panic!("{why}: {line}");
            }
        }
    }
}

/// A survey of loopback, whose peer closes when this end does.
#[test]
fn a_line_of_probe_is_valid_and_says_that_loopback_passes() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: a_line_of_probe_is_valid needs root to send packets of its own");
        return;
    }
    let listener = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).unwrap();
    listener
        .bind(
            &"127.0.0.1:0"
                .parse::<std::net::SocketAddr>()
                .unwrap()
                .into(),
        )
        .unwrap();
    listener.listen(4).unwrap();
    let port = listener.local_addr().unwrap().as_socket().unwrap().port();
    let served = std::thread::spawn(move || {
        let (client, _address) = listener.accept().unwrap();
        let mut received = Vec::new();
        std::io::Read::read_to_end(&mut &client, &mut received).unwrap();
        received
    });
    let printed = run(&["probe", "--json", &format!("127.0.0.1:{port}")]);
    assert!(served.join().unwrap().is_empty(), "it sent data");
    let lines = parsed(&printed);
    let validator = validator();
    assert_eq!(lines.len(), 1);
    for line in lines {
        if let Err(why) = validator.validate(&line) {
            panic!("{why}: {line}");
        }
        assert_eq!(line["data"]["conclusion"], "passes", "{line}");
        let without = |field: &str| {
            let mut line = line.clone();
            line["data"].as_object_mut().unwrap().remove(field);
            validator.is_valid(&line)
        };
        assert!(!without("why") && !without("hops") && !without("certainty"));
    }
}

#[test]
fn every_field_has_a_description_and_words_have_those_of_the_page() {
    let schema: Value = serde_json::from_str(&run(&["schema"])).unwrap();
    for (table, fields) in page::tables(PAGE) {
        for field in fields {
            let found = &schema["$defs"][&table]["properties"][&field.name];
            let text = found["description"].as_str().unwrap();
            assert!(text.len() > 3, "{table}: {}", field.name);
        }
    }
    // A word that the page names is one that the program prints.
    let latency = &schema["$defs"]["query"]["properties"]["latency_ns"];
    assert!(
        latency["description"]
            .as_str()
            .unwrap()
            .starts_with("from the call to its return")
    );
}
