//! The list of exported metrics. `docs/metrics.md` documents each; a test compares the two.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    counters::{Counters, Existing},
    exposition::{Family, Kind, Labels, counter, gauge, label, number, one},
    otlp::queue::Sums,
    paths, peers,
    process::{self, Usage},
};
use crate::{
    model::{Facts, Loss, Reconciliation, Reconciliations, SensorId, SensorState},
    observe::State,
    recorder,
};

/// Constants of a run.
#[derive(Clone, Debug)]
pub struct About {
    /// Facts about the host and how it is traced.
    pub facts: Facts,
    /// Start of tracing, wall clock.
    pub since: SystemTime,
}

/// Outcomes of the events that a sensor saw; their sum is `seen`.
const OUTCOMES: [&str; 7] = [
    "emitted",
    "filtered",
    "capped",
    "ring_full",
    "faulted",
    "table_full",
    "unfinished",
];

/// All metrics.
#[must_use]
pub fn families(
    counters: &Counters,
    state: &State,
    about: &About,
    sent: Sums,
    recorded: recorder::Sums,
    usage: Usage,
) -> Vec<Family> {
    let mut families = found(counters);
    families.extend(paths::families(&counters.paths));
    families.extend(peers::families(counters, &state.peers));
    families.extend(lost(state));
    families.extend(compared(state));
    families.extend(about_run(state, about));
    families.extend(exported(sent));
    families.extend(kept(recorded));
    families.extend(process::families(usage));
    families
}

/// Fallbacks by cause, side, certainty of the cause, and the owner that was a label when they were
/// counted.
fn fallbacks(counters: &Counters) -> Vec<(Labels, f64)> {
    let samples = counters.fallbacks.iter().map(|(key, count)| {
        let mut labels = vec![
            label("cause", &key.cause),
            label("side", key.side),
            label("known", key.known),
        ];
        if let Some((of, names)) = &key.whose {
            let names = of.labels().iter().zip(names);
            labels.extend(names.map(|(of, name)| label(of, name)));
        }
        (labels, number(*count))
    });
    samples.collect()
}

fn found(counters: &Counters) -> Vec<Family> {
    let refused = counters
        .refused
        .iter()
        .map(|(cause, count)| (vec![label("cause", cause)], number(*count)));
    let queries = counters.queries.iter().map(|(key, count)| {
        let (api, answer, verdict) = key;
        let labels = vec![
            label("api", api),
            label("answer", answer),
            label("verdict", verdict),
        ];
        (labels, number(*count))
    });
    let verdicts = counters
        .verdicts
        .iter()
        .map(|(verdict, count)| (vec![label("verdict", verdict)], number(*count)));
    let Existing {
        fallen,
        sound,
        unknown,
    } = counters.existing;
    let existing = |word, count| (vec![label("fell_back", word)], number(count));
    let (options, sockets) = counters.refusals;
    let kind = |kind, count| (vec![label("kind", kind)], number(count));
    vec![
        counter(
            "mptcp_trace_fallbacks",
            "Connections that fell back to TCP.",
            fallbacks(counters),
        ),
        counter(
            "mptcp_trace_refused_fallbacks",
            "Fallbacks that were not allowed: the subflow was reset instead.",
            refused.collect(),
        ),
        counter(
            "mptcp_trace_plain_connections",
            "TCP clients that connected to MPTCP listeners; no fallbacks.",
            one(counters.plain),
        ),
        counter(
            "mptcp_trace_blackholes",
            "Times that MPTCP was temporarily switched off in a network namespace.",
            one(counters.blackholes),
        ),
        counter(
            "mptcp_trace_existing_connections",
            "MPTCP sockets that existed when tracing began.",
            vec![
                existing("false", sound),
                existing("true", fallen),
                existing("unknown", unknown),
            ],
        ),
        counter(
            "mptcp_trace_questions",
            "Queries by applications, by API, answer and verdict.",
            queries.collect(),
        ),
        counter(
            "mptcp_trace_closed_verdicts",
            "Connections whose application held a wrong belief at the end, by verdict.",
            verdicts.collect(),
        ),
        counter(
            "mptcp_trace_refusals",
            "Options and sockets refused to applications because of MPTCP.",
            vec![kind("option", options), kind("socket", sockets)],
        ),
    ]
}

