//! `mptcp-lab matrix`: every case on every rung.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::Context as _;
use serde::de::DeserializeOwned;

use crate::{
    compare::{compare, mismatch, ok},
    flood,
    net::{self, Family, Kind},
    report::{AskerLine, Cell, MatrixLine, Outcome, write_line},
    traced::TracedLine,
};

/// Exit code of the tracer on a kernel that cannot answer.
const CANNOT_ANSWER: i32 = 3;

/// What to run.
#[derive(clap::Args)]
pub struct Args {
    /// The mptcp-trace to test
    #[arg(long, value_name = "PATH")]
    pub tracer: PathBuf,
    /// Only this rung (repeatable); all three if none is named
    #[arg(long, value_name = "RUNG")]
    pub attach: Vec<String>,
    /// Only this case of `ask` (repeatable)
    #[arg(long, value_name = "NAME")]
    pub case: Vec<String>,
    /// More arguments for the tracer (repeatable)
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub tracer_arg: Vec<String>,
    /// Also flood each rung
    #[arg(long)]
    pub flood: bool,
    /// Threads of the flood
    #[arg(long, default_value_t = 8)]
    pub threads: u32,
    /// Questions of each of its threads
    #[arg(long, default_value_t = 50_000)]
    pub queries: u32,
}

/// Runs the matrix; true if nothing is wrong.
///
/// # Errors
///
/// Fails if the tracer cannot be run or what it prints cannot be read.
pub fn run(args: &Args) -> anyhow::Result<bool> {
    let mut out = std::io::stdout();
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    write_line(&mut out, &MatrixLine::Host { kernel })?;
    let rungs = if args.attach.is_empty() {
        ["fexit", "kprobe", "tracepoint"]
            .map(str::to_owned)
            .to_vec()
    } else {
        args.attach.clone()
    };
    let mut outcomes = Vec::new();
    if let Some(cell) = no_mptcp(args)? {
        outcomes.push(cell.outcome);
        write_line(&mut out, &MatrixLine::Cell(cell))?;
    } else {
        for rung in &rungs {
            eprintln!("mptcp-lab: rung {rung}");
            let cells = one_rung(args, rung)?;
            let available = cells
                .iter()
                .all(|cell| cell.outcome != Outcome::Unavailable);
            for cell in cells {
                outcomes.push(cell.outcome);
                write_line(&mut out, &MatrixLine::Cell(cell))?;
            }
            if args.flood && available {
                let flooded = flood::flood(&flood::Args {
                    tracer: args.tracer.clone(),
                    attach: rung.clone(),
                    threads: args.threads,
                    queries: args.queries,
                    tracer_arg: args.tracer_arg.clone(),
                })?;
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

/// On a kernel without MPTCP there is one case: the tracer says so and exits 3.
fn no_mptcp(args: &Args) -> anyhow::Result<Option<Cell>> {
    // EPROTONOSUPPORT: not built. ENOPROTOOPT would be net.mptcp.enabled=0, which does not stop a tracer.
    match net::open(Kind::Mptcp, Family::V4) {
        Err(why) if why.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {}
        Ok(_) | Err(_) => return Ok(None),
    }
    let output = tracer(args, "auto", &["--duration", "1s"])?;
    let sentence = last_words(&output);
    let wanted = format!("exit {CANNOT_ANSWER}, a sentence about MPTCP");
    let got = format!("exit {:?}, {sentence}", output.status.code());
    let right = output.status.code() == Some(CANNOT_ANSWER)
        && sentence.contains("built without MPTCP")
        && !sentence.contains("panicked");
    Ok(Some(if right {
        Cell {
            why: sentence,
            ..ok("no-mptcp", "auto", &wanted, "exit 3")
        }
    } else {
        mismatch("no-mptcp", "auto", &wanted, "otherwise", got)
    }))
}

fn one_rung(args: &Args, rung: &str) -> anyhow::Result<Vec<Cell>> {
    let asked_file = scratch("asked");
    let traced_file = scratch("traced");
    let me = std::env::current_exe().context("cannot find myself")?;
    let mut words = vec![
        "--json".into(),
        "--output".into(),
        traced_file.display().to_string(),
    ];
    words.extend(["--".into(), me.display().to_string(), "ask".into()]);
    words.extend(["--out".into(), asked_file.display().to_string()]);
    for case in &args.case {
        words.extend(["--case".into(), case.clone()]);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = tracer(args, rung, &words)?;
    let unavailable = Cell {
        case: "rung".into(),
        rung: rung.into(),
        outcome: Outcome::Unavailable,
        caller: String::new(),
        traced: String::new(),
        why: last_words(&output),
    };
    match output.status.code() {
        Some(CANNOT_ANSWER) => return Ok(vec![unavailable]),
        Some(0) => {}
        code => {
            let why = format!("exit {code:?}: {}", last_words(&output));
            return Ok(vec![mismatch("run", rung, "exit 0", "otherwise", why)]);
        }
    }
    let asked: Vec<AskerLine> = read_lines(&asked_file)?;
    let traced: Vec<TracedLine> = read_lines(&traced_file)?;
    for file in [&asked_file, &traced_file] {
        fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(compare(rung, &asked, &traced))
}

/// Runs the tracer to its end.
pub(crate) fn tracer(args: &Args, rung: &str, words: &[&str]) -> anyhow::Result<Output> {
    Command::new(&args.tracer)
        .args(["live", "--attach", rung])
        .args(&args.tracer_arg)
        .args(words)
        .output()
        .with_context(|| format!("cannot run {}", args.tracer.display()))
}

/// The last line that the tracer said.
fn last_words(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().last().unwrap_or("it said nothing").to_owned()
}

/// A file of ours that nobody else has.
pub(crate) fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("mptcp-lab-{}-{name}", std::process::id()))
}

fn read_lines<T: DeserializeOwned>(file: &Path) -> anyhow::Result<Vec<T>> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("cannot read {line:?}")))
        .collect()
}
