//! Packets that wait for the record of the event that they decided: it follows at once, but records
//! of other CPUs may come in between. Bounded; pure.

use std::collections::VecDeque;

use crate::{
    decode::Observation,
    model::{Packet, PacketKey},
};

/// At most this many packets wait; when full, the oldest is dropped: its event was lost.
const WAITING_MAX: usize = 256;

/// A packet and its record.
#[derive(Debug)]
pub(in crate::pipeline) struct Waiting {
    key: PacketKey,
    /// Its headers.
    pub(in crate::pipeline) packet: Box<Packet>,
    /// Its record.
    pub(in crate::pipeline) bytes: Vec<u8>,
}

/// The packets that wait.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Packets(VecDeque<Waiting>);

impl Packets {
    /// A packet arrived.
    pub(in crate::pipeline) fn add(&mut self, key: PacketKey, packet: Box<Packet>, bytes: &[u8]) {
        if self.0.len() >= WAITING_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Waiting {
            key,
            packet,
            bytes: bytes.to_vec(),
        });
    }

    /// The packet of an event, if it has one.
    pub(in crate::pipeline) fn take(&mut self, observation: &Observation) -> Option<Waiting> {
        if self.0.is_empty() {
            return None;
        }
        let key = key_of(observation)?;
        let at = self.0.iter().position(|waiting| waiting.key == key)?;
        self.0.remove(at)
    }
}

/// What the packet of an event has in common with it.
fn key_of(observation: &Observation) -> Option<PacketKey> {
    match observation {
        Observation::Connection(it) | Observation::CanaryConnection(it) => Some(PacketKey {
            at: it.at,
            socket: it.socket.id,
        }),
        Observation::Path(it) | Observation::CanaryPath(it) => Some(PacketKey {
            at: it.at,
            socket: it.socket.id,
        }),
        Observation::Query(_)
        | Observation::Canary(_)
        | Observation::Change(_)
        | Observation::CanaryChange(_)
        | Observation::Refusal(_)
        | Observation::PathReading(_)
        | Observation::Packet(..)
        | Observation::Counters(_)
        | Observation::CountersAtStart(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{PathKind, SocketId, TcpFlags, fixture};

    fn key(at_ns: u64) -> PacketKey {
        PacketKey {
            at: Duration::from_nanos(at_ns),
            socket: SocketId(7),
        }
    }

    fn packet() -> Box<Packet> {
        Box::new(Packet {
            ip: Vec::new(),
            tcp: Vec::new(),
            source: "192.0.2.7:443".parse().unwrap(),
            destination: "192.0.2.1:5000".parse().unwrap(),
            ttl: 61,
            flags: TcpFlags::RST,
            window: 0,
            options: Vec::new(),
            ttl_before: None,
            first_path: None,
            peer_token: None,
            conclusions: Vec::new(),
        })
    }

    fn event(at_ns: u64, socket: u64) -> Observation {
        let mut path = fixture::a_path(PathKind::Failed);
        path.at = Duration::from_nanos(at_ns);
        path.socket.id = SocketId(socket);
        Observation::Path(Box::new(path))
    }

    #[test]
    fn a_packet_goes_to_the_event_with_its_time_and_socket_once() {
        let mut packets = Packets::default();
        packets.add(key(1), packet(), b"first");
        packets.add(key(2), packet(), b"second");
        assert!(packets.take(&event(3, 7)).is_none());
        assert!(packets.take(&event(2, 8)).is_none());
        assert_eq!(packets.take(&event(2, 7)).unwrap().bytes, b"second");
        assert!(packets.take(&event(2, 7)).is_none());
        assert_eq!(packets.take(&event(1, 7)).unwrap().bytes, b"first");
    }

    #[test]
    fn the_oldest_packet_whose_event_was_lost_is_dropped() {
        let mut packets = Packets::default();
        for at_ns in 0..=WAITING_MAX as u64 {
            packets.add(key(at_ns), packet(), b"");
        }
        assert!(packets.take(&event(0, 7)).is_none());
        assert!(packets.take(&event(1, 7)).is_some());
    }
}
