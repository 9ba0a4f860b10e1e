//! What the middlebox's two halves share: both compile this very file.

/// What to do with the packets that arrive at one device. Data packets are counted from 1;
/// the last number there is means never.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Orders {
    /// Not 0: this device is at the server's end, so its packets come from the client.
    pub(crate) is_to_server: u32,
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

/// Devices of one loaded object at the same time: two for each middlebox.
#[cfg_attr(
    not(target_arch = "bpf"),
    expect(dead_code, reason = "the size of the maps is in the object")
)]
pub(crate) const DEVICES_MAX: u32 = 256;

/// Index into a value of `DONE`: packets that MPTCP was taken out of.
pub(crate) const STRIPPED: usize = 0;
/// Index into a value of `DONE`: packets dropped.
pub(crate) const DROPPED: usize = 1;
/// Index into a value of `DONE`: packets with a flipped byte.
pub(crate) const FLIPPED: usize = 2;
/// Index into a value of `DONE`: packets with a shorter data-level length.
pub(crate) const SHORTENED: usize = 3;
/// Index into a value of `DONE`: packets with a wrong subflow sequence number.
pub(crate) const SKEWED: usize = 4;
/// Numbers in a value of `DONE`.
pub(crate) const DEEDS: usize = 5;
