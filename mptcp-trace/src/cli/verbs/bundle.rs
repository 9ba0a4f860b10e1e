//! `mptcp-trace bundle`: packs a bug report into one file.

mod maintainer;

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read as _},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    bundle::{self, CAPTURE, Destination, Parts},
    capture::{Frame, Reader, Writer, losses_json},
    cli::{
        CANNOT_ANSWER, DONE, Exit, FAILED, USAGE, args::BundleArgs, examine, files,
        input::with_capture, options, permission, run, shell,
    },
    decode::decode,
    enrich::CgroupCache,
    filter::FindingFilter,
    host::{netstat, sandbox, system::mptcp_sysctls},
    model::{Pod, Reconciliations},
    pipeline::{Inventory, Stages, Stop, View, play},
    plan::NONE_LISTED,
    redact::{KEPT, Redactor},
    sink::{FindingCounts, Format, Source, TextLines, TextOptions, Width, escape},
};

/// Files of a bundle, in order.
const NAMES: [&str; 9] = [
    MAINTAINER,
    "host.json",
    "sysctls.json",
    "counters-before.json",
    "counters-after.json",
    "list.jsonl",
    "findings.jsonl",
    "losses.json",
    CAPTURE,
];

/// The text for the kernel's maintainers.
const MAINTAINER: &str = "maintainer.txt";
/// Parts of it, which are not packed: open sockets with their paths, and all findings.
const SOCKETS: &str = "list.txt";
const FINDINGS: &str = "findings.txt";

/// Default duration of the trace.
const DURATION: Duration = Duration::from_secs(30);

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: &BundleArgs, verbose: u8) -> Result<u8, Exit> {
    // An unwritable destination must fail before the trace, not half a minute later.
    let place = files::place(&args.file)?;
    if let Some(capture) = &args.from
        && let (Ok(from), Ok(to)) = (File::open(capture), File::open(&place))
        && files::are_same(&from, &to)?
    {
        let why = format!("--from and FILE are the same file, {}", capture.display());
        return Err(Exit::Because(USAGE, why));
    }
    let destination = Destination::new(&place)?;
    let mut parts = Parts::default();
    if let Some(capture) = &args.from {
        let mut writes = vec![bundle::temporary_folder()];
        writes.extend(destination.folder());
        sandbox::enter(&[capture.as_path()], &writes);
    }
    let (traced, mut about) = match &args.from {
        Some(capture) => take_over(capture, &mut parts).map(|()| (Ok(DONE), None))?,
        None => trace(args, &mut parts, verbose).map(|(exit, about)| (exit, Some(about)))?,
    };
    let mut redactor = Redactor::default();
    if parts.has(CAPTURE) {
        if args.redact {
            redact(&mut parts, &mut redactor)?;
        }
        retell(&mut parts)?;
    }
    if let (true, Some(about)) = (args.redact, &mut about) {
        about.host.redact(&mut redactor);
    }
    tell_maintainers(args, about.as_ref(), &traced, &mut parts)?;
    let packed = bundle::pack(&NAMES, &parts)?;
    deaf()?;
    destination.put(&packed)?;
    stderr_line!("mptcp-trace: {}", escape(&wrote(args, &parts)));
    traced
}

/// Ignores signals while the bundle is written, so that it is never left incomplete. A signal with
/// a handler no longer kills the process, even after its receiver is dropped.
fn deaf() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let _inside = runtime.enter();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        let _unheard = signal(kind).context("cannot take signals")?;
    }
    Ok(())
}

/// Message about the written bundle.
fn wrote(args: &BundleArgs, parts: &Parts) -> String {
    let file = args.file.display();
    if !parts.has(CAPTURE) {
        return format!("wrote {file}: no trace, only facts about this host");
    }
    let missing: Vec<&str> = NAMES.into_iter().filter(|it| !parts.has(it)).collect();
    let without = match missing[..] {
        [] => String::new(),
        _ => format!(" without {}", missing.join(", ")),
    };
    let content = match args.redact {
        true => format!("redacted: it still has {KEPT}"),
        false => "not redacted: it has addresses and names of processes".to_owned(),
    };
    format!(
        "wrote {file}{without} ({content}); inspect it with: mptcp-trace replay {}",
        shell::file(&args.file)
    )
}

