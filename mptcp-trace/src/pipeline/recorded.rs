//! What records a run beside `--capture`: a recording that began later, and the flight recorder.

use std::io::{self, Write};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Session, Stages, prefixed};
use crate::{
    capture::Frame,
    model::{Finding, LossReport},
    recorder::{Asked, Flight},
};

/// Installs the handler of the signal that requests a dump.
///
/// # Errors
///
/// Fails if it cannot be installed.
pub fn dump_signal() -> io::Result<Signal> {
    signal(SignalKind::user_defined2())
}

impl<W: Write> Stages<W> {
    /// True if something records.
    pub(super) fn records(&self) -> bool {
        self.recording.is_some() || self.flight.is_some()
    }

    /// Gives a frame to what records.
    pub(super) fn record(&mut self, frame: Frame) {
        match (&mut self.recording, &mut self.flight) {
            (Some(recording), Some(flight)) => {
                recording.add(frame.clone());
                flight.add(frame);
            }
            (Some(recording), None) => recording.add(frame),
            (None, Some(flight)) => flight.add(frame),
            (None, None) => {}
        }
    }

    pub(super) fn flush_records(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.flush();
        }
        if let Some(flight) = &mut self.flight {
            flight.hand_over();
        }
    }

    /// Records everything from now on.
    pub fn record_into(&mut self, flight: Flight) {
        self.flight = Some(flight);
    }

    /// The recorder, if there is one.
    pub fn flight(&mut self) -> Option<&mut Flight> {
        self.flight.as_mut()
    }

    /// Ends the recording, if there is one; returns its account, and whether nothing is missing.
    #[must_use]
    pub fn end_flight(&mut self, losses: &LossReport) -> Option<(String, bool)> {
        let (account, is_whole) = self.flight.take()?.end(losses.clone());
        Some((prefixed(&account), is_whole))
    }

    /// Counts a finding, shown or not, for rules that make dumps.
    pub(super) fn count_for_rules(&mut self, finding: &Finding) {
        if let Some(flight) = &mut self.flight {
            flight.count(finding);
        }
    }

    /// The signal for a dump has arrived.
    pub(super) fn dump_by_signal(&mut self) {
        match &mut self.flight {
            Some(flight) => flight.dump(Asked("SIGUSR2".to_owned())),
            None => log::warn!("SIGUSR2: no dump, since nothing is recorded (--keep)"),
        }
    }

    /// Reports the losses so far to the recorder.
    pub(super) fn note_losses(&mut self, session: &Session) {
        let Some(flight) = &mut self.flight else {
            return;
        };
        match session.losses() {
            Ok(losses) => flight.losses(losses),
            Err(why) => log::debug!("the recording lacks the losses of this second: {why:#}"),
        }
    }
}
