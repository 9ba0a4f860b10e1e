//! Metrics about peers: whether they spoke MPTCP, and whether the peer or the path is the reason if
//! they did not. Bounded: no addresses, and interfaces only on request.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    counters::{Counters, NAMES_MAX, OTHERS, UNKNOWN_NAME},
    exposition::{Family, Labels, counter, gauge, label, number},
    labels::Whose,
};
use crate::{model::PeerCounts, sink::escape};

const INTERFACE: &str = "interface";

/// The metrics.
pub(super) fn families(counters: &Counters, peers: &PeerCounts) -> Vec<Family> {
    let handshakes = counters
        .handshakes
        .iter()
        .map(|((answer, interface), count)| {
            let mut labels = vec![label("answer", answer)];
            labels.extend(interface.iter().map(|it| label(INTERFACE, it)));
            (labels, number(*count))
        });
    // Without the sensors, nothing follows.
    let reasons = match counters.handshakes.is_empty() {
        true => Vec::new(),
        false => reasons(peers, counters.whose() == Some(Whose::Interface)),
    };
    vec![
        counter(
            "mptcp_trace_handshakes",
            "Connections that this host opened, by whether the peer answered with MPTCP.",
            handshakes.collect(),
        ),
        gauge(
            "mptcp_trace_peers",
            "Peers that answered connections without MPTCP, by where the reason lies.",
            reasons,
        ),
    ]
}

fn reasons(peers: &PeerCounts, by_interface: bool) -> Vec<(Labels, f64)> {
    let PeerCounts {
        peer,
        path,
        unknown,
        over,
    } = peers;
    let of = |reason, count| (vec![label("reason", reason)], number(count));
    let mut samples = vec![of("peer", *peer), of("unknown", *unknown)];
    if !by_interface {
        samples.push(of("path", *path));
        return samples;
    }
    let mut named: BTreeMap<String, u64> = BTreeMap::new();
    for (local, count) in over {
        // The page has no addresses: the interface has no name that the tracer knows.
        let name = match local.parse::<IpAddr>() {
            Ok(_) => UNKNOWN_NAME.to_owned(),
            Err(_) => escape(local),
        };
        let has_room = named.len() < NAMES_MAX || named.contains_key(&name);
        let name = if has_room { name } else { OTHERS.to_owned() };
        *named.entry(name).or_default() += count;
    }
    samples.extend(named.iter().map(|(name, count)| {
        let (mut labels, count) = of("path", *count);
        labels.push(label(INTERFACE, name));
        (labels, count)
    }));
    samples
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Facts, Rung, SensorId, SensorState, fixture::answered},
        observe::Observer as _,
        serve::{counters::Shared, exposition::Flavour},
    };

    #[test]
    fn handshakes_and_peers_have_an_interface_only_on_request_and_never_an_address() {
        let sensor = |sensor| SensorState {
            sensor,
            rung: Rung::Fexit,
            probes: Vec::new(),
            limits: Vec::new(),
        };
        let mut about = Facts {
            sensors: vec![sensor(SensorId::Fallback), sensor(SensorId::Subflow)],
            ..Facts::unknown()
        };
        let peers = PeerCounts {
            peer: 4,
            path: 2,
            unknown: 1,
            over: [("eth1".to_owned(), 2), ("10.9.9.9".to_owned(), 1)].into(),
        };
        let seen = |whose| {
            let mut shared = Shared::new(whose, &about)
                .naming(|_, local| (local.to_string() == "10.0.0.1").then(|| "eth0".to_owned()));
            for (number, local, mptcp) in [
                (1, "10.0.0.1:1", true),
                (2, "10.0.0.1:2", true),
                (3, "10.0.0.1:3", false),
                (4, "10.7.7.7:3", false),
            ] {
                shared.finding(&answered(number, local, mptcp), &|_| None);
            }
            let text = shared.with(|it| Flavour::Prometheus.render(&families(it, &peers)));
            let wanted = ["mptcp_trace_handshakes_total{", "mptcp_trace_peers{"];
            let lines = text.lines().filter(|line| {
                let is_wanted = wanted.iter().any(|it| line.starts_with(it));
                is_wanted && !line.ends_with(" 0")
            });
            let lines: Vec<String> = lines.map(|it| it.replace("mptcp_trace_", "")).collect();
            let labels = Some((Whose::Interface, vec!["eth0".to_owned()]));
            let fallbacks = shared.with(|it| {
                let all = it.fallbacks.keys();
                all.filter(|key| key.whose == labels).count()
            });
            (lines, fallbacks)
        };
        let (lines, fallbacks) = seen(None);
        assert_eq!(
            lines,
            [
                "handshakes_total{answer=\"mptcp\"} 2",
                "handshakes_total{answer=\"tcp\"} 2",
                "peers{reason=\"peer\"} 4",
                "peers{reason=\"unknown\"} 1",
                "peers{reason=\"path\"} 2",
            ]
        );
        assert_eq!(fallbacks, 0);
        let (lines, fallbacks) = seen(Some(Whose::Interface));
        assert_eq!(
            lines,
            [
                "handshakes_total{answer=\"mptcp\",interface=\"eth0\"} 2",
                "handshakes_total{answer=\"tcp\",interface=\"(unknown)\"} 1",
                "handshakes_total{answer=\"tcp\",interface=\"eth0\"} 1",
                "peers{reason=\"peer\"} 4",
                "peers{reason=\"unknown\"} 1",
                "peers{reason=\"path\",interface=\"(unknown)\"} 1",
                "peers{reason=\"path\",interface=\"eth1\"} 2",
            ]
        );
        assert_eq!(fallbacks, 1);
        // Without the sensor of paths nothing that speaks MPTCP is seen.
        about.sensors.pop();
        assert!(Shared::new(None, &about).with(|it| it.handshakes.is_empty()));
    }
}