/// Events that were seen, by outcome.
fn lost(state: &State) -> Vec<Family> {
    let sensors = &state.losses.sensors;
    let of = |loss: &Loss, wanted: &str| {
        let mut all = loss.counters().into_iter();
        all.find(|(name, _)| *name == wanted)
            .map_or(0.0, |(_, count)| number(count))
    };
    let each = |wanted: &'static str| {
        sensors
            .iter()
            .map(|loss| (vec![label("sensor", loss.sensor.name())], of(loss, wanted)))
            .collect()
    };
    let outcomes = sensors.iter().flat_map(|loss| {
        OUTCOMES.map(|outcome| {
            let labels = vec![
                label("sensor", loss.sensor.name()),
                label("outcome", outcome),
            ];
            (labels, of(loss, outcome))
        })
    });
    vec![
        counter(
            "mptcp_trace_seen",
            "Events that the probes of a sensor saw; the sum of its outcomes.",
            each("seen"),
        ),
        counter(
            "mptcp_trace_outcomes",
            "Events by outcome. All outcomes but emitted, filtered and capped are losses.",
            outcomes.collect(),
        ),
        counter(
            "mptcp_trace_missed_runs",
            "Probe runs that the kernel skipped; not included in seen.",
            each("missed"),
        ),
        counter(
            "mptcp_trace_unfollowed",
            "Sockets (sensor fallback) or children (sensor query) not tracked because a table was \
             full. Fallbacks of such sockets have no owner.",
            each("unfollowed"),
        ),
        counter(
            "mptcp_trace_undecodable_records",
            "Records that could not be decoded: a bug.",
            one(state.undecodable),
        ),
        counter(
            "mptcp_trace_evicted_connections",
            "Connections evicted before their end because the table was full.",
            one(state.evicted),
        ),
    ]
}

/// Compares the kernel's counters with the traced fallbacks.
fn compared(state: &State) -> Vec<Family> {
    let Reconciliations { fallbacks, paths } = &state.reconciled;
    let missing = fallbacks.iter().map(Reconciliation::missing);
    vec![
        gauge(
            "mptcp_trace_namespaces",
            "Network namespaces with fallbacks, by whether the kernel's counters agree with the \
             traced fallbacks.",
            by_agreement(fallbacks),
        ),
        gauge(
            "mptcp_trace_path_namespaces",
            "Network namespaces with joins or other counted events of paths, by whether the \
             kernel's counters agree with what was traced.",
            by_agreement(paths),
        ),
        gauge(
            "mptcp_trace_missing_fallbacks",
            "Fallbacks counted by the kernel since the start but not traced.",
            one(missing.fold(0, u64::saturating_add)),
        ),
    ]
}

/// Number of namespaces whose counters agree, differ, or could not be read.
fn by_agreement(all: &[Reconciliation]) -> Vec<(Labels, f64)> {
    let [mut agree, mut differ, mut unread] = [0_u64; 3];
    for namespace in all {
        match (namespace.unread, namespace.agrees()) {
            (true, _) => unread += 1,
            (false, true) => agree += 1,
            (false, false) => differ += 1,
        }
    }
    [("agree", agree), ("differ", differ), ("unread", unread)]
        .map(|(word, count)| (vec![label("counters", word)], number(count)))
        .into()
}

fn about_run(state: &State, about: &About) -> Vec<Family> {
    let remembered = u64::try_from(state.remembered).unwrap_or(u64::MAX);
    let since = about.since.duration_since(UNIX_EPOCH).unwrap_or_default();
    let sensor = |sensor: &SensorState| {
        let labels = vec![
            label("sensor", sensor.sensor.name()),
            label("rung", sensor.rung.name()),
        ];
        (labels, 1.0)
    };
    let limits = |sensor: &SensorState| {
        let count = u64::try_from(sensor.limits.len()).unwrap_or(u64::MAX);
        (vec![label("sensor", sensor.sensor.name())], number(count))
    };
    let runs = |sensor: SensorId| {
        let runs = u64::from(about.facts.has_sensor(sensor));
        (vec![label("sensor", sensor.name())], number(runs))
    };
    let sensors = &about.facts.sensors;
    vec![
        gauge(
            "mptcp_trace_remembered_connections",
            "Connections tracked now.",
            one(remembered),
        ),
        Family {
            name: "mptcp_trace_sensor",
            kind: Kind::Info,
            help: "Attach method of each sensor.",
            samples: sensors.iter().map(sensor).collect(),
        },
        gauge(
            "mptcp_trace_sensor_runs",
            "1 if the sensor runs; 0 if it is off and its events are not traced.",
            SensorId::ALL.map(runs).to_vec(),
        ),
        gauge(
            "mptcp_trace_sensor_limits",
            "Number of limits of a sensor on this kernel, as printed by doctor.",
            sensors.iter().map(limits).collect(),
        ),
        Family {
            name: "mptcp_trace_build",
            kind: Kind::Info,
            help: "Versions of mptcp-trace and of the traced kernel.",
            samples: vec![(
                vec![
                    label("version", &about.facts.version),
                    label("kernel", &about.facts.kernel),
                ],
                1.0,
            )],
        },
        gauge(
            "mptcp_trace_start_time_seconds",
            "Start time of tracing, in seconds since the epoch.",
            vec![(Vec::new(), since.as_secs_f64())],
        ),
    ]
}

