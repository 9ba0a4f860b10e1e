//! The tracer's JSON lines, as far as the lab reads them (docs/output.md).

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde::Deserialize;

use crate::{netns::Counters, report::Endpoint};

/// The types that [`TracedLine`] knows.
const KNOWN_TYPES: [&str; 11] = [
    "start",
    "query",
    "fallback",
    "refused",
    "plain",
    "existing",
    "blackhole",
    "verdict",
    "option_refused",
    "socket_refused",
    "end",
];

/// [`TracedLine`] has lines of this type.
#[must_use]
pub fn is_known(kind: &str) -> bool {
    KNOWN_TYPES.contains(&kind)
}

/// A line of `mptcp-trace --json`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum TracedLine {
    /// The first.
    Start(Start),
    /// An application asked.
    Query(Box<Traced>),
    /// A connection fell back.
    Fallback(Box<Found>),
    /// A fallback was refused, and the subflow reset.
    Refused(Box<Found>),
    /// A plain TCP connection at an MPTCP listener.
    Plain(Box<Found>),
    /// A socket that was there before.
    Existing(Box<Found>),
    /// MPTCP is off for a while in a network namespace.
    Blackhole(Box<Found>),
    /// What was left to say of a connection at its end.
    Verdict(Box<Concluded>),
    /// A socket option was refused to an MPTCP socket.
    OptionRefused(Denied),
    /// An MPTCP socket was refused.
    SocketRefused(Denied),
    /// The last.
    End(End),
}

impl TracedLine {
    /// If it is the first line.
    #[must_use]
    pub const fn start(&self) -> Option<&Start> {
        if let Self::Start(start) = self {
            Some(start)
        } else {
            None
        }
    }

    /// If it is the last line.
    #[must_use]
    pub const fn end(&self) -> Option<&End> {
        if let Self::End(end) = self {
            Some(end)
        } else {
            None
        }
    }

    /// If a connection fell back.
    #[must_use]
    pub fn into_fallback(self) -> Option<Found> {
        if let Self::Fallback(found) = self {
            Some(*found)
        } else {
            None
        }
    }

    /// If MPTCP was switched off for a while.
    #[must_use]
    pub fn blackhole(&self) -> Option<&Found> {
        if let Self::Blackhole(found) = self {
            Some(found)
        } else {
            None
        }
    }

    /// Reads a line; none if it is of a type that is not for us, as the contract wants it.
    ///
    /// # Errors
    ///
    /// Fails if it is no JSON, or lacks what its type must have.
    pub fn parse(line: &str) -> anyhow::Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Any {
            r#type: String,
        }
        let why = match serde_json::from_str(line) {
            Ok(known) => return Ok(Some(known)),
            Err(why) => why,
        };
        match serde_json::from_str::<Any>(line) {
            Ok(any) if !is_known(&any.r#type) => Ok(None),
            Ok(_) | Err(_) => Err(why).with_context(|| format!("cannot read {line:?}")),
        }
    }
}

/// The socket of a connection (`ADDRESS@BORN`, and `#2` and so on if the socket has connected anew).
#[must_use]
pub fn socket_of(id: &str) -> &str {
    id.split_once('#').map_or(id, |(socket, _attempt)| socket)
}

/// When the socket of a connection was first seen.
fn born_ns(id: &str) -> Option<u64> {
    let (_address, born) = socket_of(id).rsplit_once('@')?;
    born.parse().ok()
}

/// Something that was refused because of MPTCP.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Denied {
    /// When, on `CLOCK_BOOTTIME`.
    #[serde(default)]
    pub boottime_ns: u64,
    /// Process that was refused.
    pub pid: u32,
    /// Thread that was refused.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Number of the network namespace.
    pub netns: u64,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// The error that it got.
    pub errno: String,
    /// What that means.
    pub why: String,
    /// How it was seen.
    pub rung: String,
    /// What was refused, if it is an option.
    #[serde(flatten)]
    pub option: Option<DeniedOption>,
}

