//! The thread that writes the recording, and the bounded queue before it.
//!
//! The event loop never waits for it: what does not fit into the queue, or cannot be written, is
//! counted here and missing from the recording.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use rustix::{
    process::setpriority_process,
    thread::gettid,
    time::{ClockId, clock_gettime},
};

use super::{
    Room,
    folder::{self, Folder},
    places::{Known, RECORD_BYTES},
    segment::{Failed, Segment},
};
use crate::{
    capture::{Checkpoint, Frame},
    decode::sensor_of,
    history::HistoryLimits,
    model::{Dump, Facts, Loss, LossReport, PerSensor, SensorId},
};

/// Most bytes of records between the event loop and the disk.
pub(super) const QUEUE_BYTES_MAX: u64 = 8 << 20;
/// Niceness of the thread.
const NICE: i32 = 5;
/// Interval of writes.
const FLUSH_EVERY: Duration = Duration::from_millis(500);
/// Interval of checkpoints while nothing happens.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// A segment gets no older.
const SEGMENT_AGE_MAX: Duration = Duration::from_secs(3600);
/// Pause after a failure.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// Minimum interval between two messages about failures.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// What the thread does next.
#[derive(Debug)]
pub(super) enum Message {
    /// Write these frames, which have this size.
    Frames(Vec<Frame>, u64),
    /// These are the losses so far.
    Losses(LossReport),
    /// Write everything, then answer.
    Flush(SyncSender<()>),
    /// Use that many bytes of disk from now on.
    Keep(u64),
    /// These are the losses of the whole run: end the recording, then answer.
    End(LossReport, SyncSender<()>),
}

/// What both sides count.
#[derive(Debug, Default)]
pub struct Shared {
    pub(super) queued: AtomicU64,
    recorded: AtomicU64,
    /// Missing because the queue was full, by sensor.
    pub(super) queue_full: PerSensor<AtomicU64>,
    /// Missing because they could not be written, by sensor.
    unwritten: PerSensor<AtomicU64>,
    bytes: AtomicU64,
    segments: AtomicU64,
    failing: AtomicBool,
    why: Mutex<Option<String>>,
    pub(super) dumps: AtomicU64,
    pub(super) failed_dumps: AtomicU64,
}

/// Numbers of a recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sums {
    /// 1 while records are being written, 0 if there is no recording or it has failed.
    pub writes: bool,
    /// Records that are on disk.
    pub recorded: u64,
    /// Records missing because the disk was slower than the events.
    pub queue_full: u64,
    /// Records missing because they could not be written.
    pub unwritten: u64,
    /// Bytes of all segments and dumps.
    pub bytes: u64,
    /// Segments that were begun.
    pub segments: u64,
    /// Dumps in the folder that were made, and those that failed.
    pub dumps: (u64, u64),
}

impl Shared {
    /// The numbers now.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let of = |it: &AtomicU64| it.load(Ordering::Relaxed);
        Sums {
            writes: !self.failing.load(Ordering::Relaxed),
            recorded: of(&self.recorded),
            queue_full: sum(&self.queue_full),
            unwritten: sum(&self.unwritten),
            bytes: of(&self.bytes),
            segments: of(&self.segments),
            dumps: (of(&self.dumps), of(&self.failed_dumps)),
        }
    }

    /// Why nothing is being written now.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone()
    }

    fn set_failure(&self, why: Option<String>) {
        self.failing.store(why.is_some(), Ordering::Relaxed);
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn missing(&self, sensor: SensorId) -> u64 {
        let of = |it: &PerSensor<AtomicU64>| it.of(sensor).load(Ordering::Relaxed);
        of(&self.queue_full) + of(&self.unwritten)
    }

    fn all_missing(&self) -> u64 {
        SensorId::ALL.into_iter().map(|it| self.missing(it)).sum()
    }
}

fn sum(counts: &PerSensor<AtomicU64>) -> u64 {
    let of = |it| counts.of(it).load(Ordering::Relaxed);
    SensorId::ALL.into_iter().map(of).sum()
}

