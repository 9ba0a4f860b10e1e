//! `cargo xtask fuzz`: feeds arbitrary bytes to the parsers, for as long as requested.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::{
    command::say,
    host_packages::{self, FUZZ_NEEDS},
    places::Places,
    provision::CARGO_FUZZ,
};

/// Fuzzes the parsers of external input: records, captures, packets, type information.
///
/// Starts from fuzz/seeds and captures/, keeps new inputs below the target directory, and ends with
/// a line of figures for each target. To turn a crash into a regression test, copy its file to
/// fuzz/seeds/TARGET: `cargo test` runs it.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask fuzz\n  \
    cargo xtask fuzz capture --seconds 3600")]
pub(crate) struct Args {
    /// Only this target (default: all, one after the other)
    target: Option<Target>,
    /// Duration per target, in seconds
    #[arg(long, default_value_t = 600, value_name = "N")]
    seconds: u64,
}

/// The fuzz targets: each is a program in fuzz/.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// One record, from the ring to a line
    Decode,
    /// A capture, from the file to lines
    Capture,
    /// A packet capture, as `annotate` reads and writes it
    Packets,
    /// Type information, as --btf FILE reads it
    Btf,
}

impl Target {
    const ALL: [Self; 4] = [Self::Decode, Self::Capture, Self::Packets, Self::Btf];

    fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Capture => "capture",
            Self::Packets => "packets",
            Self::Btf => "btf",
        }
    }

    /// Longest input in bytes: enough for a few elements of the format.
    fn input_bytes_max(self) -> u32 {
        match self {
            Self::Decode => 512,
            Self::Capture => 32 * 1024,
            Self::Packets | Self::Btf => 16 * 1024,
        }
    }
}

/// Time limit for one input, in seconds.
const INPUT_SECONDS_MAX: u32 = 10;
/// Memory limit for one input, in megabytes.
const MEMORY_MB_MAX: u32 = 1024;
/// At most this many records of each capture become seeds of their own.
const RECORDS_OF_CAPTURE_MAX: usize = 64;

/// Runs the targets; fails if any of them finds a crash.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    host_packages::provide(&FUZZ_NEEDS, "fuzzing")?;
    let fuzzer = CARGO_FUZZ.provide(&places)?;
    let targets = args.target.map_or(Target::ALL.to_vec(), |it| vec![it]);
    let mut code = ExitCode::SUCCESS;
    let mut lines = Vec::new();
    for target in targets {
        say(format_args!(
            "fuzzing {} for {} s",
            target.name(),
            args.seconds
        ));
        let fuzzed = fuzz(&places, &fuzzer, target, args.seconds)?;
        if fuzzed.found_something {
            code = ExitCode::FAILURE;
        }
        lines.push(fuzzed.line(target));
    }
    println!("{}", lines.join("\n"));
    Ok(code)
}

/// The result of one target.
#[derive(Default, Debug, PartialEq, Eq)]
struct Fuzzed {
    executions: Option<u64>,
    /// The last progress line: coverage, features, corpus.
    progress: String,
    found_something: bool,
}

impl Fuzzed {
    /// Handles one line of libFuzzer's output; returns true if it should be shown at once.
    fn read(&mut self, line: &str) -> bool {
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = count.trim().parse().ok();
            return false;
        }
        // Statistics, newly covered functions, and dictionary entries.
        if ["stat::", "\t", "\"", "#####"]
            .iter()
            .any(|of_no_use| line.starts_with(of_no_use))
        {
            return false;
        }
        if line.starts_with('#') && line.contains("cov:") {
            line.clone_into(&mut self.progress);
            return false;
        }
        true
    }

    /// The number after a keyword of the last progress line.
    fn figure(&self, word: &str) -> &str {
        let mut words = self.progress.split_whitespace();
        words
            .find(|it| *it == word)
            .and_then(|_| words.next())
            .unwrap_or("?")
    }

    fn line(&self, target: Target) -> String {
        let executions = self
            .executions
            .map_or_else(|| "?".to_owned(), |it| it.to_string());
        format!(
            "{}: {executions} executions, {} edges, {} features, corpus {}{}",
            target.name(),
            self.figure("cov:"),
            self.figure("ft:"),
            self.figure("corp:"),
            match self.found_something {
                true => ", FOUND SOMETHING",
                false => "",
            }
        )
    }
}

