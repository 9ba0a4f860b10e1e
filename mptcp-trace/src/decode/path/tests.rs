use mptcp_trace_common::{
    numbers::AF_INET,
    record::{
        ConnectionBits, ContextBits, JoinAnswer, Kind, PathEvents, PathFlags, PathRecord, PathSite,
        RecordRung,
    },
};
use zerocopy::FromZeros as _;

use super::{Observation, path};
use crate::model::{CauseCertainty, DecidedBy, Path, PathKind, PathRole, ResetReason, Side};

const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const FIN_WAIT2: u8 = 5;

const ECONNREFUSED: i32 = 111;
const ETIMEDOUT: i32 = 110;
const EHOSTUNREACH: i32 = 113;
const ECONNABORTED: i32 = 103;
const EBADMSG: i32 = 74;

/// A join of this host that ended in this state.
fn join(old_state: u8) -> PathRecord {
    PathRecord {
        kind: Kind::PATH_ENDED,
        family: AF_INET,
        rung: RecordRung::FEXIT,
        site: PathSite::STATE,
        path: 7,
        socket: 5,
        flags: PathFlags::CONTEXT,
        context: ContextBits::REQUEST_JOIN,
        connection: ConnectionBits::READ.union(ConnectionBits::ALLOWS_PATHS),
        connection_state: ESTABLISHED,
        old_state,
        ..PathRecord::new_zeroed()
    }
}

/// A path of that kind that was up.
fn up(old_state: u8) -> PathRecord {
    let it = join(old_state);
    PathRecord {
        flags: it.flags | PathFlags::WAS_UP,
        context: it.context
            | ContextBits::MP_JOIN
            | ContextBits::FULLY_ESTABLISHED
            | ContextBits::HMAC
            | ContextBits::NONCE,
        ..it
    }
}

/// A join of the peer that this host refused.
fn refused(site: PathSite, answer: JoinAnswer, reason: Option<u8>) -> PathRecord {
    PathRecord {
        kind: Kind::JOIN_FAILED,
        site,
        path: 0,
        socket: 0,
        context: ContextBits::empty(),
        old_state: answer.bits() as u8,
        flags: match reason {
            Some(_) => PathFlags::REASON,
            None => PathFlags::empty(),
        },
        reset_reason: reason.unwrap_or(0),
        ..join(0)
    }
}

fn with_options(record: PathRecord, options: &[u8]) -> PathRecord {
    let mut record = PathRecord {
        options_len: u8::try_from(options.len()).unwrap(),
        flags: record.flags | PathFlags::OPTIONS,
        ..record
    };
    record.options[..options.len()].copy_from_slice(options);
    record
}

fn decoded(record: &PathRecord) -> Path {
    match path(record) {
        Ok(Observation::Path(path)) => *path,
        other => panic!("{other:?}"),
    }
}

/// Kind, cause, whether it is certain, and which end decided.
type Said = (PathKind, Option<&'static str>, CauseCertainty, DecidedBy);

fn check(record: &PathRecord, (kind, cause, known, decided_by): Said) {
    let path = decoded(record);
    assert_eq!(
        (
            path.kind,
            path.cause.as_deref(),
            path.known,
            path.decided_by
        ),
        (kind, cause, known, Some(decided_by)),
        "{record:?}"
    );
}

/// NOPs and timestamps, then `MP_TCPRST` with reason 3.
const RST: [u8; 16] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 0x1e, 4, 0x80, 3];
/// `MP_JOIN` of a SYN: address id 9, token, nonce.
const JOIN_SYN: [u8; 12] = [0x1e, 12, 0x10, 9, 0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4];

