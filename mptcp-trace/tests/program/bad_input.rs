//! Bad input produces an error message and the right exit code, never a panic.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    process::{Output, Stdio},
};

use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::common::{assert_orderly, may_trace, run, scratch, spawn_asker, stderr, tracer};

fn check(output: &Output, code: i32, says: &str) {
    let text = stderr(output);
    assert_orderly(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(says), "{says:?} is not in {text:?}");
}

#[test]
fn a_process_that_is_not_there() {
    check(&run(["--pid", "0"]), 2, "process ids start at 1");
    check(&run(["--pid", "nginx"]), 2, "--comm nginx");
    check(&run(["--pid", "-1"]), 2, "");
    check(&run(["--pid", "curl"]), 2, "invalid value 'curl'");
    check(&run(["--pid", "4294967295"]), 1, "no process 4294967295");
    let mut dead = std::process::Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let pid = dead.id().to_string();
    check(
        &run(["--pid", &pid]),
        1,
        &format!("no process {pid}: it has ended"),
    );
}

#[test]
fn a_dash_is_no_name_of_a_file_beside_stdout() {
    for words in [["--capture", "-"], ["--output", "-"], ["bundle", "-"]] {
        check(&run(words), 2, "write /dev/stdout, or ./- for a file");
    }
}

#[test]
fn a_capture_is_not_compared_with_itself() {
    let sessions = concat!(env!("CARGO_MANIFEST_DIR"), "/../captures/sessions");
    let client = format!("{sessions}/isp-client.mpt");
    let (_folder, copy) = scratch("copy.mpt");
    fs::copy(&client, &copy).unwrap();
    for same in [client.as_str(), copy.to_str().unwrap()] {
        check(&run(["pair", &client, same]), 1, "give one of each host");
    }
}

#[test]
fn captures_that_cannot_be_compared_say_why() {
    let sessions = concat!(env!("CARGO_MANIFEST_DIR"), "/../captures/sessions");
    let (client, server) = (
        format!("{sessions}/isp-client.mpt"),
        format!("{sessions}/isp-server.mpt"),
    );
    let (_folder, part) = scratch("part.mpt");
    let part = part.to_str().unwrap();
    let pair = |from: usize, to: usize| {
        fs::write(part, &fs::read(&server).unwrap()[from..to]).unwrap();
        run(["pair", &client, part])
    };
    check(&pair(0, 0), 1, "the file is empty");
    check(&pair(0, 2000), 1, "ends before its first record");
    check(&pair(100, 2000), 1, "not an mptcp-trace capture");
    let whole = fs::metadata(&server).unwrap().len() as usize;
    let output = pair(0, whole - 300);
    check(
        &output,
        1,
        "is cut off: what is missing in it proves nothing",
    );
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("4 option-removed"), "{text}");
    assert!(
        text.contains("it is cut off, and its losses are unknown"),
        "{text}"
    );
    let stranger = format!("{sessions}/host.mpt");
    check(
        &run(["pair", &client, &stranger]),
        0,
        "cover different times",
    );
    check(&run(["pair", "-", "-"]), 2, "only one of the two captures");
    check(&run(["pair", &client, "/"]), 1, "cannot read /");
}

