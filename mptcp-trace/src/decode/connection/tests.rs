//! Inference of the cause: one row per case.

use std::collections::BTreeMap;

use mptcp_trace_common::record::RecordRung;
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::*;
use crate::decode::decode;

fn facts(enumerators: &[(i32, &str)]) -> Facts {
    Facts {
        version: String::new(),
        kernel: String::new(),
        boot_epoch: Duration::ZERO,
        fallback_bit: Some(2),
        causes: enumerators
            .iter()
            .map(|(number, name)| (*number, format!("MPTCP_MIB_{name}")))
            .collect(),
        counters_read_at: BTreeMap::new(),
        counters_listed_at: None,
        counters_at_start: BTreeMap::new(),
        sensors: Vec::new(),
        dump: None,
    }
}

const NEWER: &[(i32, &str)] = &[
    (6, "MPCAPABLEACTIVEFALLBACK"),
    (8, "MPCAPABLEACTIVEDISABLED"),
    (74, "DSSFALLBACK"),
    (90, "SOMETHINGNEW"),
];
const OLDER: &[(i32, &str)] = &[(6, "MPCAPABLEACTIVEFALLBACK"), (8, "TOKENFALLBACKINIT")];

fn sighting(site: Site) -> Sighting {
    Sighting {
        site,
        mib: NO_MIB,
        subflow: Some(
            SubflowBits::REQUEST_MPTCP | SubflowBits::MP_CAPABLE | SubflowBits::REMOTE_KEY,
        ),
        side: Some(Side::Active),
        evidence: EvidenceBits::empty(),
        watched: true,
        is_off: Some(true),
    }
}

#[test]
fn a_client_that_did_not_ask_had_no_token_unless_mptcp_was_off() {
    for (is_off, facts, cause) in [
        (Some(true), NEWER, Some("MPCapableSYNTXDisabled")),
        (Some(false), NEWER, Some("MPFallbackTokenInit")),
        (Some(false), OLDER, Some("MPFallbackTokenInit")),
        // Which of the two it was is unknown, and not guessed.
        (None, NEWER, None),
        (None, OLDER, Some("MPFallbackTokenInit")),
    ] {
        let sighting = Sighting {
            subflow: Some(SubflowBits::empty()),
            is_off,
            ..sighting(Site::HANDSHAKE)
        };
        let known = cause.map_or(CauseCertainty::Unknown, |_| CauseCertainty::Inferred);
        check(&sighting, &self::facts(facts), cause, known);
    }
}

fn check(sighting: &Sighting, facts: &Facts, cause: Option<&str>, known: CauseCertainty) {
    let (concluded, how) = conclude(sighting, facts).unwrap();
    assert_eq!(
        (concluded.as_deref(), how),
        (cause, known),
        "{:?}",
        sighting.site
    );
}

#[test]
fn what_the_kernel_names_is_the_cause_by_the_number_that_it_has_here() {
    let named = |mib, facts: &[(i32, &str)], cause, known| {
        let sighting = Sighting {
            mib,
            ..sighting(Site::TRY_FALLBACK)
        };
        check(&sighting, &self::facts(facts), cause, known);
    };
    named(74, NEWER, Some("DssFallback"), CauseCertainty::Reported);
    named(
        8,
        NEWER,
        Some("MPCapableSYNTXDisabled"),
        CauseCertainty::Reported,
    );
    named(
        8,
        OLDER,
        Some("MPFallbackTokenInit"),
        CauseCertainty::Reported,
    );
    // A cause unknown to this program keeps the kernel's name.
    named(
        90,
        NEWER,
        Some("MPTCP_MIB_SOMETHINGNEW"),
        CauseCertainty::Reported,
    );
    named(77, OLDER, None, CauseCertainty::Unknown);
}

#[test]
fn where_the_decision_itself_was_seen_it_is_the_cause() {
    let newer = facts(NEWER);
    for (site, cause) in [
        (Site::DATA_AVAILABLE, "DssFallback"),
        (Site::DSS_CORRUPTION, "DSSCorruptionFallback"),
        (Site::DROPPED_CONTEXT, "MPCapableFallbackACK"),
    ] {
        check(
            &sighting(site),
            &newer,
            Some(cause),
            CauseCertainty::Inferred,
        );
    }
    assert_eq!(
        conclude(&sighting(Site(99)), &newer),
        Err(DecodeError::Field("site", 99))
    );
}

