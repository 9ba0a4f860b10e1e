//! What happened to a path.

use super::*;

impl Judge<'_> {
    /// MPTCP at both ends: a path of it may still have met something.
    pub(super) fn worst_path(&self, pair: &Pair) -> Judged {
        let judged = pair.paths.iter().map(|path| self.path(pair, path));
        let worst = judged
            .filter(|it| it.what != Judgement::Mptcp)
            .min_by_key(|it| Judgement::ALL.iter().position(|known| *known == it.what));
        worst.unwrap_or_else(|| Judged::new(Judgement::Mptcp, "MPTCP at both ends"))
    }

    /// What happened to a path of a connection that both captures have.
    pub(in crate::pair) fn path(&self, pair: &Pair, path: &PathPair) -> Judged {
        match self.ends_of_path(pair, path) {
            [Some(client), Some(server)] => {
                let judged = self.path_of_both(pair, client, server);
                let is_whole = client.role == PathRole::First && judged.what == Judgement::Mptcp;
                match self.ends(pair) {
                    // The first path is up without MPTCP: what happened to the connection happened to it.
                    [Some(here), Some(there)] if is_whole && !are_mptcp(here, there) => {
                        self.both(pair, here, there)
                    }
                    [_, _] => judged,
                }
            }
            [Some(one), None] => self.path_alone(pair, one, false),
            [None, Some(one)] => self.path_alone(pair, one, true),
            [None, None] => Judged::cannot_say("neither capture has it"),
        }
    }

    pub(super) fn path_of_both(&self, pair: &Pair, client: &PathSeen, server: &PathSeen) -> Judged {
        let has_failed = |path: &PathSeen| path.end.as_ref().is_some_and(|end| end.is_failed);
        if has_failed(client) {
            return self.path_that_failed(pair, client, Some(server));
        }
        if has_failed(server) {
            return self.path_that_failed(pair, server, Some(client));
        }
        for (is_server, one, other) in [(false, client, server), (true, server, client)] {
            if let Some(judged) = self.reset(pair, is_server, one, other) {
                return judged;
            }
        }
        Judged::new(Judgement::Mptcp, "up at both ends")
    }

    /// An RST that arrived at one end of a path, and that the other one did not send.
    pub(super) fn reset(
        &self,
        pair: &Pair,
        is_server: bool,
        one: &PathSeen,
        other: &PathSeen,
    ) -> Option<Judged> {
        let end = one.end.as_ref()?;
        if !one.rst_received || other.rst_sent {
            return None;
        }
        let (who, sender) = match is_server {
            false => ("client", "server"),
            true => ("server", "client"),
        };
        let at = self.about(pair, is_server).wall(end.at);
        // A host answers with an RST what arrives for a connection that it has closed.
        let closed = other.end.as_ref().map(|end| {
            self.on_first_clock(pair, !is_server, self.about(pair, !is_server).wall(end.at))
        });
        let slack = self.offset.map_or(Ns::MAX / 4, |it| it.uncertainty);
        let here = self.on_first_clock(pair, is_server, at);
        if closed.is_some_and(|closed| closed.saturating_sub(slack) <= here) {
            return None;
        }
        if let Some(gap) = &self.about(pair, !is_server).gap {
            return Some(Judged::cannot_say(format!(
                "the {who} got an RST, and whether the {sender} sent it is not known: {gap}"
            )));
        }
        Some(Judged {
            arrived: Some(at),
            ..Judged::new(
                Judgement::ResetBetween,
                format!(
                    "the {who} got an RST that the {sender} did not send, whose end was still open: \
                     it is from between the two"
                ),
            )
        })
    }

    /// One end of a path never came up.
    pub(super) fn path_that_failed(
        &self,
        pair: &Pair,
        path: &PathSeen,
        other: Option<&PathSeen>,
    ) -> Judged {
        let is_server = path.side == Some(Side::Passive);
        let Some(end) = &path.end else {
            return Judged::cannot_say("how it failed was not observed");
        };
        let cause = end.cause.as_deref().unwrap_or("a cause that is unknown");
        let there = other.and_then(|it| it.end.as_ref());
        let their_cause = there
            .filter(|end| end.is_failed)
            .and_then(|it| it.cause.as_deref());
        let began = path.began.map(|at| self.about(pair, is_server).wall(at));
        let noticed = Some(self.about(pair, is_server).wall(end.at));
        let at = |judged: Judged| Judged {
            left: began,
            arrived: noticed,
            ..judged
        };
        // The end that refuses a join knows best.
        let refusal = their_cause.filter(|_| !is_server).unwrap_or(cause);
        let of_packet = match end.is_cleared && cause == "MPJoinSynAckNoMPJoin" {
            true => Some((
                Packet::SynAck,
                Judgement::OptionRemoved,
                "the SYN/ACK that arrived has padding where the server's option was",
            )),
            false => of_packet(cause, refusal, is_server, other.is_some()),
        };
        if let Some((packet, what, why)) = of_packet {
            return match what == Judgement::OptionRemoved {
                true => Judged::removed(packet, began, noticed, why),
                false => at(Judged {
                    packet: Some(packet),
                    ..Judged::new(what, why)
                }),
            };
        }
        match cause {
            "MPCapableSynTimeout" | "MPJoinSynTimeout" => {
                self.timed_out(pair, is_server, other, at)
            }
            "MPCapableSynRefused" | "MPJoinSynRefused" | "MPJoinAckRejected"
                if their_cause.is_none() && !is_server =>
            {
                self.refused(pair, path, cause, other, at)
            }
            _ if end.decided_by.is_some() => at(Judged::new(
                Judgement::DecidedByEnd,
                match (their_cause, is_server) {
                    (Some(theirs), false) => format!("the server refused it: {theirs} ({cause})"),
                    (_, true) => format!("the server refused it: {cause}"),
                    (None, false) => format!("it failed at the client: {cause}"),
                },
            )),
            _ => Judged::cannot_say(format!("why it failed is not known ({cause})")),
        }
    }

    pub(super) fn timed_out(
        &self,
        pair: &Pair,
        is_server: bool,
        other: Option<&PathSeen>,
        at: impl Fn(Judged) -> Judged,
    ) -> Judged {
        let about = self.about(pair, !is_server);
        match (other, &about.gap) {
            (None, Some(gap)) => Judged::cannot_say(format!("no SYN was answered, and {gap}")),
            (None, None) => at(Judged {
                packet: Some(Packet::Handshake),
                ..Judged::new(
                    Judgement::NeverArrived,
                    "no SYN was answered, and the server has nothing of it: they or their answers did \
                     not arrive (or the server dropped them)",
                )
            }),
            (Some(_), _) => at(Judged {
                packet: Some(Packet::SynAck),
                ..Judged::new(
                    Judgement::NeverArrived,
                    "the SYN arrived at the server, and no answer arrived at the client",
                )
            }),
        }
    }

    /// An RST in answer to the SYN or the third ACK, which the server says nothing about.
    pub(super) fn refused(
        &self,
        pair: &Pair,
        path: &PathSeen,
        cause: &str,
        other: Option<&PathSeen>,
        at: impl Fn(Judged) -> Judged,
    ) -> Judged {
        if let Some(gap) = &self.about(pair, true).gap {
            return Judged::cannot_say(format!("an RST arrived, and {gap}"));
        }
        if other.is_some_and(|it| it.rst_sent) {
            return at(Judged::new(
                Judgement::DecidedByEnd,
                format!("the server sent an RST ({cause})"),
            ));
        }
        if path.role == PathRole::First {
            return Judged::cannot_say(
                "an RST answered the SYN: whether the server sent it is not traced, because nothing of \
                 MPTCP takes part",
            );
        }
        at(Judged::new(
            Judgement::ResetBetween,
            format!(
                "an RST answered the join ({cause}) that the server says nothing of: it is from between \
                 the two"
            ),
        ))
    }

    /// A path of a connection that both captures have, at one end only.
    pub(super) fn path_alone(&self, pair: &Pair, path: &PathSeen, is_server: bool) -> Judged {
        let at = path.began.or(path.up);
        if let Some(why) = self.not_covered(pair, at, is_server) {
            return Judged::cannot_say(why);
        }
        if path.end.as_ref().is_some_and(|end| end.is_failed) {
            return self.path_that_failed(pair, path, None);
        }
        if let Some(gap) = &self.about(pair, !is_server).gap {
            return Judged::cannot_say(format!(
                "the other capture does not have the path, and {gap}"
            ));
        }
        let who = if is_server { "client" } else { "server" };
        Judged::new(
            Judgement::NotInOther,
            format!("the {who}'s capture has the connection, but not this path of it"),
        )
    }
}

