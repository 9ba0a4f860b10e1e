//! Findings as a trace in the Trace Event Format (`docs/report.md`), written while they arrive. Pure,
//! with bounded memory for any number of findings.
//!
//! A process of the trace is the owner of connections, a track is a connection. What a connection
//! was when is known only when it is settled: its phases follow its other events, which the format
//! permits.

mod account;
mod described;
mod events;

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    io::{self, Write},
    rc::Rc,
    time::Duration,
};

pub use account::Account;
use described::{described, earliest, phase_args, phases, title};
use events::{Args, Events, Kind, Track};

use super::gather::ReportedConnection;
use crate::{
    ledger::{Entry, Ledger},
    model::{ClosedBy, Finding, Process, Socket, Subject},
    observe::Observer,
};

/// Most connections tracked at once. One that is dropped and returns gets a second track.
pub const TRACKS_MAX: usize = 16_384;
/// Most processes with a group of their own.
pub const PROCESSES_MAX: usize = 65_536;
/// Most findings that wait until the earliest time of any of them is known.
const HELD_MAX: usize = 1024;

/// No process id reaches this (`PID_MAX_LIMIT`); groups that are no process are numbered from here.
const PIDS_MAX: u64 = 1 << 22;
const UNKNOWN_OWNER: u64 = PIDS_MAX + 1;
const OTHER_PROCESSES: u64 = PIDS_MAX + 2;
const ACCOUNT: u64 = PIDS_MAX + 3;
/// Tracks are numbered from here, so that no reader takes one for the main thread of a process.
const TRACKS_FROM: u64 = 10_000_000;

/// A trace shared by the stages and the report.
pub struct ChromeTrace<W>(Rc<RefCell<Option<Trace<W>>>>);

impl<W> Clone for ChromeTrace<W> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<W> fmt::Debug for ChromeTrace<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChromeTrace").finish_non_exhaustive()
    }
}

impl<W: Write> ChromeTrace<W> {
    /// Begins a trace. Errors are reported by [`Self::finish`].
    #[must_use]
    pub fn new(out: W) -> Self {
        Self(Rc::new(RefCell::new(Some(Trace {
            events: Events::new(out),
            origin: None,
            last: Duration::ZERO,
            held: Vec::new(),
            connections: Ledger::new(TRACKS_MAX),
            processes: HashMap::new(),
            tracks: 0,
            findings: 0,
            dropped: 0,
        }))))
    }

    /// Ends the trace, after all findings; returns their number and the writer.
    ///
    /// # Errors
    ///
    /// The first error in writing.
    pub fn finish(&self, account: &Account<'_>) -> io::Result<(u64, W)> {
        match self.0.take() {
            Some(trace) => trace.finish(account),
            None => Err(io::Error::other("the trace is finished already")),
        }
    }
}

impl<W: Write> Observer for ChromeTrace<W> {
    fn finding<'a>(&mut self, finding: &'a Finding, _path_of: &dyn Fn(u64) -> Option<&'a str>) {
        if let Some(trace) = &mut *self.0.borrow_mut() {
            trace.take(finding);
        }
    }
}

struct Trace<W> {
    events: Events<W>,
    /// The zero of the trace, on `CLOCK_BOOTTIME`; `None` while findings are held.
    origin: Option<Duration>,
    /// The latest time of any finding.
    last: Duration,
    held: Vec<Finding>,
    connections: Ledger<Connection>,
    /// The named processes by their id in the initial PID namespace, each with its track for
    /// events without a connection.
    processes: HashMap<u64, Option<Track>>,
    tracks: u64,
    findings: u64,
    /// Connections dropped while open: the table was full.
    dropped: u64,
}

/// A connection with its track.
struct Connection {
    life: ReportedConnection,
    track: Track,
    /// The latest time of any finding about it.
    last: Duration,
}

impl Connection {
    /// True unless the socket is known to be another one.
    fn is_of(&self, socket: Option<&Socket>) -> bool {
        socket.is_some_and(|socket| {
            (socket.local, socket.remote) == (self.life.local, self.life.remote)
        })
    }
}

impl<W: Write> Trace<W> {
    fn take(&mut self, finding: &Finding) {
        self.findings += 1;
        self.last = self.last.max(finding.at());
        if self.origin.is_some() {
            self.add(finding);
            return;
        }
        self.held.push(finding.clone());
        if self.held.len() >= HELD_MAX {
            self.release();
        }
    }

    /// Fixes the zero of the trace, and writes what waited for it.
    fn release(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.origin = Some(held.iter().map(earliest).min().unwrap_or_default());
        for finding in &held {
            self.add(finding);
        }
    }

