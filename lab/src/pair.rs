//! `mptcp-lab pair`: curl and nginx, two real programs without MPTCP support, run with MPTCP by
//! `mptcpize`, with and without a middlebox between them.

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpStream},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    cells::{Cells, judged, skipped},
    findings::balanced,
    middlebox::Middlebox,
    netns::{self, Counters},
    process::{Running, is_in_path},
    recipes::FALLBACK_COUNTERS,
    report::Cell,
    rules::{Rules, Treatment},
    scratch::Scratch,
    sys,
    traced::{Found, TracedLine},
    tracer::{
        TracerArgs,
        suite::{Said, Suite},
    },
    veth::SERVER_V4,
    wait::Patience,
};

/// Port of nginx.
const PORT: u16 = 8080;
/// Size of a download of many packets.
const LARGE_BYTES: usize = 1 << 20;
/// Size of a download of several packets that fit into the initial receive window. After the
/// client's fallback it sends no more MPTCP data ACKs, and a server that only sends does not
/// notice: it waits, and sends a packet every 200 ms.
const SMALL_BYTES: usize = 32 << 10;
/// Timeout of a download, seconds.
const DOWNLOAD_MAX_S: &str = "60";
/// Until nginx answers, and until it ends.
const NGINX: Patience = Patience::new(Duration::from_secs(20), Duration::from_millis(20));

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The mptcp-trace to test
    #[arg(long, value_name = "PATH")]
    tracer: PathBuf,
    /// Attach method
    #[arg(long, value_name = "METHOD", default_value = "tracepoint")]
    attach: String,
}

/// One download.
struct Try {
    case: &'static str,
    /// Size of the file.
    bytes: usize,
    rules: Rules,
    /// Whether curl's connection must fall back.
    falls_back: bool,
}

const STRIPPED_SYN: Treatment = Treatment {
    strip_syn: true,
    ..Treatment::NONE
};
const STRIPPED_DATA: Treatment = Treatment {
    strip_from: Some(4),
    ..Treatment::NONE
};

const TRIES: [Try; 3] = [
    Try {
        case: "pair-healthy",
        bytes: LARGE_BYTES,
        rules: Rules::NONE,
        falls_back: false,
    },
    Try {
        case: "pair-strip-syn",
        bytes: LARGE_BYTES,
        rules: Rules {
            to_server: STRIPPED_SYN,
            ..Rules::NONE
        },
        falls_back: true,
    },
    Try {
        case: "pair-strip-data",
        bytes: SMALL_BYTES,
        rules: Rules {
            to_client: STRIPPED_DATA,
            ..Rules::NONE
        },
        falls_back: true,
    },
];

/// Result of one download.
struct Downloaded {
    of: &'static Try,
    /// A time on `CLOCK_BOOTTIME` before the namespaces were created.
    since_ns: u64,
    /// Inode number of the client's and the server's network namespace, with the kernel's counters.
    near: (u64, Counters),
    far: (u64, Counters),
    /// Keeps the namespaces alive, so that their numbers are not reused.
    _middlebox: Middlebox,
}

/// Runs everything; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let rung = &args.attach;
    let mut cells = Cells::new()?;
    for program in ["mptcpize", "curl", "nginx"] {
        if !is_in_path(program) {
            let why =
                format!("there is no {program} here (Debian packages mptcpize, curl, nginx-light)");
            cells.put(skipped("pair", rung, why))?;
            return cells.close();
        }
    }
    let tried = TracerArgs {
        tracer: args.tracer.clone(),
        attach: Vec::new(),
        tracer_arg: Vec::new(),
    };
    let perform = || TRIES.iter().map(download).collect();
    let judge = |downloads: Vec<Downloaded>, said: &Said| {
        let lines = &said.lines;
        let mut cells: Vec<Cell> = downloads.iter().map(|it| cell(rung, it, lines)).collect();
        cells.push(balanced(rung, lines));
        cells
    };
    cells.put_all(Suite::new(&tried, rung).run(|_watch| perform(), judge)?)?;
    cells.close()
}

