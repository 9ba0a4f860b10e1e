//! The tracer's JSON lines, with the fields that the lab reads; docs/output.md says what each means.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde::Deserialize;

use crate::{netns::Counters, report::Endpoint};

/// Types that [`TracedLine`] parses.
const KNOWN_TYPES: [&str; 25] = [
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
    "path_up",
    "path_failed",
    "connect_failed",
    "path_down",
    "path_stale",
    "path_recovered",
    "path_priority",
    "path_open",
    "address_announced",
    "address_echoed",
    "address_dropped",
    "address_over_limit",
    "address_removed",
    "closed",
    "end",
];

/// Whether [`TracedLine`] has this type.
pub(crate) fn is_known(kind: &str) -> bool {
    KNOWN_TYPES.contains(&kind)
}

/// A line of `mptcp-trace --json`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub(crate) enum TracedLine {
    Start(Start),
    Query(Box<Traced>),
    /// A connection fell back.
    Fallback(Box<Found>),
    /// The kernel refused a fallback and reset the subflow.
    Refused(Box<Found>),
    /// A plain TCP connection at an MPTCP listener.
    Plain(Box<Found>),
    /// A socket that existed before the tracer started.
    Existing(Box<Found>),
    /// MPTCP is disabled for a while in a network namespace.
    Blackhole(Box<Found>),
    Verdict(Box<Concluded>),
    /// The kernel refused a socket option on an MPTCP socket.
    OptionRefused(Denied),
    /// The kernel refused to create an MPTCP socket.
    SocketRefused(Denied),
    /// A path came up.
    PathUp(Box<PathLine>),
    /// A join failed.
    PathFailed(Box<PathLine>),
    /// The first path of a connection failed.
    ConnectFailed(Box<PathLine>),
    /// A path ended.
    PathDown(Box<PathLine>),
    /// The scheduler avoids a path.
    PathStale(Box<PathLine>),
    /// The scheduler uses a path again.
    PathRecovered(Box<PathLine>),
    /// The priority of a path changed.
    PathPriority(Box<PathLine>),
    /// An address was announced or removed, or a path was open before.
    #[serde(
        rename = "address_announced",
        alias = "path_open",
        alias = "address_echoed",
        alias = "address_dropped",
        alias = "address_over_limit",
        alias = "address_removed"
    )]
    Address(Box<PathLine>),
    /// A connection ended.
    Closed(Box<ClosedLine>),
    End(End),
}

/// Functions that return the contents of a line of one type.
macro_rules! contents {
    ($($name:ident -> $type:ident of $contents:ty,)*) => {$(
        pub(crate) fn $name(&self) -> Option<&$contents> {
            if let Self::$type(contents) = self {
                Some(contents)
            } else {
                None
            }
        }
    )*};
}

impl TracedLine {
    contents! {
        start -> Start of Start,
        end -> End of End,
        query -> Query of Traced,
        fallback -> Fallback of Found,
        blackhole -> Blackhole of Found,
        closed -> Closed of ClosedLine,
    }

    /// The contents of a line about a refusal of a socket or an option.
    pub(crate) fn denied(&self) -> Option<&Denied> {
        if let Self::OptionRefused(denied) | Self::SocketRefused(denied) = self {
            Some(denied)
        } else {
            None
        }
    }

    /// Limits that the sensors of this run reported.
    pub(crate) fn limits(lines: &[Self]) -> impl Iterator<Item = &String> {
        let sensors = lines
            .iter()
            .filter_map(Self::start)
            .flat_map(|it| &it.sensors);
        sensors.flat_map(|sensor| &sensor.limits)
    }

    /// Parses a line; none for an unknown type, which the output contract requires readers to
    /// ignore.
    pub(crate) fn parse(line: &str) -> anyhow::Result<Option<Self>> {
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

/// Socket part of a connection's id (`ADDRESS@BORN`, followed by `#2` and so on after a reconnect).
pub(crate) fn socket_of(id: &str) -> &str {
    id.split_once('#').map_or(id, |(socket, _attempt)| socket)
}

/// Time at which the socket of a connection was first seen.
fn born_ns(id: &str) -> Option<u64> {
    let (_address, born) = socket_of(id).rsplit_once('@')?;
    born.parse().ok()
}

/// A refusal because of MPTCP.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct Denied {
    #[serde(default)]
    pub(crate) boottime_ns: u64,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) comm: String,
    pub(crate) netns: u64,
    pub(crate) family: String,
    pub(crate) errno: String,
    pub(crate) why: String,
    pub(crate) rung: String,
    #[serde(flatten)]
    pub(crate) option: Option<DeniedOption>,
}

/// A refused option.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct DeniedOption {
    pub(crate) call: String,
    pub(crate) level: i32,
    pub(crate) optname: i32,
    pub(crate) option: Option<String>,
    pub(crate) local: Endpoint,
    pub(crate) remote: Endpoint,
}

