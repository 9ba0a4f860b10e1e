//! What the middlebox's two halves share: both compile this very file.

/// Slot of `ORDERS` for packets to the server.
pub(crate) const TO_SERVER: u32 = 0;
/// Slot of `ORDERS` for packets to the client.
pub(crate) const TO_CLIENT: u32 = 1;

/// What to do with the packets of one direction. Data packets are counted from 1;
/// the last number there is means never.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Orders {
    /// Not 0: take MPTCP out of packets with SYN.
    pub(crate) strip_syn: u32,
    /// Not 0: drop SYNs that carry `MP_CAPABLE`.
    pub(crate) drop_capable_syn: u32,
    /// Take MPTCP out of every packet without SYN from this data packet on; 0: out of all of them.
    pub(crate) strip_from: u32,
    /// Flip a byte of this data packet's payload.
    pub(crate) flip_at: u32,
    /// Make the DSS data-level length smaller by one from this data packet on.
    pub(crate) shorten_from: u32,
    /// Make the DSS subflow sequence number wrong from this data packet on.
    pub(crate) skew_from: u32,
}

/// Slot of `DONE`: packets that MPTCP was taken out of.
pub(crate) const STRIPPED: u32 = 0;
/// Slot of `DONE`: packets dropped.
pub(crate) const DROPPED: u32 = 1;
/// Slot of `DONE`: packets with a flipped byte.
pub(crate) const FLIPPED: u32 = 2;
/// Slot of `DONE`: packets with a shorter data-level length.
pub(crate) const SHORTENED: u32 = 3;
/// Slot of `DONE`: packets with a wrong subflow sequence number.
pub(crate) const SKEWED: u32 = 4;
/// Slots of `DONE`.
pub(crate) const DEEDS: u32 = 5;