    fn add(&mut self, finding: &Finding) {
        let subject = Subject::of(finding);
        let cause = subject.cause.unwrap_or("unknown").to_owned();
        let Self {
            connections,
            processes,
            events,
            tracks,
            ..
        } = self;
        let change = connections.take(finding, &subject, |key, socket| Connection {
            life: ReportedConnection::new(socket, key.born_at, finding.time()),
            track: Track {
                pid: process(subject.process, processes, events),
                tid: next(tracks),
            },
            last: finding.at(),
        });
        let (track, forgotten) = match change {
            // The kernel reuses the addresses of sockets.
            Some(change) if subject.is_refusal && !change.entry.details.is_of(subject.socket) => {
                (None, change.forgotten)
            }
            Some(change) => {
                let (state, number) = (change.entry.state, change.entry.number);
                let connection = &mut change.entry.details;
                connection.life.number = number;
                connection.life.state = state;
                connection.life.update(finding, cause);
                connection.last = connection.last.max(finding.at());
                (Some(connection.track), change.forgotten)
            }
            None => (None, None),
        };
        let track = match track {
            Some(track) => track,
            None => self.no_connection(subject.process),
        };
        let at = self.since_origin(finding.at());
        let (name, args) = described(finding);
        self.events
            .add(track, Kind::Instant { at }, finding.kind(), &name, args);
        if let Some(forgotten) = forgotten {
            self.dropped += u64::from(!forgotten.state.is_closed);
            self.settle(&forgotten);
        }
    }

    /// The track of a process for events without a connection: listeners, refused sockets.
    fn no_connection(&mut self, of: Option<&Process>) -> Track {
        let pid = process(of, &mut self.processes, &mut self.events);
        if let Some(Some(track)) = self.processes.get(&pid) {
            return *track;
        }
        let tid = next(&mut self.tracks);
        let track = Track { pid, tid };
        self.events
            .name(track, "thread", "(no connection)", tid - TRACKS_FROM);
        self.processes.insert(pid, Some(track));
        track
    }

    /// Writes the name of a connection and its phases.
    fn settle(&mut self, entry: &Entry<Connection>) {
        let Connection { life, track, last } = &entry.details;
        let place = track.tid - TRACKS_FROM;
        let name = title(life, track.pid == UNKNOWN_OWNER);
        self.events.name(*track, "thread", &name, place);
        let args = phase_args(life, entry.key.born_at.map(|_| entry.key.id()));
        let end = match life.closed {
            Some((at, ClosedBy::Death)) => (at, "closed"),
            Some((at, ClosedBy::Exit)) => (at, "open at the end of the capture"),
            Some((at, ClosedBy::Eviction)) => (at, "forgotten: the table was full"),
            None => (*last, "last finding about it; its end is unknown"),
        };
        for phase in phases(life, end.0.max(*last)) {
            let (at, to) = (self.since_origin(phase.from), self.since_origin(phase.to));
            let kind = Kind::Complete {
                at,
                length: to.saturating_sub(at),
                colour: phase.colour,
            };
            let mut args = args.clone().text("end", end.1);
            if self.origin.is_some_and(|origin| phase.from < origin) {
                args = args.text("begin", "before the first event of this trace");
            }
            self.events.add(*track, kind, "phase", phase.name, args);
        }
    }

    fn finish(mut self, account: &Account<'_>) -> io::Result<(u64, W)> {
        if self.origin.is_none() {
            self.release();
        }
        let entries = self.connections.drain();
        for entry in &entries {
            self.settle(entry);
        }
        let track = Track {
            pid: ACCOUNT,
            tid: next(&mut self.tracks),
        };
        let at = self.since_origin(self.last);
        self.events.name(
            track,
            "process",
            "mptcp-trace (account of the run)",
            ACCOUNT,
        );
        self.events.name(track, "thread", "losses", 0);
        let kind = Kind::Instant { at };
        self.events
            .add(track, kind, "account", &account.title(), account.losses());
        let origin = self.origin.unwrap_or_default();
        let other = account
            .other(origin)
            .number("findings", self.findings)
            .number("connections_split_at_most", self.dropped);
        Ok((self.findings, self.events.finish(other)?))
    }

    /// Nanoseconds since the zero of the trace.
    fn since_origin(&self, at: Duration) -> u64 {
        let since = at.saturating_sub(self.origin.unwrap_or_default());
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The number of a new track.
fn next(tracks: &mut u64) -> u64 {
    *tracks += 1;
    TRACKS_FROM + *tracks
}

/// The id of a process in the trace: the one in the initial PID namespace, because those of others
/// may be equal. Names it first.
fn process<W: Write>(
    process: Option<&Process>,
    known: &mut HashMap<u64, Option<Track>>,
    events: &mut Events<W>,
) -> u64 {
    let pid = process.map_or(0, |it| u64::from(it.host_pid));
    let pid = match pid {
        0 => UNKNOWN_OWNER,
        pid if known.contains_key(&pid) || known.len() < PROCESSES_MAX => pid,
        _ => OTHER_PROCESSES,
    };
    if known.contains_key(&pid) {
        return pid;
    }
    known.insert(pid, None);
    let track = Track { pid, tid: 0 };
    match (pid, process) {
        (OTHER_PROCESSES, _) => events.name(track, "process", "(other processes)", pid),
        (UNKNOWN_OWNER, _) | (_, None) => events.name(track, "process", "unknown owner", pid),
        (_, Some(process)) => {
            events.name(track, "process", &process.comm, pid);
            if process.pid != Some(process.host_pid) {
                let labels = match process.pid {
                    Some(pid) => format!("pid {pid} in the PID namespace of the tracer"),
                    None => "not in the PID namespace of the tracer".to_owned(),
                };
                let args = Args::default().text("labels", labels);
                events.add(track, Kind::Metadata, "__metadata", "process_labels", args);
            }
        }
    }
    pid
}

#[cfg(test)]
#[path = "chrome_trace_tests.rs"]
mod tests;