/// What the tracer reports about itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct Start {
    pub(crate) sensors: Vec<Sensor>,
    /// Inode numbers of the network namespaces that existed before the tracer was live. The lab
    /// adds them.
    #[serde(skip)]
    pub(crate) namespaces: BTreeSet<u64>,
}

/// One sensor.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct Sensor {
    pub(crate) rung: String,
    pub(crate) limits: Vec<String>,
    #[serde(default)]
    pub(crate) probes: Vec<String>,
}

/// One query.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct Traced {
    #[serde(default)]
    pub(crate) boottime_ns: u64,
    /// Permanent id of the connection; none if the tracer did not see the socket's creation.
    pub(crate) id: Option<String>,
    pub(crate) socket: String,
    pub(crate) netns: u64,
    pub(crate) api: String,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) inode: Option<u64>,
    pub(crate) protocol: String,
    pub(crate) family: String,
    pub(crate) state: String,
    pub(crate) local: Endpoint,
    pub(crate) remote: Endpoint,
    pub(crate) answer: Option<String>,
    pub(crate) errno: Option<String>,
    pub(crate) fell_back: Option<bool>,
    pub(crate) verdict: Option<String>,
    pub(crate) why: Option<String>,
    pub(crate) cause: Option<String>,
    pub(crate) delay_ns: Option<u64>,
    pub(crate) rung: String,
}

/// Closing verdict of a connection.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct Concluded {
    pub(crate) id: String,
    pub(crate) verdict: String,
    pub(crate) why: String,
    pub(crate) cause: Option<String>,
    pub(crate) fell_back_at_ns: Option<u64>,
    pub(crate) delay_ns: Option<u64>,
    pub(crate) closed_by: String,
    #[serde(default)]
    pub(crate) doubt: Option<String>,
    #[serde(rename = "questions")]
    pub(crate) queries: u64,
    pub(crate) answered_at_ns: Option<u64>,
    pub(crate) owner: Option<Owner>,
    pub(crate) netns: u64,
    pub(crate) socket: String,
    pub(crate) local: Endpoint,
    pub(crate) remote: Endpoint,
}

/// A finding about a connection.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct Found {
    /// Time of the event on `CLOCK_BOOTTIME`.
    #[serde(default)]
    pub(crate) boottime_ns: u64,
    pub(crate) id: String,
    /// MIB counter that names the cause; none if there is no cause, or if it is unknown.
    pub(crate) cause: Option<String>,
    pub(crate) known: String,
    pub(crate) side: Option<String>,
    pub(crate) evidence: Vec<String>,
    pub(crate) existing: bool,
    /// In a blackhole line: how long MPTCP stays disabled, milliseconds.
    pub(crate) off_ms: Option<u64>,
    pub(crate) owner: Option<Owner>,
    pub(crate) netns: u64,
    pub(crate) family: String,
    pub(crate) local: Endpoint,
    pub(crate) remote: Endpoint,
    pub(crate) rung: String,
    /// The packet that decided.
    #[serde(default)]
    pub(crate) packet: Option<PacketLine>,
}

/// The packet that decided.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct PacketLine {
    pub(crate) flags: String,
    pub(crate) ttl: u8,
    pub(crate) options: Vec<String>,
    pub(crate) conclusions: Vec<ShownLine>,
}

/// What a packet shows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct ShownLine {
    pub(crate) name: String,
    pub(crate) certainty: String,
}

impl PacketLine {
    /// Names of what it shows, the most important first.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.conclusions.iter().map(|it| it.name.as_str()).collect()
    }
}

impl Found {
    /// Whether the connection is older than this time on `CLOCK_BOOTTIME`.
    pub(crate) fn is_before(&self, since_ns: u64) -> bool {
        born_ns(&self.id).is_some_and(|born| born < since_ns)
    }
}

impl Concluded {
    /// Whether the connection is older than this time on `CLOCK_BOOTTIME`.
    pub(crate) fn is_before(&self, since_ns: u64) -> bool {
        born_ns(&self.id).is_some_and(|born| born < since_ns)
    }
}

impl PathLine {
    /// Whether the line, or the connection that it is about, is older than this time on
    /// `CLOCK_BOOTTIME`.
    pub(crate) fn is_before(&self, since_ns: u64) -> bool {
        let born = self.id.as_deref().and_then(born_ns);
        self.boottime_ns < since_ns || born.is_some_and(|born| born < since_ns)
    }
}

impl ClosedLine {
    /// Whether the connection is older than this time on `CLOCK_BOOTTIME`.
    pub(crate) fn is_before(&self, since_ns: u64) -> bool {
        born_ns(&self.id).is_some_and(|born| born < since_ns)
    }
}

