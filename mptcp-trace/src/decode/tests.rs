//! Meaning of the raw numbers: one row per case.

use std::{collections::BTreeMap, net::Ipv6Addr};

use mptcp_trace_common::record::PacketRecord;
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::*;

fn facts(fallback_bit: Option<u8>) -> Facts {
    Facts {
        version: "0.1.0".into(),
        kernel: "6.12".into(),
        boot_epoch: Duration::ZERO,
        fallback_bit,
        causes: Vec::new(),
        counters_read_at: BTreeMap::new(),
        counters_listed_at: None,
        counters_at_start: BTreeMap::new(),
        sensors: Vec::new(),
        dump: None,
    }
}

/// A record from the BPF side: an IPv4 MPTCP socket, answered by the MPTCP code.
fn record() -> QueryRecord {
    QueryRecord {
        kind: Kind::QUERY,
        protocol: IPPROTO_MPTCP,
        family: AF_INET,
        rung: RecordRung::FEXIT,
        path: PathBits::MPTCP,
        level: SOL_TCP,
        optname: TCP_IS_MPTCP,
        ..QueryRecord::new_zeroed()
    }
}

fn decode_record(record: &QueryRecord, facts: &Facts) -> Result<Observation, DecodeError> {
    decode(record.as_bytes(), facts)
}

