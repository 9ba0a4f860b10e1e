//! Shared by the live tests: the program under test, and an application that makes queries.

use std::{
    ffi::OsStr,
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

/// Environment variable with the role of the asker, which the test binary itself plays.
const ROLE: &str = "MPTCP_TRACE_TEST_ASKER";

/// Environment variable with the path of a file that the asker creates once its sockets exist.
const READY: &str = "MPTCP_TRACE_TEST_READY";

/// Time limit for any wait in these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A command that starts the program under test.
pub(crate) fn tracer() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mptcp-trace"));
    command
        .env_remove("NO_COLOR")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub(crate) fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    tracer().args(args).output().unwrap()
}

/// True if this process may trace; prints the skip reason otherwise.
pub(crate) fn may_trace(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: {test} needs root to load BPF programs");
    }
    root
}

/// Standard error as text.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output, parsed as JSON lines.
pub(crate) fn json_lines(output: &Output) -> Vec<Value> {
    parse_lines(&output.stdout)
}

/// Parses JSON lines.
pub(crate) fn parse_lines(bytes: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(bytes)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")))
        .collect()
}

/// The `data` of all lines of a type.
pub(crate) fn of_type(lines: &[Value], name: &str) -> Vec<Value> {
    lines
        .iter()
        .filter(|line| line["type"] == name)
        .map(|line| line["data"].clone())
        .collect()
}

/// Asserts that the output contains no trace of a crash.
pub(crate) fn assert_orderly(output: &Output) {
    let text = stderr(output);
    for word in ["panicked", "RUST_BACKTRACE", "stack backtrace"] {
        assert!(!text.contains(word), "{text}");
    }
}

/// The command line of an asker with this role.
pub(crate) fn asker(role: &str) -> [String; 6] {
    let me = std::env::current_exe().unwrap().display().to_string();
    let words = [
        "env",
        &format!("{ROLE}={role}"),
        &me,
        "--exact",
        "asker_in_disguise",
        "--nocapture",
    ];
    words.map(str::to_owned)
}

/// Starts an asker without a tracer.
pub(crate) fn spawn_asker(role: &str) -> Child {
    spawn_asker_in(&[], role)
}

/// Like `spawn_asker`, with a command prefix.
pub(crate) fn spawn_asker_in(before: &[&str], role: &str) -> Child {
    let words = asker(role);
    let mut words = before
        .iter()
        .copied()
        .chain(words.iter().map(String::as_str));
    Command::new(words.next().unwrap())
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Starts an asker without a tracer, and waits until its sockets exist and it reads stdin.
pub(crate) fn spawn_ready_asker(role: &str) -> Child {
    spawn_ready_asker_in(&[], role)
}

/// Like `spawn_ready_asker`, with a command prefix.
pub(crate) fn spawn_ready_asker_in(before: &[&str], role: &str) -> Child {
    let (dir, ready) = scratch("ready");
    // The command prefix may have changed the user.
    let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(dir.path(), anybody).unwrap();
    let words = asker(role);
    let mut words = before
        .iter()
        .copied()
        .chain(words.iter().map(String::as_str));
    let child = Command::new(words.next().unwrap())
        .args(words)
        .env(READY, &ready)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&ready);
    child
}

/// Reports that all sockets exist.
fn say_ready() {
    if let Some(file) = std::env::var_os(READY) {
        std::fs::write(file, "ready").unwrap();
    }
}

