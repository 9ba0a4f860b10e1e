//! What a finding is about, whatever its kind: the basis of views (filters, sums).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    ClosedEvent, Connection, ConnectionEvent, ConnectionId, ConnectionKind, Finding, Judgement,
    Outcome, Path, PathEvent, Process, Refused, Socket, TcpState, Verdict,
};

/// The common fields of all findings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject<'a> {
    /// The process that made the query or holds the connection, if known.
    pub process: Option<&'a Process>,
    /// Path of the control group, if the finding contains it.
    pub cgroup: Option<&'a str>,
    /// The socket; `None` if there is none.
    pub socket: Option<&'a Socket>,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The connection; `None` if it was not tracked.
    pub id: Option<ConnectionId>,
    /// Name of the cause, as in the catalogue: of a fallback, or of the fallback that a verdict is
    /// based on.
    pub cause: Option<&'a str>,
    /// The verdict.
    pub verdict: Option<Verdict>,
    /// The connection has fallen back, as far as this finding shows.
    pub has_fallen: bool,
    /// When the fallback happened, on `CLOCK_BOOTTIME`, if this finding reports it.
    pub falls_at: Option<Duration>,
    /// The finding is a query.
    pub is_query: bool,
    /// The kernel refused something to an application because it uses MPTCP.
    pub is_refusal: bool,
    /// Code of the reason in an RST, received or sent, if there was one.
    pub reset: Option<u8>,
    /// The finding is the closing verdict on a connection.
    pub is_closing: bool,
    /// The finding reports that a connection ended, and what it was.
    pub is_end: bool,
    /// The event of a path, if the finding is one.
    pub path: Option<&'a Path>,
}

impl<'a> Subject<'a> {
    /// What a finding is about.
    #[must_use]
    pub fn of(finding: &'a Finding) -> Self {
        match finding {
            Finding::Query(event) => {
                let query = &event.query;
                let judgement = event.judgement.as_ref();
                Self {
                    process: Some(&query.process),
                    cgroup: None,
                    socket: Some(&query.socket),
                    netns: query.socket.netns,
                    id: query.id,
                    cause: judgement.and_then(|it| it.cause.as_deref()),
                    verdict: judgement.map(|it| it.verdict),
                    has_fallen: query.fell_back == Some(true)
                        || judgement.is_some_and(Judgement::is_of_fallen),
                    falls_at: None,
                    is_query: true,
                    is_refusal: false,
                    reset: None,
                    is_closing: false,
                    is_end: false,
                    path: None,
                }
            }
            Finding::Connection(event) => Self::of_connection(event),
            Finding::Path(event) => Self::of_path(event),
            Finding::Closed(event) => Self::of_closed(event),
            Finding::Verdict(event) => Self {
                process: event.owner.as_ref().map(|owner| &owner.process),
                cgroup: event.place.cgroup.as_deref(),
                socket: Some(&event.socket),
                netns: event.socket.netns,
                id: Some(event.id),
                cause: event.judgement.cause.as_deref(),
                verdict: Some(event.judgement.verdict),
                has_fallen: event.judgement.is_of_fallen(),
                falls_at: None,
                is_query: false,
                is_refusal: false,
                reset: None,
                is_closing: true,
                is_end: false,
                path: None,
            },
            Finding::Refusal(event) => {
                let (socket, netns) = match &event.refusal.what {
                    Refused::Option { socket, .. } => (Some(socket), socket.netns),
                    Refused::Socket { netns, .. } => (None, *netns),
                };
                Self {
                    process: Some(&event.refusal.process),
                    cgroup: None,
                    socket,
                    netns,
                    id: None,
                    cause: None,
                    verdict: None,
                    has_fallen: false,
                    falls_at: None,
                    is_query: false,
                    is_refusal: true,
                    reset: None,
                    is_closing: false,
                    is_end: false,
                    path: None,
                }
            }
        }
    }

    fn of_connection(event: &'a ConnectionEvent) -> Self {
        let Connection {
            kind,
            at,
            id,
            socket,
            owner,
            cause,
            fell_back,
            ..
        } = &event.connection;
        let is_fallback = *kind == ConnectionKind::Fallback;
        let cause = match kind {
            ConnectionKind::Plain => Some("plain"),
            ConnectionKind::Blackhole => Some("Blackhole"),
            ConnectionKind::Fallback
            | ConnectionKind::FallbackDenied
            | ConnectionKind::Existing => cause.as_deref(),
        };
        Self {
            process: owner.as_ref().map(|owner| &owner.process),
            cgroup: event.place.cgroup.as_deref(),
            socket: Some(socket),
            netns: socket.netns,
            id: Some(*id),
            cause,
            verdict: None,
            // The line of the fallback has already reported what a blackhole implies for its
            // connection.
            has_fallen: is_fallback
                || *kind == ConnectionKind::Existing && *fell_back == Some(true),
            falls_at: is_fallback.then_some(*at),
            is_query: false,
            is_refusal: false,
            reset: None,
            is_closing: false,
            is_end: false,
            path: None,
        }
    }

