//! The account printed on stderr at exit: how many events were seen, and how many were lost.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{Folded, escape};
use crate::model::{Loss, LossReport, Reconciliation, SensorId};

/// Compares the kernel's counters with the traced fallbacks: one line in total, and one for each
/// namespace in which they differ.
#[must_use]
pub fn reconciled(all: &[Reconciliation]) -> String {
    let read = || all.iter().filter(|it| !it.unread);
    let counted = total(read(), |it| &it.counted);
    let traced = total(read(), |it| &it.traced);
    let mut text = String::new();
    // Without anything to compare, the lines below give the reason.
    if all.is_empty() || read().count() > 0 {
        // Writing to memory does not fail.
        let _infallible = write!(text, "counters: kernel counted {counted}, traced {traced}");
        if read().count() > 1 {
            let _infallible = write!(text, ", in {} network namespaces", read().count());
        }
        text.push('\n');
    }
    // Tests create many short-lived namespaces, all unread for the same reason.
    let mut counts: Vec<(&str, Vec<u32>)> = Vec::new();
    for it in all {
        let Some(why) = it.why.as_deref() else {
            continue;
        };
        match counts.iter_mut().find(|(known, _)| *known == why) {
            Some((_, namespaces)) => namespaces.push(it.netns),
            None => counts.push((why, vec![it.netns])),
        }
    }
    for (why, namespaces) in counts {
        // The text may come from a capture.
        let why = escape(why);
        let _infallible = match namespaces[..] {
            [one] => writeln!(text, "counters: network namespace {one}: {why}"),
            _ => writeln!(
                text,
                "counters: {} network namespaces, the first of them {}: {why}",
                namespaces.len(),
                namespaces.first().copied().unwrap_or_default()
            ),
        };
    }
    text
}

/// Number of findings that have no line of their own.
#[must_use]
pub fn folded(folded: Folded) -> String {
    match without_lines(folded) {
        None => String::new(),
        Some(words) => format!("without a line of their own: {words}\n"),
    }
}

