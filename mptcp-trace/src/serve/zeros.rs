//! The series that exist before their first event. `rate()` and `increase()` compare two samples, so a
//! series that began with its first event would hide that event from every alert. Pure.
//!
//! Only combinations that can occur on this kernel exist at zero: about a hundred series. Owners are
//! unknown beforehand, so a series with an owner begins with its first event.

use super::labels::{ANSWERS, Fallback, HandshakeLabels, NONE, QueryLabels, UNKNOWN};
use crate::model::{
    Answer, Api, CAUSES, Cause, CauseCertainty, Errno, Facts, Rung, SensorId, Side, Stage, Verdict,
};

/// Causes that came to the kernel together with their counters. The others are older than theirs.
const AS_OLD_AS_THEIR_COUNTERS: [&str; 2] = ["MPCapableSYNTXDrop", "MPCapableSYNTXDisabled"];
/// The cause that only the kernel can name: the state of the connection does not show it.
const NEVER_INFERRED: &str = "MD5SigFallback";
/// The cause that no function has as a parameter.
const NEVER_REPORTED: &str = "MPCapableFallbackACK";

/// How the cause of a fallback can be known here.
fn certainties(cause: &Cause, facts: &Facts, rung: Rung) -> Vec<CauseCertainty> {
    let is_counted = facts.counts(cause.name);
    let is_reported = is_counted && rung != Rung::Tracepoint && cause.name != NEVER_REPORTED;
    let is_inferred = cause.name != NEVER_INFERRED
        && (is_counted || !AS_OLD_AS_THEIR_COUNTERS.contains(&cause.name));
    [
        (is_reported, CauseCertainty::Reported),
        (is_inferred, CauseCertainty::Inferred),
    ]
    .into_iter()
    .filter_map(|(can_be, known)| can_be.then_some(known))
    .collect()
}

/// The sides on which a cause occurs.
fn sides(cause: &Cause) -> &'static [Side] {
    match cause.stage {
        Some(Stage::ThirdAck) => &[Side::Passive],
        Some(Stage::Syn | Stage::SynAck) => &[Side::Active],
        Some(Stage::Data) | None => &[Side::Active, Side::Passive],
    }
}

/// Labels of fallbacks; none if fallbacks are not traced.
#[must_use]
pub fn fallbacks(facts: &Facts) -> Vec<Fallback> {
    let Some(sensor) = facts.sensor(SensorId::Fallback) else {
        return Vec::new();
    };
    let labels = |cause: &str, side, known: CauseCertainty| Fallback {
        cause: cause.to_owned(),
        side,
        known: known.name(),
        whose: None,
    };
    let mut all = Vec::new();
    for cause in CAUSES.iter().filter(|cause| cause.is_fallback) {
        for known in certainties(cause, facts, sensor.rung) {
            let of_sides = sides(cause).iter();
            all.extend(of_sides.map(|side| labels(cause.name, side.name(), known)));
        }
    }
    let unknown = [Side::Active.name(), Side::Passive.name(), UNKNOWN];
    all.extend(unknown.map(|side| labels(UNKNOWN, side, CauseCertainty::Unknown)));
    all
}

/// Causes of fallbacks that the kernel may not allow: until the handshake is over there is no second
/// subflow, the only thing that forbids one.
#[must_use]
pub fn refused(facts: &Facts) -> Vec<String> {
    let Some(sensor) = facts.sensor(SensorId::Fallback) else {
        return Vec::new();
    };
    let of_data = CAUSES.iter().filter(|cause| {
        cause.is_fallback
            && cause.stage == Some(Stage::Data)
            && !certainties(cause, facts, sensor.rung).is_empty()
    });
    let names = of_data.map(|cause| cause.name).chain([UNKNOWN]);
    names.map(str::to_owned).collect()
}

/// Labels of queries: the verdicts that each answer may get.
#[must_use]
pub fn queries(facts: &Facts) -> Vec<QueryLabels> {
    let mut all = Vec::new();
    for api in Api::ALL {
        for answer in answers(api, facts) {
            let word = answer.word().unwrap_or(NONE);
            match Verdict::possible(api, answer) {
                [] => all.push((api.name(), word, NONE)),
                some => all.extend(some.iter().map(|it| (api.name(), word, it.name()))),
            }
        }
    }
    all
}

/// One answer of each kind that the kernel gives to a query.
fn answers(api: Api, facts: &Facts) -> Vec<Answer> {
    let mut answers = vec![Answer::Mptcp, Answer::Failed(Errno::EPERM)];
    // SO_PROTOCOL is supported everywhere, and its answer is always MPTCP.
    if api.sees_fallbacks() {
        answers.extend([Answer::Tcp, Answer::Unsupported(Errno::EOPNOTSUPP)]);
        // An answer that does not decide by itself, and no state bit that would.
        if facts.fallback_bit.is_none() {
            answers.push(Answer::Unknown);
        }
    }
    answers
}

/// Closing verdicts; none if fallbacks are not traced, on which all of them rest.
#[must_use]
pub fn verdicts(facts: &Facts) -> Vec<&'static str> {
    let all = Verdict::ALL.into_iter().filter(|verdict| verdict.closes());
    match facts.has_sensor(SensorId::Fallback) {
        true => all.map(Verdict::name).collect(),
        false => Vec::new(),
    }
}