/// Records by outcome of the export; zeros without a collector.
fn exported(sent: Sums) -> Vec<Family> {
    let Sums {
        exported,
        full,
        refused,
        rejected,
        off,
        failed_logs,
        failed_metrics,
        queued,
    } = sent;
    let reason = |word, count| (vec![label("reason", word)], number(count));
    let signal = |word, count| (vec![label("signal", word)], number(count));
    vec![
        counter(
            "mptcp_trace_otlp_exported_logs",
            "Findings accepted by the collector.",
            one(exported),
        ),
        counter(
            "mptcp_trace_otlp_dropped_logs",
            "Findings not delivered, by reason.",
            vec![
                reason("full", full),
                reason("refused", refused),
                reason("rejected", rejected),
                reason("off", off),
            ],
        ),
        counter(
            "mptcp_trace_otlp_failed_requests",
            "Failed requests to the collector, each attempt counted.",
            vec![
                signal("logs", failed_logs),
                signal("metrics", failed_metrics),
            ],
        ),
        gauge(
            "mptcp_trace_otlp_queued_logs",
            "Findings queued for the collector.",
            one(queued),
        ),
    ]
}

/// The flight recorder; zeros without one.
fn kept(recorded: recorder::Sums) -> Vec<Family> {
    let recorder::Sums {
        writes,
        recorded,
        queue_full,
        unwritten,
        bytes,
        segments,
        dumps: (made, failed),
    } = recorded;
    let reason = |word, count| (vec![label("reason", word)], number(count));
    let result = |word, count| (vec![label("result", word)], number(count));
    vec![
        gauge(
            "mptcp_trace_recorder_writes",
            "1 while the flight recorder writes; 0 without one, or if it cannot write.",
            one(u64::from(writes)),
        ),
        counter(
            "mptcp_trace_recorder_recorded",
            "Records that the flight recorder has written to disk.",
            one(recorded),
        ),
        counter(
            "mptcp_trace_recorder_missing",
            "Records that are missing from the recording, by reason.",
            vec![reason("queue", queue_full), reason("write", unwritten)],
        ),
        gauge(
            "mptcp_trace_recorder_bytes",
            "Bytes of the recording on disk, with the dumps in its directory.",
            one(bytes),
        ),
        counter(
            "mptcp_trace_recorder_segments",
            "Files that the flight recorder has begun.",
            one(segments),
        ),
        counter(
            "mptcp_trace_recorder_dumps",
            "Dumps made in the directory of the recording, by result.",
            vec![result("made", made), result("failed", failed)],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        model::{LossReport, Reconciliation, Rung},
        serve::{
            exposition::Flavour,
            labels::{Fallback, Whose},
        },
    };

    fn about() -> About {
        About {
            facts: Facts {
                version: "1.2.3".into(),
                kernel: "6.12".into(),
                boot_epoch: std::time::Duration::ZERO,
                fallback_bit: None,
                causes: Vec::new(),
                counters_read_at: BTreeMap::new(),
                counters_listed_at: None,
                counters_at_start: BTreeMap::new(),
                sensors: vec![SensorState {
                    sensor: SensorId::Query,
                    rung: Rung::Fexit,
                    probes: Vec::new(),
                    limits: vec!["latency is unknown".into()],
                }],
                dump: None,
            },
            since: UNIX_EPOCH + std::time::Duration::from_millis(1500),
        }
    }

    fn all(counters: &Counters, state: &State) -> Vec<Family> {
        families(
            counters,
            state,
            &about(),
            Sums::default(),
            recorder::Sums::default(),
            Usage::default(),
        )
    }

    fn text(counters: &Counters, state: &State) -> String {
        Flavour::Prometheus.render(&all(counters, state))
    }

    #[test]
    fn every_metric_is_documented_with_its_type_and_no_other_is() {
        let families = all(&Counters::default(), &State::default());
        let exported: Vec<String> = families
            .iter()
            .map(|family| {
                let (suffix, kind) = match family.kind {
                    Kind::Counter | Kind::TimeCounter => ("_total", "counter"),
                    Kind::Gauge => ("", "gauge"),
                    Kind::Info => ("_info", "info"),
                };
                format!("| `{}{suffix}` | {kind} |", family.name)
            })
            .collect();
        let page = include_str!("../../../docs/metrics.md");
        let documented: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("| `mptcp_trace_") || line.starts_with("| `process_"))
            .collect();
        assert_eq!(documented.len(), exported.len());
        for (line, start) in documented.iter().zip(&exported) {
            assert!(line.starts_with(start.as_str()), "{line:?} is no {start:?}");
        }
    }

    #[test]
    fn what_was_seen_is_the_sum_of_its_outcomes() {
        let loss = Loss {
            sensor: SensorId::Query,
            seen: 28,
            emitted: 1,
            filtered: 2,
            capped: 3,
            ring_full: 4,
            faulted: 5,
            table_full: 6,
            unfinished: 7,
            missed: 8,
            unfollowed: 0,
            over_share: 0,
            self_tests: 0,
            packets_lost: 0,
        };
        assert!(loss.balances());
        let state = State {
            losses: LossReport {
                sensors: vec![loss],
                counted: Vec::new(),
                paths_under_way: 0,
            },
            ..State::default()
        };
        let text = text(&Counters::default(), &state);
        let sum: f64 = text
            .lines()
            .filter(|line| line.starts_with("mptcp_trace_outcomes_total{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        assert!((sum - 28.0).abs() < 0.5, "{text}");
        assert!(text.contains("mptcp_trace_seen_total{sensor=\"query\"} 28\n"));
        assert!(text.contains("mptcp_trace_missed_runs_total{sensor=\"query\"} 8\n"));
    }

    /// A count that moved from one series to another would look like new fallbacks there.
    #[test]
    fn fallbacks_keep_the_owner_with_which_they_were_counted() {
        let of = |whose: Option<(Whose, &[&str])>| Fallback {
            cause: "DssFallback".into(),
            side: "client",
            known: "reported",
            whose: whose
                .map(|(whose, names)| (whose, names.iter().map(ToString::to_string).collect())),
        };
        let mut counters = Counters::default();
        counters.fallbacks = BTreeMap::from([
            (of(None), 0),
            (of(Some((Whose::Process, &["nginx"]))), 2),
            (of(Some((Whose::Cgroup, &["/a"]))), 3),
            (of(Some((Whose::Pod, &["shop", "web", "(unknown)"]))), 4),
        ]);
        let line =
            "mptcp_trace_fallbacks_total{cause=\"DssFallback\",side=\"client\",known=\"reported\"";
        let text = text(&counters, &State::default());
        for rest in [
            "} 0",
            ",process=\"nginx\"} 2",
            ",cgroup=\"/a\"} 3",
            ",k8s_namespace_name=\"shop\",k8s_pod_name=\"web\",k8s_container_name=\"(unknown)\"} 4",
        ] {
            assert!(text.contains(&format!("{line}{rest}\n")), "{text}");
        }
    }

    #[test]
    fn namespaces_are_counted_by_whether_the_kernel_agrees() {
        let namespace = |why: Option<&str>, unread| Reconciliation {
            why: why.map(str::to_owned),
            unread,
            ..Reconciliation::default()
        };
        let state = State {
            reconciled: Reconciliations {
                fallbacks: vec![
                    namespace(None, false),
                    Reconciliation {
                        counted: [("A".to_owned(), 3)].into(),
                        traced: [("A".to_owned(), 1)].into(),
                        ..namespace(Some("x"), false)
                    },
                    namespace(Some("gone"), true),
                ],
                paths: vec![
                    namespace(None, false),
                    Reconciliation {
                        explained: true,
                        ..namespace(Some("1 path under way"), false)
                    },
                    namespace(Some("x"), false),
                ],
            },
            ..State::default()
        };
        let text = text(&Counters::default(), &state);
        assert!(text.contains("mptcp_trace_missing_fallbacks 2\n"), "{text}");
        assert!(text.contains("mptcp_trace_sensor_runs{sensor=\"query\"} 1\n"));
        assert!(text.contains("mptcp_trace_sensor_runs{sensor=\"fallback\"} 0\n"));
        for word in ["agree", "differ", "unread"] {
            assert!(text.contains(&format!(
                "mptcp_trace_namespaces{{counters=\"{word}\"}} 1\n"
            )));
        }
        for (word, count) in [("agree", 2), ("differ", 1), ("unread", 0)] {
            assert!(text.contains(&format!(
                "mptcp_trace_path_namespaces{{counters=\"{word}\"}} {count}\n"
            )));
        }
    }
}
