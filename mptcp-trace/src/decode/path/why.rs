//! Why a path failed or ended, from what its record shows.

use mptcp_trace_common::record::{
    ConnectionBits, ContextBits, JoinAnswer, Kind, PathEvents, PathFlags, PathRecord, PathSite,
    RecordRung,
};

use super::options::Rst;
use crate::{
    decode::DecodeError,
    model::{CauseCertainty, DecidedBy, Errno, PathKind, PathRole, ResetReason, Side},
};

/// Why a path failed or ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Why {
    pub(super) cause: Option<&'static str>,
    pub(super) known: CauseCertainty,
    pub(super) decided_by: Option<DecidedBy>,
    pub(super) reset: Option<ResetReason>,
}

impl Why {
    const NONE: Self = Self {
        cause: None,
        known: CauseCertainty::Unknown,
        decided_by: None,
        reset: None,
    };

    const fn new(cause: &'static str, decided_by: DecidedBy) -> Self {
        Self {
            cause: Some(cause),
            known: CauseCertainty::Reported,
            decided_by: Some(decided_by),
            reset: None,
        }
    }

    const fn inferred(self) -> Self {
        Self {
            known: CauseCertainty::Inferred,
            ..self
        }
    }

    const fn with(self, reset: Option<ResetReason>) -> Self {
        Self { reset, ..self }
    }
}

/// States of a TCP socket (`include/net/tcp_states.h`).
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;

/// Reason "administratively prohibited" of an RST (RFC 8684 section 3.6).
const PROHIBITED: u8 = 3;

/// What a record shows of a path.
pub(super) struct Seen<'a> {
    record: &'a PathRecord,
    pub(super) role: PathRole,
    pub(super) side: Option<Side>,
    /// The options of the RST that arrived.
    pub(super) rst: Rst,
}

impl<'a> Seen<'a> {
    /// Why the path failed or ended, or which end an event comes from.
    pub(super) fn why(&self, kind: PathKind) -> Result<Why, DecodeError> {
        let by = |is_here| Why {
            decided_by: Some(match is_here {
                true => DecidedBy::Here,
                false => DecidedBy::Peer,
            }),
            ..Why::NONE
        };
        Ok(match kind {
            PathKind::Failed if self.record.kind == Kind::JOIN_FAILED => self.refused_here()?,
            PathKind::Failed => self.join_failed(),
            PathKind::ConnectFailed => self.connect_failed(),
            PathKind::Down => self.ended(),
            PathKind::Up | PathKind::Open | PathKind::Stale | PathKind::Recovered => Why::NONE,
            PathKind::Priority
            | PathKind::AddressAnnounced
            | PathKind::AddressEchoed
            | PathKind::AddressDropped
            | PathKind::AddressOverLimit
            | PathKind::AddressRemoved => by(matches!(
                self.record.kind,
                Kind::PATH_OWN_PRIORITY | Kind::ADDRESS_ANNOUNCED | Kind::ADDRESS_REMOVED
            )),
        })
    }

    pub(super) fn of(record: &'a PathRecord) -> Self {
        let is = |bits: ContextBits| record.context.intersects(bits);
        let is_join = record.kind == Kind::JOIN_FAILED
            || is(ContextBits::REQUEST_JOIN.union(ContextBits::MP_JOIN));
        let is_passive_first = record.connection.contains(ConnectionBits::SERVER_SIDE);
        let side = match record.kind {
            Kind::JOIN_FAILED => match record.site {
                PathSite::CONNECT => Some(Side::Active),
                _ => Some(Side::Passive),
            },
            _ if is_join => Some(match is(ContextBits::REQUEST_JOIN) {
                true => Side::Active,
                false => Side::Passive,
            }),
            _ if record.old_state == SYN_SENT => Some(Side::Active),
            _ if record.connection.contains(ConnectionBits::READ) => Some(match is_passive_first {
                true => Side::Passive,
                false => Side::Active,
            }),
            _ => None,
        };
        let options = record
            .options
            .get(..usize::from(record.options_len))
            .unwrap_or_default();
        Self {
            record,
            role: match is_join {
                true => PathRole::Join,
                false => PathRole::First,
            },
            side,
            rst: match record.flags.contains(PathFlags::OPTIONS) {
                true => Rst::parse(options),
                false => Rst::default(),
            },
        }
    }

