//! `mptcp-trace pair`: two captures of the same connections, one of each end.

use std::{
    io::{self, BufReader, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use mptcp_trace_common::record::Kind;
use zerocopy::FromBytes as _;

use crate::{
    capture::{Frame, Reader},
    cli::{
        DONE, Exit, FAILED, USAGE,
        args::{FindingFilterArgs, PairArgs, TaskFilterArgs},
        colour,
        input::{Observed, Rereadable, observe},
        select, stdout, talk, terminal,
    },
    filter::FindingFilter,
    host::sandbox,
    model::{Facts, LossReport, SensorId},
    pair::{About, Capture, Look, Options, Paired, Shared, json, text},
    pipeline::{Detail, View, prefixed},
    redact,
    report::Ending,
    sink::wrapped,
};

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: &PairArgs) -> Result<u8, Exit> {
    let wanted = select::wanted(
        &FindingFilterArgs::default(),
        &args.which,
        &TaskFilterArgs::default(),
    )?;
    if [&args.client, &args.server].map(PathBuf::as_path) == [Path::new("-"); 2] {
        let why = "only one of the two captures can be stdin".to_owned();
        return Err(Exit::Because(USAGE, why));
    }
    stdout::check()?;
    let files = [
        Rereadable::open(&args.client)?,
        Rereadable::open(&args.server)?,
    ];
    // Both are open.
    sandbox::enter(&[], &[]);
    let (client, first_ending) = gathered(&files[0], &args.client, args, wanted.clone())?;
    let (server, second_ending) = gathered(&files[1], &args.server, args, wanted)?;
    if !client.ends.all.is_empty() && client.ends.all == server.ends.all {
        return Err(Exit::Because(
            FAILED,
            "both captures have the same ends of the same connections: give one of each host, \
             mptcp-trace pair CLIENT.mpt SERVER.mpt"
                .to_owned(),
        ));
    }
    let (paired, swapped) = Paired::new(&client, &server);
    if swapped && talk::has_notes() {
        stderr!(
            "{}",
            prefixed(&format!(
                "{} has the ends that accepted the connections: it is taken as the server's capture",
                args.client.display()
            ))
        );
    }
    let options = Options {
        kinds: args.kind.clone(),
        all: matches!(talk::detail(), Detail::Full),
        utc: args.utc,
    };
    let out = match args.json {
        true => json(&paired, &options).map_err(anyhow::Error::from)?,
        false => {
            let look = Look {
                width: terminal::columns(),
                colour: colour::is_wanted(io::stdout().is_terminal()),
                wrapped,
            };
            text(&paired, &options, look).into_bytes()
        }
    };
    let mut stdout = io::stdout().lock();
    match stdout.write_all(&out).and_then(|()| stdout.flush()) {
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => return Ok(DONE),
        written => written.map_err(|why| Exit::Because(FAILED, format!("cannot write: {why}")))?,
    }
    if let Some(why) = paired.why_nothing_fits().filter(|_| talk::has_notes()) {
        stderr!("{}", prefixed(&why));
    }
    for (file, ending) in [(&args.client, first_ending), (&args.server, second_ending)] {
        let file = file.display();
        match ending {
            Ending::Orderly => {}
            Ending::CutOff => {
                return Err(Exit::Because(
                    FAILED,
                    format!("{file} is cut off: what is missing in it proves nothing"),
                ));
            }
            Ending::Damaged(why) => {
                return Err(Exit::Because(FAILED, format!("{file} is damaged: {why}")));
            }
        }
    }
    Ok(DONE)
}

/// Plays a capture, and reads the time that it covers.
fn gathered(
    file: &Rereadable<'_>,
    path: &Path,
    args: &PairArgs,
    wanted: FindingFilter,
) -> Result<(Capture, Ending), Exit> {
    let what = format!("cannot read {}", path.display());
    let gathering = Shared::new(wanted);
    let view = View {
        observers: vec![Box::new(gathering.clone())],
        ..View::default()
    };
    let Observed {
        facts,
        stages,
        losses,
        ending,
    } = file.play(|input| observe(input, view, args.max_connections, &what))?;
    let span = file.play(|input| Ok(span(input)))?;
    let undecodable = stages.outcome().undecodable;
    let ends = gathering.finish();
    let paths = ends.all.iter().flat_map(|seen| &seen.paths);
    let mut addresses = paths.flat_map(|path| [path.local.ip(), path.remote.ip()]);
    let about = About {
        name: match path == Path::new("-") {
            true => "stdin".to_owned(),
            false => path.display().to_string(),
        },
        epoch: facts.boot_epoch,
        span: span.unwrap_or_default(),
        gap: gap(&facts, &losses, &ending, undecodable),
        filtered: filtered(&losses),
        beyond: ends.beyond,
        redacted: addresses.any(redact::is_pseudonym),
    };
    let ending = match ending {
        Ending::Orderly if undecodable > 0 => {
            Ending::Damaged(format!("{undecodable} records cannot be decoded"))
        }
        ending @ (Ending::Orderly | Ending::CutOff | Ending::Damaged(_)) => ending,
    };
    Ok((Capture { about, ends }, ending))
}

/// The sensors whose losses matter.
const SENSORS: [SensorId; 2] = [SensorId::Fallback, SensorId::Subflow];

/// Why something may be missing in a capture.
fn gap(facts: &Facts, losses: &LossReport, ending: &Ending, undecodable: u64) -> Option<String> {
    match ending {
        Ending::Orderly => {}
        Ending::CutOff => return Some("it is cut off, and its losses are unknown".to_owned()),
        Ending::Damaged(_) => return Some("it is damaged".to_owned()),
    }
    if undecodable > 0 {
        return Some(format!("{undecodable} of its records cannot be decoded"));
    }
    if let Some(sensor) = SENSORS.into_iter().find(|it| !facts.has_sensor(*it)) {
        return Some(format!("its sensor {} did not run", sensor.name()));
    }
    let lost: u64 = SENSORS.into_iter().map(|it| losses.untraced(it)).sum();
    (lost > 0).then(|| format!("{lost} of its events were lost"))
}

/// Events of connections and paths that the filter left out.
fn filtered(losses: &LossReport) -> u64 {
    let of = SENSORS.into_iter().filter_map(|it| losses.of(it));
    of.map(|it| it.filtered).sum()
}

/// The first and the last moment that a capture covers; `None` if it has none.
///
/// It covers no record from before its begin: dumps and captures of `top` start with the earlier
/// records of the connections that are open then, and have nothing else of that time.
fn span(input: &mut dyn io::Read) -> Option<(Duration, Duration)> {
    let (mut reader, facts) = Reader::open(BufReader::new(input)).ok()?;
    let listed = facts.counters_listed_at.map(|(from, _)| from);
    let read = facts.counters_read_at.values().map(|(from, _)| *from).min();
    let dumped = facts.dump.map(|it| it.from);
    let begin = listed.into_iter().chain(read).chain(dumped).min();
    let (mut first, mut last) = (None, begin);
    while let Ok(frame) = reader.next_frame() {
        let at = match &frame {
            Frame::Record(bytes) => moment(bytes),
            Frame::Clock(at) => Some(*at),
            Frame::Missed(..) | Frame::Place(..) | Frame::Pod(..) => None,
            Frame::End(_) | Frame::CutOff => break,
        };
        let at = at.into_iter();
        (first, last) = (at.clone().chain(first).min(), at.chain(last).max());
    }
    Some((begin.or(first)?, last?))
}

/// When a record was made, which each kind has at the same place; `None` if it is too short.
fn moment(bytes: &[u8]) -> Option<Duration> {
    let (_kind, rest) = Kind::read_from_prefix(bytes).ok()?;
    let at = u64::read_from_prefix(rest.get(4..)?).ok()?.0;
    (at != 0).then(|| Duration::from_nanos(at))
}

#[cfg(test)]
mod tests {
    use mptcp_trace_common::record::CountedRecord;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;
    use crate::{capture::Writer, model::Dump};

    fn record(at: Duration) -> Vec<u8> {
        let mut bytes = CountedRecord::new_zeroed().as_bytes().to_vec();
        let at_ns = u64::try_from(at.as_nanos()).unwrap();
        bytes[8..16].copy_from_slice(&at_ns.to_ne_bytes());
        assert_eq!(moment(&bytes), Some(at));
        bytes
    }

    #[test]
    fn earlier_records_of_open_connections_do_not_say_when_a_capture_begins() {
        let s = Duration::from_secs;
        let span_of = |facts: &Facts, ticks: &[u64]| {
            let mut file = Vec::new();
            let mut writer = Writer::new(&mut file, facts).unwrap();
            writer.record(&record(s(3))).unwrap();
            for tick in ticks {
                writer.add(&Frame::Clock(s(*tick))).unwrap();
            }
            writer.record(&record(s(30))).unwrap();
            span(&mut file.as_slice())
        };
        let mut facts = Facts::unknown();
        assert_eq!(span_of(&facts, &[]), Some((s(3), s(30))));
        assert_eq!(span_of(&facts, &[35]), Some((s(3), s(35))));
        // A dump has no counters.
        facts.dump = Some(Dump {
            from: s(20),
            to: None,
        });
        assert_eq!(span_of(&facts, &[]), Some((s(20), s(30))));
        assert_eq!(span_of(&facts, &[25, 35]), Some((s(20), s(35))));
        facts.dump = None;
        facts.counters_listed_at = Some((s(10), s(11)));
        assert_eq!(span_of(&facts, &[20]), Some((s(10), s(30))));
    }
}
