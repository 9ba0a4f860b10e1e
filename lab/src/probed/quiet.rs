//! No verb but `probe` sends a packet: a network namespace in which each of them runs is watched.

use std::{
    fs::File,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use socket2::{Domain, Protocol, Socket, Type};
use tempfile::TempDir;

use crate::{
    cells::{judged, skipped},
    netns,
    process::Running,
    report::Cell,
    tracer::TracerArgs,
    veth,
    wait::Patience,
};

/// One verb.
struct Verb {
    name: &'static str,
    words: &'static [&'static str],
    /// It runs until a signal.
    is_stopped: bool,
}

const fn verb(name: &'static str, words: &'static [&'static str]) -> Verb {
    Verb {
        name,
        words,
        is_stopped: false,
    }
}

/// `CAPTURE` and `OUT` stand for files.
const VERBS: [Verb; 14] = [
    verb(
        "live",
        &["live", "--capture", "CAPTURE", "--duration", "1s"],
    ),
    verb(
        "live-json",
        &["live", "--json", "--by", "dest", "--duration", "1s"],
    ),
    verb("list", &["list", "--paths"]),
    verb("doctor", &["doctor"]),
    verb("bundle", &["bundle", "OUT.tar.zst", "--duration", "1s"]),
    Verb {
        is_stopped: true,
        ..verb(
            "serve",
            &["serve", "--listen", "127.0.0.1:0", "--ready-file", "READY"],
        )
    },
    verb("demo", &["demo"]),
    verb("replay", &["replay", "CAPTURE"]),
    verb("report", &["report", "CAPTURE", "-o", "OUT.html"]),
    verb(
        "annotate",
        &["annotate", "PACKETS", "CAPTURE", "-o", "OUT.pcapng"],
    ),
    verb("explain", &["explain"]),
    verb("schema", &["schema"]),
    verb("completions", &["completions", "bash"]),
    // The one that does; it shows that the watch works.
    verb(
        "probe",
        &[
            "probe",
            "--timeout",
            "100ms",
            "--max-hops",
            "2",
            "10.77.0.2:9",
        ],
    ),
];

/// How long a verb that ends at a signal is watched.
const SERVED: Duration = Duration::from_millis(500);

/// Runs each verb, with the first of the attach methods; returns a cell for each.
pub(super) fn run(tried: &TracerArgs) -> anyhow::Result<Vec<Cell>> {
    let (near, far) = veth::joined()?;
    let files = TempDir::new().context("cannot create a temporary directory")?;
    // A packet capture without packets.
    let header = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1];
    let header: Vec<u8> = header.iter().flat_map(|it| it.to_ne_bytes()).collect();
    std::fs::write(files.path().join("PACKETS"), header).context("cannot write a file")?;
    settle(&near, &far)?;
    let mut cells = Vec::new();
    for verb in &VERBS {
        cells.push(watched(tried, verb, near.as_fd(), files.path())?);
    }
    drop(far);
    Ok(cells)
}

/// Waits until the kernel has announced the namespace's own addresses.
fn settle(near: &File, far: &File) -> anyhow::Result<()> {
    const QUIET: Duration = Duration::from_millis(1_500);
    const PATIENCE: Patience = Patience::new(Duration::from_secs(20), Duration::from_millis(1));
    for namespace in [near, far] {
        let name = format!("net.ipv6.conf.{}.router_solicitations", veth::DEVICE);
        netns::set_sysctl(namespace.as_fd(), &name, "0")?;
    }
    let tap = tap(near.as_fd())?;
    let is_quiet = PATIENCE.holds(|| {
        std::thread::sleep(QUIET);
        Ok(packets(&tap)?.is_empty())
    })?;
    ensure!(is_quiet, "a new network namespace does not become quiet");
    Ok(())
}

fn watched(
    tried: &TracerArgs,
    verb: &Verb,
    near: BorrowedFd<'_>,
    files: &Path,
) -> anyhow::Result<Cell> {
    let case = format!("quiet-{}", verb.name);
    let rung = tried.rungs().first().cloned().unwrap_or_default();
    let path = |word: &str| files.join(word).display().to_string();
    let words = verb.words.iter().map(|&word| match word {
        "CAPTURE" | "PACKETS" | "READY" => path(word),
        word if word.starts_with("OUT.") => path(word),
        word => word.to_owned(),
    });
    let mut words: Vec<String> = words.collect();
    let traces = ["live", "list", "doctor", "bundle", "serve", "demo"];
    if traces.contains(&verb.words[0]) {
        words.splice(1..1, ["--attach".to_owned(), rung.clone()]);
    }
    let tap = tap(near)?;
    let code = netns::within(near, || {
        let mut command = Command::new(&tried.tracer);
        command
            .args(&words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut running = Running::start("the tracer", &mut command)?;
        if verb.is_stopped {
            const START: Patience =
                Patience::new(Duration::from_secs(60), Duration::from_millis(20));
            let ready = files.join("READY");
            ensure!(START.holds(|| Ok(ready.exists()))?, "serve does not start");
            std::thread::sleep(SERVED);
            running.signal(Signal::TERM)?;
        }
        const PATIENCE: Patience =
            Patience::new(Duration::from_secs(60), Duration::from_millis(10));
        Ok(running.wait(PATIENCE)?.and_then(|status| status.code()))
    })?;
    let sent = packets(&tap)?;
    let sends = verb.name == "probe";
    let mut wrong = Vec::new();
    match code {
        Some(3) if !sends => return Ok(skipped(&case, &rung, "this kernel cannot answer it")),
        // Nothing listens on the port of the probe.
        Some(0) if !sends => {}
        Some(5) if sends => {}
        code => wrong.push(format!("it ended with {code:?}")),
    }
    if sends == sent.is_empty() {
        wrong.push(format!("{} packets: {sent:02x?}", sent.len()));
    }
    let traced = format!(
        "{} packets",
        if sends {
            "some".into()
        } else {
            sent.len().to_string()
        }
    );
    Ok(judged(&case, &rung, &verb.words.join(" "), &traced, wrong))
}

/// All packets of a namespace, in both directions and on loopback, from now on.
fn tap(namespace: BorrowedFd<'_>) -> anyhow::Result<Socket> {
    let protocol = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
    netns::within(namespace, || {
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))
            .context("cannot open a packet socket")?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })
}

/// The first bytes of the packets that were seen.
fn packets(tap: &Socket) -> anyhow::Result<Vec<Vec<u8>>> {
    const BYTES: usize = 64;
    let mut all = Vec::new();
    let mut buffer = [0; BYTES];
    loop {
        match std::io::Read::read(&mut { tap }, &mut buffer) {
            Ok(length) => all.push(buffer[..length.min(BYTES)].to_vec()),
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => return Ok(all),
            Err(why) => return Err(why).context("cannot read the packets of a namespace"),
        }
    }
}
