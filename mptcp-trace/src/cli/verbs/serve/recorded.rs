//! The flight recorder of `serve`: its settings, and dumps for HTTP clients.

use std::{
    io::{self, ErrorKind, Write},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::Config;
use crate::{
    cli::{
        args::{ServeArgs, parse_moment, parse_size, span},
        keep::Keep,
    },
    model::Facts,
    pipeline::Stages,
    recorder::{Folder, Handle, Rule, Span},
    serve::http::{NoDump, Part, Parts},
};

/// Most parts of a dump that wait for a client.
const PARTS_MAX: usize = 4;
/// Time after which a client that reads nothing gets no more: nobody else gets a dump meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between attempts to give a client a part.
const PAUSE: Duration = Duration::from_millis(1);

impl Config {
    /// What is recorded, if anything.
    pub(super) fn recorder(&self, args: &ServeArgs) -> anyhow::Result<Option<Keep>> {
        let typed = &args.keep;
        let keep = match &self.keep {
            Some(read) => {
                let bytes = parse_size(read).map_err(anyhow::Error::msg);
                Some(bytes.context("`keep` in --config is invalid")?)
            }
            None => typed.keep,
        };
        let rules = match &self.dump_on {
            Some(read) => {
                let rules = read.iter().map(|rule| rule.parse::<Rule>());
                let rules = rules.collect::<Result<_, _>>().map_err(anyhow::Error::msg);
                rules.context("`dump-on` in --config is invalid")?
            }
            None => typed.dump_on.clone(),
        };
        let folder = self.keep_dir.clone().or_else(|| typed.keep_dir.clone());
        Keep::of(keep, folder, rules).map_err(anyhow::Error::msg)
    }
}

/// Begins to record, if that is wanted.
pub(super) fn begin(
    wanted: Option<(Keep, Folder)>,
    facts: &Facts,
    stages: &mut Stages<io::Sink>,
) -> anyhow::Result<Option<Handle>> {
    let Some((keep, folder)) = wanted else {
        return Ok(None);
    };
    let flight = keep.begin(folder, facts)?;
    let handle = flight.handle();
    stages.record_into(flight);
    Ok(Some(handle))
}

/// Applies settings that were read again.
pub(super) fn change(recorder: Option<&Handle>, keep: Option<Keep>) {
    match (recorder, keep) {
        (None, None) => {}
        (Some(recorder), Some(keep)) => {
            recorder.set_keep(keep.bytes);
            recorder.set_rules(keep.rules);
            if keep.folder != recorder.folder() {
                log::warn!("`keep-dir` changed: that takes effect at the next start");
            }
        }
        (None, Some(_)) | (Some(_), None) => {
            log::warn!("`keep` changed: that takes effect at the next start");
        }
    }
}

/// A dump for a client. A thread reads the recording: the event loop never waits for the disk.
pub(super) async fn dump(recorder: Option<&Handle>, query: &str) -> Result<Parts, NoDump> {
    let Some(recorder) = recorder.cloned() else {
        let why = "nothing is recorded: mptcp-trace serve --keep SIZE";
        return Err(NoDump::Nothing(why.to_owned()));
    };
    let span = span_of(query).map_err(NoDump::Bad)?;
    let Some(turn) = recorder.turn() else {
        return Err(NoDump::Busy("another dump is being made".to_owned()));
    };
    let (to_client, parts) = mpsc::channel(PARTS_MAX);
    let (to, planned) = oneshot::channel();
    let started = thread::Builder::new()
        .name("dump".to_owned())
        .spawn(move || {
            let _turn = turn;
            match recorder.plan(span) {
                Err(why) => {
                    let _gone = to.send(Err(NoDump::Nothing(format!("{why:#}"))));
                }
                Ok(plan) => {
                    let _gone = to.send(Ok(()));
                    let mut client = Client {
                        to: Some(to_client),
                        patience: PATIENCE,
                    };
                    match plan.write(&mut client) {
                        Err(why) if why.kind() == ErrorKind::TimedOut => {
                            log::warn!("a dump for a client was cut off: {why}");
                        }
                        Err(why) => log::debug!("a dump for a client was cut off: {why}"),
                        Ok(_) => {}
                    }
                }
            }
        });
    let busy = |why: String| NoDump::Busy(why);
    started.map_err(|why| busy(format!("cannot make a dump: {why}")))?;
    let planned = planned.await;
    planned.map_err(|_ended| busy("cannot make a dump".to_owned()))??;
    Ok(parts)
}

/// Sends what is written to a client, as fast as it reads.
struct Client {
    /// None once it has read nothing for too long: buffers above try again when they are dropped.
    to: Option<mpsc::Sender<Part>>,
    patience: Duration,
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(to) = &self.to else {
            return Err(ErrorKind::BrokenPipe.into());
        };
        let mut part = bytes.to_vec().into();
        let begin = Instant::now();
        loop {
            part = match to.try_send(part) {
                Ok(()) => return Ok(bytes.len()),
                Err(TrySendError::Closed(_)) => return Err(ErrorKind::BrokenPipe.into()),
                Err(TrySendError::Full(back)) => back,
            };
            if begin.elapsed() >= self.patience {
                self.to = None;
                let why = format!("it read nothing for {} s", self.patience.as_secs());
                return Err(io::Error::new(ErrorKind::TimedOut, why));
            }
            thread::sleep(PAUSE);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The span that `since=10m&until=...` asks for.
fn span_of(query: &str) -> Result<Span, String> {
    let (mut since, mut until) = (None, None);
    for part in query.split('&').filter(|it| !it.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let moment = || parse_moment(&decoded(value)).map_err(|why| format!("{name}: {why}"));
        let asked = match name {
            "since" => &mut since,
            "until" => &mut until,
            _other => return Err("unknown parameter: known are since and until".to_owned()),
        };
        if asked.replace(moment()?).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    span(since, until)
}

/// A value of a query without its escapes.
fn decoded(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|it| std::str::from_utf8(it).ok());
        let escaped = digits.and_then(|it| u8::from_str_radix(it, 16).ok());
        match (first, escaped) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_reads_nothing_does_not_keep_others_from_a_dump() {
        let client = |patience| {
            let (to, parts) = mpsc::channel(1);
            let to = Some(to);
            (Client { to, patience }, parts)
        };
        let (mut client_of, mut parts) = client(PATIENCE);
        let reader = thread::spawn(move || {
            let mut read = Vec::new();
            while let Some(part) = parts.blocking_recv() {
                thread::sleep(10 * PAUSE);
                read.extend_from_slice(&part);
            }
            read
        });
        for _ in 0..9 {
            client_of.write_all(b"slow ").unwrap();
        }
        drop(client_of);
        assert_eq!(reader.join().unwrap(), b"slow ".repeat(9));

        let (mut stalled, mut parts) = client(10 * PAUSE);
        stalled.write_all(b"one").unwrap();
        let why = stalled.write_all(b"two").unwrap_err();
        assert_eq!(why.kind(), ErrorKind::TimedOut);
        let why = stalled.write_all(b"two").unwrap_err();
        assert_eq!(why.kind(), ErrorKind::BrokenPipe, "it does not wait again");
        assert_eq!(parts.blocking_recv().unwrap(), "one");
        assert!(parts.blocking_recv().is_none(), "the response ends");
    }

    #[test]
    fn a_client_asks_for_a_span_as_a_user_types_it() {
        assert_eq!(span_of(""), Ok(Span::default()));
        let span = span_of("since=2026-11-24+02%3A55&until=2026-11-24T23:55").unwrap();
        assert!(span.since.unwrap() < span.until.unwrap());
        for (query, says) in [
            ("since=soon", "since: write it like 10m"),
            ("sinc=10m", "known are since and until"),
            ("since=10m&until=20m", "not later"),
            ("until", "until: write"),
            ("since=10m&since=5m", "since is given twice"),
        ] {
            let why = span_of(query).unwrap_err();
            assert!(why.contains(says), "{query}: {why}");
        }
        assert_eq!(decoded("a%2"), "a%2");
    }
}
