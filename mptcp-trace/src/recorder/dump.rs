//! Dumps: the segments of a recording, or a part of them, as one capture.
//!
//! A dump begins with the earlier records of the connections that are open then, so that a replay
//! knows their owners, what happened to them, and what their applications were told.

use std::{
    collections::BTreeSet,
    io::{self, BufWriter, Write},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::bail;
use jiff::Timestamp;

use super::{
    folder,
    opened::{Opened, Run, begin_of, no_recording, opened, runs},
    places::{Known, at},
    thread::{STATED, since},
};
use crate::{
    capture::{Checkpoint, Frame, Step, Writer},
    decode::{decode, sensor_of},
    history::HistoryLimits,
    model::{Dump, Facts, Loss, LossReport, PerSensor, SensorId},
};

/// Records may be out of order by less than this.
const ORDER_SLACK: Duration = Duration::from_secs(1);

/// A dump is written in parts of that many bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// No record is smaller.
const RECORD_BYTES_MIN: usize = 128;
/// A reader knows at least so many records of connections that are open.
const RECORDS_KNOWN_MIN: usize = 65_536;

/// The time that a dump covers; `None` is unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    /// Its begin.
    pub since: Option<SystemTime>,
    /// Its end.
    pub until: Option<SystemTime>,
}

/// What is in a dump.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dumped {
    /// Records in it.
    pub records: u64,
    /// Of these, earlier ones of connections that were open when it begins.
    pub earlier: u64,
    /// The time that it covers.
    pub from: SystemTime,
    /// The end of that time.
    pub to: SystemTime,
    /// What the reader must know: what is missing, and why.
    pub notes: Vec<String>,
}

/// A dump that can be written.
pub struct Plan {
    segments: Vec<Opened>,
    /// What it takes on disk at most.
    bytes: u64,
    /// Nothing older is in it; `None` is unlimited.
    since: Option<SystemTime>,
    from: SystemTime,
    to: SystemTime,
    /// It ends before the recording does.
    ends_early: bool,
    /// Somebody records now.
    is_recorded: bool,
    /// Nothing of the newest segment can be read.
    lacks_newest: bool,
    notes: Vec<String>,
}

