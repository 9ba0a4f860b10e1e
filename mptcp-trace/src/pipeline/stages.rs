//! The stages right of the ring, the same for live records and for those of a capture.

use std::{fs::File, io::BufWriter, io::Write};

use anyhow::Context as _;

use super::Stop;
use crate::{
    capture,
    decode::{Observation, decode},
    enrich,
    model::{Facts, Finding, LossReport},
    sink::{Format, Source},
};

/// The stages right of the ring, the same for live records and for those of a capture.
pub struct Stages<W: Write> {
    facts: Facts,
    format: Format,
    source: Source,
    out: W,
    /// Bytes of lines that were not handed to `out` yet.
    lines: Vec<u8>,
    capture: Option<capture::Writer<BufWriter<File>>>,
    findings: u64,
    stop_after: Option<u64>,
    undecodable: u64,
}

/// What is left when a run is over.
#[derive(Debug)]
pub struct Outcome {
    /// Findings printed.
    pub findings: u64,
    /// Records that could not be decoded; each was complained about.
    pub undecodable: u64,
}

impl<W: Write> Stages<W> {
    /// Stages that print to `out` and keep raw records in `capture`.
    pub fn new(
        facts: Facts,
        format: Format,
        source: Source,
        out: W,
        capture: Option<capture::Writer<BufWriter<File>>>,
        stop_after: Option<u64>,
    ) -> Self {
        let lines = Vec::with_capacity(64 * 1024);
        Self {
            facts,
            format,
            source,
            out,
            lines,
            capture,
            findings: 0,
            stop_after,
            undecodable: 0,
        }
    }

    /// Prints what comes before the first finding.
    ///
    /// # Errors
    ///
    /// [`Stop`] if it cannot be written.
    pub fn begin(&mut self) -> Result<(), Stop> {
        self.format.start(&self.facts, self.source, &mut self.lines);
        self.flush()
    }

    /// Takes one record all the way.
    ///
    /// # Errors
    ///
    /// [`Stop`] when it was the last that is wanted, or nothing can be written any more.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        if let Some(capture) = &mut self.capture {
            capture
                .record(bytes)
                .context("cannot write the capture")
                .map_err(Stop::Failed)?;
        }
        let query = match decode(bytes, &self.facts) {
            Ok(Observation::Query(query)) => query,
            Ok(Observation::Canary(_)) => return Ok(()),
            Err(why) => {
                self.undecodable += 1;
                log::error!("cannot understand a record: {why}");
                return Ok(());
            }
        };
        let finding = Finding::Query(enrich::query(&self.facts, query));
        self.format.finding(&finding, &mut self.lines);
        self.findings += 1;
        if self.lines.len() >= 64 * 1024 {
            self.write_lines()?;
        }
        if self.stop_after.is_some_and(|limit| self.findings >= limit) {
            return Err(Stop::Enough);
        }
        Ok(())
    }

    /// Hands finished lines to the reader.
    ///
    /// # Errors
    ///
    /// [`Stop`] if they cannot be written.
    pub fn flush(&mut self) -> Result<(), Stop> {
        self.write_lines()?;
        self.out.flush().map_err(Stop::from_output)?;
        match &mut self.capture {
            Some(capture) => capture
                .flush()
                .context("cannot write the capture")
                .map_err(Stop::Failed),
            None => Ok(()),
        }
    }

    /// Prints what comes after the last finding and ends the capture.
    ///
    /// # Errors
    ///
    /// [`Stop`] if it cannot be written.
    pub fn finish(&mut self, losses: &LossReport) -> Result<(), Stop> {
        if let Some(capture) = self.capture.take() {
            capture
                .finish(losses)
                .context("cannot write the capture")
                .map_err(Stop::Failed)?;
        }
        self.format.end(self.findings, losses, &mut self.lines);
        self.flush()
    }

    /// What was done.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome {
            findings: self.findings,
            undecodable: self.undecodable,
        }
    }

    fn write_lines(&mut self) -> Result<(), Stop> {
        let written = self.out.write_all(&self.lines);
        self.lines.clear();
        written.map_err(Stop::from_output)
    }
}
