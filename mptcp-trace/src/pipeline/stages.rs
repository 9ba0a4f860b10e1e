//! The stages behind the ring, the same for live records and for a capture.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    time::Duration,
};

use super::{
    Stop,
    history::History,
    recording::Recording,
    view::{Outcome, Printed, View},
};
use crate::{
    capture::{self, Frame},
    correlate::{Correlator, reconcile},
    decode::{Observation, decode},
    enrich::{self, CgroupCache},
    host::system::proc_is_ours,
    model::{ConnectionKind, Event, Facts, Finding, LossReport, MissedRuns, SensorId},
    redact::forget,
    sink::{self, FindingCounts, Format, Source, one_line},
};

/// At most this many undecodable records are reported individually.
const COMPLAINTS_MAX: u64 = 10;

/// Capacity for findings that is kept between two records.
const READY_KEPT: usize = 1024;

/// The stages behind the ring, the same for live records and for a capture.
pub struct Stages<W: Write> {
    pub(super) facts: Facts,
    pub(super) format: Format,
    pub(super) source: Source,
    pub(super) out: W,
    /// Lines that were not written to `out` yet.
    pub(super) lines: Vec<u8>,
    pub(super) capture: Option<capture::Writer<BufWriter<File>>>,
    /// A capture that began later, and what one that begins later needs.
    pub(super) recording: Option<Recording>,
    pub(super) history: Option<History>,
    pub(super) cgroups: CgroupCache,
    pub(super) correlator: Correlator,
    /// Findings that are ready for output.
    pub(super) ready: Vec<Finding>,
    pub(super) outcome: Outcome,
    /// What had been printed at the last complete write.
    pub(super) written: Printed,
    pub(super) view: View,
    pub(super) stop_after: Option<u64>,
    /// Whether findings are still shown.
    shows: Shows,
    /// The fallback sensor runs, so that records of connections are findings.
    pub(super) has_fallbacks: bool,
}

/// Whether findings are still shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shows {
    /// Findings are shown.
    All,
    /// Enough findings were shown; the rest is only accounted for.
    NoMore,
    /// Nothing is written any more, which is not a failure: the reader has gone, or the disk is
    /// full.
    Mute,
}

impl Stages<io::Sink> {
    /// Creates stages for a capture that print nothing: observers of the view receive the findings.
    #[must_use]
    pub fn silent(facts: Facts, view: View) -> Self {
        let (format, source) = (Format::Nothing, Source::Replay);
        Self::new(facts, format, source, io::sink(), None, view, None)
    }
}

impl<W: Write> Stages<W> {
    /// Creates stages that print to `out` and keep raw records in `capture`.
    pub fn new(
        facts: Facts,
        format: Format,
        source: Source,
        out: W,
        capture: Option<capture::Writer<BufWriter<File>>>,
        view: View,
        stop_after: Option<u64>,
    ) -> Self {
        let lines = Vec::with_capacity(64 * 1024);
        let cgroups = match source {
            Source::Live => CgroupCache::live(proc_is_ours()),
            Source::Replay => CgroupCache::offline(),
        };
        let has_fallbacks = facts.has_sensor(SensorId::Fallback);
        Self {
            has_fallbacks,
            shows: Shows::All,
            facts,
            format,
            source,
            out,
            lines,
            capture,
            recording: None,
            history: None,
            cgroups,
            correlator: Correlator::new(view.limits),
            ready: Vec::new(),
            outcome: Outcome::default(),
            written: Printed::default(),
            view,
            stop_after,
        }
    }

    /// Prints what precedes the first finding.
    ///
    /// # Errors
    ///
    /// [`Stop`] if it cannot be written.
    pub fn begin(&mut self) -> Result<(), Stop> {
        // Sums have column names of their own.
        if let Format::Text(lines) = &mut self.format
            && !self.view.summary.is_empty()
        {
            lines.without_header();
        }
        self.format.start(&self.facts, self.source, &mut self.lines);
        self.flush()
    }

