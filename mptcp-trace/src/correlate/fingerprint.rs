//! What the packet that decided shows about who took MPTCP out. Pure and bounded: what other packets
//! of a peer showed is remembered for the most recent peers.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

use crate::model::{Certainty, Conclusion, Event, Negotiated, Packet, Shown, TcpFlags, TcpOption};

/// At most this many peers are remembered; when full, the oldest is dropped.
const PEERS_MAX: usize = 4096;

/// Shortest run of padding that is taken for an option that was overwritten. Stacks align options
/// with at most three bytes, and no MPTCP option is shorter than four.
const GAP_MIN: usize = 4;

/// Shortest MPTCP option of a packet that decides: DSS with an acknowledgment (RFC 8684 section 3.3).
const DECISIVE_MIN: usize = 8;

/// Subtypes of MPTCP options (RFC 8684 section 8.1).
const MP_CAPABLE: u8 = 0;
const MP_JOIN: u8 = 1;

/// Length of these options in a SYN and in a SYN/ACK, kind and length included (sections 3.1, 3.2).
const CAPABLE_SYN: usize = 4;
const JOIN_SYN: usize = 12;

/// What other packets of a peer showed, on one way to it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    ttl: Option<u8>,
    negotiated: Option<Negotiated>,
}

/// A way to a peer: the network namespace, the peer's address, and the own one.
type Way = (u32, IpAddr, IpAddr);

/// What other packets of peers showed.
#[derive(Debug, Default)]
pub(super) struct Peers {
    seen: HashMap<Way, Seen>,
    /// In the order of arrival.
    ways: VecDeque<Way>,
}

impl Peers {
    /// Concludes from the packet of an event, if it has one.
    pub(super) fn judge_packet_of(&mut self, event: &mut Event) {
        let (netns, packet) = match event {
            Event::Connection(event) => (event.connection.socket.netns, &mut event.packet),
            Event::Path(event) => (event.path.socket.netns, &mut event.packet),
            Event::Query(_) | Event::Change(_) | Event::Refusal(_) => return,
        };
        if let Some(packet) = packet {
            self.judge(netns, packet);
        }
    }

    /// Concludes from a packet, and remembers it.
    fn judge(&mut self, netns: u32, packet: &mut Packet) {
        let way = (netns, packet.source.ip(), packet.destination.ip());
        let before = self.seen.get(&way).copied();
        let conclusions = conclude(packet, before);
        // Who sent an RST is the question: it is no example of the peer's packets.
        if !packet.flags.has(TcpFlags::RST) {
            self.remember(way, packet);
        } else if let Some(ttl) = packet.ttl_before {
            self.entry(way).ttl = Some(ttl);
        }
        packet.conclusions = conclusions;
    }

    fn remember(&mut self, way: Way, packet: &Packet) {
        let entry = self.entry(way);
        entry.ttl.get_or_insert(packet.ttl);
        if packet.flags.has(TcpFlags::SYN_ACK) {
            entry.negotiated.get_or_insert(packet.negotiates());
        }
    }

    fn entry(&mut self, way: Way) -> &mut Seen {
        if !self.seen.contains_key(&way) {
            if self.ways.len() >= PEERS_MAX
                && let Some(oldest) = self.ways.pop_front()
            {
                self.seen.remove(&oldest);
            }
            self.ways.push_back(way);
        }
        self.seen.entry(way).or_insert(Seen {
            ttl: None,
            negotiated: None,
        })
    }
}

fn conclude(packet: &Packet, before: Option<Seen>) -> Vec<Conclusion> {
    let mut all = Vec::new();
    if packet.flags.has(TcpFlags::RST) {
        all.push(of_rst(packet, before));
        return all;
    }
    all.push(of_option(packet));
    all.extend(of_machine(packet, before));
    all
}

/// What an RST's time to live shows.
fn of_rst(packet: &Packet, before: Option<Seen>) -> Conclusion {
    let ttl = packet.ttl;
    let (other, whose) = match (packet.ttl_before, before.and_then(|seen| seen.ttl)) {
        (Some(ttl), _) => (ttl, "an earlier packet on this path"),
        (None, Some(ttl)) => (ttl, "an earlier packet of this peer"),
        (None, None) => {
            return Conclusion {
                what: Shown::RstUnknown,
                certainty: Certainty::Open,
                because: format!("ttl {ttl}, and that of no other packet of the peer is known"),
            };
        }
    };
    match ttl == other {
        true => Conclusion {
            what: Shown::RstSameTtl,
            certainty: Certainty::Open,
            because: format!("ttl {ttl}, as {whose} had"),
        },
        false => Conclusion {
            what: Shown::RstOtherTtl,
            certainty: Certainty::Likely,
            because: format!("ttl {ttl}, where {whose} had {other}"),
        },
    }
}