    pub(super) fn is(&self, bits: ContextBits) -> bool {
        self.record.context.contains(bits)
    }

    fn has(&self, event: PathEvents) -> bool {
        self.record.events.contains(event)
    }

    pub(super) fn errno(&self) -> Option<Errno> {
        let error = self.record.error.saturating_abs();
        (error != 0).then_some(Errno(error))
    }

    /// The path had come up: at the passive end with its third ACK, at the active end with the
    /// fourth one.
    pub(super) fn was_up(&self) -> bool {
        if self.record.flags.contains(PathFlags::WAS_UP) {
            return true;
        }
        match self.role {
            PathRole::Join => self.is(ContextBits::FULLY_ESTABLISHED),
            PathRole::First => !matches!(self.record.old_state, SYN_SENT | SYN_RECV),
        }
    }

    /// The reason that the peer gave: the kernel keeps it on a path that is fully established, else
    /// the options of the RST have it.
    fn received_reason(&self) -> Option<ResetReason> {
        if let Some((code, transient)) = self.rst.reason {
            return Some(ResetReason {
                code,
                transient,
                received: true,
            });
        }
        self.is(ContextBits::RESET_SEEN).then(|| ResetReason {
            code: self.record.reset_reason,
            transient: self.is(ContextBits::RESET_TRANSIENT),
            received: true,
        })
    }

    /// The reason that this host gives.
    fn own_reason(&self) -> Option<ResetReason> {
        (!self.is(ContextBits::RESET_SEEN)).then_some(ResetReason {
            code: self.record.reset_reason,
            transient: self.is(ContextBits::RESET_TRANSIENT),
            received: false,
        })
    }

    fn connection_is_open(&self) -> bool {
        self.record.connection_state == ESTABLISHED
    }

    /// A join that this host refused, or could not begin.
    fn refused_here(&self) -> Result<Why, DecodeError> {
        const EINVAL: i32 = 22;
        let record = self.record;
        let reason = record
            .flags
            .contains(PathFlags::REASON)
            .then_some(ResetReason {
                code: record.reset_reason,
                transient: false,
                received: false,
            });
        let code = reason.map(|it| it.code);
        let has_connection = record.socket != 0;
        let here = |cause| Why::new(cause, DecidedBy::Here).with(reason);
        let answer = JoinAnswer::from_bits_retain(record.old_state.into());
        Ok(match record.site {
            PathSite::SYN if answer.contains(JoinAnswer::NO_ID) => here("MPJoinNoIdFound"),
            PathSite::SYN if !has_connection && record.error.abs() == EINVAL => here("MD5SigReset"),
            PathSite::SYN if !has_connection => here("MPJoinNoTokenFound"),
            // With a SYN cookie: no RST is sent.
            PathSite::SYN if answer.contains(JoinAnswer::REFUSED) => {
                here("MPJoinRejected").with(None)
            }
            PathSite::SYN => here("MismatchPortSynRx"),
            PathSite::THIRD_ACK if answer.contains(JoinAnswer::NO_CONTEXT) => {
                here("MPJoinAckNoCtx")
            }
            PathSite::THIRD_ACK if answer.contains(JoinAnswer::REFUSED) => here("MPJoinRejected"),
            PathSite::THIRD_ACK if answer.contains(JoinAnswer::ATTACHED) => match code {
                Some(PROHIBITED) => here("MPJoinRejected").inferred(),
                Some(_) => here("MPJoinNotEstablished"),
                None => here("MismatchPortAckRx").inferred(),
            },
            PathSite::THIRD_ACK if answer.contains(JoinAnswer::ACCEPTED) => {
                here("MPJoinAckHMacFailure")
            }
            // The HMAC is checked before the connection is asked, with one reason for both.
            PathSite::THIRD_ACK
                if code == Some(PROHIBITED)
                    && answer.contains(JoinAnswer::NOT_ASKED)
                    && self.rst.is_join =>
            {
                here("MPJoinAckHMacFailure")
            }
            PathSite::THIRD_ACK if code == Some(PROHIBITED) => here("MPJoinRejected").inferred(),
            PathSite::THIRD_ACK if !self.rst.is_known => here("MPJoinAckNoMPJoin").inferred(),
            // The HMAC is checked before the connection is asked, or after.
            PathSite::THIRD_ACK if self.rst.is_join => here("MPJoinAckHMacFailure"),
            PathSite::THIRD_ACK => here("MPJoinAckNoMPJoin"),
            PathSite::RESET => here(self.refused_packet(code)).inferred(),
            PathSite::CONNECT => self.not_opened(),
            PathSite::NO_LISTENER => here("MPJoinNoListener"),
            PathSite::COOKIE => here("MPJoinCookieLost"),
            PathSite::PLAIN_REQUEST => {
                Why::new("MPJoinSynNoMPJoin", DecidedBy::Peer).with(self.received_reason())
            }
            PathSite::REQUEST_TIMER => Why::new("MPJoinThirdAckMissing", DecidedBy::Nobody),
            PathSite(other) => {
                return Err(DecodeError::Field("site of a failed join", other.into()));
            }
        })
    }

