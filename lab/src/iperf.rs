//! A bulk transfer by iperf3 under `mptcpize run`, between two network namespaces: as people measure it.

use std::{
    io::{BufRead as _, BufReader},
    os::fd::{AsFd as _, BorrowedFd},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::{
    netns,
    veth::{self, Offloads, SERVER_V4},
};

/// Seconds that do not count: they find everything cold.
const WARM_S: &str = "1";
/// Congestion control of the sender: every kernel has this one.
const CONGESTION: &str = "reno";
/// Bytes that are handed over at a time. With iperf3's own 128 KB MPTCP on Linux 6.18 often stalls over such a pair of devices,
/// above all by BBR: transfers come to rest anywhere between a twentieth and all of the throughput, tracer or not.
const CHUNK: &str = "16K";

/// What iperf3 reports, as far as it is read.
#[derive(Deserialize)]
struct Report {
    end: End,
}

#[derive(Deserialize)]
struct End {
    sum_received: Sum,
}

#[derive(Deserialize)]
struct Sum {
    bits_per_second: f64,
}

/// Transfers once for so long; megabytes (10^6 bytes) a second.
pub(crate) fn transfer(seconds: f64) -> anyhow::Result<f64> {
    let (near, far) = veth::joined_with(Offloads::Default)?;
    let _server = Server::start(far.as_fd())?;
    let before = netns::counters(near.as_fd())?;
    let address = SERVER_V4.to_string();
    let duration = format!("{:.0}", seconds.ceil().max(1.0));
    let words = [
        "-c", &address, "-O", WARM_S, "-t", &duration, "-C", CONGESTION, "-l", CHUNK, "-J",
    ];
    let output = client(near.as_fd(), &words)?;
    let moved = netns::moved(&before, &netns::counters(near.as_fd())?);
    // Two connections, control and data: else it is not MPTCP that was measured.
    ensure!(
        moved.get("MPCapableSYNACKRX") == Some(&2),
        "iperf3 did not speak MPTCP: the kernel counted {moved:?}"
    );
    rate(&output)
}

fn rate(report: &[u8]) -> anyhow::Result<f64> {
    let report: Report = serde_json::from_slice(report).context("iperf3 reports nothing")?;
    Ok(report.end.sum_received.bits_per_second / 8e6)
}

/// Its end is the end of iperf3's server.
struct Server(Child);

impl Server {
    /// Starts it, and waits until it listens.
    fn start(namespace: BorrowedFd<'_>) -> anyhow::Result<Self> {
        let child = netns::within(namespace, || {
            iperf(&["-s", "-1", "--forceflush"])
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot run mptcpize and iperf3")
        })?;
        let mut server = Self(child);
        let stdout = server.0.stdout.as_mut().context("iperf3 has no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let is_listening = lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.contains("listening"));
        ensure!(is_listening, "iperf3's server does not listen");
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// Runs the client; what it printed.
fn client(namespace: BorrowedFd<'_>, words: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = netns::within(namespace, || {
        iperf(words)
            .output()
            .context("cannot run mptcpize and iperf3")
    })?;
    ensure!(
        output.status.success(),
        "iperf3 ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(output.stdout)
}

fn iperf(words: &[&str]) -> Command {
    let mut command = Command::new("mptcpize");
    command
        .args(["run", "iperf3"])
        .args(words)
        .stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_what_arrived_in_megabytes() {
        let report = br#"{"start":{},"end":{"sum_sent":{"bits_per_second":9e9},"sum_received":{"bits_per_second":8e9}}}"#;
        assert_eq!(rate(report).unwrap(), 1000.0);
        assert!(rate(b"{}").is_err());
    }
}
