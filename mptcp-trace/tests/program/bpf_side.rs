//! The sockets that the BPF side tracks: which ones, for which users, and for how long. On the
//! running kernel, with the attach method that it supports.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::process::Signal;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::common::{
    Background, json_lines, may_trace, of_type, spawn_ready_asker, spawn_ready_asker_in, stderr,
    tracer,
};

/// Command prefix that runs as an ordinary user.
const UNPRIVILEGED: &[&str] = &["setpriv", "--reuid", "65534", "--clear-groups"];

/// Stops a tracer with SIGINT and returns its lines.
fn ended(watching: Background) -> Vec<Value> {
    watching.signal(Signal::INT);
    json_lines(&watching.output())
}

fn mptcp() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).unwrap()
}

/// The sum of a counter over both sensors.
fn counted(lines: &[Value], name: &str) -> u64 {
    let end = of_type(lines, "end").pop().unwrap();
    let losses = end["losses"].as_array().unwrap();
    losses.iter().map(|loss| loss[name].as_u64().unwrap()).sum()
}

fn owned_by(lines: &[Value], kind: &str, pid: u32) -> usize {
    let of_kind = of_type(lines, kind);
    of_kind
        .iter()
        .filter(|line| line["owner"]["pid"] == pid)
        .count()
}

#[test]
fn the_self_test_of_another_instance_is_counted_and_nothing_else() {
    if !may_trace("the_self_test_of_another_instance_is_counted_and_nothing_else") {
        return;
    }
    let watching = Background::start(&["--json"]);
    let mut pids = Vec::new();
    for verb in ["list", "doctor"] {
        let mut command = tracer();
        let child = command.arg(verb).stdout(Stdio::piped()).spawn().unwrap();
        pids.push(child.id());
        assert!(child.wait_with_output().unwrap().status.success(), "{verb}");
    }
    let lines = ended(watching);
    // Match by process id: instances of other versions may also run here.
    let of_them = lines.iter().filter(|line| {
        let data = &line["data"];
        pids.iter()
            .any(|pid| data["pid"] == *pid || data["owner"]["pid"] == *pid)
    });
    assert_eq!(of_them.collect::<Vec<_>>(), [] as [&Value; 0]);
    // Each of the two makes five queries and two fallbacks.
    assert!(counted(&lines, "self_tests") >= 14, "{lines:?}");
}

#[test]
fn clients_belong_to_the_listener_that_they_connected_to() {
    if !may_trace("clients_belong_to_the_listener_that_they_connected_to") {
        return;
    }
    let watching = Background::start(&["--json"]);
    let listener = mptcp();
    listener
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    listener.listen(8).unwrap();
    let ours = listener.local_addr().unwrap().as_socket().unwrap();
    let mut held = vec![TcpStream::connect(ours).unwrap()];
    // Another listener on the same port of another address stops.
    let other = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), ours.port()));
    let mut stranger = spawn_ready_asker(&format!("listen {other}"));
    held.push(TcpStream::connect(ours).unwrap());
    let theirs = TcpStream::connect(other).unwrap();
    drop(stranger.stdin.take());
    stranger.wait().unwrap();
    held.push(TcpStream::connect(ours).unwrap());
    let ports: Vec<u16> = held
        .iter()
        .map(|it| it.local_addr().unwrap().port())
        .collect();
    let their_port = theirs.local_addr().unwrap().port();
    // A connection that is never accepted is printed after a second.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let lines = ended(watching);
    let plain = of_type(&lines, "plain");
    let owner = |port: u16| -> Vec<&Value> {
        plain
            .iter()
            .filter(|line| line["remote"]["port"] == port)
            .map(|line| &line["owner"]["pid"])
            .collect()
    };
    for port in ports {
        assert_eq!(owner(port), [&Value::from(std::process::id())], "{lines:?}");
    }
    assert_eq!(owner(their_port), [&Value::from(stranger.id())]);
}

