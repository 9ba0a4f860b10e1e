//! `mptcp-lab matrix`: every case with each attach method.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use crate::{
    compare::{compare, mismatch, ok, questions},
    flood,
    lines::read_lines,
    net::{self, Family, Kind},
    report::{AskerLine, Cell, MatrixLine, Outcome, write_line},
    scratch::Scratch,
    traced::TracedLine,
    tracer::TracerArgs,
};

/// Exit code of the tracer when the kernel or the privileges are insufficient.
const CANNOT_ANSWER: i32 = 3;
/// Timeout for one run of the tracer: an emulated machine is slow.
const RUN_MAX: Duration = Duration::from_secs(300);
/// Timeout for the tracer to stop after a signal.
const END_MAX: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    pub(crate) tried: TracerArgs,
    /// Only this case of `ask` (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(crate) case: Vec<String>,
    /// Only this address family, in cases that use one
    #[arg(long, value_name = "v4|v6", value_parser = Family::parse)]
    pub(crate) family: Option<Family>,
    /// Also run a flood with each attach method
    #[arg(long)]
    pub(crate) flood: bool,
    /// Size of the flood
    #[command(flatten)]
    pub(crate) size: flood::Size,
}

/// Runs the matrix; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let mut out = std::io::stdout();
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    write_line(&mut out, &MatrixLine::Host { kernel })?;
    let rungs = args.tried.rungs();
    let mut outcomes = Vec::new();
    if let Some(cell) = no_mptcp(args)? {
        outcomes.push(cell.outcome);
        write_line(&mut out, &MatrixLine::Cell(cell))?;
    } else {
        for rung in &rungs {
            eprintln!("mptcp-lab: attach method {rung}");
            let cells = one_rung(args, rung)?;
            let available = cells
                .iter()
                .all(|cell| cell.outcome != Outcome::Unavailable);
            for cell in cells {
                outcomes.push(cell.outcome);
                write_line(&mut out, &MatrixLine::Cell(cell))?;
            }
            if args.flood && available {
                let flooded = flood::beside(&args.tried, rung, args.size)?;
                outcomes.push(flooded.outcome);
                write_line(&mut out, &MatrixLine::Flood(flooded))?;
            }
        }
    }
    let count = |wanted: Outcome| {
        outcomes
            .iter()
            .filter(|&&outcome| outcome == wanted)
            .count() as u64
    };
    let mismatches = count(Outcome::Mismatch);
    write_line(
        &mut out,
        &MatrixLine::Summary {
            ok: count(Outcome::Ok),
            mismatch: mismatches,
            unavailable: count(Outcome::Unavailable),
            skipped: count(Outcome::Skipped),
        },
    )?;
    out.flush()?;
    Ok(mismatches == 0)
}

/// Without MPTCP in the kernel there is a single case: the tracer reports that and exits 3.
fn no_mptcp(args: &Args) -> anyhow::Result<Option<Cell>> {
    // EPROTONOSUPPORT: not built in. ENOPROTOOPT means net.mptcp.enabled=0, which does not stop a
    // tracer.
    match net::open(Kind::Mptcp, Family::V4) {
        Err(why) if why.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {}
        Ok(_) | Err(_) => return Ok(None),
    }
    let run = tracer(args, "auto", &["--json", "--duration", "1s"])?;
    let wanted = format!("exit {CANNOT_ANSWER}, a sentence about MPTCP");
    let right =
        run.code() == Some(CANNOT_ANSWER) && run.last_words().contains("built without MPTCP");
    Ok(Some(match run.broken() {
        None if right => Cell {
            why: run.last_words(),
            ..ok("no-mptcp", "auto", &wanted, "exit 3")
        },
        broken => {
            let got = broken.unwrap_or_else(|| run.ending());
            mismatch("no-mptcp", "auto", &wanted, "otherwise", got)
        }
    }))
}

fn one_rung(args: &Args, rung: &str) -> anyhow::Result<Vec<Cell>> {
    let asked_file = Scratch::new("asked");
    let asker = asker(&asked_file, &args.case, args.family)?;
    let words: Vec<&str> = ["--json", "--"]
        .into_iter()
        .chain(asker.iter().map(String::as_str))
        .collect();
    let run = tracer(args, rung, &words)?;
    if let Some(why) = run.broken() {
        return Ok(vec![mismatch("run", rung, "exit 0", "otherwise", why)]);
    }
    match run.code() {
        Some(CANNOT_ANSWER) => {
            return Ok(vec![Cell {
                outcome: Outcome::Unavailable,
                why: run.last_words(),
                ..ok("rung", rung, "", "")
            }]);
        }
        Some(0) => {}
        Some(_) | None => {
            let why = run.ending();
            return Ok(vec![mismatch("run", rung, "exit 0", "otherwise", why)]);
        }
    }
    let asked = read_lines(&asked_file.0)?;
    let traced = run.stdout.lines().map(TracedLine::parse);
    let traced: Vec<TracedLine> = traced
        .filter_map(Result::transpose)
        .collect::<anyhow::Result<_>>()?;
    let mut cells = compare(rung, &asked, &traced);
    cells.extend(named_function(rung, &traced)?);
    Ok(cells)
}

/// Command line of the asker, which records its answers.
fn asker(out: &Scratch, cases: &[String], family: Option<Family>) -> anyhow::Result<Vec<String>> {
    let me = std::env::current_exe().context("cannot find the path of this program")?;
    let mut words = vec![me.display().to_string(), "ask".into(), "--out".into()];
    words.push(out.0.display().to_string());
    for case in cases {
        words.extend(["--case".into(), case.clone()]);
    }
    if let Some(family) = family {
        words.extend(["--family".into(), family.suffix().into()]);
    }
    Ok(words)
}

