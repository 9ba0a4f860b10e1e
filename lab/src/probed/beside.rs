//! A tracer beside a probe does not show the probe's own connection: nobody must get an alert from it.

use std::{
    collections::BTreeSet,
    os::fd::BorrowedFd,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::Signal;

use super::server::{Peer, Server};
use crate::{
    cells::{judged, unavailable},
    chain::Chain,
    net::Family,
    netns,
    report::Cell,
    tracer::{Run, TracerArgs},
};

/// Probes that can mark their connection; one that cannot follows.
const MARKED: usize = 3;
/// What the tracer prints: all that it knows of a connection.
const KINDS: &str = "fallback,query,path,closed,verdict";

/// Probes beside a tracer; returns a cell for each attach method.
pub(super) fn run(tried: &TracerArgs) -> anyhow::Result<Vec<Cell>> {
    tried
        .rungs()
        .iter()
        .map(|rung| with_rung(tried, rung))
        .collect()
}

fn with_rung(tried: &TracerArgs, rung: &str) -> anyhow::Result<Cell> {
    const CASE: &str = "probed-beside";
    let chain = Chain::new(2)?;
    let server = Server::start(&chain, Family::V4, Peer::Mptcp)?;
    let namespace = netns::number(chain.client())?.to_string();
    let run = Run::live(&tried.tracer, rung)
        .args(&tried.tracer_arg)
        .keeping()
        .args(["--netns", &namespace, "--kind", KINDS]);
    let tracer = match run.start()?.available()? {
        Ok(tracer) => tracer,
        Err(why) => return Ok(unavailable(CASE, rung, why)),
    };
    let peer = server.address.to_string();
    let mut codes = Vec::new();
    for number in 0..=MARKED {
        let mut probe = match number < MARKED {
            true => Command::new(&tried.tracer),
            // Without CAP_BPF it cannot: this shows that the tracer would have seen the others.
            false => {
                let mut bare = Command::new("setpriv");
                bare.arg("--bounding-set=-all,+net_raw").arg(&tried.tracer);
                bare
            }
        };
        probe.args(["probe", "--timeout", super::TIMEOUT, &peer]);
        codes.push(code(chain.client(), &mut probe)?);
    }
    // The end of the last connection.
    std::thread::sleep(Duration::from_millis(500));
    let ended = tracer.stop(Signal::INT)?.in_order()?;
    let mut shown = BTreeSet::new();
    for line in ended.text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).context("a line is no JSON")?;
        if let Some(id) = line["data"]["id"].as_str() {
            shown.insert(id.to_owned());
        }
    }
    let mut wrong = Vec::new();
    if codes.iter().any(|code| *code != Some(0)) {
        wrong.push(format!("the probes end with {codes:?}"));
    }
    if shown.len() != 1 {
        wrong.push(format!("connections: {shown:?}"));
    }
    let said = format!("{} connections", shown.len());
    Ok(judged(
        CASE,
        rung,
        "only the one that is not marked",
        &said,
        wrong,
    ))
}

fn code(namespace: BorrowedFd<'_>, probe: &mut Command) -> anyhow::Result<Option<i32>> {
    probe.stdin(Stdio::null()).stdout(Stdio::null());
    let status = netns::within(namespace, || {
        probe.status().context("cannot run the tracer")
    })?;
    Ok(status.code())
}