    /// Why a packet was refused, by its flags, its options and the reason.
    fn refused_packet(&self, code: Option<u8>) -> &'static str {
        const SYN: u8 = 2;
        let is_syn = self.record.old_state & SYN != 0;
        match (is_syn, code) {
            (true, Some(PROHIBITED)) => "MismatchPortSynRx",
            (true, _) => "MPJoinNoTokenFound",
            (false, Some(PROHIBITED)) => "MPJoinRejected",
            (false, _) if self.rst.is_join => "MPJoinAckHMacFailure",
            (false, _) => "MPJoinAckNoMPJoin",
        }
    }

    /// A path that never had a socket, or whose socket never sent a SYN
    /// (`__mptcp_subflow_connect`).
    fn not_opened(&self) -> Why {
        let here = |cause| Why::new(cause, DecidedBy::Here);
        match self.errno() {
            Some(Errno::ENOTCONN) => here("MPJoinNotEstablished"),
            Some(Errno::EADDRNOTAVAIL | Errno::EADDRINUSE) => here("MPJoinSynTxBindErr"),
            Some(Errno::EINVAL | Errno::ENOMEM | Errno::EPERM | Errno::EACCES) => {
                here("MPJoinSynTxCreatSkErr").inferred()
            }
            Some(_) | None => here("MPJoinSynTxConnectErr").inferred(),
        }
    }

    /// A join that had a socket and did not come up.
    fn join_failed(&self) -> Why {
        if self.record.old_state == SYN_SENT {
            return self.syn_failed([
                "MPJoinSynTimeout",
                "MPJoinSynRejected",
                "MPJoinSynRefused",
                "MPJoinSynUnreachable",
                "MPJoinClosedMeanwhile",
            ]);
        }
        let own = self.own_reason();
        if !self.is(ContextBits::MP_JOIN) {
            if !self.is(ContextBits::HMAC) && !self.is(ContextBits::NONCE) {
                return Why::new("MPJoinSynAckNoMPJoin", DecidedBy::Here).with(own);
            }
            let allows = self
                .record
                .connection
                .contains(ConnectionBits::ALLOWS_PATHS);
            return match own.map(|it| it.code) {
                Some(0) | None if !allows => {
                    Why::new("MPJoinFallbackUnderWay", DecidedBy::Here).with(own)
                }
                Some(_) | None if !self.connection_is_open() => {
                    Why::new("MPJoinNotEstablished", DecidedBy::Here).with(own)
                }
                Some(_) | None => Why::new("MPJoinSynAckHMacFailure", DecidedBy::Here).with(own),
            };
        }
        if self.has(PathEvents::RST_RECEIVED) {
            return Why::new("MPJoinAckRejected", DecidedBy::Peer).with(self.received_reason());
        }
        let is_reset_here = self.has(PathEvents::RESET) || self.has(PathEvents::RST_SENT);
        if is_reset_here && self.connection_is_open() && !self.has(PathEvents::CONNECTION_CLOSED) {
            return Why::new("MPJoinFourthAckNoDss", DecidedBy::Here).with(own);
        }
        Why::new("MPJoinFourthAckMissing", DecidedBy::Nobody)
    }

    /// The first path did not come up.
    fn connect_failed(&self) -> Why {
        self.syn_failed([
            "MPCapableSynTimeout",
            "MPCapableSynRejected",
            "MPCapableSynRefused",
            "MPCapableSynUnreachable",
            "MPCapableClosedMeanwhile",
        ])
    }

    /// No SYN/ACK arrived. The names are for: no answer, an RST with a reason, one without, an
    /// ICMP message, and that the application or the connection was faster.
    fn syn_failed(&self, names: [&'static str; 5]) -> Why {
        let [timeout, rejected, refused, unreachable, closed] = names;
        match self.errno() {
            Some(Errno::ETIMEDOUT) => Why::new(timeout, DecidedBy::Nobody),
            _ if self.has(PathEvents::RST_RECEIVED) => match self.received_reason() {
                reason @ Some(_) => Why::new(rejected, DecidedBy::Peer).with(reason),
                None if self.rst.is_known => Why::new(refused, DecidedBy::Peer),
                // Its options are unknown, or it had none.
                None => Why::new(refused, DecidedBy::Peer).inferred(),
            },
            Some(_) => Why::new(unreachable, DecidedBy::Peer),
            // The connection goes on: connect() itself failed.
            None if self.role == PathRole::Join && self.connection_is_open() => {
                Why::new("MPJoinSynTxConnectErr", DecidedBy::Here).inferred()
            }
            None => Why::new(closed, DecidedBy::Here),
        }
    }

    /// The path was up, and ended.
    fn ended(&self) -> Why {
        let (peer, here) = (DecidedBy::Peer, DecidedBy::Here);
        let first = self.record.first_event;
        let fastclose = self.rst.is_fastclose
            || self
                .record
                .connection
                .contains(ConnectionBits::RECEIVED_FASTCLOSE);
        if fastclose {
            return Why::new("fastclose-received", peer).with(self.received_reason());
        }
        if self.is(ContextBits::SEND_FASTCLOSE) {
            return Why::new("fastclose-sent", here);
        }
        if first == PathEvents::REMOVED {
            return Why::new("removed", here);
        }
        if self.has(PathEvents::ABORTED) || self.errno() == Some(Errno::ECONNABORTED) {
            return Why::new("killed", here);
        }
        if self.has(PathEvents::RST_RECEIVED) {
            return match self.received_reason() {
                reason @ Some(_) => Why::new("mp-rst-received", peer).with(reason),
                None => Why::new("rst-received", peer),
            };
        }
        match self.errno() {
            Some(Errno::ETIMEDOUT) => return Why::new("timeout", DecidedBy::Nobody),
            Some(Errno::EBADMSG) => return Why::new("bad-data", here).with(self.own_reason()),
            Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH) => {
                return Why::new("unreachable", DecidedBy::Nobody);
            }
            Some(_) | None => {}
        }
        if self.has(PathEvents::LATE_REFUSED) {
            return Why::new("MPJoinLateRejected", here).with(self.own_reason());
        }
        if self.has(PathEvents::RESET) || self.has(PathEvents::RST_SENT) {
            return Why::new("reset", here).with(self.own_reason());
        }
        // A connection closes its paths without such an event.
        if self.is(ContextBits::CLOSE_EVENT_DONE) && !self.has(PathEvents::CONNECTION_CLOSED) {
            return match self.has(PathEvents::FIN_RECEIVED) {
                // Functions show a removal; without them, it may be one, at either end.
                true if self.record.rung != RecordRung::TRACEPOINT => Why::new("peer-closed", peer),
                true => Why::new("peer-closed", peer).inferred(),
                false => Why::new("removed", here).inferred(),
            };
        }
        // Both ends send a FIN.
        Why {
            decided_by: None,
            ..Why::new("connection-closed", here)
        }
    }
}
