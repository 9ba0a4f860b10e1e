//! `mptcp-trace bundle`: what a maintainer asks for first, in one file.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{BufReader, BufWriter},
    path::Path,
};

use anyhow::Context as _;
use clap::Parser as _;

use super::{
    Cli, DONE, Exit,
    args::{BundleArgs, LiveArgs, Verb},
    doctor, live, replay,
};
use crate::{
    bundle::{self, CAPTURE},
    capture::{Frame, Reader, Writer, losses_json},
    enrich::Places,
    host::{netstat, system::mptcp_sysctls},
    pipeline::{Inventory, Stages, Stop, View},
    redact::Redactor,
    sink::{Format, Source, Told},
    wanted::Wanted,
};

/// What lies in a bundle, in this order.
const NAMES: [&str; 8] = [
    "host.json",
    "sysctls.json",
    "counters-before.json",
    "counters-after.json",
    "list.jsonl",
    "findings.jsonl",
    "losses.json",
    CAPTURE,
];

/// How long it is traced if nothing is said.
const DURATION: &str = "30s";

/// Runs it; the exit code.
pub(super) fn run(args: &BundleArgs, verbose: u8) -> Result<u8, Exit> {
    // Where it cannot be written, nobody shall wait for half a minute to hear that.
    let out = bundle::create(&args.file)?;
    let scratch = tempfile::tempdir().context("cannot make a directory for the parts")?;
    let folder = scratch.path();
    let traced = match &args.from {
        Some(capture) => take_over(capture, folder).map(|()| DONE),
        None => trace(args, folder, verbose),
    };
    if args.redact && folder.join(CAPTURE).exists() {
        redact(folder)?;
    }
    if folder.join(CAPTURE).exists() {
        retell(folder)?;
    }
    // Without a trace the rest tells why there is none.
    bundle::pack(&NAMES, folder, out)?;
    let missing: Vec<&str> = NAMES
        .into_iter()
        .filter(|name| !folder.join(name).exists())
        .collect();
    eprintln!(
        "mptcp-trace: wrote {}{}; look into it with: mptcp-trace replay {}",
        args.file.display(),
        match missing[..] {
            [] => String::new(),
            _ => format!(" without {}", missing.join(", ")),
        },
        args.file.display()
    );
    traced
}

/// A capture of before instead of a trace of now.
fn take_over(capture: &Path, folder: &Path) -> Result<(), Exit> {
    replay::with_capture(capture, |input| {
        let path = folder.join(CAPTURE);
        let mut file = File::create(&path).context("cannot keep the capture")?;
        std::io::copy(input, &mut file)
            .with_context(|| format!("cannot read {}", capture.display()))?;
        Ok(())
    })
}

/// Traces, and notes down what there is before and after.
fn trace(args: &BundleArgs, folder: &Path, verbose: u8) -> Result<u8, Exit> {
    let mut host = doctor::json(&args.attach, verbose)?;
    if let (true, Some(btf)) = (args.redact, &args.attach.btf) {
        host = host.replace(&btf.display().to_string(), "FILE");
    }
    let write = |name: &str, bytes: &[u8]| {
        fs::write(folder.join(name), bytes).with_context(|| format!("cannot write {name}"))
    };
    write("host.json", host.as_bytes())?;
    write("sysctls.json", &json(&mptcp_sysctls())?)?;
    write("counters-before.json", &json(&counters())?)?;
    let traced = live::run(words(args, folder)?, verbose);
    write("counters-after.json", &json(&counters())?)?;
    traced
}

fn counters() -> BTreeMap<u32, netstat::Counters> {
    netstat::all()
        .into_iter()
        .map(|(netns, snapshot)| (netns, snapshot.counters))
        .collect()
}

fn json(value: &impl serde::Serialize) -> anyhow::Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).context("cannot write JSON")
}

