use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use super::*;
use crate::{
    capture::Reader,
    decode::decode,
    history::History,
    model::Reconciliations,
    pipeline::{
        Detail,
        fixture::{Findings, file, frames, replayed},
        play,
    },
    recorder::{Plan, Span, folder::segments, places::at},
};

thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

fn now() -> Duration {
    NOW.get()
}

fn happened_at(frame: &Frame, facts: &Facts) -> Option<Duration> {
    match frame {
        Frame::Record(bytes) => at(&decode(bytes, facts).unwrap()),
        Frame::Clock(now) => Some(*now),
        Frame::Place(..) | Frame::Pod(..) | Frame::Missed(..) | Frame::End(_) | Frame::CutOff => {
            None
        }
    }
}

fn begun(path: &Path, facts: &Facts, segment: u64) -> Recording {
    let folder = Folder::lock(path).unwrap();
    let shared = Arc::default();
    let mut recording = Recording::begin(folder, 1 << 20, facts.clone(), shared, now).unwrap();
    recording.room.segment = segment;
    recording.known.history = History::new(STATED);
    recording
}

/// Records a capture in segments of that size.
fn recorded(path: &Path, name: &str, segment: u64) -> (Facts, Vec<Duration>) {
    let (facts, frames) = frames(name);
    NOW.set(
        frames
            .iter()
            .find_map(|it| happened_at(it, &facts))
            .unwrap(),
    );
    let mut recording = begun(path, &facts, segment);
    let mut times = Vec::new();
    for frame in frames.into_iter().filter(|it| !it.is_last()) {
        if let Some(at) = happened_at(&frame, &facts) {
            NOW.set(now().max(at));
            times.push(at);
        }
        let is_record = matches!(frame, Frame::Record(_));
        recording.frames(&[frame]);
        let mut losses = recording.losses.clone();
        if is_record {
            if losses.sensors.is_empty() {
                losses.sensors.push(Loss::none(SensorId::Query));
            }
            losses.sensors[0].seen += 1;
            losses.sensors[0].emitted += 1;
        }
        recording.lost(losses);
        let state = recording.state(false);
        recording.write_checkpoint(state);
    }
    recording.complete();
    assert_eq!(recording.shared.all_missing(), 0);
    (facts, times)
}

fn dumped(path: &Path, span: Span) -> (Vec<u8>, crate::recorder::Dumped) {
    let mut capture = Vec::new();
    let dumped = Plan::of(path, span, None)
        .unwrap()
        .write(&mut capture)
        .unwrap();
    (capture, dumped)
}

const NAMES: [&str; 7] = [
    "7.3-fexit/fallbacks.mpt",
    "7.3-fexit/verdicts.mpt",
    "6.18-no-kprobes-tracepoint/verdicts.mpt",
    "sessions/dead-path.mpt",
    "sessions/no-path.mpt",
    "sessions/other-host.mpt",
    "sessions/packets.mpt",
];

#[test]
fn a_dump_from_any_moment_reports_what_follows_as_the_whole_run_does_and_invents_nothing() {
    for name in NAMES {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("kept");
        let (facts, times) = recorded(&path, name, 6000);
        assert!(segments(&path).unwrap().len() > 1, "{name} has one segment");
        let (_, all, _) = replayed(&file(name));
        for since in times.iter().step_by(times.len() / 12 + 1) {
            let span = Span {
                since: Some(UNIX_EPOCH + facts.boot_epoch + *since),
                until: None,
            };
            let (capture, dumped) = dumped(&path, span);
            assert_eq!(dumped.notes, [""; 0], "{name}");
            let (_, late, losses) = replayed(&capture);
            for finding in all.iter().filter(|it| it.0 > *since) {
                let same: Vec<_> = late.iter().filter(|it| it.0 == finding.0).collect();
                assert!(
                    late.contains(finding),
                    "{name} from {since:?} lacks {finding:?}, but has {same:?}"
                );
            }
            for finding in &late {
                assert!(
                    all.contains(finding),
                    "{name} from {since:?} invents {finding:?}"
                );
            }
            let losses = losses.unwrap();
            assert!(losses.sensors.iter().all(Loss::balances), "{losses:?}");
            let emitted: u64 = losses.sensors.iter().map(|it| it.emitted).sum();
            assert_eq!(emitted, dumped.records, "{name} from {since:?}");
        }
        // The whole has all of it, in the same order.
        let (capture, _) = dumped(&path, Span::default());
        assert_eq!(replayed(&capture).1, all, "{name}");
    }
}

