//! Properties that must hold for any input bytes: no panic, bounded output, well-formed lines. The
//! fuzz targets run these checks. mptcp-trace/tests/corpora.rs includes this file and runs them on
//! the committed seeds.

use std::time::Duration;

use mptcp_trace::{
    aggregation::Sums,
    annotate::{self, Shared},
    capture::Reader,
    coalesce::AnswerCoalescer,
    correlate::Limits,
    decode::{Observation, decode as decode_record},
    enrich::{self, CgroupCache},
    filter::FindingFilter,
    host::btf as types,
    model::{By, Facts, Finding, Rung, SensorId, SensorState},
    pipeline::{Detail, Played, Stages, Stop, View, play, prefixed},
    redact::Redactor,
    sink::{Format, Source, TextOptions, TimeStyle, Width},
};
use mptcp_trace_common::layout::KernelLayout;

/// The longest possible line: its strings are bounded, even when escaped (names of 15 bytes, paths
/// of 4096).
const LINE_BYTES_MAX: usize = 128 * 1024;
/// Maximum size of the output around the findings.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Size of the shortest frame that produces a finding: its head and the shortest record.
const FINDING_BYTES_MIN: usize = 64;

/// Names in the kernel's spelling, one from a newer kernel, and one that no kernel has.
const ENUMERATORS: [&str; 6] = [
    "MPTCP_MIB_MPCAPABLEACTIVEFALLBACK",
    "MPTCP_MIB_DSSFALLBACK",
    "MPTCP_MIB_BLACKHOLE",
    "MPTCP_MIB_MPCAPABLEACTIVEDISABLED",
    "MPTCP_MIB_OFTOMORROW",
    "\u{1b}[31m\n\u{202e}",
];

/// Text of any width, a line for each finding.
fn text(width: Width) -> Format {
    Format::text(TextOptions {
        time: TimeStyle::Utc,
        width,
        why: matches!(width, Width::Fixed(_)),
        lists_existing: true,
        lists_never_asked: true,
        ..TextOptions::default()
    })
}

/// Width of a terminal, columns.
const NARROW: usize = 60;

/// Parses facts from the first bytes: the fallback bit, the number of causes, and each cause's
/// number and name. Returns the rest.
fn facts(bytes: &[u8]) -> Option<(Facts, &[u8])> {
    let (&[bit, count], mut rest) = bytes.split_first_chunk()?;
    let mut causes = Vec::new();
    for _ in 0..count % 8 {
        let (&[number, name], more) = rest.split_first_chunk()?;
        let name = ENUMERATORS[usize::from(name) % ENUMERATORS.len()];
        causes.push((i32::from(number), name.to_owned()));
        rest = more;
    }
    let facts = Facts {
        version: "0.0.0".into(),
        kernel: "0.0.0".into(),
        boot_epoch: Duration::from_secs(1_700_000_000),
        fallback_bit: (bit < 64).then_some(bit),
        causes,
        counters_read_at: [(1, (Duration::ZERO, Duration::from_secs(1)))].into(),
        counters_listed_at: None,
        counters_at_start: std::collections::BTreeMap::new(),
        sensors: vec![SensorState {
            sensor: SensorId::Query,
            rung: Rung::Tracepoint,
            probes: Vec::new(),
            limits: Vec::new(),
        }],
        dump: None,
    };
    Some((facts, rest))
}

