//! `mptcp-trace annotate`: findings as comments in a packet capture.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Seek as _},
    path::Path,
};

use anyhow::{Context as _, anyhow, ensure};

use crate::{
    annotate::{self, Gathered, Plan, Shared, Written},
    cli::{
        DONE, Exit, FAILED,
        args::AnnotateArgs,
        files,
        input::{observe, with_capture},
        output::Output,
        select, talk,
    },
    coalesce::AnswerCoalescer,
    filter::FindingFilter,
    host::sandbox,
    pipeline::{View, prefixed},
    report::Ending,
    sink::escape,
};

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: &AnnotateArgs) -> Result<u8, Exit> {
    files::refuse_to_overwrite(&args.packets, "packet capture", &args.output)?;
    files::refuse_to_overwrite(&args.file, "capture", &args.output)?;
    let wanted = select::wanted(&args.what, &args.which, &args.whose)?;
    let output = Output::place(&args.output)?;
    let mut packets = packets(&args.packets)?;
    sandbox::enter(
        &[args.file.as_path()],
        &[files::folder(&output), output.as_path()],
    );
    let (gathered, ending) = with_capture(&args.file, |input| gather(args, wanted, input))?;
    annotated(args, &mut packets, gathered)?;
    let file = args.file.display();
    match ending {
        Ending::Orderly => Ok(DONE),
        Ending::CutOff => Err(Exit::Because(
            FAILED,
            format!(
                "{file} is cut off: later findings are missing in {}",
                args.output.display()
            ),
        )),
        Ending::Damaged(why) => Err(Exit::Because(
            FAILED,
            format!("{file} is damaged, later findings are missing: {why}"),
        )),
    }
}

/// Opens the packet capture, which is read twice.
fn packets(path: &Path) -> anyhow::Result<File> {
    let what = || format!("cannot open the packet capture {}", path.display());
    let file = File::open(path).with_context(what)?;
    let is_file = file.metadata().with_context(what)?.is_file();
    ensure!(
        is_file,
        "cannot annotate {}: it is read twice, so it must be a file",
        path.display()
    );
    Ok(file)
}

fn gather(
    args: &AnnotateArgs,
    wanted: FindingFilter,
    input: &mut dyn io::Read,
) -> Result<(Gathered, Ending), Exit> {
    let gathering = Shared::new(wanted);
    let view = View {
        repeats: Some(AnswerCoalescer::default()),
        observers: vec![Box::new(gathering.clone())],
        ..View::default()
    };
    let what = format!("cannot read {}", args.file.display());
    let observed = observe(input, view, args.max_connections, &what)?;
    let undecodable = observed.stages.outcome().undecodable;
    let ending = match observed.ending {
        Ending::Orderly if undecodable > 0 => {
            Ending::Damaged(format!("{undecodable} records cannot be decoded"))
        }
        ending @ (Ending::Orderly | Ending::CutOff | Ending::Damaged(_)) => ending,
    };
    Ok((gathering.finish(), ending))
}

/// Reads the packets twice, and writes them with the comments.
fn annotated(args: &AnnotateArgs, packets: &mut File, gathered: Gathered) -> Result<(), Exit> {
    let name = args.packets.display().to_string();
    let not_shown = gathered.not_shown;
    let plan = annotate::plan(BufReader::new(&*packets), gathered)
        .map_err(|why| anyhow!("cannot annotate {name}: {why}"))?;
    packets
        .rewind()
        .with_context(|| format!("cannot read {name} again"))?;
    let cannot = || format!("cannot write {}", args.output.display());
    let mut out = BufWriter::new(Output::create(&args.output)?);
    let written = annotate::write(BufReader::new(&*packets), &plan, &mut out)
        .map_err(|why| anyhow!("cannot annotate {name}: {why}"))?
        .with_context(cannot)?;
    let out = out
        .into_inner()
        .map_err(io::IntoInnerError::into_error)
        .with_context(cannot)?;
    let output = out.commit()?.described();
    let mut lines = account(&plan, written, &name, &output, not_shown);
    if !talk::has_notes() {
        lines.drain(..NOTES);
    }
    for line in lines {
        stderr!("{}", prefixed(&escape(&line)));
    }
    for finding in &plan.left {
        log::info!("not in {name}: {finding}");
    }
    match plan.damage {
        None => match plan.unreadable_at {
            None => Ok(()),
            Some(at) => Err(Exit::Because(
                FAILED,
                format!("{name}: the block at byte {at} is damaged, and copied as it is"),
            )),
        },
        Some(why) => Err(Exit::Because(
            FAILED,
            format!(
                "{name}: {why}; {output} has the {} before it",
                count(plan.counts.packets, "packet")
            ),
        )),
    }
}

/// The first lines of [`account`] say what was done.
const NOTES: usize = 2;

/// What was done, and what could not be placed, in lines.
fn account(plan: &Plan, written: Written, name: &str, output: &str, not_shown: u64) -> Vec<String> {
    let counts = plan.counts;
    let mut lines = vec![
        format!(
            "wrote {output}: {} on {} of {}",
            count(written.comments, "comment"),
            written.packets,
            count(counts.packets, "packet"),
        ),
        format!(
            "{} of {} with findings found in {name}; {} of its packets belong to none of them",
            counts.found,
            count(counts.connections, "connection"),
            counts.packets - counts.of_findings,
        ),
    ];
    let is_stranger = counts.connections > 0 && counts.found == 0;
    for (number, noun, before, after) in [
        (
            counts.elsewhere,
            "finding",
            "no packet for ",
            ": the packets do not have the connection (-v lists them)",
        ),
        (
            counts.addressless,
            "finding",
            "no packet for ",
            ": a listener, or a socket that was never connected",
        ),
        (
            counts.beyond,
            "finding",
            "left out: ",
            ", of more than 200000 (select some, e.g. with --addr)",
        ),
        (not_shown, "finding", "filtered out: ", ""),
        (
            counts.bare,
            "packet",
            "",
            " without a time, which cannot have comments (simple packet blocks)",
        ),
        (
            counts.unfollowed,
            "packet",
            "not followed: ",
            " of more than 1000000 connections on the same addresses",
        ),
        (written.full, "packet", "no room for the comments of ", ""),
        (
            counts.unreadable,
            "block",
            "copied without a look at the packet: ",
            " whose packet does not fit, or whose interface is not described",
        ),
        (
            u64::from(is_stranger),
            "trace",
            "",
            " without a match: were both recorded at the same time, on the same host, without --redact?",
        ),
    ] {
        if number > 0 {
            lines.push(format!("{before}{}{after}", count(number, noun)));
        }
    }
    lines
}

fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
