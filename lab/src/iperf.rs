//! A bulk transfer with iperf3 under `mptcpize run` between two network namespaces: the usual way
//! to measure it.

use std::{
    io::{BufRead as _, BufReader},
    os::fd::{AsFd as _, BorrowedFd},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::{
    net::Family,
    netns,
    paths::joined,
    process::Running,
    veth::{self, Offloads, SERVER_V4},
};

/// Warm-up seconds, omitted from the result.
const WARM_S: &str = "1";
/// Congestion control of the sender, available in every kernel.
const CONGESTION: &str = "reno";
/// Bytes per write. With iperf3's default of 128 KB, MPTCP on Linux 6.18 often stalls over such a
/// pair of devices, most of all with BBR: throughput then varies between 5 % and 100 %, with or
/// without a tracer.
const CHUNK: &str = "16K";

/// The fields of iperf3's report that are used.
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

/// Transfers for this time, on one path or on two; returns the throughput in megabytes (10^6 bytes) per second.
pub(crate) fn transfer(seconds: f64, on_two_paths: bool) -> anyhow::Result<f64> {
    let (near, far) = match on_two_paths {
        true => veth::joined_twice(Offloads::Default)?,
        false => veth::joined_with(Offloads::Default)?,
    };
    if on_two_paths {
        joined::prepare(near.as_fd(), far.as_fd(), Family::V4)?;
    }
    let _server = server(far.as_fd())?;
    let before = netns::counters(near.as_fd())?;
    let address = SERVER_V4.to_string();
    let duration = format!("{:.0}", seconds.ceil().max(1.0));
    let words = [
        "-c", &address, "-O", WARM_S, "-t", &duration, "-C", CONGESTION, "-l", CHUNK, "-J",
    ];
    let output = client(near.as_fd(), &words)?;
    let moved = netns::moved(&before, &netns::counters(near.as_fd())?);
    // Two connections, control and data; otherwise the measured transfer was not MPTCP.
    ensure!(
        moved.get("MPCapableSYNACKRX") == Some(&2),
        "iperf3 did not use MPTCP: the kernel counted {moved:?}"
    );
    let joins = if on_two_paths { Some(&2) } else { None };
    ensure!(
        moved.get("MPJoinSynAckRx") == joins,
        "another number of joins: the kernel counted {moved:?}"
    );
    rate(&output)
}

fn rate(report: &[u8]) -> anyhow::Result<f64> {
    let report: Report = serde_json::from_slice(report).context("iperf3 reports nothing")?;
    Ok(report.end.sum_received.bits_per_second / 8e6)
}

/// Starts the server and waits until it listens.
fn server(namespace: BorrowedFd<'_>) -> anyhow::Result<Running> {
    let mut command = iperf(&["-s", "-1", "--forceflush"]);
    command.stdout(Stdio::piped());
    let mut server = netns::within(namespace, || Running::start("iperf3", &mut command))?;
    let stdout = server.0.stdout.as_mut().context("iperf3 has no stdout")?;
    let is_listening = BufReader::new(stdout)
        .lines()
        .map_while(Result::ok)
        .any(|line| line.contains("listening"));
    ensure!(is_listening, "iperf3's server does not listen");
    Ok(server)
}

/// Runs the client; returns its output.
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
