//! The stages behind the ring, the same for live records and for a capture.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    time::Duration,
};

use super::{
    Stop,
    events::packets::Packets,
    places::{frame, lookup},
    recording::Recording,
    view::{Outcome, Printed, View},
};
use crate::{
    aggregation::Sums,
    capture::{self, Frame},
    correlate::Correlator,
    decode::{Observation, decode},
    enrich::CgroupCache,
    filter::FindingFilter,
    history::History,
    model::{ConnectionKind, Facts, Finding, LossReport, MissedRuns, SensorId, Subject},
    recorder::Flight,
    redact::forget,
    sink::{self, FindingCounts, Format, Source, one_line},
};

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
    /// The flight recorder.
    pub(super) flight: Option<Flight>,
    pub(super) cgroups: CgroupCache,
    pub(super) correlator: Correlator,
    /// Packets whose event has not arrived yet.
    packets: Packets,
    /// Findings that are ready for output.
    pub(super) ready: Vec<Finding>,
    pub(super) outcome: Outcome,
    /// What had been printed at the last complete write.
    pub(super) written: Printed,
    pub(super) view: View,
    pub(super) stop_after: Option<u64>,
    /// Whether findings are still shown.
    shows: Shows,
    /// Whose connections are counted.
    whose: FindingFilter,
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
            flight: None,
            cgroups: CgroupCache::offline(),
            correlator: Correlator::new(view.limits),
            packets: Packets::default(),
            ready: Vec::new(),
            outcome: Outcome::default(),
            written: Printed::default(),
            whose: view.wanted.of_connections(),
            view,
            stop_after,
        }
    }

    /// Looks up processes on this machine from now on, and the names of their pods in `pod_logs`.
    pub fn look_up(&mut self, pod_logs: &Path) {
        self.cgroups = CgroupCache::live(lookup(pod_logs));
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
        if self.takes_reading(&observation) {
            return Ok(());
        }
        if let Ok(Observation::Packet(key, packet)) = observation {
            self.packets.add(key, packet, bytes);
            return Ok(());
        }
        let mut waiting = observation
            .as_ref()
            .ok()
            .and_then(|it| self.packets.take(it));
        let mut others = Vec::new();
        let mut bytes = bytes;
        if self.source == Source::Live && observation.as_ref().is_ok_and(|it| self.is_of_others(it))
        {
            // Before any verdict, so that a replay reaches the same ones.
            others.extend_from_slice(bytes);
            waiting = None;
            if forget(&mut others).is_ok() {
                bytes = &others;
                observation = decode(bytes, &self.facts);
            }
        }
        if let (Some(history), Ok(observation)) = (&mut self.history, &observation) {
            history.note(observation, bytes);
        }
        let (packet, bytes_of_packet) = waiting
            .map(|waiting| (waiting.packet, waiting.bytes))
            .unzip();
        let event = self.event_of(observation, packet);
        // It was traced, whether or not the capture could be written.
        let kept = match bytes_of_packet {
            Some(packet) => self.keep(&packet).and_then(|()| self.keep(bytes)),
            None => self.keep(bytes),
        };
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
        self.record(Frame::Clock(now));
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
        self.record(Frame::Missed(by, count));
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
            Observation::Path(it) => match it.connection {
                Some(id) => (id, it.admitted),
                // Nobody accepts it.
                None => return !it.admitted,
            },
            Observation::Query(_)
            | Observation::Canary(_)
            | Observation::CanaryConnection(_)
            | Observation::CanaryChange(_)
            | Observation::CanaryPath(_)
            | Observation::PathReading(_)
            | Observation::Packet(..)
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
            Frame::Pod(cgroup_id, pod) => {
                self.cgroups.insert_pod(*cgroup_id, pod);
                Ok(())
            }
            Frame::Clock(now) => self.clock(*now),
            Frame::Missed(by, count) => self.doubt_until(*by, *count),
            Frame::End(_) | Frame::CutOff => Ok(()),
        }
    }

    /// Adds a record to the capture, after the cgroup paths and pods that it refers to.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let learned: Vec<Frame> = self.cgroups.take_new().into_iter().map(frame).collect();
        if self.records() {
            learned.iter().cloned().for_each(|it| self.record(it));
            self.record(Frame::Record(bytes.to_vec()));
        }
        let Some(capture) = &mut self.capture else {
            return Ok(());
        };
        let mut keep = || {
            for frame in &learned {
                capture.add(frame)?;
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
        self.count_for_rules(finding);
        self.note_peer(finding);
        self.count_connection(finding);
        match self.shows {
            Shows::All if self.has_enough() => return Err(Stop::Enough),
            Shows::NoMore => return Ok(()),
            Shows::All | Shows::Mute => {}
        }
        let cgroups = &self.cgroups;
        let path_of = |id| cgroups.path(id);
        if self.view.hides_routine
            && self.view.summary.is_empty()
            && finding.is_routine()
            && !self.view.wanted.names(finding)
        {
            // The line at the end says how to see them: only what the rest of the filter admits.
            match self.view.wanted.matches_beside_kind(finding, &path_of) {
                true => self.outcome.folded.routine += 1,
                false => self.outcome.not_shown += 1,
            }
            return Ok(());
        }
        if !self.view.wanted.matches(finding, &path_of) {
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
        self.outcome.count(finding, printed);
        if self.lines.len() >= 64 * 1024 {
            self.write_lines()?;
        }
        Ok(())
    }

    /// Counts connections, whatever lines are wanted.
    fn count_connection(&mut self, finding: &Finding) {
        let is_of_one = match finding {
            Finding::Path(_) | Finding::Closed(_) | Finding::Connection(_) => true,
            Finding::Query(_) | Finding::Verdict(_) | Finding::Refusal(_) => false,
        };
        let cgroups = &self.cgroups;
        // A listener ends without having been a connection.
        if is_of_one
            && !Subject::of(finding).is_listener()
            && self.whose.matches(finding, &|id| cgroups.path(id))
        {
            self.outcome.connections.take(finding);
        }
    }

    /// Counts whether its peer spoke MPTCP, whatever lines are wanted.
    fn note_peer(&mut self, finding: &mut Finding) {
        let (whose, cgroups) = (&self.whose, &self.cgroups);
        let is_wanted = |it: &Finding| whose.matches(it, &|id| cgroups.path(id));
        self.view.peers.take(finding, &is_wanted);
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
        if self.view.sums_follow {
            return;
        }
        for table in self.view.summary.tables() {
            self.format.sums(&table, &mut self.lines);
        }
    }

    /// The sums so far, for another capture to add to.
    pub fn take_sums(&mut self) -> Sums {
        std::mem::take(&mut self.view.summary)
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
        self.flush_records();
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
        self.outcome.reconciled = self.reconcile(losses);
        let losses = self.with_filtered(losses);
        self.format.end(
            FindingCounts {
                findings: self.outcome.findings,
                not_shown: self.outcome.not_shown,
                routine: self.outcome.folded.routine,
                coalesced: self.outcome.coalesced,
                evicted: self.correlator.evicted(),
                connections: self.connections(),
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
