//! Findings as a trace in the Trace Event Format (`docs/report.md`), written while they arrive. Pure,
//! with bounded memory for any number of findings.
//!
//! A process of the trace is the owner of connections, a track is a connection, or a path of the
//! connection above it. What a connection
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
use described::{
    described, earliest, path_args, path_spans, path_title, phase_args, phases, title,
};
use events::{Args, Events, Kind, Track};

use super::gather::{ReportedConnection, note};
use crate::{
    ledger::{Entry, Ledger},
    model::{ClosedBy, Finding, Process, Subject},
    observe::Observer,
};

/// Most connections tracked at once. One that is dropped and returns gets a second track.
pub const TRACKS_MAX: usize = 16_384;
/// Most processes with a group of their own.
pub const PROCESSES_MAX: usize = 65_536;

/// No process id reaches this (`PID_MAX_LIMIT`); groups that are no process are numbered from here.
const PIDS_MAX: u64 = 1 << 22;
const UNKNOWN_OWNER: u64 = PIDS_MAX + 1;
const OTHER_PROCESSES: u64 = PIDS_MAX + 2;
const ACCOUNT: u64 = PIDS_MAX + 3;
/// The tracks of processes for events without a connection are numbered from here, and those of
/// connections from there: no reader takes one for the main thread of a process.
const TRACKS_OF_PROCESSES: u64 = 10_000_000;
const TRACKS_FROM: u64 = 20_000_000;
/// The tracks of paths are numbered from here: far above those of connections, and in 31 bits.
const PATHS_FROM: u64 = 1_000_000_000;

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
            last: Duration::ZERO,
            connections: Ledger::new(TRACKS_MAX),
            processes: HashMap::new(),
            findings: 0,
            dropped: 0,
            paths: 0,
            paths_dropped: 0,
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
    /// The latest time of any finding.
    last: Duration,
    connections: Ledger<ReportedConnection>,
    /// The processes that have a name, by their number in the trace; whether they have a track for
    /// events without a connection.
    processes: HashMap<u64, bool>,
    findings: u64,
    /// Connections dropped while open: the table was full.
    dropped: u64,
    /// Tracks of paths.
    paths: u64,
    /// Paths without a track: a connection had too many.
    paths_dropped: u64,
}

impl<W: Write> Trace<W> {
    fn take(&mut self, finding: &Finding) {
        self.findings += 1;
        self.last = self.last.max(finding.at());
        self.events.contain(earliest(finding));
        let subject = Subject::of(finding);
        let cause = subject.cause.unwrap_or("unknown").to_owned();
        let change = note(&mut self.connections, finding, &subject, cause);
        let number = change
            .as_ref()
            .map(|it| (it.entry.details.host_pid, it.entry.number));
        let forgotten = change.and_then(|it| it.forgotten);
        let track = match number {
            // The group of a connection is that of its first owner, even if another one follows.
            Some((host_pid, number)) => Track {
                pid: self.process(host_pid, subject.process),
                tid: TRACKS_FROM + number,
            },
            None => self.no_connection(subject.process),
        };
        let (name, args) = described(finding);
        let kind = Kind::Instant { at: finding.at() };
        self.events.add(track, kind, finding.kind(), &name, &args);
        if let Some(forgotten) = forgotten {
            self.dropped += u64::from(!forgotten.state.is_closed);
            self.settle(&forgotten);
        }
    }

    /// The track of a process for events without a connection: listeners, refused sockets.
    fn no_connection(&mut self, of: Option<&Process>) -> Track {
        let pid = self.process(of.map_or(0, |it| it.host_pid), of);
        let tid = TRACKS_OF_PROCESSES + pid;
        let track = Track { pid, tid };
        if self.processes.insert(pid, true) == Some(false) {
            self.events.name(track, "thread", "(no connection)", 0);
        }
        track
    }

