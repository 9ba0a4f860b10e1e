//! What an answer is worth, and what is left to say of a connection at its end. Pure: a function of the answer and of
//! what is known of the connection.

use std::{borrow::Cow, time::Duration};

use super::lives::{ConnectionState, Fallen};
use crate::model::{
    Answer, Api, Facts, Judgement, Protocol, Query, Rung, SensorId, TcpState, Verdict, find_cause,
    short,
};

/// What is concluded of one answer, with what is known when all that happened before it was heard of. None where the
/// answer says nothing: the call failed for a reason of its own, or what it said could not be learnt.
pub(super) fn of_answer(
    query: &Query,
    life: Option<&ConnectionState>,
    facts: &Facts,
) -> Option<Judgement> {
    let fallen = life.and_then(|life| life.fallen.as_ref());
    match query.answer {
        Answer::Failed(_) | Answer::Unknown => None,
        Answer::Unsupported(errno) => {
            let connection = match (query.protocol(), query.fell_back) {
                (Protocol::Tcp, _) => "this is a TCP socket",
                (Protocol::Mptcp, Some(true)) => "the connection fell back",
                (Protocol::Mptcp, Some(false)) => "the connection did not fall back",
                (Protocol::Mptcp, None) => "the state of the connection is unknown",
            };
            let said = format!(
                "told {errno}: this kernel has no {} for such a socket, so the error does not mean a fallback; {connection}",
                query.api.name()
            );
            Some(bare(Verdict::Unsupported, said))
        }
        Answer::Tcp => Some(match fallen {
            Some(fallen) => explained(fallen, query.answered_at()),
            None if query.protocol() == Protocol::Tcp => {
                bare(Verdict::PlainTcp, never_mptcp(query, facts))
            }
            None => bare(
                Verdict::Unexplained,
                format!("told TCP; no fallback was seen: {}", unseen(life, facts)),
            ),
        }),
        Answer::Mptcp => Some(told_mptcp(query, fallen)),
    }
}

/// A call takes microseconds, and longer only where its thread is preempted inside it.
const CALL_MAX: Duration = Duration::from_secs(10);

/// True if the question was asked after the fallback.
///
/// Where only its end was seen, it was answered at some moment before that; and where a fallback is foretold (rung
/// `tracepoint`, `mptcp_dss_corruption`), the fallback follows its record by a moment, in which a thread may be preempted.
fn is_surely_later(query: &Query, fallen: &Fallen) -> bool {
    let (began, fell) = match query.latency {
        Some(_) if !fallen.is_foretold => (query.asked_at, fallen.at),
        Some(_) | None => (query.asked_at, fallen.at.saturating_add(CALL_MAX)),
    };
    fell <= began
}

fn told_mptcp(query: &Query, fallen: Option<&Fallen>) -> Judgement {
    let state = query.socket.state;
    if !query.api.sees_fallbacks() {
        if let Some(fallen) = fallen {
            return misled(query.api, fallen, query.answered_at());
        }
        if query.fell_back == Some(true) {
            let api = query.api.name();
            return bare(
                Verdict::Misled,
                format!(
                    "asked with {api}, which always reports MPTCP; the connection is TCP, but its \
                     fallback was not seen"
                ),
            );
        }
    } else if let Some(fallen) = fallen {
        if !is_surely_later(query, fallen) {
            return bare(
                Verdict::StillMptcp,
                "told MPTCP, and it was: it fell back at about that moment",
            );
        }
        return about(
            Verdict::Contradicted,
            format!(
                "told MPTCP although it fell back {} earlier: {}; a bug in this program or in the \
                 kernel",
                short(query.asked_at.saturating_sub(fallen.at)),
                named(fallen)
            ),
            fallen,
            query.asked_at.saturating_sub(fallen.at),
        );
    }
    match state {
        TcpState::LISTEN => bare(
            Verdict::TooEarly,
            "told MPTCP, as every listening MPTCP socket is; accepted connections may be TCP",
        ),
        TcpState::CLOSE | TcpState::SYN_SENT => bare(
            Verdict::TooEarly,
            "told MPTCP before the handshake could decide",
        ),
        _ => bare(Verdict::StillMptcp, "told MPTCP, and it is"),
    }
}

