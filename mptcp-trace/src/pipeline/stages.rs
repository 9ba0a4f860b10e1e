//! The stages right of the ring, the same for live records and for those of a capture.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    time::Duration,
};

use super::{
    Stop,
    view::{Outcome, Printed, View},
};
use crate::{
    capture,
    correlate::{Correlator, reconcile},
    decode::{Observation, decode},
    enrich::{self, CgroupCache},
    host::system::proc_is_ours,
    model::{ConnectionKind, Event, Facts, Finding, LossReport, MissedRuns, SensorId},
    redact::forget,
    sink::{Format, Source, Told},
};

/// At most so many records that cannot be understood are complained about, one by one.
const COMPLAINTS_MAX: u64 = 10;

/// Room for so many findings is kept between two records.
const READY_KEPT: usize = 1024;

/// The stages right of the ring, the same for live records and for those of a capture.
pub struct Stages<W: Write> {
    pub(super) facts: Facts,
    pub(super) format: Format,
    pub(super) source: Source,
    pub(super) out: W,
    /// Bytes of lines that were not handed to `out` yet.
    pub(super) lines: Vec<u8>,
    pub(super) capture: Option<capture::Writer<BufWriter<File>>>,
    pub(super) places: CgroupCache,
    pub(super) correlator: Correlator,
    /// Findings that are ready, between two stages.
    pub(super) ready: Vec<Finding>,
    pub(super) outcome: Outcome,
    /// What had been printed when all of it was written last.
    pub(super) written: Printed,
    pub(super) view: View,
    pub(super) stop_after: Option<u64>,
    /// Findings go to the account only.
    shows: Shows,
    /// Records of connections are findings: the fallback sensor runs.
    pub(super) has_fallbacks: bool,
}

/// Whether findings are still shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shows {
    /// They are.
    All,
    /// No more of them: there were enough.
    NoMore,
    /// Nothing is written any more, and that is no failure: the reader has gone, or the disk is full.
    Mute,
}

