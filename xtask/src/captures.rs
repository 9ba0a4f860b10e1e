//! `cargo xtask captures`: records captures on real kernels, which tests replay without privileges.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    architecture::Architecture,
    build::{self, StaticPrograms},
    command::{self, say},
    fleet::{Fleet, JOB_TIME_MAX_S, Work},
    matrix::Kept,
    places::Places,
    release,
    result::SuiteResult,
    series::RUNNING,
    suite::RUNGS,
    suite::{Suite, Task},
    tally::Tally,
    test::on_running_kernel,
};

/// Records captures/KERNEL-RUNG/{fallbacks,verdicts,paths}.mpt on each kernel and attach method, with
/// the lines that were printed live.
///
/// Writes nothing for an attach method on which the lab finds a mismatch, or if a replay prints
/// other lines than the live run did. Needs root for the running kernel; the others boot in QEMU.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask captures\n  \
    cargo xtask captures --kernel 6.12 running")]
pub(crate) struct Args {
    /// Series of kernels, or `running`
    #[arg(long, num_args = 1.., value_name = "SERIES", default_values = KERNELS)]
    kernel: Vec<String>,
    /// Only these captures
    #[arg(long, num_args = 1.., value_name = "NAME", default_values = NAMES, value_parser = NAMES)]
    only: Vec<String>,
}

/// One kernel of each shape, and the machine's own.
const KERNELS: [&str; 4] = ["6.1", "6.12", "7.3", RUNNING];
/// The captures of a kernel.
const NAMES: [&str; 3] = ["fallbacks", "verdicts", PATHS];
/// The one with lines that are only printed on request.
const PATHS: &str = "paths";
/// Scenarios that add no new kinds of lines; leaving them out keeps the captures small.
const LEFT_OUT: [&str; 9] = [
    "asked-full-info",
    "explained-at-once",
    "explained-handshake",
    "never-asked-midway",
    "option-refused-midway",
    "poller",
    "reconnect",
    "stale-of-old",
    "unexplained-midway",
];
/// Replaces the part of the running kernel's release that identifies the machine.
const NO_NAME: &str = "nokprobes";
/// Replaces a control group that identifies the machine.
const NO_GROUP: &str = "/lab";

/// Records on every kernel, and continues after a failure.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    let root = places.root.clone();
    let programs = build::static_programs(&places, Architecture::HOST)?;
    let tracer = programs.tracer.clone();
    let (running, series): (Vec<&String>, Vec<&String>) =
        args.kernel.iter().partition(|kernel| *kernel == RUNNING);
    let mut results: Vec<SuiteResult> = Vec::new();
    if !running.is_empty() {
        ensure!(
            command::is_root(),
            "cannot record on the running kernel: it needs root; type: sudo cargo xtask captures"
        );
        results.extend(on_this_machine(&programs, &args.only));
    }
    if !series.is_empty() {
        let work: Vec<(String, Work)> = series
            .into_iter()
            .map(|series| (series.clone(), Work::Tasks(tasks(&args.only))))
            .collect();
        let fleet = Fleet::prepare(places, vec![programs], false, JOB_TIME_MAX_S)?;
        results.extend(fleet.results(&work));
    }
    let mut tally = Tally::default();
    for result in results {
        tally.add(result.tally());
        if let Err(error) = write(&root, &tracer, &result) {
            command::report(&error);
            tally.add(Tally::of(false));
        }
    }
    println!("{tally}");
    say("now type: cargo test -p mptcp-trace --test goldens");
    Ok(tally.exit_code())
}

fn tasks(only: &[String]) -> Vec<Task> {
    let left_out = LEFT_OUT.map(|name| ["--without", name]).concat();
    let tasks = [
        Task::new(Suite::Fallbacks, &[]).kept(&[]),
        Task::new(Suite::Verdicts, &[]).kept(&left_out),
        Task::new(Suite::Paths, &[]).kept(&[]),
    ];
    let named = NAMES.into_iter().zip(tasks);
    named
        .filter(|(name, _)| only.iter().any(|it| it == name))
        .map(|(_, task)| task)
        .collect()
}

/// Options that make a replay print the lines of the live run.
fn kinds(name: &str) -> &'static [&'static str] {
    match name {
        PATHS => &["--kind", "all"],
        _ => &[],
    }
}

fn on_this_machine(programs: &StaticPrograms, only: &[String]) -> Vec<SuiteResult> {
    tasks(only)
        .iter()
        .map(|task| {
            let result = on_running_kernel(programs, task);
            result.show();
            result
        })
        .collect()
}

/// Writes what one suite recorded on one kernel.
fn write(root: &Path, tracer: &Path, result: &SuiteResult) -> Result<()> {
    let Some(release) = &result.report.kernel else {
        return Ok(());
    };
    if result.tally().failed > 0 {
        say(format_args!(
            "{}: nothing recorded, because cases failed",
            result.name()
        ));
        return Ok(());
    }
    let disguise = if result.is_of_running_kernel() {
        Disguise::of_this_machine(release)?
    } else {
        Disguise::default()
    };
    let kernel = folder_stem(release, &result.report.kept)?;
    for kept in &result.report.kept {
        let folder = root
            .join("captures")
            .join(format!("{kernel}-{}", kept.rung));
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        kept.write(&folder, tracer, &disguise)
            .with_context(|| format!("cannot record {} in {}", kept.name, folder.display()))?;
    }
    Ok(())
}

