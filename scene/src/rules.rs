//! What a middlebox does to the packets of a connection, independent of its implementation.

/// Treatment of the packets of one direction.
///
/// Packets are numbered from 1 for each connection, from its SYN on. "Data packets" are non-SYN TCP
/// packets with payload.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Treatment {
    /// Replace option 30 by NOPs in the SYN (to the server) or the SYN/ACK (to the client).
    pub strip_syn: bool,
    /// Replace option 30 by NOPs in every non-SYN packet, from the N-th data packet on; 0 means in
    /// all of them, pure ACKs included.
    pub strip_from: Option<u32>,
    /// Drop SYNs that carry `MP_CAPABLE`.
    pub drop_capable_syn: bool,
    /// Flip a byte of the payload of exactly the N-th data packet; the TCP checksum stays valid.
    pub flip_payload_at: Option<u32>,
    /// Decrement the data-level length of the DSS, from the N-th data packet on.
    pub shorten_dss_from: Option<u32>,
    /// Corrupt the subflow sequence number of the DSS, from the N-th data packet on.
    pub skew_subflow_seq_from: Option<u32>,
    /// Drop every SYN (to the server) or SYN/ACK (to the client).
    pub drop_syn: bool,
    /// Drop every packet.
    pub drop_all: bool,
    /// Drop every packet without SYN.
    pub drop_rest: bool,
    /// Answer every packet with an RST without MPTCP options.
    pub reject: bool,
    /// Corrupt `MP_JOIN` in the SYN (its token) or the SYN/ACK (its HMAC).
    pub spoil_join_syn: bool,
    /// Corrupt `MP_JOIN` (its HMAC) in non-SYN packets.
    pub spoil_join_ack: bool,
    /// What is stripped leaves no NOPs: the options behind it move up, and a header without payload
    /// behind it becomes shorter.
    pub compact: bool,
    /// Strip DSS, and no other option, from every packet.
    pub strip_dss: bool,
    /// Drop SYNs that carry any MPTCP option.
    pub drop_option_syn: bool,
    /// Put the MPTCP option of the SYN in the place of that of the SYN/ACK: needed in both
    /// directions.
    pub mirror: bool,
    /// Added to each sequence number, modulo 2^32.
    pub sequence_add: u32,
    /// Added to each acknowledgement number, modulo 2^32. Options (SACK) keep their numbers.
    pub acknowledgement_add: u32,
}

impl Treatment {
    /// All packets pass unchanged.
    pub const NONE: Self = Self {
        strip_syn: false,
        strip_from: None,
        drop_capable_syn: false,
        flip_payload_at: None,
        shorten_dss_from: None,
        skew_subflow_seq_from: None,
        drop_syn: false,
        drop_all: false,
        drop_rest: false,
        reject: false,
        spoil_join_syn: false,
        spoil_join_ack: false,
        compact: false,
        strip_dss: false,
        drop_option_syn: false,
        mirror: false,
        sequence_add: 0,
        acknowledgement_add: 0,
    };
}

/// Treatment of the packets of both directions.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Rules {
    /// For packets from the client.
    pub to_server: Treatment,
    /// For packets from the server.
    pub to_client: Treatment,
}

impl Rules {
    /// All packets pass unchanged.
    pub const NONE: Self = Self {
        to_server: Treatment::NONE,
        to_client: Treatment::NONE,
    };
}
