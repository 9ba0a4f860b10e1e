//! What follows from the answers; pure.

use super::{
    evidence::{Answer, Back, Data, DataEnd, Evidence, Hop, Report},
    options::OptionState,
    parse::What,
};
pub use crate::model::Certainty;

/// Part of a path: behind the first of these hops, up to the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The last hop that something reached unchanged; 0 is this host.
    pub after: u8,
    /// The first hop that it did not reach so; none is the destination.
    pub before: Option<u8>,
}

/// What is concluded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// MPTCP passes in both directions.
    Passes,
    /// `MP_CAPABLE` is taken out of the SYN.
    TakenOut,
    /// SYNs with MPTCP are lost, and those without it are not.
    Dropped,
    /// SYNs with MPTCP are answered by an RST or "unreachable", and those without it are not.
    Refused,
    /// A machine nearer than the destination answers.
    AnotherMachine,
    /// `MP_CAPABLE` is taken out of the SYN/ACK.
    TakenOutBack,
    /// The SYN/ACK has the option of the SYN.
    Mirrored,
    /// The peer speaks another version of MPTCP, or its option is no answer.
    OtherVersion,
    /// The option reached the last hop that can say so; the answer has none.
    Peer,
    /// Options of the size of `MP_JOIN` are taken out.
    JoinTakenOut,
    /// DSS is taken out of segments to the destination.
    DataTakenOut,
    /// DSS does not come back.
    DataLost,
    /// The handshake passes; nothing is known about data.
    HandshakeOnly,
    /// Nothing listens on the port.
    Closed,
    /// The destination does not answer.
    NoAnswer,
}

/// What a conclusion says about MPTCP as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passes {
    /// It passes.
    Yes,
    /// It does not.
    No,
    /// That cannot be said.
    Unknown,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Passes,
        Self::TakenOut,
        Self::Dropped,
        Self::Refused,
        Self::AnotherMachine,
        Self::TakenOutBack,
        Self::Mirrored,
        Self::OtherVersion,
        Self::Peer,
        Self::JoinTakenOut,
        Self::DataTakenOut,
        Self::DataLost,
        Self::HandshakeOnly,
        Self::Closed,
        Self::NoAnswer,
    ];

    /// The word in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Passes => "passes",
            Self::TakenOut => "taken-out",
            Self::Dropped => "dropped",
            Self::Refused => "refused",
            Self::AnotherMachine => "another-machine",
            Self::TakenOutBack => "taken-out-back",
            Self::Mirrored => "mirrored",
            Self::OtherVersion => "other-version",
            Self::Peer => "peer",
            Self::JoinTakenOut => "join-taken-out",
            Self::DataTakenOut => "data-taken-out",
            Self::DataLost => "data-lost",
            Self::HandshakeOnly => "handshake-only",
            Self::Closed => "closed",
            Self::NoAnswer => "no-answer",
        }
    }

    /// Whether MPTCP passes.
    #[must_use]
    pub fn passes(self) -> Passes {
        match self {
            Self::Passes => Passes::Yes,
            Self::HandshakeOnly | Self::Closed | Self::NoAnswer => Passes::Unknown,
            Self::TakenOut
            | Self::Dropped
            | Self::Refused
            | Self::AnotherMachine
            | Self::TakenOutBack
            | Self::Mirrored
            | Self::OtherVersion
            | Self::Peer
            | Self::JoinTakenOut
            | Self::DataTakenOut
            | Self::DataLost => Passes::No,
        }
    }
}

/// A conclusion.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conclusion {
    /// What.
    pub outcome: Outcome,
    /// How sure.
    pub certainty: Certainty,
    /// Where, if that is known.
    pub span: Option<Span>,
    /// How the option was changed, if a quote shows it.
    pub how: Option<OptionState>,
    /// Where sequence numbers are rewritten, if they are.
    pub renumbered: Option<Span>,
}

impl Conclusion {
    fn new(outcome: Outcome, certainty: Certainty) -> Self {
        Self {
            outcome,
            certainty,
            span: None,
            how: None,
            renumbered: None,
        }
    }

    fn at(outcome: Outcome, certainty: Certainty, after: u8, before: Option<u8>) -> Self {
        Self {
            span: Some(Span { after, before }),
            ..Self::new(outcome, certainty)
        }
    }
}

/// Concludes.
#[must_use]
pub fn conclude(found: &Evidence) -> Conclusion {
    let mut conclusion = of_handshake(found);
    // Quotes prove what they show, whatever the peer says.
    if found.is_contradictory() && conclusion.how.is_none() {
        conclusion.certainty = Certainty::Open;
    }
    conclusion.renumbered = changed(&found.hops, |it| it.is_sequence_kept).map(|it| it.0);
    conclusion
}

/// Where reports begin to say that something is not as it was: behind the last hop that says it is
/// (a later one outweighs an earlier one, whose packet may have taken another way), and up to the next
/// one that says it is not.
fn changed(hops: &[Hop], is_kept: impl Fn(&Report) -> Option<bool>) -> Option<(Span, &Report)> {
    let said = || {
        let quotes = hops
            .iter()
            .filter_map(|hop| Some((hop.number, hop.quote()?)));
        quotes.filter_map(|(number, quote)| Some((number, quote, is_kept(quote)?)))
    };
    let after = said().filter(|it| it.2).map(|it| it.0).max().unwrap_or(0);
    let (before, quote, _) = said().find(|it| !it.2 && it.0 > after)?;
    let before = Some(before);
    Some((Span { after, before }, quote))
}