#[test]
fn a_dump_until_some_moment_has_nothing_later() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("kept");
    let (facts, times) = recorded(&path, NAMES[0], 6000);
    let middle = times[times.len() / 2];
    let wall = |at| Some(UNIX_EPOCH + facts.boot_epoch + at);
    let (capture, _) = dumped(
        &path,
        Span {
            since: None,
            until: wall(middle),
        },
    );
    let (mut reader, _) = Reader::open(&capture[..]).unwrap();
    let mut count = 0;
    loop {
        let frame = reader.next_frame().unwrap();
        if frame.is_last() {
            break;
        }
        count += 1;
        assert!(happened_at(&frame, &facts).is_none_or(|at| at <= middle));
    }
    assert!(count > 10, "{count}");
    // A time before and one after the recording.
    for (since, until) in [
        (None, Some(UNIX_EPOCH + facts.boot_epoch)),
        (
            Some(std::time::SystemTime::now() + Duration::from_secs(60)),
            None,
        ),
    ] {
        let Err(why) = Plan::of(&path, Span { since, until }, None) else {
            panic!("there is a dump of {since:?} to {until:?}");
        };
        assert!(
            why.to_string()
                .contains("nothing was recorded in that time"),
            "{why}"
        );
    }
}

/// What the account of a replay says.
fn account(capture: &[u8], detail: Detail) -> String {
    let (mut reader, facts) = Reader::open(capture).unwrap();
    let mut stages = Findings::default().stages(facts);
    let losses = play(&mut stages, &mut reader).unwrap().losses.unwrap();
    stages.finish(&losses).unwrap();
    stages.account(&losses, &stages.outcome().reconciled, detail)
}

#[test]
fn a_dump_and_a_segment_say_what_they_are_and_that_no_counters_are_compared() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("kept");
    let (facts, times) = recorded(&path, NAMES[0], 6000);
    assert_eq!((facts.dump, facts.dumped()), (None, None));
    let wall = |at| UNIX_EPOCH + facts.boot_epoch + at;
    let (from, to) = (times[times.len() / 4], times[times.len() / 2]);
    let span = Span {
        since: Some(wall(from)),
        until: Some(wall(to)),
    };
    let (capture, _) = dumped(&path, span);
    let (facts, ..) = replayed(&capture);
    assert_eq!(facts.dumped(), Some((wall(from), Some(wall(to)))));
    let (whole, dumped) = dumped(&path, Span::default());
    let (facts, ..) = replayed(&whole);
    assert_eq!(facts.dumped(), Some((dumped.from, Some(dumped.to))));
    let newest = fs::read(segments(&path).unwrap().pop().unwrap().path).unwrap();
    let (facts, ..) = replayed(&newest);
    assert_eq!(facts.dump.unwrap().to, None);
    assert!(facts.dump.unwrap().from > times[0]);
    let mut namespaces = 0;
    for part in [capture, whole, newest] {
        let full = account(&part, Detail::Full);
        assert!(full.contains(Facts::UNCOUNTED), "{full}");
        assert!(
            !full.contains("namespace") && !full.contains("kernel counted"),
            "{full}"
        );
        let brief = account(&part, Detail::Brief);
        assert!(
            brief.contains("a dump has no kernel counters to compare"),
            "{brief}"
        );
        assert!(
            !brief.contains("could not be read") && !brief.contains("agrees"),
            "{brief}"
        );
        let (mut reader, facts) = Reader::open(&part[..]).unwrap();
        let mut stages = Findings::default().stages(facts);
        let losses = play(&mut stages, &mut reader).unwrap().losses.unwrap();
        stages.finish(&losses).unwrap();
        let Reconciliations { fallbacks, paths } = &stages.outcome().reconciled;
        namespaces += fallbacks.len();
        for one in fallbacks.iter().chain(paths) {
            assert_eq!(one.why.as_deref(), Some(Facts::UNCOUNTED));
        }
    }
    assert!(namespaces > 0);
}