/// Decodes one record and prints it.
pub fn decode(bytes: &[u8]) {
    let Some((facts, record)) = facts(bytes) else {
        return;
    };
    let mut redacted = record.to_vec();
    let is_redacted = Redactor::default().record(&mut redacted).is_ok();
    let mut places = CgroupCache::offline();
    let decoded = decode_record(record, &facts);
    // A record that decodes must also decode after redaction.
    if decoded.is_ok() {
        assert!(is_redacted && decode_record(&redacted, &facts).is_ok());
    }
    let finding = match decoded {
        Ok(Observation::Query(query) | Observation::Canary(query)) => {
            Finding::Query(enrich::query(&facts, query))
        }
        Ok(Observation::Connection(it) | Observation::CanaryConnection(it)) => {
            let event = enrich::connection(&facts, &mut places, *it);
            Finding::Connection(Box::new(event))
        }
        Ok(Observation::Refusal(refusal)) => {
            Finding::Refusal(Box::new(enrich::refusal(&facts, *refusal)))
        }
        Ok(Observation::Path(it) | Observation::CanaryPath(it) | Observation::PathReading(it)) => {
            let event = enrich::path(&facts, &mut places, *it);
            Finding::Path(Box::new(event))
        }
        // It is printed with the line of its event.
        Ok(Observation::Packet(_key, packet)) => {
            assert_fit_for_a_terminal(packet.description().as_bytes());
            return;
        }
        // These produce no line.
        Ok(
            Observation::Counters(_)
            | Observation::CountersAtStart(_)
            | Observation::Change(_)
            | Observation::CanaryChange(_),
        ) => return,
        Err(why) => {
            assert_fit_for_a_terminal(why.to_string().as_bytes());
            return;
        }
    };
    for mut format in [text(Width::Unlimited), Format::Json] {
        let mut line = Vec::new();
        format.finding(&finding, &mut line);
        assert_line(&format, &line);
        if let Finding::Connection(event) = &finding {
            let mut line = Vec::new();
            format.socket(event, None, &mut line);
            assert_line(&format, &line);
        }
    }
    let mut lines = Vec::new();
    text(Width::Fixed(NARROW)).finding(&finding, &mut lines);
    for line in lines.split(|byte| *byte == b'\n') {
        assert_fit_for_a_terminal(line);
    }
}

/// Replays a capture: plainly, and with all views and small limits.
pub fn capture(bytes: &[u8]) {
    let narrow = View {
        summary: Sums::new(&[
            By::Process,
            By::Cause,
            By::Dest,
            By::Netns,
            By::Cgroup,
            By::Verdict,
            By::Path,
            By::Endpoint,
            By::Interface,
        ]),
        repeats: Some(AnswerCoalescer::default()),
        limits: Limits {
            arriving: 4,
            waiting: 2,
            connections: 3,
        },
        ..View::default()
    };
    replay(bytes, Format::Json, View::default());
    replay(bytes, text(Width::Unlimited), View::default());
    replay(bytes, text(Width::Fixed(NARROW)), View::default());
    replay(bytes, Format::Json, narrow);
}

fn replay(bytes: &[u8], format: Format, view: View) {
    let (mut reader, facts) = match Reader::open(bytes) {
        Ok(opened) => opened,
        Err(why) => {
            assert_fit_for_a_terminal(prefixed(&why.to_string()).as_bytes());
            return;
        }
    };
    let is_json = matches!(format, Format::Json);
    let mut out = Vec::new();
    let mut stages = Stages::new(facts, format, Source::Replay, &mut out, None, view, None);
    let played = play(&mut stages, &mut reader);
    let said = match played {
        Ok(Played {
            losses: Some(losses),
            ..
        }) => {
            let finished = stages.finish(&losses);
            assert!(finished.is_ok(), "memory is always there");
            prefixed(&stages.account(&losses, &stages.outcome().reconciled, Detail::Full))
        }
        Ok(Played { losses: None, .. }) => {
            assert!(stages.cut_off().is_ok(), "memory is always there");
            String::new()
        }
        Err(Stop::Failed(why)) => prefixed(&format!("{why:#}")),
        Err(Stop::Enough | Stop::ReaderGone) => unreachable!("the output has no limit"),
    };
    let findings = bytes.len() / FINDING_BYTES_MIN + 1;
    // Each record produces at most one line of its own and one closing verdict.
    let most = FRAME_BYTES_MAX + findings * 2 * LINE_BYTES_MAX;
    assert!(out.len() <= most, "{} bytes of {}", out.len(), bytes.len());
    assert_fit_for_a_terminal(said.as_bytes());
    for line in out.split_inclusive(|byte| *byte == b'\n') {
        assert_fit_for_a_terminal(line);
        if is_json {
            let value: Result<serde_json::Value, _> = serde_json::from_slice(line);
            assert!(value.is_ok(), "{}", String::from_utf8_lossy(line));
        }
    }
}

