//! JSON lines, documented field by field in `docs/output.md`.

use std::{collections::BTreeMap, net::SocketAddr};

use jiff::Timestamp;
use serde::Serialize;

use super::*;
use crate::pair::judge::Packet;

/// Version of the schema in `docs/output.md`.
const SCHEMA: u32 = 1;

/// A time in JSON.
fn rfc3339(at: Ns) -> Option<String> {
    let stamp = Timestamp::from_nanosecond(at.into()).ok()?;
    Some(format!("{stamp:.9}"))
}

#[derive(Serialize)]
struct Message<T> {
    #[serde(rename = "type")]
    kind: &'static str,
    data: T,
}

#[derive(Serialize)]
struct Start<'a> {
    schema: u32,
    version: &'static str,
    client_capture: AboutTwin<'a>,
    server_capture: AboutTwin<'a>,
    offset_ns: Option<Ns>,
    server_ahead: Option<bool>,
    uncertainty_ns: Option<Ns>,
    handshakes: usize,
}

#[derive(Serialize)]
struct AboutTwin<'a> {
    file: &'a str,
    from: Option<String>,
    to: Option<String>,
    connections: usize,
    gap: Option<&'a str>,
    filtered: u64,
    beyond: u64,
    redacted: bool,
}

impl<'a> From<&'a Capture> for AboutTwin<'a> {
    fn from(capture: &'a Capture) -> Self {
        let (from, to) = span(&capture.about);
        Self {
            file: &capture.about.name,
            from: rfc3339(from),
            to: rfc3339(to),
            connections: capture.ends.all.len(),
            gap: capture.about.gap.as_deref(),
            filtered: capture.about.filtered,
            beyond: capture.about.beyond,
            redacted: capture.about.redacted,
        }
    }
}

#[derive(Serialize)]
struct PairTwin<'a> {
    time: Option<String>,
    judgement: &'static str,
    packet: Option<&'static str>,
    why: &'a str,
    left: Option<String>,
    arrived: Option<String>,
    joined_by: Option<&'static str>,
    likely: bool,
    reversed: bool,
    client: Option<EndTwin<'a>>,
    server: Option<EndTwin<'a>>,
    path_pairs: Vec<PathTwin<'a>>,
}

#[derive(Serialize)]
struct EndTwin<'a> {
    netns: u32,
    process: Option<&'a str>,
    local: Option<AddressTwin>,
    remote: Option<AddressTwin>,
    cause: Option<&'a str>,
    known: Option<&'static str>,
    evidence: Vec<&'static str>,
    plain: bool,
}

#[derive(Serialize)]
struct AddressTwin {
    addr: String,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<u32>,
}

impl From<SocketAddr> for AddressTwin {
    fn from(of: SocketAddr) -> Self {
        Self {
            addr: of.ip().to_string(),
            port: of.port(),
            zone: match of {
                SocketAddr::V6(v6) => Some(v6.scope_id()).filter(|it| *it != 0),
                SocketAddr::V4(_) => None,
            },
        }
    }
}

#[derive(Serialize)]
struct PathTwin<'a> {
    role: &'static str,
    judgement: &'static str,
    packet: Option<&'static str>,
    why: &'a str,
    joined_by: Option<&'static str>,
    client_path: Option<PathEndTwin<'a>>,
    server_path: Option<PathEndTwin<'a>>,
}

#[derive(Serialize)]
struct PathEndTwin<'a> {
    local: AddressTwin,
    remote: AddressTwin,
    up: bool,
    cause: Option<&'a str>,
    rst_received: bool,
    rst_sent: bool,
}

impl<'a> From<&'a PathSeen> for PathEndTwin<'a> {
    fn from(path: &'a PathSeen) -> Self {
        Self {
            local: path.local.into(),
            remote: path.remote.into(),
            up: path.up.is_some(),
            cause: path.end.as_ref().and_then(|it| it.cause.as_deref()),
            rst_received: path.rst_received,
            rst_sent: path.rst_sent,
        }
    }
}

