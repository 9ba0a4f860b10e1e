//! The headers of the packet with which a connection or a path lost MPTCP.

use super::Kind;
use crate::wire::{flags, structure};

/// Most bytes of an IP or TCP header, options included (RFC 791 and RFC 9293 section 3.1: four bits
/// count words of four bytes).
pub const HEADER_MAX: usize = 60;

flags! {
    /// Flags of a [`PacketRecord`].
    PacketFlags: u32 {
        /// [`PacketRecord::ttl_before`] was read.
        TTL_BEFORE = 0,
        /// [`PacketRecord::first_mss`] and the fields about the connection's first path were read.
        FIRST_PATH = 1,
        /// The peer uses timestamps on the first path (`rx_opt.tstamp_ok`).
        FIRST_TIMESTAMPS = 2,
        /// It uses window scaling there (`rx_opt.wscale_ok`).
        FIRST_WINDOW_SCALE = 3,
        /// [`PacketRecord::peer_token`] was read.
        PEER_TOKEN = 4,
    }
}

structure! {
    /// The headers of a received packet, without its payload. The record precedes the one that it
    /// belongs to: [`Kind::FALLBACK`], [`Kind::PATH_ENDED`] or [`Kind::JOIN_FAILED`] with the same
    /// time and socket.
    pub struct PacketRecord {
        /// [`Kind::PACKET`].
        pub kind: Kind,
        /// Which of the optional fields are set.
        pub flags: PacketFlags,
        /// When the other event happened, `CLOCK_BOOTTIME`, nanoseconds.
        pub boottime_ns: u64,
        /// Address of the connection (`struct sock`) in the other record; 0 if it has none.
        pub socket: u64,
        /// Address of the TCP socket that the packet came for; 0 if it was a listener's.
        pub path: u64,
        /// The IP header: of IPv6, without extension headers.
        pub ip: [u8; HEADER_MAX],
        /// The TCP header with its options.
        pub tcp: [u8; HEADER_MAX],
        /// The peer's token, which this host puts into the SYN of a join.
        pub peer_token: u32,
        /// Number of bytes of [`Self::ip`].
        pub ip_len: u8,
        /// Number of bytes of [`Self::tcp`].
        pub tcp_len: u8,
        /// Time to live, or hop limit, of an earlier packet that the peer sent on the same path, and
        /// that nobody has read yet.
        pub ttl_before: u8,
        /// Window scale of the peer on the first path (`rx_opt.snd_wscale`).
        pub first_window_scale: u8,
        /// Largest segment that the peer takes on the first path (`rx_opt.mss_clamp`).
        pub first_mss: u16,
        /// Keeps the size a multiple of eight.
        pub reserved: [u8; 6],
    }
}

const _: () = assert!(size_of::<PacketRecord>() == 168);
