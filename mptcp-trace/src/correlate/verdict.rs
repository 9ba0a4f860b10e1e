//! The verdict on an answer, and the closing verdict on a connection. Pure: a function of the
//! answer and the state of the connection.

use std::{borrow::Cow, time::Duration};

use super::connections::{ConnectionState, Fallen};
use crate::model::{
    Answer, Api, Facts, Judgement, Protocol, Query, Rung, SensorId, TcpState, Verdict, find_cause,
    short,
};

/// The verdict on one answer, once all earlier events have arrived. `None` if the answer is
/// inconclusive: the call failed for another reason, or its result is unknown.
pub(super) fn of_answer(
    query: &Query,
    state: Option<&ConnectionState>,
    facts: &Facts,
) -> Option<Judgement> {
    let fallen = state.and_then(|state| state.fallen.as_ref());
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
                format!("told TCP; no fallback was seen: {}", unseen(state, facts)),
            ),
        }),
        Answer::Mptcp => Some(judge_mptcp(query, fallen)),
    }
}

/// Upper bound of a call's duration. It takes microseconds, and longer only if its thread is
/// preempted.
const CALL_MAX: Duration = Duration::from_secs(10);

/// True if the query was certainly made after the fallback.
///
/// If only the return was observed, the query was made at some time before it; and if the fallback
/// is predicted (attach method `tracepoint`, `mptcp_dss_corruption`), it follows its record shortly
/// after, and the thread may be preempted in between.
fn is_surely_later(query: &Query, fallen: &Fallen) -> bool {
    let (began, fell) = match query.latency {
        Some(_) if !fallen.is_predicted => (query.asked_at, fallen.at),
        Some(_) | None => (query.asked_at, fallen.at.saturating_add(CALL_MAX)),
    };
    fell <= began
}

fn judge_mptcp(query: &Query, fallen: Option<&Fallen>) -> Judgement {
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

/// The closing verdict on a connection that has ended, or is no longer traced. `None` if the last
/// line about it was final.
pub(super) fn of_life(state: &ConnectionState) -> Option<Judgement> {
    let fallen = state.fallen.as_ref()?;
    let Some(asked) = state.asked else {
        return Some(about(
            Verdict::NeverAsked,
            format!("fell back: {}; the application never asked", named(fallen)),
            fallen,
            None,
        ));
    };
    match (state.judged?, asked.answer) {
        (Verdict::Unexplained, _) if fallen.at <= asked.at => Some(explained(fallen, asked.at)),
        (judged @ (Verdict::TooEarly | Verdict::StillMptcp), Answer::Mptcp) => {
            let delay = fallen.at.saturating_sub(asked.at);
            if !asked.api.sees_fallbacks() {
                return Some(misled(asked.api, fallen, asked.at));
            }
            let (verdict, then) = if judged == Verdict::TooEarly {
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

/// What is known of a TCP socket without an observed fallback. Only children of MPTCP listeners
/// have an identity.
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
        // This attach method does not see a fallback in the third packet of the handshake.
        Some(Rung::Tracepoint) | None => {
            "told TCP; its client did not request MPTCP, no token was available, or its third \
             packet came without MPTCP; these cases look alike here"
        }
    }
}

/// Why a fallback that must have happened was not observed.
fn unseen(state: Option<&ConnectionState>, facts: &Facts) -> &'static str {
    if !facts.has_sensor(SensorId::Fallback) {
        return "fallbacks are not traced on this kernel (mptcp-trace doctor reports why)";
    }
    match state {
        Some(state) if state.existing => "the connection existed before tracing began",
        Some(_) => "its record was lost or is still pending",
        None => "the socket was never recorded",
    }
}

/// The cause, and who can act on it.
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
