//! `mptcp-lab recorded`: the flight recorder. What it has on disk must be what a capture beside it
//! has; it must be readable after its process was killed at any moment, give way to a full disk, and
//! never have more bytes than it may.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    cells::{Cells, judged, skipped},
    load,
    report::Cell,
    sys,
    tracer::{OneMethodArgs, Run, Tracer},
    truth::play,
    wait::Patience,
};

mod kills;
mod pressure;

/// For everything that is expected of a recorder.
const PATIENCE: Patience = Patience::new(Duration::from_secs(30), Duration::from_millis(100));

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    tried: OneMethodArgs,
    /// Kills, a third of the others, and no more than a minute in all
    #[arg(long, conflicts_with_all = ["minutes", "kills"])]
    short: bool,
    /// Minutes of fallbacks and floods
    #[arg(long, value_name = "N", default_value_t = 30)]
    minutes: u32,
    /// How often the recorder is killed
    #[arg(long, value_name = "N", default_value_t = 50)]
    kills: u32,
}

impl Args {
    fn pressure(&self) -> Duration {
        match self.short {
            true => Duration::from_secs(6),
            false => Duration::from_secs(60) * self.minutes,
        }
    }

    fn kills(&self) -> u32 {
        match self.short {
            true => 5,
            false => self.kills,
        }
    }
}

/// Runs all cases; returns true if all are right.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let mut cells = Cells::new()?;
    let scratch = tempfile::tempdir().context("cannot create a directory")?;
    let at = |name: &str| scratch.path().join(name);
    cells.put_all(beside(&args.tried, &at("beside"))?)?;
    cells.put(kills::run(&args.tried, &at("killed"), args.kills())?)?;
    cells.put(pressure::full(&args.tried, &at("full"))?)?;
    cells.put_all(pressure::floods(
        &args.tried,
        &at("floods"),
        args.pressure(),
    )?)?;
    cells.close()
}

/// Starts a tracer that records.
fn start(
    tried: &OneMethodArgs,
    folder: &Path,
    keep: &str,
    more: &[&str],
) -> anyhow::Result<Tracer> {
    let run = Run::of(&tried.tracer).args(["live", "--json", "--attach", &tried.attach]);
    // A flood of others would fill the small recordings, and push out what is looked for.
    let run = run.args(["--pid", &std::process::id().to_string(), "--follow"]);
    let run = run.args(["--keep", keep]).args(more).args(["--keep-dir"]);
    run.args([folder]).start()?.live()
}

/// Makes a dump; returns what was said.
fn dump(
    tried: &OneMethodArgs,
    folder: &Path,
    since: Option<&str>,
    to: &Path,
) -> anyhow::Result<String> {
    let mut command = Command::new(&tried.tracer);
    command
        .args(["dump", "--keep-dir"])
        .arg(folder)
        .arg("-o")
        .arg(to);
    if let Some(since) = since {
        command.args(["--since", since]);
    }
    let ended = command.output().context("cannot run mptcp-trace dump")?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    ensure!(ended.status.success(), "mptcp-trace dump: {said}");
    Ok(said)
}

/// Number of lines of two captures until the first one that differs, and those.
fn compared(tried: &OneMethodArgs, one: &Path, other: &Path) -> anyhow::Result<(u64, String)> {
    let replay = |capture: &Path| {
        let mut command = Command::new(&tried.tracer);
        command
            .args(["replay", "--json", "--kind", "all", "-q"])
            .arg(capture)
            .stdout(Stdio::piped());
        command.spawn().context("cannot run mptcp-trace replay")
    };
    let mut replays = [replay(one)?, replay(other)?];
    let [one, other] = replays.each_mut().map(|it| it.stdout.take());
    let lines = |output: Option<_>| -> anyhow::Result<_> {
        let output = BufReader::new(output.context("no output")?);
        // They have the versions and the account, in which the two differ.
        let is_finding = |line: &std::io::Result<String>| {
            !line.as_ref().is_ok_and(|it| {
                it.starts_with(r#"{"type":"start""#) || it.starts_with(r#"{"type":"end""#)
            })
        };
        Ok(output.lines().filter(is_finding))
    };
    let (mut one, mut other) = (lines(one)?, lines(other)?);
    let mut same = 0;
    let differ = loop {
        match (one.next().transpose()?, other.next().transpose()?) {
            (None, None) => break String::new(),
            (one, other) if one == other => same += 1,
            (one, other) => break format!("line {same}: {one:?}, then {other:?}"),
        }
    };
    drop((one, other));
    for replay in &mut replays {
        let ended = replay.wait()?;
        ensure!(
            ended.success() || !differ.is_empty(),
            "mptcp-trace replay: {ended}"
        );
    }
    Ok((same, differ))
}

/// The findings of a capture, as lines with their times.
fn findings(tried: &OneMethodArgs, capture: &Path) -> anyhow::Result<Vec<(u64, String)>> {
    let mut command = Command::new(&tried.tracer);
    command
        .args(["replay", "--json", "--kind", "all"])
        .arg(capture);
    let ended = command.output().context("cannot run mptcp-trace replay")?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "mptcp-trace replay: {said}");
    let mut all = Vec::new();
    for line in String::from_utf8_lossy(&ended.stdout).lines() {
        let mut read: Value = serde_json::from_str(line).context("a line is not JSON")?;
        if read["type"] == "start" || read["type"] == "end" {
            continue;
        }
        // They rest on all connections before, and a dump that begins later has fewer.
        if let Some(data) = read["data"].as_object_mut() {
            data.remove("peer_or_path");
            data.remove("spoke");
        }
        let at = read["data"]["boottime_ns"].as_u64().unwrap_or(0);
        all.push((at, read.to_string()));
    }
    Ok(all)
}

