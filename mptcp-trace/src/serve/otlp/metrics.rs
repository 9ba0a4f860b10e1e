//! Converts the metrics of the page to OTLP. Pure; the page decides which metrics exist.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::{nanos, string};
use crate::serve::exposition::{Family, Kind, Labels};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u8 = 2;

/// Every family with a sample. Names are those of the page without `_total`, which is specific to
/// Prometheus; collectors that export to Prometheus append it.
#[must_use]
pub fn metrics(families: &[Family], since: SystemTime, now: SystemTime) -> Vec<Value> {
    let has_samples = |family: &&Family| !family.samples.is_empty();
    let (since, now) = (nanos(since), nanos(now));
    families
        .iter()
        .filter(has_samples)
        .map(|family| metric(family, &since, &now))
        .collect()
}

fn metric(family: &Family, since: &str, now: &str) -> Value {
    let Family {
        name,
        kind,
        help,
        samples,
    } = family;
    let points: Vec<Value> = samples
        .iter()
        .map(|(labels, value)| point(*kind, labels, *value, since, now))
        .collect();
    let (name, field, data) = match kind {
        Kind::Counter | Kind::TimeCounter => (
            (*name).to_owned(),
            "sum",
            json!({"aggregationTemporality": CUMULATIVE, "isMonotonic": true, "dataPoints": points}),
        ),
        Kind::Gauge => ((*name).to_owned(), "gauge", json!({"dataPoints": points})),
        Kind::Info => (
            format!("{name}_info"),
            "gauge",
            json!({"dataPoints": points}),
        ),
    };
    let mut metric = Map::new();
    metric.insert("name".into(), name.into());
    metric.insert("description".into(), (*help).into());
    metric.insert(field.into(), data);
    Value::Object(metric)
}

fn point(kind: Kind, labels: &Labels, value: f64, since: &str, now: &str) -> Value {
    let attributes: Vec<Value> = labels
        .iter()
        .map(|(name, value)| string(name, value))
        .collect();
    match kind {
        // The value is a whole number. The protocol allows a number and a string here; rotel loses
        // a string.
        Kind::Counter => json!({
            "attributes": attributes,
            "startTimeUnixNano": since,
            "timeUnixNano": now,
            "asInt": value.round() as u64,
        }),
        Kind::TimeCounter => json!({
            "attributes": attributes,
            "startTimeUnixNano": since,
            "timeUnixNano": now,
            "asDouble": value,
        }),
        Kind::Gauge | Kind::Info => {
            json!({"attributes": attributes, "timeUnixNano": now, "asDouble": value})
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn counters_are_sums_since_the_start_and_the_rest_are_gauges() {
        let family = |name, kind, samples| Family {
            name,
            kind,
            help: "Why.",
            samples,
        };
        let labels = vec![("cause", "a\"b".to_owned())];
        let families = [
            family(
                "x",
                Kind::Counter,
                vec![(labels.clone(), 3.0), (Vec::new(), 1e15)],
            ),
            family("t_seconds", Kind::TimeCounter, vec![(Vec::new(), 0.25)]),
            family("none", Kind::Counter, Vec::new()),
            family("g", Kind::Gauge, vec![(Vec::new(), 0.5)]),
            family("i", Kind::Info, vec![(labels, 1.0)]),
        ];
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let attributes = json!([{"key": "cause", "value": {"stringValue": "a\"b"}}]);
        let (since, now) = ("1000000000", "2000000000");
        assert_eq!(
            Value::Array(metrics(&families, at(1), at(2))),
            json!([
                {"name": "x", "description": "Why.", "sum": {
                    "aggregationTemporality": 2,
                    "isMonotonic": true,
                    "dataPoints": [
                        {"attributes": attributes, "startTimeUnixNano": since, "timeUnixNano": now, "asInt": 3},
                        {"attributes": [], "startTimeUnixNano": since, "timeUnixNano": now, "asInt": 1_000_000_000_000_000_u64},
                    ],
                }},
                {"name": "t_seconds", "description": "Why.", "sum": {
                    "aggregationTemporality": 2,
                    "isMonotonic": true,
                    "dataPoints": [
                        {"attributes": [], "startTimeUnixNano": since, "timeUnixNano": now, "asDouble": 0.25},
                    ],
                }},
                {"name": "g", "description": "Why.", "gauge": {
                    "dataPoints": [{"attributes": [], "timeUnixNano": now, "asDouble": 0.5}],
                }},
                {"name": "i_info", "description": "Why.", "gauge": {
                    "dataPoints": [{"attributes": attributes, "timeUnixNano": now, "asDouble": 1.0}],
                }},
            ])
        );
    }
}