impl Plan {
    /// Chooses the segments for a dump; with `bytes_max`, only the newest that have so many bytes.
    ///
    /// # Errors
    ///
    /// Reports that there is no recording, that it cannot be read, or that it has nothing of that
    /// time.
    pub fn of(folder: &Path, span: Span, bytes_max: Option<u64>) -> anyhow::Result<Self> {
        let mut notes = Vec::new();
        let is_recorded = folder::is_recorded(folder).unwrap_or(true);
        let (all, broken) = opened(folder, is_recorded, &mut notes)?;
        let now = SystemTime::now();
        let runs = runs(&all, is_recorded.then_some(now));
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
            bail!(no_recording(folder));
        };
        let overlaps = |it: &&Run| {
            span.until.is_none_or(|until| it.begins <= until)
                && span.since.is_none_or(|since| it.ends >= since)
        };
        let Some(run) = runs.iter().rfind(overlaps) else {
            bail!(
                "nothing was recorded in that time: the recording in {} has {} to {}",
                folder.display(),
                utc(first.begins),
                utc(last.ends)
            );
        };
        let mut earlier = runs.iter().filter(|it| it.begins < run.begins);
        let is_restart = earlier.any(|it| overlaps(&it));
        if is_restart {
            let begins = utc(run.begins);
            notes.push(format!(
                "tracing was started again at {begins}: what was recorded before is not in this \
                 dump, see --until {begins}"
            ));
        }
        let begins_later = span.since.is_some_and(|since| since < run.begins);
        let mut chosen: Vec<Opened> = all
            .into_iter()
            // Also later ones: what they begin with may have happened long before it was written.
            .filter(|it| it.segment.run == run.number)
            .collect();
        while let (Some(since), Some(second)) = (span.since, chosen.get(1))
            && second.begins <= since
        {
            chosen.remove(0);
        }
        // The newest one may grow while it is read: it counts as full.
        let full = chosen.iter().map(|it| it.segment.bytes).max().unwrap_or(0);
        let bytes = |of: &[Opened]| {
            let before = of.split_last().map_or(&[][..], |(_, before)| before);
            full + before.iter().map(|it| it.segment.bytes).sum::<u64>()
        };
        let mut is_cut = false;
        while bytes_max.is_some_and(|most| bytes(&chosen) > most) && chosen.len() > 1 {
            chosen.remove(0);
            is_cut = true;
        }
        let begins = chosen.first().map_or(now, begin_of);
        if is_cut {
            notes.push(format!(
                "a dump in the folder has at most a quarter of --keep: this one begins at {}; \
                 mptcp-trace dump has no limit",
                utc(begins)
            ));
        } else if begins_later && !is_restart {
            notes.push(format!("the recording begins later, at {}", utc(begins)));
        }
        Ok(Self {
            from: span.since.map_or(begins, |since| since.max(begins)),
            bytes: bytes(&chosen),
            since: span.since,
            ends_early: span.until.is_some_and(|until| until < run.ends),
            to: span.until.map_or(run.ends, |until| until.min(run.ends)),
            lacks_newest: broken
                .is_some_and(|broken| chosen.last().is_some_and(|it| it.segment.number < broken)),
            is_recorded,
            segments: chosen,
            notes,
        })
    }

    /// What the dump takes on disk at most.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the dump.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be written.
    pub fn write(mut self, out: &mut dyn Write) -> io::Result<Dumped> {
        let Some(first) = self.segments.first() else {
            return Err(io::Error::other("there is no segment"));
        };
        let epoch = UNIX_EPOCH + first.facts.boot_epoch;
        let boottime = |time: SystemTime| time.duration_since(epoch).unwrap_or_default();
        let mut merge = Merge {
            out: BufWriter::with_capacity(BUFFER_BYTES, out),
            facts: Facts {
                dump: Some(Dump {
                    from: boottime(self.from),
                    to: Some(boottime(self.to)),
                }),
                ..first.facts.clone()
            },
            // Not the begin of a segment: what it begins with happened before it was written.
            since: self.since.map_or(Duration::ZERO, boottime),
            from: boottime(self.from),
            until: match self.ends_early {
                true => boottime(self.to),
                // Times of files are not as exact as those of records.
                false => Duration::MAX,
            },
            known: Known::new(all_of(&self.segments)),
            base: first.head.clone(),
            last: first.head.clone(),
            has_begun: false,
            records: PerSensor::default(),
            earlier: 0,
            head: first.head.clone(),
            read: PerSensor::default(),
            lost: PerSensor::default(),
            to: boottime(self.to),
            is_over: false,
        };
        let mut number = first.segment.number;
        let segments = std::mem::take(&mut self.segments);
        let newest = segments.last().map(|it| it.segment.number);
        let mut is_cut = false;
        for opened in segments {
            let is_first = opened.segment.number == number;
            is_cut |= opened.segment.number > number + 1;
            if is_cut {
                merge.lost_until(&opened.head)?;
            }
            let is_after_gap = opened.head.after_gap || is_cut;
            number = opened.segment.number;
            let path = opened.segment.path.display().to_string();
            let ended = merge.segment(opened, is_first, is_after_gap)?;
            let is_newest = newest == Some(number);
            // The newest one has no end while it is written, or if its writer was killed.
            is_cut = match ended {
                Ended::Whole => false,
                Ended::CutOff => !is_newest,
                Ended::Damaged(_) => true,
            };
            match ended {
                Ended::Damaged(why) => self.notes.push(format!(
                    "{path} is damaged, the rest of it is missing: {why}"
                )),
                Ended::CutOff if is_cut => self
                    .notes
                    .push(format!("{path} is cut off: the rest of it is missing")),
                Ended::CutOff if !self.is_recorded => self.notes.push(format!(
                    "{path} is cut off: the rest of it is missing, at most a second if the \
                     recorder was killed, and more if it could not write before (a full disk)"
                )),
                Ended::Whole | Ended::CutOff => {}
            }
            if merge.is_over {
                break;
            }
        }
        if !merge.is_over && (is_cut || self.lacks_newest) {
            merge.lost_at_end()?;
        }
        merge.finish(self)
    }
}