/// Uses an existing capture instead of tracing.
fn take_over(capture: &Path, parts: &mut Parts) -> Result<(), Exit> {
    with_capture(capture, |input| {
        let what = || format!("cannot pack {}", capture.display());
        let file = parts.make(CAPTURE)?.try_clone().with_context(what)?;
        Ok(take_over_frames(input, file).with_context(what)?)
    })
}

/// Largest capture that is packed, bytes: a few bytes of a bundle may unpack to any size.
const CAPTURE_BYTES_MAX: u64 = 128 << 20;
/// Most existing sockets that are listed: each stays in memory until its last answer is known.
const LISTED_MAX: usize = 65_536;

/// Copies a capture frame by frame; an invalid frame is an error.
fn take_over_frames(input: &mut dyn io::Read, out: File) -> anyhow::Result<()> {
    let (mut reader, facts) = Reader::open(BufReader::new(input))?;
    let mut writer = Writer::new(BufWriter::new(out), &facts)?;
    let (mut records, mut bytes) = (0_u64, 0_u64);
    loop {
        let frame = reader.next_frame()?;
        match &frame {
            Frame::Record(record) => {
                records += 1;
                bytes += record.len() as u64;
                if let Err(why) = decode(record, &facts) {
                    anyhow::bail!(
                        "record {records} cannot be decoded, it is damaged or of a newer version: \
                         {why}"
                    );
                }
            }
            Frame::Place(_, path) => bytes += path.len() as u64,
            Frame::Pod(_, pod) => bytes += length_of(pod),
            Frame::Clock(_) => bytes += size_of::<u64>() as u64,
            Frame::Missed(..) => bytes += 2 * size_of::<u64>() as u64,
            Frame::End(_) => {
                anyhow::ensure!(!reader.has_more()?, "data follows its end: it is damaged");
            }
            Frame::CutOff => {}
        }
        writer.add(&frame)?;
        if frame.is_last() {
            return Ok(());
        }
        anyhow::ensure!(
            bytes <= CAPTURE_BYTES_MAX,
            "it has more than {} MB: trace for a shorter time, or use filters (--pid, --comm, \
             --netns)",
            CAPTURE_BYTES_MAX >> 20
        );
    }
}

/// Length of the names in a pod, which a damaged capture may have made long.
fn length_of(pod: &Pod) -> u64 {
    let Pod {
        uid,
        namespace,
        name,
        container,
    } = pod;
    let parts = [uid, namespace, name, container].into_iter().flatten();
    size_of::<Pod>() as u64 + parts.map(|part| part.len() as u64).sum::<u64>()
}

/// Facts about the host of a trace.
struct About {
    host: maintainer::Host,
    before: maintainer::Counted,
    after: maintainer::Counted,
}

/// Traces, and collects facts before and after. Returns the exit of the trace, or why nothing can
/// be packed.
fn trace(
    args: &BundleArgs,
    parts: &mut Parts,
    verbose: u8,
) -> Result<(Result<u8, Exit>, About), Exit> {
    // A bundle of a host that cannot be traced is useful, since it states why; one after a
    // forgotten sudo is not.
    if let Some(exit) = permission::refusal() {
        let needs_none = "nothing was written; an existing capture needs no privileges: \
                          mptcp-trace bundle FILE --from CAPTURE";
        return Err(match exit {
            Exit::Lines(code, mut lines) => {
                lines.push(needs_none.to_owned());
                Exit::Lines(code, lines)
            }
            exit @ (Exit::Because(..) | Exit::Code(_)) => exit,
        });
    }
    let host = examine::json(&args.attach.options(), verbose)?;
    let host = without_place(args, &host);
    parts.write("host.json", host.as_bytes())?;
    let sysctls = mptcp_sysctls();
    parts.write("sysctls.json", &json(&sysctls)?)?;
    let host = maintainer::Host::of_this_machine(sysctls);
    let mut reach = netstat::Reach::new();
    let before = counters(&mut reach);
    parts.write("counters-before.json", &json(&before)?)?;
    parts.make(CAPTURE)?;
    let capture = parts.path(CAPTURE).context("no capture")?;
    let traced = run::trace(traced(args, &capture), verbose);
    let after = counters(&mut reach);
    parts.write("counters-after.json", &json(&after)?)?;
    parts.remove_if_empty(CAPTURE)?;
    let about = About {
        host,
        before,
        after,
    };
    match traced {
        // The command failed, not the tracer.
        Err(Exit::Because(code, why)) if ![FAILED, CANNOT_ANSWER].contains(&code) => {
            Err(Exit::Because(code, why))
        }
        traced => Ok((traced, about)),
    }
}