    /// Processes one record through all stages.
    ///
    /// # Errors
    ///
    /// [`Stop`] if it was the last one wanted, or the output cannot be written.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let mut observation = decode(bytes, &self.facts);
        let mut others = Vec::new();
        let mut bytes = bytes;
        if self.source == Source::Live && observation.as_ref().is_ok_and(|it| self.is_of_others(it))
        {
            // Before any verdict, so that a replay reaches the same ones.
            others.extend_from_slice(bytes);
            if forget(&mut others).is_ok() {
                bytes = &others;
                observation = decode(bytes, &self.facts);
            }
        }
        if let (Some(history), Ok(observation)) = (&mut self.history, &observation) {
            history.note(observation, bytes);
        }
        let event = match observation {
            Ok(Observation::Query(query)) => {
                self.cgroups
                    .resolve(query.process.pid, query.process.cgroup_id);
                Some(Event::Query(enrich::query(&self.facts, query)))
            }
            // Without the fallback sensor, births and fallbacks of connections are unknown: another
            // sensor's report would be taken for the state before tracing began.
            Ok(Observation::Connection(_) | Observation::Change(_)) if !self.has_fallbacks => None,
            Ok(Observation::Connection(connection)) => {
                let event = enrich::connection(&self.facts, &mut self.cgroups, *connection);
                Some(Event::Connection(Box::new(event)))
            }
            Ok(Observation::Change(change)) => {
                let event = enrich::change(&mut self.cgroups, *change);
                Some(Event::Change(Box::new(event)))
            }
            Ok(Observation::Refusal(refusal)) => {
                self.cgroups
                    .resolve(refusal.process.pid, refusal.process.cgroup_id);
                let event = enrich::refusal(&self.facts, *refusal);
                Some(Event::Refusal(Box::new(event)))
            }
            Ok(Observation::Counters(counters)) => {
                self.correlator.counted(*counters);
                None
            }
            Ok(
                Observation::Canary(_)
                | Observation::CanaryConnection(_)
                | Observation::CanaryChange(_)
                | Observation::CountersAtStart(_),
            ) => None,
            Err(why) => {
                self.outcome.undecodable += 1;
                match self.outcome.undecodable {
                    ..COMPLAINTS_MAX => log::error!("cannot decode a record: {why}"),
                    COMPLAINTS_MAX => {
                        log::error!("cannot decode a record: {why}; further ones are only counted");
                    }
                    _more => {}
                }
                None
            }
        };
        // It was traced, whether or not the capture could be written.
        let kept = self.keep(bytes);
        if let Some(event) = event {
            self.correlator.take(event, &self.facts, &mut self.ready);
        }
        let printed = self.print_ready();
        kept.and(printed)
    }

    /// The clock is at `now`, on `CLOCK_BOOTTIME`: releases findings that have waited long enough.
    ///
    /// # Errors
    ///
    /// [`Stop`] if it was the last one wanted, or the output cannot be written.
    pub fn clock(&mut self, now: Duration) -> Result<(), Stop> {
        if !self.correlator.waits() {
            return Ok(());
        }
        // A replay has no clock: the capture records this one.
        if let Some(recording) = &mut self.recording {
            recording.add(Frame::Clock(now));
        }
        if let Some(capture) = &mut self.capture {
            let kept = capture.clock(now);
            self.captured(kept)?;
        }
        self.correlator.clock(now, &self.facts, &mut self.ready);
        self.print_ready()
    }

    /// By this time, on `CLOCK_BOOTTIME`, the probes have missed this many queries.
    ///
    /// # Errors
    ///
    /// [`Stop`] if the capture cannot be written.
    pub fn missed(&mut self, by: Duration, runs: MissedRuns) -> Result<(), Stop> {
        match self.correlator.missed(by, runs) {
            true => self.doubt_until(by, runs.lost_at_most()),
            false => Ok(()),
        }
    }

    /// By this time the probes may have missed one more query, and at most `count` in total,
    /// according to a capture.
    ///
    /// # Errors
    ///
    /// [`Stop`] if the capture cannot be written.
    pub fn doubt_until(&mut self, by: Duration, count: u64) -> Result<(), Stop> {
        self.correlator.doubt_until(by);
        if let Some(recording) = &mut self.recording {
            recording.add(Frame::Missed(by, count));
        }
        match &mut self.capture {
            Some(capture) => {
                let kept = capture.missed(by, count);
                self.captured(kept)
            }
            None => Ok(()),
        }
    }

    /// True if an event waits for the clock.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.correlator.waits()
    }

    /// True if a record is only needed for the account, and its owner must not be recorded. A
    /// connection that disabled MPTCP in a network namespace is kept: the lines of all affected
    /// connections name it.
    fn is_of_others(&mut self, observation: &Observation) -> bool {
        let (id, is_admitted) = match observation {
            Observation::Connection(it) if it.kind == ConnectionKind::Blackhole => return false,
            Observation::Connection(it) => (it.id, it.admitted),
            Observation::Change(it) => (it.id, it.admitted),
            Observation::Query(_)
            | Observation::Canary(_)
            | Observation::CanaryConnection(_)
            | Observation::CanaryChange(_)
            | Observation::Refusal(_)
            | Observation::Counters(_)
            | Observation::CountersAtStart(_) => return false,
        };
        !is_admitted && !self.correlator.is_wanted(id)
    }

    /// Takes a frame of a capture. Its end is up to the caller.
    ///
    /// # Errors
    ///
    /// As for what the frame contains.
    pub fn replay(&mut self, frame: &Frame) -> Result<(), Stop> {
        match frame {
            Frame::Record(bytes) => self.take(bytes),
            Frame::Place(cgroup_id, path) => {
                self.cgroups.insert(*cgroup_id, path);
                Ok(())
            }
            Frame::Clock(now) => self.clock(*now),
            Frame::Missed(by, count) => self.doubt_until(*by, *count),
            Frame::End(_) | Frame::CutOff => Ok(()),
        }
    }

    /// Adds a record to the capture, after the cgroup paths that it refers to.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let cgroups = self.cgroups.take_new();
        if let Some(recording) = &mut self.recording {
            for (cgroup_id, path) in &cgroups {
                recording.add(Frame::Place(*cgroup_id, path.clone()));
            }
            recording.add(Frame::Record(bytes.to_vec()));
        }
        let Some(capture) = &mut self.capture else {
            return Ok(());
        };
        let mut keep = || {
            for (cgroup_id, path) in &cgroups {
                capture.place(*cgroup_id, path)?;
            }
            capture.record(bytes)
        };
        let kept = keep();
        self.captured(kept)
    }

    /// Ends the run if the capture cannot be written; when output is muted, only the capture ends.
    fn captured(&mut self, written: io::Result<()>) -> Result<(), Stop> {
        match (written, self.shows) {
            (Ok(()), _) => Ok(()),
            (Err(_), Shows::Mute) => {
                self.capture = None;
                Ok(())
            }
            (Err(why), Shows::All | Shows::NoMore) => Err(Stop::Failed(
                anyhow::Error::new(why).context("cannot write the capture"),
            )),
        }
    }

    /// From now on records are only accounted for: enough findings were shown (`Stop::Enough`), or
    /// output is impossible. A capture continues as long as it can be written.
    pub fn close(&mut self, why: &Stop) {
        self.shows = match why {
            Stop::Enough => Shows::NoMore,
            Stop::ReaderGone | Stop::Failed(_) => Shows::Mute,
        };
    }

    /// Prints findings that are ready. If one of them ends the output, the others are still
    /// accounted for.
    fn print_ready(&mut self) -> Result<(), Stop> {
        // Their memory is reused, unless a burst made it large.
        let mut ready = std::mem::take(&mut self.ready);
        let mut printed = Ok(());
        for finding in &mut ready {
            if let Err(stop) = self.print(finding) {
                self.close(&stop);
                printed = Err(stop);
            }
        }
        ready.clear();
        ready.shrink_to(READY_KEPT);
        self.ready = ready;
        printed?;
        match self.shows {
            Shows::All if self.has_enough() => Err(Stop::Enough),
            Shows::All | Shows::NoMore | Shows::Mute => Ok(()),
        }
    }

    fn print(&mut self, finding: &mut Finding) -> Result<(), Stop> {
        // A finding that is not shown can fail the run too.
        self.mark_failing(finding);
        match self.shows {
            Shows::All if self.has_enough() => return Err(Stop::Enough),
            Shows::NoMore => return Ok(()),
            Shows::All | Shows::Mute => {}
        }
        let cgroups = &self.cgroups;
        if !self.view.wanted.matches(finding, &|id| cgroups.path(id)) {
            self.outcome.not_shown += 1;
            return Ok(());
        }
        if self.shows == Shows::Mute {
            self.outcome.unwritten += 1;
            return Ok(());
        }
        if let (Finding::Query(event), Some(repeats)) = (&mut *finding, &mut self.view.repeats) {
            match repeats.take(event) {
                Some(repeats) => event.repeats = repeats,
                None => {
                    self.outcome.coalesced += 1;
                    return Ok(());
                }
            }
        }
        let finding = &*finding;
        let printed = match self.view.summary.is_empty() {
            true => self.format.finding(finding, &mut self.lines),
            false => {
                self.view.summary.add(finding, &|id| cgroups.path(id));
                sink::Printed::Line
            }
        };
        for observer in &mut self.view.observers {
            observer.finding(finding, &|id| cgroups.path(id));
        }
        match printed {
            sink::Printed::Line => {}
            sink::Printed::WithExisting => {
                self.outcome.folded.existing += 1;
                return Ok(());
            }
            sink::Printed::WithFallback => {
                self.outcome.folded.never_asked += 1;
                return Ok(());
            }
        }
        self.outcome.findings += 1;
        match finding.sensor() {
            Some(sensor) => *self.outcome.by_sensor.of_mut(sensor) += 1,
            None => self.outcome.verdicts += 1,
        }
        if self.lines.len() >= 64 * 1024 {
            self.write_lines()?;
        }
        Ok(())
    }

    fn mark_failing(&mut self, finding: &Finding) {
        if !self.view.fail_on.iter().any(|it| it.matches(finding)) {
            return;
        }
        self.outcome.failing += 1;
        if self.outcome.first_failing.is_none() {
            self.outcome.first_failing = Some(one_line(finding));
        }
    }

    /// Prints the sums so far, if enabled.
    pub fn sum_up(&mut self) {
        for table in self.view.summary.tables() {
            self.format.sums(&table, &mut self.lines);
        }
    }

    fn has_enough(&self) -> bool {
        self.stop_after
            .is_some_and(|limit| self.outcome.findings >= limit)
    }

    /// The records end early: prints what waits, and concludes nothing from later silence.
    ///
    /// # Errors
    ///
    /// [`Stop`] if it cannot be written.
    pub fn cut_off(&mut self) -> Result<(), Stop> {
        self.correlator.cut_off(&self.facts, &mut self.ready);
        match self.print_ready() {
            Ok(()) | Err(Stop::Enough) => {}
            Err(other) => return Err(other),
        }
        self.sum_up();
        self.flush()
    }

    /// Writes finished lines to the output.
    ///
    /// # Errors
    ///
    /// [`Stop`] if they cannot be written.
    pub fn flush(&mut self) -> Result<(), Stop> {
        self.write_lines()?;
        if self.shows != Shows::Mute {
            let flushed = self.out.flush();
            self.wrote(flushed)?;
            self.written = self.outcome.printed();
        }
        if let Some(recording) = &mut self.recording {
            recording.flush();
        }
        match &mut self.capture {
            Some(capture) => {
                let flushed = capture.flush();
                self.captured(flushed)
            }
            None => Ok(()),
        }
    }

    /// Prints what waits, unless enough was printed, then what follows the last finding; ends the
    /// capture. The account is completed even if output fails.
    ///
    /// # Errors
    ///
    /// [`Stop`] with the first error.
    pub fn finish(&mut self, losses: &LossReport) -> Result<(), Stop> {
        let untraced = losses.untraced(SensorId::Query);
        self.correlator
            .finish(untraced, &self.facts, &mut self.ready);
        let printed = match self.print_ready() {
            Err(Stop::Enough) => Ok(()),
            other => other,
        };
        let captured = match self.capture.take() {
            Some(capture) => {
                let finished = capture.finish(losses);
                self.captured(finished)
            }
            None => Ok(()),
        };
        self.sum_up();
        self.outcome.reconciled = reconcile(self.fallback_ledger(), losses, &self.facts);
        let losses = self.with_filtered(losses);
        self.format.end(
            FindingCounts {
                findings: self.outcome.findings,
                not_shown: self.outcome.not_shown,
                coalesced: self.outcome.coalesced,
                evicted: self.correlator.evicted(),
            },
            &losses,
            &self.outcome.reconciled,
            &mut self.lines,
        );
        let flushed = self.flush();
        printed.and(captured).and(flushed)
    }

    fn write_lines(&mut self) -> Result<(), Stop> {
        self.format.flush(&mut self.lines);
        if self.shows == Shows::Mute {
            self.lines.clear();
            return Ok(());
        }
        let written = self.out.write_all(&self.lines);
        self.lines.clear();
        self.wrote(written)
    }

    /// After a failed write, only lines of the last complete write are known to be written.
    fn wrote(&mut self, written: io::Result<()>) -> Result<(), Stop> {
        written.map_err(|why| {
            self.outcome.take_back(self.written);
            Stop::from_output(why)
        })
    }
}

#[cfg(test)]
#[path = "stages_tests.rs"]
mod tests;
