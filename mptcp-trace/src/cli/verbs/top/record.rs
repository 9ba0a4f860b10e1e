//! The capture that `w` starts and stops.

use std::{path::Path, sync::Arc, time::SystemTime};

use anyhow::Context as _;
use jiff::{Timestamp, tz::TimeZone};
use tokio::sync::{mpsc, oneshot};

use crate::{
    cli::{files, shell},
    pipeline::{Ask, Progress},
    sink::without_error_numbers,
    top::draw,
};

/// The capture that is being written, if any, and what became of earlier ones.
#[derive(Default)]
pub(super) struct Recorder {
    current: Option<Current>,
    ended: Vec<String>,
}

struct Current {
    file: String,
    progress: Arc<Progress>,
}

impl Recorder {
    pub(super) fn is_on(&self) -> bool {
        self.current.is_some()
    }

    /// For the head of the screen.
    pub(super) fn shown(&self) -> Option<draw::Recording> {
        let Current { file, progress } = self.current.as_ref()?;
        Some(draw::Recording {
            file: file.clone(),
            bytes: progress.bytes(),
            records: progress.records(),
        })
    }

    /// True if the capture could not be written on: tracing goes on without it.
    pub(super) fn has_failed(&self) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|it| it.progress.failed().is_some())
    }

    /// Starts a capture in a new file; returns a message.
    pub(super) async fn start(&mut self, name: &str, asks: &mpsc::Sender<Ask>) -> String {
        match self.begin(name, asks).await {
            Ok(0) => format!("recording to {name}; w ends it"),
            Ok(omitted) => format!(
                "recording to {name}; w ends it; what happened earlier to {omitted} connections is \
                 not in it"
            ),
            Err(why) => plain(&format!("cannot write the capture {name}: {why:#}")),
        }
    }

    async fn begin(&mut self, name: &str, asks: &mpsc::Sender<Ask>) -> anyhow::Result<u64> {
        let path = Path::new(name);
        let file = files::create(path)?;
        let progress = Arc::new(Progress::default());
        let (to, answer) = oneshot::channel();
        let ask = Ask::Record(file, progress.clone(), to);
        let begun = match asks.send(ask).await {
            Ok(()) => answer.await.context("tracing has ended")?,
            Err(_gone) => anyhow::bail!("tracing has ended"),
        };
        if begun.is_err() {
            // Nothing useful is in it.
            let _kept = std::fs::remove_file(path);
        }
        let omitted = begun?;
        let file = name.to_owned();
        self.current = Some(Current { file, progress });
        Ok(omitted)
    }

    /// Ends the capture; returns a message.
    pub(super) async fn stop(&mut self, asks: &mpsc::Sender<Ask>) -> Option<String> {
        let Current { file, .. } = self.current.take()?;
        let (to, answer) = oneshot::channel();
        if asks.send(Ask::EndRecord(to)).await.is_err() {
            return None;
        }
        let ended = message(&file, &answer.await.ok()?.map(Option::unwrap_or_default));
        self.ended.push(ended.clone());
        Some(ended)
    }

    /// What became of all captures, at the end of `top`; an error is that of the last one, if it was
    /// still being written.
    pub(super) fn finish(mut self) -> (Vec<String>, Result<(), String>) {
        let Some(Current { file, progress }) = self.current else {
            return (self.ended, Ok(()));
        };
        match progress.failed() {
            None => {
                self.ended.push(message(&file, &Ok(progress.records())));
                (self.ended, Ok(()))
            }
            Some(why) => {
                let why = Err(anyhow::anyhow!("it is cut off: {why}"));
                (self.ended, Err(message(&file, &why)))
            }
        }
    }
}

fn message(file: &str, result: &anyhow::Result<u64>) -> String {
    match result {
        Ok(records) => {
            let word = if *records == 1 { "record" } else { "records" };
            let typed = shell::file(Path::new(file));
            format!("capture {file}: {records} {word}; mptcp-trace replay {typed}")
        }
        Err(why) => plain(&format!("capture {file}: {why:#}")),
    }
}

/// A message for the screen, without the number of a system error.
fn plain(message: &str) -> String {
    without_error_numbers(message).into_owned()
}

/// A name for a capture that begins now: `mptcp-20260131-235959.mpt`, in local time.
pub(super) fn name(now: SystemTime) -> String {
    name_in(now, TimeZone::system())
}

fn name_in(now: SystemTime, zone: TimeZone) -> String {
    let Ok(timestamp) = Timestamp::try_from(now) else {
        return "mptcp.mpt".to_owned();
    };
    let at = timestamp.to_zoned_datetime(zone);
    format!(
        "mptcp-{:04}{:02}{:02}-{:02}{:02}{:02}.mpt",
        at.year(),
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_name_in_a_command_line_is_quoted() {
        let said = message("-my run", &Ok(2));
        assert!(
            said.ends_with("2 records; mptcp-trace replay './-my run'"),
            "{said}"
        );
    }

    #[test]
    fn the_proposed_name_has_date_and_time() {
        let at = UNIX_EPOCH + Duration::from_secs(1_769_903_999);
        assert_eq!(name_in(at, TimeZone::UTC), "mptcp-20260131-235959.mpt");
    }
}
