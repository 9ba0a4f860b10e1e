//! Pseudonyms for data that identifies a host or user: addresses, process names, control group
//! paths. Equal values get equal pseudonyms, so that relations are preserved. Rewrites records in
//! their wire format; causes, times, ports and ids stay.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use mptcp_trace_common::{
    numbers::AF_INET,
    record::{
        ConnRecord, ConnState, CountedRecord, Kind, Marks, Owner, PacketRecord, PathRecord,
        QueryRecord, zone,
    },
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What a redacted bundle still has that may identify a host or a user. Every text about redaction
/// says it in these words.
pub const KEPT: &str = "ports, initial sequence numbers, process and user IDs, inode numbers, kernel \
                        addresses of sockets, loopback addresses and times";

const COMM_BYTES: usize = 16;
const OPTIONS_BYTES: usize = 40;

/// Length of an IPv4 and of a TCP header without options.
const V4_HEADER: usize = 20;
const TCP_HEADER: usize = 20;

/// IPv4 pseudonyms: 198.18.0.0/15, reserved for benchmarks (RFC 2544).
const V4_FIRST: u32 = 0xc612_0001;
const V4_LAST: u32 = 0xc613_ffff;
/// IPv6 pseudonyms: `2001:db8::/32`, reserved for documentation (RFC 3849).
const V6_FIRST: u128 = 0x2001_0db8 << 96;

