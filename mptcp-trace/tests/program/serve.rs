//! `mptcp-trace serve` on a Unix socket.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
};

use rustix::process::Signal;

use crate::common::{Background, PATIENCE, may_trace, run, scratch, stderr};

/// Fetches a path, as `curl --unix-socket` does.
fn get(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    body.to_owned()
}

#[test]
fn metrics_are_served_on_a_unix_socket_that_is_removed_at_exit() {
    if !may_trace("metrics_are_served_on_a_unix_socket_that_is_removed_at_exit") {
        return;
    }
    let (_folder, socket) = scratch("socket");
    let listen = format!("unix:{}", socket.display());
    let words = ["serve", "--listen", &listen];
    let killed = Background::start(&words);
    killed.signal(Signal::KILL);
    let _killed = killed.output();
    assert!(socket.exists(), "a killed process removes nothing");
    // The next one replaces what is left.
    let serving = Background::start(&words);
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(format!("{:o}", mode & 0o7777), "660");
    assert_eq!(get(&socket, "/readyz"), "ok\n");
    let page = get(&socket, "/metrics");
    for start in [
        "mptcp_trace_fallbacks_total{cause=\"DssFallback\",side=\"active\",",
        "mptcp_trace_questions_total{api=\"TCP_IS_MPTCP\",answer=\"mptcp\",verdict=\"still-mptcp\"} ",
        "mptcp_trace_closed_verdicts_total{verdict=\"stale\"} ",
        "mptcp_trace_refused_fallbacks_total{cause=\"DssFallback\"} ",
        "process_cpu_seconds_total ",
        "process_open_fds ",
        "process_max_fds ",
        "process_virtual_memory_bytes ",
        "process_resident_memory_bytes ",
        "process_threads ",
        "process_start_time_seconds ",
    ] {
        assert!(
            page.lines().any(|line| line.starts_with(start)),
            "{start}: {page}"
        );
    }
    // A second one leaves it alone.
    let second = run(words);
    assert_eq!(second.status.code(), Some(1));
    let said = stderr(&second);
    assert!(said.contains("another program listens on it"), "{said}");
    assert_eq!(get(&socket, "/healthz"), "ok\n");
    serving.signal(Signal::TERM);
    let output = serving.output();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains(&listen), "{}", stderr(&output));
    assert!(!socket.exists());
}

#[test]
fn a_path_that_is_no_socket_stays() {
    let (_folder, file) = scratch("file");
    fs::write(&file, "x").unwrap();
    let output = run(["serve", "--listen", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("exists and is not a socket"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

/// The address of the settings is that which is bound, unless the command line has another.
#[test]
fn the_settings_say_where_to_listen_and_the_command_line_wins() {
    let (folder, file) = scratch("file");
    let other = folder.path().join("other");
    for file in [&file, &other] {
        fs::write(file, "x").unwrap();
    }
    let settings = folder.path().join("serve.toml");
    fs::write(&settings, format!("listen = \"unix:{}\"\n", file.display())).unwrap();
    let words = ["serve", "--config", settings.to_str().unwrap()];
    let listen = ["--listen", other.to_str().unwrap()];
    for (more, bound) in [(&[][..], &file), (&listen, &other)] {
        let output = run([&words, more].concat());
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        let at = format!("cannot listen on unix:{}; see --listen", bound.display());
        assert!(said.contains(&at), "{said}");
    }
    fs::write(&settings, "listen = \"nowhere\"\n").unwrap();
    let output = run(words);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(said.contains("`listen` in --config is invalid"), "{said}");
}