/// What happened to which packet of a handshake, by the cause at this end and by that at the end which
/// refused; `None` if the causes name no packet.
fn of_packet(
    cause: &str,
    refusal: &str,
    is_server: bool,
    has_other: bool,
) -> Option<(Packet, Judgement, &'static str)> {
    use Judgement::{Changed, NeverArrived, OptionRemoved};
    Some(match (cause, refusal) {
        (_, "MPJoinSynNoMPJoin") => (
            Packet::Syn,
            OptionRemoved,
            "the server got a SYN without MP_JOIN",
        ),
        ("MPJoinSynAckNoMPJoin", "MPJoinThirdAckMissing") => (
            Packet::SynAck,
            OptionRemoved,
            "the server answered the join",
        ),
        ("MPJoinSynAckNoMPJoin", _) => (
            Packet::Handshake,
            OptionRemoved,
            "the client got a SYN/ACK without MP_JOIN",
        ),
        (_, "MPJoinAckNoMPJoin") if !is_server || has_other => (
            Packet::ThirdAck,
            OptionRemoved,
            "the server got a third ACK without MP_JOIN",
        ),
        (_, "MPJoinAckHMacFailure") => (
            Packet::ThirdAck,
            Changed,
            "the HMAC of MP_JOIN in the third ACK was changed between the two",
        ),
        ("MPJoinSynAckHMacFailure", _) => (
            Packet::SynAck,
            Changed,
            "the HMAC of MP_JOIN in the SYN/ACK was changed between the two",
        ),
        (_, "MPJoinNoTokenFound") if has_other => (
            Packet::Syn,
            Changed,
            "the server has no connection with the token in the SYN: it was changed between the two, or \
             the connection had ended there",
        ),
        (_, "MPJoinThirdAckMissing") => (
            if is_server {
                Packet::ThirdAck
            } else {
                Packet::SynAck
            },
            NeverArrived,
            "the join arrived at the server, and its answer or the third ACK did not arrive",
        ),
        ("MPJoinFourthAckMissing" | "MPJoinFourthAckNoDss", _) => (
            Packet::DataToClient,
            NeverArrived,
            "the fourth ACK did not arrive at the client, or without its option",
        ),
        _ => return None,
    })
}

/// True if MPTCP was never lost at either end.
fn are_mptcp(here: &Seen, there: &Seen) -> bool {
    matches!(
        (State::of(here), State::of(there)),
        (State::Mptcp, State::Mptcp)
    )
}