/// Replaces the place of the `--btf` file, if the bundle is redacted.
fn without_place(args: &BundleArgs, text: &str) -> String {
    match &args.attach.btf {
        Some(btf) if args.redact => text.replace(&btf.display().to_string(), "FILE"),
        Some(_) | None => text.to_owned(),
    }
}

/// Writes the text for the kernel's maintainers.
fn tell_maintainers(
    args: &BundleArgs,
    about: Option<&About>,
    traced: &Result<u8, Exit>,
    parts: &mut Parts,
) -> anyhow::Result<()> {
    let read = |name| -> anyhow::Result<String> {
        let mut text = String::new();
        if parts.has(name) {
            parts.open(name)?.read_to_string(&mut text)?;
        }
        Ok(text)
    };
    let found = match traced {
        Err(Exit::Because(_, why)) if !parts.has(CAPTURE) => Err(escape(&without_place(args, why))),
        Err(Exit::Lines(_, lines)) if !parts.has(CAPTURE) => {
            Err(escape(&without_place(args, &lines.join("; "))))
        }
        Ok(_) | Err(_) => Ok(maintainer::Traced {
            sockets: read(SOCKETS)?,
            findings: read(FINDINGS)?,
        }),
    };
    let counters = about.map(|it| (&it.before, &it.after));
    let text = maintainer::text(about.map(|it| &it.host), counters, &found);
    parts.write(MAINTAINER, text.as_bytes())
}

fn counters(reach: &mut netstat::Reach) -> maintainer::Counted {
    reach
        .all()
        .into_iter()
        .map(|(netns, snapshot)| (netns, snapshot.counters))
        .collect()
}

fn json(value: &impl serde::Serialize) -> anyhow::Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).context("cannot write JSON")
}

/// Options of the trace. Its lines are discarded, since findings are printed again from the
/// capture.
fn traced(args: &BundleArgs, capture: &Path) -> options::Live {
    let until = args
        .duration
        .or_else(|| args.command.is_empty().then_some(DURATION));
    options::Live {
        text: None,
        output: Some("/dev/null".into()),
        capture: Some(capture.to_owned()),
        duration: until,
        writes_later: true,
        command: args.command.clone(),
        ..options::Live::new(args.attach.options())
    }
}

/// Redacts the capture.
fn redact(parts: &mut Parts, redactor: &mut Redactor) -> anyhow::Result<()> {
    let what = || "cannot redact the capture";
    let (mut reader, facts) =
        Reader::open(BufReader::new(parts.open(CAPTURE)?)).with_context(what)?;
    let redacted = bundle::temporary().with_context(what)?;
    let out = BufWriter::new(redacted.try_clone().with_context(what)?);
    let mut writer = Writer::new(out, &facts).with_context(what)?;
    let mut dropped = 0_u64;
    loop {
        let mut frame = reader.next_frame().with_context(what)?;
        match &mut frame {
            Frame::Record(bytes) => {
                if redactor.record(bytes).is_err() {
                    dropped += 1;
                    continue;
                }
            }
            Frame::Place(_, path) => *path = redactor.cgroup(path),
            Frame::Pod(_, pod) => redact_pod(redactor, pod),
            Frame::Clock(_) | Frame::Missed(..) | Frame::End(_) | Frame::CutOff => {}
        }
        writer.add(&frame).with_context(what)?;
        if frame.is_last() {
            break;
        }
    }
    if dropped > 0 {
        stderr_line!("mptcp-trace: left out {dropped} records that cannot be redacted");
    }
    parts.replace(CAPTURE, redacted);
    Ok(())
}

/// Replaces the names of a pod; its UID is left out, because its control group's path is replaced too.
fn redact_pod(redactor: &mut Redactor, pod: &mut Pod) {
    let Pod {
        uid,
        namespace,
        name,
        container,
    } = pod;
    *uid = None;
    for (part, kind) in [(namespace, "ns"), (name, "pod"), (container, "container")] {
        if let Some(text) = part {
            *text = redactor.pod_name(kind, text);
        }
    }
}