/// An event of a path.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct PathLine {
    /// Time of the event on `CLOCK_BOOTTIME`.
    pub(crate) boottime_ns: u64,
    /// Id of the connection.
    pub(crate) id: Option<String>,
    /// Id of the path; none if it never had a socket.
    pub(crate) path_id: Option<String>,
    pub(crate) role: String,
    pub(crate) cause: Option<String>,
    pub(crate) known: String,
    pub(crate) reset: Option<ResetLine>,
    pub(crate) side: Option<String>,
    /// In a line about an end: whether the path had been up.
    pub(crate) up: bool,
    pub(crate) lifetime_ns: Option<u64>,
    pub(crate) ledger: Option<LedgerLine>,
    pub(crate) existing: bool,
    pub(crate) owner: Option<Owner>,
    pub(crate) netns: u64,
    pub(crate) local: Endpoint,
    pub(crate) remote: Endpoint,
    pub(crate) rung: String,
    /// The packet that decided.
    #[serde(default)]
    pub(crate) packet: Option<PacketLine>,
}

/// What a path carried.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct LedgerLine {
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_retransmitted: u64,
    pub(crate) bytes_received: u64,
    pub(crate) retransmissions: u32,
    pub(crate) segments_sent: u32,
    pub(crate) segments_received: u32,
    pub(crate) rtt_ns: Option<u64>,
    pub(crate) rtt_min_ns: Option<u64>,
}

/// The reason in an RST.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct ResetLine {
    pub(crate) code: u8,
    pub(crate) name: Option<String>,
}

/// The end of a connection.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct ClosedLine {
    pub(crate) boottime_ns: u64,
    pub(crate) id: String,
    pub(crate) outcome: String,
    pub(crate) side: Option<String>,
    pub(crate) paths_tried: u32,
    pub(crate) paths_up: u32,
    pub(crate) paths_failed: u32,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) never_tried: Option<String>,
    pub(crate) incomplete: bool,
    pub(crate) owner: Option<Owner>,
    pub(crate) netns: u64,
    pub(crate) local: Endpoint,
    pub(crate) remote: Endpoint,
}

/// Owner of a connection.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct Owner {
    pub(crate) pid: u32,
    pub(crate) comm: String,
    pub(crate) via: String,
}

/// Counters at the end.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct End {
    pub(crate) findings: u64,
    /// Events of paths that have a line only on request; older tracers omit it.
    #[serde(default)]
    pub(crate) routine: u64,
    pub(crate) losses: Vec<Losses>,
    #[serde(default)]
    pub(crate) reconciliation: Vec<Reconciled>,
    /// The same for events of paths; older tracers omit it.
    #[serde(default)]
    pub(crate) path_reconciliation: Vec<Reconciled>,
}

/// The kernel's own counters and the traced ones, in one network namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct Reconciled {
    pub(crate) netns: u64,
    pub(crate) counted: Counters,
    pub(crate) traced: Counters,
    pub(crate) agrees: bool,
    pub(crate) why: Option<String>,
}

/// Runs of a sensor that the kernel may skip in a small run: too few to estimate a rate.
pub(crate) const MISSED_MAX: u64 = 3;

/// Loss counters of a sensor.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct Losses {
    #[serde(default)]
    pub(crate) sensor: String,
    pub(crate) seen: u64,
    pub(crate) emitted: u64,
    pub(crate) filtered: u64,
    /// Dropped by the per-process rate cap; a tracer without a cap omits it.
    #[serde(default)]
    pub(crate) capped: u64,
    pub(crate) ring_full: u64,
    pub(crate) faulted: u64,
    pub(crate) table_full: u64,
    pub(crate) unfinished: u64,
    pub(crate) missed: u64,
}

impl Losses {
    /// Number of events seen and admitted, but not printed.
    pub(crate) fn lost(&self) -> u64 {
        self.ring_full + self.faulted + self.table_full + self.unfinished
    }

    /// Number of events that no line can report: lost ones, and queries whose probe run the kernel
    /// skipped.
    ///
    /// Skipped runs of the fallback sensor's probes do not count. The kernel skips one when a
    /// packet arrives in the middle of another, and the tracer finds that fallback later; the
    /// reconciliation with the kernel's counters proves it. A query, however, is visible only once.
    /// With the attach method `tracepoint` that place is the return of every system call, so a
    /// skipped run is hardly ever a query; there the lines are the proof.
    pub(crate) fn gone(&self, rung: &str) -> u64 {
        let missed = if self.sensor == "fallback" || rung == "tracepoint" {
            0
        } else {
            self.missed
        };
        self.lost() + missed
    }

    /// Whether everything seen is accounted for.
    pub(crate) fn balances(&self) -> bool {
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
            routine: 0,
            findings: 0,
            losses: Vec::new(),
            reconciliation: Vec::new(),
            path_reconciliation: Vec::new(),
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
