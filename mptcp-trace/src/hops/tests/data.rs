//! How the end of a connection is answered.

use super::{super::evidence::DataEnd, *};

/// Port of the connection.
const PORT: u16 = 50_000;
const SYN_ACK: u8 = 0x12;
const FIN_ACK: u8 = 0x11;
/// `MP_CAPABLE` of a SYN/ACK, version 1.
const CAPABLE: [u8; 12] = [30, 12, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8];
/// DSS with an acknowledgement of 4 bytes.
const DSS: [u8; 8] = [30, 8, 0x20, 1, 0, 0, 0, 1];

/// A peer behind no router that speaks MPTCP.
struct Near {
    /// So often no packet arrives in time after the end of the connection.
    silences: u32,
    is_over: bool,
    /// Options of the answer to the end.
    end: &'static [u8],
    made: u32,
    waiting: VecDeque<Vec<u8>>,
}

fn segment(flags: u8, options: &[u8]) -> Vec<u8> {
    let mut tcp = V4.port.to_be_bytes().to_vec();
    tcp.extend(PORT.to_be_bytes());
    tcp.extend([0, 0, 0, 9, 0, 0, 0, 1]);
    let words = (20 + options.len()) as u8 / 4;
    tcp.extend([words << 4, flags, 0, 0, 0, 0, 0, 0]);
    tcp.extend(options);
    ip(V4.destination, V4.source, 6, 64, &tcp)
}

impl Wire for Near {
    fn send(&mut self, packet: &Packet) -> anyhow::Result<()> {
        if !packet.options.is_empty() && !self.is_over {
            self.waiting.push_back(syn_ack(V4, packet, &CAPABLE));
        }
        Ok(())
    }

    fn receive(&mut self, _until: Instant) -> anyhow::Result<Option<Vec<u8>>> {
        if self.is_over && self.silences > 0 {
            self.silences -= 1;
            return Ok(None);
        }
        Ok(self.waiting.pop_front())
    }

    fn secrets(&mut self) -> anyhow::Result<Secrets> {
        self.made += 1;
        Ok(secrets(self.made))
    }

    fn open(&mut self, _timeout: Duration) -> anyhow::Result<Opened> {
        self.waiting.push_back(segment(SYN_ACK, &CAPABLE));
        Ok(Opened {
            port: PORT,
            is_mptcp: Some(true),
        })
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        self.is_over = true;
        self.waiting.push_back(segment(FIN_ACK, self.end));
        Ok(())
    }

    fn progress(&mut self, _what: &str) {}
}

fn ended(silences: u32, end: &'static [u8]) -> (DataEnd, Outcome) {
    let mut wire = Near {
        silences,
        is_over: false,
        end,
        made: 0,
        waiting: VecDeque::new(),
    };
    let found = survey(V4, LIMITS, &mut wire).unwrap();
    let outcome = conclude(&found).outcome;
    (found.data.unwrap().end, outcome)
}

#[test]
fn one_silence_is_a_lost_packet_and_two_are_data_lost() {
    for silences in [0, 1] {
        assert_eq!(
            ended(silences, &DSS),
            (DataEnd::Acknowledged, Outcome::Passes)
        );
        assert_eq!(
            ended(silences, &[]),
            (DataEnd::WithoutDss, Outcome::DataLost)
        );
    }
    assert_eq!(ended(2, &DSS), (DataEnd::Silence, Outcome::DataLost));
}
