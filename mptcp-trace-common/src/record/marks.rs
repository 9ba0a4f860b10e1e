//! What joins the captures of both ends of a path.

use crate::wire::structure;

structure! {
    /// What both ends of a path know of it, whatever rewrites addresses and ports between them.
    ///
    /// The two numbers are those of RFC 9293 (section 3.4.1), as they were before the first byte:
    /// what was sent or received since is subtracted. With `C` and `S`, the initial sequence numbers
    /// of the end that opened the path and of the other one, the former end has `C` and `S + 1`, the
    /// latter has `S + 1` and `C + 1`.
    pub struct Marks {
        /// `snd_una` less `bytes_acked`; 0 if unknown.
        pub sent: u32,
        /// `rcv_nxt` less `bytes_received`; 0 if unknown, or if nothing has arrived.
        pub received: u32,
        /// A digest of the connection's two keys (RFC 8684 section 3.1), the same at both ends; 0
        /// unless both are known.
        ///
        /// Half of the bits of a mix of their sum modulo 2: 2^96 pairs of keys have the same digest.
        /// With it and with the tokens of both ends, which are half of a digest of one key each, a
        /// pair of keys is still undetermined. A record never has a key: who knows both can take over
        /// the connection.
        pub keys: u32,
        /// Keeps the size a multiple of eight.
        pub reserved: u32,
    }
}

impl Marks {
    /// Nothing is known.
    pub const NONE: Self = Self {
        sent: 0,
        received: 0,
        keys: 0,
        reserved: 0,
    };

    /// The digest of a connection's keys; 0 if one of them is. Without branches, for the verifier.
    #[must_use]
    #[inline(always)]
    pub const fn digest(local: u64, remote: u64) -> u32 {
        // The end of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
        // generators, 2014).
        let mut mixed = local ^ remote;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let are_known = all_ones_unless_zero(local) & all_ones_unless_zero(remote);
        (mixed >> 32 & are_known) as u32
    }
}

const fn all_ones_unless_zero(value: u64) -> u64 {
    ((value | value.wrapping_neg()) >> 63).wrapping_neg()
}

const _: () = {
    assert!(size_of::<Marks>() == 16);
    // Which key is whose does not matter, and both must be known.
    assert!(Marks::digest(7, 9) == Marks::digest(9, 7) && Marks::digest(7, 9) != 0);
    assert!(Marks::digest(7, 0) == 0 && Marks::digest(0, 9) == 0);
    assert!(Marks::digest(7, 9) != Marks::digest(7, 8));
};
