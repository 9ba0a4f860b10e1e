//! The packet with which a connection or a path lost MPTCP: its headers, and what they show.

use std::{fmt, net::SocketAddr, time::Duration};

use super::{SocketId, Term};

/// The event that a packet belongs to, which has the same time and socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PacketKey {
    /// When the event happened, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// Kernel address of the connection's socket; 0 if there is none.
    pub socket: SocketId,
}

/// The headers of a packet that this host received, without payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The IP header; of IPv6 without extension headers.
    pub ip: Vec<u8>,
    /// The TCP header with its options.
    pub tcp: Vec<u8>,
    /// Who sent it, according to its header.
    pub source: SocketAddr,
    /// Whom it was sent to.
    pub destination: SocketAddr,
    /// Time to live, or hop limit, when it arrived.
    pub ttl: u8,
    /// Flags of the TCP header.
    pub flags: TcpFlags,
    /// Window, as the header has it: not scaled.
    pub window: u16,
    /// Options in their order, padding included.
    pub options: Vec<TcpOption>,
    /// Time to live of an earlier packet on the same path, if one was still unread.
    pub ttl_before: Option<u8>,
    /// What the peer negotiated on the connection's first path, if this is another one.
    pub first_path: Option<Negotiated>,
    /// The peer's token, which this host puts into the SYN of a join.
    pub peer_token: Option<u32>,
    /// What the packet shows, the most important first.
    pub conclusions: Vec<Conclusion>,
}

/// What a TCP stack offers in its SYN or SYN/ACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Negotiated {
    /// Largest segment that it takes, bytes.
    pub mss: Option<u16>,
    /// Its window scale; `None` if it does not scale.
    pub window_scale: Option<u8>,
    /// It uses timestamps.
    pub timestamps: bool,
}

/// Flags of a TCP header (RFC 9293 section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// RST.
    pub const RST: Self = Self(4);
    /// SYN and ACK.
    pub const SYN_ACK: Self = Self(0x12);

    /// True if all of these are set.
    #[must_use]
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let set = NAMES
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.0 >> bit & 1 == 1);
        let names: Vec<&str> = set.map(|(_, name)| *name).collect();
        f.write_str(&names.join("/"))
    }
}

/// An option of a TCP header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TcpOption {
    /// End of the list: the rest of the header is padding.
    End,
    /// No operation: padding of one byte.
    Nop,
    /// Largest segment.
    Mss(u16),
    /// Window scale.
    WindowScale(u8),
    /// Selective acknowledgments are allowed.
    SackPermitted,
    /// Timestamps: value and echo.
    Timestamps(u32, u32),
    /// MPTCP: the bytes after kind and length.
    Mptcp(Vec<u8>),
    /// Another one: kind and length.
    Other(u8, u8),
    /// What follows is no option.
    Malformed,
}

impl TcpOption {
    /// The kind of MPTCP options.
    const MPTCP: u8 = 30;

    /// The options in the bytes after a TCP header of 20 bytes.
    #[must_use]
    pub fn parse(mut bytes: &[u8]) -> Vec<Self> {
        let mut options = Vec::new();
        while let Some((kind, rest)) = bytes.split_first() {
            match kind {
                0 => {
                    options.extend(std::iter::repeat_n(Self::End, bytes.len()));
                    return options;
                }
                1 => {
                    options.push(Self::Nop);
                    bytes = rest;
                    continue;
                }
                _other => {}
            }
            let length = rest.first().map_or(0, |length| usize::from(*length));
            let Some(content) = bytes.get(2..length) else {
                options.push(Self::Malformed);
                return options;
            };
            options.push(Self::of(*kind, content));
            bytes = bytes.get(length..).unwrap_or_default();
        }
        options
    }

    /// Overwrites the keys of `MP_CAPABLE` and `MP_FASTCLOSE` with zeros (RFC 8684 sections 3.1 and
    /// 3.5): they suffice to take over a connection.
    pub fn zero_keys(options: &mut [u8]) {
        const END: u8 = 0;
        const NOP: u8 = 1;
        const MP_CAPABLE: u8 = 0;
        const MP_FASTCLOSE: u8 = 7;
        /// Kind, length, subtype, and version and flags, or what is reserved.
        const BEFORE_KEYS: usize = 4;
        let mut at = 0;
        while let Some(&kind) = options.get(at) {
            let length = match (kind, options.get(at + 1)) {
                (NOP, _) => 1,
                (END, _) | (_, None | Some(0 | 1)) => return,
                (_, Some(&length)) => usize::from(length),
            };
            let subtype = options.get(at + 2).map(|first| first >> 4);
            if kind == Self::MPTCP && matches!(subtype, Some(MP_CAPABLE | MP_FASTCLOSE)) {
                let end = (at + length).min(options.len());
                let from = (at + BEFORE_KEYS).min(end);
                options[from..end].fill(0);
            }
            at += length;
        }
    }

