//! Throughput of the stages behind the ring, as measured by criterion.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::figures::Stage;
use crate::{command, places::Places};

/// Names of the benchmarks, and their labels in the table.
const STAGES: [(&str, &str); 4] = [
    ("decode", "decode"),
    (
        "correlate",
        "correlate (order, verdict, memory of the connection)",
    ),
    ("all, JSON", "decode to JSON lines"),
    ("all, text", "decode to text"),
];

/// Runs the benchmarks of the stages and returns the median of each.
pub(crate) fn stages(places: &Places) -> Result<Vec<Stage>> {
    let mut cargo = command::cargo(&places.root);
    cargo.args([
        "bench",
        "--quiet",
        "--package",
        "mptcp-trace",
        "--bench",
        "stages",
    ]);
    command::output(&mut cargo, "cannot measure the stages behind the ring")?;
    STAGES
        .iter()
        .map(|(id, name)| {
            let directory = places.target.join("criterion/records").join(id).join("new");
            Ok(Stage {
                name: (*name).to_owned(),
                records_per_second: rate(&directory)
                    .with_context(|| format!("criterion left nothing of {id:?}"))?,
            })
        })
        .collect()
}

fn rate(directory: &Path) -> Result<f64> {
    let read = |name: &str| -> Result<Value> {
        let file = directory.join(name);
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("cannot read {}", file.display()))
    };
    per_second(&read("estimates.json")?, &read("benchmark.json")?)
        .context("its files do not hold a median and a throughput")
}

/// Elements per second: the elements of one round divided by its median time.
fn per_second(estimates: &Value, benchmark: &Value) -> Option<f64> {
    let ns = estimates.get("median")?.get("point_estimate")?.as_f64()?;
    let elements = benchmark.get("throughput")?.get("Elements")?.as_f64()?;
    Some(elements * 1e9 / ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_elements_by_time() {
        let estimates = serde_json::json!({"median": {"point_estimate": 5e8}});
        let benchmark = serde_json::json!({"throughput": {"Elements": 100_000}});
        assert_eq!(per_second(&estimates, &benchmark), Some(200_000.0));
        assert_eq!(per_second(&benchmark, &estimates), None);
    }
}