#[test]
fn a_join_that_fails_has_the_cause_of_the_kernels_counter_or_one_of_ours() {
    use CauseCertainty::{Inferred, Reported};
    use DecidedBy::{Here, Nobody, Peer};
    let failed = |cause, known, by| (PathKind::Failed, Some(cause), known, by);
    let with = |record: PathRecord, error, events| PathRecord {
        error,
        events,
        ..record
    };
    let nothing = PathEvents::empty();
    let rst = PathEvents::RST_RECEIVED;
    let syn = join(SYN_SENT);
    let joined = PathRecord {
        context: syn.context | ContextBits::MP_JOIN | ContextBits::HMAC | ContextBits::NONCE,
        ..join(ESTABLISHED)
    };
    let not_joined = PathRecord {
        context: syn.context | ContextBits::HMAC | ContextBits::NONCE,
        ..join(ESTABLISHED)
    };
    for (record, said) in [
        (
            with(syn, ETIMEDOUT, nothing),
            failed("MPJoinSynTimeout", Reported, Nobody),
        ),
        (
            with_options(with(syn, ECONNREFUSED, rst), &RST),
            failed("MPJoinSynRejected", Reported, Peer),
        ),
        (
            with_options(with(syn, ECONNREFUSED, rst), &[]),
            failed("MPJoinSynRefused", Reported, Peer),
        ),
        // Without its options, the reason may be missing or unread.
        (
            with(syn, ECONNREFUSED, rst),
            failed("MPJoinSynRefused", Inferred, Peer),
        ),
        (
            with(syn, EHOSTUNREACH, nothing),
            failed("MPJoinSynUnreachable", Reported, Peer),
        ),
        (
            with(syn, 0, nothing),
            failed("MPJoinSynTxConnectErr", Inferred, Here),
        ),
        (
            PathRecord {
                connection_state: FIN_WAIT2,
                ..with(syn, 0, nothing)
            },
            failed("MPJoinClosedMeanwhile", Reported, Here),
        ),
        (
            join(ESTABLISHED),
            failed("MPJoinSynAckNoMPJoin", Reported, Here),
        ),
        (
            PathRecord {
                reset_reason: 1,
                ..not_joined
            },
            failed("MPJoinSynAckHMacFailure", Reported, Here),
        ),
        (
            PathRecord {
                reset_reason: 1,
                connection_state: FIN_WAIT2,
                ..not_joined
            },
            failed("MPJoinNotEstablished", Reported, Here),
        ),
        (
            PathRecord {
                connection: ConnectionBits::READ,
                ..not_joined
            },
            failed("MPJoinFallbackUnderWay", Reported, Here),
        ),
        (
            with_options(with(joined, 0, rst | PathEvents::RESET), &RST),
            failed("MPJoinAckRejected", Reported, Peer),
        ),
        (
            with(joined, 0, PathEvents::RESET | PathEvents::RST_SENT),
            failed("MPJoinFourthAckNoDss", Reported, Here),
        ),
        (
            with(
                joined,
                0,
                PathEvents::RST_SENT | PathEvents::CONNECTION_CLOSED,
            ),
            failed("MPJoinFourthAckMissing", Reported, Nobody),
        ),
    ] {
        check(&record, said);
    }
    let path = decoded(&with_options(with(syn, ECONNREFUSED, rst), &RST));
    let reason = ResetReason {
        code: 3,
        transient: false,
        received: true,
    };
    assert_eq!(path.reset, Some(reason));
    assert_eq!((path.role, path.side), (PathRole::Join, Some(Side::Active)));
}

