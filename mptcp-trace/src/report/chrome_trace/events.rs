//! Writes events in the Trace Event Format, one line each. An error is kept until the end.

use std::io::{self, Write};

use serde_json::{Map, Value};

use crate::report::words::shown;

/// Longest text in an argument, characters.
const TEXT_MAX: usize = 400;
/// Largest integer that every reader of JSON reads exactly.
const INTEGER_MAX: u64 = 1 << 53;

/// Where an event is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Track {
    pub(super) pid: u64,
    pub(super) tid: u64,
}

/// Kind of an event, with its times in nanoseconds since the origin of the trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A name of a process or a track.
    Metadata,
    /// A moment.
    Instant { at: u64 },
    /// A span, in one of the format's own colours.
    Complete {
        at: u64,
        length: u64,
        colour: &'static str,
    },
}

/// Named details of an event.
#[derive(Clone, Debug, Default)]
pub(super) struct Args(Map<String, Value>);

impl Args {
    /// Adds a text, which may come from outside.
    pub(super) fn text(mut self, name: &str, text: impl AsRef<str>) -> Self {
        let text = shown(text.as_ref(), TEXT_MAX);
        self.0.insert(name.to_owned(), text.into());
        self
    }

    /// Adds a number; as a string, if a reader might round it.
    pub(super) fn number(mut self, name: &str, number: u64) -> Self {
        let value = match number {
            ..=INTEGER_MAX => number.into(),
            _ => number.to_string().into(),
        };
        self.0.insert(name.to_owned(), value);
        self
    }

    pub(super) fn flag(mut self, name: &str, is: bool) -> Self {
        self.0.insert(name.to_owned(), is.into());
        self
    }

    pub(super) fn object(mut self, name: &str, fields: Self) -> Self {
        self.0.insert(name.to_owned(), fields.into());
        self
    }

    pub(super) fn list(mut self, name: &str, rows: impl Iterator<Item = Self>) -> Self {
        let rows: Vec<Value> = rows.map(Value::from).collect();
        self.0.insert(name.to_owned(), rows.into());
        self
    }

    /// Adds details of something that may be missing.
    pub(super) fn maybe<T>(self, of: Option<T>, add: impl FnOnce(Self, T) -> Self) -> Self {
        match of {
            Some(of) => add(self, of),
            None => self,
        }
    }
}

impl From<Args> for Value {
    fn from(args: Args) -> Self {
        args.0.into()
    }
}

/// Where events are written.
pub(super) struct Events<W> {
    out: W,
    is_empty: bool,
    failed: Option<io::Error>,
}

impl<W: Write> Events<W> {
    pub(super) fn new(out: W) -> Self {
        let mut events = Self {
            out,
            is_empty: true,
            failed: None,
        };
        events.write(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
        events
    }

    /// Writes an event.
    pub(super) fn add(&mut self, track: Track, kind: Kind, cat: &str, name: &str, args: Args) {
        let (ph, times) = match kind {
            Kind::Metadata => ("M", String::new()),
            Kind::Instant { at } => ("i", format!(",\"ts\":{},\"s\":\"t\"", micros(at))),
            Kind::Complete { at, length, colour } => (
                "X",
                format!(
                    ",\"ts\":{},\"dur\":{},\"cname\":\"{colour}\"",
                    micros(at),
                    micros(length)
                ),
            ),
        };
        let Track { pid, tid } = track;
        let comma = if self.is_empty { "" } else { "," };
        self.is_empty = false;
        let line = format!(
            "{comma}\n{{\"name\":{},\"cat\":\"{cat}\",\"ph\":\"{ph}\"{times},\"pid\":{pid},\"tid\":{tid},\"args\":{}}}",
            Value::from(name),
            Value::from(args)
        );
        self.write(line.as_bytes());
    }

    /// Names a process or a track, and says where it stands.
    pub(super) fn name(&mut self, track: Track, of: &str, name: &str, place: u64) {
        let [what, sort] = ["_name", "_sort_index"].map(|what| format!("{of}{what}"));
        let named = Args::default().text("name", name);
        self.add(track, Kind::Metadata, "__metadata", &what, named);
        let placed = Args::default().number("sort_index", place);
        self.add(track, Kind::Metadata, "__metadata", &sort, placed);
    }

    /// Ends the file.
    ///
    /// # Errors
    ///
    /// The first one of all events.
    pub(super) fn finish(mut self, other: Args) -> io::Result<W> {
        let end = format!("\n],\"otherData\":{}}}\n", Value::from(other));
        self.write(end.as_bytes());
        if self.failed.is_none() {
            self.failed = self.out.flush().err();
        }
        match self.failed {
            Some(why) => Err(why),
            None => Ok(self.out),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.out.write_all(bytes).err();
        }
    }
}

/// Microseconds with all nanoseconds, as text: a binary fraction would round them.
pub(super) fn micros(ns: u64) -> String {
    format!("{}.{:03}", ns / 1000, ns % 1000)
}
