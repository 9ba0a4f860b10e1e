//! What `pair` says, compared with what is so; pure.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{app::Made, wards::Ward};
use crate::{cells::judged, report::Cell};

/// An address in a line.
#[derive(Clone, Debug, serde::Deserialize)]
struct Address {
    addr: String,
    port: u16,
}

impl Address {
    fn is(&self, address: SocketAddr) -> bool {
        self.port == address.port() && self.addr == address.ip().to_string()
    }
}

/// One end in a line.
#[derive(Clone, Debug, serde::Deserialize)]
struct End {
    netns: u64,
    local: Option<Address>,
    remote: Option<Address>,
    evidence: Vec<String>,
}

impl End {
    fn is(&self, netns: u64, (local, remote): (SocketAddr, SocketAddr)) -> bool {
        self.netns == netns
            && self.local.as_ref().is_some_and(|it| it.is(local))
            && self.remote.as_ref().is_some_and(|it| it.is(remote))
    }
}

/// A line about a connection.
#[derive(Clone, Debug, serde::Deserialize)]
pub(super) struct Said {
    judgement: String,
    packet: Option<String>,
    why: String,
    joined_by: Option<String>,
    client: Option<End>,
    server: Option<End>,
    path_pairs: Vec<PathSaid>,
}

/// A path in a line.
#[derive(Clone, Debug, serde::Deserialize)]
struct PathSaid {
    role: String,
    judgement: String,
    packet: Option<String>,
    joined_by: Option<String>,
    client_path: Option<PathEnd>,
    server_path: Option<PathEnd>,
}

/// One end of a path in a line.
#[derive(Clone, Debug, serde::Deserialize)]
struct PathEnd {
    local: Address,
}

/// A cell for each ward: every connection is joined and judged right.
pub(super) fn cells(
    rung: &str,
    wards: &[&Ward],
    made: &[([u64; 2], Vec<Made>)],
    said: &[Said],
) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (ward, (netns, made)) in wards.iter().zip(made) {
        let mut wrong = Vec::new();
        let mut heard: BTreeMap<String, usize> = BTreeMap::new();
        for (number, connection) in made.iter().enumerate() {
            let about: Vec<&Said> = said
                .iter()
                .filter(|it| is_about(ward, *netns, it, connection))
                .collect();
            let [one] = about[..] else {
                wrong.push(format!("connection {number} has {} lines", about.len()));
                continue;
            };
            *heard.entry(words(one)).or_default() += 1;
            wrong.extend(
                compared(rung, ward, *netns, one, connection)
                    .or_else(|| joins_compared(ward, one))
                    .map(|why| format!("connection {number}: {why} ({})", one.why)),
            );
        }
        let heard: Vec<String> = heard
            .into_iter()
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        let truth = format!("{} {}", made.len(), ward.judgement);
        cells.push(judged(ward.name, rung, &truth, &heard.join(", "), wrong));
    }
    cells
}

fn words(said: &Said) -> String {
    let packet = said.packet.as_deref().map(|it| format!(" {it}"));
    format!(
        "{}{} by {}",
        said.judgement,
        packet.unwrap_or_default(),
        said.joined_by.as_deref().unwrap_or("nothing")
    )
}

fn is_about(ward: &Ward, netns: [u64; 2], said: &Said, connection: &Made) -> bool {
    match ward.is_seen_at_server_only() {
        true => connection
            .server
            .is_some_and(|ends| said.server.as_ref().is_some_and(|it| it.is(netns[1], ends))),
        false => said
            .client
            .as_ref()
            .is_some_and(|it| it.is(netns[0], connection.client)),
    }
}

/// What is wrong with a line.
fn compared(
    rung: &str,
    ward: &Ward,
    netns: [u64; 2],
    said: &Said,
    connection: &Made,
) -> Option<String> {
    let vague = match rung {
        "tracepoint" => ward.vague_by_tracepoint,
        _ => &[],
    };
    let packets = [ward.packets, vague].concat();
    // Older kernels report data without a mapping as data with an invalid one.
    let ends = [&said.client, &said.server].into_iter().flatten();
    let mut evidence = ends.flat_map(|end| &end.evidence);
    let is_weaker = said.judgement == "changed"
        && ward.judgement == "option-removed"
        && evidence.any(|it| it == "invalid-mapping");
    if said.judgement != ward.judgement && !is_weaker {
        return Some(format!("{} instead of {}", said.judgement, ward.judgement));
    }
    let packet = said.packet.as_deref();
    if packet.is_some() == packets.is_empty() || packet.is_some_and(|it| !packets.contains(&it)) {
        return Some(format!("{packet:?} instead of one of {packets:?}"));
    }
    if said.joined_by.as_deref() != ward.by {
        return Some(format!(
            "joined by {:?} instead of {:?}",
            said.joined_by, ward.by
        ));
    }
    // The right partner, where there is one.
    let (true, Some(ends)) = (ward.by.is_some(), connection.server) else {
        return None;
    };
    let is_right = said.server.as_ref().is_some_and(|it| it.is(netns[1], ends));
    // A proxy makes several connections at the same time: which is whose, only their content shows.
    (!is_right && ward.judgement != "proxy").then(|| "joined with another one".to_owned())
}

/// What is wrong with the second path in a line: it is what happened to the connection.
fn joins_compared(ward: &Ward, said: &Said) -> Option<String> {
    let joins = said.path_pairs.iter().filter(|it| it.role == "join");
    let joins: Vec<&PathSaid> = joins.collect();
    let expected = usize::from(ward.rules_on_joins().is_some());
    let [join] = joins[..] else {
        return (joins.len() != expected).then(|| format!("{} second paths", joins.len()));
    };
    if (&join.judgement, &join.packet) != (&said.judgement, &said.packet) {
        return Some(format!("its second path: {join:?}"));
    }
    let Some(near) = &join.client_path else {
        return Some("the client's end of its second path is missing".to_owned());
    };
    if near.local.addr != ward.second_address().to_string() {
        return Some(format!("its second path begins at {}", near.local.addr));
    }
    let is_joined = join.server_path.is_some()
        && join
            .joined_by
            .as_deref()
            .is_some_and(|by| by.starts_with("sequence-number"));
    (ward.judgement == "mptcp" && !is_joined)
        .then(|| format!("the ends of its second path are not joined: {join:?}"))
}