#[test]
fn a_capture_of_pair_may_come_from_a_pipe_and_in_any_order() {
    let sessions = concat!(env!("CARGO_MANIFEST_DIR"), "/../captures/sessions");
    let of = |args: &[&str], stdin: Stdio| {
        let command = tracer().args(args).stdin(stdin).output().unwrap();
        assert!(command.status.success(), "{}", stderr(&command));
        (
            String::from_utf8(command.stdout.clone()).unwrap(),
            stderr(&command),
        )
    };
    let name = |end: &str| format!("{sessions}/isp-{end}.mpt");
    let (client, server) = (name("client"), name("server"));
    let (expected, notes) = of(&["pair", &client, &server], Stdio::null());
    assert_eq!(notes, "");
    assert!(expected.contains("4 option-removed"), "{expected}");
    let pipe = |file: &str| {
        let cat = std::process::Command::new("cat")
            .arg(file)
            .stdout(Stdio::piped())
            .spawn();
        Stdio::from(cat.unwrap().stdout.unwrap())
    };
    let file = |file: &str| Stdio::from(fs::File::open(file).unwrap());
    let renamed = |text: &str, name: &str| text.replace(name, "stdin");
    for stdin in [pipe(&client), file(&client)] {
        let (text, _) = of(&["pair", "-", &server], stdin);
        assert_eq!(text, renamed(&expected, &client));
    }
    let (text, _) = of(&["pair", &client, "-"], pipe(&server));
    assert_eq!(text, renamed(&expected, &server));
    let (text, _) = of(&["pair", &client, "/dev/stdin"], pipe(&server));
    assert_eq!(text, expected.replace(&server, "/dev/stdin"));
    let (text, notes) = of(&["pair", &server, &client], Stdio::null());
    assert_eq!(text, expected);
    assert!(
        notes.contains("it is taken as the server's capture"),
        "{notes}"
    );
    let (_, notes) = of(&["pair", "-q", &server, &client], Stdio::null());
    assert_eq!(notes, "");
}

#[test]
fn redacted_captures_are_compared_without_their_addresses() {
    let sessions = concat!(env!("CARGO_MANIFEST_DIR"), "/../captures/sessions");
    let (_folder, path) = scratch("client.tar.zst");
    let bundle = path.to_str().unwrap();
    let client = format!("{sessions}/isp-client.mpt");
    let output = run(["bundle", bundle, "--redact", "--from", &client]);
    assert!(output.status.success(), "{}", stderr(&output));
    let output = run(["pair", bundle, &format!("{sessions}/isp-server.mpt")]);
    let text = String::from_utf8(output.stdout).unwrap();
    for says in [
        "6 connections; redacted: its addresses are not compared\n",
        "6 connections: 6 in both captures (6 by sequence numbers)",
        "4 option-removed",
    ] {
        assert!(text.contains(says), "{says} in {text}");
    }
}

#[test]
fn a_thread_is_not_a_process() {
    let (send, receive) = std::sync::mpsc::channel();
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        send.send(rustix::thread::gettid().as_raw_nonzero().get())
            .unwrap();
        let _ended = wait.recv();
    });
    let tid = receive.recv().unwrap();
    let says = format!(
        "{tid} is a thread of process {0}: use --pid {0}",
        std::process::id()
    );
    check(&run(["--pid", &tid.to_string()]), 1, &says);
    drop(end);
    thread.join().unwrap();
}

#[test]
fn a_stderr_that_cannot_be_written_changes_no_exit_code() {
    let capture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../captures/7.3-fexit/verdicts.mpt"
    );
    for (args, code) in [
        (&["explain", "nope"][..], 2),
        (&["replay", capture], 0),
        (&["replay", capture, "--fail-on", "stale"], 4),
        (&["report", capture, "-o", "-"], 0),
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let status = tracer()
            .args(args)
            .stdout(Stdio::null())
            .stderr(full)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
}

#[test]
fn a_bundle_does_not_overwrite_its_capture() {
    let (_dir, path) = scratch("run.mpt");
    let name = path.to_str().unwrap();
    let capture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../captures/7.3-fexit/verdicts.mpt"
    );
    fs::copy(capture, &path).unwrap();
    let output = run(["bundle", name, "--from", name]);
    check(&output, 2, "--from and FILE are the same file");
    assert_eq!(fs::read(&path).unwrap(), fs::read(capture).unwrap());
}