/// Queries sockets of every kind under a tracer that is already running.
pub(crate) fn ask_all(family: Option<Family>) -> anyhow::Result<Vec<AskerLine>> {
    let out = Scratch::new("asked");
    let words = asker(&out, &[], family)?;
    let [program, arguments @ ..] = &words[..] else {
        bail!("the asker's command line is empty");
    };
    let status = Command::new(program)
        .args(arguments)
        .status()
        .context("cannot run the asker")?;
    ensure!(status.success(), "the asker ended with {status}");
    read_lines(&out.0)
}

/// Compares the queries with the lines of a tracer that also saw other processes: only those of the
/// askers count.
pub(crate) fn judge_all(rung: &str, asked: &[AskerLine], traced: &[TracedLine]) -> Vec<Cell> {
    let askers: BTreeSet<u32> = asked
        .iter()
        .filter_map(|line| match line {
            AskerLine::Asked(asked) => Some(asked.pid),
            AskerLine::Skipped { .. } => None,
        })
        .collect();
    let theirs: Vec<TracedLine> = traced
        .iter()
        .filter(|line| !matches!(line, TracedLine::Query(query) if !askers.contains(&query.pid)))
        .cloned()
        .collect();
    // The loss accounting includes other processes: `findings` checks it as a whole.
    let mut cells = questions(rung, asked, &theirs);
    match named_function(rung, traced) {
        Ok(cell) => cells.extend(cell),
        Err(why) => {
            let why = format!("{why:#}");
            cells.push(mismatch("named-function", rung, "looked for", "not", why));
        }
    }
    cells
}

/// The kernel function that answers for MPTCP sockets; most kernels inline it.
const NAMED_FUNCTION: &str = "mptcp_getsockopt_sol_tcp";

/// Where the kernel has this symbol, the kprobe method must probe it and no other.
fn named_function(rung: &str, traced: &[TracedLine]) -> anyhow::Result<Option<Cell>> {
    let symbols = fs::read_to_string("/proc/kallsyms").context("cannot read /proc/kallsyms")?;
    let is_there = symbols
        .lines()
        .any(|line| line.split_whitespace().nth(2) == Some(NAMED_FUNCTION));
    if rung != "kprobe" || !is_there {
        return Ok(None);
    }
    let wanted = format!("kprobe {NAMED_FUNCTION}");
    let probed = traced
        .iter()
        .filter_map(TracedLine::start)
        .flat_map(|start| &start.sensors)
        .any(|sensor| sensor.probes.contains(&wanted));
    Ok(Some(if probed {
        ok("named-function", rung, &wanted, &wanted)
    } else {
        mismatch(
            "named-function",
            rung,
            &wanted,
            "other probes",
            format!("{traced:?}"),
        )
    }))
}

/// Result of one run of the tracer.
struct Run {
    /// None if it had to be killed.
    status: Option<ExitStatus>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn code(&self) -> Option<i32> {
        self.status?.code()
    }

    /// What makes the run wrong regardless of the exit code.
    fn broken(&self) -> Option<String> {
        if self.status.is_none() {
            let limit = RUN_MAX.as_secs();
            return Some(format!("the tracer did not end within {limit} s"));
        }
        // With `panic = "unwind"` a thread may panic while the program continues.
        let panic = self.stderr.lines().find(|line| line.contains("panicked"));
        panic.map(|line| format!("the tracer panicked: {line}"))
    }

    fn ending(&self) -> String {
        let status = self.status.map(|status| status.to_string());
        format!("{}: {}", status.unwrap_or_default(), self.last_words())
    }

    /// The last line on the tracer's stderr.
    fn last_words(&self) -> String {
        let line = self.stderr.lines().last();
        line.unwrap_or("no output").to_owned()
    }
}

/// Runs the tracer to its end. Its output goes to files: an unread pipe would block it.
fn tracer(args: &Args, rung: &str, words: &[&str]) -> anyhow::Result<Run> {
    let stdout = Scratch::new("stdout");
    let stderr = Scratch::new("stderr");
    let open = |file: &Scratch| {
        File::create(&file.0).with_context(|| format!("cannot write to {}", file.0.display()))
    };
    let mut child = Command::new(&args.tried.tracer)
        .args(["live", "--attach", rung])
        .args(&args.tried.tracer_arg)
        .args(words)
        .stdin(Stdio::null())
        .stdout(open(&stdout)?)
        .stderr(open(&stderr)?)
        .spawn()
        .with_context(|| format!("cannot run {}", args.tried.tracer.display()))?;
    let mut status = wait(&mut child, RUN_MAX)?;
    if status.is_none() {
        // Send SIGINT first: the tracer has a child to stop and must restore the kernel's state.
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        if wait(&mut child, END_MAX)?.is_none() {
            child.kill().context("cannot end the tracer")?;
            child.wait().context("cannot wait for the tracer")?;
        }
        status = None;
    }
    let read = |file: &Scratch| {
        let bytes =
            fs::read(&file.0).with_context(|| format!("cannot read back {}", file.0.display()))?;
        anyhow::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(Run {
        status,
        stdout: read(&stdout)?,
        stderr: read(&stderr)?,
    })
}

/// None if it does not exit in time.
fn wait(child: &mut Child, patience: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        let status = child.try_wait().context("cannot wait for the tracer")?;
        if status.is_some() || start.elapsed() > patience {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
