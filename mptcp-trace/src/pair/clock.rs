//! How far the clocks of the two ends are apart, from their handshakes.
//!
//! The end that opens a path knows when it sent the SYN, and when its connection was up: that is after
//! the SYN/ACK, and may be noticed late. The other end knows when the third ACK arrived: that is one
//! and a half round trips after the SYN, and at most half of one after the connection was up. As in
//! NTP (RFC 5905, section 8), the shortest handshake tells best.

use super::Ns;

/// A handshake: on the clock of the end that opened the path, when the SYN was sent and the connection
/// was up; on the other clock, when the third ACK arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Handshake {
    pub(super) syn: Ns,
    pub(super) up: Ns,
    pub(super) third_ack: Ns,
    /// The shortest round trip of the path; 0 if unknown.
    pub(super) round_trip: Ns,
}

impl Handshake {
    fn took(&self) -> Ns {
        self.up.saturating_sub(self.syn).max(0)
    }

    /// The earliest and the latest time after the SYN at which the third ACK arrives, if both
    /// directions take equally long.
    fn arrives(&self) -> (Ns, Ns) {
        let took = self.took();
        let round_trip = self.round_trip.clamp(0, took);
        (round_trip + round_trip / 2, took.saturating_add(took / 2))
    }

    /// The offset, and by how much it may be wrong, also if one direction takes all the time.
    fn offset(&self) -> (Ns, Ns) {
        let (from, to) = self.arrives();
        let arrives = self.syn.saturating_add(from / 2 + to / 2);
        let by = self.third_ack.saturating_sub(arrives);
        (by, (to - from) / 2 + self.took() / 2 + 1)
    }
}

/// The clock of the server minus that of the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offset {
    /// The estimate.
    pub by: Ns,
    /// It is wrong by at most this, if the clocks do not drift more than the handshakes show.
    pub uncertainty: Ns,
    /// From this many handshakes.
    pub handshakes: usize,
}

impl Offset {
    /// Estimates it; `None` without a handshake.
    pub(super) fn of(handshakes: &[Handshake]) -> Option<Self> {
        let each = handshakes.iter().map(Handshake::offset);
        let (by, uncertainty) = each.min_by_key(|(_, uncertainty)| *uncertainty)?;
        // No third ACK arrives before its SYN is sent: where it seems so, the clocks have drifted.
        let early = handshakes
            .iter()
            .map(|it| it.syn.saturating_sub(it.third_ack.saturating_sub(by)));
        let drift = early.max().unwrap_or(0).max(0);
        Some(Self {
            by,
            uncertainty: uncertainty.saturating_add(drift),
            handshakes: handshakes.len(),
        })
    }

    /// A time of the server on the clock of the client.
    #[must_use]
    pub fn to_client(&self, server: Ns) -> Ns {
        server.saturating_sub(self.by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handshake over a path with this round trip, in microseconds; the client notices the SYN/ACK
    /// `late`, and the server's clock is ahead by `ahead`.
    fn handshake(at: Ns, round_trip: Ns, late: Ns, ahead: Ns) -> Handshake {
        let [at, round_trip, late, ahead] = [at, round_trip, late, ahead].map(|us| us * 1000);
        Handshake {
            syn: at,
            up: at + round_trip + late,
            third_ack: at + round_trip * 3 / 2 + ahead,
            round_trip,
        }
    }

    #[test]
    fn the_shortest_handshake_tells_and_the_truth_is_within_the_uncertainty() {
        for ahead in [-3_600_000_000, -5, 0, 7_000, 86_400_000_000] {
            for late in [0, 90] {
                let all = [
                    handshake(1_000_000, 40_000, 0, ahead),
                    handshake(2_000_000, 200, late, ahead),
                    // The SYN was lost once.
                    handshake(3_000_000, 1_000_200, 0, ahead),
                ];
                let offset = Offset::of(&all).unwrap();
                let error = (offset.by - ahead * 1000).abs();
                assert!(error <= offset.uncertainty, "{ahead} {late}: {offset:?}");
                assert!(offset.uncertainty < 300_000, "{offset:?}");
                assert_eq!(offset.handshakes, 3);
            }
        }
        assert_eq!(Offset::of(&[]), None);
    }

    #[test]
    fn clocks_that_drift_widen_the_uncertainty() {
        let all = [
            handshake(0, 200, 0, 1_000),
            handshake(3_600_000_000, 400, 0, -4_000),
        ];
        let offset = Offset::of(&all).unwrap();
        assert!(offset.uncertainty > 4_000_000, "{offset:?}");
    }

    #[test]
    fn nonsense_has_a_limit() {
        let far = Handshake {
            syn: Ns::MAX,
            up: Ns::MIN,
            third_ack: Ns::MIN,
            round_trip: Ns::MAX,
        };
        assert!(Offset::of(&[far]).is_some());
    }
}
