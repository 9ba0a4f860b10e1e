//! What was found out about a path.

use std::{net::IpAddr, time::Duration};

use super::{options::OptionState, parse::What};

/// Both ends of the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// The address of this host.
    pub source: IpAddr,
    /// The peer's.
    pub destination: IpAddr,
    /// The peer's port.
    pub port: u16,
}

/// Limits of a survey.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Waiting time for the answers to packets that were sent together.
    pub timeout: Duration,
    /// Maximum time to live of packets that are meant to expire.
    pub max_hops: u8,
    /// Maximum number of packets.
    pub max_packets: u32,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Of a router, or of a host.
    Report(Report),
    /// A SYN/ACK.
    SynAck {
        /// Its time to live as it arrived.
        ttl: u8,
        /// Its option.
        back: Back,
        /// It acknowledges the number of the SYN.
        is_acknowledged: bool,
    },
    /// An RST.
    Reset {
        /// Its time to live as it arrived.
        ttl: u8,
    },
    /// An echo reply.
    Echoed {
        /// Its time to live as it arrived.
        ttl: u8,
    },
}

/// What a report says about a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Who sent it.
    pub source: IpAddr,
    /// What it reports.
    pub what: What,
    /// The quote has the whole TCP header.
    pub is_whole: bool,
    /// Number of quoted bytes behind the IP header.
    pub bytes: usize,
    /// The MPTCP option in the quote.
    pub option: OptionState,
    /// The quote has the sequence number that was sent.
    pub is_sequence_kept: Option<bool>,
}

/// The MPTCP option of a SYN/ACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Back {
    /// An answer in version 1, with a key.
    Mptcp,
    /// An answer in another version.
    Version(u8),
    /// The option of the SYN.
    Mirrored,
    /// NOPs that may stand in the place of an answer.
    Cleared {
        /// They are as many as its bytes, and stand where it could.
        is_exact: bool,
    },
    /// An MPTCP option that is no answer.
    Other,
    /// None.
    Nothing,
}

/// A distance, and what came back from there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hop {
    /// Distance.
    pub number: u8,
    /// The answer; none if nothing came.
    pub answer: Option<Answer>,
}

impl Hop {
    /// What a router on the way quotes.
    #[must_use]
    pub fn quote(&self) -> Option<&Report> {
        match self.answer.as_ref()? {
            Answer::Report(report) if report.what == What::TimeExceeded => Some(report),
            Answer::Report(_)
            | Answer::SynAck { .. }
            | Answer::Reset { .. }
            | Answer::Echoed { .. } => None,
        }
    }
}

/// How a connection went on after its handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Data {
    /// What a router at this distance quotes of a segment with DSS.
    pub hops: Vec<Hop>,
    /// What came back when this end closed the connection.
    pub end: DataEnd,
}

/// What came back when this end closed the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DataEnd {
    /// Segments with DSS.
    Acknowledged,
    /// Segments, but none with DSS.
    WithoutDss,
    /// Nothing.
    Silence,
    /// There was no connection, or it was not MPTCP; says why.
    NotOpened(String),
}

/// All that was found out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// Both ends.
    pub ends: Ends,
    /// The end's answer to a SYN with `MP_CAPABLE`.
    pub capable: Option<Answer>,
    /// The end's answer to a SYN without MPTCP.
    pub plain: Option<Answer>,
    /// Answers to SYNs with `MP_CAPABLE`, from distance 1 on.
    pub hops: Vec<Hop>,
    /// Answers to SYNs without MPTCP, where those with it got none.
    pub plain_hops: Vec<Hop>,
    /// The smallest time to live with which a SYN is answered by TCP.
    pub distance: Option<u8>,
    /// Answers to an echo request and a datagram of UDP with that time to live.
    pub others: Vec<Answer>,
    /// The answer to an echo request with the usual time to live.
    pub echo: Option<Answer>,
    /// Quotes of a SYN with an option of the size of `MP_JOIN`.
    pub join: Vec<Hop>,
    /// The connection, if the handshake has MPTCP.
    pub data: Option<Data>,
    /// Number of packets.
    pub packets: u32,
    /// More packets were needed than allowed.
    pub has_too_few_packets: bool,
}

impl Answer {
    /// The peer's TCP says it.
    fn is_tcp(&self) -> bool {
        match self {
            Self::SynAck { .. } | Self::Reset { .. } => true,
            Self::Report(_) | Self::Echoed { .. } => false,
        }
    }

    /// Somebody says that the packet is not let through.
    fn is_unreachable(&self) -> bool {
        matches!(self, Self::Report(it) if it.what != What::TimeExceeded)
    }

    fn is_mptcp(&self) -> bool {
        self.back() == Some(Back::Mptcp)
    }

    /// The option, if it is a SYN/ACK.
    pub(super) fn back(&self) -> Option<Back> {
        match self {
            Self::SynAck { back, .. } => Some(*back),
            Self::Report(_) | Self::Reset { .. } | Self::Echoed { .. } => None,
        }
    }
}

impl Evidence {
    /// Answers to SYNs with `MP_CAPABLE`, first to the one that is not meant to expire.
    fn answers(&self) -> impl Iterator<Item = &Answer> {
        let hops = self.hops.iter().filter_map(|hop| hop.answer.as_ref());
        self.capable.iter().chain(hops)
    }

    /// What counts as the answer to SYNs with `MP_CAPABLE`. Packets get lost, so it may be the answer
    /// to a SYN that was sent to a hop; MPTCP in one of them outweighs the others.
    pub(super) fn answered(&self) -> Option<&Answer> {
        let is_any = |kind: fn(&Answer) -> bool| self.answers().find(|it| kind(it));
        is_any(Answer::is_mptcp)
            .or_else(|| is_any(Answer::is_tcp))
            .or_else(|| is_any(Answer::is_unreachable))
    }

    /// The peer's TCP gave different answers to SYNs with `MP_CAPABLE`.
    pub(super) fn is_contradictory(&self) -> bool {
        let mut said = self.answers().filter(|it| it.is_tcp()).map(Answer::back);
        let first = said.next();
        said.any(|it| Some(it) != first)
    }

    /// What the peer's TCP says to SYNs without MPTCP.
    pub(super) fn answered_plain(&self) -> Option<&Answer> {
        let hops = self.plain_hops.iter().filter_map(|hop| hop.answer.as_ref());
        self.plain.iter().chain(hops).find(|it| it.is_tcp())
    }

    /// The first report that a SYN with `MP_CAPABLE` is not let through, and the hop it was sent to, if
    /// it was sent to one.
    pub(super) fn unreachable(&self) -> Option<(Option<u8>, &Report)> {
        let hops = self.hops.iter();
        let hops = hops.filter_map(|hop| Some((Some(hop.number), hop.answer.as_ref()?)));
        let end = self.capable.iter().map(|answer| (None, answer));
        hops.chain(end).find_map(|(number, answer)| match answer {
            Answer::Report(it) if it.what != What::TimeExceeded => Some((number, it)),
            Answer::Report(_)
            | Answer::SynAck { .. }
            | Answer::Reset { .. }
            | Answer::Echoed { .. } => None,
        })
    }

    /// Hops of routers whose quote has the option unchanged.
    pub(super) fn intact(&self) -> impl Iterator<Item = u8> {
        let intact = |hop: &&Hop| {
            hop.quote()
                .is_some_and(|it| it.option == OptionState::Intact)
        };
        self.hops.iter().filter(intact).map(|hop| hop.number)
    }
}