/// The kernel's name in captures/: its series, and what it lacks.
fn folder_stem(release: &str, kept: &[Kept]) -> Result<String> {
    let series = release::series_of(release)?;
    let has_more = kept.iter().any(|kept| kept.rung != RUNGS[2]);
    Ok(if has_more {
        series
    } else {
        format!("{series}-no-kprobes")
    })
}

impl Kept {
    /// True if both are of the same suite and attach method.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        (&self.name, &self.rung) == (&other.name, &other.rung)
    }

    fn write(&self, folder: &Path, tracer: &Path, disguise: &Disguise) -> Result<()> {
        let live = self
            .lines
            .replacen("\"source\":\"live\"", "\"source\":\"replay\"", 1);
        let bytes = bytes(&self.capture)?;
        let kinds = kinds(&self.name);
        let replayed = replay(tracer, &bytes, "--json", kinds)?;
        if let Some((number, (live, replayed))) = (1..)
            .zip(live.lines().zip(replayed.lines()))
            .find(|(_, (live, replayed))| live != replayed)
        {
            bail!("line {number} differs: live {live}, replayed {replayed}");
        }
        ensure!(
            live == replayed,
            "the live run printed {} lines, a replay of it {}",
            live.lines().count(),
            replayed.lines().count()
        );
        let bytes = disguise.over(bytes);
        let file = |extension: &str| folder.join(&self.name).with_extension(extension);
        put(
            &file("jsonl"),
            replay(tracer, &bytes, "--json", kinds)?.as_bytes(),
        )?;
        put(
            &file("txt"),
            replay(tracer, &bytes, "--utc", kinds)?.as_bytes(),
        )?;
        put(&file("mpt"), &bytes)
    }
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn replay(tracer: &Path, capture: &[u8], how: &str, kinds: &[&str]) -> Result<String> {
    let directory = tempfile::tempdir().context("cannot make a directory for a capture")?;
    let file = directory.path().join("capture.mpt");
    put(&file, capture)?;
    let mut replay = Command::new(tracer);
    replay.args(["replay", how]).args(kinds).arg(&file);
    command::text(&mut replay, "cannot replay a capture")
}

fn bytes(digits: &str) -> Result<Vec<u8>> {
    let pair = |at: usize| {
        let pair = digits.get(at..at + 2);
        pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())
    };
    (0..digits.len())
        .step_by(2)
        .map(pair)
        .collect::<Option<_>>()
        .context("the lab wrote a capture that is not in hexadecimal digits")
}

/// Strings that identify the machine, and their replacements of the same length, so that the frames
/// of a capture keep their sizes.
#[derive(Default)]
struct Disguise(Vec<(String, String)>);

impl Disguise {
    fn of_this_machine(release: &str) -> Result<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup")
            .context("cannot determine the control groups of this process")?;
        Ok(Self::new(release, &groups))
    }

    /// `release` is the output of `uname -r`, `groups` the content of /proc/PID/cgroup.
    fn new(release: &str, groups: &str) -> Self {
        let mut pairs: Vec<(String, String)> = groups
            .lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .filter(|path| path.len() > NO_GROUP.len())
            .map(|path| (path.to_owned(), filled(NO_GROUP, path.len())))
            .collect();
        if let Some((version, name)) = release.split_once('-') {
            let disguised = format!("{version}-{}", filled(NO_NAME, name.len()));
            pairs.push((release.to_owned(), disguised));
        }
        Self(pairs)
    }

    fn over(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for (named, disguised) in &self.0 {
            let mut at = 0;
            while let Some(rest) = bytes.get_mut(at..).filter(|rest| rest.len() >= named.len()) {
                if rest.starts_with(named.as_bytes()) {
                    rest.iter_mut()
                        .zip(disguised.bytes())
                        .for_each(|(byte, other)| *byte = other);
                }
                at += 1;
            }
        }
        bytes
    }
}

/// Truncates the word to this length, or pads it with `x`.
fn filled(word: &str, length: usize) -> String {
    word.chars()
        .chain(std::iter::repeat('x'))
        .take(length)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(rung: &str) -> Kept {
        Kept {
            name: "fallbacks".to_owned(),
            rung: rung.to_owned(),
            capture: String::new(),
            lines: String::new(),
        }
    }

    #[test]
    fn a_kernel_is_called_by_its_series_and_what_it_lacks() {
        let check = |release: &str, rungs: &[&str], want: &str| {
            let kept: Vec<Kept> = rungs.iter().map(|rung| kept(rung)).collect();
            assert_eq!(folder_stem(release, &kept).unwrap(), want);
        };
        check("6.12.1-x", &["fexit", "kprobe", "tracepoint"], "6.12");
        check("6.18.1-x", &["tracepoint"], "6.18-no-kprobes");
    }

    #[test]
    fn nothing_of_a_disguised_capture_names_a_machine_and_it_is_as_long_as_before() {
        let groups = "9:memory:/some/group\n8:cpu:/\n0::/\n";
        let disguise = Disguise::new("6.18.1-box", groups);
        let check = |text: &str, want: &str| {
            let got = disguise.over(text.as_bytes().to_vec());
            assert_eq!(String::from_utf8(got).unwrap(), want);
        };
        check("on 6.18.1-box: /some/group", "on 6.18.1-nok: /labxxxxxxx");
        check("/ 6.18.1", "/ 6.18.1");
        check("6.18.1-box6.18.1-box", "6.18.1-nok6.18.1-nok");
        check("", "");
    }

    #[test]
    fn a_capture_comes_back_from_its_digits() {
        assert_eq!(bytes("000aff").unwrap(), [0, 10, 255]);
        assert!(bytes("0").is_err());
        assert!(bytes("0g").is_err());
    }
}
