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
