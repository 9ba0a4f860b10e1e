//! Inference of the cause: one row per case.

use std::collections::BTreeMap;

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
    }
}

const NEWER: &[(i32, &str)] = &[
    (6, "MPCAPABLEACTIVEFALLBACK"),
    (8, "MPCAPABLEACTIVEDISABLED"),
    (74, "DSSFALLBACK"),
    (90, "SOMETHINGNEW"),
];
const OLDER: &[(i32, &str)] = &[(6, "MPCAPABLEACTIVEFALLBACK"), (8, "TOKENFALLBACKINIT")];

fn sighting(site: u8) -> Sighting {
    Sighting {
        site,
        mib: NO_MIB,
        flags: Some(SUBFLOW_REQUEST_MPTCP | SUBFLOW_MP_CAPABLE | SUBFLOW_REMOTE_KEY),
        side: Some(Side::Active),
        evidence: 0,
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
            flags: Some(0),
            is_off,
            ..sighting(SITE_HANDSHAKE)
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
        "site {}",
        sighting.site
    );
}

#[test]
fn what_the_kernel_names_is_the_cause_by_the_number_that_it_has_here() {
    let named = |mib, facts: &[(i32, &str)], cause, known| {
        let sighting = Sighting {
            mib,
            ..sighting(SITE_TRY_FALLBACK)
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
        (SITE_DATA_AVAILABLE, "DssFallback"),
        (SITE_DSS_CORRUPTION, "DSSCorruptionFallback"),
        (SITE_DROPPED_CONTEXT, "MPCapableFallbackACK"),
    ] {
        check(
            &sighting(site),
            &newer,
            Some(cause),
            CauseCertainty::Inferred,
        );
    }
    assert_eq!(
        conclude(&sighting(99), &newer),
        Err(DecodeError::Field("site", 99))
    );
}

#[test]
fn where_it_was_not_the_first_thing_that_went_wrong_is_the_cause() {
    const ASKED: u32 = SUBFLOW_REQUEST_MPTCP;
    const AGREED: u32 = SUBFLOW_REQUEST_MPTCP | SUBFLOW_MP_CAPABLE | SUBFLOW_REMOTE_KEY;
    let newer = facts(NEWER);
    for (side, flags, evidence, cause) in [
        (Side::Active, 0, 0, Some("MPCapableSYNTXDisabled")),
        (
            Side::Active,
            SUBFLOW_MPC_DROP,
            0,
            Some("MPCapableSYNTXDrop"),
        ),
        (
            Side::Active,
            0,
            EVIDENCE_SIMULTANEOUS,
            Some("SimultConnectFallback"),
        ),
        (Side::Active, ASKED, 0, Some("MPCapableFallbackSYNACK")),
        (
            Side::Active,
            ASKED | SUBFLOW_REMOTE_KEY,
            0,
            Some("MPCapableDataFallback"),
        ),
        (
            Side::Passive,
            SUBFLOW_REMOTE_KEY,
            0,
            Some("MPCapableDataFallback"),
        ),
        (Side::Active, AGREED, EVIDENCE_NO_DSS, Some("DssFallback")),
        (
            Side::Passive,
            AGREED,
            EVIDENCE_INVALID_MAPPING,
            Some("DssFallback"),
        ),
        (
            Side::Passive,
            AGREED,
            EVIDENCE_BAD_CHECKSUM,
            Some("DssFallback"),
        ),
        (
            Side::Active,
            AGREED,
            EVIDENCE_INFINITE_SENT | EVIDENCE_BAD_CHECKSUM,
            Some("InfiniteMapTx"),
        ),
        (
            Side::Active,
            AGREED,
            EVIDENCE_MP_FAIL_RECEIVED,
            Some("InfiniteMapTx"),
        ),
        (
            Side::Passive,
            AGREED,
            EVIDENCE_MP_FAIL_RECEIVED | EVIDENCE_MP_FAIL_SENT | EVIDENCE_BAD_CHECKSUM,
            Some("DssFallback"),
        ),
        (Side::Passive, AGREED, 0, Some("DSSCorruptionFallback")),
        (
            Side::Active,
            AGREED | SUBFLOW_CHECKSUMS,
            0,
            Some("InfiniteMapTx"),
        ),
    ] {
        for site in [
            SITE_CONNECT,
            SITE_SIMULTANEOUS,
            SITE_DETECT_BLACKHOLE,
            SITE_HANDSHAKE,
            SITE_LATER,
            SITE_LISTED,
        ] {
            let seen = Sighting {
                flags: Some(flags),
                side: Some(side),
                evidence,
                ..sighting(site)
            };
            check(&seen, &newer, cause, CauseCertainty::Inferred);
        }
    }
    // On a kernel without a memory of lost SYNs, only the token can be the reason.
    let unasked = Sighting {
        flags: Some(0),
        ..sighting(SITE_CONNECT)
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
        ..sighting(SITE_LATER)
    };
    check(&unwatched, &newer, None, CauseCertainty::Unknown);
    let unread = Sighting {
        flags: None,
        ..sighting(SITE_LATER)
    };
    check(&unread, &newer, None, CauseCertainty::Unknown);
}

#[test]
fn a_record_of_another_length_or_with_impossible_fields_is_an_error() {
    let facts = facts(NEWER);
    let mut bytes = vec![0; size_of::<ConnRecord>()];
    bytes[..4].copy_from_slice(&KIND_FALLBACK.to_ne_bytes());
    for length in [4, 8, bytes.len() - 1] {
        assert_eq!(
            decode(&bytes[..length], &facts),
            Err(DecodeError::Length {
                got: length,
                want: size_of::<ConnRecord>()
            })
        );
    }
    // An all-zero record has site 0.
    assert!(matches!(
        decode(&bytes, &facts),
        Err(DecodeError::Field(..))
    ));
}

#[test]
fn subflows_are_the_first_one_unless_it_is_closed_and_those_beside_it() {
    const ESTABLISHED: u8 = 1;
    const CLOSE_WAIT: u8 = 8;
    const LISTEN: u8 = TcpState::LISTEN.0;
    for (valid, state, extra, subflows) in [
        (CONN_VALID_SUBFLOWS, ESTABLISHED, 0, Some(1)),
        (CONN_VALID_SUBFLOWS, ESTABLISHED, 2, Some(3)),
        (CONN_VALID_SUBFLOWS, CLOSE_WAIT, 0, Some(1)),
        (CONN_VALID_SUBFLOWS, LISTEN, 0, Some(1)),
        (CONN_VALID_SUBFLOWS, TcpState::CLOSE.0, 0, Some(0)),
        (CONN_VALID_SUBFLOWS, 0, 0, Some(0)),
        (CONN_VALID_SUBFLOWS, 0, 1, Some(1)),
        (CONN_VALID_SUBFLOWS, ESTABLISHED, 255, Some(256)),
        // Older captures hold zeroes there.
        (0, ESTABLISHED, 0, None),
    ] {
        let mut bytes = [0; size_of::<ConnRecord>()];
        bytes[offset_of!(ConnRecord, subflow_state)] = state;
        bytes[offset_of!(ConnRecord, extra_subflows)] = extra;
        assert_eq!(super::subflows(&bytes, valid), subflows, "{state} {extra}");
    }
}

#[test]
fn a_whole_record_says_everything() {
    let mut bytes = vec![0; size_of::<ConnRecord>()];
    let mut put =
        |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
    put(0, &KIND_FALLBACK.to_ne_bytes());
    let valid = ADMITTED | CONN_VALID_SUBFLOW | CONN_VALID_BYTES | CONN_VALID_FLAGS;
    put(offset_of!(ConnRecord, valid), &valid.to_ne_bytes());
    put(
        offset_of!(ConnRecord, boottime_ns),
        &1_000_u64.to_ne_bytes(),
    );
    put(offset_of!(ConnRecord, born_ns), &300_u64.to_ne_bytes());
    put(offset_of!(ConnRecord, connect_ns), &400_u64.to_ne_bytes());
    put(offset_of!(ConnRecord, socket), &0xabc_u64.to_ne_bytes());
    put(offset_of!(ConnRecord, msk_flags), &4_u64.to_ne_bytes());
    put(offset_of!(ConnRecord, bytes_sent), &11_u64.to_ne_bytes());
    put(offset_of!(ConnRecord, mib), &74_i32.to_ne_bytes());
    let evidence = EVIDENCE_NO_DSS | EVIDENCE_MP_FAIL_RECEIVED;
    put(offset_of!(ConnRecord, evidence), &evidence.to_ne_bytes());
    let flags = SUBFLOW_SIDE_KNOWN | SUBFLOW_SERVER_SIDE;
    put(offset_of!(ConnRecord, subflow_flags), &flags.to_ne_bytes());
    put(offset_of!(ConnRecord, protocol), &262_u16.to_ne_bytes());
    put(offset_of!(ConnRecord, family), &2_u16.to_ne_bytes());
    put(offset_of!(ConnRecord, rung), &[1]);
    put(offset_of!(ConnRecord, site), &[SITE_TRY_FALLBACK]);
    let owner = offset_of!(ConnRecord, owner);
    put(owner + offset_of!(OwnerRecord, tgid), &42_u32.to_ne_bytes());
    put(
        owner + offset_of!(OwnerRecord, ns_tgid),
        &5_u32.to_ne_bytes(),
    );
    put(owner + offset_of!(OwnerRecord, via), &[VIA_ACCEPT]);
    put(owner + offset_of!(OwnerRecord, comm), b"server");
    put(offset_of!(ConnRecord, current_tgid), &9_u32.to_ne_bytes());
    let decoded = decode(&bytes, &facts(NEWER));
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
    // An older capture has one id only.
    let older = decode(&bytes[..CONN_RECORD_BYTES_V2], &facts(NEWER));
    let Ok(Observation::Connection(older)) = older else {
        panic!("{older:?}")
    };
    assert_eq!(older.owner.unwrap().process.pid, Some(42));
    assert_eq!((older.current.pid, older.current.host_pid), (Some(9), 9));
    assert!(it.admitted && !it.unaccepted && !it.existing && !it.late);
}

#[test]
fn a_socket_without_a_connection_has_no_side() {
    for (state, side) in [
        (TcpState::LISTEN, None),
        (TcpState::CLOSE, None),
        (TcpState::SYN_SENT, Some(Side::Active)),
        (TcpState(1), Some(Side::Active)),
    ] {
        let mut bytes = vec![0; size_of::<ConnRecord>()];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(offset_of!(ConnRecord, kind), &KIND_EXISTING.to_ne_bytes());
        put(
            offset_of!(ConnRecord, conn_state),
            &CONN_ACTIVE.to_ne_bytes(),
        );
        put(offset_of!(ConnRecord, protocol), &262_u16.to_ne_bytes());
        put(offset_of!(ConnRecord, family), &2_u16.to_ne_bytes());
        put(offset_of!(ConnRecord, rung), &[1]);
        put(offset_of!(ConnRecord, state), &[state.0]);
        let decoded = decode(&bytes, &facts(NEWER));
        let Ok(Observation::Connection(it)) = decoded else {
            panic!("{decoded:?}")
        };
        assert_eq!((it.kind, it.side), (ConnectionKind::Existing, side));
    }
}
