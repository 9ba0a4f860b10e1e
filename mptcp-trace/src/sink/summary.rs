//! The account printed on stderr at exit: how many events were seen, and how many were lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::{ConnectionCounts, Folded, escape};
use crate::model::{Loss, LossReport, Reconciliation, Reconciliations, SensorId};

/// Compares the kernel's counters with the traced fallbacks: one line in total, and one for each
/// namespace in which they differ.
#[must_use]
pub fn reconciled(all: &Reconciliations) -> String {
    let Reconciliations { fallbacks, paths } = all;
    let fallbacks = reconciled_of("counters", fallbacks);
    match paths.is_empty() {
        true => fallbacks,
        false => fallbacks + &reconciled_of("counters of paths", paths),
    }
}

fn reconciled_of(of: &str, all: &[Reconciliation]) -> String {
    let read = || all.iter().filter(|it| !it.unread);
    let counted = total(read(), |it| &it.counted);
    let traced = total(read(), |it| &it.traced);
    let mut text = String::new();
    // Without anything to compare, the lines below give the reason.
    if all.is_empty() || read().count() > 0 {
        // Writing to memory does not fail.
        let _infallible = write!(text, "{of}: kernel counted {counted}, traced {traced}");
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
            [one] => writeln!(text, "{of}: network namespace {one}: {why}"),
            _ => writeln!(
                text,
                "{of}: {} network namespaces, the first of them {}: {why}",
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
        routine,
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
        (
            routine,
            format!(
                "{routine} {} of paths: --kind path",
                if routine == 1 { "event" } else { "events" }
            ),
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
/// could be read; of a dump there are none.
#[must_use]
pub fn agreement(all: &Reconciliations, is_dump: bool) -> String {
    if is_dump {
        return "; 0 lost; a dump has no kernel counters to compare\n".to_owned();
    }
    let Reconciliations { fallbacks, paths } = all;
    let read = |all: &'_ [Reconciliation]| all.iter().filter(|it| !it.unread).count();
    let counted = |all| counted(all, |it| &it.counted);
    let mut words = Vec::new();
    if read(fallbacks) > 0 || fallbacks.is_empty() {
        words.push(match counted(fallbacks) {
            1 => "1 fallback".to_owned(),
            count => format!("{count} fallbacks"),
        });
    }
    if read(paths) > 0 {
        words.push(match counted(paths) {
            1 => "1 event of paths".to_owned(),
            count => format!("{count} events of paths"),
        });
    }
    // All of that is explained, or the account would not be brief.
    let unclear = fallbacks.iter().map(Reconciliation::untraced);
    let unclear = match unclear.fold(0, u64::saturating_add) {
        0 => String::new(),
        1 => "; 1 of the fallbacks may be a TCP child of an MPTCP listener: -v".to_owned(),
        count => {
            format!("; {count} of the fallbacks may be TCP children of MPTCP listeners: -v")
        }
    };
    let agrees = match words.is_empty() {
        false => format!(
            ", kernel agrees ({} on the host{unclear})",
            words.join(", ")
        ),
        true => String::new(),
    };
    let unread: BTreeSet<u32> = fallbacks
        .iter()
        .chain(paths)
        .filter(|it| it.unread)
        .map(|it| it.netns)
        .collect();
    let unread = match unread.len() {
        0 => String::new(),
        1 => "; kernel counters could not be read in 1 network namespace (-v)".to_owned(),
        count => format!("; kernel counters could not be read in {count} network namespaces (-v)"),
    };
    format!("; 0 lost{agrees}{unread}\n")
}

/// Sum over all causes and the namespaces whose counters could be read.
fn counted(all: &[Reconciliation], of: impl Fn(&Reconciliation) -> &BTreeMap<String, u64>) -> u64 {
    total(all.iter().filter(|it| !it.unread), of)
}

/// Sum over all causes and namespaces. Numbers from a capture may have any value.
fn total<'a>(
    all: impl Iterator<Item = &'a Reconciliation>,
    of: impl Fn(&'a Reconciliation) -> &'a BTreeMap<String, u64>,
) -> u64 {
    all.flat_map(|it| of(it).values())
        .fold(0, |sum: u64, count| sum.saturating_add(*count))
}

/// What became of the connections: one sentence, or nothing if there were none and that is no
/// surprise.
#[must_use]
pub fn connections(counts: ConnectionCounts, says_none: bool) -> String {
    let ConnectionCounts {
        closed: _,
        mptcp,
        fell_back,
        unknown,
        open,
        not_opened,
    } = counts;
    let parts = [
        (mptcp, "MPTCP to the end"),
        (fell_back, "fell back"),
        (unknown, "unknown"),
        (open, "still open"),
        (not_opened, "could not be opened"),
    ];
    let all = parts
        .iter()
        .fold(0, |sum: u64, (count, _)| sum.saturating_add(*count));
    if all == 0 {
        let none = if says_none {
            "no MPTCP connection\n"
        } else {
            ""
        };
        return none.to_owned();
    }
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let word = if all == 1 {
        "connection"
    } else {
        "connections"
    };
    format!("{all} {word}: {}\n", parts.join(", "))
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
            packets_lost,
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
            let _infallible = write!(text, " + {capped} capped ({})", sensor.cap());
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
        if *packets_lost > 0 {
            let _infallible = write!(
                text,
                "; the packets that decided {packets_lost} events had no room in the ring"
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
            paths_under_way: 0,
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
            paths_under_way: 0,
        };
        assert_eq!(
            summary("printed", |_| 2, &report),
            "query: 2 printed; 9 seen = 2 recorded + 1 filtered + 6 lost (5 ring full, 1 return not \
             seen); 2 runs of a probe skipped by the kernel\n"
        );
    }

    #[test]
    fn one_sentence_says_what_became_of_the_connections() {
        let of = |mptcp, fell_back, open, not_opened| ConnectionCounts {
            closed: mptcp + fell_back,
            mptcp,
            fell_back,
            open,
            not_opened,
            ..ConnectionCounts::default()
        };
        for (counts, says_none, text) in [
            (of(0, 0, 0, 0), false, ""),
            (of(0, 0, 0, 0), true, "no MPTCP connection\n"),
            (of(1, 0, 0, 0), true, "1 connection: 1 MPTCP to the end\n"),
            (
                of(2, 1, 0, 0),
                false,
                "3 connections: 2 MPTCP to the end, 1 fell back\n",
            ),
            (
                of(0, 0, 1, 2),
                false,
                "3 connections: 1 still open, 2 could not be opened\n",
            ),
        ] {
            assert_eq!(connections(counts, says_none), text);
        }
    }

    fn of_fallbacks(fallbacks: Vec<Reconciliation>) -> Reconciliations {
        Reconciliations {
            fallbacks,
            paths: Vec::new(),
        }
    }

    #[test]
    fn what_the_kernel_counted_stands_beside_what_was_traced() {
        let of = |netns, counted, traced, why: Option<&str>, unread| Reconciliation {
            netns,
            counted: [("A".to_owned(), counted)].into(),
            traced: [("A".to_owned(), traced)].into(),
            why: why.map(str::to_owned),
            unread,
            explained: false,
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
            assert_eq!(reconciled(&of_fallbacks(all)), text);
        }
        let both = Reconciliations {
            fallbacks: Vec::new(),
            paths: vec![of(2, 3, 1, Some("A: kernel counted 3, traced 1"), false)],
        };
        assert_eq!(
            reconciled(&both),
            "counters: kernel counted 0, traced 0\n\
             counters of paths: kernel counted 3, traced 1\n\
             counters of paths: network namespace 2: A: kernel counted 3, traced 1\n"
        );
    }

    #[test]
    fn one_line_says_where_the_kernel_agrees_and_where_it_could_not_be_asked() {
        let of = |unread| Reconciliation {
            counted: [("A".to_owned(), 2)].into(),
            traced: [("A".to_owned(), 2)].into(),
            unread,
            ..Reconciliation::default()
        };
        let explained = |traced| Reconciliation {
            traced: [("A".to_owned(), traced)].into(),
            why: Some("because".to_owned()),
            explained: true,
            ..of(false)
        };
        let another = Reconciliation {
            netns: 2,
            ..of(true)
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
                vec![explained(1), of(false)],
                "; 0 lost, kernel agrees (4 fallbacks on the host; 1 of the fallbacks may be a TCP \
                 child of an MPTCP listener: -v)\n",
            ),
            (
                vec![explained(0), explained(1)],
                "; 0 lost, kernel agrees (4 fallbacks on the host; 3 of the fallbacks may be TCP \
                 children of MPTCP listeners: -v)\n",
            ),
            (
                vec![of(false), of(true)],
                "; 0 lost, kernel agrees (2 fallbacks on the host); kernel counters could not be \
                 read in 1 network namespace (-v)\n",
            ),
            (
                vec![of(true), another],
                "; 0 lost; kernel counters could not be read in 2 network namespaces (-v)\n",
            ),
        ] {
            assert_eq!(agreement(&of_fallbacks(all), false), text);
        }
        for (fallbacks, paths, text) in [
            (
                vec![of(false)],
                vec![of(false), of(false)],
                "; 0 lost, kernel agrees (2 fallbacks, 4 events of paths on the host)\n",
            ),
            // The same namespace.
            (
                vec![of(true)],
                vec![of(true)],
                "; 0 lost; kernel counters could not be read in 1 network namespace (-v)\n",
            ),
            (
                vec![],
                vec![of(true)],
                "; 0 lost, kernel agrees (0 fallbacks on the host); kernel counters could not be \
                 read in 1 network namespace (-v)\n",
            ),
        ] {
            assert_eq!(
                agreement(&Reconciliations { fallbacks, paths }, false),
                text
            );
        }
    }

    #[test]
    fn what_a_capture_says_makes_no_line_of_its_own() {
        let forged = Reconciliation {
            netns: 1,
            why: Some("y\ncounters: kernel counted 4711".into()),
            ..Reconciliation::default()
        };
        let text = reconciled(&of_fallbacks(vec![forged])) + &failing(1, "z\nw");
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
                    paths_under_way: 0,
                }
            )
            .contains("DO NOT ADD UP")
        );
    }
}
