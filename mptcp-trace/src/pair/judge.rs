//! What happened between the two ends of a connection or a path.

use std::time::Duration;

mod absent;
mod data;
mod path;

use super::{
    About, Capture, Ns, Offset,
    join::{By, Pair, PathPair},
    ns,
    seen::{Fell, PathSeen, Seen},
};
use crate::model::{Evidence, PathRole, Side};

/// What happened, in one word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Judgement {
    /// MPTCP at both ends.
    Mptcp,
    /// An MPTCP option left one end, and its packet arrived at the other one without it.
    OptionRemoved,
    /// Data, or an option, was changed.
    Changed,
    /// Packets left one end, and did not arrive at the other one.
    NeverArrived,
    /// A packet with RST arrived that the other end did not send.
    ResetBetween,
    /// Two connections: something in between terminates them.
    Proxy,
    /// One end decided it, and the other one agrees.
    DecidedByEnd,
    /// The end that opened it did not ask for MPTCP.
    NotRequested,
    /// The other capture does not have it.
    NotInOther,
    /// What is known does not suffice.
    CannotSay,
}

impl Judgement {
    /// Every one, in the order of output.
    pub const ALL: [Self; 10] = [
        Self::OptionRemoved,
        Self::Changed,
        Self::NeverArrived,
        Self::ResetBetween,
        Self::Proxy,
        Self::NotRequested,
        Self::DecidedByEnd,
        Self::NotInOther,
        Self::CannotSay,
        Self::Mptcp,
    ];

    /// The name as typed and as printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mptcp => "mptcp",
            Self::OptionRemoved => "option-removed",
            Self::Changed => "changed",
            Self::NeverArrived => "never-arrived",
            Self::ResetBetween => "reset-between",
            Self::Proxy => "proxy",
            Self::DecidedByEnd => "decided-by-end",
            Self::NotRequested => "not-requested",
            Self::NotInOther => "not-in-other",
            Self::CannotSay => "cannot-say",
        }
    }
}

/// The packet that it happened to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packet {
    /// The SYN.
    Syn,
    /// The SYN/ACK.
    SynAck,
    /// The SYN or the SYN/ACK.
    Handshake,
    /// The third ACK.
    ThirdAck,
    /// Data for the client.
    DataToClient,
    /// Data for the server.
    DataToServer,
}

impl Packet {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Syn,
        Self::SynAck,
        Self::Handshake,
        Self::ThirdAck,
        Self::DataToClient,
        Self::DataToServer,
    ];

    /// The name as printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::SynAck => "syn-ack",
            Self::Handshake => "syn-or-syn-ack",
            Self::ThirdAck => "third-ack",
            Self::DataToClient => "data-to-client",
            Self::DataToServer => "data-to-server",
        }
    }

    /// In words.
    const fn words(self) -> &'static str {
        match self {
            Self::Syn => "the SYN",
            Self::SynAck => "the SYN/ACK",
            Self::Handshake => "the SYN or the SYN/ACK",
            Self::ThirdAck => "the third ACK",
            Self::DataToClient => "data for the client",
            Self::DataToServer => "data for the server",
        }
    }
}

/// What happened to a connection or a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judged {
    /// In one word.
    pub what: Judgement,
    /// The packet, if one is known.
    pub packet: Option<Packet>,
    /// In a sentence, with what it rests on.
    pub why: String,
    /// When it left, on the clock of its host.
    pub left: Option<Ns>,
    /// When it arrived, or its absence was noticed, on the clock of its host.
    pub arrived: Option<Ns>,
}

impl Judged {
    fn new(what: Judgement, why: impl Into<String>) -> Self {
        Self {
            what,
            packet: None,
            why: why.into(),
            left: None,
            arrived: None,
        }
    }

    fn cannot_say(why: impl Into<String>) -> Self {
        Self::new(Judgement::CannotSay, why)
    }

    fn removed(packet: Packet, left: Option<Ns>, arrived: Option<Ns>, why: &str) -> Self {
        Self {
            packet: Some(packet),
            left,
            arrived,
            ..Self::new(
                Judgement::OptionRemoved,
                format!(
                    "{} left with the option and arrived without: taken out between the two ({why})",
                    packet.words()
                ),
            )
        }
    }
}

const SYN_ACK: &str = "MPCapableFallbackSYNACK";
const THIRD_ACK: &str = "MPCapableFallbackACK";
const FIRST_DATA: &str = "MPCapableDataFallback";
const CORRUPTION: &str = "DSSCorruptionFallback";

