//! Many threads that query as fast as possible, under the tracer: no query may be lost without being
//! counted, duplicated, mixed up or wrong.

use std::time::Instant;

use anyhow::Context as _;

use crate::{
    alone::Alone,
    flood_asker::Told,
    lines::read_lines,
    process::own,
    report::Flooded,
    scratch::Scratch,
    traced::TracedLine,
    tracer::{Reads, Run, TracerArgs},
};

mod books;

use books::Books;

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

impl Reads for Books {
    fn take(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let line = TracedLine::parse(String::from_utf8_lossy(line).trim_end())?;
        line.into_iter().for_each(|line| self.take(line));
        Ok(())
    }
}

/// Runs one flood.
pub(crate) fn flood(tried: &TracerArgs, rung: &str, size: Size) -> anyhow::Result<Flooded> {
    let Size { threads, queries } = size;
    eprintln!("mptcp-lab: flood of {threads} x {queries} with attach method {rung}");
    let _alone = Alone::claim("flood", "very many sockets load all CPUs")?;
    let told_file = Scratch::new("told");
    let start = Instant::now();
    let mut asker = own("flood-asker")?;
    asker.args(["--threads", &threads.to_string()]);
    asker.args(["--queries", &queries.to_string(), "--out"]);
    asker.arg(&told_file.0);
    let ended = Run::live(&tried.tracer, rung)
        .uncapped()?
        .args(&tried.tracer_arg)
        .reading(Books::new(rung, threads, queries))
        .command(&asker)
        .finish()?;
    let books = ended.in_order()?.reader()?;
    let seconds = start.elapsed().as_secs_f64();
    let told: Vec<Told> = read_lines(&told_file.0)?;
    let told = told.first().context("the asker wrote no report")?;
    Ok(books.close(told, seconds))
}