#[test]
fn a_join_that_this_host_refuses_names_what_it_checked() {
    use CauseCertainty::{Inferred, Reported};
    let (none, no, yes) = (
        JoinAnswer::empty(),
        JoinAnswer::REFUSED,
        JoinAnswer::ACCEPTED,
    );
    let of_connection = |record: PathRecord| PathRecord {
        socket: 5,
        ..record
    };
    let syn = |error, answer, reason| PathRecord {
        error,
        ..refused(PathSite::SYN, answer, reason)
    };
    let ack = |answer, reason| refused(PathSite::THIRD_ACK, answer, reason);
    let join_of_ack = [0x1e, 24, 0x10, 0];
    let join_with_hmac = [&join_of_ack[..], &[0; 20]].concat();
    for (record, cause, known, has_reset) in [
        (syn(-1, none, Some(1)), "MPJoinNoTokenFound", Reported, true),
        (syn(-22, none, Some(1)), "MD5SigReset", Reported, true),
        (
            of_connection(syn(-1, none, Some(3))),
            "MismatchPortSynRx",
            Reported,
            true,
        ),
        // A SYN cookie: no RST is sent, whatever the reason.
        (
            of_connection(syn(-1, no, Some(3))),
            "MPJoinRejected",
            Reported,
            false,
        ),
        (ack(no, Some(3)), "MPJoinRejected", Reported, true),
        (ack(yes, Some(1)), "MPJoinAckHMacFailure", Reported, true),
        // One reason for a wrong HMAC and for one path too many.
        (
            with_options(ack(none, Some(3)), &join_with_hmac),
            "MPJoinRejected",
            Inferred,
            true,
        ),
        (
            with_options(ack(JoinAnswer::NOT_ASKED, Some(3)), &join_with_hmac),
            "MPJoinAckHMacFailure",
            Reported,
            true,
        ),
        (
            ack(JoinAnswer::NOT_ASKED, Some(3)),
            "MPJoinRejected",
            Inferred,
            true,
        ),
        // The HMAC is checked first on some kernels.
        (
            with_options(ack(none, Some(1)), &join_of_ack),
            "MPJoinAckNoMPJoin",
            Reported,
            true,
        ),
        (
            with_options(ack(none, Some(1)), &join_with_hmac),
            "MPJoinAckHMacFailure",
            Reported,
            true,
        ),
        (
            with_options(ack(none, Some(1)), &[1, 1]),
            "MPJoinAckNoMPJoin",
            Reported,
            true,
        ),
        (ack(none, Some(1)), "MPJoinAckNoMPJoin", Inferred, true),
        (
            ack(yes | JoinAnswer::ATTACHED, Some(1)),
            "MPJoinNotEstablished",
            Reported,
            true,
        ),
    ] {
        check(
            &record,
            (PathKind::Failed, Some(cause), known, DecidedBy::Here),
        );
        assert_eq!(decoded(&record).reset.is_some(), has_reset, "{record:?}");
    }
    // The packet that was refused has the token of the connection.
    let packet = with_options(refused(PathSite::RESET, none, Some(3)), &JOIN_SYN);
    let path = decoded(&PathRecord {
        old_state: 2,
        ..packet
    });
    assert_eq!(path.token, 0xdead_beef);
    assert_eq!(path.cause.as_deref(), Some("MismatchPortSynRx"));
    assert_eq!(path.side, Some(Side::Passive));
}

#[test]
fn a_join_that_no_function_refuses_has_its_own_cause_at_the_end_that_is_joined() {
    use CauseCertainty::Reported;
    use DecidedBy::{Here, Nobody, Peer};
    let none = JoinAnswer::empty();
    let syn = |answer| PathRecord {
        error: -1,
        ..refused(PathSite::SYN, answer, Some(1))
    };
    let of_packet = |site, options: &[u8]| with_options(refused(site, none, None), options);
    for (record, cause, by, reset) in [
        (syn(JoinAnswer::NO_ID), "MPJoinNoIdFound", Here, Some(1)),
        (
            refused(PathSite::THIRD_ACK, JoinAnswer::NO_CONTEXT, Some(1)),
            "MPJoinAckNoCtx",
            Here,
            Some(1),
        ),
        (
            of_packet(PathSite::NO_LISTENER, &JOIN_SYN),
            "MPJoinNoListener",
            Here,
            None,
        ),
        (
            of_packet(PathSite::COOKIE, &JOIN_SYN),
            "MPJoinCookieLost",
            Here,
            None,
        ),
        (
            of_packet(PathSite::PLAIN_REQUEST, &RST),
            "MPJoinSynNoMPJoin",
            Peer,
            Some(3),
        ),
        (
            refused(PathSite::REQUEST_TIMER, none, None),
            "MPJoinThirdAckMissing",
            Nobody,
            None,
        ),
    ] {
        check(&record, (PathKind::Failed, Some(cause), Reported, by));
        let path = decoded(&record);
        assert_eq!(path.reset.map(|it| it.code), reset, "{record:?}");
        assert_eq!(path.side, Some(Side::Passive));
    }
    // An address id of 0 is known only where something has read it.
    for (record, remote_id) in [
        (syn(none), Some(0)),
        (refused(PathSite::REQUEST_TIMER, none, None), Some(0)),
        (of_packet(PathSite::PLAIN_REQUEST, &RST), None),
        (
            refused(PathSite::THIRD_ACK, JoinAnswer::NO_CONTEXT, Some(1)),
            None,
        ),
    ] {
        assert_eq!(decoded(&record).remote_id, remote_id, "{record:?}");
    }
    // One that a locked connection refuses when it is unlocked was up, and is reset.
    let late = |events| PathRecord {
        events: PathEvents::RESET | PathEvents::RST_SENT | events,
        first_event: PathEvents::RESET,
        ..up(ESTABLISHED)
    };
    for (events, cause) in [
        (PathEvents::LATE_REFUSED, "MPJoinLateRejected"),
        (PathEvents::empty(), "reset"),
    ] {
        check(&late(events), (PathKind::Down, Some(cause), Reported, Here));
    }
}