fn touched(hops: &[Hop]) -> Option<(Span, OptionState)> {
    let is_kept = |report: &Report| match report.option {
        OptionState::Intact => Some(true),
        OptionState::Unknown => None,
        OptionState::Cleared | OptionState::Removed | OptionState::Changed => Some(false),
    };
    changed(hops, is_kept).map(|(span, report)| (span, report.option))
}

fn taken_out(outcome: Outcome, hops: &[Hop]) -> Option<Conclusion> {
    let (span, how) = touched(hops)?;
    Some(Conclusion {
        how: Some(how),
        ..Conclusion::at(outcome, Certainty::Certain, span.after, span.before)
    })
}

fn of_handshake(found: &Evidence) -> Conclusion {
    let answer = found.answered();
    let back = answer.and_then(Answer::back);
    if back == Some(Back::Mptcp) {
        return of_connection(found);
    }
    if let Some(conclusion) = taken_out(Outcome::TakenOut, &found.hops) {
        return conclusion;
    }
    let last_intact = found.intact().max().unwrap_or(0);
    let reached = found.hops.iter().rfind(|hop| hop.quote().is_some());
    let reached = reached.map_or(0, |hop| hop.number);
    let plain = found.answered_plain();
    let is_open = plain.is_some_and(|it| it.back().is_some());
    match (answer, back) {
        (_, Some(back)) => of_answer(found, back, last_intact, reached),
        (None, None) if plain.is_some() => {
            let next = found.plain_hops.iter().find(|hop| hop.quote().is_some());
            let before = next.map(|hop| hop.number).filter(|it| *it > reached);
            Conclusion::at(Outcome::Dropped, Certainty::Likely, reached, before)
        }
        (Some(answer), None) if is_open => {
            let before = refused_before(found, answer).filter(|it| *it > last_intact);
            Conclusion::at(Outcome::Refused, Certainty::Likely, last_intact, before)
        }
        (Some(Answer::Reset { .. }), None) => Conclusion::new(Outcome::Closed, Certainty::Certain),
        (Some(_unreachable), None) if plain.is_some() => {
            Conclusion::new(Outcome::Closed, Certainty::Likely)
        }
        (_, None) => Conclusion::new(Outcome::NoAnswer, Certainty::Certain),
    }
}

/// Up to which hop SYNs with MPTCP came before they were refused with this answer; none is the peer.
fn refused_before(found: &Evidence, answer: &Answer) -> Option<u8> {
    match answer {
        Answer::Report(_) => {
            let (number, report) = found.unreachable()?;
            number.filter(|_| report.source != found.ends.destination)
        }
        Answer::SynAck { .. } | Answer::Reset { .. } | Answer::Echoed { .. } => found.distance,
    }
}

/// The SYN/ACK is no answer in MPTCP.
fn of_answer(found: &Evidence, back: Back, last_intact: u8, reached: u8) -> Conclusion {
    let is_another = found.others.iter().any(|it| is_expired(it, found));
    if let (true, Some(distance)) = (is_another, found.distance) {
        let before = Some(distance);
        return Conclusion::at(Outcome::AnotherMachine, Certainty::Likely, reached, before);
    }
    match back {
        Back::Cleared { is_exact } => {
            let certainty = match is_exact {
                true => Certainty::Certain,
                false => Certainty::Likely,
            };
            Conclusion::new(Outcome::TakenOutBack, certainty)
        }
        Back::Mirrored => Conclusion::new(Outcome::Mirrored, Certainty::Certain),
        Back::Version(_) | Back::Other => Conclusion::new(Outcome::OtherVersion, Certainty::Likely),
        // Even if the last router before the peer quotes it: a box in that router may act after the quote.
        Back::Nothing | Back::Mptcp => {
            Conclusion::at(Outcome::Peer, Certainty::Open, last_intact, None)
        }
    }
}

/// A packet of another protocol expired at a router, where TCP was answered.
fn is_expired(answer: &Answer, found: &Evidence) -> bool {
    match answer {
        Answer::Report(it) => it.what == What::TimeExceeded && it.source != found.ends.destination,
        Answer::SynAck { .. } | Answer::Reset { .. } | Answer::Echoed { .. } => false,
    }
}

/// The handshake has MPTCP.
fn of_connection(found: &Evidence) -> Conclusion {
    if let Some(conclusion) = taken_out(Outcome::JoinTakenOut, &found.join) {
        return conclusion;
    }
    let Some(Data { hops, end }) = &found.data else {
        return Conclusion::new(Outcome::HandshakeOnly, Certainty::Certain);
    };
    if let Some(conclusion) = taken_out(Outcome::DataTakenOut, hops) {
        return conclusion;
    }
    match end {
        DataEnd::Acknowledged => Conclusion::new(Outcome::Passes, Certainty::Certain),
        DataEnd::WithoutDss => Conclusion::new(Outcome::DataLost, Certainty::Certain),
        DataEnd::Silence => Conclusion::new(Outcome::DataLost, Certainty::Likely),
        DataEnd::NotOpened(_) => Conclusion::new(Outcome::HandshakeOnly, Certainty::Certain),
    }
}
