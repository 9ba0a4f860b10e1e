//! `mptcp-trace serve`, run in the one way of [`crate::tracer`], and its page of metrics.

use std::{
    ffi::OsStr,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use crate::{
    metrics::Page,
    tracer::{OneMethodArgs, Run, Tracer},
    wait::Patience,
};

/// For everything that is expected of a tracer that serves.
pub(crate) const PATIENCE: Patience =
    Patience::new(Duration::from_secs(60), Duration::from_millis(200));

/// Fetches a path; returns the body.
pub(crate) fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE.limit))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the response has no end of its headers")?;
    let status = head.split(' ').nth(1).unwrap_or("");
    ensure!(status == "200", "{path}: {head}");
    Ok(body.to_owned())
}

/// A serving tracer.
pub(crate) struct Served {
    pub(crate) tracer: Tracer,
    /// Address that it listens on.
    pub(crate) address: String,
}

impl Served {
    /// Starts one with additional arguments, and waits until it serves.
    pub(crate) fn start(
        tried: &OneMethodArgs,
        more: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> anyhow::Result<Self> {
        let run = Run::of(&tried.tracer).args(["serve", "--listen", "127.0.0.1:0"]);
        let run = run.args(["--attach", &tried.attach]).args(more);
        let address = |said: &str| {
            let (_, rest) = said.split_once("http://")?;
            Some(rest.split_once("/metrics")?.0.to_owned())
        };
        let (tracer, address) = run.start_when(address)?.live()?;
        Ok(Self { tracer, address })
    }

    /// Fetches the page of metrics.
    pub(crate) fn text(&self) -> anyhow::Result<String> {
        get(&self.address, "/metrics")
    }

    /// Fetches the page of metrics, and parses it.
    pub(crate) fn page(&self) -> anyhow::Result<Page> {
        Page::parse(&self.text()?)
    }

    /// Makes it read its settings again.
    pub(crate) fn reload(&self) -> anyhow::Result<()> {
        self.tracer.signal(Signal::HUP)
    }

    /// Stops it, which must succeed in order; returns its stderr.
    pub(crate) fn end(self) -> anyhow::Result<String> {
        Ok(self.tracer.stop(Signal::TERM)?.in_order()?.said)
    }
}