#[test]
fn a_path_that_ends_says_who_ended_it() {
    use CauseCertainty::{Inferred, Reported};
    use DecidedBy::{Here, Nobody, Peer};
    let with = |record: PathRecord, events, first_event| PathRecord {
        events,
        first_event,
        ..record
    };
    let (none, rst) = (PathEvents::empty(), PathEvents::RST_RECEIVED);
    let error = |error| PathRecord {
        error,
        ..up(ESTABLISHED)
    };
    let bits = |more| PathRecord {
        context: up(0).context | more,
        ..up(FIN_WAIT2)
    };
    for (record, cause, known, by) in [
        (
            with(up(FIN_WAIT2), PathEvents::REMOVED, PathEvents::REMOVED),
            "removed",
            Reported,
            Here,
        ),
        (
            PathRecord {
                rung: RecordRung::TRACEPOINT,
                ..bits(ContextBits::CLOSE_EVENT_DONE)
            },
            "removed",
            Inferred,
            Here,
        ),
        (
            with(
                bits(ContextBits::CLOSE_EVENT_DONE),
                PathEvents::FIN_RECEIVED,
                none,
            ),
            "peer-closed",
            Reported,
            Peer,
        ),
        (
            with(up(ESTABLISHED), rst, rst),
            "rst-received",
            Reported,
            Peer,
        ),
        (
            with(bits(ContextBits::RESET_SEEN), rst, rst),
            "mp-rst-received",
            Reported,
            Peer,
        ),
        (
            with_options(
                with(up(ESTABLISHED), rst, rst),
                &[0x1e, 12, 0x70, 0, 1, 2, 3, 4, 5, 6, 7, 8],
            ),
            "fastclose-received",
            Reported,
            Peer,
        ),
        (
            bits(ContextBits::SEND_FASTCLOSE),
            "fastclose-sent",
            Reported,
            Here,
        ),
        (error(ETIMEDOUT), "timeout", Reported, Nobody),
        (error(EHOSTUNREACH), "unreachable", Reported, Nobody),
        (error(EBADMSG), "bad-data", Reported, Here),
        (error(ECONNABORTED), "killed", Reported, Here),
        (
            with(up(ESTABLISHED), PathEvents::RESET, PathEvents::RESET),
            "reset",
            Reported,
            Here,
        ),
    ] {
        check(&record, (PathKind::Down, Some(cause), known, by));
    }
    // Both ends send a FIN: neither is known to have decided.
    let closed = decoded(&up(FIN_WAIT2));
    assert_eq!(closed.cause.as_deref(), Some("connection-closed"));
    assert_eq!((closed.known, closed.decided_by), (Reported, None));
}

#[test]
fn options_that_do_not_fit_are_not_read_beyond() {
    for options in [
        &[0x1e_u8][..],
        &[0x1e, 0],
        &[0x1e, 1, 0x80, 3],
        &[0x1e, 40, 0x80, 3],
        &[0, 0x1e, 4, 0x80, 3],
        &[8, 10, 1],
    ] {
        let record = with_options(
            PathRecord {
                error: ECONNREFUSED,
                events: PathEvents::RST_RECEIVED,
                ..join(SYN_SENT)
            },
            options,
        );
        assert_eq!(decoded(&record).cause.as_deref(), Some("MPJoinSynRefused"));
    }
}

#[test]
fn a_reading_is_no_event() {
    let record = PathRecord {
        kind: Kind::PATH_OPEN,
        site: PathSite::READING,
        flags: PathFlags::CONTEXT | PathFlags::LEDGER,
        ..up(ESTABLISHED)
    };
    let Ok(Observation::PathReading(read)) = path(&record) else {
        panic!("{:?}", path(&record))
    };
    assert_eq!(read.kind, PathKind::Open);
    assert!(read.ledger.is_some());
    let listed = PathRecord {
        site: PathSite::SCAN,
        ..record
    };
    assert!(matches!(path(&listed), Ok(Observation::Path(_))));
}
