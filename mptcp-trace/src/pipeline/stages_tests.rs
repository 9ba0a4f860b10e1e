use std::{fs::File, io, path::Path};

use super::super::view::Detail;
use super::*;
use crate::{
    capture::{Frame, Reader},
    filter::{self, choice, kind},
    model::{
        PathKind, PerSensor, Reconciliations, Rung, SensorState,
        fixture::{Row, a_path},
    },
    sink::{ConnectionCounts, TextOptions},
};

/// A full disk.
struct Full;

impl Write for Full {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_account_is_drawn_where_the_first_write_of_all_is_that_of_the_end() {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures");
    let file = File::open(captures.join("6.12-fexit/verdicts.mpt")).unwrap();
    let (mut reader, facts) = Reader::open(file).unwrap();
    let format = Format::text(TextOptions::default());
    let view = View::default();
    let mut stages = Stages::new(facts, format, Source::Replay, Full, None, view, None);
    let losses = loop {
        match reader.next_frame().unwrap() {
            Frame::End(losses) => break losses,
            Frame::CutOff => panic!("cut off"),
            frame @ (Frame::Record(_)
            | Frame::Place(..)
            | Frame::Pod(..)
            | Frame::Clock(_)
            | Frame::Missed(..)) => {
                stages.replay(&frame).unwrap();
            }
        }
    };
    // With a full buffer, the next line is written immediately.
    stages.lines.resize(64 * 1024, b'\n');
    let ended = stages.finish(&losses);
    assert!(matches!(ended, Err(Stop::Failed(_))), "{ended:?}");
    let outcome = stages.outcome();
    assert_eq!(
        (outcome.findings, outcome.by_sensor, outcome.verdicts),
        (0, PerSensor::default(), 0)
    );
    assert!(outcome.unwritten > 2, "{outcome:?}");
    assert!(!outcome.reconciled.fallbacks.is_empty(), "{outcome:?}");
}

/// The lines and the outcome of a run that traces paths, with these options `--kind`.
fn run(format: Format, kinds: &[&str], sensors: &[SensorId]) -> Stages<Vec<u8>> {
    let kinds = kinds.iter().map(|it| choice(kind)(it).unwrap()).collect();
    filtered(
        format,
        FindingFilter {
            kinds,
            ..FindingFilter::default()
        },
        sensors,
    )
}

/// The same, with these filters.
fn filtered(format: Format, wanted: FindingFilter, sensors: &[SensorId]) -> Stages<Vec<u8>> {
    let facts = Facts {
        sensors: sensors
            .iter()
            .map(|sensor| SensorState {
                sensor: *sensor,
                rung: Rung::Fexit,
                probes: Vec::new(),
                limits: Vec::new(),
            })
            .collect(),
        ..Facts::unknown()
    };
    let view = View {
        wanted,
        hides_routine: true,
        is_of_command: true,
        ..View::default()
    };
    let mut stages = Stages::new(facts, format, Source::Live, Vec::new(), None, view, None);
    let row = Row::default();
    stages.ready = vec![
        row.path(a_path(PathKind::Up)),
        row.path(a_path(PathKind::Failed)),
        row.path(a_path(PathKind::Priority)),
        row.path(a_path(PathKind::Down)),
        row.closed(|_| {}),
    ];
    stages.print_ready().unwrap();
    stages.flush().unwrap();
    stages
}

#[test]
fn a_path_whose_cause_is_asked_for_has_a_line_and_the_others_are_not_offered() {
    for (cause, shown) in [
        ("connection-closed", &["path_down"][..]),
        ("MPJoinAckRejected", &["path_failed"]),
        ("removed", &[]),
    ] {
        let wanted = FindingFilter {
            causes: vec![choice(filter::cause)(cause).unwrap()],
            ..FindingFilter::default()
        };
        let stages = filtered(Format::Json, wanted, &SensorId::ALL);
        let text = String::from_utf8(stages.out.clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), shown.len(), "{cause}: {text}");
        for (line, kind) in lines.iter().zip(shown) {
            assert!(
                line.contains(&format!("{{\"type\":\"{kind}\"")),
                "{cause}: {line}"
            );
        }
        let outcome = stages.outcome();
        let hidden = 5 - lines.len() as u64;
        assert_eq!(
            (outcome.folded.routine, outcome.not_shown),
            (0, hidden),
            "{cause}"
        );
    }
}

#[test]
fn paths_that_work_have_lines_on_request_and_their_connection_always_counts() {
    let all = &SensorId::ALL[..];
    for (kinds, shown, routine, not_shown) in [
        (&[][..], &["path_failed", "closed"][..], 3, 0),
        (
            &["all"],
            &[
                "path_up",
                "path_failed",
                "path_priority",
                "path_down",
                "closed",
            ],
            0,
            0,
        ),
        (
            &["path"],
            &["path_up", "path_failed", "path_priority", "path_down"],
            0,
            1,
        ),
        (&["path-up"], &["path_up"], 2, 2),
        // Leaving something out asks for nothing.
        (&["!closed"], &["path_failed"], 3, 1),
        (&["query"], &[], 3, 2),
    ] {
        for format in [Format::Json, Format::text(TextOptions::default())] {
            let stages = run(format, kinds, all);
            let text = String::from_utf8(stages.out.clone()).unwrap();
            assert_eq!(text.lines().count(), shown.len(), "{kinds:?}: {text}");
            for (line, kind) in text.lines().zip(shown) {
                let kind = match stages.format {
                    Format::Json => format!("{{\"type\":\"{kind}\""),
                    Format::Text(_) | Format::Nothing => format!(" {} ", kind.replace('_', "-")),
                };
                assert!(line.contains(&kind), "{kinds:?}: {kind} in {line}");
            }
            let outcome = stages.outcome();
            assert_eq!(
                (outcome.folded.routine, outcome.not_shown),
                (routine, not_shown),
                "{kinds:?}"
            );
            let counts = stages.connections();
            let wanted = ConnectionCounts {
                closed: 1,
                mptcp: 1,
                ..ConnectionCounts::default()
            };
            assert_eq!(counts, Some(wanted), "{kinds:?}");
            for detail in [Detail::Brief, Detail::Full] {
                let account =
                    stages.account(&LossReport::default(), &Reconciliations::default(), detail);
                assert!(
                    account
                        .lines()
                        .any(|it| it == "1 connection: 1 MPTCP to the end"),
                    "{account}"
                );
            }
            let quiet = stages.account(
                &LossReport::default(),
                &Reconciliations::default(),
                Detail::Trouble,
            );
            assert_eq!(quiet, "");
        }
    }
    // Without the sensor, nothing is known of connections that stay MPTCP.
    let stages = run(Format::Json, &[], &[SensorId::Query, SensorId::Fallback]);
    assert_eq!(stages.connections(), None);
    let account = stages.account(
        &LossReport::default(),
        &Reconciliations::default(),
        Detail::Full,
    );
    assert!(!account.contains("MPTCP to the end"), "{account}");
}
