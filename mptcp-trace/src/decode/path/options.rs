//! The MPTCP options of a packet: of an RST that was received, or of a packet that was refused.

/// The MPTCP options of an RST.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Rst {
    /// Its options were read.
    pub(super) is_known: bool,
    /// `MP_TCPRST` (RFC 8684 section 3.6): reason, and whether it is transient.
    pub(super) reason: Option<(u8, bool)>,
    /// `MP_JOIN` (section 3.2): of a packet that was refused.
    pub(super) is_join: bool,
    /// The token of the connection that a SYN asks to join.
    pub(super) token: Option<u32>,
    /// `MP_FASTCLOSE` (section 3.5).
    pub(super) is_fastclose: bool,
}

impl Rst {
    /// Parses the options of a TCP header (RFC 9293 section 3.1). Whatever does not fit ends it.
    pub(super) fn parse(mut options: &[u8]) -> Self {
        const END: u8 = 0;
        const NOP: u8 = 1;
        const MPTCP: u8 = 30;
        const JOIN: u8 = 1;
        const FASTCLOSE: u8 = 7;
        const TCPRST: u8 = 8;
        let mut rst = Self {
            is_known: true,
            ..Self::default()
        };
        while let [kind, rest @ ..] = options {
            match (*kind, rest) {
                (END, _) => break,
                (NOP, _) => options = rest,
                (kind, [length, ..]) => {
                    let length = usize::from(*length);
                    if length < 2 || length > options.len() {
                        break;
                    }
                    let (option, after) = options.split_at(length);
                    match (kind, option) {
                        (MPTCP, [_, _, first, reason, ..]) if first >> 4 == TCPRST => {
                            rst.reason = Some((*reason, first & 1 == 1));
                        }
                        (MPTCP, [_, _, first, _, token @ ..]) if first >> 4 == JOIN => {
                            rst.is_join = true;
                            // A SYN has token and nonce, a SYN/ACK and an ACK have an HMAC.
                            if let [a, b, c, d, _, _, _, _] = token {
                                rst.token = Some(u32::from_be_bytes([*a, *b, *c, *d]));
                            }
                        }
                        (MPTCP, [_, _, first, ..]) if first >> 4 == FASTCLOSE => {
                            rst.is_fastclose = true;
                        }
                        _ => {}
                    }
                    options = after;
                }
                (_, []) => break,
            }
        }
        rst
    }
}