#[test]
fn where_it_was_not_the_first_thing_that_went_wrong_is_the_cause() {
    const ASKED: SubflowBits = SubflowBits::REQUEST_MPTCP;
    const AGREED: SubflowBits = SubflowBits::REQUEST_MPTCP
        .union(SubflowBits::MP_CAPABLE)
        .union(SubflowBits::REMOTE_KEY);
    const UNASKED: SubflowBits = SubflowBits::empty();
    const NONE: EvidenceBits = EvidenceBits::empty();
    let newer = facts(NEWER);
    for (side, flags, evidence, cause) in [
        (Side::Active, UNASKED, NONE, Some("MPCapableSYNTXDisabled")),
        (
            Side::Active,
            SubflowBits::MPC_DROP,
            NONE,
            Some("MPCapableSYNTXDrop"),
        ),
        (
            Side::Active,
            UNASKED,
            EvidenceBits::SIMULTANEOUS,
            Some("SimultConnectFallback"),
        ),
        (Side::Active, ASKED, NONE, Some("MPCapableFallbackSYNACK")),
        (
            Side::Active,
            ASKED | SubflowBits::REMOTE_KEY,
            NONE,
            Some("MPCapableDataFallback"),
        ),
        (
            Side::Passive,
            SubflowBits::REMOTE_KEY,
            NONE,
            Some("MPCapableDataFallback"),
        ),
        (
            Side::Active,
            AGREED,
            EvidenceBits::NO_DSS,
            Some("DssFallback"),
        ),
        (
            Side::Passive,
            AGREED,
            EvidenceBits::INVALID_MAPPING,
            Some("DssFallback"),
        ),
        (
            Side::Passive,
            AGREED,
            EvidenceBits::BAD_CHECKSUM,
            Some("DssFallback"),
        ),
        (
            Side::Active,
            AGREED,
            EvidenceBits::INFINITE_SENT | EvidenceBits::BAD_CHECKSUM,
            Some("InfiniteMapTx"),
        ),
        (
            Side::Active,
            AGREED,
            EvidenceBits::MP_FAIL_RECEIVED,
            Some("InfiniteMapTx"),
        ),
        (
            Side::Passive,
            AGREED,
            EvidenceBits::MP_FAIL_RECEIVED
                | EvidenceBits::MP_FAIL_SENT
                | EvidenceBits::BAD_CHECKSUM,
            Some("DssFallback"),
        ),
        (Side::Passive, AGREED, NONE, Some("DSSCorruptionFallback")),
        (
            Side::Active,
            AGREED | SubflowBits::CHECKSUMS,
            NONE,
            Some("InfiniteMapTx"),
        ),
    ] {
        for site in [
            Site::CONNECT,
            Site::SIMULTANEOUS,
            Site::DETECT_BLACKHOLE,
            Site::HANDSHAKE,
            Site::LATER,
            Site::LISTED,
        ] {
            let seen = Sighting {
                subflow: Some(flags),
                side: Some(side),
                evidence,
                ..sighting(site)
            };
            check(&seen, &newer, cause, CauseCertainty::Inferred);
        }
    }
    // On a kernel without a memory of lost SYNs, only the token can be the reason.
    let unasked = Sighting {
        subflow: Some(SubflowBits::empty()),
        ..sighting(Site::CONNECT)
    };
    check(
        &unasked,
        &facts(OLDER),
        Some("MPFallbackTokenInit"),
        CauseCertainty::Inferred,
    );
    // A connection that was not observed since its birth, or is unreadable, is not guessed at.
    let unwatched = Sighting {
        watched: false,
        ..sighting(Site::LATER)
    };
    check(&unwatched, &newer, None, CauseCertainty::Unknown);
    let unread = Sighting {
        subflow: None,
        ..sighting(Site::LATER)
    };
    check(&unread, &newer, None, CauseCertainty::Unknown);
}

#[test]
fn a_record_of_another_length_or_with_impossible_fields_is_an_error() {
    let facts = facts(NEWER);
    let mut record = ConnRecord::new_zeroed();
    record.kind = Kind::FALLBACK;
    let bytes = record.as_bytes();
    for got in [4, 8, bytes.len() - 1] {
        assert_eq!(
            decode(&bytes[..got], &facts),
            Err(DecodeError::Length {
                got,
                want: size_of::<ConnRecord>()
            })
        );
    }
    // An all-zero record has site 0.
    assert!(matches!(decode(bytes, &facts), Err(DecodeError::Field(..))));
}

#[test]
fn subflows_are_the_first_one_unless_it_is_closed_and_those_beside_it() {
    const ESTABLISHED: u8 = 1;
    const CLOSE_WAIT: u8 = 8;
    const LISTEN: u8 = TcpState::LISTEN.0;
    for (flags, state, extra, subflows) in [
        (ConnFlags::SUBFLOWS, ESTABLISHED, 0, Some(1)),
        (ConnFlags::SUBFLOWS, ESTABLISHED, 2, Some(3)),
        (ConnFlags::SUBFLOWS, CLOSE_WAIT, 0, Some(1)),
        (ConnFlags::SUBFLOWS, LISTEN, 0, Some(1)),
        (ConnFlags::SUBFLOWS, TcpState::CLOSE.0, 0, Some(0)),
        (ConnFlags::SUBFLOWS, 0, 0, Some(0)),
        (ConnFlags::SUBFLOWS, 0, 1, Some(1)),
        (ConnFlags::SUBFLOWS, ESTABLISHED, 255, Some(256)),
        // Older captures hold zeroes there.
        (ConnFlags::empty(), ESTABLISHED, 0, None),
    ] {
        let record = ConnRecord {
            flags,
            subflow_state: state,
            extra_subflows: extra,
            ..ConnRecord::new_zeroed()
        };
        assert_eq!(super::subflows(&record), subflows, "{state} {extra}");
    }
}