    /// The number of a process in the trace: its id in the initial PID namespace, because those of
    /// others may be equal. Names it first.
    fn process(&mut self, host_pid: u32, named: Option<&Process>) -> u64 {
        let host_pid = u64::from(host_pid);
        let pid =
            match self.processes.len() < PROCESSES_MAX || self.processes.contains_key(&host_pid) {
                _ if host_pid == 0 || host_pid >= PIDS_MAX => UNKNOWN_OWNER,
                true => host_pid,
                false => OTHER_PROCESSES,
            };
        if self.processes.contains_key(&pid) {
            return pid;
        }
        self.processes.insert(pid, false);
        let name = match (pid, named) {
            (OTHER_PROCESSES, _) => "(other processes)",
            (UNKNOWN_OWNER, _) | (_, None) => "unknown owner",
            (_, Some(process)) => &process.comm,
        };
        let track = Track { pid, tid: 0 };
        self.events.name(track, "process", name, pid);
        let label = match named {
            _ if pid >= PIDS_MAX => None,
            Some(Process { pid: None, .. }) => {
                Some("not in the PID namespace of the tracer".to_owned())
            }
            Some(Process {
                pid: Some(seen), ..
            }) if u64::from(*seen) != pid => {
                Some(format!("pid {seen} in the PID namespace of the tracer"))
            }
            Some(_) | None => None,
        };
        if let Some(label) = label {
            let mut args = Args::default();
            args.text("labels", &label);
            self.events
                .add(track, Kind::Metadata, "__metadata", "process_labels", &args);
        }
        pid
    }

    /// Writes the name of a connection and its phases.
    fn settle(&mut self, entry: &Entry<ReportedConnection>) {
        let life = &entry.details;
        let track = Track {
            pid: self.process(life.host_pid, None),
            tid: TRACKS_FROM + entry.number,
        };
        let name = title(life, track.pid == UNKNOWN_OWNER);
        self.events.name(track, "thread", &name, entry.number);
        let args = phase_args(life, entry.key.born_at.map(|_| entry.key.id()));
        let (end, how) = match life.closed {
            Some((at, ClosedBy::Death)) => (at, "closed"),
            Some((at, ClosedBy::Exit)) => (at, "open at the end of the capture"),
            Some((at, ClosedBy::Eviction)) => (at, "forgotten: the table was full"),
            None => (life.last_at, "last finding about it; its end is unknown"),
        };
        for phase in phases(life, end.max(life.last_at)) {
            let (from, to, colour) = (phase.from, phase.to, phase.colour);
            let mut args = args.clone();
            args.text("end", how);
            if from < self.events.zero() {
                args.text("begin", "before the first event of this trace");
            }
            let kind = Kind::Complete { from, to, colour };
            self.events.add(track, kind, "phase", phase.name, &args);
        }
        self.settle_paths(entry, track.pid);
    }

    /// Writes the tracks of the paths of a connection, which stand below it.
    fn settle_paths(&mut self, entry: &Entry<ReportedConnection>, pid: u64) {
        let life = &entry.details;
        for path in life.paths.iter() {
            self.paths += 1;
            let track = Track {
                pid,
                tid: PATHS_FROM + self.paths,
            };
            // Of equal places, the smaller number is above.
            self.events
                .name(track, "thread", &path_title(path), entry.number);
            let args = path_args(path, life);
            for (name, span) in path_spans(path, life) {
                let (from, to, colour) = (span.from, span.to, span.colour);
                let kind = Kind::Complete { from, to, colour };
                self.events.add(track, kind, span.name, &name, &args);
            }
        }
        self.paths_dropped += life.paths.dropped();
    }

    fn finish(mut self, account: &Account<'_>) -> io::Result<(u64, W)> {
        self.events.release();
        let entries = self.connections.drain();
        for entry in &entries {
            self.settle(entry);
        }
        let track = Track {
            pid: ACCOUNT,
            tid: TRACKS_OF_PROCESSES + ACCOUNT,
        };
        self.events.name(
            track,
            "process",
            "mptcp-trace (account of the run)",
            ACCOUNT,
        );
        self.events.name(track, "thread", "losses", 0);
        let kind = Kind::Instant { at: self.last };
        let (title, losses) = (account.title(), account.losses());
        self.events.add(track, kind, "account", &title, &losses);
        let mut other = account.other(self.events.zero());
        other.number("findings", self.findings);
        other.number("connections_split_at_most", self.dropped);
        other.number("paths_without_a_track", self.paths_dropped);
        Ok((self.findings, self.events.finish(&other)?))
    }
}

#[cfg(test)]
#[path = "chrome_trace_tests.rs"]
mod tests;
