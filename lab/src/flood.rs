//! `mptcp-lab flood`: many threads that query as fast as possible, under the tracer: no query may
//! be lost without being counted, duplicated, mixed up or wrong.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, ensure};

use crate::{
    alone::Alone,
    beside::uncapped,
    lines::read_lines,
    report::{Flooded, MatrixLine, Outcome, write_line},
    scratch::Scratch,
    traced::TracedLine,
    tracer::TracerArgs,
};

pub(crate) mod asker;
mod books;

use asker::Told;
use books::Books;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The mptcp-trace to test
    #[arg(long, value_name = "PATH")]
    pub(crate) tracer: PathBuf,
    /// Attach method
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    pub(crate) attach: String,
    /// Size of the flood
    #[command(flatten)]
    pub(crate) size: Size,
    /// More arguments for the tracer (repeatable)
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) tracer_arg: Vec<String>,
}

/// Size of a flood.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Size {
    /// Querying threads
    #[arg(long, default_value_t = 8)]
    pub(crate) threads: u32,
    /// Queries per thread
    #[arg(long, default_value_t = 50_000)]
    pub(crate) queries: u32,
}

/// Runs one flood, with the tracer and arguments of another suite.
pub(crate) fn beside(tried: &TracerArgs, rung: &str, size: Size) -> anyhow::Result<Flooded> {
    flood(&Args {
        tracer: tried.tracer.clone(),
        attach: rung.to_owned(),
        size,
        tracer_arg: tried.tracer_arg.clone(),
    })
}

/// Runs one flood; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let flooded = flood(args)?;
    let right = flooded.outcome == Outcome::Ok;
    write_line(&mut std::io::stdout(), &MatrixLine::Flood(flooded))?;
    Ok(right)
}

/// Runs one flood.
fn flood(args: &Args) -> anyhow::Result<Flooded> {
    let me = std::env::current_exe().context("cannot find the path of this program")?;
    eprintln!(
        "mptcp-lab: flood of {} x {} with attach method {}",
        args.size.threads, args.size.queries, args.attach
    );
    let _alone = Alone::claim("flood", "very many sockets load all CPUs")?;
    let told_file = Scratch::new("told");
    let start = Instant::now();
    let mut tracer = Command::new(&args.tracer)
        .args(["live", "--json", "--attach", &args.attach])
        .args(uncapped(&args.tracer)?)
        .args(&args.tracer_arg)
        .arg("--")
        .arg(me)
        .args(["flood-asker", "--threads", &args.size.threads.to_string()])
        .args(["--queries", &args.size.queries.to_string(), "--out"])
        .arg(&told_file.0)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", args.tracer.display()))?;
    let lines = BufReader::new(tracer.stdout.take().context("the tracer has no stdout")?).lines();
    let mut books = Books::new(&args.attach, args.size.threads, args.size.queries);
    for line in lines {
        let line = line.context("cannot read the tracer's lines")?;
        if let Some(line) = TracedLine::parse(&line)? {
            books.take(line);
        }
    }
    let status = tracer.wait().context("cannot wait for the tracer")?;
    ensure!(status.success(), "the tracer ended with {status}");
    let seconds = start.elapsed().as_secs_f64();
    let told: Vec<Told> = read_lines(&told_file.0)?;
    let told = told.first().context("the asker wrote no report")?;
    Ok(books.close(told, seconds))
}
