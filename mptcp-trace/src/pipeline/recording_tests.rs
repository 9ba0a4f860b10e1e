use std::{cell::RefCell, fs, io::BufReader, path::Path, rc::Rc, time::Duration};

use super::*;
use crate::{
    capture::Reader,
    model::{Counted, Finding, Loss},
    observe::Observer,
    pipeline::{View, play},
    sink::Format,
};

/// Findings, each with its time and all that is known of it.
#[derive(Clone, Debug, Default)]
struct Findings(Rc<RefCell<Timed>>);

impl Observer for Findings {
    fn finding<'a>(&mut self, finding: &'a Finding, _path_of: &dyn Fn(u64) -> Option<&'a str>) {
        let text = format!("{finding:?}");
        self.0.borrow_mut().push((finding.at(), text));
    }
}

fn stages(facts: &Facts, findings: &Findings) -> Stages<io::Sink> {
    let view = View {
        observers: vec![Box::new(findings.clone())],
        ..View::default()
    };
    Stages::silent(facts.clone(), view)
}

fn frames(name: &str) -> (Facts, Vec<Frame>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures/7.3-fexit");
    let file = fs::read(path.join(name)).unwrap();
    let (mut reader, facts) = Reader::open(&file[..]).unwrap();
    let mut frames = Vec::new();
    while frames.last().is_none_or(|last: &Frame| !last.is_last()) {
        frames.push(reader.next_frame().unwrap());
    }
    (facts, frames)
}

const ALL: HistoryLimits = HistoryLimits {
    connections: 10_000,
    records: 10_000,
    blackholes: 100,
};

/// Findings with their times.
type Timed = Vec<(Duration, String)>;

/// Replays a capture, and records it from the frame `from` on. Returns the findings of the whole,
/// the time when the recording began, the recording's findings, and its losses.
fn recorded(name: &str, from: usize) -> (Timed, Duration, Timed, LossReport) {
    let (facts, frames) = frames(name);
    let findings = Findings::default();
    let mut stages = stages(&facts, &findings);
    stages.keep_history(ALL);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("late.mpt");
    let mut began_at = Duration::ZERO;
    for (index, frame) in frames.iter().enumerate() {
        if index == from {
            began_at = stages.correlator.latest();
            stages.hold(Arc::default());
            stages
                .write(File::create(&path).unwrap(), &facts, 0)
                .unwrap();
        }
        // Live, these come from `/proc`.
        if let (Frame::Place(id, path), Some(recording)) = (frame, &mut stages.recording) {
            recording.add(Frame::Place(*id, path.clone()));
        }
        stages.replay(frame).unwrap();
    }
    let Some(Frame::End(losses)) = frames.last() else {
        panic!("{name} is cut off");
    };
    let losses = LossReport {
        sensors: losses
            .sensors
            .iter()
            .map(|it| Loss::none(it.sensor))
            .collect(),
        counted: vec![Counted::default()],
    };
    let records = stages.end_recording(&losses).unwrap().unwrap();
    assert!(!stages.is_recording());
    let Some(Frame::End(of_all)) = frames.last() else {
        panic!("{name} is cut off");
    };
    stages.finish(of_all).unwrap();
    let file = File::open(&path).unwrap();
    let (mut reader, its_facts) = Reader::open(BufReader::new(file)).unwrap();
    assert_eq!(its_facts, facts);
    let of_recording = Findings::default();
    let mut again = self::stages(&facts, &of_recording);
    let played = play(&mut again, &mut reader).unwrap();
    let its_losses = played.losses.unwrap();
    assert_eq!(again.outcome().undecodable, 0);
    again.finish(&its_losses).unwrap();
    let kept = |sensor| its_losses.of(sensor).map_or(0, |it| it.emitted);
    assert!(kept(SensorId::Query) + kept(SensorId::Fallback) <= records);
    let (all, late) = (findings.0.borrow().clone(), of_recording.0.borrow().clone());
    (all, began_at, late, its_losses)
}

#[test]
fn a_late_recording_reports_what_follows_as_the_whole_run_does_and_invents_nothing() {
    for name in ["fallbacks.mpt", "verdicts.mpt"] {
        let count = frames(name).1.len();
        for from in (0..count - 1).step_by(count / 40 + 1) {
            let (all, began_at, late, losses) = recorded(name, from);
            for finding in all.iter().filter(|it| it.0 > began_at) {
                assert!(
                    late.contains(finding),
                    "{name} from {from} lacks {finding:?}"
                );
            }
            for finding in &late {
                assert!(
                    all.contains(finding),
                    "{name} from {from} invents {finding:?}"
                );
            }
            assert!(losses.sensors.iter().all(Loss::balances), "{losses:?}");
        }
    }
}

#[test]
fn what_came_before_counts_as_recorded_and_only_open_connections_are_in_it() {
    let (all, _, late, losses) = recorded("verdicts.mpt", 0);
    assert_eq!(all.len(), late.len());
    assert!(losses.sensors.iter().all(|it| it.emitted == 0));
    // All but the last frames: most connections have ended.
    let count = frames("verdicts.mpt").1.len();
    let (all, _, late, losses) = recorded("verdicts.mpt", count - 2);
    let emitted: u64 = losses.sensors.iter().map(|it| it.emitted).sum();
    assert!(
        late.len() < all.len() / 2,
        "{} of {}",
        late.len(),
        all.len()
    );
    assert!(emitted > 0 || late.is_empty(), "{losses:?}");
}

#[test]
fn a_full_disk_ends_the_recording_and_nothing_else() {
    let (facts, frames) = frames("fallbacks.mpt");
    let findings = Findings::default();
    let mut stages = stages(&facts, &findings);
    stages.keep_history(ALL);
    let progress = Arc::<Progress>::default();
    stages.hold(progress.clone());
    let full = File::options().write(true).open("/dev/full").unwrap();
    let why = stages.write(full, &facts, 0).unwrap_err();
    assert!(why.to_string().contains("No space left"), "{why}");
    assert!(progress.failed().unwrap().contains("No space left"));
    for frame in &frames {
        stages.replay(frame).unwrap();
    }
    let why = stages.end_recording(&LossReport::default()).unwrap_err();
    assert!(why.to_string().contains("cut off: No space left"), "{why}");
    assert!(matches!(stages.format, Format::Nothing));
    assert!(!findings.0.borrow().is_empty());
}