/// Extracts sockets, findings and losses from the capture.
fn retell(parts: &mut Parts) -> anyhow::Result<()> {
    let open = |parts: &Parts| -> anyhow::Result<_> {
        Reader::open(BufReader::new(parts.open(CAPTURE)?)).context("cannot read the capture")
    };
    let (mut reader, facts) = open(parts)?;
    let mut cgroups = CgroupCache::offline();
    let mut found = Inventory::bounded(LISTED_MAX);
    let losses = loop {
        match reader.next_frame()? {
            Frame::Record(bytes) => found.take(&bytes, &facts, &mut cgroups),
            Frame::Place(id, path) => cgroups.insert(id, &path),
            Frame::Pod(id, pod) => cgroups.insert_pod(id, &pod),
            Frame::Clock(_) | Frame::Missed(..) => {}
            Frame::End(losses) => break Some(losses),
            Frame::CutOff => break None,
        }
    };
    if found.beyond() > 0 {
        stderr_line!(
            "mptcp-trace: list.jsonl contains the first {LISTED_MAX} sockets; {} more are left out",
            found.beyond()
        );
    }
    let mut lines = Vec::new();
    Format::Json.start(&facts, Source::Replay, &mut lines);
    let printed = found.print(
        &FindingFilter::default(),
        &cgroups,
        &Format::Json,
        &mut lines,
    );
    if let Some(losses) = &losses {
        let counts = FindingCounts {
            findings: printed,
            ..FindingCounts::default()
        };
        Format::Json.end(counts, losses, &Reconciliations::default(), &mut lines);
        let losses = losses_json(losses).context("cannot write JSON")?;
        parts.write("losses.json", &losses)?;
    }
    parts.write("list.jsonl", &lines)?;
    let mut sockets = Vec::new();
    let as_text = Format::Text(Box::new(TextLines::of_sockets(for_maintainers())));
    let listed =
        found.print_with_paths(&FindingFilter::default(), &cgroups, &as_text, &mut sockets);
    let mut limits = facts.sensors.iter().flat_map(|it| &it.limits);
    if listed.sockets > 0 {
        parts.write(SOCKETS, &sockets)?;
    } else if limits.any(|it| it == NONE_LISTED) {
        parts.write(SOCKETS, format!("unknown: {NONE_LISTED}").as_bytes())?;
    }
    tell(parts, "findings.jsonl", Format::Json)?;
    let as_text = Format::Text(Box::new(TextLines::new(for_maintainers())));
    tell(parts, FINDINGS, as_text)
}

/// Text that fits any terminal, mail or web page.
fn for_maintainers() -> TextOptions {
    TextOptions {
        header: true,
        width: Width::Unlimited,
        lists_no_join: true,
        ..TextOptions::default()
    }
}

/// Prints all findings of the capture into a part.
fn tell(parts: &mut Parts, name: &'static str, format: Format) -> anyhow::Result<()> {
    let capture = BufReader::new(parts.open(CAPTURE)?);
    let (mut reader, facts) = Reader::open(capture).context("cannot read the capture")?;
    let out = BufWriter::new(parts.make(name)?);
    let mut stages = Stages::new(
        facts,
        format,
        Source::Replay,
        out,
        None,
        View::default(),
        None,
    );
    let counts = match play(&mut stages, &mut reader) {
        Ok(played) => match played.losses {
            Some(losses) => stages.finish(&losses),
            None => stages.cut_off(),
        },
        Err(stop) => Err(stop),
    };
    match counts {
        Err(Stop::Failed(why)) => Err(why),
        Ok(()) | Err(Stop::Enough | Stop::ReaderGone) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::KEPT;
    use crate::cli::Cli;

    #[test]
    fn every_text_about_redaction_says_what_stays() {
        let mut command = Cli::command();
        let bundle = command.find_subcommand_mut("bundle").unwrap();
        for (name, text) in [
            ("bundle --help", bundle.render_long_help().to_string()),
            ("README.md", include_str!("../../../../README.md").into()),
            (
                "the packages' README.md",
                include_str!("../../../../contrib/package/README.md").into(),
            ),
            (
                "docs/output.md",
                include_str!("../../../../docs/output.md").into(),
            ),
            (
                "docs/security.md",
                include_str!("../../../../docs/security.md").into(),
            ),
            (
                "docs/faq.md",
                include_str!("../../../../docs/faq.md").into(),
            ),
            (
                "docs/report.md",
                include_str!("../../../../docs/report.md").into(),
            ),
            ("bundle.man", include_str!("../bundle.man").into()),
        ] {
            let words: Vec<&str> = text.split_whitespace().collect();
            assert!(
                words.join(" ").contains(KEPT),
                "{name} must contain: {KEPT}"
            );
        }
    }
}