/// A dump of everything, and one that begins in the middle, compared with a capture beside it.
fn beside(tried: &OneMethodArgs, folder: &Path) -> anyhow::Result<Vec<Cell>> {
    let capture = folder.with_extension("capture");
    let beside = capture.to_str().context("the path is no text")?;
    let tracer = start(tried, folder, "2M", &["--capture", beside])?;
    play()?;
    // Long enough ago for the time of a dump to be exact.
    thread::sleep(Duration::from_millis(1500));
    let middle_ns = sys::boottime_ns();
    let middle = Instant::now();
    let open = thread::spawn(|| load::ask(&asking(400, 3.0)));
    play()?;
    let _asked = open
        .join()
        .map_err(|_panic| anyhow::anyhow!("the load panicked"))??;
    tracer.signal(Signal::USR2)?;
    let is_dumped = || Ok(!dumps(folder)?.is_empty());
    let dumped = PATIENCE.holds(is_dumped)?;
    let late = folder.with_extension("late");
    let since = format!("{}ms", middle.elapsed().as_millis());
    dump(tried, folder, Some(&since), &late)?;
    tracer.stop(Signal::INT)?.in_order()?;
    let whole = folder.with_extension("whole");
    dump(tried, folder, None, &whole)?;
    let captured = findings(tried, &capture)?;
    let recorded = findings(tried, &whole)?;
    let wrong = (captured != recorded).then(|| "the lines differ".to_owned());
    let counts = |all: &[(u64, String)]| format!("{} lines", all.len());
    let mut cells = vec![judged(
        "recorded-equal",
        &tried.attach,
        &counts(&captured),
        &counts(&recorded),
        wrong.into_iter().collect(),
    )];
    cells.push(since_then(
        tried,
        &captured,
        &findings(tried, &late)?,
        middle_ns,
    ));
    let by_signal = dumps(folder)?.pop().map(|path| findings(tried, &path));
    let wrong = match by_signal.transpose()? {
        Some(all) if dumped && is_part(&all, &captured) && !all.is_empty() => Vec::new(),
        _otherwise => vec!["no dump, or one with other lines".to_owned()],
    };
    cells.push(judged(
        "recorded-signal",
        &tried.attach,
        "a dump",
        "a dump",
        wrong,
    ));
    Ok(cells)
}

/// A dump that begins in the middle has all that followed, and nothing that was not.
fn since_then(
    tried: &OneMethodArgs,
    captured: &[(u64, String)],
    late: &[(u64, String)],
    middle_ns: u64,
) -> Cell {
    // The dump began when the command was typed: a little later than the middle.
    let slack_ns = 1_000_000_000;
    let has: BTreeSet<&String> = late.iter().map(|it| &it.1).collect();
    let mut wrong: Vec<String> = captured
        .iter()
        .filter(|it| it.0 > middle_ns + slack_ns && !is_after(it) && !has.contains(&it.1))
        .map(|it| format!("it lacks {}", it.1))
        .take(3)
        .collect();
    if !is_part(late, captured) {
        wrong.push("it has a line that the capture has not".to_owned());
    }
    let before = late.iter().filter(|it| it.0 < middle_ns).count();
    let got = format!("{} lines, {before} of them earlier", late.len());
    let want = format!("the lines after {middle_ns}");
    judged("recorded-since", &tried.attach, &want, &got, wrong)
}

/// The end of the run is later than the dump: what it concludes then is not in it.
fn is_after(line: &(u64, String)) -> bool {
    line.1.contains("\"closed_by\":\"exit\"")
}

fn is_part(part: &[(u64, String)], whole: &[(u64, String)]) -> bool {
    let has: BTreeSet<&String> = whole.iter().map(|it| &it.1).collect();
    // What was open when a dump ends is concluded with its last record.
    part.iter()
        .filter(|it| !is_after(it))
        .all(|it| has.contains(&it.1))
}

/// The dumps in a folder.
fn dumps(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    files(folder, "dump-")
}

fn files(folder: &Path, prefix: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) && name.ends_with(".mpt") {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Bytes of all files in a folder; those that are removed meanwhile do not count.
fn bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        sum += entry?.metadata().map_or(0, |it| it.len());
    }
    Ok(sum)
}

/// Queries at a rate (0: as fast as possible).
fn asking(rate: u64, seconds: f64) -> load::Args {
    load::Args {
        threads: 1,
        rate,
        seconds,
        queries: u64::MAX,
        begun: None,
    }
}

/// A case that needs something that this host lacks.
fn lacking(case: &str, tried: &OneMethodArgs, why: &str) -> Cell {
    skipped(case, &tried.attach, why)
}