/// True for an address that a redactor puts in the place of others.
#[must_use]
pub fn is_pseudonym(addr: IpAddr) -> bool {
    match addr.to_canonical() {
        IpAddr::V4(v4) => (V4_FIRST..=V4_LAST).contains(&v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits() >> 96 == V6_FIRST >> 96,
    }
}

/// A record of a kind that this program cannot redact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unknown;

/// Removes what identifies the owner from a record about a connection or a path that the filter does not
/// admit: processes, control group, and addresses. What the account and verdicts need stays:
/// identity, times, cause, namespace, state. The addresses of an unaccepted connection stay too,
/// since the filter may admit the process that accepts it.
///
/// # Errors
///
/// [`Unknown`] if it is not such a record.
pub fn forget(bytes: &mut [u8]) -> Result<(), Unknown> {
    let (kind, _rest) = Kind::read_from_prefix(bytes).map_err(|_length| Unknown)?;
    if kind.is_of_path() {
        return rewrite(bytes, |record: &mut PathRecord| {
            record.owner = Owner::NONE;
            record.token = 0;
            record.marks = Marks::NONE;
            // Options may have keys and addresses.
            record.options = [0; OPTIONS_BYTES];
            record.options_len = 0;
            if !record.conn_state.contains(ConnState::UNACCEPTED) {
                record.local_addr = [0; 16];
                record.remote_addr = [0; 16];
                record.local_port = 0;
                record.remote_port_be = 0;
            }
        });
    }
    rewrite(bytes, |record: &mut ConnRecord| {
        record.owner = Owner::NONE;
        record.current_tgid = 0;
        record.current_tid = 0;
        record.current_ns_tgid = 0;
        record.current_comm = [0; COMM_BYTES];
        record.marks = Marks::NONE;
        if !record.conn_state.contains(ConnState::UNACCEPTED) {
            record.local_addr = [0; 16];
            record.remote_addr = [0; 16];
            record.local_port = 0;
            record.remote_port_be = 0;
        }
    })
}

/// Removes what TCP options contain, such as tokens and timestamps; which options there are, and the
/// reason of an RST (RFC 8684 section 3.6), stay.
fn blank_options(options: &mut [u8]) {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const MPTCP: u8 = 30;
    const TCPRST: u8 = 8;
    const MSS: u8 = 2;
    const WINDOW_SCALE: u8 = 3;
    let mut at = 0;
    while let Some(kind) = options.get(at).copied() {
        if kind == NOP {
            at += 1;
            continue;
        }
        let length = match options.get(at + 1).copied().map(usize::from) {
            Some(length) if kind != END && length >= 2 => length,
            // What follows is no option.
            _ => {
                options[at..].fill(0);
                return;
            }
        };
        let end = (at + length).min(options.len());
        let kept = match options.get(at + 2) {
            Some(first) if kind == MPTCP && first >> 4 == TCPRST => 4,
            Some(_) if kind == MPTCP => 3,
            Some(_) if kind == MSS || kind == WINDOW_SCALE => length,
            _ => 2,
        };
        let from = (at + kept).min(end);
        options[from..end].fill(0);
        at = end;
    }
}

/// Reads a whole record, and writes it back changed.
fn rewrite<T: FromBytes + IntoBytes + Immutable>(
    bytes: &mut [u8],
    change: impl FnOnce(&mut T),
) -> Result<(), Unknown> {
    let mut record = T::read_from_bytes(bytes).map_err(|_length| Unknown)?;
    change(&mut record);
    record.write_to(bytes).map_err(|_length| Unknown)
}

/// Pseudonyms in use.
#[derive(Debug, Default)]
pub struct Redactor {
    v4: HashMap<Ipv4Addr, Ipv4Addr>,
    v6: HashMap<Ipv6Addr, Ipv6Addr>,
    comms: HashMap<[u8; COMM_BYTES], [u8; COMM_BYTES]>,
    cgroups: HashMap<String, String>,
    pod_names: HashMap<(&'static str, String), String>,
}

impl Redactor {
    /// Rewrites a record.
    ///
    /// # Errors
    ///
    /// [`Unknown`] if the layout is unknown: the record must not be kept.
    pub fn record(&mut self, bytes: &mut [u8]) -> Result<(), Unknown> {
        let (kind, _rest) = Kind::read_from_prefix(bytes).map_err(|_length| Unknown)?;
        match kind {
            Kind::QUERY | Kind::OPTION_REFUSED | Kind::SOCKET_REFUSED => {
                rewrite(bytes, |record: &mut QueryRecord| {
                    record.local_addr = self.addr(record.family, record.local_addr);
                    record.remote_addr = self.addr(record.family, record.remote_addr);
                    record.comm = self.comm(record.comm);
                })
            }
            Kind::FALLBACK
            | Kind::TCP_CHILD
            | Kind::ACCEPTED
            | Kind::EXISTING
            | Kind::BLACKHOLE
            | Kind::CLOSED => rewrite(bytes, |record: &mut ConnRecord| {
                record.local_addr = self.addr(record.family, record.local_addr);
                record.remote_addr = self.addr(record.family, record.remote_addr);
                record.owner.comm = self.comm(record.owner.comm);
                record.current_comm = self.comm(record.current_comm);
            }),
            kind if kind.is_of_path() => rewrite(bytes, |record: &mut PathRecord| {
                record.local_addr = self.addr(record.family, record.local_addr);
                record.remote_addr = self.addr(record.family, record.remote_addr);
                record.owner.comm = self.comm(record.owner.comm);
                // Another packet capture has it in clear text.
                record.token = 0;
                blank_options(&mut record.options);
            }),
            Kind::PACKET => rewrite(bytes, |record: &mut PacketRecord| self.packet(record)),
            // Contains no identifying field.
            Kind::COUNTED | Kind::COUNTED_AT_START => {
                rewrite(bytes, |_record: &mut CountedRecord| ())
            }
            Kind(_unknown) => Err(Unknown),
        }
    }

    /// Replaces addresses, and what another packet capture may have in clear text: the content of
    /// options but for those of a handshake that are the same in every connection of a host, sequence
    /// numbers, and the checksums, which depend on the addresses.
    fn packet(&mut self, record: &mut PacketRecord) {
        const V4_CHECKSUM: Range<usize> = 10..12;
        const SEQUENCES: Range<usize> = 4..12;
        const CHECKSUM: Range<usize> = 16..18;
        // Whether the packet has the token is what it is kept for.
        let token = record.peer_token.to_be_bytes();
        let is_in_packet = record.tcp.windows(token.len()).any(|bytes| bytes == token);
        record.peer_token = if is_in_packet { 0 } else { u32::MAX };
        match record.ip[0] >> 4 {
            4 => {
                for at in [12, 16] {
                    let place = &mut record.ip[at..at + 4];
                    let mut octets = [0; 4];
                    octets.copy_from_slice(place);
                    place.copy_from_slice(&self.v4(octets.into()).octets());
                }
                record.ip[V4_CHECKSUM].fill(0);
                // Options may have the addresses of routers.
                record.ip[V4_HEADER..].fill(0);
            }
            6 => {
                for at in [8, 24] {
                    let place = &mut record.ip[at..at + 16];
                    let mut octets = [0; 16];
                    octets.copy_from_slice(place);
                    place.copy_from_slice(&self.v6(octets.into()).octets());
                }
                // The flow label.
                record.ip[1..4].fill(0);
            }
            _no_header => record.ip.fill(0),
        }
        record.tcp[SEQUENCES].fill(0);
        record.tcp[CHECKSUM].fill(0);
        blank_options(&mut record.tcp[TCP_HEADER..]);
    }

    /// A pseudonym for an address.
    pub fn address(&mut self, addr: IpAddr) -> IpAddr {
        match addr {
            IpAddr::V4(v4) => self.v4(v4).into(),
            IpAddr::V6(v6) => self.v6(v6).into(),
        }
    }

    /// A pseudonym for the address of a record.
    fn addr(&mut self, family: u16, addr: [u8; 16]) -> [u8; 16] {
        if family == AF_INET {
            let [a, b, c, d, ..] = addr;
            let mut whole = [0; 16];
            whole[..4].copy_from_slice(&self.v4(Ipv4Addr::new(a, b, c, d)).octets());
            whole
        } else {
            let (addr, _zone) = zone::split(addr);
            self.v6(addr.into()).octets()
        }
    }

    /// A pseudonym for a control group path; the root stays.
    pub fn cgroup(&mut self, path: &str) -> String {
        if path == "/" {
            return path.to_owned();
        }
        let next = self.cgroups.len() + 1;
        let known = self.cgroups.entry(path.to_owned());
        known.or_insert_with(|| format!("/c{next}")).clone()
    }

    /// A pseudonym for a name of this kind in a pod; it begins with the kind.
    pub fn pod_name(&mut self, kind: &'static str, name: &str) -> String {
        let next = self.pod_names.len() + 1;
        let known = self.pod_names.entry((kind, name.to_owned()));
        known.or_insert_with(|| format!("{kind}{next}")).clone()
    }

    fn v4(&mut self, addr: Ipv4Addr) -> Ipv4Addr {
        if stays(addr.into()) {
            return addr;
        }
        // When all are used up, further addresses share the last one.
        let next = u32::try_from(self.v4.len()).unwrap_or(u32::MAX);
        let next = V4_FIRST.saturating_add(next).min(V4_LAST);
        *self.v4.entry(addr).or_insert_with(|| next.into())
    }

    fn v6(&mut self, addr: Ipv6Addr) -> Ipv6Addr {
        if let Some(v4) = addr.to_ipv4_mapped() {
            return self.v4(v4).to_ipv6_mapped();
        }
        if stays(addr.into()) {
            return addr;
        }
        let next = V6_FIRST + self.v6.len() as u128 + 1;
        *self.v6.entry(addr).or_insert_with(|| next.into())
    }

    fn comm(&mut self, comm: [u8; COMM_BYTES]) -> [u8; COMM_BYTES] {
        if comm[0] == 0 {
            // Bytes after the end of a name are not part of it.
            return [0; COMM_BYTES];
        }
        let end = comm.iter().position(|byte| *byte == 0);
        let mut name = [0; COMM_BYTES];
        let length = end.unwrap_or(COMM_BYTES);
        name[..length].copy_from_slice(&comm[..length]);
        let next = format!("p{}", self.comms.len() + 1);
        *self.comms.entry(name).or_insert_with(|| {
            let mut pseudonym = [0; COMM_BYTES];
            pseudonym[..next.len()].copy_from_slice(next.as_bytes());
            pseudonym
        })
    }
}

/// Addresses that identify no one.
fn stays(addr: IpAddr) -> bool {
    addr.is_loopback() || addr.is_unspecified()
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    const COMM: [u8; 16] = *b"secret\0old\0\0\0\0\0\0";
    const REDACTED: [u8; 16] = *b"p1\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

    fn padded(addr: &[u8]) -> [u8; 16] {
        let mut whole = [0; 16];
        whole[..addr.len()].copy_from_slice(addr);
        whole
    }

    /// Records of each layout with these addresses and names.
    fn records(family: u16, addr: &[u8], comm: [u8; 16]) -> Vec<Vec<u8>> {
        let addr = padded(addr);
        let mut records = Vec::new();
        for kind in [Kind::QUERY, Kind::OPTION_REFUSED, Kind::SOCKET_REFUSED] {
            let mut record = QueryRecord::new_zeroed();
            record.kind = kind;
            record.family = family;
            (record.local_addr, record.remote_addr) = (addr, addr);
            record.comm = comm;
            records.push(record.as_bytes().to_vec());
        }
        let mut record = ConnRecord::new_zeroed();
        record.kind = Kind::FALLBACK;
        record.family = family;
        (record.local_addr, record.remote_addr) = (addr, addr);
        (record.owner.comm, record.current_comm) = (comm, comm);
        records.push(record.as_bytes().to_vec());
        let mut record = PathRecord::new_zeroed();
        record.kind = Kind::PATH_ENDED;
        record.family = family;
        (record.local_addr, record.remote_addr) = (addr, addr);
        record.owner.comm = comm;
        records.push(record.as_bytes().to_vec());
        records
    }

    #[test]
    fn pseudonyms_are_recognized() {
        let mut redactor = Redactor::default();
        for text in ["192.0.2.7", "::ffff:192.0.2.7", "fe80::7", "2001:db8::1"] {
            let addr = redactor.address(text.parse().unwrap());
            assert!(is_pseudonym(addr), "{addr}");
        }
        for text in [
            "127.0.0.1",
            "::1",
            "192.0.2.7",
            "198.17.255.255",
            "198.20.0.0",
            "fe80::7",
        ] {
            assert!(!is_pseudonym(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn addresses_and_names_are_replaced_the_same_by_the_same_and_nothing_else_changes() {
        let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets().to_vec();
        let mut redactor = Redactor::default();
        for (family, addr, redacted) in [
            (2, vec![192, 0, 2, 7], vec![198, 18, 0, 1]),
            (2, vec![192, 0, 2, 8], vec![198, 18, 0, 2]),
            (2, vec![127, 0, 0, 9], vec![127, 0, 0, 9]),
            (2, vec![0; 4], vec![0; 4]),
            (10, v6("::ffff:192.0.2.7"), v6("::ffff:198.18.0.1")),
            (10, v6("fe80::7"), v6("2001:db8::1")),
            (10, v6("2001:db8::1"), v6("2001:db8::2")),
            (10, v6("::1"), v6("::1")),
            (10, v6("::"), v6("::")),
        ] {
            let expected = records(family, &redacted, REDACTED);
            for (mut record, expected) in records(family, &addr, COMM).into_iter().zip(expected) {
                redactor.record(&mut record).unwrap();
                assert_eq!(record, expected, "{addr:?}");
            }
        }
    }

    #[test]
    fn headers_keep_what_identifies_no_one() {
        let mut record = PacketRecord::new_zeroed();
        record.kind = Kind::PACKET;
        record.ip = [0xee; 60];
        record.ip[0] = 0x4f;
        record.ip[8] = 61;
        record.ip[12..20].copy_from_slice(&[192, 0, 2, 7, 127, 0, 0, 1]);
        record.tcp = [0xee; 60];
        record.tcp[12..16].copy_from_slice(&[0xf0, 0x12, 0xfe, 0x88]);
        // MSS, window scale, NOP, timestamps, and MP_JOIN with the token that was sent.
        record.tcp[20..28].copy_from_slice(&[2, 4, 5, 0xb4, 3, 3, 10, 1]);
        record.tcp[28..30].copy_from_slice(&[8, 10]);
        record.tcp[38..48].copy_from_slice(&[30, 12, 0x10, 2, 1, 2, 3, 4, 0xee, 0xee]);
        record.tcp[50..].fill(1);
        record.peer_token = 0x0102_0304;
        let mut bytes = record.as_bytes().to_vec();
        let mut redactor = Redactor::default();
        redactor.record(&mut bytes).unwrap();
        let redacted = PacketRecord::read_from_bytes(&bytes).unwrap();
        assert_eq!(redacted.ip[12..20], [198, 18, 0, 1, 127, 0, 0, 1]);
        assert_eq!(redacted.ip[8], 61);
        assert_eq!(redacted.ip[10..12], [0; 2]);
        assert!(redacted.ip[20..].iter().all(|byte| *byte == 0));
        assert_eq!(redacted.tcp[4..12], [0; 8]);
        assert_eq!(redacted.tcp[16..18], [0; 2]);
        assert_eq!(redacted.tcp[20..30], record.tcp[20..30]);
        assert_eq!(redacted.tcp[30..38], [0; 8]);
        assert_eq!(redacted.tcp[38..41], [30, 12, 0x10]);
        assert_eq!(redacted.tcp[41..50], [0; 9]);
        assert_eq!(redacted.tcp[50..], [1; 10]);
        // The token is still that of the option, and another one is still another.
        assert_eq!(redacted.peer_token, 0);
        record.peer_token += 1;
        let mut bytes = record.as_bytes().to_vec();
        redactor.record(&mut bytes).unwrap();
        let redacted = PacketRecord::read_from_bytes(&bytes).unwrap();
        assert_ne!(redacted.peer_token, 0);
        // IPv6, and no header at all.
        record.ip = [0xee; 60];
        record.ip[0] = 0x60;
        let mut bytes = record.as_bytes().to_vec();
        redactor.record(&mut bytes).unwrap();
        let redacted = PacketRecord::read_from_bytes(&bytes).unwrap();
        assert_eq!(redacted.ip[1..4], [0; 3]);
        assert_eq!(redacted.ip[8..12], [0x20, 1, 0x0d, 0xb8]);
        assert_eq!(redacted.ip[24..28], [0x20, 1, 0x0d, 0xb8]);
        record.ip[0] = 0;
        let mut bytes = record.as_bytes().to_vec();
        redactor.record(&mut bytes).unwrap();
        assert_eq!(PacketRecord::read_from_bytes(&bytes).unwrap().ip, [0; 60]);
    }

    #[test]
    fn a_redacted_record_names_no_process() {
        let mut bytes = vec![0xff; size_of::<ConnRecord>()];
        let mut kept = ConnRecord::read_from_bytes(&bytes).unwrap();
        kept.conn_state = ConnState::empty();
        bytes.copy_from_slice(kept.as_bytes());
        assert_eq!(forget(&mut bytes), Ok(()));
        kept.owner = Owner::NONE;
        (kept.current_tgid, kept.current_tid, kept.current_ns_tgid) = (0, 0, 0);
        kept.current_comm = [0; 16];
        (kept.local_addr, kept.remote_addr) = ([0; 16], [0; 16]);
        (kept.local_port, kept.remote_port_be) = (0, 0);
        kept.marks = Marks::NONE;
        assert_eq!(ConnRecord::read_from_bytes(&bytes), Ok(kept));
        assert_eq!(forget(&mut bytes[..239]), Err(Unknown));

        let mut path = PathRecord::read_from_bytes(&[0xff; size_of::<PathRecord>()]).unwrap();
        path.kind = Kind::JOIN_FAILED;
        path.conn_state = ConnState::empty();
        let mut bytes = path.as_bytes().to_vec();
        assert_eq!(forget(&mut bytes), Ok(()));
        path.owner = Owner::NONE;
        path.token = 0;
        path.marks = Marks::NONE;
        (path.options, path.options_len) = ([0; OPTIONS_BYTES], 0);
        (path.local_addr, path.remote_addr) = ([0; 16], [0; 16]);
        (path.local_port, path.remote_port_be) = (0, 0);
        assert_eq!(PathRecord::read_from_bytes(&bytes), Ok(path));
        // The process that accepts the connection may match the filter.
        path.conn_state = ConnState::UNACCEPTED;
        path.local_port = 7;
        let mut bytes = path.as_bytes().to_vec();
        assert_eq!(forget(&mut bytes), Ok(()));
        assert_eq!(PathRecord::read_from_bytes(&bytes), Ok(path));
    }

    #[test]
    fn what_is_not_known_is_not_kept() {
        let mut redactor = Redactor::default();
        for (kind, length) in [
            (Kind(99), size_of::<QueryRecord>()),
            (Kind::QUERY, size_of::<QueryRecord>() + 8),
            (Kind::COUNTED, size_of::<QueryRecord>()),
            (Kind::CLOSED, 8),
        ] {
            let mut bytes = vec![0; length];
            bytes[..4].copy_from_slice(kind.as_bytes());
            assert_eq!(redactor.record(&mut bytes), Err(Unknown));
        }
        assert_eq!(redactor.record(&mut []), Err(Unknown));
    }

    #[test]
    fn paths_get_numbers_and_the_root_stays() {
        let mut redactor = Redactor::default();
        let paths = ["/", "/a", "/b", "/a"].map(|path| redactor.cgroup(path));
        assert_eq!(paths, ["/", "/c1", "/c2", "/c1"]);
    }

    #[test]
    fn addresses_never_leave_their_range() {
        let mut redactor = Redactor::default();
        let mut last = Ipv4Addr::UNSPECIFIED;
        for number in 0..140_000_u32 {
            last = redactor.v4((0x0a00_0000 + number).into());
        }
        assert_eq!(last, Ipv4Addr::new(198, 19, 255, 255));
    }
}