    /// The bytes after kind and length, of an MPTCP option.
    #[must_use]
    pub fn mptcp(&self) -> Option<&[u8]> {
        if let Self::Mptcp(content) = self {
            Some(content)
        } else {
            None
        }
    }

    fn of(kind: u8, content: &[u8]) -> Self {
        let word = |at: usize| {
            let bytes = content.get(at..at + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().ok()?))
        };
        let length = u8::try_from(content.len() + 2).unwrap_or(u8::MAX);
        match (kind, content) {
            (2, [high, low]) => Self::Mss(u16::from_be_bytes([*high, *low])),
            (3, [shift]) => Self::WindowScale(*shift),
            (4, []) => Self::SackPermitted,
            (8, [_, _, _, _, _, _, _, _]) => match (word(0), word(4)) {
                (Some(value), Some(echo)) => Self::Timestamps(value, echo),
                _ => Self::Other(kind, length),
            },
            (Self::MPTCP, [_, ..]) => Self::Mptcp(content.to_vec()),
            _ => Self::Other(kind, length),
        }
    }

    /// Names of MPTCP's subtypes (RFC 8684 section 8.1), by their number.
    const SUBTYPES: [&str; 9] = [
        "MP_CAPABLE",
        "MP_JOIN",
        "DSS",
        "ADD_ADDR",
        "REMOVE_ADDR",
        "MP_PRIO",
        "MP_FAIL",
        "MP_FASTCLOSE",
        "MP_TCPRST",
    ];
}

impl fmt::Display for TcpOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("eol"),
            Self::Nop => f.write_str("nop"),
            Self::Mss(mss) => write!(f, "mss {mss}"),
            Self::WindowScale(shift) => write!(f, "wscale {shift}"),
            Self::SackPermitted => f.write_str("sackOK"),
            Self::Timestamps(value, echo) => write!(f, "TS val {value} ecr {echo}"),
            Self::Mptcp(content) => {
                let subtype = content.first().map_or(0, |first| first >> 4);
                let length = content.len() + 2;
                match Self::SUBTYPES.get(usize::from(subtype)) {
                    Some(name) => write!(f, "{name} {length}"),
                    None => write!(f, "mptcp-{subtype} {length}"),
                }
            }
            Self::Other(kind, length) => write!(f, "option-{kind} {length}"),
            Self::Malformed => f.write_str("malformed"),
        }
    }
}

impl Packet {
    /// What the sender offers in a SYN or SYN/ACK.
    #[must_use]
    pub fn negotiates(&self) -> Negotiated {
        let mut offered = Negotiated {
            mss: None,
            window_scale: None,
            timestamps: false,
        };
        for option in &self.options {
            match option {
                TcpOption::Mss(mss) => offered.mss = Some(*mss),
                TcpOption::WindowScale(shift) => offered.window_scale = Some(*shift),
                TcpOption::Timestamps(..) => offered.timestamps = true,
                TcpOption::End
                | TcpOption::Nop
                | TcpOption::SackPermitted
                | TcpOption::Mptcp(_)
                | TcpOption::Other(..)
                | TcpOption::Malformed => {}
            }
        }
        offered
    }

    /// Options as text: runs of padding are counted.
    #[must_use]
    pub fn options_text(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        for run in self.options.chunk_by(|one, other| one == other) {
            match run {
                [option] => words.push(option.to_string()),
                [option @ (TcpOption::Nop | TcpOption::End), ..] => {
                    words.push(format!("{} {option}", run.len()));
                }
                _several => words.extend(run.iter().map(ToString::to_string)),
            }
        }
        words.join(", ")
    }

    /// True if it shows this.
    #[must_use]
    pub fn shows(&self, what: Shown) -> bool {
        self.conclusions.iter().any(|it| it.what == what)
    }

    /// The headers, and what they show, a line each.
    pub fn described(&self) -> impl Iterator<Item = String> {
        let shown = self.conclusions.iter().map(|it| format!("shows {it}"));
        std::iter::once(format!("packet: {}", self.summary())).chain(shown)
    }

    /// The same in one line.
    #[must_use]
    pub fn description(&self) -> String {
        self.described().collect::<Vec<_>>().join("; ")
    }

    /// The headers in one line.
    fn summary(&self) -> String {
        let options = match self.options_text() {
            empty if empty.is_empty() => "none".to_owned(),
            options => options,
        };
        format!(
            "{} from {}, ttl {}, window {}, options: {options}",
            self.flags,
            super::displayed(self.source),
            self.ttl,
            self.window
        )
    }
}

impl fmt::Display for Conclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            certainty,
            because,
        } = self;
        write!(f, "{} ({}): {because}", what.name(), certainty.name())
    }
}

