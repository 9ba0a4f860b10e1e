//! Pseudonyms for data that identifies a host or user: addresses, process names, control group
//! paths. Equal values get equal pseudonyms, so that relations are preserved. Rewrites records in
//! their wire format; causes, times, ports and ids stay.

use std::{
    collections::HashMap,
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use mptcp_trace_common::record::{
    CONN_RECORD_BYTES_V1, CONN_UNACCEPTED, ConnRecord, CountedRecord, KIND_ACCEPTED,
    KIND_BLACKHOLE, KIND_CLOSED, KIND_COUNTED, KIND_COUNTED_AT_START, KIND_EXISTING, KIND_FALLBACK,
    KIND_OPTION_REFUSED, KIND_QUERY, KIND_SOCKET_REFUSED, KIND_TCP_CHILD, Owner,
    QUERY_RECORD_BYTES_V1, QueryRecord,
};

const AF_INET: u16 = 2;
const ADDR_BYTES: usize = 16;
const COMM_BYTES: usize = 16;

/// IPv4 pseudonyms: 198.18.0.0/15, reserved for benchmarks (RFC 2544).
const V4_FIRST: u32 = 0xc612_0001;
const V4_LAST: u32 = 0xc613_ffff;
/// IPv6 pseudonyms: `2001:db8::/32`, reserved for documentation (RFC 3849).
const V6_FIRST: u128 = 0x2001_0db8 << 96;

/// A record of a kind that this program cannot redact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unknown;

/// Removes what identifies the owner from a record about a connection that the filter does not
/// admit: processes, control group, and addresses. What the account and verdicts need stays:
/// identity, times, cause, namespace, state. The addresses of an unaccepted connection stay too,
/// since the filter may admit the process that accepts it.
///
/// # Errors
///
/// [`Unknown`] if it is not such a record.
pub fn forget(bytes: &mut [u8]) -> Result<(), Unknown> {
    if !(CONN_RECORD_BYTES_V1..=size_of::<ConnRecord>()).contains(&bytes.len()) {
        return Err(Unknown);
    }
    if let Some(here) = bytes.get_mut(offset_of!(ConnRecord, current_ns_tgid)..) {
        here.fill(0);
    }
    let mut clear = |at: usize, length: usize| bytes[at..at + length].fill(0);
    clear(offset_of!(ConnRecord, owner), size_of::<Owner>());
    clear(offset_of!(ConnRecord, current_tgid), 4);
    clear(offset_of!(ConnRecord, current_tid), 4);
    clear(offset_of!(ConnRecord, current_comm), COMM_BYTES);
    let mut state = [0; 4];
    let at = offset_of!(ConnRecord, conn_state);
    state.copy_from_slice(&bytes[at..at + 4]);
    if u32::from_ne_bytes(state) & CONN_UNACCEPTED == 0 {
        let mut clear = |at: usize, length: usize| bytes[at..at + length].fill(0);
        clear(offset_of!(ConnRecord, local_addr), ADDR_BYTES);
        clear(offset_of!(ConnRecord, remote_addr), ADDR_BYTES);
        clear(offset_of!(ConnRecord, local_port), 2);
        clear(offset_of!(ConnRecord, remote_port_be), 2);
    }
    Ok(())
}

/// Pseudonyms in use.
#[derive(Debug, Default)]
pub struct Redactor {
    v4: HashMap<Ipv4Addr, Ipv4Addr>,
    v6: HashMap<Ipv6Addr, Ipv6Addr>,
    comms: HashMap<[u8; COMM_BYTES], [u8; COMM_BYTES]>,
    cgroups: HashMap<String, String>,
}

/// Offsets of identifying fields.
struct Places {
    family: usize,
    addrs: [usize; 2],
    comms: &'static [usize],
}

const QUERY: Places = Places {
    family: offset_of!(QueryRecord, family),
    addrs: [
        offset_of!(QueryRecord, local_addr),
        offset_of!(QueryRecord, remote_addr),
    ],
    comms: &[offset_of!(QueryRecord, comm)],
};

const CONNECTION: Places = Places {
    family: offset_of!(ConnRecord, family),
    addrs: [
        offset_of!(ConnRecord, local_addr),
        offset_of!(ConnRecord, remote_addr),
    ],
    comms: &[
        offset_of!(ConnRecord, owner) + offset_of!(Owner, comm),
        offset_of!(ConnRecord, current_comm),
    ],
};

impl Redactor {
    /// Rewrites a record.
    ///
    /// # Errors
    ///
    /// [`Unknown`] if the layout is unknown: the record must not be kept.
    pub fn record(&mut self, bytes: &mut [u8]) -> Result<(), Unknown> {
        let kind = bytes.first_chunk::<4>().ok_or(Unknown)?;
        let (places, lengths) = match u32::from_ne_bytes(*kind) {
            // Fields added by later versions of the wire follow, and identify no one.
            KIND_QUERY | KIND_OPTION_REFUSED | KIND_SOCKET_REFUSED => {
                (QUERY, QUERY_RECORD_BYTES_V1..=size_of::<QueryRecord>())
            }
            KIND_FALLBACK | KIND_TCP_CHILD | KIND_ACCEPTED | KIND_EXISTING | KIND_BLACKHOLE
            | KIND_CLOSED => (CONNECTION, CONN_RECORD_BYTES_V1..=size_of::<ConnRecord>()),
            // Contains no identifying field.
            KIND_COUNTED | KIND_COUNTED_AT_START if bytes.len() == size_of::<CountedRecord>() => {
                return Ok(());
            }
            _unknown => return Err(Unknown),
        };
        if !lengths.contains(&bytes.len()) {
            return Err(Unknown);
        }
        let family = [bytes[places.family], bytes[places.family + 1]];
        let is_v4 = u16::from_ne_bytes(family) == AF_INET;
        for at in places.addrs {
            let mut addr = [0; ADDR_BYTES];
            addr.copy_from_slice(&bytes[at..at + ADDR_BYTES]);
            let redacted = if is_v4 {
                let [a, b, c, d, ..] = addr;
                let mut whole = [0; ADDR_BYTES];
                whole[..4].copy_from_slice(&self.v4(Ipv4Addr::new(a, b, c, d)).octets());
                whole
            } else {
                self.v6(Ipv6Addr::from(addr)).octets()
            };
            bytes[at..at + ADDR_BYTES].copy_from_slice(&redacted);
        }
        for at in places.comms {
            let mut comm = [0; COMM_BYTES];
            comm.copy_from_slice(&bytes[*at..at + COMM_BYTES]);
            bytes[*at..at + COMM_BYTES].copy_from_slice(&self.comm(comm));
        }
        Ok(())
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
    use super::*;

    fn record(kind: u32, length: usize, places: &Places, family: u16, addr: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; length];
        bytes[..4].copy_from_slice(&kind.to_ne_bytes());
        bytes[places.family..places.family + 2].copy_from_slice(&family.to_ne_bytes());
        for at in places.addrs {
            bytes[at..at + addr.len()].copy_from_slice(addr);
        }
        for at in places.comms {
            bytes[*at..at + 10].copy_from_slice(b"secret\0old");
        }
        bytes
    }

    fn kinds() -> [(u32, usize, &'static Places); 5] {
        [
            (KIND_QUERY, size_of::<QueryRecord>(), &QUERY),
            (KIND_QUERY, QUERY_RECORD_BYTES_V1, &QUERY),
            (KIND_OPTION_REFUSED, size_of::<QueryRecord>(), &QUERY),
            (KIND_SOCKET_REFUSED, size_of::<QueryRecord>(), &QUERY),
            (KIND_FALLBACK, size_of::<ConnRecord>(), &CONNECTION),
        ]
    }

    #[test]
    fn addresses_and_names_are_replaced_the_same_by_the_same_and_nothing_else_changes() {
        let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets().to_vec();
        let mut redactor = Redactor::default();
        for (kind, length, places) in kinds() {
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
                let before = record(kind, length, places, family, &addr);
                let mut after = before.clone();
                redactor.record(&mut after).unwrap();
                let mut expected = record(kind, length, places, family, &redacted);
                for at in places.comms {
                    expected[*at..at + 10].copy_from_slice(b"p1\0\0\0\0\0\0\0\0");
                }
                assert_eq!(after, expected, "{kind} {addr:?}");
            }
        }
    }

    #[test]
    fn nothing_of_a_record_of_somebody_else_names_anybody() {
        let named = [
            offset_of!(ConnRecord, owner)..offset_of!(ConnRecord, owner) + size_of::<Owner>(),
            offset_of!(ConnRecord, current_tgid)..offset_of!(ConnRecord, netns),
            offset_of!(ConnRecord, current_ns_tgid)..size_of::<ConnRecord>(),
            offset_of!(ConnRecord, local_port)..offset_of!(ConnRecord, state),
            offset_of!(ConnRecord, local_addr)..offset_of!(ConnRecord, netns_cookie),
        ];
        for length in [CONN_RECORD_BYTES_V1, size_of::<ConnRecord>()] {
            let mut bytes = vec![0xff; length];
            let state = offset_of!(ConnRecord, conn_state);
            bytes[state..state + 4].fill(0);
            assert_eq!(forget(&mut bytes), Ok(()));
            for at in named
                .iter()
                .flat_map(Clone::clone)
                .filter(|at| *at < length)
            {
                assert_eq!(bytes[at], 0, "byte {at} of {length}");
            }
        }
    }

    #[test]
    fn what_is_not_known_is_not_kept() {
        let mut redactor = Redactor::default();
        for (kind, length) in [
            (99, size_of::<QueryRecord>()),
            (KIND_QUERY, size_of::<QueryRecord>() + 8),
            (KIND_CLOSED, 8),
        ] {
            let mut bytes = vec![0; length];
            bytes[..4].copy_from_slice(&kind.to_ne_bytes());
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
