use super::*;
use crate::model::{
    Verdict,
    fixture::{Row, a_path},
};

fn rule(text: &str) -> Rule {
    text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
}

#[test]
fn a_rule_is_read_as_people_write_it() {
    for (text, what, over, seconds) in [
        ("fallbacks>20/min", What::Fallbacks, 20, 60),
        ("refused > 0 / h", What::Refused, 0, 3600),
        ("path-failures>5/10s", What::PathFailures, 5, 10),
        ("verdicts>1/5m", What::Verdicts, 1, 300),
        ("lost>100/s", What::Lost, 100, 1),
    ] {
        let read = rule(text);
        let window = Duration::from_secs(seconds);
        assert_eq!((read.what, read.over, read.window), (what, over, window));
        assert_eq!(read.to_string(), text);
    }
}

#[test]
fn a_wrong_rule_is_answered_with_the_nearest_right_one() {
    for (text, says) in [
        ("fallback>20/min", "did you mean fallbacks?"),
        ("path failures>1/h", "did you mean path-failures?"),
        (
            "queries>1/h",
            "known are fallbacks, refused, path-failures, verdicts, lost",
        ),
        ("fallbacks>20/mins", "did you mean min?"),
        ("fallbacks>many/min", "\"many\" is not a whole number"),
        ("fallbacks>-1/min", "not a whole number"),
        ("fallbacks", "write a rule like fallbacks>20/min"),
        ("fallbacks>20", "write a rule like"),
        ("fallbacks>1/0s", "1s to 24h"),
        ("fallbacks>1/25h", "1s to 24h"),
        ("fallbacks>1/99999999999999999999h", "too long"),
    ] {
        let why = text.parse::<Rule>().unwrap_err();
        assert!(why.contains(says), "{text}: {why}");
    }
}

/// Counts fallbacks at these seconds, checks each second; returns the seconds with a dump.
fn dumps(text: &str, at: &[u64], until: u64) -> Vec<u64> {
    let mut rules = Rules::new(vec![rule(text)]);
    let begin = Instant::now();
    let mut made = Vec::new();
    for second in 0..until {
        let now = begin + Duration::from_secs(second);
        for _fallback in at.iter().filter(|it| **it == second) {
            rules.count(&Row::default().connection(), now);
        }
        if rules.check(0, now).is_some() {
            made.push(second);
        }
    }
    made
}

#[test]
fn a_rule_asks_for_one_dump_when_its_count_is_exceeded_and_not_for_ever() {
    assert_eq!(dumps("fallbacks>2/min", &[1, 2, 3], 100), [3]);
    assert_eq!(dumps("fallbacks>2/min", &[1, 2, 63], 100), [0; 0]);
    assert_eq!(dumps("refused>0/min", &[1, 2, 3], 100), [0; 0]);
    let always: Vec<u64> = (0..3000).collect();
    assert_eq!(dumps("fallbacks>2/min", &always, 1300), [2, 602, 1202]);
    // A rule does not ask again for what it has seen in its window.
    assert_eq!(dumps("fallbacks>2/h", &[1, 2, 3], 3700), [3]);
    assert_eq!(dumps("fallbacks>2/h", &always, 3000), [2]);
}

#[test]
fn two_rules_do_not_ask_for_the_same_dump_twice() {
    let mut rules = Rules::new(vec![rule("fallbacks>0/min"), rule("lost>5/s")]);
    let begin = Instant::now();
    assert_eq!(rules.check(100, begin), None);
    rules.count(&Row::default().connection(), begin);
    let asks = rules.check(106, begin);
    assert_eq!(asks.as_deref(), Some("--dump-on fallbacks>0/min: 1"));
    assert_eq!(rules.check(106, begin), None);
    let later = begin + ANY_AFTER;
    let asks = rules.check(112, later);
    assert_eq!(asks.as_deref(), Some("--dump-on lost>5/s: 6"));
}

#[test]
fn new_settings_keep_the_counts_of_rules_that_stay() {
    let mut rules = Rules::new(vec![rule("fallbacks>1/min")]);
    let now = Instant::now();
    rules.count(&Row::default().connection(), now);
    rules.replace(vec![rule("lost>0/s"), rule("fallbacks>1/min")]);
    rules.count(&Row::default().connection(), now);
    assert!(rules.check(0, now).is_some());
    rules.replace(Vec::new());
    rules.count(&Row::default().connection(), now);
    assert_eq!(rules.check(9, now), None);
}

#[test]
fn each_finding_counts_as_what_the_metrics_call_it() {
    let verdict = Row {
        verdict: Some(Verdict::Stale),
        ..Row::default()
    };
    let path = |kind| Row::default().path(a_path(kind));
    for (finding, what) in [
        (Row::default().connection(), Some(What::Fallbacks)),
        (verdict.closing_verdict(), Some(What::Verdicts)),
        (Row::default().query(), None),
        (path(PathKind::Failed), Some(What::PathFailures)),
        (path(PathKind::Up), None),
        (path(PathKind::Down), None),
    ] {
        assert_eq!(What::of(&finding), what);
    }
}