#[test]
fn one_user_cannot_take_the_room_of_another_and_loses_no_fallback_either() {
    if !may_trace("one_user_cannot_take_the_room_of_another_and_loses_no_fallback_either") {
        return;
    }
    // Others may have listeners elsewhere on this host.
    let watching = Background::start(&[
        "--json",
        "--sockets",
        "65536",
        "--sockets-per-user",
        "64",
        "--netns",
        "/proc/self/ns/net",
    ]);
    let mut greedy = spawn_ready_asker_in(UNPRIVILEGED, "idle 200");
    let mut other =
        spawn_ready_asker_in(&["setpriv", "--reuid", "65533", "--clear-groups"], "idle 1");
    for child in [&mut greedy, &mut other] {
        child.stdin.take().unwrap().write_all(b"...").unwrap();
        assert!(child.wait().unwrap().success());
    }
    let (greedy, other) = (greedy.id(), other.id());
    let lines = ended(watching);
    assert_eq!(owned_by(&lines, "fallback", other), 3);
    assert!(counted(&lines, "over_share") >= 136, "{lines:?}");
    // Its own fallbacks have no owner, and are still fallbacks.
    assert_eq!(owned_by(&lines, "fallback", greedy), 0);
    let ownerless = of_type(&lines, "fallback");
    let ownerless = ownerless.iter().filter(|line| line["owner"].is_null());
    assert_eq!(ownerless.count(), 3, "{lines:?}");
    assert_eq!(of_type(&lines, "existing"), [] as [Value; 0]);
}

/// The tracer's self-test sockets belong to no user, so they do not use up a limit of one.
#[test]
fn its_own_sockets_are_not_counted_as_without_room() {
    if !may_trace("its_own_sockets_are_not_counted_as_without_room") {
        return;
    }
    let without_room = || {
        let mut alone = std::process::Command::new("unshare");
        alone.args(["--net", "sh", "-c", "ip link set lo up; exec \"$@\"", "-"]);
        alone.arg(env!("CARGO_BIN_EXE_mptcp-trace"));
        alone.args(["--json", "--sockets", "2", "--sockets-per-user", "1"]);
        let lines = json_lines(&alone.args(["--", "true"]).output().unwrap());
        counted(&lines, "unfollowed") + counted(&lines, "over_share")
    };
    // Other tests also create sockets, but not all the time.
    assert!((0..20).any(|_| without_room() == 0));
}

#[test]
fn unaccepted_connections_free_their_entries_when_the_listener_closes() {
    if !may_trace("unaccepted_connections_free_their_entries_when_the_listener_closes") {
        return;
    }
    // As a user with a separate share, make twice as many connections as fit into it. Other
    // tests, which run meanwhile as root, have fewer sockets than the share.
    let share = ["--sockets", "65536", "--sockets-per-user", "1400"];
    let watching = Background::start(&[&["--json"], &share[..]].concat());
    let script = "import os, socket
os.setgid(65532); os.setuid(65532)
for _ in range(50):
    l = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); l.bind(('127.0.0.1', 0)); l.listen(64)
    for _ in range(60):
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); s.connect(l.getsockname()); s.close()
    l.close()
    import time; time.sleep(0.05)
";
    let made = std::process::Command::new("python3")
        .args(["-c", script])
        .status();
    let Ok(made) = made else {
        eprintln!("skipped: python3 is not installed");
        return;
    };
    assert!(made.success());
    let lines = ended(watching);
    assert_eq!(counted(&lines, "over_share"), 0, "{lines:?}");
}

#[test]
fn more_sockets_are_listed_than_the_ring_holds() {
    if !may_trace("more_sockets_are_listed_than_the_ring_holds") {
        return;
    }
    const SOCKETS: usize = 900;
    let mut holder = spawn_ready_asker(&format!("idle {SOCKETS}"));
    let mut list = tracer();
    // A ring that holds 280 records.
    list.args(["list", "--json", "--ring-size", "64K", "--pid"])
        .arg(holder.id().to_string());
    let output = list.output().unwrap();
    drop(holder.stdin.take());
    holder.wait().unwrap();
    let lines = json_lines(&output);
    assert_eq!(
        of_type(&lines, "socket").len(),
        SOCKETS,
        "{}",
        stderr(&output)
    );
    assert_eq!(counted(&lines, "ring_full"), 0);
}

/// I/O between attaching and the pass over all files must not hide a socket from the list.
#[test]
fn a_connection_that_carries_data_all_the_time_is_listed() {
    if !may_trace("a_connection_that_carries_data_all_the_time_is_listed") {
        return;
    }
    let listener = mptcp();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    listener.bind(&any.into()).unwrap();
    listener.listen(1).unwrap();
    let client = mptcp();
    client.connect(&listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let ends = [&client, &server].map(|end| {
        let address = end.local_addr().unwrap().as_socket().unwrap();
        u64::from(address.port())
    });
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 1024];
            while !is_over.load(Ordering::Relaxed) {
                (&client).write_all(&[0; 1024]).unwrap();
                (&server).read_exact(&mut buffer).unwrap();
            }
        });
        let mut list = tracer();
        list.args(["list", "--json", "--pid"])
            .arg(std::process::id().to_string());
        let output = list.output().unwrap();
        is_over.store(true, Ordering::Relaxed);
        let lines = json_lines(&output);
        let ports: Vec<u64> = of_type(&lines, "socket")
            .iter()
            .filter(|socket| socket["state"] == "ESTABLISHED")
            .filter_map(|socket| socket["local"]["port"].as_u64())
            .collect();
        for end in ends {
            assert!(ports.contains(&end), "{end}: {lines:?}");
        }
    });
}