/// Labels of handshakes; none unless both those with MPTCP and those without are traced.
#[must_use]
pub fn handshakes(facts: &Facts) -> Vec<HandshakeLabels> {
    let needed = [SensorId::Fallback, SensorId::Subflow];
    match needed.into_iter().all(|sensor| facts.has_sensor(sensor)) {
        true => ANSWERS.map(|answer| (answer, None)).into(),
        false => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SensorState;

    /// A kernel that counts these causes, traced this way.
    fn facts(counted: &[&str], rung: Option<Rung>) -> Facts {
        let causes = CAUSES.iter().filter(|it| counted.contains(&it.name));
        Facts {
            causes: (1..)
                .zip(causes.map(|it| it.enumerator.to_owned()))
                .collect(),
            fallback_bit: Some(4),
            sensors: Vec::from_iter(rung.map(|rung| SensorState {
                sensor: SensorId::Fallback,
                rung,
                probes: Vec::new(),
                limits: Vec::new(),
            })),
            ..Facts::unknown()
        }
    }

    fn every_cause() -> Vec<&'static str> {
        CAUSES.iter().map(|cause| cause.name).collect()
    }

    #[test]
    fn fallbacks_exist_by_the_causes_that_this_kernel_has() {
        let of = |facts: &Facts, name: &str| -> Vec<(&str, &str)> {
            let all = fallbacks(facts).into_iter().filter(|it| it.cause == name);
            all.map(|it| (it.side, it.known)).collect()
        };
        let all = facts(&every_cause(), Some(Rung::Fexit));
        let reported = [
            ("active", "reported"),
            ("passive", "reported"),
            ("active", "inferred"),
            ("passive", "inferred"),
        ];
        assert_eq!(of(&all, "DssFallback"), reported);
        assert_eq!(of(&all, "MPCapableFallbackACK"), [("passive", "inferred")]);
        let active = [("active", "reported"), ("active", "inferred")];
        assert_eq!(of(&all, "MPCapableFallbackSYNACK"), active);
        assert_eq!(of(&all, "MD5SigFallback"), [("active", "reported")]);
        // As docs/metrics.md says.
        assert_eq!(fallbacks(&all).len(), 31);
        // A counter that is no fallback.
        assert!(of(&all, "Blackhole").is_empty());
        // Tracepoints do not name causes.
        let inferred = facts(&every_cause(), Some(Rung::Tracepoint));
        assert_eq!(fallbacks(&inferred).len(), 17);
        let both = [("active", "inferred"), ("passive", "inferred")];
        assert_eq!(of(&inferred, "DssFallback"), both);
        assert!(of(&inferred, "MD5SigFallback").is_empty());
        let unknown = ["active", "passive", "unknown"].map(|side| (side, "unknown"));
        assert_eq!(of(&inferred, "unknown"), unknown);
        // An older kernel has no blackhole detection, and has some causes without counting them.
        let old = facts(&["MPCapableFallbackSYNACK"], Some(Rung::Fexit));
        assert!(of(&old, "MPCapableSYNTXDrop").is_empty());
        assert_eq!(of(&old, "DssFallback"), both);
        assert!(fallbacks(&facts(&every_cause(), None)).is_empty());
    }

    #[test]
    fn only_a_fallback_after_the_handshake_can_be_refused() {
        let all = refused(&facts(&every_cause(), Some(Rung::Kprobe)));
        let want = [
            "MPCapableDataFallback",
            "DssFallback",
            "DSSCorruptionFallback",
            "InfiniteMapTx",
            "unknown",
        ];
        assert_eq!(all, want);
        assert!(refused(&facts(&every_cause(), None)).is_empty());
    }

    #[test]
    fn queries_exist_by_the_verdicts_that_their_answers_can_get() {
        let calibrated = queries(&facts(&[], Some(Rung::Fexit)));
        let of = |api: &str| -> Vec<(&str, &str)> {
            let all = calibrated.iter().filter(|it| it.0 == api);
            all.map(|(_, answer, verdict)| (*answer, *verdict))
                .collect()
        };
        let want = [
            ("mptcp", "still-mptcp"),
            ("mptcp", "too-early"),
            ("mptcp", "contradicted"),
            ("failed", "none"),
            ("tcp", "explained"),
            ("tcp", "plain-tcp"),
            ("tcp", "unexplained"),
            ("unsupported", "unsupported"),
        ];
        assert_eq!(of("TCP_IS_MPTCP"), want);
        let always_mptcp = [
            ("mptcp", "still-mptcp"),
            ("mptcp", "too-early"),
            ("mptcp", "misled"),
            ("failed", "none"),
        ];
        assert_eq!(of("SO_PROTOCOL"), always_mptcp);
        assert_eq!(calibrated.len(), 5 * 8 + 4);
        let uncalibrated = Facts {
            fallback_bit: None,
            ..facts(&[], Some(Rung::Fexit))
        };
        assert_eq!(queries(&uncalibrated).len(), 5 * 9 + 4);
    }

    #[test]
    fn closing_verdicts_rest_on_fallbacks() {
        let want = ["explained", "too-early", "stale", "never-asked", "misled"];
        assert_eq!(verdicts(&facts(&[], Some(Rung::Fexit))), want);
        assert!(verdicts(&facts(&[], None)).is_empty());
    }
}