/// The body of the test that is not a test: plays the asker if the environment names a role.
///
/// Roles: `basic` queries a fresh MPTCP socket, one that fell back and a TCP one; `flood N` makes N
/// queries; `fall N` provokes N fallbacks; `wait` makes a query per byte of stdin; `falls` provokes
/// a fallback per byte; `fallen` provokes one fallback, then makes a query per byte; `joined` has a
/// connection with as many subflows as its network namespace allows; `threads` makes a query from a
/// second thread; `child` from a child process; `exit N` makes a query and exits with N;
/// `listen ADDRESS:PORT` listens; `idle N` holds N sockets, and a further one falls back per byte;
/// `name NAME` makes a query from a thread of that name; `forever` makes queries until killed.
pub(crate) fn play() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let mut words = role.split(' ');
    let (verb, word) = (
        words.next().unwrap(),
        words.next().unwrap_or_default().to_owned(),
    );
    match verb {
        "basic" => {
            let mptcp = open(true);
            ask(&mptcp);
            let listener = connect_to_tcp(&mptcp);
            ask(&mptcp);
            ask(&listener);
        }
        "falls" => {
            let mut byte = [0];
            while io::stdin().read(&mut byte).unwrap() == 1 {
                connect_to_tcp(&open(true));
            }
        }
        "fallen" => {
            let mptcp = open(true);
            let _listener = connect_to_tcp(&mptcp);
            say_ready();
            let mut byte = [0];
            while io::stdin().read(&mut byte).unwrap() == 1 {
                ask(&mptcp);
            }
        }
        "fall" => {
            for _ in 0..word.parse().unwrap() {
                connect_to_tcp(&open(true));
            }
        }
        "joined" => {
            let listener = open(true);
            listener
                .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
                .unwrap();
            listener.listen(1).unwrap();
            let client = open(true);
            client.connect(&listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            // Subflows may join once both ends have exchanged data.
            for (from, to) in [(&client, &server), (&server, &client)] {
                from.send(b".").unwrap();
                (&mut { to }).read_exact(&mut [0]).unwrap();
            }
            let _end = io::stdin().read(&mut [0]).unwrap();
        }
        "flood" => {
            let socket = open(true);
            for _ in 0..word.parse().unwrap() {
                ask(&socket);
            }
        }
        "wait" => {
            let socket = open(true);
            say_ready();
            let mut byte = [0];
            while io::stdin().read(&mut byte).unwrap() == 1 {
                ask(&socket);
            }
        }
        "listen" => {
            let listener = open(true);
            let address: SocketAddr = word.parse().unwrap();
            listener.bind(&address.into()).unwrap();
            listener.listen(8).unwrap();
            say_ready();
            let _end = io::stdin().read(&mut [0]).unwrap();
        }
        "idle" => {
            let held: Vec<Socket> = (0..word.parse().unwrap()).map(|_| open(true)).collect();
            say_ready();
            let mut byte = [0];
            while io::stdin().read(&mut byte).unwrap() == 1 {
                connect_to_tcp(&open(true));
            }
            drop(held);
        }
        "threads" => std::thread::spawn(|| ask(&open(true))).join().unwrap(),
        "child" => {
            let words = asker("flood 1");
            assert!(
                Command::new(&words[0])
                    .args(&words[1..])
                    .status()
                    .unwrap()
                    .success()
            );
        }
        "exit" => {
            ask(&open(true));
            std::process::exit(word.parse().unwrap());
        }
        "name" => {
            let asking = || ask(&open(true));
            std::thread::Builder::new()
                .name(word)
                .spawn(asking)
                .unwrap()
                .join()
                .unwrap();
        }
        "forever" => {
            let socket = open(true);
            loop {
                ask(&socket);
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        other => panic!("no role {other}"),
    }
}

/// Connects to a listener without MPTCP, so that the connection falls back.
fn connect_to_tcp(socket: &Socket) -> Socket {
    let listener = open(false);
    listener
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    listener.listen(1).unwrap();
    socket.connect(&listener.local_addr().unwrap()).unwrap();
    listener
}

fn open(mptcp: bool) -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, mptcp.then_some(Protocol::MPTCP)).unwrap()
}

fn ask(socket: &Socket) {
    let mut value = -1_i32;
    let mut length = 4_u32;
    // SAFETY: both pointers refer to live variables of the sizes that are passed.
    unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            6,
            43,
            (&raw mut value).cast(),
            &raw mut length,
        );
    }
}

/// Waits until a file exists and is not empty.
pub(crate) fn wait_for(path: &Path) {
    let exists = || std::fs::read(path).is_ok_and(|bytes| !bytes.is_empty());
    until(&format!("{} appears", path.display()), exists);
}

/// Waits until a condition holds.
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A live tracer in the background.
pub(crate) struct Background {
    child: Child,
    scratch: tempfile::TempDir,
}

impl Background {
    /// Starts the tracer and waits until it is live.
    pub(crate) fn start(args: &[&str]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let ready = scratch.path().join("ready");
        let file = |name: &str| std::fs::File::create(scratch.path().join(name)).unwrap();
        // Reset SIGHUP to its default: under nohup it would be ignored.
        let child = Command::new("env")
            .arg("--default-signal=HUP")
            .arg(tracer().get_program())
            .args(args)
            .arg("--ready-file")
            .arg(&ready)
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap();
        wait_for(&ready);
        assert_eq!(
            std::fs::read_to_string(&ready).unwrap().trim(),
            child.id().to_string()
        );
        Self { child, scratch }
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.scratch.path().join(name)).unwrap()
    }

    /// Its stdout so far.
    pub(crate) fn printed(&self) -> String {
        String::from_utf8_lossy(&self.read("stdout")).into_owned()
    }

    /// Its stderr so far.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&self.read("stderr")).into_owned()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The ids of its BPF programs.
    pub(crate) fn program_ids(&self) -> Vec<u32> {
        std::fs::read_dir(format!("/proc/{}/fdinfo", self.child.id()))
            .unwrap()
            .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok())
            .filter_map(|info| {
                let id = info
                    .lines()
                    .find_map(|line| line.strip_prefix("prog_id:"))?;
                id.trim().parse().ok()
            })
            .collect()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end and returns its output.
    pub(crate) fn output(mut self) -> Output {
        let status = self.child.wait().unwrap();
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| self.read(name));
        Output {
            status,
            stdout,
            stderr,
        }
    }
}

/// A path in a fresh directory.
pub(crate) fn scratch(name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    (dir, path)
}