impl<'a> From<&'a Seen> for EndTwin<'a> {
    fn from(seen: &'a Seen) -> Self {
        let path = seen.first().or(seen.paths.first());
        let fell = seen.fell.as_ref();
        Self {
            netns: seen.netns,
            process: seen.process.as_deref(),
            local: path.map(|it| it.local.into()),
            remote: path.map(|it| it.remote.into()),
            cause: fell.and_then(|it| it.cause.as_deref()),
            known: fell.map(|it| it.known.name()),
            evidence: fell.map_or_else(Vec::new, |it| {
                it.evidence.iter().map(|it| it.name()).collect()
            }),
            plain: seen.plain.is_some(),
        }
    }
}

#[derive(Serialize)]
struct End {
    connections: usize,
    joined: usize,
    joined_by: BTreeMap<&'static str, usize>,
    judgements: BTreeMap<&'static str, usize>,
}

/// The JSON lines.
///
/// # Errors
///
/// None known.
pub fn json(paired: &Paired<'_>, options: &Options) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::new();
    let [client, server] = paired.captures;
    let offset = paired.offset;
    let start = Start {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        client_capture: client.into(),
        server_capture: server.into(),
        offset_ns: offset.map(|it| it.by.saturating_abs()),
        server_ahead: offset.map(|it| it.by >= 0),
        uncertainty_ns: offset.map(|it| it.uncertainty),
        handshakes: offset.map_or(0, |it| it.handshakes),
    };
    line(&mut out, "pair_start", start)?;
    let judge = paired.judge();
    for of in paired.shown(options) {
        line(&mut out, "pair", twin(paired, &judge, of))?;
    }
    let named = |(what, count): (Judgement, usize)| (what.name(), count);
    let end = End {
        connections: paired.lines.len(),
        joined: paired
            .lines
            .iter()
            .filter(|it| it.pair.by.is_some())
            .count(),
        joined_by: (paired.joined_by().into_iter())
            .map(|(by, count)| (by.name(), count))
            .collect(),
        judgements: paired.counts().into_iter().map(named).collect(),
    };
    line(&mut out, "pair_end", end)?;
    Ok(out)
}

fn line<T: Serialize>(out: &mut Vec<u8>, kind: &'static str, data: T) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *out, &Message { kind, data })?;
    out.push(b'\n');
    Ok(())
}

fn twin<'a>(paired: &'a Paired<'_>, judge: &Judge<'a>, of: &'a Line) -> PairTwin<'a> {
    let Line {
        pair,
        judged,
        paths,
    } = of;
    let [client, server] = judge.ends(pair);
    let on_clock = |is_server: bool, at: Option<Ns>| {
        at.and_then(|at| rfc3339(judge.on_first_clock(pair, is_server, at)))
    };
    PairTwin {
        time: rfc3339(begin(judge, paired.captures, pair)),
        judgement: judged.what.name(),
        packet: judged.packet.map(Packet::name),
        why: &judged.why,
        left: on_clock(false, judged.left),
        arrived: on_clock(true, judged.arrived),
        joined_by: pair.by.map(By::name),
        likely: pair.by.is_some_and(By::is_likely),
        reversed: pair.reversed,
        client: client.map(EndTwin::from),
        server: server.map(EndTwin::from),
        path_pairs: paths
            .iter()
            .filter_map(|(path, judged)| {
                let [here, there] = judge.ends_of_path(pair, path);
                Some(PathTwin {
                    role: here.or(there)?.role.name(),
                    judgement: judged.what.name(),
                    packet: judged.packet.map(Packet::name),
                    why: &judged.why,
                    joined_by: path.by.map(By::name),
                    client_path: here.map(PathEndTwin::from),
                    server_path: there.map(PathEndTwin::from),
                })
            })
            .collect(),
    }
}