fn download(of: &'static Try) -> anyhow::Result<Downloaded> {
    let since_ns = sys::boottime_ns();
    let middlebox = Middlebox::new()?;
    let before = [
        netns::counters(middlebox.near())?,
        netns::counters(middlebox.far())?,
    ];
    let nginx = Nginx::start(middlebox.far(), of.bytes)?;
    middlebox.set(of.rules)?;
    let page = Scratch::new("page");
    let url = format!("http://{SERVER_V4}:{PORT}/file");
    let status = netns::within(middlebox.near(), || {
        Command::new("mptcpize")
            .args(["run", "curl", "--silent", "--show-error"])
            .args(["--max-time", DOWNLOAD_MAX_S, "--output"])
            .arg(&page.0)
            .arg(&url)
            .stdin(Stdio::null())
            .status()
            .context("cannot run curl")
    })?;
    ensure!(status.success(), "{}: curl: {status}", of.case);
    let got = fs::metadata(&page.0).map_or(0, |page| page.len());
    ensure!(
        got == of.bytes as u64,
        "{}: curl got {got} of {} bytes",
        of.case,
        of.bytes
    );
    drop(nginx);
    let moved = |at: usize, now: BorrowedFd<'_>| -> anyhow::Result<(u64, Counters)> {
        let moved = netns::moved(&before[at], &netns::counters(now)?);
        Ok((netns::number(now)?, moved))
    };
    Ok(Downloaded {
        of,
        since_ns,
        near: moved(0, middlebox.near())?,
        far: moved(1, middlebox.far())?,
        _middlebox: middlebox,
    })
}

/// An nginx that uses MPTCP without knowing it. Dropping it stops it.
struct Nginx {
    child: Running,
    _home: TempDir,
}

impl Nginx {
    fn start(namespace: BorrowedFd<'_>, bytes: usize) -> anyhow::Result<Self> {
        let home = tempfile::tempdir().context("cannot make a directory for nginx")?;
        fs::write(home.path().join("file"), vec![b'x'; bytes]).context("cannot write a file")?;
        let conf = home.path().join("nginx.conf");
        fs::write(&conf, configuration(home.path())).context("cannot configure nginx")?;
        let mut command = Command::new("mptcpize");
        command
            .args(["run", "nginx", "-e", "stderr", "-c"])
            .arg(&conf)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let child = netns::within(namespace, || Running::start("nginx", &mut command))?;
        let nginx = Self { child, _home: home };
        let address = SocketAddr::from((SERVER_V4, PORT));
        // Probe with a plain TCP client in the server's namespace: it is no MPTCP connection, so it
        // cannot fall back.
        let answers = || netns::within(namespace, || Ok(TcpStream::connect(address).is_ok()));
        ensure!(NGINX.holds(answers)?, "nginx does not answer");
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A signal to the master stops nginx gracefully; a failure has no consequence.
        let _gone = self.child.signal(Signal::TERM);
        let _ended = self.child.wait(NGINX);
    }
}

fn configuration(home: &Path) -> String {
    let home = home.display();
    format!(
        "daemon off;\nworker_processes 1;\nuser root;\npid {home}/pid;\nerror_log stderr;\n\
         events {{ worker_connections 64; }}\n\
         http {{\n access_log off;\n client_body_temp_path {home}/body;\n proxy_temp_path {home}/proxy;\n \
         fastcgi_temp_path {home}/fastcgi;\n uwsgi_temp_path {home}/uwsgi;\n scgi_temp_path {home}/scgi;\n \
         server {{ listen {SERVER_V4}:{PORT}; root {home}; }}\n}}\n"
    )
}

/// The fallbacks must match the kernel's counters by cause, and each must belong to the program at
/// that end.
fn cell(rung: &str, download: &Downloaded, lines: &[TracedLine]) -> Cell {
    let mut wrong = Vec::new();
    let mut said = Vec::new();
    for (end, program, (netns, counted)) in [
        ("client", "curl", &download.near),
        ("server", "nginx", &download.far),
    ] {
        let found: Vec<&Found> = lines
            .iter()
            .filter_map(TracedLine::fallback)
            .filter(|found| found.netns == *netns && !found.is_before(download.since_ns))
            .collect();
        for found in &found {
            let owner = found.owner.as_ref().map(|owner| owner.comm.as_str());
            if owner != Some(program) {
                wrong.push(format!("{end}: owner {owner:?}, should be {program}"));
            }
        }
        let mut traced: BTreeMap<&str, u64> = BTreeMap::new();
        for cause in found.iter().filter_map(|found| found.cause.as_deref()) {
            *traced.entry(cause).or_default() += 1;
        }
        for name in FALLBACK_COUNTERS {
            let counted = counted.get(name).copied().unwrap_or(0);
            let traced = traced.get(name).copied().unwrap_or(0);
            if counted != traced {
                wrong.push(format!(
                    "{end}: the kernel counted {counted} {name}, traced {traced}"
                ));
            }
            if counted > 0 {
                said.push(format!("{end} {program} {name}"));
            }
        }
        if end == "client" && found.is_empty() == download.of.falls_back {
            wrong.push(format!("{} fallbacks of curl's connection", found.len()));
        }
    }
    if said.is_empty() {
        said.push("nothing".to_owned());
    }
    let said = said.join("; ");
    let traced = if wrong.is_empty() {
        &*said
    } else {
        "otherwise"
    };
    judged(download.of.case, rung, &said, traced, wrong)
}
