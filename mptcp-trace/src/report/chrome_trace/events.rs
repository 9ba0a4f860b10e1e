//! Writes events in the Trace Event Format, one line each. An error is kept until the end.

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::Duration,
};

use crate::report::words::shown;

/// Longest text in an argument, characters.
const TEXT_MAX: usize = 400;
/// Largest integer that every reader of JSON reads exactly.
const INTEGER_MAX: u64 = 1 << 53;
/// Most events that wait until the zero of the trace is fixed.
pub(super) const HELD_MAX: usize = 1024;

/// Where an event is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Track {
    pub(super) pid: u64,
    pub(super) tid: u64,
}

/// Kind of an event, with its times on `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A name of a process or a track.
    Metadata,
    /// A moment.
    Instant { at: Duration },
    /// A span, in one of the format's own colours.
    Complete {
        from: Duration,
        to: Duration,
        colour: &'static str,
    },
}

/// Named details of an event: the fields of a JSON object.
#[derive(Clone, Debug, Default)]
pub(super) struct Args(String);

impl Args {
    /// Adds a text, which may come from outside.
    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.field(name, &quoted(&shown(text, TEXT_MAX)));
    }

    /// Adds a text, if there is one.
    pub(super) fn maybe_text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// Adds a number; as a string, if a reader might round it.
    pub(super) fn number(&mut self, name: &str, number: u64) {
        let value = match number {
            ..=INTEGER_MAX => number.to_string(),
            _ => format!("\"{number}\""),
        };
        self.field(name, &value);
    }

    /// Adds a number, if there is one.
    pub(super) fn maybe_number(&mut self, name: &str, number: Option<u64>) {
        if let Some(number) = number {
            self.number(name, number);
        }
    }

    pub(super) fn flag(&mut self, name: &str, is: bool) {
        self.field(name, if is { "true" } else { "false" });
    }

    pub(super) fn object(&mut self, name: &str, fields: &Self) {
        self.field(name, &fields.json());
    }

    pub(super) fn list(&mut self, name: &str, rows: &[Self]) {
        let rows: Vec<String> = rows.iter().map(Self::json).collect();
        self.field(name, &format!("[{}]", rows.join(",")));
    }

    /// The object.
    pub(super) fn json(&self) -> String {
        format!("{{{}}}", self.0)
    }

    fn field(&mut self, name: &str, value: &str) {
        let comma = if self.0.is_empty() { "" } else { "," };
        let _infallible = write!(self.0, "{comma}\"{name}\":{value}");
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    let _infallible = serde_json::to_writer(&mut out, text);
    String::from_utf8(out).unwrap_or_default()
}

/// An event without its times.
struct Event {
    kind: Kind,
    head: String,
    tail: String,
}

/// Where events are written.
pub(super) struct Events<W> {
    out: W,
    /// Between two events.
    comma: &'static str,
    failed: Option<io::Error>,
    /// The zero of the trace, on `CLOCK_BOOTTIME`: the earliest time so far, until it is fixed.
    zero: Option<Duration>,
    is_fixed: bool,
    held: Vec<Event>,
}

impl<W: Write> Events<W> {
    pub(super) fn new(out: W) -> Self {
        let mut events = Self {
            out,
            comma: "",
            failed: None,
            zero: None,
            is_fixed: false,
            held: Vec::new(),
        };
        events.write("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
        events
    }

    /// A time that the next events contain: the trace begins no later, unless its zero is fixed.
    pub(super) fn contain(&mut self, earliest: Duration) {
        if !self.is_fixed {
            self.zero = Some(self.zero.map_or(earliest, |zero| zero.min(earliest)));
        }
    }

    /// The zero of the trace. It is fixed once a few events were added.
    pub(super) fn zero(&self) -> Duration {
        self.zero.unwrap_or_default()
    }

    /// Adds an event.
    pub(super) fn add(&mut self, track: Track, kind: Kind, cat: &str, name: &str, args: &Args) {
        let ph = match kind {
            Kind::Metadata => 'M',
            Kind::Instant { .. } => 'i',
            Kind::Complete { .. } => 'X',
        };
        let (name, Track { pid, tid }, args) = (quoted(name), track, args.json());
        self.held.push(Event {
            kind,
            head: format!("\n{{\"name\":{name},\"cat\":\"{cat}\",\"ph\":\"{ph}\""),
            tail: format!(",\"pid\":{pid},\"tid\":{tid},\"args\":{args}}}"),
        });
        if self.is_fixed || self.held.len() >= HELD_MAX {
            self.release();
        }
    }

    /// Names a process or a track, and says where it stands.
    pub(super) fn name(&mut self, track: Track, of: &str, name: &str, place: u64) {
        let mut named = Args::default();
        named.text("name", name);
        let mut placed = Args::default();
        placed.number("sort_index", place);
        for (what, args) in [("_name", named), ("_sort_index", placed)] {
            let what = format!("{of}{what}");
            self.add(track, Kind::Metadata, "__metadata", &what, &args);
        }
    }

    /// Fixes the zero of the trace, and writes what waits for it.
    pub(super) fn release(&mut self) {
        self.is_fixed = true;
        let mut held = std::mem::take(&mut self.held);
        for Event { kind, head, tail } in held.drain(..) {
            let times = match kind {
                Kind::Metadata => String::new(),
                Kind::Instant { at } => format!(",\"ts\":{},\"s\":\"t\"", micros(self.since(at))),
                Kind::Complete { from, to, colour } => {
                    let (from, to) = (self.since(from), self.since(to));
                    let (ts, dur) = (micros(from), micros(to.saturating_sub(from)));
                    format!(",\"ts\":{ts},\"dur\":{dur},\"cname\":\"{colour}\"")
                }
            };
            self.write(&format!("{}{head}{times}{tail}", self.comma));
            self.comma = ",";
        }
        // Its memory is reused.
        self.held = held;
        self.held.shrink_to(1);
    }

    /// Ends the file.
    ///
    /// # Errors
    ///
    /// The first one of all events.
    pub(super) fn finish(mut self, other: &Args) -> io::Result<W> {
        self.write(&format!("\n],\"otherData\":{}}}\n", other.json()));
        if self.failed.is_none() {
            self.failed = self.out.flush().err();
        }
        match self.failed {
            Some(why) => Err(why),
            None => Ok(self.out),
        }
    }

    #[cfg(test)]
    pub(super) fn held_count(&self) -> usize {
        self.held.len()
    }

    /// Since the zero of the trace.
    fn since(&self, at: Duration) -> Duration {
        at.saturating_sub(self.zero())
    }

    fn write(&mut self, text: &str) {
        if self.failed.is_none() {
            self.failed = self.out.write_all(text.as_bytes()).err();
        }
    }
}

/// Microseconds with all nanoseconds, as text: a binary fraction would round them.
pub(super) fn micros(duration: Duration) -> String {
    let ns = duration.as_nanos();
    format!("{}.{:03}", ns / 1000, ns % 1000)
}
