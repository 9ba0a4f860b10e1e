//! A private Prometheus that scrapes the tracer.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    cells::judged,
    netns::Counters,
    process::Running,
    report::Cell,
    serving::{PATIENCE, get},
    truth::THIRD_ACK,
    wait::Patience,
};

/// Scrape interval of Prometheus.
const SCRAPE_EVERY: &str = "1s";
/// Timeout until every query of a dashboard returns data: a rate needs at least two scrapes.
const DRAWN: Patience = Patience::new(Duration::from_secs(10), PATIENCE.every);

pub(crate) struct Prometheus {
    _child: Running,
    address: String,
    _files: tempfile::TempDir,
}

impl Prometheus {
    /// Starts it, and waits until it has scraped the tracer: increases before the first scrape are
    /// not part of a rate. None if it is not installed.
    pub(crate) fn start(target: &str) -> anyhow::Result<Option<Self>> {
        let files = tempfile::tempdir()?;
        let config = files.path().join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: {SCRAPE_EVERY}, scrape_timeout: {SCRAPE_EVERY}}}\n\
                 scrape_configs: [{{job_name: mptcp-trace, static_configs: [{{targets: ['{target}']}}]}}]\n"
            ),
        )?;
        // The port was free a moment ago, and is unlikely to be taken so soon.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let data = files.path().join("data");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let Some(child) = Running::if_installed("prometheus", &mut command)? else {
            return Ok(None);
        };
        let prometheus = Self {
            _child: child,
            address,
            _files: files,
        };
        // It does not answer at once.
        let is_up = || Ok(prometheus.query("up == 1").is_ok_and(|it| it.len() == 1));
        ensure!(
            PATIENCE.holds(is_up)?,
            "prometheus does not scrape the tracer"
        );
        Ok(Some(prometheus))
    }

    /// Evaluates a query now.
    fn query(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        let path = format!("/api/v1/query?query={}", escaped(query));
        let answer: Value = serde_json::from_str(&get(&self.address, &path)?)?;
        ensure!(answer["status"] == "success", "{query}: {answer}");
        Ok(answer["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default())
    }

    /// The values of a query that returns one for each cause, without zeros.
    pub(crate) fn by_cause(&self, query: &str) -> anyhow::Result<Counters> {
        let samples = self.query(query)?;
        let count = |sample: &Value| {
            let cause = sample["metric"]["cause"].as_str()?;
            if cause == THIRD_ACK {
                return None;
            }
            let value: f64 = sample["value"][1].as_str()?.parse().ok()?;
            let value = value.round() as u64;
            (value > 0).then(|| (cause.to_owned(), value))
        };
        Ok(samples.iter().filter_map(count).collect())
    }

    /// Every query of the dashboard must return data.
    pub(crate) fn draws(&self, dashboard: &Path, rung: &str) -> anyhow::Result<Cell> {
        let text = fs::read_to_string(dashboard)
            .with_context(|| format!("cannot read {}", dashboard.display()))?;
        let queries = queries(&serde_json::from_str(&text)?);
        let empty = || {
            let mut empty = Vec::new();
            for (panel, query) in &queries {
                if self.query(query)?.is_empty() {
                    empty.push(format!("{panel}: {query}"));
                }
            }
            Ok(empty)
        };
        let mut empty = DRAWN.last(empty, |empty| Ok(empty.is_empty()))?;
        let asked = queries.len();
        let want = format!("{asked} queries");
        let got = format!("{} answered", asked - empty.len());
        if asked == 0 {
            empty.push("the dashboard has no queries".to_owned());
        }
        Ok(judged("served-dashboard", rung, &want, &got, empty))
    }
}

/// The queries of a dashboard, with the titles of their panels.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    panels
        .flat_map(|panel| {
            let targets = panel["targets"].as_array().into_iter().flatten();
            targets.filter_map(|target| {
                let expr = target["expr"].as_str()?;
                let query = expr
                    .replace("$__rate_interval", "1m")
                    .replace("$__range", "5m")
                    .replace("$__interval", SCRAPE_EVERY)
                    .replace("$instance", "127.*")
                    .replace("$job", "mptcp-trace");
                Some((panel["title"].to_string(), query))
            })
        })
        .collect()
}

/// Percent-encodes a URL query component (RFC 3986, section 2.1).
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_survives_in_a_url() {
        assert_eq!(escaped("sum(a_1) > 2"), "sum%28a_1%29%20%3E%202");
    }
}
