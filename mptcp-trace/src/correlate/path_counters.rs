//! The kernel's counters of paths, and the events that each of them counts.

use std::time::Duration;

use crate::model::{DecidedBy, Errno, Path, PathKind, PathRole, Side};

/// A counter of `MPTcpExt`, and the events that the kernel counts in it.
pub(super) struct Counter {
    /// Its name.
    pub(super) name: &'static str,
    /// Kernels differ in whether they count an event here or in the counter with this name: both
    /// are compared together.
    pub(super) with: Option<&'static str>,
    /// True for an event that the kernel counts here.
    pub(super) counts: fn(&Path) -> bool,
    /// When the kernel counted it, at the earliest and at the latest.
    pub(super) span: fn(&Path) -> (Duration, Duration),
    /// The kernel counts it before it is reported.
    pub(super) is_reported_later: bool,
    /// Functions of which one must be probed to see them all; none for those that change the state
    /// of a path, which every attach method sees.
    pub(super) functions: &'static [&'static str],
}

/// Paths that the path manager of this host removed.
pub(super) const REMOVED: &str = "RmSubflow";
/// The third ACK of a join has the wrong HMAC. Up to Linux 6.19, the SYN/ACK counts here, too.
const ACK_HMAC: &str = "MPJoinAckHMacFailure";

const AT_SYN: &[&str] = &["subflow_check_req"];
const AT_THIRD_ACK: &[&str] = &["mptcp_subflow_drop_ctx"];
const AT_CONNECT: &[&str] = &["__mptcp_subflow_connect"];

/// Causes of a join whose SYN the kernel did not count.
const BEFORE_SYN: [&str; 3] = [
    "MPJoinSynTxCreatSkErr",
    "MPJoinSynTxBindErr",
    "MPJoinSynTxConnectErr",
];
/// Causes of a join that passed the checks of the SYN/ACK.
const AFTER_SYN_ACK: [&str; 3] = [
    "MPJoinAckRejected",
    "MPJoinFourthAckNoDss",
    "MPJoinFourthAckMissing",
];

/// A join that failed for the cause with the name of the counter.
macro_rules! failure {
    ($name:expr, $functions:expr) => {
        Counter {
            name: $name,
            with: None,
            counts: |path| path.kind == PathKind::Failed && has_cause(path, &[$name]),
            span: at_once,
            is_reported_later: false,
            functions: $functions,
        }
    };
}

/// The counters that are compared.
pub(super) const COUNTERS: &[Counter] = &[
    Counter {
        name: "MPJoinSynTx",
        with: None,
        counts: |path| {
            is_join(path, Side::Active)
                && path.path.is_some()
                && (path.comes_up()
                    || path.kind == PathKind::Failed && !has_cause(path, &BEFORE_SYN))
        },
        span: since_begin,
        is_reported_later: true,
        functions: &[],
    },
    Counter {
        name: "MPJoinSynAckRx",
        with: None,
        counts: |path| {
            is_join(path, Side::Active)
                && (path.comes_up()
                    || path.kind == PathKind::Failed && has_cause(path, &AFTER_SYN_ACK))
        },
        span: since_begin,
        is_reported_later: true,
        functions: &[],
    },
    Counter {
        name: "MPJoinAckRx",
        with: None,
        counts: |path| is_join(path, Side::Passive) && path.comes_up(),
        span: since_begin,
        is_reported_later: true,
        functions: &[],
    },
    failure!("MPJoinSynTxCreatSkErr", AT_CONNECT),
    failure!("MPJoinSynTxBindErr", AT_CONNECT),
    failure!("MPJoinSynTxConnectErr", AT_CONNECT),
    failure!("MPJoinNoTokenFound", AT_SYN),
    failure!("MismatchPortSynRx", AT_SYN),
    failure!(ACK_HMAC, AT_THIRD_ACK),
    Counter {
        with: Some(ACK_HMAC),
        ..failure!("MPJoinSynAckHMacFailure", &[])
    },
    failure!("MPJoinSynAckNoMPJoin", &[]),
    failure!("MPJoinAckNoMPJoin", AT_THIRD_ACK),
    failure!("MPJoinAckNoCtx", AT_THIRD_ACK),
    failure!("MPJoinRejected", AT_THIRD_ACK),
    failure!("MismatchPortAckRx", AT_THIRD_ACK),
    Counter {
        // The kernel does not count a connection that is not established before the SYN.
        counts: |path| {
            path.kind == PathKind::Failed
                && has_cause(path, &["MPJoinNotEstablished"])
                && path.errno != Some(Errno::ENOTCONN)
        },
        ..failure!("MPJoinNotEstablished", AT_THIRD_ACK)
    },
    Counter {
        name: REMOVED,
        with: None,
        counts: |path| path.kind == PathKind::Down && has_cause(path, &["removed"]),
        span: since_begin,
        is_reported_later: true,
        functions: &["mptcp_subflow_shutdown"],
    },
    Counter {
        name: "MPPrioRx",
        with: None,
        counts: |path| path.kind == PathKind::Priority && path.decided_by == Some(DecidedBy::Peer),
        span: at_once,
        is_reported_later: false,
        functions: &["mptcp_pm_mp_prio_received"],
    },
    Counter {
        name: "SubflowStale",
        with: None,
        counts: |path| path.kind == PathKind::Stale,
        span: at_once,
        is_reported_later: false,
        functions: &["mptcp_pm_subflow_chk_stale", "mptcp_pm_chk_stale"],
    },
    Counter {
        name: "SubflowRecover",
        with: None,
        counts: |path| path.kind == PathKind::Recovered,
        span: since_begin,
        is_reported_later: true,
        functions: &["mptcp_subflow_set_active"],
    },
];

impl Counter {
    /// Every attach method sees these events.
    pub(super) fn is_always_seen(&self) -> bool {
        self.functions.is_empty()
    }

    /// These probes see the events, as far as is known.
    pub(super) fn is_observed_by(&self, probes: &[String]) -> bool {
        let is_probed = |function: &str| {
            let mut words = probes.iter().flat_map(|probe| probe.split_whitespace());
            words.any(|word| word == function)
        };
        self.is_always_seen() || self.functions.iter().any(|it| is_probed(it))
    }
}

/// The counters that are compared together with this one, and this one itself.
pub(super) fn counted_with(counter: &Counter) -> impl Iterator<Item = &'static Counter> {
    let name = counter.name;
    COUNTERS
        .iter()
        .filter(move |it| it.name == name || it.with == Some(name))
}

fn is_join(path: &Path, side: Side) -> bool {
    path.role == PathRole::Join && path.side == Some(side) && !path.existing
}

fn has_cause(path: &Path, causes: &[&str]) -> bool {
    let cause = path.cause.as_deref();
    cause.is_some_and(|cause| causes.contains(&cause))
}

fn at_once(path: &Path) -> (Duration, Duration) {
    (path.at, path.at)
}

fn since_begin(path: &Path) -> (Duration, Duration) {
    (path.began_at.unwrap_or_default().min(path.at), path.at)
}