/// How MPTCP ended at one end of a connection.
enum State<'a> {
    Mptcp,
    Fell(&'a Fell),
    /// A TCP socket at an MPTCP listener; true if its client is known not to have asked.
    Plain(bool),
    /// It was never open.
    Failed(&'a PathSeen),
    Unknown,
}

impl<'a> State<'a> {
    fn of(seen: &'a Seen) -> Self {
        if let Some(fell) = &seen.fell {
            return Self::Fell(fell);
        }
        if let Some(asked_not) = seen.plain {
            return Self::Plain(asked_not);
        }
        match seen.first() {
            Some(path) if path.end.as_ref().is_some_and(|end| end.is_failed) => Self::Failed(path),
            _ if seen.is_unknown => Self::Unknown,
            Some(_) => Self::Mptcp,
            None if seen.paths.is_empty() => Self::Unknown,
            None => Self::Mptcp,
        }
    }
}

impl Fell {
    fn is(&self, cause: &str) -> bool {
        self.cause.as_deref() == Some(cause)
    }

    fn saw(&self, what: Evidence) -> bool {
        self.evidence.contains(&what)
    }

    fn named(&self) -> &str {
        self.cause.as_deref().unwrap_or("a cause that is unknown")
    }

    /// This end did not ask for MPTCP.
    fn is_of_own_host(&self) -> bool {
        matches!(
            self.cause.as_deref(),
            Some(
                "MPCapableSYNTXDisabled"
                    | "MPFallbackTokenInit"
                    | "MD5SigFallback"
                    | "SimultConnectFallback"
            )
        )
    }
}

/// Compares the ends of pairs.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    captures: [&'a Capture; 2],
    offset: Option<Offset>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(captures: [&'a Capture; 2], offset: Option<Offset>) -> Self {
        Self { captures, offset }
    }

    /// The capture that has the client's end of a pair, and the one that has the server's.
    fn sides(&self, pair: &Pair) -> [&'a Capture; 2] {
        let [first, second] = self.captures;
        match pair.reversed {
            false => [first, second],
            true => [second, first],
        }
    }

    /// The two ends of a pair.
    pub(super) fn ends(&self, pair: &Pair) -> [Option<&'a Seen>; 2] {
        let [client, server] = self.sides(pair);
        [
            pair.client.and_then(|it| client.ends.all.get(it)),
            pair.server.and_then(|it| server.ends.all.get(it)),
        ]
    }

    /// The two ends of a path of a pair.
    pub(super) fn ends_of_path(&self, pair: &Pair, path: &PathPair) -> [Option<&'a PathSeen>; 2] {
        let [client, server] = self.ends(pair);
        let [_, there] = self.sides(pair);
        let orphan = path.orphan.and_then(|it| there.ends.all.get(it));
        [
            client.and_then(|it| it.paths.get(path.client?)),
            match orphan {
                Some(orphan) => orphan.paths.first(),
                None => server.and_then(|it| it.paths.get(path.server?)),
            },
        ]
    }

    /// A time of one end of a pair, on the clock of the first capture.
    pub(super) fn on_first_clock(&self, pair: &Pair, is_server: bool, at: Ns) -> Ns {
        // The server's end is in the second capture unless the pair is reversed.
        match (self.offset, is_server != pair.reversed) {
            (Some(offset), true) => offset.to_client(at),
            (_, _) => at,
        }
    }

    fn about(&self, pair: &Pair, is_server: bool) -> &'a About {
        let [client, server] = self.sides(pair);
        match is_server {
            false => &client.about,
            true => &server.about,
        }
    }

    /// What happened to a connection.
    pub(super) fn connection(&self, pair: &Pair) -> Judged {
        match self.ends(pair) {
            [Some(client), Some(server)] if pair.by == Some(By::Time) => {
                self.proxy(pair, client, server)
            }
            [Some(client), Some(server)] => self.both(pair, client, server),
            [Some(client), None] => self.alone(pair, client, false),
            [None, Some(server)] => self.alone(pair, server, true),
            [None, None] => Judged::cannot_say("neither capture has it"),
        }
    }

    fn proxy(&self, pair: &Pair, client: &Seen, server: &Seen) -> Judged {
        if let Some(why) = self.absence_is_open(pair, client, true) {
            return Judged::cannot_say(why);
        }
        Judged {
            left: client
                .first()
                .and_then(|it| it.began)
                .map(|at| self.about(pair, false).wall(at)),
            arrived: Some(self.about(pair, true).wall(server.begin())),
            ..Judged::new(
                Judgement::Proxy,
                "two connections to the same service at the same time share neither sequence numbers \
                 nor keys: something in between ends the one and opens the other",
            )
        }
    }

    /// The client fell back in the handshake, and the server has a TCP socket: what became of the
    /// option. The times are those of the SYN, of the third ACK, and of the fallback.
    fn without_mptcp(fell: &Fell, asked_not: bool, times: [Option<Ns>; 3]) -> Judged {
        let [syn, accepted, fell_at] = times;
        if fell.is_of_own_host() {
            return Judged::new(
                Judgement::NotRequested,
                format!("the client did not ask for MPTCP: {}", fell.named()),
            );
        }
        if fell.is("MPCapableSYNTXDrop") {
            return Judged {
                packet: Some(Packet::Syn),
                left: syn,
                arrived: accepted,
                ..Judged::new(
                    Judgement::NeverArrived,
                    "SYNs with the option were not answered, one without it was: those with it are \
                     dropped between the two (or their answers are)",
                )
            };
        }
        let (packet, left, arrived, why) = match (asked_not, fell.is_cleared) {
            (true, _) => (
                Packet::Syn,
                syn,
                accepted,
                "the server saw a client without MPTCP",
            ),
            (false, true) => (
                Packet::SynAck,
                accepted,
                fell_at,
                "the SYN/ACK that arrived has padding where the server's option was",
            ),
            (false, false) => (
                Packet::Handshake,
                syn,
                accepted,
                "the server's attach method does not tell which of the two",
            ),
        };
        Judged::removed(packet, left, arrived, why)
    }

    fn both(&self, pair: &Pair, client: &Seen, server: &Seen) -> Judged {
        let (here, there) = (State::of(client), State::of(server));
        let syn =
            (client.first().and_then(|it| it.began)).map(|at| self.about(pair, false).wall(at));
        let accepted = Some(self.about(pair, true).wall(server.begin()));
        let fell_at =
            |is_server: bool, fell: &Fell| fell.at.map(|at| self.about(pair, is_server).wall(at));
        match (&here, &there) {
            (State::Unknown, _) | (_, State::Unknown) => {
                let who = if matches!(here, State::Unknown) {
                    "client"
                } else {
                    "server"
                };
                Judged::cannot_say(format!(
                    "whether it fell back at the {who} is unknown: it was open before that capture \
                     began, or not all of it was observed"
                ))
            }
            (State::Failed(path), _) => self.path_that_failed(pair, path, server.first()),
            (_, State::Failed(path)) => self.path_that_failed(pair, path, client.first()),
            (State::Fell(fell), State::Plain(asked_not))
                if fell.is_of_own_host() || fell.is("MPCapableSYNTXDrop") || fell.is(SYN_ACK) =>
            {
                Self::without_mptcp(fell, *asked_not, [syn, accepted, fell_at(false, fell)])
            }
            (State::Fell(fell), State::Fell(other)) if fell.is(SYN_ACK) && other.is(THIRD_ACK) => {
                Judged::removed(
                    Packet::SynAck,
                    accepted,
                    fell_at(false, fell),
                    "the server answered with MPTCP, as its fallback shows: MPCapableFallbackACK",
                )
            }
            // The client has had a SYN/ACK with the option.
            (State::Mptcp | State::Fell(_), State::Plain(_)) => {
                self.third_ack(&here, syn, accepted)
            }
            (State::Mptcp | State::Fell(_), State::Fell(other)) if other.is(THIRD_ACK) => {
                self.third_ack(&here, syn, accepted)
            }
            (State::Fell(fell), _) if fell.is(SYN_ACK) => Judged::cannot_say(format!(
                "the client got a SYN/ACK without MPTCP, but the server has MPTCP ({})",
                match &there {
                    State::Fell(other) => other.named(),
                    State::Mptcp | State::Plain(_) | State::Failed(_) | State::Unknown => {
                        "it did not fall back"
                    }
                }
            )),
            (State::Fell(fell), State::Fell(other)) => self.data(pair, Some(fell), Some(other)),
            (State::Fell(fell), State::Mptcp) => self.data(pair, Some(fell), None),
            (State::Mptcp, State::Fell(other)) => self.data(pair, None, Some(other)),
            (State::Plain(_), _) => Judged::cannot_say("the client's end is that of a server"),
            (State::Mptcp, State::Mptcp) => self.worst_path(pair),
        }
    }
}

/// A length of time in words.
pub(super) fn duration(of: Ns) -> String {
    crate::model::short(Duration::from_nanos(of.unsigned_abs()))
}

/// The span of a capture on its clock.
pub(super) fn span(about: &About) -> (Ns, Ns) {
    let epoch = ns(about.epoch);
    let of = |at| epoch.saturating_add(ns(at));
    (of(about.span.0), of(about.span.1))
}