#[test]
fn each_segment_can_be_replayed_by_itself() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("kept");
    recorded(&path, NAMES[1], 12_000);
    let all = segments(&path).unwrap();
    assert!(all.len() > 2);
    for segment in all {
        let (_, findings, losses) = replayed(&fs::read(&segment.path).unwrap());
        let losses = losses.unwrap();
        assert!(!findings.is_empty(), "{}", segment.path.display());
        assert!(losses.sensors.iter().all(Loss::balances), "{losses:?}");
    }
}

#[test]
fn a_recording_that_is_cut_anywhere_can_be_read_to_there() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("kept");
    recorded(&path, NAMES[0], 20_000);
    let last: PathBuf = segments(&path).unwrap().pop().unwrap().path;
    let whole = fs::read(&last).unwrap();
    let all = dumped(&path, Span::default()).1.records;
    let mut before = 0;
    for length in (0..whole.len()).step_by(whole.len() / 60 + 1) {
        fs::write(&last, &whole[..length]).unwrap();
        let (capture, dumped) = dumped(&path, Span::default());
        assert!(dumped.notes.len() < 2, "{:?}", dumped.notes);
        assert!((before..=all).contains(&dumped.records), "{length}");
        before = dumped.records;
        let (_, findings, losses) = replayed(&capture);
        assert!(!findings.is_empty() && losses.is_some());
    }
    // A damaged one is named, and the rest is still there.
    let mut damaged = whole;
    let middle = damaged.len() / 2;
    damaged[middle..].fill(0xff);
    fs::write(&last, damaged).unwrap();
    let (_, dumped) = dumped(&path, Span::default());
    assert!(dumped.notes[0].contains("is damaged"), "{:?}", dumped.notes);
}

#[test]
fn a_recording_never_has_more_bytes_than_it_may() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("kept");
    let (facts, frames) = frames(NAMES[1]);
    let folder = Folder::lock(&path).unwrap();
    let keep = 1 << 20;
    let mut recording = Recording::begin(folder, keep, facts, Arc::default(), boottime).unwrap();
    let records: Vec<&Frame> = frames.iter().filter(|it| !it.is_last()).collect();
    let mut largest = 0;
    for frame in records.iter().cycle().take(30_000) {
        recording.add(frame);
        if recording.shared.segments.load(Ordering::Relaxed) > 0 {
            let bytes = folder::bytes(&path).unwrap();
            largest = largest.max(bytes);
        }
    }
    recording.complete();
    assert!(largest <= keep * 3 / 4, "{largest}");
    assert!(largest > keep / 2, "{largest}");
    let is_record = |it: &&&Frame| matches!(it, Frame::Record(_));
    let count = records
        .iter()
        .cycle()
        .take(30_000)
        .filter(is_record)
        .count();
    assert_eq!(recording.shared.sums().recorded, count as u64);
    // Less room takes effect with the next segment.
    recording.room = Room::of(keep / 2);
    recording.rotate();
    assert!(folder::bytes(&path).unwrap() <= keep / 2);
    // What was removed is not missed by a dump.
    let (_, dumped) = dumped(
        &path,
        Span {
            since: Some(UNIX_EPOCH),
            until: None,
        },
    );
    assert!(
        dumped.notes[0].contains("begins later"),
        "{:?}",
        dumped.notes
    );
}