/// An option that was refused.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct DeniedOption {
    /// `setsockopt` or `getsockopt`.
    pub call: String,
    /// Its level.
    pub level: i32,
    /// Its number.
    pub optname: i32,
    /// Its name, if it is one of TCP's.
    pub option: Option<String>,
    /// Own address of the socket.
    pub local: Endpoint,
    /// The other end's address.
    pub remote: Endpoint,
}

/// What the tracer says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Start {
    /// Its sensors.
    pub sensors: Vec<Sensor>,
    /// Numbers of the network namespaces that existed before the tracer was live. The lab adds them.
    #[serde(skip)]
    pub namespaces: BTreeSet<u64>,
}

/// One sensor.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Sensor {
    /// The rung in use.
    pub rung: String,
    /// What it cannot tell.
    pub limits: Vec<String>,
    /// What is attached where.
    #[serde(default)]
    pub probes: Vec<String>,
}

/// One query.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Traced {
    /// When it was asked, on `CLOCK_BOOTTIME`.
    #[serde(default)]
    pub boottime_ns: u64,
    /// The connection, for ever; none of a socket whose birth was not seen.
    pub id: Option<String>,
    /// Where the socket is in the kernel.
    pub socket: String,
    /// Number of its network namespace.
    pub netns: u64,
    /// How it was asked.
    pub api: String,
    /// Process that asked.
    pub pid: u32,
    /// Thread that asked.
    pub tid: u32,
    /// Inode number of the socket.
    pub inode: Option<u64>,
    /// What the application holds.
    pub protocol: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// State of the connection.
    pub state: String,
    /// Own address.
    pub local: Endpoint,
    /// The other end's address.
    pub remote: Endpoint,
    /// What the kernel said.
    pub answer: Option<String>,
    /// The error that the caller got.
    pub errno: Option<String>,
    /// Whether the connection fell back.
    pub fell_back: Option<bool>,
    /// What is concluded of the answer.
    pub verdict: Option<String>,
    /// The same as a sentence.
    pub why: Option<String>,
    /// Name of the counter that tells why it fell back.
    pub cause: Option<String>,
    /// Between the fallback and the answer.
    pub delay_ns: Option<u64>,
    /// How it was seen.
    pub rung: String,
}

/// What was left to say of a connection at its end.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Concluded {
    /// The connection, for ever.
    pub id: String,
    /// What is concluded.
    pub verdict: String,
    /// The same as a sentence.
    pub why: String,
    /// Name of the counter that tells why it fell back.
    pub cause: Option<String>,
    /// When it fell back.
    pub fell_back_at_ns: Option<u64>,
    /// Between the fallback and the last answer.
    pub delay_ns: Option<u64>,
    /// What closed it: `death`, `eviction` or `exit`.
    pub closed_by: String,
    /// Why that may be wrong.
    #[serde(default)]
    pub doubt: Option<String>,
    /// How often it was asked about.
    pub questions: u64,
    /// When the last question was answered.
    pub answered_at_ns: Option<u64>,
    /// Whose it is.
    pub owner: Option<Owner>,
    /// Number of its network namespace.
    pub netns: u64,
    /// Where the socket was in the kernel.
    pub socket: String,
    /// Own address.
    pub local: Endpoint,
    /// The other end's address.
    pub remote: Endpoint,
}

/// What was found out about a connection.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Found {
    /// The connection, for ever.
    pub id: String,
    /// Name of the counter that tells why; none if there is none, or nobody knows.
    pub cause: Option<String>,
    /// How the cause is known: `reported`, `inferred` or `unknown`.
    pub known: String,
    /// `active` or `passive`.
    pub side: Option<String>,
    /// What else speaks for it.
    pub evidence: Vec<String>,
    /// The socket was there before.
    pub existing: bool,
    /// For how long MPTCP is off, of a blackhole.
    pub off_ms: Option<u64>,
    /// Whose it is.
    pub owner: Option<Owner>,
    /// Number of its network namespace.
    pub netns: u64,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Own address.
    pub local: Endpoint,
    /// The other end's address.
    pub remote: Endpoint,
    /// How it was seen.
    pub rung: String,
}

impl Found {
    /// The connection is older than this moment on `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn is_before(&self, since_ns: u64) -> bool {
        born_ns(&self.id).is_some_and(|born| born < since_ns)
    }
}