/// The time on `CLOCK_BOOTTIME`.
pub(super) fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// The state of the thread.
pub(super) struct Recording {
    folder: Folder,
    room: Room,
    facts: Facts,
    shared: Arc<Shared>,
    /// The time on `CLOCK_BOOTTIME`.
    clock: fn() -> Duration,
    to: To,
    /// Numbers of the first segment and of the next one.
    run: u64,
    next: u64,
    /// What a segment begins with.
    known: Known,
    losses: LossReport,
    /// What the last checkpoint said, and when.
    checkpoint: (Checkpoint, Instant),
    /// Records that were missing when that was last written.
    missing: u64,
    complained_at: Option<Instant>,
    /// The last reason that stderr got.
    said: Option<String>,
}

enum To {
    /// With the time when it began.
    Segment(Segment, Instant),
    /// Since when, and when to try again.
    Nowhere { since: Instant, retry_at: Instant },
}

impl Recording {
    /// Begins the first segment.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be written.
    pub(super) fn begin(
        folder: Folder,
        keep: u64,
        facts: Facts,
        shared: Arc<Shared>,
        clock: fn() -> Duration,
    ) -> anyhow::Result<Self> {
        let room = Room::of(keep);
        let run = folder.next_number()?;
        let mut recording = Self {
            known: Known::new(limits(room)),
            folder,
            room,
            // The kernel's counters are not compared with a part of the run.
            facts: Facts {
                counters_read_at: BTreeMap::new(),
                counters_listed_at: None,
                counters_at_start: BTreeMap::new(),
                ..facts
            },
            shared,
            clock,
            to: To::Nowhere {
                since: Instant::now(),
                retry_at: Instant::now(),
            },
            run,
            next: run,
            losses: LossReport::default(),
            checkpoint: (Checkpoint::default(), Instant::now()),
            missing: 0,
            complained_at: None,
            said: None,
        };
        recording.open(false).map_err(|it| it.why)?;
        Ok(recording)
    }

    /// Writes until the recorder is dropped.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        // The event loop goes first where both want the processor.
        let _refused = setpriority_process(Some(gettid()), NICE);
        let mut flush_at = Instant::now() + FLUSH_EVERY;
        loop {
            let wait = flush_at.saturating_duration_since(Instant::now());
            match messages.recv_timeout(wait) {
                Ok(Message::Frames(frames, bytes)) => {
                    self.frames(&frames);
                    self.shared.queued.fetch_sub(bytes, Ordering::Relaxed);
                }
                Ok(Message::Losses(losses)) => self.lost(losses),
                Ok(Message::Keep(bytes)) => self.room = Room::of(bytes),
                Ok(Message::Flush(done)) => {
                    self.flush();
                    let _gone = done.send(());
                }
                Ok(Message::End(losses, done)) => {
                    self.lost(losses);
                    self.complete();
                    let _gone = done.send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.complete(),
            }
            if Instant::now() >= flush_at {
                self.tick();
                flush_at = Instant::now() + FLUSH_EVERY;
            }
        }
    }

    fn frames(&mut self, frames: &[Frame]) {
        // Records before these are missing: what they would have said is unknown.
        let missing = self.shared.all_missing();
        if missing > self.missing {
            self.missing = missing;
            self.add(&Frame::Missed((self.clock)(), missing));
        }
        for frame in frames {
            self.add(frame);
        }
    }

    fn add(&mut self, frame: &Frame) {
        self.known.note(frame, &self.facts);
        self.write(frame);
    }

    fn write(&mut self, frame: &Frame) {
        let To::Segment(segment, _) = &mut self.to else {
            if let Frame::Record(bytes) = frame {
                self.unwritten(sensor_of(bytes), 1);
            }
            return;
        };
        let full = segment.bytes() >= self.room.segment;
        let written = segment.add(frame);
        self.wrote(written);
        if full {
            self.rotate();
        }
    }