/// What is left to say of a connection that is no more, or that nobody watches any more. None if the last line about it
/// said it all.
pub(super) fn of_life(life: &ConnectionState) -> Option<Judgement> {
    let fallen = life.fallen.as_ref()?;
    let Some(asked) = life.asked else {
        return Some(about(
            Verdict::NeverAsked,
            format!("fell back: {}; the application never asked", named(fallen)),
            fallen,
            None,
        ));
    };
    match (life.told?, asked.answer) {
        (Verdict::Unexplained, _) if fallen.at <= asked.at => Some(explained(fallen, asked.at)),
        (told @ (Verdict::TooEarly | Verdict::StillMptcp), Answer::Mptcp) => {
            let delay = fallen.at.saturating_sub(asked.at);
            if !asked.api.sees_fallbacks() {
                return Some(misled(asked.api, fallen, asked.at));
            }
            let (verdict, then) = if told == Verdict::TooEarly {
                (Verdict::TooEarly, "before the handshake could decide")
            } else {
                (Verdict::Stale, "while it still was MPTCP")
            };
            let when = if fallen.at <= asked.at {
                "at about that moment".to_owned()
            } else {
                format!("{} later", short(delay))
            };
            Some(about(
                verdict,
                format!(
                    "told MPTCP {then}; it fell back {when}: {}, and was not asked again",
                    named(fallen)
                ),
                fallen,
                delay,
            ))
        }
        _ => None,
    }
}

fn explained(fallen: &Fallen, answered_at: Duration) -> Judgement {
    let delay = answered_at.saturating_sub(fallen.at);
    about(
        Verdict::Explained,
        format!(
            "told TCP; it fell back {} earlier: {}",
            short(delay),
            named(fallen)
        ),
        fallen,
        delay,
    )
}

fn misled(api: Api, fallen: &Fallen, answered_at: Duration) -> Judgement {
    let delay = answered_at.abs_diff(fallen.at);
    let when = if fallen.at <= answered_at {
        "earlier"
    } else {
        "later"
    };
    about(
        Verdict::Misled,
        format!(
            "asked with {}, which always reports MPTCP; the connection fell back {} {when}: {}",
            api.name(),
            short(delay),
            named(fallen)
        ),
        fallen,
        delay,
    )
}

/// What is known of a TCP socket that no fallback of was seen. Only children of MPTCP listeners have an identity.
fn never_mptcp(query: &Query, facts: &Facts) -> &'static str {
    if query.id.is_none() {
        return "told TCP; the socket was created as TCP, or accepted by a TCP listener or before \
                tracing began";
    }
    let rung = facts.sensor(SensorId::Fallback);
    match rung.map(|sensor| sensor.rung) {
        Some(Rung::Fexit | Rung::Kprobe) => {
            "told TCP; its client did not request MPTCP, or no token was available"
        }
        // What becomes of an accepted connection in its third packet, these do not see.
        Some(Rung::Tracepoint) | None => {
            "told TCP; its client did not request MPTCP, no token was available, or its third \
             packet came without MPTCP; these cases look alike here"
        }
    }
}

/// Why a fallback that must have happened was not seen.
fn unseen(life: Option<&ConnectionState>, facts: &Facts) -> &'static str {
    if !facts.has_sensor(SensorId::Fallback) {
        return "fallbacks are not traced on this kernel (mptcp-trace doctor reports why)";
    }
    match life {
        Some(life) if life.existing => "the connection existed before tracing began",
        Some(_) => "its record was lost or is still pending",
        None => "the socket was never recorded",
    }
}

/// The cause, and who can do something about it.
fn named(fallen: &Fallen) -> String {
    let Some(cause) = &fallen.cause else {
        return "cause unknown".into();
    };
    let culprits = find_cause(cause).map_or_else(Vec::new, |it| {
        it.culprits.iter().map(|culprit| culprit.name()).collect()
    });
    if culprits.is_empty() {
        cause.clone().into_owned()
    } else {
        format!("{cause} ({})", culprits.join(" or "))
    }
}

fn bare(verdict: Verdict, sentence: impl Into<Cow<'static, str>>) -> Judgement {
    Judgement {
        verdict,
        sentence: sentence.into(),
        fell_back_at: None,
        cause: None,
        delay: None,
    }
}

fn about(
    verdict: Verdict,
    sentence: impl Into<Cow<'static, str>>,
    fallen: &Fallen,
    delay: impl Into<Option<Duration>>,
) -> Judgement {
    Judgement {
        verdict,
        sentence: sentence.into(),
        fell_back_at: Some(fallen.at),
        cause: fallen.cause.clone(),
        delay: delay.into(),
    }
}
