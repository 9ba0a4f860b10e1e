//! `mptcp-trace annotate`: findings become comments that Wireshark's own tshark shows.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use mptcp_trace_scene::{
    middlebox::Middlebox,
    net::{Family, Kind},
    netns,
    rules::{Rules, Treatment},
};
use pcap_parser::{Block, OptionCode};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::{
    Background, asker, assert_orderly, may_trace, run, scratch, stderr, tracer, until,
};

/// The session of docs/annotate.md: a trace, and the packets that the client's host captured.
fn session(file: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures/sessions");
    folder.join(file)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Annotates the packets of the session.
fn annotate(packets: &Path, output: &Path, more: &[&str]) -> Output {
    let capture = session("packets.mpt");
    let words = [
        "annotate",
        text(packets),
        text(&capture),
        "-o",
        text(output),
    ];
    run([&words, more].concat())
}

fn check(output: &Output, code: i32, says: &str) {
    let text = stderr(output);
    assert_orderly(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(says), "{says:?} is not in {text:?}");
}

/// True if the program can be run; prints the reason for the skip otherwise.
fn has(test: &str, programs: &[&str]) -> bool {
    let is_missing = |it: &&&str| {
        let mut asked = Command::new(it);
        asked
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        asked.status().is_err()
    };
    match programs.iter().find(is_missing) {
        None => true,
        Some(program) => {
            println!(
                "skipped: {test}: there is no {program}; Debian: apt-get install tshark tcpdump"
            );
            false
        }
    }
}

/// What tshark prints of the packets that a display filter selects.
fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    command
        .arg("-r")
        .arg(file)
        .args(["-Y", filter, "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// A program that captures packets, in a network namespace.
struct Packets {
    child: Child,
}

impl Packets {
    /// Starts it, and waits until it says that it captures.
    fn start(namespace: Option<BorrowedFd<'_>>, words: &[&str], says: &str, log: &Path) -> Self {
        let file = fs::File::create(log).unwrap();
        let spawn = || {
            let mut command = Command::new(words[0]);
            Ok(command
                .args(&words[1..])
                .stdout(Stdio::null())
                .stderr(file)
                .spawn()?)
        };
        let child = match namespace {
            Some(namespace) => netns::within(namespace, spawn).unwrap(),
            None => spawn().unwrap(),
        };
        until(&format!("{} says {says:?}", words[0]), || {
            fs::read_to_string(log).unwrap().contains(says)
        });
        Self { child }
    }

    /// Ends it in order.
    fn finish(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn tshark_shows_the_cause_at_the_packet_without_the_option() {
    const TEST: &str = "tshark_shows_the_cause_at_the_packet_without_the_option";
    if !may_trace(TEST) || !has(TEST, &["tshark", "tcpdump"]) {
        return;
    }
    let (dir, packets) = scratch("in.pcap");
    let at = |name: &str| dir.path().join(name);
    let (capture, annotated) = (at("run.mpt"), at("out.pcapng"));
    let tracer = Background::start(&["--capture", text(&capture), "--pid", &own_pid()]);
    let middlebox = Middlebox::new().unwrap();
    let words = [
        "tcpdump",
        "-i",
        "any",
        "-U",
        "-Z",
        "root",
        "-w",
        text(&packets),
        "tcp",
    ];
    let tcpdump = Packets::start(Some(middlebox.near()), &words, "listening on", &at("log"));
    let (mut client, mut server) = {
        let listener = middlebox.listen(Kind::Mptcp, Family::V4).unwrap();
        middlebox.pair(Kind::Mptcp, &listener, Family::V4).unwrap()
    };
    let mut say = |word: &[u8]| {
        client.write_all(word).unwrap();
        server.read_exact(&mut vec![0; word.len()]).unwrap();
        server.write_all(word).unwrap();
        client.read_exact(&mut vec![0; word.len()]).unwrap();
    };
    for word in [b"one", b"two"] {
        say(word);
    }
    let strip = Treatment {
        strip_from: Some(0),
        ..Treatment::NONE
    };
    let rules = Rules {
        to_client: strip,
        ..Rules::NONE
    };
    middlebox.set(rules).unwrap();
    say(b"three");
    drop((client, server));
    // The first packet with data that has no MPTCP option; it reaches the file late. How the
    // connection is closed depends on whether the server has noticed.
    let all = "tcp.len > 0 && !(tcp.option_kind == 30)";
    let stripped = || tshark(&packets, all, &["frame.number"]);
    until("the packet is captured", || !stripped().is_empty());
    tcpdump.finish();
    tracer.signal(Signal::INT);
    check(&tracer.output(), 0, "1 fell back");
    let words = [
        "annotate",
        text(&packets),
        text(&capture),
        "-o",
        text(&annotated),
    ];
    check(&run(words), 0, "with findings found in");
    let first = stripped().remove(0);
    let cause =
        "frame.comment contains \"client\" && frame.comment contains \"fell back to TCP here\"";
    let fields = ["frame.number", "frame.comment"];
    let [line] = &tshark(&annotated, cause, &fields)[..] else {
        panic!("{:?}", tshark(&annotated, "frame.comment", &fields));
    };
    let (number, comment) = line.split_once('\t').unwrap();
    assert_eq!(number, first, "{comment}");
    assert!(comment.contains("DssFallback"), "{comment}");
    // A summary stands at the connection's first packet.
    let summary = "frame.comment contains \"connection that fell back to TCP: DssFallback\"";
    assert_eq!(
        tshark(&annotated, summary, &["tcp.flags.str"]),
        ["··········S·"]
    );
    // Nothing else has changed.
    let same = [
        "frame.time_epoch",
        "frame.len",
        "tcp.payload",
        "tcp.options",
    ];
    assert_eq!(tshark(&annotated, "", &same), tshark(&packets, "", &same));
}

fn own_pid() -> String {
    std::process::id().to_string()
}

#[test]
fn tshark_shows_the_comments_of_a_pcapng_that_wireshark_captured() {
    const TEST: &str = "tshark_shows_the_comments_of_a_pcapng_that_wireshark_captured";
    if !may_trace(TEST) || !has(TEST, &["tshark", "dumpcap"]) {
        return;
    }
    let (dir, packets) = scratch("in.pcapng");
    let at = |name: &str| dir.path().join(name);
    let (capture, annotated) = (at("run.mpt"), at("out.pcapng"));
    let words = [
        "dumpcap",
        "-q",
        "-i",
        "lo",
        "-f",
        "tcp",
        "-w",
        text(&packets),
    ];
    let dumpcap = Packets::start(None, &words, "File: ", &at("log"));
    let mut command = tracer();
    command
        .arg("--capture")
        .arg(&capture)
        .arg("--")
        .args(asker("fall 3"));
    check(&command.output().unwrap(), 0, "3 connections: 3 fell back");
    // Packets reach the file late, and a block may be there in part.
    let words = [
        "annotate",
        text(&packets),
        text(&capture),
        "-o",
        text(&annotated),
    ];
    let annotated_all = || stderr(&run(words)).contains("3 of 3 connections with findings found");
    until("all packets are captured", annotated_all);
    dumpcap.finish();
    check(&run(words), 0, "3 of 3 connections with findings found");
    // Each SYN/ACK lacks the option, and has the cause; others on this host may use loopback too.
    let cause = "frame.comment contains \"here: MPCapableFallbackSYNACK\"";
    let flags = tshark(&annotated, cause, &["tcp.flags.syn", "tcp.flags.ack"]);
    assert_eq!(flags, ["1\t1", "1\t1", "1\t1"]);
}

/// The comments in a pcapng, as an independent reader finds them, by number of the packet.
fn comments(file: &[u8]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let (mut rest, mut number) = (file, 0);
    while !rest.is_empty() {
        let (more, block) = pcap_parser::pcapng::parse_block_le(rest).unwrap();
        rest = more;
        if let Block::EnhancedPacket(packet) = block {
            number += 1;
            let comments = packet
                .options
                .iter()
                .filter(|it| it.code == OptionCode::Comment);
            found.extend(comments.map(|it| (number, it.as_str().unwrap().to_owned())));
        }
    }
    found
}

#[test]
fn the_session_of_the_page_is_annotated_as_the_page_shows() {
    let (dir, out) = scratch("out.pcapng");
    let packets = session("packets.pcap");
    let output = annotate(&packets, &out, &[]);
    check(&output, 0, "wrote ");
    let found = comments(&fs::read(&out).unwrap());
    assert_eq!(page_block("-Y frame.comment"), shown(&found));
    let said = stderr(&output)
        .replace(text(&out), "out.pcapng")
        .replace(text(&packets), "in.pcap");
    assert_eq!(page_block("annotate in.pcap"), said);
    // Through a pipe it is the same, byte for byte.
    let piped = annotate(&packets, Path::new("-"), &[]);
    check(&piped, 0, "wrote standard output");
    assert_eq!(piped.stdout, fs::read(&out).unwrap());
    // A file that exists is replaced, and nothing else is left.
    fs::write(&out, "the previous content").unwrap();
    check(&annotate(&packets, &out, &[]), 0, "wrote ");
    assert_eq!(piped.stdout, fs::read(&out).unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn tshark_prints_what_the_page_shows() {
    if !has("tshark_prints_what_the_page_shows", &["tshark"]) {
        return;
    }
    let (_dir, out) = scratch("out.pcapng");
    check(&annotate(&session("packets.pcap"), &out, &[]), 0, "wrote ");
    for (filter, fields) in [
        ("frame.comment", ["frame.number", "frame.comment"]),
        (
            "tcp.len > 0 && !(tcp.option_kind == 30)",
            ["frame.number", "ip.dst"],
        ),
    ] {
        let lines = tshark(&out, filter, &fields).join("\n") + "\n";
        assert_eq!(page_block(filter), lines);
    }
}

/// Lines of the page's output after a command that contains these words.
fn page_block(command: &str) -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/annotate.md");
    let page = fs::read_to_string(page).unwrap();
    let begins = |line: &&str| line.starts_with("$ ") && line.contains(command);
    let lines = page.lines().skip_while(|line| !begins(line)).skip(1);
    let lines = lines.take_while(|line| !line.starts_with("$ ") && *line != "```");
    lines.map(|line| format!("{line}\n")).collect()
}

/// Comments as tshark prints them: `frame.number`, and all of the packet's.
fn shown(found: &[(usize, String)]) -> String {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (number, comment) in found {
        match lines.last_mut() {
            Some((last, line)) if last == number => {
                line.push(',');
                line.push_str(comment);
            }
            _ => lines.push((*number, format!("{number}\t{comment}"))),
        }
    }
    lines.iter().map(|(_, line)| format!("{line}\n")).collect()
}

#[test]
fn a_selection_is_one() {
    let (_dir, out) = scratch("out.pcapng");
    let packets = session("packets.pcap");
    let count = |more: &[&str]| {
        check(&annotate(&packets, &out, more), 0, "wrote ");
        comments(&fs::read(&out).unwrap()).len()
    };
    let all = count(&[]);
    assert_eq!(count(&["--cause", "DssFallback,!DssFallback"]), 0);
    // Both ends fell back, and each has a summary.
    assert_eq!(count(&["--kind", "fallback"]), 4);
    assert_eq!(count(&["--addr", "203.0.113.1"]), 0);
    assert!(all > 2);
    let output = annotate(&packets, &out, &["--kind", "fallback"]);
    check(&output, 0, "filtered out: ");
}

#[test]
fn a_bundle_is_as_good_as_its_capture_unless_it_is_redacted() {
    let (dir, out) = scratch("out.pcapng");
    let (packets, capture) = (session("packets.pcap"), session("packets.mpt"));
    let bundle = dir.path().join("b.tar.zst");
    let annotated = |more: &[&str], says: &str| {
        let words = ["bundle", text(&bundle), "--from", text(&capture)];
        check(&run([&words, more].concat()), 0, "");
        let words = ["annotate", text(&packets), text(&bundle), "-o", text(&out)];
        check(&run(words), 0, says);
        comments(&fs::read(&out).unwrap())
    };
    let found = annotated(&[], "2 of 2 connections");
    check(&annotate(&packets, &out, &[]), 0, "wrote ");
    assert_eq!(found, comments(&fs::read(&out).unwrap()));
    assert_eq!(annotated(&["--redact"], "without --redact?"), []);
}

#[test]
fn what_does_not_match_is_counted_and_listed() {
    let (_dir, out) = scratch("out.pcapng");
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures/sessions/path.mpt");
    let packets = session("packets.pcap");
    let words = [
        "annotate",
        text(&packets),
        text(&other),
        "-o",
        text(&out),
        "-v",
    ];
    let output = run(words);
    for says in [
        "0 of 2 connections with findings found",
        "no packet for 4 findings",
        "without a match: were both recorded at the same time",
        "10.77.0.1:45545 -> 10.77.0.2:33157: fell back to TCP here",
    ] {
        check(&output, 0, says);
    }
    assert_eq!(comments(&fs::read(&out).unwrap()), []);
}

#[test]
fn what_is_wrong_is_said() {
    let (dir, out) = scratch("out.pcapng");
    let at = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let packets = session("packets.pcap");
    let whole = fs::read(&packets).unwrap();
    let capture = fs::read(session("packets.mpt")).unwrap();
    for (bytes, says) in [
        (&b""[..], "it is empty"),
        (
            &b"\x1f\x8b\x08\x00"[..],
            "it is compressed: unpack it first",
        ),
        (&capture[..], "it is neither pcapng nor pcap"),
        (&whole[..20], "it is cut off within the block at byte 0"),
    ] {
        let file = at("packets", bytes);
        let output = annotate(&file, &out, &[]);
        check(
            &output,
            1,
            &format!("cannot annotate {}: {says}", file.display()),
        );
        assert!(!out.exists(), "{says}");
    }
    // What precedes the damage is written.
    let cut = at("cut.pcap", &whole[..whole.len() - 1]);
    let output = annotate(&cut, &out, &[]);
    check(&output, 1, "is cut off within the block at byte ");
    check(&output, 1, "packets before it");
    assert!(comments(&fs::read(&out).unwrap()).len() > 2);
    // So are the findings of a capture that is cut off.
    let half = at("half.mpt", &capture[..capture.len() - 1]);
    let words = ["annotate", text(&packets), text(&half), "-o", text(&out)];
    check(&run(words), 1, "is cut off: later findings are missing");
    // Inputs are neither overwritten nor taken for each other.
    check(
        &annotate(&cut, &cut, &[]),
        2,
        "is the packet capture itself",
    );
    let words = ["annotate", text(&packets), text(&half), "-o", text(&half)];
    check(&run(words), 2, "is the capture itself");
    let words = ["annotate", text(&half), text(&packets), "-o", text(&out)];
    check(&run(words), 1, "cannot read ");
    check(
        &annotate(Path::new("/no/such"), &out, &[]),
        1,
        "cannot open the packet capture /no/such",
    );
    check(
        &annotate(Path::new("/dev/null"), &out, &[]),
        1,
        "it must be a file",
    );
    check(
        &annotate(&packets, Path::new("/no/such/out"), &[]),
        1,
        "cannot write /no/such/out",
    );
    check(
        &run(["annotate", text(&packets), text(&half)]),
        2,
        "--output",
    );
}
