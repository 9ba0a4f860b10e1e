//! Event -> findings: waits for what is about to be known, sorts out what nobody wants, and counts causes.
//!
//! Pure: time is what the events say, or what the caller says it is. A fallback of a connection that nobody
//! has accepted yet waits for its acceptance, since only then it is known whose it is.

mod books;

use std::{collections::VecDeque, time::Duration};

pub use books::{Books, growth, reconcile};

use crate::model::{ConnectionEvent, ConnectionKind, Facts, Finding};

/// How long a connection may wait to be accepted before it is told under the listener's name.
pub const ACCEPT_WAIT: Duration = Duration::from_secs(1);

/// How much later than that a clock outside of the records may end the wait: records may still be on
/// their way.
const CLOCK_SLACK: Duration = Duration::from_millis(300);

/// Events that wait at most; beyond that the oldest is told as it is.
const WAITING_MAX: usize = 65_536;

/// Holds back, sorts out, and counts.
#[derive(Debug, Default)]
pub struct Correlator {
    waiting: VecDeque<Box<ConnectionEvent>>,
    books: Books,
    filtered: u64,
    acceptances: u64,
}

impl Correlator {
    /// Takes one event; what is ready to be told is added to `ready`.
    pub fn take(&mut self, finding: Finding, facts: &Facts, ready: &mut Vec<Finding>) {
        let event = match finding {
            Finding::Query(event) => {
                self.waited_until(event.query.asked_at + event.query.latency, ready);
                ready.push(Finding::Query(event));
                return;
            }
            Finding::Connection(event) => event,
        };
        self.books.enter(&event.connection, facts);
        self.waited_until(event.connection.at, ready);
        match event.connection.kind {
            ConnectionKind::Accepted => {
                self.acceptances += 1;
                self.accepted(&event, ready);
            }
            ConnectionKind::Fallback | ConnectionKind::Plain | ConnectionKind::Refused
                if event.connection.unaccepted =>
            {
                if self.waiting.len() >= WAITING_MAX
                    && let Some(oldest) = self.waiting.pop_front()
                {
                    self.tell(oldest, ready);
                }
                self.waiting.push_back(event);
            }
            ConnectionKind::Fallback
            | ConnectionKind::Plain
            | ConnectionKind::Refused
            | ConnectionKind::Existing
            | ConnectionKind::Blackhole => self.tell(event, ready),
        }
    }

    /// The clock says that it is `now`; what has waited long enough is added to `ready`.
    pub fn clock(&mut self, now: Duration, ready: &mut Vec<Finding>) {
        self.waited_until(now.saturating_sub(CLOCK_SLACK), ready);
    }

    /// Nothing more will come.
    pub fn finish(&mut self, ready: &mut Vec<Finding>) {
        self.waited_until(Duration::MAX, ready);
    }

    /// Events that the filter does not want.
    #[must_use]
    pub fn filtered(&self) -> u64 {
        self.filtered
    }

    /// Events that only tell whose an earlier one is.
    #[must_use]
    pub fn acceptances(&self) -> u64 {
        self.acceptances
    }

    /// What was traced, wanted or not.
    #[must_use]
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// It has an owner of its own now: whatever waits for that is told under that name.
    fn accepted(&mut self, acceptance: &ConnectionEvent, ready: &mut Vec<Finding>) {
        let mut rest = VecDeque::with_capacity(self.waiting.len());
        for mut event in std::mem::take(&mut self.waiting) {
            if event.connection.id == acceptance.connection.id {
                event.connection.owner = acceptance.connection.owner.clone();
                event.connection.socket.inode = acceptance.connection.socket.inode;
                event.connection.admitted = acceptance.connection.admitted;
                event.connection.unaccepted = false;
                event.place = acceptance.place.clone();
                self.tell(event, ready);
            } else {
                rest.push_back(event);
            }
        }
        self.waiting = rest;
    }

    fn waited_until(&mut self, now: Duration, ready: &mut Vec<Finding>) {
        while let Some(oldest) = self.waiting.front() {
            if oldest.connection.at.saturating_add(ACCEPT_WAIT) > now {
                break;
            }
            if let Some(oldest) = self.waiting.pop_front() {
                self.tell(oldest, ready);
            }
        }
    }

    fn tell(&mut self, event: Box<ConnectionEvent>, ready: &mut Vec<Finding>) {
        if event.connection.admitted {
            ready.push(Finding::Connection(event));
        } else {
            self.filtered += 1;
        }
    }
}

#[cfg(test)]
mod tests;