#[test]
fn options_that_make_no_sense() {
    check(&run(["--follow"]), 2, "--follow needs a --pid");
    check(
        &run(["--pid", "1", "--", "true"]),
        2,
        "cannot be traced together",
    );
    check(&run(["--duration", "soon"]), 2, "write it like 10s");
    check(&run(["--ring-size", "5"]), 2, "power of two");
    check(&run(["--stop-after", "0"]), 2, "0 is not in 1..");
    check(
        &run(["--attach", "magic"]),
        2,
        "possible values: auto, fexit, kprobe, tracepoint",
    );
    check(
        &run(["--comm", "a-name-that-is-too-long"]),
        1,
        "the kernel keeps only 15 bytes",
    );
    check(
        &run(["--netns", "no-such-namespace"]),
        1,
        "no network namespace no-such-namespace",
    );
    check(
        &run(["--netns", "/etc/passwd"]),
        1,
        "/etc/passwd is not a network namespace",
    );
    check(&run(["no-such-verb"]), 2, "");
}

#[test]
fn an_ordinary_user_gets_the_list_of_missing_privileges() {
    if !may_trace("an_ordinary_user_gets_the_list_of_missing_privileges (becomes one from root)") {
        return;
    }
    // Other users may not be able to read the build directory: run a copy.
    let (dir, copy) = scratch("mptcp-trace");
    fs::copy(env!("CARGO_BIN_EXE_mptcp-trace"), &copy).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path(), open).unwrap();
    for args in [&["--json"][..], &["doctor"], &["--", "true"]] {
        let output = std::process::Command::new(&copy)
            .args(args)
            .uid(65534)
            .gid(65534)
            .output()
            .unwrap();
        assert_orderly(&output);
        assert_eq!(
            output.status.code(),
            Some(3),
            "{args:?}: {}",
            stderr(&output)
        );
        let all = format!(
            "{}{}",
            stderr(&output),
            String::from_utf8_lossy(&output.stdout)
        );
        assert!(all.contains("lacks CAP_BPF and CAP_PERFMON"), "{all}");
    }
}

#[test]
fn type_information_that_is_none() {
    let name = "type_information_that_is_none";
    let (_dir, file) = scratch("vmlinux.btf");
    for (bytes, says) in [
        (&b""[..], "is not the type information of a kernel"),
        (b"garbage", "it does not start with the BTF magic number"),
        (
            &[0x9f, 0xeb, 1, 0, 24, 0, 0, 0],
            "is not the type information of a kernel",
        ),
    ] {
        fs::write(&file, bytes).unwrap();
        if may_trace(name) {
            check(&run(["--btf", file.to_str().unwrap()]), 3, says);
        }
    }
    if may_trace(name) {
        check(
            &run(["--btf", "/no/such/file"]),
            3,
            "cannot read type information from /no/such/file",
        );
    }
}

#[test]
fn a_kernel_that_does_not_describe_itself() {
    if !may_trace("a_kernel_that_does_not_describe_itself") {
        return;
    }
    let (_dir, copy) = scratch("vmlinux.btf");
    fs::copy("/sys/kernel/btf/vmlinux", &copy).unwrap();
    let hidden = |options: &str| {
        let bin = env!("CARGO_BIN_EXE_mptcp-trace");
        let script =
            format!("mount -t tmpfs none /sys/kernel/btf && exec {bin} --duration 100ms {options}");
        std::process::Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .output()
            .unwrap()
    };
    check(&hidden(""), 3, "provide it with --btf FILE");
    check(&hidden(""), 3, "pahole --btf_encode_detached FILE VMLINUX");
    // With a description from elsewhere everything but trampolines can work.
    let output = hidden(&format!("--btf {} --attach fexit", copy.display()));
    check(
        &output,
        3,
        "trampolines need the kernel's own type information",
    );
    check(&hidden(&format!("--btf {}", copy.display())), 0, "0 lost");
}