fn without_lines(folded: Folded) -> Option<String> {
    let Folded {
        existing,
        never_asked,
    } = folded;
    let sockets = if existing == 1 { "socket" } else { "sockets" };
    let fallbacks = if never_asked == 1 {
        "fallback"
    } else {
        "fallbacks"
    };
    let words = [
        (existing, format!("{existing} {sockets} opened earlier")),
        (
            never_asked,
            format!("{never_asked} {fallbacks} never asked about"),
        ),
    ];
    let words: Vec<String> = words
        .into_iter()
        .filter_map(|(count, words)| (count > 0).then_some(words))
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Begins the account of a run in which nothing was lost.
#[must_use]
pub fn brief(findings: u64, folded: Folded) -> String {
    let word = if findings == 1 { "finding" } else { "findings" };
    match without_lines(folded) {
        None => format!("{findings} {word}"),
        Some(words) => format!("{findings} {word} ({words})"),
    }
}

/// Ends the account of a run in which nothing was lost and the kernel agrees, where its counters
/// could be read.
#[must_use]
pub fn agreement(all: &[Reconciliation]) -> String {
    let unread = all.iter().filter(|it| it.unread).count();
    let counted = total(all.iter().filter(|it| !it.unread), |it| &it.counted);
    let word = if counted == 1 {
        "fallback"
    } else {
        "fallbacks"
    };
    let agrees = match unread < all.len() || all.is_empty() {
        true => format!(", kernel agrees ({counted} {word} on the host)"),
        false => String::new(),
    };
    let unread = match unread {
        0 => String::new(),
        1 => "; kernel counters could not be read in 1 network namespace (-v)".to_owned(),
        _ => format!("; kernel counters could not be read in {unread} network namespaces (-v)"),
    };
    format!("; 0 lost{agrees}{unread}\n")
}

/// Sum over all causes and namespaces. Numbers from a capture may have any value.
fn total<'a>(
    all: impl Iterator<Item = &'a Reconciliation>,
    of: impl Fn(&'a Reconciliation) -> &'a BTreeMap<String, u64>,
) -> u64 {
    all.flat_map(|it| of(it).values())
        .fold(0, |sum: u64, count| sum.saturating_add(*count))
}

/// Number of findings left out by filters, also if it is zero.
#[must_use]
pub fn not_shown(findings: u64) -> String {
    let word = if findings == 1 { "finding" } else { "findings" };
    format!("not shown: {findings} {word}\n")
}

/// Number of findings after the output failed or was closed.
#[must_use]
pub fn unwritten(findings: u64) -> String {
    let word = if findings == 1 { "finding" } else { "findings" };
    format!(
        "not written: {findings} more {word}, after the output failed or its reader closed it\n"
    )
}

/// Number of answers identical to the previous one, also if it is zero.
#[must_use]
pub fn coalesced(answers: u64) -> String {
    let word = if answers == 1 { "answer" } else { "answers" };
    format!("coalesced: {answers} {word} identical to the previous one\n")
}

/// Number of evicted connections.
#[must_use]
pub fn evicted(connections: u64) -> String {
    let words = match connections {
        1 => "1 connection was".to_owned(),
        _ => format!("{connections} connections were"),
    };
    format!("verdicts: {words} evicted before the end: more than --max-connections\n")
}

/// Number of closing verdicts, which no sensor counts; empty if zero.
#[must_use]
pub fn closing_verdict(done: &str, verdicts: u64) -> String {
    match verdicts {
        0 => String::new(),
        _ => format!("closing verdicts: {verdicts} {done}\n"),
    }
}

/// Number of findings that match `--fail-on`, and the first of them.
#[must_use]
pub fn failing(findings: u64, first: &str) -> String {
    let words = if findings == 1 {
        "1 finding fails the run:".to_owned()
    } else {
        format!("{findings} findings fail the run, the first of them:")
    };
    format!("--fail-on: {words} {}\n", escape(first))
}

/// One line per sensor, also without losses, so that a missing line is noticed. `printed` returns
/// the number of findings of a sensor, and `done` is the verb for them (e.g. `printed`).
#[must_use]
pub fn summary(done: &str, printed: impl Fn(SensorId) -> u64, losses: &LossReport) -> String {
    let mut text = String::new();
    for loss in &losses.sensors {
        let Loss {
            sensor,
            seen,
            emitted,
            filtered,
            capped,
            missed,
            unfollowed,
            over_share,
            self_tests,
            ..
        } = loss;
        // Writing to memory does not fail.
        let _infallible = write!(
            text,
            "{}: {} {done}; {seen} seen = {emitted} recorded + {filtered} filtered",
            sensor,
            printed(*sensor),
        );
        if *capped > 0 {
            let _infallible = write!(text, " + {capped} capped (--cap)");
        }
        let _infallible = write!(text, " + {} lost", loss.lost());
        let reasons: Vec<String> = [
            (loss.ring_full, "ring full"),
            (loss.faulted, "not readable"),
            (loss.table_full, "table full"),
            (loss.unfinished, "return not seen"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, reason)| format!("{count} {reason}"))
        .collect();
        if !reasons.is_empty() {
            let _infallible = write!(text, " ({})", reasons.join(", "));
        }
        if *missed > 0 {
            let _infallible = write!(text, "; {missed} runs of a probe skipped by the kernel");
        }
        if *unfollowed > 0 {
            let _infallible = write!(text, "; {unfollowed} {}: table full", sensor.unfollowed());
        }
        if *over_share > 0 {
            let _infallible = write!(
                text,
                "; {over_share} sockets not tracked: a user exceeds --sockets-per-user"
            );
        }
        if *self_tests > 0 {
            let _infallible = write!(
                text,
                "; {self_tests} of other instances' self-tests ignored"
            );
        }
        if !loss.balances() {
            text.push_str("; THE COUNTS DO NOT ADD UP: please report this");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_line_is_printed_even_without_losses_and_names_each_loss() {
        let clean = Loss {
            seen: 3,
            emitted: 2,
            filtered: 1,
            ..Loss::none(SensorId::Query)
        };
        let report = LossReport {
            sensors: vec![clean.clone()],
            counted: Vec::new(),
        };
        assert_eq!(
            summary("printed", |_| 2, &report),
            "query: 2 printed; 3 seen = 2 recorded + 1 filtered + 0 lost\n"
        );
        let lossy = Loss {
            seen: 9,
            ring_full: 5,
            unfinished: 1,
            missed: 2,
            ..clean
        };
        let report = LossReport {
            sensors: vec![lossy],
            counted: Vec::new(),
        };
        assert_eq!(
            summary("printed", |_| 2, &report),
            "query: 2 printed; 9 seen = 2 recorded + 1 filtered + 6 lost (5 ring full, 1 return not \
             seen); 2 runs of a probe skipped by the kernel\n"
        );
    }

    #[test]
    fn what_the_kernel_counted_stands_beside_what_was_traced() {
        let of = |netns, counted, traced, why: Option<&str>, unread| Reconciliation {
            netns,
            counted: [("A".to_owned(), counted)].into(),
            traced: [("A".to_owned(), traced)].into(),
            why: why.map(str::to_owned),
            unread,
        };
        for (all, text) in [
            (vec![], "counters: kernel counted 0, traced 0\n"),
            (
                vec![of(1, 2, 2, None, false)],
                "counters: kernel counted 2, traced 2\n",
            ),
            (
                vec![
                    of(1, 2, 2, None, false),
                    of(2, 3, 1, Some("A: kernel counted 3, traced 1"), false),
                    of(3, 0, 5, Some("gone"), true),
                    of(4, 0, 5, Some("gone"), true),
                ],
                "counters: kernel counted 5, traced 3, in 2 network namespaces\n\
                 counters: network namespace 2: A: kernel counted 3, traced 1\n\
                 counters: 2 network namespaces, the first of them 3: gone\n",
            ),
            (
                vec![of(3, 0, 5, Some("gone"), true)],
                "counters: network namespace 3: gone\n",
            ),
        ] {
            assert_eq!(reconciled(&all), text);
        }
    }

    #[test]
    fn one_line_says_where_the_kernel_agrees_and_where_it_could_not_be_asked() {
        let of = |unread| Reconciliation {
            counted: [("A".to_owned(), 2)].into(),
            unread,
            ..Reconciliation::default()
        };
        for (all, text) in [
            (
                vec![],
                "; 0 lost, kernel agrees (0 fallbacks on the host)\n",
            ),
            (
                vec![of(false)],
                "; 0 lost, kernel agrees (2 fallbacks on the host)\n",
            ),
            (
                vec![of(false), of(true)],
                "; 0 lost, kernel agrees (2 fallbacks on the host); kernel counters could not be \
                 read in 1 network namespace (-v)\n",
            ),
            (
                vec![of(true), of(true)],
                "; 0 lost; kernel counters could not be read in 2 network namespaces (-v)\n",
            ),
        ] {
            assert_eq!(agreement(&all), text);
        }
    }

    #[test]
    fn what_a_capture_says_makes_no_line_of_its_own() {
        let forged = Reconciliation {
            netns: 1,
            why: Some("y\ncounters: kernel counted 4711".into()),
            ..Reconciliation::default()
        };
        let text = reconciled(&[forged]) + &failing(1, "z\nw");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains("\ncounters: kernel counted 4711"), "{text}");
    }

    #[test]
    fn counts_that_do_not_add_up_are_never_passed_over() {
        let wrong = Loss {
            seen: 3,
            emitted: 2,
            ..Loss::none(SensorId::Query)
        };
        assert!(
            summary(
                "printed",
                |_| 2,
                &LossReport {
                    sensors: vec![wrong],
                    counted: Vec::new(),
                }
            )
            .contains("DO NOT ADD UP")
        );
    }
}