/// The socket is closed with unread data: no MPTCP-level FIN is sent, and its subflow outlives it.
#[test]
fn who_read_last_is_the_owner_of_the_last_word_and_the_end_is_seen() {
    if !may_trace("who_read_last_is_the_owner_of_the_last_word_and_the_end_is_seen") {
        return;
    }
    let watching = Background::start(&["--json"]);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = mptcp();
    client
        .connect(&listener.local_addr().unwrap().into())
        .unwrap();
    let port = client.local_addr().unwrap().as_socket().unwrap().port();
    let (mut server, _) = listener.accept().unwrap();
    (&client).write_all(b"first").unwrap();
    server.write_all(b"12345").unwrap();
    let heir = std::process::Command::new("sh")
        .args(["-c", "head -c 1 >/dev/null; sleep 0.5"])
        .stdin(OwnedFd::from(client))
        .status();
    assert!(heir.unwrap().success());
    std::thread::sleep(std::time::Duration::from_millis(500));
    let lines = ended(watching);
    let of_it = |kind: &str| {
        let mut of_kind = of_type(&lines, kind);
        of_kind.retain(|line| line["local"]["port"] == port);
        of_kind
    };
    assert_eq!(of_it("fallback")[0]["owner"]["pid"], std::process::id());
    let [verdict] = &of_it("verdict")[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(verdict["owner"]["comm"], "head", "{verdict}");
    assert_eq!(verdict["closed_by"], "death", "{verdict}");
    assert_eq!(verdict["doubt"], Value::Null, "{verdict}");
}

#[test]
fn the_self_test_is_whole_whatever_the_cap_is() {
    if !may_trace("the_self_test_is_whole_whatever_the_cap_is") {
        return;
    }
    let output = crate::common::run(["--cap", "1", "--", "true"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// `pkill -USR2 -x mptcp-trace` for logrotate also signals tracers that do not write to a file.
#[test]
fn a_request_that_is_meant_for_another_ends_nothing() {
    if !may_trace("a_request_that_is_meant_for_another_ends_nothing") {
        return;
    }
    for words in [&["--json"][..], &["serve", "--listen", "127.0.0.1:0"]] {
        let watching = Background::start(words);
        for signal in [Signal::USR2, Signal::USR1] {
            watching.signal(signal);
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
        watching.signal(Signal::INT);
        let output = watching.output();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
}

#[test]
fn children_that_exist_already_are_followed() {
    if !may_trace("children_that_exist_already_are_followed") {
        return;
    }
    // `--pid` names the shell; its child starts before the tracer.
    let mut parent = spawn_ready_asker_in(&["sh", "-c", "\"$@\"; true", "sh"], "wait");
    let pid = parent.id().to_string();
    let watching = Background::start(&["--json", "--follow", "--pid", &pid]);
    parent.stdin.take().unwrap().write_all(b"...").unwrap();
    assert!(parent.wait().unwrap().success());
    let lines = json_lines(&watching.output());
    assert_eq!(of_type(&lines, "query").len(), 3, "{lines:?}");
}

/// Starts the tracer with this limit of open files.
fn with_descriptors(limit: u32) -> std::process::Output {
    let script = format!("ulimit -n {limit}; exec \"$@\"");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script, "sh"]);
    command.arg(tracer().get_program());
    command.args(["--json", "--duration", "100ms"]);
    command.output().unwrap()
}

#[test]
fn a_start_without_descriptors_fails_for_now_and_does_without_no_sensor() {
    if !may_trace("a_start_without_descriptors_fails_for_now_and_does_without_no_sensor") {
        return;
    }
    for limit in [16, 24, 32, 40, 44, 48, 50, 52] {
        let output = with_descriptors(limit);
        match output.status.code() {
            Some(0) => {
                let start = of_type(&json_lines(&output), "start").pop().unwrap();
                assert_eq!(start["sensors"].as_array().unwrap().len(), 2, "{limit}");
            }
            Some(1) => {
                let said = stderr(&output);
                assert!(said.contains("Too many open files"), "{limit}: {said}");
                assert!(
                    !said.contains("queries cannot be traced"),
                    "{limit}: {said}"
                );
            }
            other => panic!("{limit}: {other:?}: {}", stderr(&output)),
        }
    }
}