/// A capture that is being written. Not generic: each destination would have a copy of the code.
struct Merge<'a> {
    out: BufWriter<&'a mut dyn Write>,
    facts: Facts,
    /// Its time, on `CLOCK_BOOTTIME`.
    since: Duration,
    until: Duration,
    /// When it begins: later, if the recording does.
    from: Duration,
    /// What is known so far.
    known: Known,
    /// The state when the capture begins, and the last one.
    base: Checkpoint,
    last: Checkpoint,
    has_begun: bool,
    /// Records in the capture, by sensor; readings of the kernel's counters are of none.
    records: PerSensor<u64>,
    earlier: u64,
    /// What the last segment began with, and how many records were in it.
    head: Checkpoint,
    read: PerSensor<u64>,
    /// Records that files lack, at least.
    lost: PerSensor<u64>,
    /// When the dump ends.
    to: Duration,
    is_over: bool,
}

/// How a segment ends.
enum Ended {
    Whole,
    CutOff,
    Damaged(String),
}

impl Merge<'_> {
    /// Records are missing before a segment that begins like that: as many as were emitted since the
    /// last one began, but are not there.
    fn lost_until(&mut self, head: &Checkpoint) -> io::Result<()> {
        let mut count = 0;
        for loss in &head.losses.sensors {
            let then = self.head.losses.of(loss.sensor).map_or(0, |it| it.emitted);
            let there = *self.read.of(loss.sensor);
            let lost = loss.emitted.saturating_sub(then).saturating_sub(there);
            *self.lost.of_mut(loss.sensor) += lost;
            count += lost;
        }
        self.lost_by(head.at, count)
    }

    /// An unknown number of records is missing at the end.
    fn lost_at_end(&mut self) -> io::Result<()> {
        self.lost_by(self.to, 0)
    }

    fn lost_by(&mut self, by: Duration, count: u64) -> io::Result<()> {
        if count == 0 {
            // Nobody knows how many, and of which sensor.
            *self.lost.of_mut(SensorId::Fallback) += 1;
        }
        // A dump that begins later than that still knows of it.
        let frame = Frame::Missed(by, count.max(1));
        match by >= self.since {
            true => self.put(&frame),
            false => {
                self.know(&frame);
                Ok(())
            }
        }
    }

    /// Takes a segment; returns how it ended.
    fn segment(
        &mut self,
        mut opened: Opened,
        is_first: bool,
        is_after_gap: bool,
    ) -> io::Result<Ended> {
        let mut is_lead = true;
        self.head = opened.head.clone();
        self.read = PerSensor::default();
        let known = match is_after_gap && !is_first {
            true => self.known.history.lead().records.into_iter().collect(),
            false => BTreeSet::new(),
        };
        self.checkpoint(&opened.head);
        loop {
            let step = match opened.reader.next_step() {
                Ok(step) => step,
                Err(why) => return Ok(Ended::Damaged(format!("{why:#}"))),
            };
            match step {
                Step::Checkpoint(it) if !is_lead => self.checkpoint(&it),
                Step::Checkpoint(_) => is_lead = false,
                Step::Frame(Frame::End(_)) => return Ok(Ended::Whole),
                Step::Frame(Frame::CutOff) => return Ok(Ended::CutOff),
                Step::Frame(frame) if !is_lead => {
                    if let Frame::Record(bytes) = &frame
                        && let Some(sensor) = sensor_of(bytes)
                    {
                        *self.read.of_mut(sensor) += 1;
                    }
                    self.frame(&frame)?;
                }
                Step::Frame(frame) if is_first => self.know(&frame),
                Step::Frame(frame) if is_after_gap => {
                    // What happened in the gap to connections that are still open.
                    if !matches!(&frame, Frame::Record(bytes) if known.contains(bytes)) {
                        self.put(&frame)?;
                    }
                }
                Step::Frame(_) => {}
            }
            if self.is_over {
                return Ok(Ended::Whole);
            }
        }
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint) {
        if checkpoint.at <= self.since {
            self.base = checkpoint.clone();
        }
        if checkpoint.at <= self.until.saturating_add(ORDER_SLACK) {
            self.last = checkpoint.clone();
        }
    }

    /// Takes a frame that was written when it happened.
    fn frame(&mut self, frame: &Frame) -> io::Result<()> {
        let happened_at = match frame {
            Frame::Record(bytes) => decode(bytes, &self.facts).ok().and_then(|it| at(&it)),
            Frame::Clock(now) => Some(*now),
            Frame::Missed(by, _) => Some(*by),
            Frame::Place(..) | Frame::Pod(..) | Frame::End(_) | Frame::CutOff => None,
        };
        if happened_at.is_some_and(|at| at > self.until) {
            self.is_over |= happened_at > Some(self.until.saturating_add(ORDER_SLACK));
            return Ok(());
        }
        let is_in = happened_at.is_some_and(|at| at >= self.since);
        if !self.has_begun && is_in {
            self.begin()?;
        }
        match self.has_begun {
            true => self.put(frame),
            false => {
                self.know(frame);
                Ok(())
            }
        }
    }

    fn know(&mut self, frame: &Frame) {
        self.known.note(frame, &self.facts);
    }

    fn put(&mut self, frame: &Frame) -> io::Result<()> {
        if !self.has_begun {
            self.begin()?;
        }
        self.know(frame);
        if let Frame::Record(bytes) = frame {
            self.count(bytes);
        }
        Writer::continued(&mut self.out).add(frame)
    }

    /// Begins the capture with what is known.
    fn begin(&mut self) -> io::Result<()> {
        let mut writer = Writer::new(&mut self.out, &self.facts)?;
        // Whether queries that were not traced concern open connections is unknown.
        match self.base.losses.untraced(SensorId::Query) {
            0 => {
                if let Some((by, count)) = self.known.missed {
                    writer.missed(by, count)?;
                }
            }
            untraced => writer.missed(self.from, untraced)?,
        }
        for frame in self.known.places.frames(u64::MAX) {
            writer.add(&frame)?;
        }
        let lead = self.known.history.lead();
        for record in &lead.records {
            writer.record(record)?;
        }
        for record in &lead.records {
            self.count(record);
        }
        self.earlier = lead.records.len() as u64;
        self.has_begun = true;
        Ok(())
    }

    fn count(&mut self, record: &[u8]) {
        if let Some(sensor) = sensor_of(record) {
            *self.records.of_mut(sensor) += 1;
        }
    }

    fn finish(mut self, plan: Plan) -> io::Result<Dumped> {
        if !self.has_begun {
            self.begin()?;
        }
        let (base, last) = (&self.base, &self.last);
        let mut losses = since(&last.losses, &base.losses);
        for sensor in self.facts.sensors.iter().map(|it| it.sensor) {
            if losses.of(sensor).is_none() {
                losses.sensors.push(Loss::none(sensor));
            }
        }
        for sensor in SensorId::ALL {
            if *self.lost.of(sensor) > 0 && losses.of(sensor).is_none() {
                losses.sensors.push(Loss::none(sensor));
            }
        }
        for loss in &mut losses.sensors {
            // Exact, where the other counters are as old as the last checkpoint.
            loss.emitted = *self.records.of(loss.sensor);
            loss.ring_full = loss.ring_full.saturating_add(*self.lost.of(loss.sensor));
            *loss = loss.since(&Loss::none(loss.sensor));
        }
        let mut notes = plan.notes;
        let count = |now: u64, then: u64| now.saturating_sub(then);
        let unrecorded = count(last.unrecorded, base.unrecorded);
        if unrecorded > 0 {
            notes.push(format!(
                "{unrecorded} records of that time are missing: the disk was too slow, or full"
            ));
        }
        let omitted = last.omitted;
        if omitted > 0 {
            notes.push(format!(
                "the earlier records of {omitted} connections are missing: more were open than the \
                 recorder keeps"
            ));
        }
        end(&mut self.out, &losses)?;
        Ok(Dumped {
            records: SensorId::ALL
                .into_iter()
                .map(|it| self.records.of(it))
                .sum(),
            earlier: self.earlier,
            from: plan.from,
            to: plan.to,
            notes,
        })
    }
}

fn end(out: &mut impl Write, losses: &LossReport) -> io::Result<()> {
    Writer::continued(&mut *out).finish(losses)?;
    out.flush()
}

/// A reader must not know less than the writer did, whose limits depend on the size of a segment.
fn all_of(segments: &[Opened]) -> HistoryLimits {
    let largest = segments.iter().map(|it| it.segment.bytes).max();
    let records = usize::try_from(largest.unwrap_or(0)).unwrap_or(usize::MAX) / RECORD_BYTES_MIN;
    HistoryLimits {
        total: records.max(RECORDS_KNOWN_MIN),
        ..STATED
    }
}

/// A time in UTC for messages, to the second; options accept it too.
#[must_use]
pub fn utc(time: SystemTime) -> String {
    let seconds = Timestamp::try_from(time).map(Timestamp::as_second);
    match seconds.and_then(Timestamp::from_second) {
        Ok(time) => time.to_string(),
        Err(_impossible) => "an unknown time".to_owned(),
    }
}
