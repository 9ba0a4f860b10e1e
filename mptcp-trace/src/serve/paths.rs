//! Counts paths and the ends of connections: labels, series that exist at zero, metrics. Pure and
//! bounded: causes are those of the catalogue, so that no peer can add series.

use std::collections::BTreeMap;

use super::{
    exposition::{Family, Labels, counter, label, number, one},
    labels::{NONE, UNKNOWN},
};
use crate::model::{
    CONNECT_CAUSES, Cause, Facts, JOIN_CAUSES, JOIN_REFUSALS, Outcome, PATH_ENDS, Path, PathKind,
    PathRole, PathSum, SensorId, path_causes,
};

/// Labels of a path: what happened, its role, the cause; `none` where not applicable.
pub type PathLabels = (&'static str, &'static str, &'static str);

const UP: &str = "up";
const FAILED: &str = "failed";
const DOWN: &str = "down";

const ROLES: [PathRole; 2] = [PathRole::First, PathRole::Join];

/// Counts since the start. Empty if paths are not traced.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// Connections that ended, by outcome.
    pub connections: BTreeMap<&'static str, u64>,
    /// First paths that failed, by cause.
    pub connect_failures: BTreeMap<&'static str, u64>,
    /// Paths.
    pub paths: BTreeMap<PathLabels, u64>,
    /// Times that a path became stale; none if paths are not traced.
    pub stale: Option<u64>,
    /// What ended paths carried, by role.
    pub carried: BTreeMap<&'static str, PathSum>,
}

/// The name of a cause in the catalogue.
fn known(cause: Option<&str>) -> &'static str {
    let found = path_causes().find(|it| Some(it.name) == cause);
    found.map_or(UNKNOWN, |it| it.name)
}