    fn of_path(event: &'a PathEvent) -> Self {
        let path = &event.path;
        Self {
            process: path.owner.as_ref().map(|owner| &owner.process),
            cgroup: event.place.cgroup.as_deref(),
            socket: Some(&path.socket),
            netns: path.socket.netns,
            id: path.connection,
            cause: path.cause.as_deref(),
            verdict: None,
            has_fallen: false,
            falls_at: None,
            is_query: false,
            is_refusal: false,
            reset: path.reset.map(|it| it.code),
            is_closing: false,
            is_end: false,
            path: Some(path),
        }
    }

    fn of_closed(event: &'a ClosedEvent) -> Self {
        let closed = &event.closed;
        let (has_fallen, cause) = match &closed.outcome {
            Outcome::FellBack { at: _, cause } => (true, cause.as_deref()),
            Outcome::Mptcp | Outcome::Unknown => (false, None),
        };
        Self {
            process: closed.owner.as_ref().map(|owner| &owner.process),
            cgroup: event.place.cgroup.as_deref(),
            socket: Some(&closed.socket),
            netns: closed.socket.netns,
            id: Some(closed.id),
            cause,
            verdict: None,
            has_fallen,
            falls_at: None,
            is_query: false,
            is_refusal: false,
            reset: None,
            is_closing: false,
            is_end: true,
            path: None,
        }
    }

    /// True if the socket is a listener, and not a connection.
    #[must_use]
    pub fn is_listener(&self) -> bool {
        self.socket
            .is_some_and(|socket| socket.state == TcpState::LISTEN)
    }
}

/// An address prefix; an IPv4-mapped IPv6 address counts as IPv4.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    /// The lowest address.
    addr: IpAddr,
    /// Length of the prefix, bits.
    bits: u8,
}

impl Prefix {
    /// The prefix of this length that contains `addr`; the length is limited to that of the
    /// address.
    #[must_use]
    pub fn around(addr: IpAddr, bits: u8) -> Self {
        match addr.to_canonical() {
            IpAddr::V4(v4) => {
                let bits = bits.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                Self {
                    addr: IpAddr::V4((v4.to_bits() & mask).into()),
                    bits,
                }
            }
            IpAddr::V6(v6) => {
                let bits = bits.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                Self {
                    addr: IpAddr::V6((v6.to_bits() & mask).into()),
                    bits,
                }
            }
        }
    }

    /// True if the prefix contains the address.
    #[must_use]
    pub fn contains(self, addr: SocketAddr) -> bool {
        let addr = addr.ip().to_canonical();
        addr.is_ipv4() == self.addr.is_ipv4() && Self::around(addr, self.bits) == self
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{}/{}", self.addr, self.bits))
    }
}

impl std::str::FromStr for Prefix {
    type Err = String;

    /// Parses an address, or an address and a prefix length.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "{text:?} is not an address: write 192.0.2.7, 192.0.2.0/24, 2001:db8::1 or \
                 2001:db8::/32"
            )
        };
        let (addr, bits) = match text.split_once('/') {
            Some((addr, bits)) => (addr, Some(bits)),
            None => (text, None),
        };
        let typed: IpAddr = addr.parse().map_err(|_no_address| wrong())?;
        let (width, inside) = match typed {
            IpAddr::V4(_) => (32, 0),
            IpAddr::V6(_) if typed.to_canonical().is_ipv4() => (128, 96),
            IpAddr::V6(_) => (128, 0),
        };
        let bits = match bits {
            None => width,
            Some(bits) => bits
                .parse::<u8>()
                .ok()
                .filter(|bits| (inside..=width).contains(bits))
                .ok_or_else(wrong)?,
        };
        Ok(Self::around(typed, bits - inside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_read_as_people_write_it_and_holds_what_it_says() {
        for (text, shown) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8:1:2::3/48", "2001:db8:1::/48"),
            ("::/0", "::/0"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7/120", "192.0.2.0/24"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "localhost",
            "192.0.2.7/33",
            "192.0.2.7/",
            "192.0.2/24",
            "::/129",
            "1.2.3.4/-1",
            "::ffff:1.2.3.4/95",
        ] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
        for (prefix, addr, holds) in [
            ("192.0.2.0/24", "192.0.2.255:1", true),
            ("192.0.2.0/24", "192.0.3.0:1", false),
            ("192.0.2.0/24", "[::ffff:192.0.2.9]:1", true),
            ("2001:db8::/32", "[2001:db8:ffff::1]:1", true),
            ("2001:db8::/32", "[2001:db9::1]:1", false),
            ("0.0.0.0/0", "[::1]:1", false),
            ("::/0", "127.0.0.1:1", false),
        ] {
            let prefix: Prefix = prefix.parse().unwrap();
            assert_eq!(
                prefix.contains(addr.parse().unwrap()),
                holds,
                "{prefix} {addr}"
            );
        }
    }
}
