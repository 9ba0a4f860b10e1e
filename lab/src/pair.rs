//! `mptcp-lab pair`: curl and nginx, two real programs without MPTCP support, run with MPTCP by
//! `mptcpize`, with and without a middlebox between them.

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpStream},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use crate::{
    compare::{mismatch, ok},
    fallbacks::under_tracer,
    findings::balanced,
    middlebox::Middlebox,
    netns::{self, Counters},
    recipes::FALLBACK_COUNTERS,
    report::{Cell, Cells, Outcome},
    rules::{Rules, Treatment},
    scratch::Scratch,
    sys,
    traced::{Found, TracedLine},
    veth::SERVER_V4,
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
/// Timeout until nginx answers.
const START_MAX: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The mptcp-trace to test
    #[arg(long, value_name = "PATH")]
    pub(crate) tracer: PathBuf,
    /// Attach method
    #[arg(long, value_name = "METHOD", default_value = "tracepoint")]
    pub(crate) attach: String,
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
    ..PASSED
};
const STRIPPED_DATA: Treatment = Treatment {
    strip_from: Some(4),
    ..PASSED
};
const PASSED: Treatment = Treatment {
    strip_syn: false,
    strip_from: None,
    drop_capable_syn: false,
    flip_payload_at: None,
    shorten_dss_from: None,
    skew_subflow_seq_from: None,
};

const TRIES: [Try; 3] = [
    Try {
        case: "pair-healthy",
        bytes: LARGE_BYTES,
        rules: Rules {
            to_server: PASSED,
            to_client: PASSED,
        },
        falls_back: false,
    },
    Try {
        case: "pair-strip-syn",
        bytes: LARGE_BYTES,
        rules: Rules {
            to_server: STRIPPED_SYN,
            to_client: PASSED,
        },
        falls_back: true,
    },
    Try {
        case: "pair-strip-data",
        bytes: SMALL_BYTES,
        rules: Rules {
            to_server: PASSED,
            to_client: STRIPPED_DATA,
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
    let mut cells = Cells::new(std::io::stdout())?;
    for program in ["mptcpize", "curl", "nginx"] {
        if !is_there(program) {
            cells.put(Cell {
                outcome: Outcome::Skipped,
                why: format!(
                    "there is no {program} here (Debian packages mptcpize, curl, nginx-light)"
                ),
                ..ok("pair", &args.attach, "", "")
            })?;
            return cells.close();
        }
    }
    let perform = || {
        TRIES
            .iter()
            .map(download)
            .collect::<anyhow::Result<Vec<_>>>()
    };
    let judge = |downloads: Vec<Downloaded>, lines: &[TracedLine]| {
        let mut cells: Vec<Cell> = downloads
            .iter()
            .map(|download| cell(&args.attach, download, lines))
            .collect();
        cells.push(balanced(&args.attach, lines));
        cells
    };
    for cell in under_tracer(&args.tracer, &args.attach, &[], perform, judge)? {
        cells.put(cell)?;
    }
    cells.close()
}

fn is_there(program: &str) -> bool {
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
        .iter()
        .any(|directory| Path::new(directory).join(program).exists())
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
    child: Child,
    home: PathBuf,
}

impl Nginx {
    fn start(namespace: BorrowedFd<'_>, bytes: usize) -> anyhow::Result<Self> {
        let home = std::env::temp_dir().join(format!("mptcp-lab-nginx-{}", std::process::id()));
        fs::create_dir_all(&home).context("cannot make a directory for nginx")?;
        fs::write(home.join("file"), vec![b'x'; bytes]).context("cannot write a file")?;
        let conf = home.join("nginx.conf");
        fs::write(&conf, configuration(&home)).context("cannot configure nginx")?;
        let child = netns::within(namespace, || {
            Command::new("mptcpize")
                .args(["run", "nginx", "-e", "stderr", "-c"])
                .arg(&conf)
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("cannot run nginx")
        })?;
        let nginx = Self { child, home };
        let address = SocketAddr::from((SERVER_V4, PORT));
        let started = Instant::now();
        // Probe with a plain TCP client in the server's namespace: it is no MPTCP connection, so it
        // cannot fall back.
        while netns::within(namespace, || Ok(TcpStream::connect(address).is_err()))? {
            ensure!(started.elapsed() < START_MAX, "nginx does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A signal to the master stops nginx gracefully; a failure has no consequence.
        if let Some(pid) = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ended = self.child.wait();
        let _gone = fs::remove_dir_all(&self.home);
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
        let found: Vec<&Found> = fallbacks(lines)
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
    let said = if said.is_empty() {
        "nothing".to_owned()
    } else {
        said.join("; ")
    };
    if wrong.is_empty() {
        ok(download.of.case, rung, &said, &said)
    } else {
        mismatch(download.of.case, rung, &said, "otherwise", wrong.join("; "))
    }
}

fn fallbacks(lines: &[TracedLine]) -> impl Iterator<Item = &Found> {
    lines.iter().filter_map(|line| match line {
        TracedLine::Fallback(found) => Some(&**found),
        TracedLine::Start(_)
        | TracedLine::Query(_)
        | TracedLine::Refused(_)
        | TracedLine::Plain(_)
        | TracedLine::Existing(_)
        | TracedLine::Blackhole(_)
        | TracedLine::Verdict(_)
        | TracedLine::OptionRefused(_)
        | TracedLine::SocketRefused(_)
        | TracedLine::End(_) => None,
    })
}