fn names(causes: &'static [Cause]) -> impl Iterator<Item = &'static str> + Clone {
    causes.iter().map(|it| it.name)
}

impl Paths {
    /// Zeros for all series that can occur; none if paths are not traced.
    #[must_use]
    pub fn new(facts: &Facts) -> Self {
        if !facts.has_sensor(SensorId::Subflow) {
            return Self::default();
        }
        let outcomes = [
            Outcome::Mptcp,
            Outcome::FellBack {
                at: None,
                cause: None,
            },
            Outcome::Unknown,
        ];
        let mut paths = BTreeMap::new();
        for role in ROLES.map(PathRole::name) {
            paths.insert((UP, role, NONE), 0);
            let ends = names(PATH_ENDS).chain([UNKNOWN]);
            paths.extend(ends.map(|cause| ((DOWN, role, cause), 0)));
        }
        let joins = names(JOIN_CAUSES).chain(names(JOIN_REFUSALS));
        let join = PathRole::Join.name();
        paths.extend(joins.chain([UNKNOWN]).map(|it| ((FAILED, join, it), 0)));
        Self {
            connections: outcomes.iter().map(|it| (it.name(), 0)).collect(),
            connect_failures: names(CONNECT_CAUSES)
                .chain([UNKNOWN])
                .map(|cause| (cause, 0))
                .collect(),
            paths,
            stale: Some(0),
            carried: ROLES.map(|role| (role.name(), PathSum::default())).into(),
        }
    }

    /// Counts the end of a connection.
    pub(super) fn closed(&mut self, outcome: &Outcome) {
        *self.connections.entry(outcome.name()).or_default() += 1;
    }

    /// Counts an event of a path.
    pub(super) fn path(&mut self, path: &Path) {
        let role = path.role.name();
        let sum = PathSum::of(path);
        let cause = known(path.cause.as_deref());
        let is_first = path.kind == PathKind::ConnectFailed;
        if is_first {
            *self.connect_failures.entry(cause).or_default() += sum.failed;
        }
        for (event, count, cause) in [
            (UP, sum.up, NONE),
            (FAILED, if is_first { 0 } else { sum.failed }, cause),
            (DOWN, sum.down, cause),
        ] {
            if count > 0 {
                *self.paths.entry((event, role, cause)).or_default() += count;
            }
        }
        if path.kind == PathKind::Stale {
            *self.stale.get_or_insert_default() += 1;
        }
        self.carried.entry(role).or_default().add(sum);
    }
}

/// The metrics.
pub(super) fn families(paths: &Paths) -> Vec<Family> {
    let by = |name, counts: &BTreeMap<&'static str, u64>| -> Vec<(Labels, f64)> {
        let samples = counts.iter();
        samples
            .map(|(value, count)| (vec![label(name, value)], number(*count)))
            .collect()
    };
    let each = paths.paths.iter().map(|((event, role, cause), count)| {
        let labels = vec![
            label("event", event),
            label("role", role),
            label("cause", cause),
        ];
        (labels, number(*count))
    });
    let bytes = paths.carried.iter().flat_map(|(role, sum)| {
        [("sent", sum.bytes_sent), ("received", sum.bytes_received)].map(|(direction, bytes)| {
            let labels = vec![label("role", role), label("direction", direction)];
            (labels, number(bytes))
        })
    });
    let again = paths
        .carried
        .iter()
        .map(|(role, sum)| (vec![label("role", role)], number(sum.retransmissions)));
    vec![
        counter(
            "mptcp_trace_connections",
            "Connections that were opened with MPTCP and ended, by what they were at the end.",
            by("outcome", &paths.connections),
        ),
        counter(
            "mptcp_trace_connect_failures",
            "First paths that failed, by cause: there is no connection.",
            by("cause", &paths.connect_failures),
        ),
        counter(
            "mptcp_trace_paths",
            "Paths that came up, failed to join and ended, by cause.",
            each.collect(),
        ),
        counter(
            "mptcp_trace_paths_stale",
            "Times that the scheduler began to avoid a path because nothing was acknowledged on it.",
            paths.stale.map(one).unwrap_or_default(),
        ),
        counter(
            "mptcp_trace_path_bytes",
            "Payload of paths that ended, without retransmissions.",
            bytes.collect(),
        ),
        counter(
            "mptcp_trace_path_retransmissions",
            "Segments that paths had sent again when they ended.",
            again.collect(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        model::{
            Finding, Rung, SensorState,
            fixture::{Row, a_ledger, a_path},
        },
        observe::Observer as _,
        serve::counters::Shared,
    };

    fn traced() -> Facts {
        Facts {
            sensors: vec![SensorState {
                sensor: SensorId::Subflow,
                rung: Rung::Fexit,
                probes: Vec::new(),
                limits: Vec::new(),
            }],
            ..Facts::unknown()
        }
    }

    /// Samples as on the page, without those at zero.
    fn counted(findings: &[Finding]) -> Vec<String> {
        let mut shared = Shared::new(None, &traced());
        for finding in findings {
            shared.finding(finding, &|_| None);
        }
        let families = shared.with(|counters| families(&counters.paths));
        let mut lines = Vec::new();
        for family in families {
            for (labels, value) in family.samples.iter().filter(|it| it.1 > 0.0) {
                let labels: Vec<&str> = labels.iter().map(|it| it.1.as_str()).collect();
                lines.push(format!("{} {} {value}", family.name, labels.join(",")));
            }
        }
        lines
    }

    #[test]
    fn paths_and_connections_are_counted_by_what_became_of_them() {
        let row = Row::default();
        let with_ledger = |kind| {
            let mut path = a_path(kind);
            path.ledger = Some(a_ledger());
            row.path(path)
        };
        let fell_back = row.closed(|it| {
            it.outcome = Outcome::FellBack {
                at: None,
                cause: None,
            };
        });
        let findings = [
            with_ledger(PathKind::ConnectFailed),
            with_ledger(PathKind::Up),
            with_ledger(PathKind::Failed),
            with_ledger(PathKind::Stale),
            with_ledger(PathKind::Recovered),
            with_ledger(PathKind::Down),
            with_ledger(PathKind::Down),
            with_ledger(PathKind::AddressAnnounced),
            row.closed(|_| {}),
            fell_back,
        ];
        assert_eq!(
            counted(&findings),
            [
                "mptcp_trace_connections fell-back 1",
                "mptcp_trace_connections mptcp 1",
                "mptcp_trace_connect_failures MPCapableSynRefused 1",
                "mptcp_trace_paths down,join,connection-closed 2",
                "mptcp_trace_paths failed,join,MPJoinAckRejected 1",
                "mptcp_trace_paths up,first,none 1",
                "mptcp_trace_paths_stale  1",
                "mptcp_trace_path_bytes first,sent 8000",
                "mptcp_trace_path_bytes first,received 1200",
                "mptcp_trace_path_bytes join,sent 24000",
                "mptcp_trace_path_bytes join,received 3600",
                "mptcp_trace_path_retransmissions first 3",
                "mptcp_trace_path_retransmissions join 9",
            ]
        );
    }

    /// A count without a series at zero hides its first event from every alert, and a series per
    /// cause that somebody made up would be without bound.
    #[test]
    fn every_event_has_a_series_that_existed_before_whatever_its_cause_is() {
        let series = |paths: &Paths| -> BTreeSet<String> {
            let all = families(paths).into_iter().flat_map(|family| {
                let name = family.name;
                let samples = family.samples.into_iter();
                samples.map(move |(labels, _)| format!("{name} {labels:?}"))
            });
            all.collect()
        };
        let mut paths = Paths::new(&traced());
        let before = series(&paths);
        // As docs/metrics.md says.
        assert_eq!(before.len(), 76);
        let group = |kind| -> Vec<&'static str> {
            match kind {
                PathKind::ConnectFailed => names(CONNECT_CAUSES).collect(),
                PathKind::Failed => names(JOIN_CAUSES).chain(names(JOIN_REFUSALS)).collect(),
                PathKind::Down => names(PATH_ENDS).collect(),
                PathKind::Up
                | PathKind::Open
                | PathKind::Stale
                | PathKind::Recovered
                | PathKind::Priority
                | PathKind::AddressAnnounced
                | PathKind::AddressEchoed
                | PathKind::AddressDropped
                | PathKind::AddressOverLimit
                | PathKind::AddressRemoved => Vec::new(),
            }
        };
        for kind in PathKind::ALL {
            let made_up = (0..100).map(|it| format!("made up {it}"));
            let named = group(kind).into_iter().map(str::to_owned);
            let causes = named.chain(made_up).map(Some).chain([None]);
            for cause in causes {
                let path = Path {
                    cause: cause.map(Into::into),
                    ..a_path(kind)
                };
                paths.path(&path);
                assert_eq!(series(&paths), before, "{path:?}");
            }
        }
        for role in ROLES {
            paths.path(&Path {
                role,
                ..a_path(PathKind::Down)
            });
        }
        assert_eq!(series(&paths), before);
        assert!(series(&Paths::new(&Facts::unknown())).is_empty());
    }
}
