//! Whether the absence of a finding that `--fail-on` names is conclusive. Pure.

use crate::{
    filter::FailOn,
    model::{Facts, LossReport, Reconciliation, Reconciliations, SensorId},
};

/// Why the run may have missed what `--fail-on` names; `None` if its absence is conclusive.
///
/// `within` are the network namespaces that the run is limited to; empty for all.
#[must_use]
pub(super) fn gap(
    fail_on: &[FailOn],
    within: &[u32],
    losses: &LossReport,
    account: &Reconciliations,
    facts: &Facts,
) -> Option<String> {
    if let Some((_sensor, why)) = blind(fail_on, facts) {
        return Some(why);
    }
    let concerns = |it: &&Reconciliation| within.is_empty() || within.contains(&it.netns);
    if fail_on.iter().any(|it| it.rests_on_fallbacks()) {
        let open = |it: &&Reconciliation| it.unread || it.untraced() > 0;
        if let Some(it) = account.fallbacks.iter().filter(open).find(concerns) {
            let why = it.why.as_deref().unwrap_or_default();
            let advice = match within {
                [] => " (--netns limits the run to the namespaces that matter)",
                _ => "",
            };
            return Some(format!("network namespace {}: {why}{advice}", it.netns));
        }
        // Without an entry, the owner of a socket is unknown, and the filter does not admit it.
        if let Some(loss) = losses.of(SensorId::Fallback)
            && loss.filtered > 0
            && loss.unfollowed.saturating_add(loss.over_share) > 0
        {
            return Some(format!(
                "{} sockets were not tracked (--sockets, --sockets-per-user): fallbacks of unknown \
                 owners count as filtered",
                loss.unfollowed.saturating_add(loss.over_share)
            ));
        }
    }
    let untraced = losses.untraced(SensorId::Subflow);
    if untraced > 0 && fail_on.iter().any(|it| it.rests_on_paths()) {
        return Some(format!(
            "{untraced} events of paths were not traced (lost, or skipped by the kernel)"
        ));
    }
    if fail_on.iter().any(|it| it.rests_on_paths())
        && let Some(it) = account
            .paths
            .iter()
            .filter(|it| it.differs())
            .find(concerns)
    {
        let why = it.why.as_deref().unwrap_or_default();
        return Some(format!("network namespace {}: {why}", it.netns));
    }
    let untraced = losses.untraced(SensorId::Query);
    if untraced > 0 && fail_on.iter().any(|it| it.rests_on_queries()) {
        return Some(format!(
            "{untraced} queries were not traced (capped, lost, or skipped by the kernel)"
        ));
    }
    None
}