/// How to trace, as a user would type it.
fn words(args: &BundleArgs, folder: &Path) -> anyhow::Result<LiveArgs> {
    let mut words: Vec<OsString> = ["mptcp-trace", "live", "--json", "--output"]
        .map(Into::into)
        .to_vec();
    // The lines are told anew from the capture; these are in the way of nobody.
    words.push("/dev/null".into());
    words.push("--capture".into());
    words.push(folder.join(CAPTURE).into());
    if args.command.is_empty() && args.duration.is_none() {
        words.extend(["--duration", DURATION].map(Into::into));
    }
    words.push("--".into());
    words.extend(args.command.iter().cloned());
    let cli = Cli::try_parse_from(words).context("cannot trace")?;
    let Some(Verb::Live(mut live)) = cli.verb else {
        anyhow::bail!("cannot trace");
    };
    live.duration = args.duration.or(live.duration);
    live.attach = args.attach.clone();
    Ok(live)
}

/// Rewrites the capture.
fn redact(folder: &Path) -> anyhow::Result<()> {
    let what = || "cannot redact the capture";
    let path = folder.join(CAPTURE);
    let redacted = folder.join("redacted.mpt");
    let (mut reader, facts) =
        Reader::open(BufReader::new(File::open(&path).with_context(what)?)).with_context(what)?;
    let out = BufWriter::new(File::create(&redacted).with_context(what)?);
    let mut writer = Writer::new(out, &facts).with_context(what)?;
    let mut redactor = Redactor::default();
    let mut dropped = 0_u64;
    loop {
        match reader.next_frame()? {
            Frame::Record(mut bytes) => match redactor.record(&mut bytes) {
                Ok(()) => writer.record(&bytes).with_context(what)?,
                Err(_unknown) => dropped += 1,
            },
            Frame::Place(id, path) => writer
                .place(id, &redactor.cgroup(&path))
                .with_context(what)?,
            Frame::Clock(now) => writer.clock(now).with_context(what)?,
            Frame::End(losses) => {
                writer.finish(&losses).with_context(what)?;
                break;
            }
            Frame::CutOff => {
                writer.flush().with_context(what)?;
                break;
            }
        }
    }
    if dropped > 0 {
        eprintln!(
            "mptcp-trace: {dropped} records were left out: it is not known how to redact them"
        );
    }
    fs::rename(&redacted, &path).with_context(what)
}

/// Tells from the capture what it says: sockets, findings, losses.
fn retell(folder: &Path) -> anyhow::Result<()> {
    let path = folder.join(CAPTURE);
    let open = || -> anyhow::Result<_> {
        let file = File::open(&path).context("cannot read the capture")?;
        Reader::open(BufReader::new(file)).context("cannot read the capture")
    };
    let (mut reader, facts) = open()?;
    let mut places = Places::told();
    let mut found = Inventory::default();
    let losses = loop {
        match reader.next_frame()? {
            Frame::Record(bytes) => found.take(&bytes, &facts, &mut places),
            Frame::Place(id, path) => places.tell(id, &path),
            Frame::Clock(_) => {}
            Frame::End(losses) => break Some(losses),
            Frame::CutOff => break None,
        }
    };
    let write = |name: &str, bytes: &[u8]| {
        fs::write(folder.join(name), bytes).with_context(|| format!("cannot write {name}"))
    };
    let mut lines = Vec::new();
    Format::Json.start(&facts, Source::Replay, &mut lines);
    let printed = found.print(&Wanted::default(), &places, Format::Json, &mut lines);
    if let Some(losses) = &losses {
        let told = Told {
            findings: printed,
            ..Told::default()
        };
        Format::Json.end(told, losses, &[], &mut lines);
        let losses = losses_json(losses).context("cannot write JSON")?;
        write("losses.json", &losses)?;
    }
    write("list.jsonl", &lines)?;
    let (mut reader, facts) = open()?;
    let out = BufWriter::new(
        File::create(folder.join("findings.jsonl")).context("cannot write findings.jsonl")?,
    );
    let mut stages = Stages::new(
        facts,
        Format::Json,
        Source::Replay,
        out,
        None,
        View::default(),
        None,
    );
    let told = match replay::play(&mut stages, &mut reader) {
        Ok(Some(losses)) => stages.finish(&losses),
        Ok(None) => stages.cut_off(),
        Err(stop) => Err(stop),
    };
    match told {
        Err(Stop::Failed(why)) => Err(why),
        Ok(()) | Err(Stop::Enough | Stop::ReaderGone) => Ok(()),
    }
}
