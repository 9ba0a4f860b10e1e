//! The last words on stderr: how much was seen, and what was not.

use std::fmt::Write as _;

use crate::model::{Loss, LossReport, Reconciliation};

/// What the kernel counted and what was traced, in a sentence; a line more for each namespace in which the
/// two do not agree.
#[must_use]
pub fn reconciled(all: &[Reconciliation]) -> String {
    let sum = |of: fn(&Reconciliation) -> u64| all.iter().map(of).sum::<u64>();
    let counted = sum(|it| it.counted.values().sum());
    let traced = sum(|it| it.traced.values().sum());
    let mut text = format!("counters: kernel counted {counted}, traced {traced}");
    if all.len() > 1 {
        // Writing to memory does not fail.
        let _infallible = write!(text, ", in {} network namespaces", all.len());
    }
    text.push('\n');
    // Namespaces that are gone are many where tests run, and all for the same reason.
    let mut told: Vec<(&str, Vec<u32>)> = Vec::new();
    for it in all {
        let Some(why) = it.why.as_deref() else {
            continue;
        };
        match told.iter_mut().find(|(known, _)| *known == why) {
            Some((_, namespaces)) => namespaces.push(it.netns),
            None => told.push((why, vec![it.netns])),
        }
    }
    for (why, namespaces) in told {
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

/// One line a sensor; printed also when nothing was lost, so that its absence means something. `printed`
/// says how many lines that sensor made.
#[must_use]
pub fn summary(printed: impl Fn(&str) -> u64, losses: &LossReport) -> String {
    let mut text = String::new();
    for loss in &losses.sensors {
        let Loss {
            sensor,
            seen,
            emitted,
            filtered,
            missed,
            unfollowed,
            ..
        } = loss;
        // Writing to memory does not fail.
        let _infallible = write!(
            text,
            "{sensor}: {} printed; {seen} seen = {emitted} recorded + {filtered} filtered + {} lost",
            printed(sensor),
            loss.lost()
        );
        let reasons: Vec<String> = [
            (loss.ring_full, "ring full"),
            (loss.faulted, "not readable"),
            (loss.table_full, "too many at once"),
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
            let _infallible = write!(
                text,
                "; {unfollowed} {}: too many at once",
                if sensor == "query" {
                    "children not followed"
                } else {
                    "sockets not noted down"
                }
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
    fn the_loss_line_is_there_when_nothing_was_lost_and_says_what_was() {
        let clean = Loss {
            sensor: "query".into(),
            seen: 3,
            emitted: 2,
            filtered: 1,
            ..Loss::default()
        };
        let report = LossReport {
            sensors: vec![clean.clone()],
            counted: Vec::new(),
        };
        assert_eq!(
            summary(|_| 2, &report),
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
            summary(|_| 2, &report),
            "query: 2 printed; 9 seen = 2 recorded + 1 filtered + 6 lost (5 ring full, 1 return not \
             seen); 2 runs of a probe skipped by the kernel\n"
        );
    }

    #[test]
    fn counts_that_do_not_add_up_are_never_passed_over() {
        let wrong = Loss {
            sensor: "query".into(),
            seen: 3,
            emitted: 2,
            ..Loss::default()
        };
        assert!(
            summary(
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