fn fuzz(places: &Places, fuzzer: &Path, target: Target, seconds: u64) -> Result<Fuzzed> {
    let grown = places.target.join("fuzz/corpus").join(target.name());
    let artifacts = places.target.join("fuzz/artifacts").join(target.name());
    for directory in [&grown, &artifacts] {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    grow_from_captures(places, target, &grown)?;
    let mut command = Command::new(fuzzer);
    command
        .current_dir(&places.root)
        // libFuzzer needs coverage instrumentation, whose flags are unstable, as those of
        // sanitizers are.
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["fuzz", "run", "--fuzz-dir", "fuzz"])
        // The fuzzed code has no unsafe blocks: without a sanitizer, more inputs are tried in the
        // same time.
        .args(["--sanitizer", "none", "--target-dir"])
        .arg(places.target.join("fuzz/build"))
        .arg(target.name())
        .arg(&grown)
        .arg(places.root.join("fuzz/seeds").join(target.name()))
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MB_MAX}"))
        .arg(format!("-max_len={}", target.input_bytes_max()))
        .arg("-print_final_stats=1")
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start cargo-fuzz")?;
    let mut fuzzed = Fuzzed::default();
    let said = child.stderr.take().context("cargo-fuzz has no stderr")?;
    for line in BufReader::new(said).split(b'\n') {
        let line = line.context("cannot read what cargo-fuzz says")?;
        let line = String::from_utf8_lossy(&line);
        if fuzzed.read(&line) {
            eprintln!("{line}");
        }
    }
    let status = child.wait().context("cannot wait for cargo-fuzz")?;
    if fuzzed.executions.is_none() && !status.success() {
        bail!("{} could not be fuzzed, see above", target.name());
    }
    fuzzed.found_something = !status.success();
    if fuzzed.found_something {
        say(format_args!(
            "{}: see {}; put the file into fuzz/seeds/{} once the bug is fixed",
            target.name(),
            artifacts.display(),
            target.name()
        ));
    }
    Ok(fuzzed)
}

/// Adds captures of real kernels, or the records in them, to the corpus: they are the best starting
/// points.
fn grow_from_captures(places: &Places, target: Target, grown: &Path) -> Result<()> {
    for capture in captures(&places.root.join("captures"))? {
        let bytes =
            fs::read(&capture).with_context(|| format!("cannot read {}", capture.display()))?;
        let name = capture.to_string_lossy().replace('/', "-");
        let put = |name: String, bytes: &[u8]| {
            let file = grown.join(name);
            fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))
        };
        match target {
            Target::Capture if bytes.len() <= target.input_bytes_max() as usize => {
                put(name, &bytes)?;
            }
            Target::Capture | Target::Packets | Target::Btf => {}
            Target::Decode => {
                for (number, record) in records(&bytes)?
                    .iter()
                    .take(RECORDS_OF_CAPTURE_MAX)
                    .enumerate()
                {
                    // The fallback bit is 2, as on most kernels; no causes are known.
                    put(format!("{name}-{number}"), &[&[2, 0], *record].concat())?;
                }
            }
        }
    }
    Ok(())
}

fn captures(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)
        .with_context(|| format!("cannot look into {}", directory.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(captures(&path)?);
        } else if path.extension().is_some_and(|it| it == "mpt") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The records in a capture: frames of kind 2, after eight bytes of magic.
fn records(capture: &[u8]) -> Result<Vec<&[u8]>> {
    const RECORD: u32 = 2;
    let mut found = Vec::new();
    let mut rest = capture.get(8..).context("a capture without a head")?;
    while let Some((head, more)) = rest.split_first_chunk::<8>() {
        let [k0, k1, k2, k3, l0, l1, l2, l3] = *head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        ensure!(more.len() >= length, "a capture that is cut off");
        let (body, after) = more.split_at(length);
        if u32::from_le_bytes([k0, k1, k2, k3]) == RECORD {
            found.push(body);
        }
        rest = after;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_last_line() {
        let mut fuzzed = Fuzzed::default();
        for (line, is_shown) in [
            ("INFO: Seed: 1", true),
            (
                "#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 30Mb",
                false,
            ),
            (
                "#900\tDONE   cov: 210 ft: 311 corp: 21/4Kb lim: 512 exec/s: 9 rss: 31Mb",
                false,
            ),
            ("stat::number_of_executed_units: 900", false),
            ("stat::peak_rss_mb:              31", false),
            ("\tNEW_FUNC[1/1]: 0x5642a04b4091", false),
            ("\"cgroup\" # Uses: 851", false),
        ] {
            assert_eq!(fuzzed.read(line), is_shown, "{line}");
        }
        assert_eq!(
            fuzzed.line(Target::Btf),
            "btf: 900 executions, 210 edges, 311 features, corpus 21/4Kb"
        );
    }

    #[test]
    fn records_are_the_frames_of_their_kind() {
        let frame = |kind: u32, body: &[u8]| {
            let length = u32::try_from(body.len()).unwrap();
            [&kind.to_le_bytes(), &length.to_le_bytes(), body].concat()
        };
        let capture = [b"MPTCPTR\x01".to_vec(), frame(1, b"{}"), frame(2, b"one")].concat();
        assert_eq!(records(&capture).unwrap(), [b"one"]);
        assert!(records(&capture[..capture.len() - 1]).is_err());
    }
}
