//! Which messages about a collector are printed: one when something goes wrong with a signal, one when it works again.
//!
//! Logs and metrics are separate, because collectors often accept only one of them.

use super::{answer::Outcome, target::Target};

/// What a request carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Findings.
    Logs,
    /// Counters.
    Metrics,
}

impl Signal {
    const fn other(self) -> Self {
        match self {
            Self::Logs => Self::Metrics,
            Self::Metrics => Self::Logs,
        }
    }
}

/// What is wrong with a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Complaint {
    #[default]
    Nothing,
    /// Requests are accepted with a remark, or without some of their content.
    Remark,
    /// Requests fail and are repeated.
    Away,
    /// Requests are refused.
    Refused,
}

/// The last complaint about each signal.
#[derive(Debug, Default)]
pub struct Complaints {
    logs: Complaint,
    metrics: Complaint,
}

/// A message.
#[derive(PartialEq, Eq, Debug)]
enum Message {
    Error(String),
    Warning(String),
    Note(String),
}

impl Complaints {
    /// Prints what is new.
    pub fn say(&mut self, target: &Target, signal: Signal, outcome: &Outcome) {
        let messages = self.messages(target, signal, outcome);
        if messages.is_empty() {
            log::debug!("the collector at {target}: {signal:?}: {outcome:?}");
        }
        for message in messages {
            match message {
                Message::Error(text) => log::error!("{text}"),
                Message::Warning(text) => log::warn!("{text}"),
                Message::Note(text) => stderr_line!("mptcp-trace: {text}"),
            }
        }
    }

    fn of(&mut self, signal: Signal) -> &mut Complaint {
        match signal {
            Signal::Logs => &mut self.logs,
            Signal::Metrics => &mut self.metrics,
        }
    }

    fn messages(&mut self, target: &Target, signal: Signal, outcome: &Outcome) -> Vec<Message> {
        let now = match outcome {
            Outcome::Taken { rejected: 0, said } if said.is_empty() => Complaint::Nothing,
            Outcome::Taken { .. } => Complaint::Remark,
            Outcome::RetryLater { .. } => Complaint::Away,
            Outcome::Never { .. } => Complaint::Refused,
        };
        let before = *self.of(signal);
        // A collector may reject something of every second request: that is one message too.
        if (before, now) == (Complaint::Remark, Complaint::Nothing) {
            return Vec::new();
        }
        *self.of(signal) = now;
        let what = match signal {
            Signal::Logs => "findings",
            Signal::Metrics => "metrics",
        };
        // A collector that is unreachable is so for both signals: one message.
        let is_other_away = *self.of(signal.other()) == Complaint::Away;
        let mut messages = Vec::new();
        if before == now {
            return messages;
        }
        let is_accepted = matches!(now, Complaint::Nothing | Complaint::Remark);
        match before {
            Complaint::Away if is_accepted && !is_other_away => messages.push(Message::Note(
                format!("the collector at {target} accepts data again"),
            )),
            Complaint::Refused if is_accepted => messages.push(Message::Note(format!(
                "the collector at {target} accepts {what} again"
            ))),
            Complaint::Nothing | Complaint::Remark | Complaint::Away | Complaint::Refused => {}
        }
        match outcome {
            Outcome::Taken { rejected, said } if *rejected > 0 => {
                messages.push(Message::Warning(format!(
                    "the collector at {target} rejects {rejected} records of a request with {what}: \
                     {said}"
                )));
            }
            Outcome::Taken { said, .. } if !said.is_empty() => messages.push(Message::Warning(
                format!("the collector at {target} reports: {said}"),
            )),
            Outcome::Taken { .. } => {}
            Outcome::RetryLater { why, .. } if !is_other_away => {
                messages.push(Message::Warning(format!(
                    "the collector at {target} does not accept data: {why}; retrying, records are \
                     queued"
                )));
            }
            Outcome::RetryLater { .. } => {}
            Outcome::Never { why } => messages.push(Message::Error(format!(
                "the collector at {target} refuses {what}: {why}; they are lost"
            ))),
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rejected: u64) -> Outcome {
        Outcome::Taken {
            rejected,
            said: String::new(),
        }
    }

    fn away() -> Outcome {
        Outcome::RetryLater {
            after: None,
            why: "busy".into(),
        }
    }

    fn refused() -> Outcome {
        Outcome::Never { why: "404".into() }
    }

    #[test]
    fn each_change_of_a_signal_has_one_message() {
        let target = Target::parse("http://x", [], || unreachable!("no https")).unwrap();
        let (logs, metrics) = (Signal::Logs, Signal::Metrics);
        for (name, requests) in [
            (
                "a collector without a pipeline for logs",
                vec![
                    (logs, refused(), "refuses findings: 404; they are lost"),
                    (metrics, taken(0), ""),
                    (logs, refused(), ""),
                    (metrics, taken(0), ""),
                    (logs, taken(0), "accepts findings again"),
                ],
            ),
            (
                "a collector that rejects a part of each request",
                vec![
                    (
                        logs,
                        taken(2),
                        "rejects 2 records of a request with findings",
                    ),
                    (logs, taken(3), ""),
                    (
                        metrics,
                        taken(1),
                        "rejects 1 records of a request with metrics",
                    ),
                    (logs, taken(0), ""),
                    (logs, taken(1), ""),
                    (logs, refused(), "refuses findings"),
                    (logs, taken(0), "accepts findings again"),
                    (logs, taken(1), "rejects 1 records"),
                ],
            ),
            (
                "a collector that is away for a while",
                vec![
                    (logs, away(), "does not accept data: busy; retrying"),
                    (logs, away(), ""),
                    (metrics, away(), ""),
                    (logs, taken(0), ""),
                    (metrics, taken(0), "accepts data again"),
                    (logs, taken(0), ""),
                ],
            ),
        ] {
            let mut complaints = Complaints::default();
            for (at, (signal, outcome, wanted)) in requests.into_iter().enumerate() {
                let got = complaints.messages(&target, signal, &outcome);
                let text = format!("{got:?}");
                assert_eq!(
                    got.len(),
                    usize::from(!wanted.is_empty()),
                    "{name}, {at}: {text}"
                );
                assert!(text.contains(wanted), "{name}, {at}: {text}");
            }
        }
    }
}