#[test]
fn a_whole_record_says_everything() {
    let mut record = ConnRecord {
        kind: Kind::FALLBACK,
        flags: ConnFlags::ADMITTED | ConnFlags::SUBFLOW | ConnFlags::BYTES | ConnFlags::MSK_FLAGS,
        boottime_ns: 1_000,
        born_ns: 300,
        connect_ns: 400,
        socket: 0xabc,
        msk_flags: 4,
        bytes_sent: 11,
        mib: 74,
        evidence: EvidenceBits::NO_DSS | EvidenceBits::MP_FAIL_RECEIVED,
        subflow: SubflowBits::SIDE_KNOWN | SubflowBits::SERVER_SIDE,
        protocol: 262,
        family: 2,
        rung: RecordRung::FEXIT,
        site: Site::TRY_FALLBACK,
        current_tgid: 9,
        ..ConnRecord::new_zeroed()
    };
    record.owner.tgid = 42;
    record.owner.ns_tgid = 5;
    record.owner.via = OwnerVia::ACCEPT;
    record.owner.comm[..6].copy_from_slice(b"server");
    let decoded = decode(record.as_bytes(), &facts(NEWER));
    let Ok(Observation::Connection(it)) = decoded else {
        panic!("{decoded:?}")
    };
    assert_eq!(it.kind, ConnectionKind::Fallback);
    assert_eq!(it.id.to_string(), "0x0000000000000abc@300");
    assert_eq!(
        (it.cause.as_deref(), it.known),
        (Some("DssFallback"), CauseCertainty::Reported)
    );
    assert_eq!(
        (it.side, it.stage),
        (Some(Side::Passive), Some(Stage::Data))
    );
    assert_eq!(it.since_connect, Some(Duration::from_nanos(600)));
    assert_eq!((it.bytes, it.fell_back), (Some((11, 0)), Some(true)));
    assert_eq!(it.evidence, [Evidence::NoDss, Evidence::MpFailReceived]);
    let owner = it.owner.unwrap();
    assert_eq!(
        (owner.process.pid, owner.process.comm.as_str(), owner.via),
        (Some(5), "server", Via::Accept)
    );
    assert_eq!(owner.process.host_pid, 42);
    // It is not in the tracer's PID namespace.
    assert_eq!((it.current.pid, it.current.host_pid), (None, 9));
    assert!(it.admitted && !it.unaccepted && !it.existing && !it.late);
}

#[test]
fn a_socket_of_the_kernel_is_held_by_no_process() {
    let mut record = OwnerRecord {
        via: OwnerVia::KERNEL,
        comm: OwnerRecord::KERNEL_COMM,
        ..OwnerRecord::NONE
    };
    let held = owner(&record).unwrap().unwrap();
    assert_eq!(held.via, Via::Kernel);
    assert_eq!((held.process.pid, held.process.tid), (Some(0), None));
    assert_eq!(held.process.title(), "kernel");
    // A thread of it used the socket.
    record.comm[..7].copy_from_slice(b"cifsd\0\0");
    (record.tid, record.ns_tid) = (321, 21);
    let held = owner(&record).unwrap().unwrap();
    assert_eq!((held.process.pid, held.process.tid), (Some(0), Some(21)));
    assert_eq!(held.process.title(), "kernel:cifsd");
    // Nothing is known of this owner.
    assert_eq!(owner(&OwnerRecord::NONE), Ok(None));
}

#[test]
fn a_socket_without_a_connection_has_no_side() {
    for (state, side) in [
        (TcpState::LISTEN, None),
        (TcpState::CLOSE, None),
        (TcpState::SYN_SENT, Some(Side::Active)),
        (TcpState(1), Some(Side::Active)),
    ] {
        let record = ConnRecord {
            kind: Kind::EXISTING,
            conn_state: ConnState::ACTIVE,
            protocol: 262,
            family: 2,
            rung: RecordRung::FEXIT,
            state: state.0,
            ..ConnRecord::new_zeroed()
        };
        let decoded = decode(record.as_bytes(), &facts(NEWER));
        let Ok(Observation::Connection(it)) = decoded else {
            panic!("{decoded:?}")
        };
        assert_eq!((it.kind, it.side), (ConnectionKind::Existing, side));
    }
}