/// Parses type information as `--btf FILE` does.
pub fn btf(bytes: &[u8]) {
    let facts = match types::parse(bytes.to_vec()) {
        Ok(facts) => facts,
        Err(why) => {
            assert!(!why.to_string().is_empty());
            return;
        }
    };
    assert!(facts.missing.len() <= KernelLayout::MEMBERS.len());
    // The parsed names stay bounded, however often the input refers to them.
    let names: usize = facts.counters.iter().map(|(_, name)| name.len()).sum();
    assert!(names <= bytes.len() / 8 * 512, "{names} of {}", bytes.len());
}

/// The capture whose findings [`packets`] puts on packets, and packets of the same connections.
const SESSION: &[u8] = include_bytes!("../../captures/sessions/packets.mpt");

/// Annotates a packet capture: the result has the same packets, and can be annotated again.
pub fn packets(bytes: &[u8]) {
    let Some((plan, annotated)) = annotated(bytes) else {
        return;
    };
    // A pcap becomes a pcapng: each packet gets at most as many bytes of headers, and the file has
    // two more blocks. Comments are bounded.
    let comments = usize::try_from(plan.counts.placed + plan.counts.found).unwrap_or(usize::MAX);
    let most = 256 + bytes.len() * 4 + comments * LINE_BYTES_MAX;
    assert!(
        annotated.len() <= most,
        "{} of {}",
        annotated.len(),
        bytes.len()
    );
    let Some((again, twice)) = self::annotated(&annotated) else {
        unreachable!("the result is no packet capture");
    };
    assert!(again.damage.is_none(), "{:?}", again.damage);
    assert_eq!(again.counts, plan.counts);
    assert!(twice.len() >= annotated.len());
}

/// The plan for a packet capture, and the result; none if it is not one.
fn annotated(bytes: &[u8]) -> Option<(annotate::Plan, Vec<u8>)> {
    let (mut reader, facts) = Reader::open(SESSION).ok()?;
    let gathering = Shared::new(FindingFilter::default());
    let view = View {
        observers: vec![Box::new(gathering.clone())],
        ..View::default()
    };
    let mut stages = Stages::silent(facts, view);
    if let Ok(Played {
        losses: Some(losses),
        ..
    }) = play(&mut stages, &mut reader)
    {
        assert!(stages.finish(&losses).is_ok(), "memory is always there");
    }
    let plan = match annotate::plan(bytes, gathering.finish()) {
        Ok(plan) => plan,
        Err(why) => {
            assert_fit_for_a_terminal(why.to_string().as_bytes());
            return None;
        }
    };
    let mut out = Vec::new();
    let written = annotate::write(bytes, &plan, &mut out);
    assert!(matches!(written, Ok(Ok(_))), "{written:?}");
    Some((plan, out))
}

fn assert_line(format: &Format, line: &[u8]) {
    assert!(line.len() <= LINE_BYTES_MAX, "{} bytes", line.len());
    assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    assert_eq!(line.last(), Some(&b'\n'));
    assert_fit_for_a_terminal(line);
    if matches!(format, Format::Json) {
        let value: Result<serde_json::Value, _> = serde_json::from_slice(line);
        assert!(value.is_ok(), "{}", String::from_utf8_lossy(line));
    }
}

/// Asserts valid UTF-8 without control characters that a terminal would interpret.
fn assert_fit_for_a_terminal(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes);
    assert!(text.is_ok(), "{bytes:?}");
    let drives = |it: &char| it.is_control() && *it != '\n';
    let found = text.unwrap_or_default().chars().find(drives);
    assert_eq!(found, None, "{}", String::from_utf8_lossy(bytes));
}