fn decoded(record: &QueryRecord, facts: &Facts) -> Query {
    match decode_record(record, facts) {
        Ok(Observation::Query(query)) => query,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_path_decides_where_it_was_seen() {
    const BOTH: PathBits = THROUGH_BOTH;
    let eopnotsupp = Answer::Unsupported(Errno::EOPNOTSUPP);
    let enoprotoopt = Answer::Unsupported(Errno::ENOPROTOOPT);
    let einval = Answer::Failed(Errno(22));
    for (protocol, path, ret, answer, fell_back) in [
        (IPPROTO_MPTCP, PathBits::MPTCP, 0_i32, Answer::Mptcp, false),
        (IPPROTO_MPTCP, BOTH, 0, Answer::Tcp, true),
        (IPPROTO_TCP, PathBits::TCP, 0, Answer::Tcp, false),
        (IPPROTO_MPTCP, PathBits::MPTCP, -95, eopnotsupp, false),
        (IPPROTO_MPTCP, BOTH, -92, enoprotoopt, true),
        (IPPROTO_TCP, PathBits::TCP, -92, enoprotoopt, false),
        (IPPROTO_MPTCP, PathBits::MPTCP, -22, einval, false),
        (IPPROTO_MPTCP, BOTH, -22, einval, true),
    ] {
        let mut record = record();
        record.protocol = protocol;
        record.ret = ret;
        record.path = path;
        let query = decoded(&record, &facts(None));
        assert_eq!(
            (query.answer, query.fell_back),
            (answer, Some(fell_back)),
            "protocol {protocol} path {path:?} returned {ret}"
        );
    }
}

#[test]
fn a_path_that_no_kernel_has_is_an_error() {
    for (protocol, path) in [
        (IPPROTO_TCP, PathBits::MPTCP),
        (IPPROTO_MPTCP, PathBits::TCP),
        (IPPROTO_MPTCP, PathBits::empty()),
        (IPPROTO_TCP, PathBits::from_bits_retain(0x80)),
    ] {
        let mut record = record();
        record.protocol = protocol;
        record.path = path;
        assert_eq!(
            decode_record(&record, &facts(None)),
            Err(DecodeError::Field("path", path.bits().into()))
        );
    }
}

/// Without the path: (bit, bits after the call, caller's buffer, ret) -> (answer, fell back).
#[test]
fn the_state_bits_decide_where_they_are_conclusive_and_the_callers_buffer_where_not() {
    const FELL: u64 = 1 << 2;
    const OTHER: u64 = 1 << 4;
    let known = Some(2);
    let unknown = (Answer::Unknown, None);
    let mptcp = (Answer::Mptcp, Some(false));
    let tcp = (Answer::Tcp, Some(true));
    for (bit, bits, user_value, ret, want) in [
        (known, Some(OTHER), Some(1), 0, mptcp),
        (known, Some(FELL | OTHER), Some(0), 0, tcp),
        // Nothing was written (optlen 0), or the buffer is gone: a fallback during the call is
        // rare.
        (known, Some(FELL), None, 0, tcp),
        (known, Some(0), None, 0, mptcp),
        // Nothing clears the bit during a call, whatever another thread writes to the buffer.
        (known, Some(0), Some(0), 0, mptcp),
        // It fell back during the call: only the buffer shows which code answered.
        (known, Some(FELL), Some(1), 0, mptcp),
        // Closed by another thread: no bits after the call.
        (known, None, Some(1), 0, mptcp),
        (known, None, Some(0), 0, tcp),
        (known, None, None, 0, unknown),
        // Not calibrated: the bits mean nothing.
        (None, Some(FELL), Some(0), 0, tcp),
        (None, Some(FELL), None, 0, unknown),
        // A buffer with another value was changed by another thread.
        (None, None, Some(7), 0, unknown),
        // Errors of a kernel without the option are conclusive.
        (
            None,
            None,
            None,
            -95,
            (Answer::Unsupported(Errno::EOPNOTSUPP), Some(false)),
        ),
        (
            None,
            None,
            None,
            -92,
            (Answer::Unsupported(Errno::ENOPROTOOPT), Some(true)),
        ),
        (
            known,
            Some(FELL),
            None,
            -14,
            (Answer::Failed(Errno(14)), Some(true)),
        ),
        (None, None, Some(1), -14, (Answer::Failed(Errno(14)), None)),
    ] {
        let mut record = record();
        record.rung = RecordRung::TRACEPOINT;
        record.path = PathBits::UNSEEN;
        if let Some(bits) = bits {
            record.flags |= QueryFlags::MSK_FLAGS;
            record.msk_flags = bits;
        }
        if let Some(user_value) = user_value {
            record.flags |= QueryFlags::USER_VALUE;
            record.user_value = user_value;
        }
        record.ret = ret;
        let query = decoded(&record, &facts(bit));
        assert_eq!(
            (query.answer, query.fell_back),
            want,
            "bit {bit:?} bits {bits:?} user_value {user_value:?} ret {ret}"
        );
    }
}

#[test]
fn a_plain_tcp_socket_needs_no_path() {
    let mut record = record();
    record.protocol = IPPROTO_TCP;
    record.path = PathBits::UNSEEN;
    let query = decoded(&record, &facts(None));
    assert_eq!((query.answer, query.fell_back), (Answer::Tcp, Some(false)));
}

#[test]
fn addresses_ports_and_names_come_out_as_they_went_in() {
    let mut record = record();
    record.family = AF_INET6;
    record.local_port = 443;
    record.remote_port_be = 51_324_u16.to_be();
    let mapped: Ipv6Addr = "::ffff:10.0.0.1".parse().unwrap();
    record.local_addr = mapped.octets();
    record.comm[..6].copy_from_slice(b"a\xffb\x1b[\0");
    record.flags = QueryFlags::INODE;
    record.inode = 4711;
    let query = decoded(&record, &facts(None));
    assert_eq!(query.socket.local.to_string(), "[::ffff:10.0.0.1]:443");
    assert_eq!(query.socket.remote.to_string(), "[::]:51324");
    assert_eq!(query.process.comm, "a\u{fffd}b\u{1b}[");
    assert_eq!(query.socket.inode, Some(4711));
    record.flags = QueryFlags::empty();
    assert_eq!(decoded(&record, &facts(None)).socket.inode, None);
}

#[test]
fn only_a_link_local_address_has_a_zone() {
    for (address, zone, shown) in [
        ("fe80::5", 3, "[fe80::5%3]:443"),
        ("fe80::5", 70_000, "[fe80::5%70000]:443"),
        ("fe80::5", 0, "[fe80::5]:443"),
        ("febf::5", 3, "[febf::5%3]:443"),
        // Bytes 4 to 7 of other addresses are theirs.
        ("2001:db8:7:8::5", 0, "[2001:db8:7:8::5]:443"),
        ("fec0:0:7:8::5", 0, "[fec0:0:7:8::5]:443"),
    ] {
        let mut record = record();
        record.family = AF_INET6;
        record.local_port = 443;
        let address: Ipv6Addr = address.parse().unwrap();
        record.local_addr = address.octets();
        if zone > 0 {
            record.local_addr[zone::BYTES].copy_from_slice(&u32::to_ne_bytes(zone));
        }
        let query = decoded(&record, &facts(None));
        assert_eq!(query.socket.local.to_string(), shown);
    }
}

#[test]
fn a_process_has_the_number_of_the_tracers_pid_namespace_and_that_of_the_initial_one() {
    let mut record = record();
    record.tgid = 70;
    record.tid = 80;
    let numbers = |record: &QueryRecord| {
        let process = decoded(record, &facts(None)).process;
        assert_eq!((process.host_pid, process.host_tid), (70, 80));
        (process.pid, process.tid)
    };
    // The process is not in that namespace.
    assert_eq!(numbers(&record), (None, None));
    record.ns_tgid = 7;
    record.ns_tid = 8;
    assert_eq!(numbers(&record), (Some(7), Some(8)));
}

#[test]
fn a_socket_whose_connection_is_gone_has_no_peer() {
    let mut record = record();
    record.remote_port_be = 443_u16.to_be();
    record.remote_addr[0] = 10;
    for (state, remote) in [(1, "10.0.0.0:443"), (7, "0.0.0.0:0"), (8, "10.0.0.0:443")] {
        record.state = state;
        let query = decoded(&record, &facts(None));
        assert_eq!(
            query.socket.remote.to_string(),
            remote,
            "{}",
            query.socket.state
        );
    }
}

#[test]
fn the_tracers_own_queries_are_no_findings() {
    let mut record = record();
    record.flags = QueryFlags::BY_TRACER;
    assert!(matches!(
        decode_record(&record, &facts(None)),
        Ok(Observation::Canary(_))
    ));
}

#[test]
fn no_damaged_record_is_taken_for_a_whole_one() {
    let whole = record();
    let bytes = whole.as_bytes();
    let want = bytes.len();
    for got in 0..want {
        assert_eq!(
            decode(&bytes[..got], &facts(None)),
            Err(DecodeError::Length { got, want }),
            "{got} bytes"
        );
    }
    let long = [bytes, &[0]].concat();
    assert_eq!(
        decode(&long, &facts(None)),
        Err(DecodeError::Length {
            got: want + 1,
            want
        })
    );
    let damaged = |damage: fn(&mut QueryRecord)| {
        let mut record = whole;
        damage(&mut record);
        decode_record(&record, &facts(None)).unwrap_err()
    };
    assert_eq!(damaged(|it| it.kind = Kind(99)), DecodeError::Kind(99));
    for (name, error) in [
        ("protocol", damaged(|it| it.protocol = 200)),
        ("address family", damaged(|it| it.family = 200)),
        ("rung", damaged(|it| it.rung = RecordRung(200))),
    ] {
        assert!(
            matches!(error, DecodeError::Field(field, _) if field == name),
            "{error}"
        );
    }
}

#[test]
fn a_socket_that_was_never_tracked_has_no_identity() {
    let mut record = record();
    record.born_ns = 9;
    record.socket = 0xabc;
    record.connect_ns = 11;
    let tracked = decoded(&record, &facts(None));
    assert_eq!(tracked.id.unwrap().to_string(), "0x0000000000000abc@9");
    assert_eq!(tracked.connected_at, Some(Duration::from_nanos(11)));
    (record.born_ns, record.connect_ns) = (0, 0);
    let untracked = decoded(&record, &facts(None));
    assert_eq!((untracked.id, untracked.connected_at), (None, None));
}

#[test]
fn level_and_number_identify_the_query() {
    for (level, optname, api) in [
        (6_u32, 43_u32, Some(Api::TcpIsMptcp)),
        (284, 1, Some(Api::MptcpInfo)),
        (284, 2, Some(Api::MptcpTcpinfo)),
        (284, 3, Some(Api::MptcpSubflowAddrs)),
        (284, 4, Some(Api::MptcpFullInfo)),
        (284, 5, None),
        (284, 43, None),
        (6, 1, None),
        (0, 0, None),
    ] {
        let mut record = record();
        record.level = level;
        record.optname = optname;
        match (decode_record(&record, &facts(None)), api) {
            (Ok(Observation::Query(query)), Some(api)) => assert_eq!(query.api, api),
            (Err(DecodeError::Field("option", _)), None) => {}
            (other, _) => panic!("{level}, {optname}: {other:?}"),
        }
    }
}

/// Options that only MPTCP has: a refusal is an answer, unless this kernel does not have the
/// option.
#[test]
fn details_are_refused_by_tcp_and_by_kernels_that_do_not_know_them() {
    const BOTH: PathBits = THROUGH_BOTH;
    const FELL: u64 = 1 << 2;
    let eopnotsupp = Answer::Unsupported(Errno::EOPNOTSUPP);
    let einval = Answer::Failed(Errno(22));
    for (protocol, path, bits, ret, answer, fell_back) in [
        (
            IPPROTO_MPTCP,
            PathBits::MPTCP,
            None,
            0_i32,
            Answer::Mptcp,
            Some(false),
        ),
        (
            IPPROTO_MPTCP,
            PathBits::MPTCP,
            None,
            -95,
            eopnotsupp,
            Some(false),
        ),
        (IPPROTO_MPTCP, BOTH, None, -95, Answer::Tcp, Some(true)),
        (IPPROTO_MPTCP, BOTH, None, -92, Answer::Tcp, Some(true)),
        (
            IPPROTO_TCP,
            PathBits::TCP,
            None,
            -95,
            Answer::Tcp,
            Some(false),
        ),
        (
            IPPROTO_TCP,
            PathBits::UNSEEN,
            None,
            -92,
            Answer::Tcp,
            Some(false),
        ),
        (IPPROTO_MPTCP, BOTH, None, -22, einval, Some(true)),
        (
            IPPROTO_MPTCP,
            PathBits::UNSEEN,
            Some(0),
            0,
            Answer::Mptcp,
            Some(false),
        ),
        (
            IPPROTO_MPTCP,
            PathBits::UNSEEN,
            Some(0),
            -95,
            eopnotsupp,
            Some(false),
        ),
        (
            IPPROTO_MPTCP,
            PathBits::UNSEEN,
            Some(FELL),
            -95,
            Answer::Tcp,
            Some(true),
        ),
        (
            IPPROTO_MPTCP,
            PathBits::UNSEEN,
            Some(FELL),
            0,
            Answer::Mptcp,
            Some(false),
        ),
        (
            IPPROTO_MPTCP,
            PathBits::UNSEEN,
            None,
            -95,
            Answer::Unknown,
            None,
        ),
        (
            IPPROTO_MPTCP,
            PathBits::UNSEEN,
            None,
            0,
            Answer::Mptcp,
            Some(false),
        ),
    ] {
        let mut record = record();
        record.level = 284;
        record.optname = 1;
        record.protocol = protocol;
        record.ret = ret;
        record.path = path;
        if let Some(bits) = bits {
            record.flags = QueryFlags::MSK_FLAGS;
            record.msk_flags = bits;
        }
        let query = decoded(&record, &facts(Some(2)));
        assert_eq!(
            (query.answer, query.fell_back, query.errno.map(|it| it.0)),
            (answer, fell_back, (ret < 0).then_some(-ret)),
            "protocol {protocol} path {path:?} bits {bits:?} returned {ret}"
        );
    }
}

#[test]
fn the_protocol_of_an_mptcp_socket_is_mptcp_for_ever() {
    for (bit, flags, fell_back) in [
        (Some(2), 0_u64, Some(false)),
        (Some(2), 1 << 2, Some(true)),
        (None, 1 << 2, None),
    ] {
        let mut record = record();
        record.level = 1;
        record.optname = 38;
        record.flags = QueryFlags::MSK_FLAGS;
        record.msk_flags = flags;
        record.path = PathBits::UNSEEN;
        let query = decoded(&record, &facts(bit));
        assert_eq!((query.answer, query.fell_back), (Answer::Mptcp, fell_back));
        record.protocol = IPPROTO_TCP;
        assert!(
            decode_record(&record, &facts(bit)).is_err(),
            "of TCP it is no news"
        );
    }
}

#[test]
fn a_refusal_says_who_what_and_with_which_error() {
    let mut record = record();
    record.kind = Kind::OPTION_REFUSED;
    record.level = 6;
    record.optname = 31;
    record.flags = QueryFlags::IS_SET;
    record.ret = -95;
    record.ns_tgid = 7;
    record.netns = 8;
    let refused = |record: &QueryRecord| match decode_record(record, &facts(None)) {
        Ok(Observation::Refusal(refusal)) => *refusal,
        other => panic!("{other:?}"),
    };
    let refusal = refused(&record);
    assert_eq!(
        (
            refusal.call(),
            refusal.option(),
            refusal.errno,
            refusal.process.pid
        ),
        ("setsockopt", Some("TCP_ULP"), Errno::EOPNOTSUPP, Some(7))
    );
    record.flags = QueryFlags::empty();
    assert_eq!(refused(&record).call(), "getsockopt");

    record.kind = Kind::SOCKET_REFUSED;
    for (ret, why) in [
        (-92_i32, "net.mptcp.enabled is 0 in this network namespace"),
        (-93, "this kernel has no MPTCP"),
        (-13, "a security module forbids it"),
    ] {
        record.ret = ret;
        let refusal = refused(&record);
        assert_eq!((refusal.call(), refusal.why()), ("socket", why));
        assert_eq!(
            refusal.what,
            Refused::Socket {
                family: Family::Ipv4,
                netns: 8,
            }
        );
    }
    (record.family, record.ret) = (AF_INET6, -93);
    assert_eq!(
        refused(&record).why(),
        "this kernel has no MPTCP for IPv6 (CONFIG_MPTCP_IPV6)"
    );
    // A call that succeeded was not refused.
    record.ret = 0;
    assert!(decode_record(&record, &facts(None)).is_err());
}

#[test]
fn kernel_counts_are_decoded_under_the_names_of_their_counters() {
    let mut facts = facts(None);
    facts.causes = vec![
        (3, "MPTCP_MIB_DSSFALLBACK".to_owned()),
        (4, "MPTCP_MIB_MPCAPABLEACTIVEFALLBACK".to_owned()),
    ];
    let mut record = CountedRecord::new_zeroed();
    record.kind = Kind::COUNTED;
    record.netns = 4711;
    record.cookie = 12;
    record.boottime_ns = 13;
    for (cause, count) in fallback_causes().zip(&mut record.counters) {
        // A counter that this kernel does not have is ignored, whatever its value.
        *count = match cause {
            "MPCapableFallbackSYNACK" => 0,
            _ => 14,
        };
    }
    let user_value = NetnsCounters {
        netns: 4711,
        cookie: 12,
        at: Duration::from_nanos(13),
        counters: [("DssFallback".to_owned(), 14)].into(),
    };
    assert_eq!(
        decode(record.as_bytes(), &facts),
        Ok(Observation::Counters(Box::new(user_value.clone())))
    );
    record.kind = Kind::COUNTED_AT_START;
    let bytes = record.as_bytes();
    assert_eq!(
        decode(bytes, &facts),
        Ok(Observation::CountersAtStart(Box::new(user_value)))
    );
    assert!(matches!(
        decode(&bytes[..bytes.len() - 1], &facts),
        Err(DecodeError::Length { .. })
    ));
}

/// The headers of a SYN/ACK from 192.0.2.7, with these options.
fn packet_record(options: &[u8]) -> PacketRecord {
    let mut record = PacketRecord::new_zeroed();
    record.kind = Kind::PACKET;
    (record.boottime_ns, record.socket) = (7, 9);
    record.ip[..20].copy_from_slice(&[
        0x45, 0, 0, 60, 0, 0, 0x40, 0, 61, 6, 0xab, 0xcd, 192, 0, 2, 7, 198, 51, 100, 1,
    ]);
    record.ip_len = 20;
    record.tcp[..20].copy_from_slice(&[
        1, 187, 0x13, 0x88, 0, 0, 0, 1, 0, 0, 0, 2, 0xa0, 0x12, 0xfe, 0x88, 0xab, 0xcd, 0, 0,
    ]);
    record.tcp[20..20 + options.len()].copy_from_slice(options);
    record.tcp_len = 20 + u8::try_from(options.len()).unwrap();
    record
}

#[test]
fn headers_are_decoded_and_keys_are_not_kept() {
    let mut options = vec![2, 4, 5, 0xb4, 1, 3, 3, 10, 30, 12, 1, 0x81];
    options.extend([0xee; 8]);
    options.extend([4, 2, 254, 3, 9, 0]);
    let record = packet_record(&options);
    let Ok(Observation::Packet(key, packet)) = decode(record.as_bytes(), &facts(None)) else {
        panic!("not a packet");
    };
    assert_eq!((key.at.as_nanos(), key.socket), (7, SocketId(9)));
    assert_eq!(packet.source, "192.0.2.7:443".parse().unwrap());
    assert_eq!(packet.destination, "198.51.100.1:5000".parse().unwrap());
    assert_eq!((packet.ttl, packet.window), (61, 0xfe88));
    assert_eq!(packet.flags.to_string(), "SYN/ACK");
    assert_eq!(
        packet.options_text(),
        "mss 1460, nop, wscale 10, MP_CAPABLE 12, sackOK, option-254 3, eol"
    );
    assert!(!packet.tcp.contains(&0xee), "{:?}", packet.tcp);
    assert_eq!(packet.tcp.len(), usize::from(record.tcp_len));
}

#[test]
fn headers_that_are_none_are_refused() {
    let whole = packet_record(&[1; 4]);
    let with = |change: fn(&mut PacketRecord)| {
        let mut record = whole;
        change(&mut record);
        decode(record.as_bytes(), &facts(None))
    };
    assert!(with(|_record| ()).is_ok());
    let changes: [fn(&mut PacketRecord); 6] = [
        |record| record.ip[0] = 0x75,
        |record| record.ip[0] = 0x60,
        |record| record.ip_len = 0,
        |record| record.ip_len = 61,
        |record| record.tcp_len = 19,
        |record| record.tcp_len = 61,
    ];
    for change in changes {
        assert!(matches!(with(change), Err(DecodeError::Field(..))));
    }
    // An option that ends behind the header, or is too short, ends the list.
    for options in [&[1, 30, 12, 0, 0][..], &[30, 1], &[30]] {
        let record = packet_record(options);
        let Ok(Observation::Packet(_, packet)) = decode(record.as_bytes(), &facts(None)) else {
            panic!("{options:?}");
        };
        assert!(packet.options_text().ends_with("malformed"), "{packet:?}");
    }
}