/// How sure a conclusion is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Certainty {
    /// The packet cannot have come about in another way that is in use.
    Certain,
    /// Another explanation exists, and is rarer.
    Likely,
    /// The packet does not distinguish the explanations.
    Open,
}

impl Certainty {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Certain, Self::Likely, Self::Open];

    /// The name as printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Likely => "likely",
            Self::Open => "open",
        }
    }
}

/// What a packet shows about who took MPTCP out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conclusion {
    /// The conclusion.
    pub what: Shown,
    /// How sure it is.
    pub certainty: Certainty,
    /// What of the packet leads to it.
    pub because: String,
}

/// A conclusion from a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// The option was overwritten with padding.
    Cleared,
    /// There is no option and no gap.
    Absent,
    /// It is an option of this host, sent back.
    Reflected,
    /// The option arrived.
    Present,
    /// The packet differs from others of the same peer.
    AnotherMachine,
    /// An RST with another time to live than the peer's packets.
    RstOtherTtl,
    /// An RST with the same time to live.
    RstSameTtl,
    /// An RST, and no packet to compare it with.
    RstUnknown,
}

impl Shown {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::Cleared,
        Self::Absent,
        Self::Reflected,
        Self::Present,
        Self::AnotherMachine,
        Self::RstOtherTtl,
        Self::RstSameTtl,
        Self::RstUnknown,
    ];

    /// The name as printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.term().name
    }

    /// The conclusion with this name, in either case.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|it| it.name().eq_ignore_ascii_case(name))
    }

    /// What it means: what follows, and what does not.
    #[must_use]
    pub const fn term(self) -> &'static Term {
        &FINGERPRINTS[self as usize]
    }
}

/// What packets show, in the order of [`Shown::ALL`].
pub const FINGERPRINTS: [Term; Shown::ALL.len()] = [
    Term {
        name: "option-cleared",
        meaning: "The packet has a gap of padding (NOP) where its MPTCP option was: a box on the way \
                  overwrote the option, as nftables (reset tcp option) and iptables (TCPOPTSTRIP) \
                  do. It follows that the sender did speak MPTCP in this packet, and that the box is \
                  on the way from it to this host. It does not follow where on that way, or that \
                  the box does the same in the other direction.",
        next: "nft list ruleset; iptables -t mangle -S; and the same on each router on the way",
    },
    Term {
        name: "option-absent",
        meaning: "The packet has no MPTCP option and no gap. Either the sender does not use MPTCP - it \
                  never did, or the option was taken out of what this host sent - or a box removed \
                  the option and moved up what follows it. One packet does not distinguish them.",
        next: "on the peer: mptcp-trace --kind fallback,plain,path (did the option arrive there?)",
    },
    Term {
        name: "option-reflected",
        meaning: "The packet has an MPTCP option that this host sent: something copies unknown options \
                  from the packets that it answers. It follows that the sender does not understand \
                  MPTCP. It does not follow whether it is the peer or a box in front of it.",
        next: "tcpdump -ni any -v 'tcp[tcpflags] & tcp-syn != 0' (compare the options of both directions)",
    },
    Term {
        name: "option-present",
        meaning: "The packet has an MPTCP option that the sender made: nothing took it out of this \
                  packet. What the option says did not fit: a token, an HMAC or a mapping that was \
                  changed on the way, or that belongs to another connection. An option of an earlier \
                  packet may still be missing.",
        next: "mptcp-trace explain CAUSE (what was refused)",
    },
    Term {
        name: "another-machine",
        meaning: "The packet differs from others of the same peer in what a machine does not change \
                  between connections: time to live, window scale, timestamps or largest segment. A \
                  proxy or a load balancer answers in its place, or another machine behind the same \
                  address. The line says what differs. A largest segment alone, or a time to live \
                  that differs from an earlier connection's, may also come from another route.",
        next: "traceroute -T to the peer over each path (does one end earlier?)",
    },
    Term {
        name: "rst-other-ttl",
        meaning: "The RST arrived with another time to live than packets of the peer: a box on the way \
                  sent it in the peer's name. A route that changed in the meantime can look the same, \
                  by a difference of a few.",
        next: "which firewall or NAT is as many hops away? traceroute -T to the peer",
    },
    Term {
        name: "rst-same-ttl",
        meaning: "The RST arrived with the time to live of the peer's packets: nothing speaks against \
                  the peer as its sender. A box can set any time to live, so this is no proof.",
        next: "on the peer: mptcp-trace --kind path (did it reset the path?)",
    },
    Term {
        name: "rst-unknown",
        meaning: "No other packet of this peer is known with which to compare the time to live of the \
                  RST: who sent it is unknown.",
        next: "on both ends: tcpdump -ni any -v 'tcp[tcpflags] & tcp-rst != 0' (who sends it?)",
    },
];
