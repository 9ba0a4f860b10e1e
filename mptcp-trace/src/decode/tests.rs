//! Meaning of the raw numbers: one row per case.

use std::collections::BTreeMap;

use super::*;

macro_rules! put {
    ($bytes:expr, $field:ident, $value:expr) => {{
        let value = $value.to_ne_bytes();
        let start = offset_of!(QueryRecord, $field);
        $bytes[start..start + value.len()].copy_from_slice(&value);
    }};
}

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
    }
}

/// A record from the BPF side: an IPv4 MPTCP socket, answered by the MPTCP code.
fn record() -> Vec<u8> {
    let mut bytes = vec![0; size_of::<QueryRecord>()];
    put!(bytes, kind, KIND_QUERY);
    put!(bytes, protocol, IPPROTO_MPTCP);
    put!(bytes, family, AF_INET);
    bytes[offset_of!(QueryRecord, rung)] = RUNG_FEXIT;
    bytes[offset_of!(QueryRecord, path)] = PATH_MPTCP;
    put!(bytes, level, 6_u32);
    put!(bytes, optname, 43_u32);
    bytes
}

fn decoded(bytes: &[u8], facts: &Facts) -> Query {
    match decode(bytes, facts) {
        Ok(Observation::Query(query)) => query,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_path_decides_where_it_was_seen() {
    const BOTH: u8 = PATH_MPTCP | PATH_TCP;
    let eopnotsupp = Answer::Unsupported(Errno::EOPNOTSUPP);
    let enoprotoopt = Answer::Unsupported(Errno::ENOPROTOOPT);
    let einval = Answer::Failed(Errno(22));
    for (protocol, path, ret, answer, fell_back) in [
        (IPPROTO_MPTCP, PATH_MPTCP, 0_i32, Answer::Mptcp, false),
        (IPPROTO_MPTCP, BOTH, 0, Answer::Tcp, true),
        (IPPROTO_TCP, PATH_TCP, 0, Answer::Tcp, false),
        (IPPROTO_MPTCP, PATH_MPTCP, -95, eopnotsupp, false),
        (IPPROTO_MPTCP, BOTH, -92, enoprotoopt, true),
        (IPPROTO_TCP, PATH_TCP, -92, enoprotoopt, false),
        (IPPROTO_MPTCP, PATH_MPTCP, -22, einval, false),
        (IPPROTO_MPTCP, BOTH, -22, einval, true),
    ] {
        let mut bytes = record();
        put!(bytes, protocol, protocol);
        put!(bytes, ret, ret);
        bytes[offset_of!(QueryRecord, path)] = path;
        let query = decoded(&bytes, &facts(None));
        assert_eq!(
            (query.answer, query.fell_back),
            (answer, Some(fell_back)),
            "protocol {protocol} path {path} returned {ret}"
        );
    }
}

#[test]
fn a_path_that_no_kernel_has_is_an_error() {
    for (protocol, path) in [
        (IPPROTO_TCP, PATH_MPTCP),
        (IPPROTO_MPTCP, PATH_TCP),
        (IPPROTO_MPTCP, 0),
        (IPPROTO_TCP, 0x80),
    ] {
        let mut bytes = record();
        put!(bytes, protocol, protocol);
        bytes[offset_of!(QueryRecord, path)] = path;
        assert_eq!(
            decode(&bytes, &facts(None)),
            Err(DecodeError::Field("path", path.into()))
        );
    }
}

/// Without the path: (bits before, bits after, caller's buffer, ret) -> (answer, fell back).
#[test]
fn the_state_bits_decide_where_they_agree_and_the_callers_buffer_where_not() {
    const FELL: u64 = 1 << 2;
    const OTHER: u64 = 1 << 4;
    let known = Some(2);
    let unknown = (Answer::Unknown, None);
    for (bit, before, after, told, ret, want) in [
        (
            known,
            Some(OTHER),
            Some(OTHER),
            Some(1),
            0_i32,
            (Answer::Mptcp, Some(false)),
        ),
        (
            known,
            Some(FELL),
            Some(FELL | OTHER),
            Some(0),
            0,
            (Answer::Tcp, Some(true)),
        ),
        // Nothing was written (optlen 0), or the buffer is gone: the bits are sufficient.
        (
            known,
            Some(FELL),
            Some(FELL),
            None,
            0,
            (Answer::Tcp, Some(true)),
        ),
        (
            known,
            Some(0),
            Some(0),
            None,
            0,
            (Answer::Mptcp, Some(false)),
        ),
        // It fell back during the call: only the buffer shows which code answered.
        (
            known,
            Some(0),
            Some(FELL),
            Some(1),
            0,
            (Answer::Mptcp, Some(false)),
        ),
        (
            known,
            Some(0),
            Some(FELL),
            Some(0),
            0,
            (Answer::Tcp, Some(true)),
        ),
        (known, Some(0), Some(FELL), None, 0, unknown),
        // Closed by another thread: no bits after the call.
        (
            known,
            Some(0),
            None,
            Some(1),
            0,
            (Answer::Mptcp, Some(false)),
        ),
        (known, None, None, None, 0, unknown),
        // Not calibrated: the bits mean nothing.
        (
            None,
            Some(FELL),
            Some(FELL),
            Some(0),
            0,
            (Answer::Tcp, Some(true)),
        ),
        (None, Some(FELL), Some(FELL), None, 0, unknown),
        // A buffer with another value was changed by another thread.
        (None, None, None, Some(7), 0, unknown),
        // Errors of a kernel without the option are conclusive.
        (
            None,
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
            None,
            -92,
            (Answer::Unsupported(Errno::ENOPROTOOPT), Some(true)),
        ),
        (
            known,
            Some(FELL),
            Some(FELL),
            None,
            -14,
            (Answer::Failed(Errno(14)), Some(true)),
        ),
        (
            None,
            None,
            None,
            Some(1),
            -14,
            (Answer::Failed(Errno(14)), None),
        ),
    ] {
        let mut bytes = record();
        bytes[offset_of!(QueryRecord, rung)] = RUNG_TRACEPOINT;
        bytes[offset_of!(QueryRecord, path)] = PATH_UNSEEN;
        let mut valid = 0;
        if let Some(before) = before {
            valid |= VALID_FLAGS_ENTER;
            put!(bytes, msk_flags_enter, before);
        }
        if let Some(after) = after {
            valid |= VALID_FLAGS_EXIT;
            put!(bytes, msk_flags_exit, after);
        }
        if let Some(told) = told {
            valid |= VALID_USER_VALUE;
            put!(bytes, user_value, told as u32);
        }
        put!(bytes, valid, valid);
        put!(bytes, ret, ret);
        let query = decoded(&bytes, &facts(bit));
        assert_eq!(
            (query.answer, query.fell_back),
            want,
            "bit {bit:?} before {before:?} after {after:?} told {told:?} ret {ret}"
        );
    }
}

#[test]
fn a_plain_tcp_socket_needs_no_path() {
    let mut bytes = record();
    put!(bytes, protocol, IPPROTO_TCP);
    bytes[offset_of!(QueryRecord, path)] = PATH_UNSEEN;
    let query = decoded(&bytes, &facts(None));
    assert_eq!((query.answer, query.fell_back), (Answer::Tcp, Some(false)));
}

#[test]
fn addresses_ports_and_names_come_out_as_they_went_in() {
    let mut bytes = record();
    put!(bytes, family, AF_INET6);
    put!(bytes, local_port, 443_u16);
    put!(bytes, remote_port_be, 51_324_u16.to_be());
    let mapped: Ipv6Addr = "::ffff:10.0.0.1".parse().unwrap();
    let start = offset_of!(QueryRecord, local_addr);
    bytes[start..start + 16].copy_from_slice(&mapped.octets());
    let start = offset_of!(QueryRecord, comm);
    bytes[start..start + 6].copy_from_slice(b"a\xffb\x1b[\0");
    put!(bytes, valid, VALID_INODE);
    put!(bytes, inode, 4711_u64);
    let query = decoded(&bytes, &facts(None));
    assert_eq!(query.socket.local.to_string(), "[::ffff:10.0.0.1]:443");
    assert_eq!(query.socket.remote.to_string(), "[::]:51324");
    assert_eq!(query.process.comm, "a\u{fffd}b\u{1b}[");
    assert_eq!(query.socket.inode, Some(4711));
    put!(bytes, valid, 0_u32);
    assert_eq!(decoded(&bytes, &facts(None)).socket.inode, None);
}

#[test]
fn a_process_has_the_number_of_the_tracers_pid_namespace_and_that_of_the_initial_one() {
    let mut bytes = record();
    put!(bytes, tgid, 70_u32);
    put!(bytes, tid, 80_u32);
    let numbers = |bytes: &[u8]| {
        let process = decoded(bytes, &facts(None)).process;
        assert_eq!((process.host_pid, process.host_tid), (70, 80));
        (process.pid, process.tid)
    };
    // The process is not in that namespace.
    assert_eq!(numbers(&bytes), (None, None));
    put!(bytes, ns_tgid, 7_u32);
    put!(bytes, ns_tid, 8_u32);
    assert_eq!(numbers(&bytes), (Some(7), Some(8)));
    // An older capture has one id only.
    let older = &bytes[..QUERY_RECORD_BYTES_V4];
    assert_eq!(numbers(older), (Some(70), Some(80)));
}

#[test]
fn a_socket_whose_connection_is_gone_has_no_peer() {
    let mut bytes = record();
    put!(bytes, remote_port_be, 443_u16.to_be());
    bytes[offset_of!(QueryRecord, remote_addr)] = 10;
    for (state, remote) in [(1, "10.0.0.0:443"), (7, "0.0.0.0:0"), (8, "10.0.0.0:443")] {
        bytes[offset_of!(QueryRecord, state)] = state;
        let query = decoded(&bytes, &facts(None));
        assert_eq!(
            query.socket.remote.to_string(),
            remote,
            "{}",
            query.socket.state
        );
    }
}

#[test]
fn the_tracers_own_questions_are_no_findings() {
    let mut bytes = record();
    put!(bytes, valid, BY_TRACER);
    assert!(matches!(
        decode(&bytes, &facts(None)),
        Ok(Observation::Canary(_))
    ));
}

#[test]
fn no_damaged_record_is_taken_for_a_whole_one() {
    let bytes = record();
    let want = size_of::<QueryRecord>();
    let older = [
        QUERY_RECORD_BYTES_V1,
        QUERY_RECORD_BYTES_V2,
        QUERY_RECORD_BYTES_V4,
    ];
    for got in (0..bytes.len()).filter(|length| !older.contains(length)) {
        assert_eq!(
            decode(&bytes[..got], &facts(None)),
            Err(DecodeError::Length { got, want }),
            "{got} bytes"
        );
    }
    let mut long = bytes.clone();
    long.push(0);
    assert_eq!(
        decode(&long, &facts(None)),
        Err(DecodeError::Length {
            got: want + 1,
            want
        })
    );
    let mut unknown = bytes.clone();
    put!(unknown, kind, 99_u32);
    assert_eq!(decode(&unknown, &facts(None)), Err(DecodeError::Kind(99)));
    for (name, damage) in [
        ("protocol", offset_of!(QueryRecord, protocol)),
        ("address family", offset_of!(QueryRecord, family)),
        ("rung", offset_of!(QueryRecord, rung)),
    ] {
        let mut damaged = bytes.clone();
        damaged[damage] = 200;
        let error = decode(&damaged, &facts(None)).unwrap_err();
        assert!(
            matches!(error, DecodeError::Field(field, _) if field == name),
            "{error}"
        );
    }
}

#[test]
fn a_record_of_an_older_capture_has_no_identity_and_says_all_else() {
    let mut bytes = record();
    put!(bytes, born_ns, 9_u64);
    put!(bytes, socket, 0xabc_u64);
    put!(bytes, connect_ns, 11_u64);
    let newer = decoded(&bytes, &facts(None));
    assert_eq!(newer.id.unwrap().to_string(), "0x0000000000000abc@9");
    assert_eq!(newer.connected_at, Some(Duration::from_nanos(11)));
    let older = decoded(&bytes[..QUERY_RECORD_BYTES_V2], &facts(None));
    let newer = Query {
        connected_at: None,
        ..newer
    };
    assert_eq!(newer, older);
    let oldest = decoded(&bytes[..QUERY_RECORD_BYTES_V1], &facts(None));
    assert_eq!(Query { id: None, ..newer }, oldest);
}

#[test]
fn level_and_number_name_the_question() {
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
        let mut bytes = record();
        put!(bytes, level, level);
        put!(bytes, optname, optname);
        match (decode(&bytes, &facts(None)), api) {
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
    const BOTH: u8 = PATH_MPTCP | PATH_TCP;
    const FELL: u64 = 1 << 2;
    let eopnotsupp = Answer::Unsupported(Errno::EOPNOTSUPP);
    let einval = Answer::Failed(Errno(22));
    for (protocol, path, bits, ret, answer, fell_back) in [
        (
            IPPROTO_MPTCP,
            PATH_MPTCP,
            None,
            0_i32,
            Answer::Mptcp,
            Some(false),
        ),
        (
            IPPROTO_MPTCP,
            PATH_MPTCP,
            None,
            -95,
            eopnotsupp,
            Some(false),
        ),
        (IPPROTO_MPTCP, BOTH, None, -95, Answer::Tcp, Some(true)),
        (IPPROTO_MPTCP, BOTH, None, -92, Answer::Tcp, Some(true)),
        (IPPROTO_TCP, PATH_TCP, None, -95, Answer::Tcp, Some(false)),
        (
            IPPROTO_TCP,
            PATH_UNSEEN,
            None,
            -92,
            Answer::Tcp,
            Some(false),
        ),
        (IPPROTO_MPTCP, BOTH, None, -22, einval, Some(true)),
        (
            IPPROTO_MPTCP,
            PATH_UNSEEN,
            Some((0, 0)),
            0,
            Answer::Mptcp,
            Some(false),
        ),
        (
            IPPROTO_MPTCP,
            PATH_UNSEEN,
            Some((0, 0)),
            -95,
            eopnotsupp,
            Some(false),
        ),
        (
            IPPROTO_MPTCP,
            PATH_UNSEEN,
            Some((FELL, FELL)),
            -95,
            Answer::Tcp,
            Some(true),
        ),
        (
            IPPROTO_MPTCP,
            PATH_UNSEEN,
            Some((0, FELL)),
            -95,
            Answer::Unknown,
            None,
        ),
        (
            IPPROTO_MPTCP,
            PATH_UNSEEN,
            Some((0, FELL)),
            0,
            Answer::Mptcp,
            Some(false),
        ),
        (IPPROTO_MPTCP, PATH_UNSEEN, None, -95, Answer::Unknown, None),
        (
            IPPROTO_MPTCP,
            PATH_UNSEEN,
            None,
            0,
            Answer::Mptcp,
            Some(false),
        ),
    ] {
        let mut bytes = record();
        put!(bytes, level, 284_u32);
        put!(bytes, optname, 1_u32);
        put!(bytes, protocol, protocol);
        put!(bytes, ret, ret);
        bytes[offset_of!(QueryRecord, path)] = path;
        if let Some((before, after)) = bits {
            put!(bytes, valid, (VALID_FLAGS_ENTER | VALID_FLAGS_EXIT));
            put!(bytes, msk_flags_enter, before);
            put!(bytes, msk_flags_exit, after);
        }
        let query = decoded(&bytes, &facts(Some(2)));
        assert_eq!(
            (query.answer, query.fell_back, query.errno.map(|it| it.0)),
            (answer, fell_back, (ret < 0).then_some(-ret)),
            "protocol {protocol} path {path} bits {bits:?} returned {ret}"
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
        let mut bytes = record();
        put!(bytes, level, 1_u32);
        put!(bytes, optname, 38_u32);
        put!(bytes, valid, (VALID_FLAGS_ENTER | VALID_FLAGS_EXIT));
        put!(bytes, msk_flags_enter, flags);
        put!(bytes, msk_flags_exit, flags);
        bytes[offset_of!(QueryRecord, path)] = PATH_UNSEEN;
        let query = decoded(&bytes, &facts(bit));
        assert_eq!((query.answer, query.fell_back), (Answer::Mptcp, fell_back));
        put!(bytes, protocol, IPPROTO_TCP);
        assert!(decode(&bytes, &facts(bit)).is_err(), "of TCP it is no news");
    }
}

#[test]
fn a_refusal_says_who_what_and_with_which_error() {
    let mut bytes = record();
    put!(bytes, kind, KIND_OPTION_REFUSED);
    put!(bytes, level, 6_u32);
    put!(bytes, optname, 31_u32);
    put!(bytes, is_set, 1_u32);
    put!(bytes, ret, -95_i32);
    put!(bytes, ns_tgid, 7_u32);
    put!(bytes, netns, 8_u32);
    let refused = |bytes: &[u8]| match decode(bytes, &facts(None)) {
        Ok(Observation::Refusal(refusal)) => *refusal,
        other => panic!("{other:?}"),
    };
    let refusal = refused(&bytes);
    assert_eq!(
        (
            refusal.call(),
            refusal.option(),
            refusal.errno,
            refusal.process.pid
        ),
        ("setsockopt", Some("TCP_ULP"), Errno::EOPNOTSUPP, Some(7))
    );
    put!(bytes, is_set, 0_u32);
    assert_eq!(refused(&bytes).call(), "getsockopt");

    put!(bytes, kind, KIND_SOCKET_REFUSED);
    for (ret, why) in [
        (-92_i32, "net.mptcp.enabled is 0 in this network namespace"),
        (-93, "this kernel has no MPTCP"),
        (-13, "a security module forbids it"),
    ] {
        put!(bytes, ret, ret);
        let refusal = refused(&bytes);
        assert_eq!((refusal.call(), refusal.why()), ("socket", why));
        assert_eq!(
            refusal.what,
            Refused::Socket {
                family: Family::Ipv4,
                netns: 8,
            }
        );
    }
    // A call that succeeded was not refused.
    put!(bytes, ret, 0_i32);
    assert!(decode(&bytes, &facts(None)).is_err());
}

#[test]
fn what_the_kernel_counted_is_told_by_the_names_of_its_counters() {
    let mut facts = facts(None);
    facts.causes = vec![
        (3, "MPTCP_MIB_DSSFALLBACK".to_owned()),
        (4, "MPTCP_MIB_MPCAPABLEACTIVEFALLBACK".to_owned()),
    ];
    let mut bytes = vec![0; size_of::<CountedRecord>()];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &KIND_COUNTED.to_ne_bytes());
    put(offset_of!(CountedRecord, netns), &4711_u32.to_ne_bytes());
    put(offset_of!(CountedRecord, cookie), &12_u64.to_ne_bytes());
    put(
        offset_of!(CountedRecord, boottime_ns),
        &13_u64.to_ne_bytes(),
    );
    for (cause, slot) in fallback_causes().zip(0..) {
        // A counter that this kernel does not have is ignored, whatever its value.
        let count: u64 = if cause == "MPCapableFallbackSYNACK" {
            0
        } else {
            14
        };
        let at = offset_of!(CountedRecord, counters) + slot * 8;
        put(at, &count.to_ne_bytes());
    }
    let told = NetnsCounters {
        netns: 4711,
        cookie: 12,
        at: Duration::from_nanos(13),
        counters: [("DssFallback".to_owned(), 14)].into(),
    };
    assert_eq!(
        decode(&bytes, &facts),
        Ok(Observation::Counters(Box::new(told.clone())))
    );
    bytes[..4].copy_from_slice(&KIND_COUNTED_AT_START.to_ne_bytes());
    assert_eq!(
        decode(&bytes, &facts),
        Ok(Observation::CountersAtStart(Box::new(told)))
    );
    bytes.pop();
    assert!(matches!(
        decode(&bytes, &facts),
        Err(DecodeError::Length { .. })
    ));
}