    fn unwritten(&self, sensor: Option<SensorId>, records: u64) {
        let of = self
            .shared
            .unwritten
            .of(sensor.unwrap_or(SensorId::Fallback));
        of.fetch_add(records, Ordering::Relaxed);
    }

    fn wrote(&mut self, written: Result<u64, Failed>) {
        match written {
            Ok(records) => {
                self.shared.recorded.fetch_add(records, Ordering::Relaxed);
            }
            Err(failed) => self.failed(failed),
        }
    }

    /// Nothing is written until it is tried again.
    fn failed(&mut self, Failed { why, records }: Failed) {
        // Which sensors the buffered records came from is not known any more.
        self.unwritten(None, records);
        let now = Instant::now();
        let since = match self.to {
            To::Segment(..) => now,
            To::Nowhere { since, .. } => since,
        };
        self.to = To::Nowhere {
            since,
            retry_at: now + RETRY_EVERY,
        };
        let folder = self.folder.path().display();
        let is_news = self.shared.failure().is_none();
        let is_other = self.said.as_ref() != Some(&why.to_string());
        self.shared.set_failure(Some(why.to_string()));
        let is_due = |at: Instant| at.elapsed() >= COMPLAIN_EVERY;
        if is_other || is_news && self.complained_at.is_none_or(is_due) {
            self.said = Some(why.to_string());
            self.complained_at = Some(now);
            log::error!(
                "cannot record in {folder}: {why}; tracing goes on, and so does the recording once \
                 it can be written"
            );
        }
    }

    /// Periodic work.
    fn tick(&mut self) {
        let To::Segment(segment, began) = &self.to else {
            return self.retry();
        };
        if !segment.exists() {
            let why = std::io::Error::other("its file was removed");
            return self.failed(Failed { why, records: 0 });
        }
        if began.elapsed() >= SEGMENT_AGE_MAX {
            self.rotate();
        }
        let checkpoint = self.state(false);
        let (last, at) = &self.checkpoint;
        let is_news = checkpoint.losses != last.losses || checkpoint.unrecorded != last.unrecorded;
        if is_news || at.elapsed() >= CHECKPOINT_EVERY {
            self.write_checkpoint(checkpoint);
        }
        self.flush();
        if let Ok(bytes) = folder::bytes(self.folder.path()) {
            self.shared.bytes.store(bytes, Ordering::Relaxed);
        }
    }

    fn write_checkpoint(&mut self, checkpoint: Checkpoint) {
        if let To::Segment(segment, _) = &mut self.to {
            let written = segment.checkpoint(&checkpoint);
            self.checkpoint = (checkpoint, Instant::now());
            self.wrote(written);
        }
    }

    fn retry(&mut self) {
        let To::Nowhere { since, retry_at } = self.to else {
            return;
        };
        if Instant::now() < retry_at {
            return;
        }
        match self.open(true) {
            Ok(()) => {
                self.shared.set_failure(None);
                log::warn!(
                    "recording in {} again after {} s; {} records are missing",
                    self.folder.path().display(),
                    since.elapsed().as_secs(),
                    self.shared.all_missing()
                );
            }
            Err(failed) => self.failed(failed),
        }
    }

    fn flush(&mut self) {
        if let To::Segment(segment, _) = &mut self.to {
            let flushed = segment.flush();
            self.wrote(flushed);
        }
    }

    fn lost(&mut self, losses: LossReport) {
        self.losses = LossReport {
            // They are those of the whole run.
            counted: Vec::new(),
            ..losses
        };
    }

    /// The state now.
    fn state(&self, after_gap: bool) -> Checkpoint {
        let mut losses = self.losses.clone();
        for loss in &mut losses.sensors {
            let missing = self.shared.missing(loss.sensor);
            loss.emitted = loss.emitted.saturating_sub(missing);
            loss.ring_full = loss.ring_full.saturating_add(missing);
        }
        Checkpoint {
            at: (self.clock)(),
            losses,
            unrecorded: self.shared.all_missing(),
            omitted: self.known.history.omitted(),
            after_gap,
        }
    }

