use std::{fs, time::Duration};

use super::*;
use crate::{
    model::{Counted, Loss},
    pipeline::fixture::{Findings, Timed, frames, replayed},
    sink::Format,
};

const ALL: HistoryLimits = HistoryLimits {
    connections: 10_000,
    records: 10_000,
    blackholes: 100,
    total: usize::MAX,
};

/// Replays a capture, and records it from the frame `from` on. Returns the findings of the whole,
/// the time when the recording began, the recording's findings, and its losses.
fn recorded(name: &str, from: usize) -> (Timed, Duration, Timed, LossReport) {
    let (facts, frames) = frames(&format!("7.3-fexit/{name}"));
    let findings = Findings::default();
    let mut stages = findings.stages(facts.clone());
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
        if let (Frame::Place(..) | Frame::Pod(..), Some(recording)) = (frame, &mut stages.recording)
        {
            recording.add(frame.clone());
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
        paths_under_way: 0,
    };
    let records = stages.end_recording(&losses).unwrap().unwrap();
    assert!(!stages.is_recording());
    let Some(Frame::End(of_all)) = frames.last() else {
        panic!("{name} is cut off");
    };
    stages.finish(of_all).unwrap();
    let (its_facts, late, its_losses) = replayed(&fs::read(&path).unwrap());
    assert_eq!(its_facts, facts);
    let its_losses = its_losses.unwrap();
    let kept = |sensor| its_losses.of(sensor).map_or(0, |it| it.emitted);
    assert!(kept(SensorId::Query) + kept(SensorId::Fallback) <= records);
    (findings.all(), began_at, late, its_losses)
}

#[test]
fn a_late_recording_reports_what_follows_as_the_whole_run_does_and_invents_nothing() {
    for name in ["fallbacks.mpt", "verdicts.mpt"] {
        let count = frames(&format!("7.3-fexit/{name}")).1.len();
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
    let count = frames("7.3-fexit/verdicts.mpt").1.len();
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
    let (facts, frames) = frames("7.3-fexit/fallbacks.mpt");
    let findings = Findings::default();
    let mut stages = findings.stages(facts.clone());
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
    assert!(!findings.all().is_empty());
}
