//! Types shared by the BPF side and userspace of the middlebox: both compile this file.

/// Orders for the packets that arrive at one device. Data packets are numbered from 1; `u32::MAX`
/// means never.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Orders {
    /// Not 0: this device is at the server's end, so its packets come from the client.
    pub(crate) is_to_server: u32,
    /// Not 0: strip MPTCP from packets with SYN.
    pub(crate) strip_syn: u32,
    /// Not 0: drop SYNs that carry `MP_CAPABLE`.
    pub(crate) drop_capable_syn: u32,
    /// Strip MPTCP from every non-SYN packet, starting at this data packet; 0: from all of them.
    pub(crate) strip_from: u32,
    /// Flip a byte of this data packet's payload.
    pub(crate) flip_at: u32,
    /// Decrement the DSS data-level length, starting at this data packet.
    pub(crate) shorten_from: u32,
    /// Corrupt the DSS subflow sequence number, starting at this data packet.
    pub(crate) skew_from: u32,
    /// Not 0: drop every packet with SYN.
    pub(crate) drop_syn: u32,
    /// Not 0: drop every packet.
    pub(crate) drop_all: u32,
    /// Not 0: drop every packet without SYN.
    pub(crate) drop_rest: u32,
    /// Not 0: answer every packet with an RST that has no MPTCP option.
    pub(crate) reject: u32,
    /// Not 0: corrupt the token or the HMAC of `MP_JOIN` in packets with SYN.
    pub(crate) spoil_join_syn: u32,
    /// Not 0: corrupt the HMAC of `MP_JOIN` in packets without SYN.
    pub(crate) spoil_join_ack: u32,
    /// Not 0: stripped options leave no NOPs; the options behind them move up.
    pub(crate) compact: u32,
    /// Not 0: strip DSS from every packet.
    pub(crate) strip_dss: u32,
    /// Not 0: drop SYNs that carry any MPTCP option.
    pub(crate) drop_option_syn: u32,
    /// Not 0: replace the MPTCP option of a SYN/ACK by that of its SYN. Both directions of a
    /// middlebox have the same number, no other one has it.
    pub(crate) mirror: u32,
    /// Added to the sequence number of each packet, modulo 2^32.
    pub(crate) sequence_add: u32,
    /// Added to the acknowledgement number of each packet that has one.
    pub(crate) acknowledgement_add: u32,
}

/// Maximum number of devices of one loaded object: two for each middlebox.
#[cfg_attr(
    not(target_arch = "bpf"),
    expect(dead_code, reason = "the size of the maps is in the object")
)]
pub(crate) const DEVICES_MAX: u32 = 256;

/// Index into a value of `DONE`: packets with stripped MPTCP options.
pub(crate) const STRIPPED: usize = 0;
/// Index into a value of `DONE`: packets dropped.
pub(crate) const DROPPED: usize = 1;
/// Index into a value of `DONE`: packets with a flipped byte.
pub(crate) const FLIPPED: usize = 2;
/// Index into a value of `DONE`: packets with a decremented data-level length.
pub(crate) const SHORTENED: usize = 3;
/// Index into a value of `DONE`: packets with a corrupted subflow sequence number.
pub(crate) const SKEWED: usize = 4;
/// Index into a value of `DONE`: packets answered with an RST.
pub(crate) const REJECTED: usize = 5;
/// Index into a value of `DONE`: packets with a corrupted `MP_JOIN` option.
pub(crate) const SPOILT: usize = 6;
/// Index into a value of `DONE`: SYN/ACKs with the MPTCP option of the SYN.
pub(crate) const MIRRORED: usize = 7;
/// Index into a value of `DONE`: packets with another sequence number.
pub(crate) const RENUMBERED: usize = 8;
/// Number of counters in a value of `DONE`.
pub(crate) const DEEDS: usize = 9;