#[test]
fn mptcp_switched_off_is_said_and_traced_all_the_same() {
    if !may_trace("mptcp_switched_off_is_said_and_traced_all_the_same") {
        return;
    }
    let mut command = tracer();
    let in_a_namespace_without = || {
        // SAFETY: only the network namespace of the forked child changes.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        fs::write("/proc/sys/net/mptcp/enabled", "0")
    };
    // SAFETY: the closure only makes system calls and takes no lock that the parent could hold.
    unsafe { command.pre_exec(in_a_namespace_without) };
    let output = command.args(["--duration", "100ms"]).output().unwrap();
    check(
        &output,
        0,
        "MPTCP is switched off here: net.mptcp.enabled is 0",
    );
    for advice in [
        "sysctl net.mptcp.enabled=1",
        "/etc/sysctl.d/",
        "podman run --sysctl",
        "mptcpize run",
    ] {
        check(&output, 0, advice);
    }
}

/// The kernel's type information, in which every member of `struct sock_common` is 8 bytes further
/// back: what another kernel's would look like.
fn moved(mut btf: Vec<u8>) -> Vec<u8> {
    let word = |btf: &[u8], at: usize| {
        let bytes = btf[at..at + 4].try_into().unwrap();
        u32::from_ne_bytes(bytes)
    };
    let size = |number: u32| usize::try_from(number).unwrap();
    let header = size(word(&btf, 4));
    let types = header + size(word(&btf, 8));
    let names = header + size(word(&btf, 16));
    let (mut at, end) = (types, types + size(word(&btf, 12)));
    while at < end {
        let info = word(&btf, at + 4);
        let (kind, count) = (info >> 24 & 31, size(info & 0xffff));
        let name = &btf[names + size(word(&btf, at))..];
        let is_it = kind == 4 && name.starts_with(b"sock_common\0");
        at += 12;
        if is_it {
            for member in 0..count {
                let place = at + 12 * member + 8;
                let offset = word(&btf, place) + 64;
                btf[place..place + 4].copy_from_slice(&offset.to_ne_bytes());
            }
            return btf;
        }
        at += match kind {
            1 | 14 | 17 => 4,
            3 => 12,
            4 | 5 | 15 | 19 => 12 * count,
            6 | 13 => 8 * count,
            _ => 0,
        };
    }
    panic!("there is no struct sock_common");
}

#[test]
fn the_type_information_of_another_kernel_is_refused() {
    if !may_trace("the_type_information_of_another_kernel_is_refused") {
        return;
    }
    let own = fs::read("/sys/kernel/btf/vmlinux").unwrap();
    let (_dir, file) = scratch("other.btf");
    let path = file.to_str().unwrap();
    fs::write(&file, &own).unwrap();
    check(&run(["--btf", path, "--duration", "100ms"]), 0, "0 lost");
    fs::write(&file, moved(own)).unwrap();
    let question = format!("does {path} describe the running kernel?");
    check(&run(["--btf", path, "--duration", "100ms"]), 3, &question);
    let doctor = run(["doctor", "--btf", path]);
    assert_eq!(doctor.status.code(), Some(3));
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("DOES NOT WORK"), "{said}");
}

/// Twenty mistakes in the command line, and what is printed: one sentence, and what to type.
#[test]
fn a_typing_mistake_is_answered_with_what_to_type() {
    for (typed, says) in [
        (
            "reply x",
            "did you mean replay? Type:\n\n  mptcp-trace replay x",
        ),
        ("exlpain DssFallback", "mptcp-trace explain DssFallback"),
        ("tpo", "did you mean top?"),
        (
            "curl https://a.example",
            "mptcp-trace -- curl https://a.example",
        ),
        (
            "--json curl https://a.example",
            "mptcp-trace --json -- curl https://a.example",
        ),
        ("--json replay run.mpt", "mptcp-trace replay --json run.mpt"),
        ("--utc replay run.mpt", "mptcp-trace replay --utc run.mpt"),
        ("replay", "<FILE>"),
        ("replay --jsn run.mpt", "'--json'"),
        ("--cause DssFalback", "did you mean DssFallback?"),
        ("--verdict neverasked", "did you mean never-asked?"),
        ("--kind fallbacks", "did you mean fallback?"),
        ("--fail-on fallbak", "did you mean fallback?"),
        ("explain DssFalback", "did you mean DssFallback?"),
        ("--pid nginx", "--comm nginx"),
        ("--port http", "8000-8080"),
        ("--port 90-80", "80-90"),
        ("--addr [::1]:443", "--port 443"),
        ("--addr localhost", "write 192.0.2.7"),
        ("--duration 5x", "10s, 5m or 1h30m"),
        ("--attach kprobes", "kprobe"),
        ("serve --listen 9944", ":9944 for all addresses"),
        ("serve --listen unix:@metrics", "abstract"),
        ("serve --listen unix:", "unix:/run/"),
        ("--by destination", "dest"),
    ] {
        let output = run(typed.split(' '));
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{typed}: {said}");
        assert!(said.contains(says), "{typed}: {said}");
        assert!(output.stdout.is_empty(), "{typed}");
        assert!(!said.contains("Some(") && !said.contains("Os {"), "{said}");
    }
}