    /// Ends the segment.
    fn complete(&mut self) {
        let end = self.state(false);
        self.write_checkpoint(end.clone());
        if let To::Segment(segment, _) = &self.to {
            let losses = since(&end.losses, &segment.base);
            self.write_end(losses);
        }
        self.flush();
    }

    fn write_end(&mut self, losses: LossReport) {
        if let To::Segment(segment, _) = &mut self.to {
            let written = segment.add(&Frame::End(losses));
            self.wrote(written);
        }
    }

    /// Goes on with the next segment.
    fn rotate(&mut self) {
        self.complete();
        if matches!(self.to, To::Segment(..)) {
            let opened = self.open(false);
            if let Err(failed) = opened {
                self.failed(failed);
            }
        }
    }

    /// Begins the next segment with what a reader needs who does not have the earlier ones.
    fn open(&mut self, after_gap: bool) -> Result<(), Failed> {
        let failed = |why| Failed { why, records: 0 };
        let Room {
            segments, segment, ..
        } = self.room;
        // Nobody else may have put another one in its place.
        let restored = self.folder.restore();
        restored.map_err(|why| failed(std::io::Error::other(format!("{why:#}"))))?;
        self.folder
            .make_room(segments.saturating_sub(segment))
            .map_err(failed)?;
        let created = self.folder.create_segment(self.next, self.run);
        let checkpoint = self.state(after_gap);
        let base = checkpoint.losses.clone();
        self.facts.dump = Some(Dump {
            from: checkpoint.at,
            to: None,
        });
        let mut new = Segment::new(created.map_err(failed)?, &self.facts, base).map_err(failed)?;
        self.next += 1;
        let mut lead = Vec::new();
        lead.extend(
            self.known
                .missed
                .map(|(by, count)| Frame::Missed(by, count)),
        );
        lead.extend(self.known.places.frames(segment / 4));
        let history = self.known.history.lead();
        lead.extend(history.records.into_iter().map(Frame::Record));
        let mut begin = || {
            new.checkpoint(&checkpoint)?;
            for frame in &lead {
                new.add(frame)?;
            }
            // The second one ends the lead.
            new.checkpoint(&checkpoint)?;
            new.flush()
        };
        if let Err(failed) = begin() {
            new.remove();
            // They are not lost: an earlier segment has them.
            return Err(Failed {
                records: 0,
                ..failed
            });
        }
        let of_sensor = history.of_sensor;
        for loss in &mut new.base.sensors {
            loss.emitted = loss.emitted.saturating_sub(*of_sensor.of(loss.sensor));
        }
        self.shared.segments.fetch_add(1, Ordering::Relaxed);
        self.checkpoint = (checkpoint, Instant::now());
        self.to = To::Segment(new, Instant::now());
        Ok(())
    }
}

/// The losses between two moments; those of the first one count from the begin of the trace.
pub(super) fn since(now: &LossReport, then: &LossReport) -> LossReport {
    let mut losses = now.clone();
    for loss in &mut losses.sensors {
        if let Some(then) = then.of(loss.sensor) {
            *loss = loss.since(then);
        } else {
            *loss = loss.since(&Loss::none(loss.sensor));
        }
    }
    losses
}

/// Limits of what is known of open connections, but for the number of records.
pub(super) const STATED: HistoryLimits = HistoryLimits {
    connections: 65_536,
    ..HistoryLimits::STATED
};

/// A lead takes at most half of a segment.
fn limits(room: Room) -> HistoryLimits {
    let records = room.segment / 2 / RECORD_BYTES;
    HistoryLimits {
        total: usize::try_from(records).unwrap_or(usize::MAX),
        ..STATED
    }
}

#[cfg(test)]
#[path = "thread_tests.rs"]
mod tests;