/// What became of the option.
fn of_option(packet: &Packet) -> Conclusion {
    if let Some(content) = packet.options.iter().find_map(TcpOption::mptcp) {
        return reflected(packet, content).unwrap_or_else(|| Conclusion {
            what: Shown::Present,
            certainty: Certainty::Certain,
            because: format!("options: {}", packet.options_text()),
        });
    }
    let gaps = packet
        .options
        .chunk_by(|one, other| one == other)
        .filter(|run| matches!(run, [TcpOption::Nop | TcpOption::End, ..]));
    match gaps.map(<[TcpOption]>::len).max() {
        Some(length) if length >= GAP_MIN => Conclusion {
            what: Shown::Cleared,
            // Else it may be another option, such as the timestamps themselves.
            certainty: match length >= DECISIVE_MIN && packet.negotiates().timestamps {
                true => Certainty::Certain,
                false => Certainty::Likely,
            },
            because: format!("{length} bytes of padding, where stacks use at most 3"),
        },
        _ => Conclusion {
            what: Shown::Absent,
            certainty: Certainty::Open,
            because: "no MPTCP option, and no gap".to_owned(),
        },
    }
}

/// A conclusion if the option of a SYN/ACK is that of this host's SYN.
fn reflected(packet: &Packet, content: &[u8]) -> Option<Conclusion> {
    if !packet.flags.has(TcpFlags::SYN_ACK) {
        return None;
    }
    let (subtype, length) = (content.first()? >> 4, content.len() + 2);
    match (subtype, length) {
        // Without a key, it is the form of a SYN.
        (MP_CAPABLE, CAPABLE_SYN) => Some(Conclusion {
            what: Shown::Reflected,
            certainty: Certainty::Likely,
            because: "MP_CAPABLE without a key, as only a SYN has it".to_owned(),
        }),
        (MP_JOIN, JOIN_SYN) => {
            let token = content.get(2..6)?;
            let is_own = packet
                .peer_token
                .map(u32::to_be_bytes)
                .as_ref()
                .map(<[u8; 4]>::as_slice)
                == Some(token);
            Some(Conclusion {
                what: Shown::Reflected,
                certainty: match is_own {
                    true => Certainty::Certain,
                    false => Certainty::Likely,
                },
                because: match is_own {
                    true => "MP_JOIN with the token that this host sent".to_owned(),
                    false => "MP_JOIN in the form of a SYN".to_owned(),
                },
            })
        }
        _ => None,
    }
}

/// A conclusion if the packet differs from what else is known of the peer.
fn of_machine(packet: &Packet, before: Option<Seen>) -> Option<Conclusion> {
    let mut strong = Vec::new();
    let mut weak = Vec::new();
    let mut compare = |known: &Negotiated, whose: &str| {
        if !packet.flags.has(TcpFlags::SYN_ACK) {
            return;
        }
        let offered = packet.negotiates();
        if offered.window_scale != known.window_scale {
            let shift = |shift: Option<u8>| shift.map_or("none".to_owned(), |it| it.to_string());
            strong.push(format!(
                "window scale {}, on {whose} {}",
                shift(offered.window_scale),
                shift(known.window_scale)
            ));
        }
        if offered.timestamps != known.timestamps {
            let has = |has| if has { "timestamps" } else { "no timestamps" };
            strong.push(format!(
                "{}, on {whose} {}",
                has(offered.timestamps),
                has(known.timestamps)
            ));
        }
        if let (Some(one), Some(other)) = (offered.mss, known.mss)
            && one != other
        {
            weak.push(format!("mss {one}, on {whose} {other}"));
        }
    };
    match (&packet.first_path, before.and_then(|it| it.negotiated)) {
        (Some(first), _) => compare(first, "the first path"),
        (None, Some(earlier)) => compare(&earlier, "an earlier connection"),
        (None, None) => {}
    }
    match (packet.ttl_before, before.and_then(|seen| seen.ttl)) {
        (Some(ttl), _) if ttl != packet.ttl => {
            strong.push(format!("ttl {}, before {ttl}", packet.ttl));
        }
        // The route may have changed since.
        (None, Some(ttl)) if ttl != packet.ttl => {
            weak.push(format!(
                "ttl {}, in an earlier connection {ttl}",
                packet.ttl
            ));
        }
        (Some(_) | None, _) => {}
    }
    let certainty = match strong.is_empty() {
        true if weak.is_empty() => return None,
        true => Certainty::Open,
        false => Certainty::Likely,
    };
    strong.append(&mut weak);
    Some(Conclusion {
        what: Shown::AnotherMachine,
        certainty,
        because: strong.join("; "),
    })
}

#[cfg(test)]
#[path = "fingerprint_tests.rs"]
mod tests;
