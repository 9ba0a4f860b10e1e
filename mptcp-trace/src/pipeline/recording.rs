//! A capture that begins and ends while tracing goes on.
//!
//! It begins with facts of that moment, so that the kernel's counters are compared from there on,
//! and with the earlier records of open connections, so that a replay knows what happened to them
//! and what their applications were told.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Session, Stages, Stop, note_missed, places::frame};
use crate::{
    capture::{self, Frame},
    history::{History, HistoryLimits},
    host::netstat::boottime,
    model::{Facts, LossReport, PerSensor, SensorId},
};

/// Progress of a recording, shared with the screen.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    records: AtomicU64,
    failed: OnceLock<String>,
}

impl Progress {
    /// Bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Records written so far.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Why it has ended early, if it has.
    #[must_use]
    pub fn failed(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }
}

/// Counts what is written.
struct Tally {
    out: BufWriter<File>,
    progress: Arc<Progress>,
}

impl Write for Tally {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.progress
            .bytes
            .fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The recording of [`Stages`].
pub(super) struct Recording {
    to: To,
    /// Number of records from before it began.
    lead: PerSensor<u64>,
    progress: Arc<Progress>,
}

enum To {
    /// Its facts are being collected.
    Memory(Vec<Frame>),
    File(capture::Writer<Tally>),
    /// It has failed.
    Nowhere,
}

impl Recording {
    /// Adds a frame. After a failure, nothing is written any more; tracing goes on.
    pub(super) fn add(&mut self, frame: Frame) {
        let is_record = matches!(frame, Frame::Record(_));
        let written = match &mut self.to {
            To::Memory(frames) => {
                frames.push(frame);
                return;
            }
            To::File(writer) => writer.add(&frame),
            To::Nowhere => return,
        };
        if self.check(written) {
            let more = u64::from(is_record);
            self.progress.records.fetch_add(more, Ordering::Relaxed);
        }
    }

    pub(super) fn flush(&mut self) {
        if let To::File(writer) = &mut self.to {
            let flushed = writer.flush();
            self.check(flushed);
        }
    }

    /// True if it was written.
    fn check(&mut self, written: io::Result<()>) -> bool {
        match written {
            Ok(()) => true,
            Err(why) => {
                // Only the first failure counts.
                let _known = self.progress.failed.set(why.to_string());
                self.to = To::Nowhere;
                false
            }
        }
    }
}

impl<W: Write> Stages<W> {
    /// Keeps what a capture that begins later will need.
    pub fn keep_history(&mut self, limits: HistoryLimits) {
        self.history = Some(History::new(limits));
    }

    /// True while a capture is being written.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// Begins a recording in memory, with what is known so far.
    fn hold(&mut self, progress: Arc<Progress>) {
        let mut frames: Vec<Frame> = self.cgroups.all().map(frame).collect();
        let lead = self.history.as_ref().map(History::lead).unwrap_or_default();
        frames.extend(lead.records.into_iter().map(Frame::Record));
        self.recording = Some(Recording {
            to: To::Memory(frames),
            lead: lead.of_sensor,
            progress,
        });
    }

    /// Writes the recording to a file from now on. `untraced` queries were not traced before:
    /// whether they concern open connections is unknown.
    fn write(&mut self, file: File, facts: &Facts, untraced: u64) -> io::Result<()> {
        let doubted = match untraced {
            0 => self.correlator.doubted_until(),
            _ => Some(boottime()),
        };
        let Some(recording) = &mut self.recording else {
            return Ok(());
        };
        let progress = recording.progress.clone();
        let tally = Tally {
            out: BufWriter::new(file),
            progress,
        };
        let mut writer = capture::Writer::new(tally, facts)?;
        if let Some(by) = doubted {
            writer.missed(by, untraced)?;
        }
        let frames = match std::mem::replace(&mut recording.to, To::File(writer)) {
            To::Memory(frames) => frames,
            To::File(_) | To::Nowhere => Vec::new(),
        };
        for frame in frames {
            recording.add(frame);
        }
        recording.flush();
        match recording.progress.failed() {
            None => Ok(()),
            Some(why) => Err(io::Error::other(why.to_owned())),
        }
    }

    /// Ends the recording with the losses since it began; returns its number of records.
    ///
    /// # Errors
    ///
    /// Fails if it could not be written, now or before.
    pub fn end_recording(&mut self, losses: &LossReport) -> anyhow::Result<Option<u64>> {
        let Some(mut recording) = self.recording.take() else {
            return Ok(None);
        };
        let mut losses = losses.clone();
        for loss in &mut losses.sensors {
            let lead = *recording.lead.of(loss.sensor);
            loss.seen = loss.seen.saturating_add(lead);
            loss.emitted = loss.emitted.saturating_add(lead);
        }
        recording.add(Frame::End(losses));
        recording.flush();
        match recording.progress.failed() {
            None => Ok(Some(recording.progress.records())),
            Some(why) => anyhow::bail!("it is cut off: {why}"),
        }
    }
}

/// Begins to record; returns the number of connections whose history was dropped before.
pub(super) fn begin<W: Write>(
    file: File,
    progress: Arc<Progress>,
    session: &mut Session,
    stages: &mut Stages<W>,
) -> Result<anyhow::Result<u64>, Stop> {
    if stages.is_recording() {
        return Ok(Err(anyhow::anyhow!("a capture is being written already")));
    }
    // What is in the ring happened before. In a flood, much is added while it is taken, which the
    // recording gets: the counters must not include that yet.
    let losses = session.losses().map_err(Stop::Failed)?;
    note_missed(&session.tracer, stages)?;
    session.records.drain(|bytes| stages.take(bytes))?;
    stages.hold(progress);
    let (facts, records) = session.begin_recording(losses).map_err(Stop::Failed)?;
    for bytes in records {
        stages.take(&bytes)?;
    }
    let untraced = session.losses().map_err(Stop::Failed)?;
    let untraced = untraced.untraced(SensorId::Query);
    if let Err(why) = stages.write(file, &facts, untraced) {
        stages.recording = None;
        session.drop_recording();
        return Ok(Err(why.into()));
    }
    let omitted = stages.history.as_ref().map_or(0, History::omitted);
    Ok(Ok(omitted))
}

/// Ends the recording; returns its number of records.
pub(super) fn end<W: Write>(
    session: &mut Session,
    stages: &mut Stages<W>,
) -> Result<anyhow::Result<Option<u64>>, Stop> {
    let before = session.counters_now().map_err(Stop::Failed)?;
    // Read before: what a flood adds meanwhile is not in the recording.
    let losses = session.losses().map_err(Stop::Failed)?;
    note_missed(&session.tracer, stages)?;
    session.records.drain(|bytes| stages.take(bytes))?;
    Ok(match session.end_recording(&before, losses) {
        Some(losses) => stages.end_recording(&losses),
        None => Ok(None),
    })
}

#[cfg(test)]
#[path = "recording_tests.rs"]
mod tests;
