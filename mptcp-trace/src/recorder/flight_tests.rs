use std::sync::mpsc::Receiver;

use super::*;
use crate::{model::SensorId, recorder::thread::Shared};

/// A recorder whose disk takes nothing until its messages are received.
fn stuck() -> (Flight, Receiver<Message>) {
    let (to, messages) = channel();
    let flight = Flight {
        handle: Handle {
            to,
            shared: Arc::<Shared>::default(),
            folder: "/nowhere".into(),
            keep: Arc::new(AtomicU64::new(1 << 20)),
            dumping: Arc::default(),
            rules: Arc::default(),
        },
        batch: Vec::new(),
        batch_bytes: 0,
    };
    (flight, messages)
}

/// The bound that `mptcp-lab recorded` grants to a short run rests on it.
#[test]
fn what_the_queue_holds_takes_at_most_half_more_than_it_counts() {
    /// No record is smaller; an allocation has a header, and is rounded.
    const RECORD: u64 = 128;
    const ALLOCATION: u64 = 16;
    // A vector doubles when it is full.
    let frame = 2 * size_of::<Frame>() as u64;
    let takes = frame + RECORD + ALLOCATION;
    assert!(2 * takes <= 3 * (FRAME_BYTES + RECORD), "{frame}");
}

#[test]
fn a_disk_that_is_too_slow_costs_records_of_the_recording_and_they_are_counted() {
    let (mut flight, messages) = stuck();
    let record = vec![0; 176];
    let sent = 200_000;
    for number in 0..sent {
        flight.add(Frame::Record(record.clone()));
        if number % 100 == 0 {
            flight.add(Frame::Place(number, "/a.service".to_owned()));
        }
    }
    flight.hand_over();
    let missing = flight.handle.sums().queue_full;
    assert!(missing > sent / 2, "{missing}");
    let taken = |messages: &Receiver<Message>| {
        let (mut records, mut places, mut bytes) = (0, 0, 0);
        for message in messages.try_iter() {
            if let Message::Frames(frames, its_bytes) = message {
                let is_record = |it: &&Frame| matches!(it, Frame::Record(_));
                records += frames.iter().filter(is_record).count() as u64;
                places += frames
                    .iter()
                    .filter(|it| matches!(it, Frame::Place(..)))
                    .count();
                bytes += its_bytes;
            }
        }
        (records, places, bytes)
    };
    let (records, places, bytes) = taken(&messages);
    assert_eq!(records + missing, sent);
    assert!(bytes <= QUEUE_BYTES_MAX, "{bytes}");
    // The paths of control groups are not lost: they go with the next batch that fits.
    flight.handle.shared.queued.store(0, Ordering::Relaxed);
    flight.add(Frame::Record(record));
    flight.hand_over();
    let (records, later, _) = taken(&messages);
    assert_eq!((records, places + later), (1, 2000));
}

#[test]
fn only_one_dump_is_made_at_a_time() {
    let (flight, _messages) = stuck();
    let turn = flight.handle().turn();
    assert!(turn.is_some());
    assert!(flight.handle().turn().is_none());
    drop(turn);
    assert!(flight.handle().turn().is_some());
}

#[test]
fn the_account_says_what_is_missing() {
    let (flight, _messages) = stuck();
    let (text, is_whole) = flight.handle.account(false);
    assert!(is_whole && !text.contains("missing"), "{text}");
    let queue_full = flight.handle.shared.queue_full.of(SensorId::Query);
    queue_full.store(3, Ordering::Relaxed);
    let (text, is_whole) = flight.handle.account(true);
    assert!(!is_whole, "{text}");
    assert!(
        text.contains("3 more are missing (3 the disk was too slow for"),
        "{text}"
    );
    assert!(text.contains("did not take its end"), "{text}");
}
