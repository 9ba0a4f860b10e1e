//! A receiver of OTLP that parses everything with the official schema.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::Route;
use crate::{
    netns::Counters,
    process::Running,
    truth::{THIRD_ACK, Truth},
    wait::Patience,
};

/// The receiver, in Python because a package there provides the schema.
const RECEIVER: &str = include_str!("receiver.py");
/// Its exit code if the package is missing.
const NO_SCHEMA: i32 = 77;
/// Until it listens, or the tracer notices that it does not.
pub(super) const START: Patience =
    Patience::new(Duration::from_secs(20), Duration::from_millis(100));

/// A receiver that can be stopped and restarted on the same port.
pub(super) struct Receiver {
    python: PathBuf,
    script: PathBuf,
    port: u16,
    file: PathBuf,
    child: Option<Running>,
}

/// Everything received so far.
#[derive(Default)]
pub(super) struct Read {
    /// The complete attributes of each record, including its timestamp.
    pub(super) different: BTreeSet<String>,
    /// Attributes of each record.
    pub(super) logs: Vec<BTreeMap<String, Value>>,
    /// Counters of the latest request.
    pub(super) metrics: Counters,
    pub(super) wrong: Vec<String>,
}

impl Receiver {
    pub(super) fn new(python: &Path, files: &Path) -> anyhow::Result<Self> {
        let script = files.join("receiver.py");
        fs::write(&script, RECEIVER)?;
        let file = files.join("received.jsonl");
        File::create(&file)?;
        Ok(Self {
            python: python.to_owned(),
            script,
            port: TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
            file,
            child: None,
        })
    }

    /// Port that it listens on.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// False if the schema is unavailable.
    pub(super) fn start(&mut self, refuse: u32) -> anyhow::Result<bool> {
        let mut command = Command::new(&self.python);
        command
            .arg(&self.script)
            .arg(self.port.to_string())
            .arg(&self.file)
            .arg(refuse.to_string())
            .stdin(Stdio::null());
        let Some(child) = Running::if_installed("python3", &mut command)? else {
            return Ok(false);
        };
        let child = self.child.insert(child);
        let port = self.port;
        let listens = START.until(|| {
            Ok(match child.ended()? {
                Some(status) => Some(Err(status)),
                None => TcpStream::connect(("127.0.0.1", port)).ok().map(|_| Ok(())),
            })
        })?;
        match listens.context("the receiver does not listen")? {
            Ok(()) => Ok(true),
            Err(status) if status.code() == Some(NO_SCHEMA) => Ok(false),
            Err(status) => bail!("the receiver ended: {status}"),
        }
    }

    pub(super) fn read(&self) -> anyhow::Result<Read> {
        let text = fs::read_to_string(&self.file)?;
        let mut read = Read::default();
        // The last line may be incomplete.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            let line: Value = serde_json::from_str(line).context("the receiver writes no JSON")?;
            if line["wrong"].is_string() {
                read.wrong.push(line.to_string());
            } else if let Value::Object(metrics) = &line["metrics"] {
                let value = |value: &Value| Some(value.as_f64()?.round() as u64);
                read.metrics = metrics
                    .iter()
                    .filter(|(name, _)| is_total(name))
                    .filter_map(|(name, it)| Some((name.clone(), value(it)?)))
                    .collect();
            } else {
                let log: BTreeMap<String, Value> = serde_json::from_value(line["log"].clone())?;
                read.different.insert(format!("{log:?}"));
                read.logs.push(log);
            }
        }
        Ok(read)
    }
}

/// Directly to the receiver.
impl Route for Receiver {
    fn name(&self) -> &'static str {
        "exported"
    }

    fn words(&self) -> Vec<String> {
        let url = format!("http://127.0.0.1:{}", self.port);
        export_to(&url)
    }

    fn interrupt(&mut self) -> anyhow::Result<()> {
        self.child = None;
        Ok(())
    }

    fn resume(&mut self) -> anyhow::Result<()> {
        // Its first answer is "unavailable".
        ensure!(self.start(1)?, "the receiver does not start again");
        Ok(())
    }

    fn receiver(&self) -> &Receiver {
        self
    }
}

/// Arguments that make the tracer export to a URL.
pub(super) fn export_to(url: &str) -> Vec<String> {
    ["--otlp", url, "--otlp-interval", "1s"]
        .map(str::to_owned)
        .to_vec()
}

impl Read {
    /// Fallbacks of the recipes played, by cause.
    pub(super) fn fallbacks(&self, played: &Truth) -> Counters {
        let number = |log: &BTreeMap<String, Value>, name: &str| {
            log.get(name).and_then(Value::as_u64).unwrap_or(0)
        };
        let is_ours = |log: &&BTreeMap<String, Value>| {
            played.has(number(log, "mptcp.netns"), number(log, "mptcp.boottime_ns"))
        };
        let logs = self.logs.iter().filter(is_ours).cloned().collect();
        Self {
            logs,
            ..Self::default()
        }
        .by("fallback", "mptcp.cause")
    }

    /// Number of records of a type, by an attribute.
    pub(super) fn by(&self, finding: &str, attribute: &str) -> Counters {
        let mut counts = Counters::new();
        for log in &self.logs {
            let of = log.get(attribute).and_then(Value::as_str).unwrap_or("none");
            if log["mptcp.finding"] == finding && of != THIRD_ACK {
                *counts.entry(of.to_owned()).or_default() += 1;
            }
        }
        counts
    }
}

/// Whether a series is a counter.
pub(super) fn is_total(series: &str) -> bool {
    let name = series.split('{').next();
    name.is_some_and(|name| name.ends_with("_total"))
}