/// Why no finding that `--fail-on` names can occur in this run, and the sensor that is off.
#[must_use]
pub fn blind(fail_on: &[FailOn], facts: &Facts) -> Option<(SensorId, String)> {
    let all = || fail_on.iter();
    [
        (
            SensorId::Fallback,
            all().any(|it| it.rests_on_fallbacks()),
            "the fallback sensor is off: fallbacks are not traced",
        ),
        (
            SensorId::Subflow,
            all().any(|it| it.rests_on_paths()),
            "the subflow sensor is off: paths are not traced",
        ),
    ]
    .into_iter()
    .find(|(sensor, rests, _)| *rests && !facts.has_sensor(*sensor))
    .map(|(sensor, _, why)| (sensor, why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Loss, Rung, SensorState, Verdict};

    fn facts(sensors: &[SensorId]) -> Facts {
        let sensor = |sensor: &SensorId| SensorState {
            sensor: *sensor,
            rung: Rung::Tracepoint,
            probes: Vec::new(),
            limits: Vec::new(),
        };
        Facts {
            sensors: sensors.iter().map(sensor).collect(),
            ..Facts::unknown()
        }
    }

    fn account(counted: u64, traced: u64, unread: bool) -> Reconciliation {
        Reconciliation {
            netns: 7,
            counted: [("A".to_owned(), counted)].into(),
            traced: [("A".to_owned(), traced)].into(),
            why: (counted != traced || unread).then(|| "because".to_owned()),
            unread,
            explained: false,
        }
    }

    fn of_fallbacks(account: Reconciliation) -> Reconciliations {
        Reconciliations {
            fallbacks: vec![account],
            paths: Vec::new(),
        }
    }

    #[test]
    fn joins_that_only_the_kernel_counted_prove_nothing_unless_that_is_explained() {
        let facts = facts(&SensorId::ALL);
        let on = [FailOn::Cause("MPJoinRejected")];
        for (account, within, is_conclusive) in [
            (account(2, 2, false), &[][..], true),
            (account(3, 2, false), &[], false),
            (account(3, 2, false), &[8], true),
            // A namespace that has ended.
            (account(0, 2, true), &[], true),
            (
                Reconciliation {
                    explained: true,
                    ..account(3, 2, false)
                },
                &[],
                true,
            ),
        ] {
            let account = Reconciliations {
                fallbacks: Vec::new(),
                paths: vec![account],
            };
            let why = gap(&on, within, &LossReport::default(), &account, &facts);
            assert_eq!(why.is_none(), is_conclusive, "{account:?}: {why:?}");
        }
    }

    #[test]
    fn silence_proves_nothing_where_the_sensor_is_off_or_the_account_has_a_gap() {
        let both = &[SensorId::Fallback, SensorId::Query][..];
        for (on, sensors, account, capped, within, says) in [
            (
                FailOn::Fallback,
                both,
                account(2, 2, false),
                0,
                &[][..],
                None,
            ),
            (
                FailOn::Fallback,
                &[SensorId::Query],
                account(0, 0, false),
                0,
                &[],
                Some("sensor is off"),
            ),
            (
                FailOn::Cause("X"),
                &[SensorId::Query],
                account(0, 0, false),
                0,
                &[],
                Some("sensor is off"),
            ),
            // Paths have a sensor of their own, and the kernel's counts of fallbacks do not matter.
            (
                FailOn::Cause("timeout"),
                both,
                account(0, 0, false),
                0,
                &[],
                Some("subflow sensor is off"),
            ),
            (
                FailOn::Cause("timeout"),
                &[SensorId::Query, SensorId::Subflow],
                account(3, 2, false),
                5,
                &[],
                None,
            ),
            (
                FailOn::Fallback,
                both,
                account(3, 2, false),
                0,
                &[],
                Some("namespace 7: because"),
            ),
            (FailOn::Fallback, both, account(3, 2, false), 0, &[8], None),
            (
                FailOn::Fallback,
                both,
                account(0, 2, true),
                0,
                &[7],
                Some("namespace 7: because"),
            ),
            // More was traced than counted: nothing can be missing.
            (FailOn::Fallback, both, account(2, 3, false), 0, &[], None),
            (FailOn::Fallback, both, account(2, 2, false), 5, &[], None),
            (
                FailOn::Verdict(Verdict::Stale),
                both,
                account(2, 2, false),
                5,
                &[],
                Some("5 queries"),
            ),
            (
                FailOn::Verdict(Verdict::Unsupported),
                &[SensorId::Query],
                account(0, 0, false),
                0,
                &[],
                None,
            ),
        ] {
            let losses = LossReport {
                sensors: vec![Loss {
                    capped,
                    ..Loss::none(SensorId::Query)
                }],
                counted: Vec::new(),
                paths_under_way: 0,
            };
            let account = of_fallbacks(account);
            let why = gap(&[on], within, &losses, &account, &facts(sensors));
            match says {
                None => assert_eq!(why, None, "{on:?}"),
                Some(says) => assert!(
                    why.as_ref().is_some_and(|it| it.contains(says)),
                    "{on:?}: {why:?}"
                ),
            }
        }
        let lost = LossReport {
            sensors: vec![Loss {
                ring_full: 2,
                ..Loss::none(SensorId::Subflow)
            }],
            counted: Vec::new(),
            paths_under_way: 0,
        };
        let on = [FailOn::Cause("timeout")];
        let none = Reconciliations::default();
        let why = gap(&on, &[], &lost, &none, &facts(&SensorId::ALL));
        assert!(why.unwrap().contains("2 events of paths"));
        assert_eq!(
            gap(&[], &[], &LossReport::default(), &none, &facts(&[])),
            None
        );
    }

    #[test]
    fn a_fallback_that_only_the_kernel_counted_or_that_has_no_owner_proves_nothing() {
        let facts = facts(&[SensorId::Query, SensorId::Fallback]);
        let on = [FailOn::Fallback];
        // The difference is explained, but it is one.
        let excused = Reconciliation {
            explained: true,
            ..account(1, 0, false)
        };
        let excused = of_fallbacks(excused);
        let why = gap(&on, &[], &LossReport::default(), &excused, &facts);
        assert!(why.unwrap().contains("because"));
        for (filtered, unfollowed, over_share, proves) in [
            (1, 1, 0, false),
            (1, 0, 1, false),
            (0, 1, 1, true),
            (1, 0, 0, true),
        ] {
            let losses = LossReport {
                sensors: vec![Loss {
                    filtered,
                    unfollowed,
                    over_share,
                    ..Loss::none(SensorId::Fallback)
                }],
                counted: Vec::new(),
                paths_under_way: 0,
            };
            let agrees = of_fallbacks(account(1, 1, false));
            let why = gap(&on, &[], &losses, &agrees, &facts);
            assert_eq!(
                why.is_none(),
                proves,
                "{filtered} {unfollowed} {over_share}: {why:?}"
            );
        }
    }
}
