//! A conclusion in sentences.

use super::{
    conclude::{Conclusion, Outcome, Span},
    evidence::{Answer, Back, DataEnd, Evidence, Hop},
    options::OptionState,
};

/// What follows, what does not, and what to do next.
pub(super) struct Advice {
    pub(super) follows: Vec<String>,
    pub(super) does_not_follow: Vec<String>,
    pub(super) next: Vec<String>,
}

/// How an option was taken out.
fn how(state: Option<OptionState>) -> &'static str {
    match state {
        Some(OptionState::Cleared) => "replaced by NOPs",
        Some(OptionState::Changed) => "replaced by another MPTCP option",
        Some(OptionState::Removed | OptionState::Intact | OptionState::Unknown) | None => {
            "removed from the header"
        }
    }
}

/// The conclusion in one sentence.
pub(super) fn sentence(found: &Evidence, concluded: &Conclusion) -> String {
    let said = outcome(found, concluded);
    match found.is_contradictory() {
        true => format!(
            "{said}; but {} answered other SYNs differently",
            found.ends.destination
        ),
        false => said,
    }
}

fn outcome(found: &Evidence, concluded: &Conclusion) -> String {
    let peer = found.ends.destination;
    let at = concluded.span.unwrap_or(Span {
        after: 0,
        before: None,
    });
    let part = span(found, at);
    let how = how(concluded.how);
    match concluded.outcome {
        Outcome::Passes => {
            format!(
                "MPTCP passes between this host and {peer}, in both directions: the handshake, and DSS \
                 when a connection is closed"
            )
        }
        Outcome::TakenOut => format!("MP_CAPABLE is {how} {part}"),
        Outcome::Dropped => {
            format!("SYNs with an MPTCP option are lost {part}, and SYNs without one are not")
        }
        Outcome::Refused => format!(
            "SYNs with an MPTCP option are refused {} {part}, and SYNs without one are not",
            refusal(found)
        ),
        Outcome::AnotherMachine => format!(
            "another machine answers TCP in the place of {peer}, {part}: packets of other protocols \
             with the same time to live expired at a router there"
        ),
        Outcome::TakenOutBack => format!(
            "{peer} answered with MPTCP, and a box on the way back replaced its option in the SYN/ACK \
             by NOPs{}",
            match found.answered().and_then(Answer::back) {
                Some(Back::Cleared { is_exact: false }) => {
                    ": there are NOPs, but not as many as its bytes, or not at its place"
                }
                _ => "",
            }
        ),
        Outcome::Mirrored => {
            "the SYN/ACK has the option of our own SYN: the peer, or a box before it, sends options \
             back that it does not know"
                .into()
        }
        Outcome::OtherVersion => other_version(found),
        Outcome::Peer => of_peer(found, at.after),
        Outcome::JoinTakenOut => format!(
            "MP_CAPABLE passes, but an option of the size of MP_JOIN is {how} {part}: a second path \
             cannot join there"
        ),
        Outcome::DataTakenOut => format!(
            "the handshake passes, but DSS is {how} {part} in segments with data: connections fall \
             back at their first data"
        ),
        Outcome::DataLost => match found.data.as_ref().map(|it| &it.end) {
            Some(DataEnd::WithoutDss) => format!(
                "the handshake passes, but {peer} answered the end of a connection without DSS: it was \
                 taken out on the way back, or the peer fell back"
            ),
            _ => format!(
                "the handshake passes, but {peer} did not answer the end of a connection, which has \
                 DSS and no data"
            ),
        },
        Outcome::HandshakeOnly => match found.data.as_ref().map(|it| &it.end) {
            Some(DataEnd::NotOpened(why)) => {
                format!("the handshake of MPTCP passes; data could not be tested: {why}")
            }
            _ => "the handshake of MPTCP passes; data was not tested".into(),
        },
        Outcome::Closed => {
            format!("nothing listens on port {} of {peer}, or a firewall refuses it", found.ends.port)
        }
        Outcome::NoAnswer => no_answer(found),
    }
}

fn no_answer(found: &Evidence) -> String {
    let last = found.hops.iter().rfind(|hop| hop.quote().is_some());
    let last = last.map_or(String::new(), |hop| {
        let place = place(found, hop.number);
        format!("; {place} is the last that reports something")
    });
    let unreachable = found.unreachable().map_or(String::new(), |(_, report)| {
        let source = report.source;
        match source == found.ends.source {
            // The kernel reports to its own programs too.
            true => format!(
                "; this host itself ({source}) reports that it is unreachable: its next hop does not \
                 answer, or its own routes or firewall refuse (ip route get {}; ip neigh)",
                found.ends.destination
            ),
            false => format!("; {source} reports that it is unreachable"),
        }
    });
    format!(
        "{} does not answer on port {}, with or without MPTCP{last}{unreachable}",
        found.ends.destination, found.ends.port
    )
}

/// With what SYNs with MPTCP are refused.
fn refusal(found: &Evidence) -> String {
    match (found.answered(), found.unreachable()) {
        (Some(Answer::Report(_)), Some((_, report))) => {
            format!("by {} with \"unreachable\"", report.source)
        }
        _ => "with an RST".into(),
    }
}

fn other_version(found: &Evidence) -> String {
    match found.answered().and_then(Answer::back) {
        Some(Back::Version(version)) => format!(
            "{} speaks version {version} of MPTCP: Linux and RFC 8684 speak version 1",
            found.ends.destination
        ),
        _ => format!(
            "the SYN/ACK of {} has an MPTCP option that is no answer",
            found.ends.destination
        ),
    }
}

