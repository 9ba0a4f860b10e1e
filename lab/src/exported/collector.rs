//! rotel, a collector for OpenTelemetry, between the tracer and the receiver.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use super::{
    Route,
    front::Front,
    receiver::{Receiver, START, export_to},
};
use crate::process::Running;

/// A collector that passes everything on to a receiver, with or without TLS before it.
pub(super) struct Collected {
    program: PathBuf,
    files: PathBuf,
    receiver: Receiver,
    /// Its port for OTLP/HTTP.
    port: u16,
    child: Option<Running>,
    front: Option<Front>,
}

impl Collected {
    /// Starts a collector, and encryption before it.
    pub(super) fn start(
        program: &Path,
        receiver: Receiver,
        is_encrypted: bool,
        files: &Path,
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let front = is_encrypted.then(|| Front::start(files, free_port()?, port));
        let mut collected = Self {
            program: program.to_owned(),
            files: files.to_owned(),
            receiver,
            port,
            child: None,
            front: front.transpose()?,
        };
        collected.resume()?;
        Ok(collected)
    }
}

/// The port was free a moment ago, and is unlikely to be taken so soon.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Route for Collected {
    fn name(&self) -> &'static str {
        match self.front {
            None => "collected",
            Some(_) => "collected-tls",
        }
    }

    fn words(&self) -> Vec<String> {
        match &self.front {
            None => export_to(&format!("http://127.0.0.1:{}", self.port)),
            Some(front) => {
                let mut words = export_to(&front.url());
                words.extend(["--otlp-ca".into(), front.authority().display().to_string()]);
                words
            }
        }
    }

    /// Ends it in order: it passes on what it has accepted.
    fn interrupt(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("the collector is not running")?;
        child.signal(Signal::TERM)?;
        let status = child.wait(START)?.context("the collector does not end")?;
        ensure!(status.success(), "the collector ended with {status}");
        Ok(())
    }

    fn resume(&mut self) -> anyhow::Result<()> {
        let http = format!("127.0.0.1:{}", self.port);
        let mut command = Command::new(&self.program);
        command
            .args(["start", "--disable-batching", "--exporter", "otlp"])
            .args(["--otlp-exporter-protocol", "http"])
            .arg("--otlp-exporter-endpoint")
            .arg(format!("http://127.0.0.1:{}", self.receiver.port()))
            .args(["--otlp-http-endpoint", &http])
            .arg("--otlp-grpc-endpoint")
            .arg(format!("127.0.0.1:{}", free_port()?))
            .arg("--pid-file")
            .arg(self.files.join("rotel.pid"))
            .arg("--log-file")
            .arg(self.files.join("rotel.log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = self.child.insert(Running::start("rotel", &mut command)?);
        let listens = START.holds(|| {
            ensure!(child.ended()?.is_none(), "the collector does not start");
            Ok(TcpStream::connect(&http).is_ok())
        });
        ensure!(listens?, "the collector does not listen on {http}");
        Ok(())
    }

    fn receiver(&self) -> &Receiver {
        &self.receiver
    }
}