#[test]
fn a_file_that_is_no_capture() {
    let (_dir, file) = scratch("capture");
    let path = file.to_str().unwrap();
    check(&run(["replay", path]), 1, "cannot open the capture");
    for (bytes, says) in [
        (&b""[..], "the file is empty"),
        (b"MPT", "ends before its first record"),
        (b"#!/bin/sh\n", "this is not an mptcp-trace capture"),
        (
            b"MPTCPTR\x63",
            "capture has layout 99, but this program reads up to layout 3",
        ),
    ] {
        fs::write(&file, bytes).unwrap();
        check(&run(["replay", path]), 1, says);
    }
    check(&run(["replay", "/"]), 1, "cannot replay /");
}

#[test]
fn a_capture_that_is_cut_off_gives_what_it_has() {
    if !may_trace("a_capture_that_is_cut_off_gives_what_it_has") {
        return;
    }
    let (_dir, file) = scratch("capture");
    let path = file.to_str().unwrap();
    let mut words = vec!["--capture".to_owned(), path.to_owned(), "--".to_owned()];
    words.extend(crate::common::asker("flood 5"));
    assert_eq!(run(words).status.code(), Some(0));
    let whole = fs::read(&file).unwrap();
    let count = |output: &Output| String::from_utf8_lossy(&output.stdout).lines().count();
    assert_eq!(count(&run(["replay", path])), 5);
    let mut best = 0;
    for cut in (0..whole.len()).step_by(97) {
        fs::write(&file, &whole[..cut]).unwrap();
        let output = run(["replay", path]);
        assert_orderly(&output);
        assert_eq!(output.status.code(), Some(1), "{cut} bytes");
        best = best.max(count(&output));
    }
    assert_eq!(best, 5, "whole records before the cut are printed");
    // A file that is damaged in the middle is also reported.
    let mut damaged = whole;
    let at = damaged.len() - 400;
    damaged[at..at + 200].fill(0xff);
    fs::write(&file, &damaged).unwrap();
    let output = run(["replay", path]);
    assert_orderly(&output);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_full_disk_ends_the_run_with_the_reason() {
    if !may_trace("a_full_disk_ends_the_run_with_the_reason") {
        return;
    }
    let mut asking = spawn_asker("forever");
    let pid = asking.id().to_string();
    let output = run(["--pid", &pid, "--capture", "/dev/full", "--duration", "5s"]);
    check(&output, 1, "cannot write the capture");
    // What was never traced has no account.
    assert!(!stderr(&output).contains("lost"), "{}", stderr(&output));
    let output = run(["--json", "-o", "/dev/full", "--", "echo", "RAN"]);
    check(&output, 1, "cannot write the findings");
    assert!(!stderr(&output).contains("lost"), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
    assert!(
        stderr(&output).contains("No space left on device"),
        "{}",
        stderr(&output)
    );
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = tracer()
        .args(["--pid", &pid, "--duration", "5s"])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    check(
        &output,
        1,
        "cannot write the findings: No space left on device",
    );
    check(
        &run(["--capture", "/no/such/dir/x", "--duration", "1s"]),
        1,
        "cannot write the capture",
    );
    check(
        &run(["--ready-file", "/no/such/dir/x", "--duration", "1s"]),
        1,
        "cannot write --ready-file",
    );
    asking.kill().unwrap();
    asking.wait().unwrap();
}

/// Runs the program as a shell does with these words.
fn by_shell(before: &str, words: &str) -> Output {
    let bin = env!("CARGO_BIN_EXE_mptcp-trace");
    let capture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../captures/7.3-fexit/verdicts.mpt"
    );
    std::process::Command::new("bash")
        .args(["-c", &format!("{before} exec {bin} {words}")])
        .env("C", capture)
        .output()
        .unwrap()
}

#[test]
fn a_stdout_that_cannot_be_written_is_an_error() {
    for words in [
        "replay $C",
        "replay --json $C",
        "report $C -o -",
        "report $C -o /dev/stdout",
        "explain",
        "schema",
        "completions bash",
        "--help",
        "help",
        "replay -h",
        "--version",
    ] {
        let output = by_shell("", &format!("{words} >&-"));
        check(&output, 1, "cannot write");
        assert_eq!(stderr(&output).lines().count(), 1, "{words}");
        check(
            &by_shell("", &format!("{words} >/dev/full")),
            1,
            "cannot write",
        );
        check(&by_shell("", &format!("{words} >/dev/null")), 0, "");
    }
    if may_trace("a_stdout_that_cannot_be_written_is_an_error") {
        for words in ["--duration 200ms", "--duration 200ms -o /dev/stdout"] {
            check(&by_shell("", &format!("{words} >&-")), 1, "it is closed");
        }
        check(&by_shell("", "--duration 200ms -o /dev/null >&-"), 0, "");
    }
}

#[test]
fn a_file_size_limit_ends_the_run_with_the_reason() {
    if !may_trace("a_file_size_limit_ends_the_run_with_the_reason") {
        return;
    }
    let (_dir, file) = scratch("capture");
    let words = crate::common::asker("flood 50").join("' '");
    // Some units of 1024 bytes: enough for the begin of the capture.
    let options = format!("--capture {} -- '{words}'", file.display());
    for limit in [1, 8] {
        let output = by_shell(&format!("ulimit -f {limit};"), &options);
        check(&output, 1, "cannot write the capture");
        check(&output, 1, "File too large");
    }
    // A command has the default action.
    let output = run(["--", "sh", "-c", "kill -XFSZ $$; echo survived"]);
    check(&output, 128 + 25, "");
}

#[test]
fn a_bundle_that_is_cut_off_is_reported_in_words() {
    let (dir, file) = scratch("bundle");
    let path = file.to_str().unwrap();
    check(
        &by_shell("", &format!("bundle --from $C {path}")),
        0,
        "wrote",
    );
    let whole = fs::read(&file).unwrap();
    for length in [8, 20, 1000, whole.len() / 2, whole.len() - 5] {
        fs::write(&file, &whole[..length]).unwrap();
        for words in [
            format!("replay {path}"),
            format!("report {path} -o {}/page.html", dir.path().display()),
        ] {
            let output = by_shell("", &words);
            check(&output, 1, "cut off");
            for internal in ["Failed", "Error", "{", "reading", "buffer"] {
                assert!(!stderr(&output).contains(internal), "{}", stderr(&output));
            }
        }
    }
}

#[test]
fn what_a_line_prints_can_be_explained_as_it_is() {
    for (name, says) in [
        ("MPCapableFallbackSYNACK?", "SYN/ACK"),
        ("stale", "told MPTCP, fell back later"),
        ("never-asked?", "the application never asked"),
    ] {
        let output = run(["explain", name]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(says), "{text}");
    }
    let output = run(["explain", "stall"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("did you mean stale?"));
}