#[test]
fn a_folder_that_is_removed_costs_what_happens_until_it_can_be_made_again() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("kept");
    let (facts, mut frames) = frames(NAMES[0]);
    frames.retain(|it| matches!(it, Frame::Record(_)));
    let mut recording = begun(&path, &facts, 1 << 20);
    let third = frames.len() / 3;
    recording.frames(&frames[..third]);
    recording.flush();
    fs::remove_dir_all(&path).unwrap();
    fs::write(&path, "in the way").unwrap();
    recording.tick();
    assert!(!recording.shared.sums().writes);
    assert!(recording.shared.failure().unwrap().contains("removed"));
    recording.frames(&frames[third..2 * third]);
    let missing = recording.shared.sums().unwritten;
    assert_eq!(missing, third as u64);
    let again = |recording: &mut Recording| {
        let To::Nowhere { retry_at, .. } = &mut recording.to else {
            panic!("it writes");
        };
        *retry_at = Instant::now();
        recording.tick();
    };
    again(&mut recording);
    assert!(!recording.shared.sums().writes);
    fs::remove_file(&path).unwrap();
    again(&mut recording);
    assert!(
        recording.shared.sums().writes,
        "{:?}",
        recording.shared.failure()
    );
    recording.frames(&frames[2 * third..]);
    recording.complete();
    let recorded = recording.shared.sums().recorded as usize;
    assert!(recorded >= frames.len() - 2 * third, "{recorded}");
    // It says that it knows less: verdicts are in doubt.
    let (capture, _) = dumped(&path, Span::default());
    let (mut reader, _) = Reader::open(&capture[..]).unwrap();
    let is_doubt = |it: &Frame| matches!(it, Frame::Missed(_, count) if *count == missing);
    let mut doubts = 0;
    loop {
        let frame = reader.next_frame().unwrap();
        doubts += u64::from(is_doubt(&frame));
        if frame.is_last() {
            break;
        }
    }
    assert_eq!(doubts, 1);
}

#[test]
fn what_is_missing_counts_as_lost_in_a_dump() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("kept");
    let (facts, frames) = frames(NAMES[0]);
    let mut recording = begun(&path, &facts, 1 << 20);
    recording
        .shared
        .queue_full
        .of(SensorId::Query)
        .store(4, Ordering::Relaxed);
    recording.lost(LossReport {
        sensors: vec![Loss {
            seen: 10,
            emitted: 10,
            ..Loss::none(SensorId::Query)
        }],
        ..LossReport::default()
    });
    recording.frames(&frames[..9]);
    NOW.set(now() + Duration::from_secs(1));
    recording.complete();
    let (capture, dumped) = dumped(&path, Span::default());
    assert!(
        dumped
            .notes
            .iter()
            .any(|it| it.contains("4 records of that time are missing"))
    );
    let (_, _, losses) = replayed(&capture);
    let losses = losses.unwrap();
    let query = losses.of(SensorId::Query).unwrap();
    assert_eq!((query.ring_full, query.lost()), (4, 4));
    assert!(query.balances());
}

#[test]
fn a_new_run_is_not_mixed_with_an_earlier_one() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("kept");
    let (facts, _) = recorded(&path, NAMES[0], 20_000);
    let first = dumped(&path, Span::default()).1;
    NOW.set(now() + Duration::from_secs(60));
    let restarted = UNIX_EPOCH + facts.boot_epoch + now();
    let mut recording = begun(&path, &facts, 20_000);
    recording.complete();
    drop(recording);
    let (_, second) = dumped(&path, Span::default());
    assert_eq!(second.records, 0);
    assert!(
        second.notes[0].contains("tracing was started again at"),
        "{:?}",
        second.notes
    );
    let until = Some(restarted - Duration::from_secs(1));
    let (_, again) = dumped(&path, Span { since: None, until });
    assert_eq!(again.records, first.records);
}