impl Concluded {
    /// The connection is older than this moment on `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn is_before(&self, since_ns: u64) -> bool {
        born_ns(&self.id).is_some_and(|born| born < since_ns)
    }
}

/// Whose a connection is.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Owner {
    /// The process.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// How that is known.
    pub via: String,
}

/// The counters at the end.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct End {
    /// Lines before this one.
    pub findings: u64,
    /// One entry a sensor.
    pub losses: Vec<Losses>,
    /// One entry a network namespace.
    #[serde(default)]
    pub reconciliation: Vec<Reconciled>,
}

/// The kernel's own counters against what was traced, in one network namespace.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Reconciled {
    /// Its number.
    pub netns: u64,
    /// What the kernel counted.
    pub counted: Counters,
    /// What was traced.
    pub traced: Counters,
    /// Both are the same.
    pub agrees: bool,
    /// Why they are not, or why nobody knows.
    pub why: Option<String>,
}

/// Counters of a sensor.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Losses {
    /// Name of the sensor.
    #[serde(default)]
    pub sensor: String,
    /// Questions that the probes saw.
    pub seen: u64,
    /// Put into the ring.
    pub emitted: u64,
    /// Left out by the filter.
    pub filtered: u64,
    /// Left out because their process asked too much at once; a tracer without a cap does not tell.
    #[serde(default)]
    pub capped: u64,
    /// Lost: ring full.
    pub ring_full: u64,
    /// Lost: not readable.
    pub faulted: u64,
    /// Lost: too many at once.
    pub table_full: u64,
    /// Lost: return not seen.
    pub unfinished: u64,
    /// Skipped by the kernel, never seen.
    pub missed: u64,
}

impl Losses {
    /// Seen, wanted, and not printed.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.ring_full + self.faulted + self.table_full + self.unfinished
    }

    /// What no line will ever tell: lost, or a query that the kernel did not let a probe see.
    ///
    /// A skipped run of a probe of the fallback sensor is not among them. The kernel skips one when a packet comes
    /// in the middle of another, and what it would have told is found later: the comparison with the kernel's
    /// counters proves it. A query is seen at that one place or never. On the rung `tracepoint` that place is the return
    /// of every system call, so that a skipped run is hardly ever one of a query: there the lines are the proof.
    #[must_use]
    pub fn gone(&self, rung: &str) -> u64 {
        let missed = if self.sensor == "fallback" || rung == "tracepoint" {
            0
        } else {
            self.missed
        };
        self.lost() + missed
    }

    /// Everything seen is accounted for.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.seen == self.emitted + self.filtered + self.capped + self.lost()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_socket_are_of_one_socket() {
        assert_eq!(socket_of("0x1@7"), "0x1@7");
        assert_eq!(socket_of("0x1@7#2"), "0x1@7");
        assert_eq!(born_ns("0x1@7#12"), Some(7));
    }

    #[test]
    fn an_identity_says_when_its_socket_was_first_seen() {
        assert_eq!(born_ns("0xffff8882@762093342092"), Some(762_093_342_092));
        for other in ["", "0xffff8882", "0xffff8882@", "0xffff8882@x"] {
            assert_eq!(born_ns(other), None, "{other}");
        }
    }

    #[test]
    fn lines_of_other_types_are_for_others_and_broken_ones_are_not_overlooked() {
        let end = r#"{"type":"end","data":{"findings":0,"losses":[],"new":1}}"#;
        let expected = End {
            findings: 0,
            losses: Vec::new(),
            reconciliation: Vec::new(),
        };
        assert_eq!(
            TracedLine::parse(end).unwrap(),
            Some(TracedLine::End(expected))
        );
        let other = r#"{"type":"whatever","data":{}}"#;
        assert_eq!(TracedLine::parse(other).unwrap(), None);
        for broken in [
            r#"{"type":"query","data":{}}"#,
            r#"{"type":"fallback","data":{}}"#,
            r#"{"type":"verdict","data":{}}"#,
            "{}",
            "",
            "fallback",
        ] {
            assert!(TracedLine::parse(broken).is_err(), "{broken}");
        }
    }
}