impl<W: Write> Stages<W> {
    /// Stages that print to `out` and keep raw records in `capture`.
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
        let places = match source {
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
            places,
            correlator: Correlator::new(view.limits),
            ready: Vec::new(),
            outcome: Outcome::default(),
            written: Printed::default(),
            view,
            stop_after,
        }
    }

    /// Prints what comes before the first finding.
    ///
    /// # Errors
    ///
    /// [`Stop`] if it cannot be written.
    pub fn begin(&mut self) -> Result<(), Stop> {
        // Sums come with column names of their own.
        let format = match (self.format, self.view.summary.is_empty()) {
            (Format::Text { colour, utc, .. }, false) => Format::Text {
                header: false,
                colour,
                utc,
            },
            (format, _) => format,
        };
        format.start(&self.facts, self.source, &mut self.lines);
        self.flush()
    }

    /// Takes one record all the way.
    ///
    /// # Errors
    ///
    /// [`Stop`] when it was the last that is wanted, or nothing can be written any more.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let mut observation = decode(bytes, &self.facts);
        let mut others = Vec::new();
        let mut bytes = bytes;
        if self.source == Source::Live && observation.as_ref().is_ok_and(|it| self.is_of_others(it))
        {
            // Before anything is concluded: so a replay concludes the same.
            others.extend_from_slice(bytes);
            if forget(&mut others).is_ok() {
                bytes = &others;
                observation = decode(bytes, &self.facts);
            }
        }
        let event = match observation {
            Ok(Observation::Query(query)) => {
                self.places
                    .resolve(query.process.pid, query.process.cgroup_id);
                Some(Event::Query(enrich::query(&self.facts, query)))
            }
            // Without the fallback sensor it is not known when a connection was born or fell back: what another sensor
            // says of it would be taken for the state before tracing began.
            Ok(Observation::Connection(_) | Observation::Change(_)) if !self.has_fallbacks => None,
            Ok(Observation::Connection(connection)) => {
                let event = enrich::connection(&self.facts, &mut self.places, *connection);
                Some(Event::Connection(Box::new(event)))
            }
            Ok(Observation::Change(change)) => {
                let event = enrich::change(&mut self.places, *change);
                Some(Event::Change(Box::new(event)))
            }
            Ok(Observation::Refusal(refusal)) => {
                self.places
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
                        log::error!("cannot decode a record: {why}; further ones are only counted")
                    }
                    _more => {}
                }
                None
            }
        };
        // It was traced, whether or not it can be kept.
        let kept = self.keep(bytes);
        if let Some(event) = event {
            self.correlator.take(event, &self.facts, &mut self.ready);
        }
        let printed = self.print_ready();
        kept.and(printed)
    }

    /// The clock says that it is `now`, on `CLOCK_BOOTTIME`: nobody waits longer than that.
    ///
    /// # Errors
    ///
    /// [`Stop`] when it was the last that is wanted, or nothing can be written any more.
    pub fn clock(&mut self, now: Duration) -> Result<(), Stop> {
        if !self.correlator.waits() {
            return Ok(());
        }
        // A replay has no clock: it is told what this one said.
        if let Some(capture) = &mut self.capture {
            let kept = capture.clock(now);
            self.captured(kept)?;
        }
        self.correlator.clock(now, &self.facts, &mut self.ready);
        self.print_ready()
    }

    /// Until then, on `CLOCK_BOOTTIME`, the kernel has kept so many questions from the probes.
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

    /// Until then the kernel may have kept one more question from the probes, so many at most all in all, as a capture says.
    ///
    /// # Errors
    ///
    /// [`Stop`] if the capture cannot be written.
    pub fn doubt_until(&mut self, by: Duration, count: u64) -> Result<(), Stop> {
        self.correlator.doubt_until(by);
        match &mut self.capture {
            Some(capture) => {
                let kept = capture.missed(by, count);
                self.captured(kept)
            }
            None => Ok(()),
        }
    }

    /// True if something waits for the clock.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.correlator.waits()
    }

    /// True if the account needs to know of it, and nobody needs to know whose it is. Who has MPTCP switched off in a
    /// network namespace is named by the lines of all whom that hits.
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

    /// Where processes of a capture lived.
    pub fn tell_place(&mut self, cgroup_id: u64, path: &str) {
        self.places.insert(cgroup_id, path);
    }

    /// Puts a record into the capture, after what is needed to understand it.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let places = self.places.take_new();
        let Some(capture) = &mut self.capture else {
            return Ok(());
        };
        let mut keep = || {
            for (cgroup_id, path) in &places {
                capture.place(*cgroup_id, path)?;
            }
            capture.record(bytes)
        };
        let kept = keep();
        self.captured(kept)
    }

    /// Ends the run where the capture cannot be written; at a mute end it is only given up.
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

    /// From here on records are only taken into account: enough findings were shown (`Stop::Enough`), or none can be
    /// written any more. A capture goes on as long as it can be written.
    pub fn close(&mut self, why: &Stop) {
        self.shows = match why {
            Stop::Enough => Shows::NoMore,
            Stop::ReaderGone | Stop::Failed(_) => Shows::Mute,
        };
    }

    /// Prints what is ready. Where one of them ends the output, the others still go into the account.
    fn print_ready(&mut self) -> Result<(), Stop> {
        // The room that they took is used again, unless it was for many at once.
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
        // Also what is not shown can fail the run.
        self.mark_failing(finding);
        match self.shows {
            Shows::All if self.has_enough() => return Err(Stop::Enough),
            Shows::NoMore => return Ok(()),
            Shows::All | Shows::Mute => {}
        }
        let places = &self.places;
        if !self.view.wanted.matches(finding, |id| places.path(id)) {
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
        if self.view.summary.is_empty() {
            self.format.finding(finding, &mut self.lines);
        }
        if !self.view.summary.is_empty() {
            self.view.summary.add(finding, &|id| places.path(id));
        }
        for observer in &mut self.view.observers {
            observer.finding(finding, &|id| places.path(id));
        }
        self.outcome.findings += 1;
        match finding {
            Finding::Query(_) | Finding::Refusal(_) => self.outcome.queries += 1,
            Finding::Verdict(_) => self.outcome.verdicts += 1,
            Finding::Connection(_) => {}
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
            let format = Format::Text {
                header: false,
                colour: false,
                utc: matches!(
                    self.format,
                    Format::Text { utc: true, .. } | Format::Json | Format::Nothing
                ),
            };
            let mut line = Vec::new();
            format.finding(finding, &mut line);
            let words: Vec<String> = String::from_utf8_lossy(&line)
                .split_whitespace()
                .map(str::to_owned)
                .collect();
            self.outcome.first_failing = Some(words.join(" "));
        }
    }

    /// Prints the sums so far, if there are to be some.
    pub fn sum_up(&mut self) {
        for table in self.view.summary.tables() {
            self.format.sums(&table, &mut self.lines);
        }
    }

    fn has_enough(&self) -> bool {
        self.stop_after
            .is_some_and(|limit| self.outcome.findings >= limit)
    }

    /// The records end in the middle of things: prints what waits, and concludes nothing from the silence after.
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

    /// Hands finished lines to the reader.
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
        match &mut self.capture {
            Some(capture) => {
                let flushed = capture.flush();
                self.captured(flushed)
            }
            None => Ok(()),
        }
    }

    /// Prints what waits, unless enough was printed, then what comes after the last finding; ends the capture. The account
    /// is drawn whatever cannot be written.
    ///
    /// # Errors
    ///
    /// [`Stop`] if something cannot be written: the first of it.
    pub fn finish(&mut self, losses: &LossReport) -> Result<(), Stop> {
        let untold = losses.untold(SensorId::Query);
        self.correlator.finish(untold, &self.facts, &mut self.ready);
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
        self.outcome.reconciled = reconcile(self.books(), losses, &self.facts);
        let losses = self.with_filtered(losses);
        self.format.end(
            Told {
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
        if self.shows == Shows::Mute {
            self.lines.clear();
            return Ok(());
        }
        let written = self.out.write_all(&self.lines);
        self.lines.clear();
        self.wrote(written)
    }

    /// Where something could not be written, nothing is known to be since the last time that all was.
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