#[test]
fn a_burst_that_was_written_after_it_happened_is_in_a_dump_as_a_whole() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("kept");
    let (facts, mut frames) = frames(NAMES[0]);
    frames.retain(|it| matches!(it, Frame::Record(_)));
    let times: Vec<_> = frames
        .iter()
        .filter_map(|it| happened_at(it, &facts))
        .collect();
    let (first, last) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
    // Each segment was begun after all of it had happened.
    NOW.set(last + Duration::from_secs(2));
    let mut recording = begun(&path, &facts, 6000);
    recording.frames(&frames);
    recording.complete();
    let all = segments(&path).unwrap();
    assert!(all.len() > 3);
    let wall = |at| UNIX_EPOCH + facts.boot_epoch + at;
    let count = frames.len() as u64;
    let half = times.iter().filter(|it| **it >= times[count as usize / 2]);
    for (since, until, wanted) in [
        (None, None, count),
        (Some(wall(first)), None, count),
        (Some(UNIX_EPOCH), None, count),
        (None, Some(wall(last)), count),
        (
            Some(wall(times[count as usize / 2])),
            None,
            half.count() as u64,
        ),
    ] {
        let (_, dumped) = dumped(&path, Span { since, until });
        let recorded = dumped.records - dumped.earlier;
        assert_eq!(recorded, wanted, "{since:?} to {until:?}");
    }
    assert_eq!(dumped(&path, Span::default()).1.from, wall(times[0]));
    // A dump of less bytes has all that its segments have.
    let most = all.iter().map(|it| it.bytes).sum::<u64>() / 2;
    let plan = Plan::of(&path, Span::default(), Some(most)).unwrap();
    assert!(plan.bytes() <= most);
    let mut capture = Vec::new();
    let dumped = plan.write(&mut capture).unwrap();
    assert!(dumped.records > dumped.earlier, "{dumped:?}");
    assert!(dumped.notes[0].contains("at most a quarter"), "{dumped:?}");
    assert!(capture.len() as u64 <= most);
}

#[test]
fn what_a_segment_lacks_is_said_and_counts_as_lost() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("kept");
    recorded(&path, NAMES[0], 6000);
    let whole = dumped(&path, Span::default());
    let lost = |capture: &[u8]| {
        let losses = replayed(capture).2.unwrap();
        assert!(losses.sensors.iter().all(Loss::balances), "{losses:?}");
        losses.sensors.iter().map(Loss::lost).sum::<u64>()
    };
    assert_eq!((lost(&whole.0), whole.1.notes.len()), (0, 0));
    let all = segments(&path).unwrap();
    let damage = |at: usize, length: usize, says: &str, is_lost: bool| {
        let file = &all[at].path;
        let content = fs::read(file).unwrap();
        fs::write(file, &content[..length.min(content.len() - 1)]).unwrap();
        let (capture, dumped) = dumped(&path, Span::default());
        assert!(dumped.notes[0].contains(says), "{:?}", dumped.notes);
        assert_eq!(dumped.notes.len(), 1, "{:?}", dumped.notes);
        assert_eq!(lost(&capture) > 0, is_lost, "{at} {length}");
        fs::write(file, content).unwrap();
    };
    let (middle, last) = (all.len() / 2, all.len() - 1);
    let half = usize::try_from(all[middle].bytes * 3 / 4).unwrap();
    damage(middle, half, "is cut off: the rest of it is missing", true);
    damage(middle, 0, "is cut off: all of it is missing", true);
    damage(last, 100, "is cut off: all of it is missing", true);
    damage(last, 0, "is cut off: all of it is missing", true);
    // That is what a recorder leaves that was killed.
    damage(last, usize::MAX, "at most a second", false);
    damage(
        last,
        usize::MAX,
        "and more if it could not write before",
        false,
    );
    let file = &all[middle].path;
    let mut content = fs::read(file).unwrap();
    content[half..].fill(0xff);
    fs::write(file, content).unwrap();
    let (capture, dumped) = dumped(&path, Span::default());
    assert!(dumped.notes[0].contains("is damaged"), "{:?}", dumped.notes);
    // Not a replay: the record in which the damage begins cannot be decoded.
    let (mut reader, _) = Reader::open(&capture[..]).unwrap();
    let losses = loop {
        if let Frame::End(losses) = reader.next_frame().unwrap() {
            break losses;
        }
    };
    assert!(losses.sensors.iter().any(|it| it.lost() > 0), "{losses:?}");
}
