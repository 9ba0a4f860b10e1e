//! The flight recorder: `serve --keep`, and `dump`.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::common::{
    Background, PATIENCE, json_lines, may_trace, of_type, run, scratch, spawn_ready_asker, stderr,
};

/// Sends a request; returns status and body.
fn ask(socket: &Path, request: &str) -> (String, Vec<u8>) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "{request} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().to_owned();
    (status, answer[end + 4..].to_vec())
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(50));
    }
}

/// The files in a folder whose names begin like that.
fn files(folder: &Path, prefix: &str) -> Vec<String> {
    let all = fs::read_dir(folder).unwrap();
    let names = all.map(|it| it.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.starts_with(prefix) && name.ends_with(".mpt"))
        .collect()
}

#[test]
fn a_dump_without_a_recording_says_so_and_writes_nothing() {
    let (folder, file) = scratch("dump.mpt");
    let to = file.to_str().unwrap();
    let nowhere = folder.path().join("nowhere");
    let kept = |words: &[&str]| {
        let dir = ["dump", "--keep-dir", nowhere.to_str().unwrap(), "-o", to];
        run([&dir[..], words].concat())
    };
    let output = kept(&[]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("there is no recording in"), "{said}");
    assert!(said.contains("serve --keep SIZE"), "{said}");
    for (words, says) in [
        (&["--since", "5m", "--until", "10m"][..], "not later than"),
        (&["--since", "soon"], "write it like 10m"),
    ] {
        let output = kept(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
    assert!(!file.exists());
}

#[test]
fn options_of_the_recorder_are_checked_before_anything_is_attached() {
    let (folder, settings) = scratch("serve.toml");
    let dir = folder.path().to_str().unwrap();
    for (words, says) in [
        (&["live", "--keep-dir", dir][..], "need a --keep SIZE"),
        (&["serve", "--dump-on", "lost>1/s"], "need a --keep SIZE"),
        (&["serve", "--keep", "100"], "write a size from 1M"),
        (
            &["serve", "--keep", "1M", "--dump-on", "falbacks>1/min"],
            "did you mean fallbacks?",
        ),
    ] {
        let output = run(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
    for (text, says) in [
        ("keep = \"1\"", "`keep` in --config is invalid"),
        (
            "keep = \"1M\"\ndump-on = [\"lost>1/sec\"]",
            "`dump-on` in --config is invalid",
        ),
        ("keep-dir = \"/x\"", "need a --keep SIZE"),
    ] {
        fs::write(&settings, text).unwrap();
        let output = run(["serve", "--config", settings.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
}

#[test]
fn a_dump_is_not_written_to_a_terminal() {
    let tracer = env!("CARGO_BIN_EXE_mptcp-trace");
    let on_terminal = Command::new("script")
        .args(["-qec", &format!("{tracer} dump -o -"), "/dev/null"])
        .stdin(Stdio::null())
        .output();
    let Ok(output) = on_terminal else {
        println!("skipped: there is no script; Debian: apt-get install bsdutils");
        return;
    };
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("-o - > run.mpt"), "{said}");
}

#[test]
fn a_dump_explains_a_connection_that_fell_back_before_it_begins() {
    const NAME: &str = "a_dump_explains_a_connection_that_fell_back_before_it_begins";
    if !may_trace(NAME) {
        return;
    }
    let (folder, socket) = scratch("socket");
    let kept = folder.path().join("kept");
    let listen = format!("unix:{}", socket.display());
    let kept_at = kept.to_str().unwrap();
    let words = [
        "serve",
        "--listen",
        &listen,
        "--keep",
        "1M",
        "--keep-dir",
        kept_at,
    ];
    let serving = Background::start(&[&words[..], &["--dump-on", "fallbacks>0/min"]].concat());
    // Another one would mix its files with these.
    let other = folder.path().join("other");
    let other = format!("unix:{}", other.display());
    let second = run([
        "serve",
        "--listen",
        &other,
        "--keep",
        "1M",
        "--keep-dir",
        kept_at,
    ]);
    assert_eq!(second.status.code(), Some(1));
    let said = stderr(&second);
    assert!(
        said.contains("records there: choose another --keep-dir"),
        "{said}"
    );
    let mut asker = spawn_ready_asker("fallen");
    let pid = asker.id();
    until("the rule makes a dump", || files(&kept, "dump-").len() == 1);
    sleep(Duration::from_millis(2500));
    asker.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    let about = |capture: &Path| {
        let output = run(["replay", "--json", capture.to_str().unwrap()]);
        assert!(output.status.success(), "{}", stderr(&output));
        let queries = of_type(&json_lines(&output), "query");
        let ours = queries.into_iter().find(|it| it["pid"] == pid);
        ours.map(|it| (it["verdict"].clone(), it["fell_back"].clone()))
    };
    let dump = folder.path().join("late.mpt");
    let late = |since: &str| {
        let (status, body) = ask(&socket, &format!("POST /dump?since={since}"));
        assert_eq!(status, "200", "{}", String::from_utf8_lossy(&body));
        fs::write(&dump, body).unwrap();
        about(&dump)
    };
    until("the query is in a dump", || late("2s").is_some());
    let (verdict, fell_back) = late("2s").unwrap();
    assert_eq!(verdict, "explained", "{fell_back}");
    // The same from the files.
    let at = dump.to_str().unwrap();
    let output = run(["dump", "--keep-dir", kept_at, "--since", "3s", "-o", at]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("earlier ones of connections that were open"));
    assert_eq!(about(&dump).unwrap().0, "explained");
    // A signal makes another one.
    serving.signal(Signal::USR2);
    until("the signal makes a dump", || {
        files(&kept, "dump-").len() == 2
    });
    for (request, status, says) in [
        ("GET /dump?since=soon", "400", "write it like 10m"),
        (
            "GET /dump?until=9h",
            "404",
            "nothing was recorded in that time",
        ),
        ("DELETE /dump", "405", "/dump is for GET and POST"),
        ("HEAD /dump", "405", ""),
        ("GET /dump?last=10m", "400", "known are since and until"),
    ] {
        let (got, body) = ask(&socket, request);
        assert_eq!(got, status, "{request}");
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(body.contains(says), "{request}: {body}");
    }
    let (_, page) = ask(&socket, "GET /metrics");
    let page = String::from_utf8(page).unwrap();
    for line in [
        "mptcp_trace_recorder_writes 1\n",
        "mptcp_trace_recorder_missing_total{reason=\"queue\"} 0\n",
        "mptcp_trace_recorder_dumps_total{result=\"made\"} 2\n",
    ] {
        assert!(page.contains(line), "{line} {page}");
    }
    drop(asker.stdin.take());
    asker.wait().unwrap();
    serving.signal(Signal::TERM);
    let output = serving.output();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("(--dump-on fallbacks>0/min: "), "{said}");
    assert!(said.contains("(SIGUSR2)"), "{said}");
    assert!(said.contains("recording in"), "{said}");
}

#[test]
fn a_dump_goes_into_a_pipe_and_into_a_redacted_bundle() {
    if !may_trace("a_dump_goes_into_a_pipe_and_into_a_redacted_bundle") {
        return;
    }
    let (folder, kept) = scratch("kept");
    let words = ["live", "--keep", "1M", "--keep-dir", kept.to_str().unwrap()];
    let tracing = Background::start(&words);
    let mut asker = spawn_ready_asker("fallen");
    drop(asker.stdin.take());
    asker.wait().unwrap();
    until("a fallback is recorded", || {
        let output = run(["dump", "--keep-dir", kept.to_str().unwrap(), "-o", "-"]);
        let piped = folder.path().join("piped.mpt");
        fs::write(&piped, &output.stdout).unwrap();
        let replayed = run(["replay", "--json", piped.to_str().unwrap()]);
        !of_type(&json_lines(&replayed), "fallback").is_empty()
    });
    // Killed: what was recorded is still there.
    tracing.signal(Signal::KILL);
    let _killed = tracing.output();
    let dump = folder.path().join("dump.mpt");
    let bundle = folder.path().join("bundle.tar.zst");
    let [dump, bundle] = [&dump, &bundle].map(|it| it.to_str().unwrap());
    let output = run(["dump", "--keep-dir", kept.to_str().unwrap(), "-o", dump]);
    assert!(output.status.success(), "{}", stderr(&output));
    let output = run(["bundle", bundle, "--redact", "--from", dump]);
    assert!(output.status.success(), "{}", stderr(&output));
    let replayed = run(["replay", "--json", bundle]);
    assert!(replayed.status.success(), "{}", stderr(&replayed));
    let lines = json_lines(&replayed);
    assert!(!of_type(&lines, "fallback").is_empty());
    // It is still a dump, and says so.
    let start = &of_type(&lines, "start")[0];
    for end in ["dump_from", "dump_to"] {
        let time = start[end].as_str().unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    }
    let said = stderr(&run(["replay", dump]));
    for says in [
        "mptcp-trace: a dump of a recording, from 20",
        "; a dump has no kernel counters to compare",
    ] {
        assert!(said.contains(says), "{said}");
    }
    assert!(!said.contains("could not be read"), "{said}");
    let report = folder.path().join("report.html");
    let output = run(["report", dump, "-o", report.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let page = fs::read_to_string(report).unwrap();
    assert!(page.contains("This is a dump of a recording, from 20"));
}