fn of_peer(found: &Evidence, after: u8) -> String {
    let peer = found.ends.destination;
    let is_last = found.distance == Some(after.saturating_add(1));
    match (after, is_last) {
        (0, false) => format!(
            "{peer} answered without MPTCP, and no router quotes the option: cannot say where it was \
             lost, or whether the peer has none"
        ),
        (_, true) => format!(
            "MP_CAPABLE reached {}, the last router before {peer}, which answered without it: the peer \
             has no MPTCP, or a box in that router, at the peer's address or on the way back removes it",
            place(found, after)
        ),
        (_, false) => format!(
            "MP_CAPABLE reached {}; {peer} answered without it, and the hops between do not quote it: \
             cannot say beyond hop {after}",
            place(found, after)
        ),
    }
}

/// What follows from a conclusion.
pub(super) fn advice(found: &Evidence, concluded: &Conclusion) -> Advice {
    let texts = |texts: &[&str]| texts.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let (follows, does_not_follow) = match concluded.outcome {
        Outcome::Passes => (
            &["this path is not the reason for fallbacks to this port now"][..],
            &[
                "that segments with data pass on the way back: no data was asked for",
                "that other paths, ports or times are the same",
            ][..],
        ),
        Outcome::TakenOut => (
            &["the operator of that part of the path can act, and the peer cannot"][..],
            &["which of the two ends of that part does it, or a device between them"][..],
        ),
        Outcome::Dropped | Outcome::Refused => (
            &["connections to there open only after the kernel has given MPTCP up: seconds later"]
                [..],
            &["that the router named last does it: it may be any device before the next one"][..],
        ),
        Outcome::AnotherMachine => (
            &["what the peer itself supports is unknown: it was not reached by TCP"][..],
            &["that the machine belongs to the operator of the routers around it"][..],
        ),
        Outcome::TakenOutBack => (
            &["the peer supports MPTCP, and the way to it does not remove it"][..],
            &["where on the way back: it may lead through other routers"][..],
        ),
        Outcome::Mirrored => (
            &["the kernel falls back to TCP: the answer has no key of the peer"][..],
            &["whether the peer or a box does it"][..],
        ),
        Outcome::OtherVersion => (
            &["the kernel falls back to TCP"][..],
            &["that a box is involved"][..],
        ),
        Outcome::Peer => (
            &["connections to this port are TCP from their handshake on"][..],
            &[
                "whether the peer does not support MPTCP, or a box removes it: one in the router that \
                 quoted last, behind it, or on the way back looks the same",
            ][..],
        ),
        Outcome::JoinTakenOut => (
            &["connections are MPTCP, with one path"][..],
            &["that other paths have the same box"][..],
        ),
        Outcome::DataTakenOut | Outcome::DataLost => (
            &["connections look like MPTCP when they are opened, and fall back later"][..],
            &["that the application notices: TCP goes on"][..],
        ),
        Outcome::HandshakeOnly => (
            &["neither end of the path nor a box refuses MPTCP in the handshake"][..],
            &["that data passes"][..],
        ),
        Outcome::Closed => (
            &["nothing about MPTCP"][..],
            &["that nobody serves there: other ports may be open"][..],
        ),
        Outcome::NoAnswer => (
            &["nothing about MPTCP"][..],
            &["that the host is down: other ports may answer"][..],
        ),
    };
    Advice {
        follows: texts(follows),
        does_not_follow: texts(does_not_follow),
        next: next(found, concluded.outcome),
    }
}

fn next(found: &Evidence, outcome: Outcome) -> Vec<String> {
    let peer = found.ends.destination;
    let port = found.ends.port;
    match outcome {
        Outcome::Passes => vec![format!(
            "mptcp-trace --addr {peer} --why (what happens to real connections)"
        )],
        Outcome::TakenOut
        | Outcome::Dropped
        | Outcome::Refused
        | Outcome::AnotherMachine
        | Outcome::TakenOutBack
        | Outcome::JoinTakenOut
        | Outcome::DataTakenOut
        | Outcome::DataLost => vec![
            "the same probe over another uplink: --interface DEV, or --source ADDR".into(),
            "the same probe to another port: a box may treat ports differently".into(),
        ],
        Outcome::Mirrored | Outcome::OtherVersion | Outcome::Peer => vec![
            format!("on the peer: sysctl net.mptcp.enabled; ss -Mltn sport = :{port}"),
            "on the peer, if you can: mptcp-trace probe to this host (a box in the last router shows \
             only from there)"
                .into(),
            "the same probe over another uplink: --interface DEV, or --source ADDR".into(),
        ],
        Outcome::HandshakeOnly => vec![
            "sysctl net.mptcp (enabled, and blackhole_timeout: this host may have given MPTCP up)"
                .into(),
        ],
        Outcome::Closed | Outcome::NoAnswer => {
            vec!["the same probe to a port on which the peer serves: HOST:PORT".into()]
        }
    }
}

/// A place on the path, with its address.
fn place(found: &Evidence, number: u8) -> String {
    if number == 0 {
        return "this host".into();
    }
    let all = found.hops.iter().chain(&found.plain_hops);
    let quotes = all
        .filter(|hop| hop.number == number)
        .filter_map(Hop::quote);
    match quotes.map(|it| it.source).next() {
        Some(address) => format!("hop {number} ({address})"),
        None if found.distance == Some(number) => {
            format!("hop {number} (which answers as {})", found.ends.destination)
        }
        None => format!("hop {number}"),
    }
}

/// A part of the path, in words.
pub(super) fn span(found: &Evidence, span: Span) -> String {
    let before = match span.before {
        Some(number) => place(found, number),
        None => found.ends.destination.to_string(),
    };
    format!("between {} and {before}", place(found, span.after))
}
