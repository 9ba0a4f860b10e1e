//! The group that a finding belongs to, and how certain that is.

use std::net::{IpAddr, SocketAddr};

use crate::model::{By, Path, Prefix, Process, Subject};

/// Key of fallbacks without a known cause.
const UNKNOWN: &str = "unknown";
/// Key of what has not got the property.
pub(super) const NONE: &str = "-";

/// Prefix lengths of destination networks, bits.
const PREFIX_BITS_V4: u8 = 24;
const PREFIX_BITS_V6: u8 = 48;

/// Returns the name of the interface that has an address in a network namespace (an inode number),
/// if it is known.
pub type InterfaceOf = fn(u32, IpAddr) -> Option<String>;

/// How much a finding knows of the property that it is grouped by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Certainty {
    /// Nothing: no remote end yet, no fallback so far, no owner.
    Nothing,
    /// The connection fell back, for an unknown cause.
    Partly,
    /// The group is the connection's own.
    Known,
}

impl Certainty {
    /// `None` if a connection may be in several groups at once.
    pub(super) fn of(by: By, subject: &Subject<'_>) -> Option<Self> {
        let known = |is_known: bool| match is_known {
            true => Self::Known,
            false => Self::Nothing,
        };
        let is_set = |of: fn(&(IpAddr, IpAddr)) -> bool| {
            Some(known(ends(subject).is_some_and(|it| of(&it))))
        };
        match by {
            By::Process | By::Cgroup => Some(known(subject.process.is_some())),
            By::Dest => is_set(|(_, remote)| !remote.is_unspecified()),
            By::Endpoint | By::Interface => is_set(|(local, _)| !local.is_unspecified()),
            By::Path => {
                is_set(|(local, remote)| !local.is_unspecified() && !remote.is_unspecified())
            }
            By::Cause => match (cause(subject), subject.has_fallen) {
                (Some(_), true) => Some(Self::Known),
                (None, true) => Some(Self::Partly),
                (None, false) => Some(Self::Nothing),
                // E.g. a refused fallback, or a path that failed: the connection continues.
                (Some(_), false) => None,
            },
            By::Netns | By::Verdict => None,
        }
        .filter(|_| !subject.is_refusal)
    }
}

/// Local and remote address.
fn ends(subject: &Subject<'_>) -> Option<(IpAddr, IpAddr)> {
    let socket = subject.socket?;
    let of = |end: SocketAddr| end.ip().to_canonical();
    Some((of(socket.local), of(socket.remote)))
}

/// The cause, unless it only says that a path was closed on purpose: every path ends at last.
fn cause<'a>(subject: &Subject<'a>) -> Option<&'a str> {
    let is_wrong = subject.path.is_none_or(Path::is_failure);
    subject.cause.filter(|_| is_wrong)
}

/// The group of a process.
#[must_use]
pub fn process(process: Option<&Process>) -> String {
    match process {
        Some(process) => format!("{} {}", process.comm, process.number()),
        None => "?".into(),
    }
}

/// The group of a remote address: its network.
#[must_use]
pub fn destination(remote: SocketAddr) -> String {
    if remote.ip().is_unspecified() {
        return NONE.into();
    }
    let bits = match remote.ip().to_canonical().is_ipv4() {
        true => PREFIX_BITS_V4,
        false => PREFIX_BITS_V6,
    };
    Prefix::around(remote.ip(), bits).to_string()
}

/// The group of a local address.
fn endpoint((local, _): (IpAddr, IpAddr)) -> String {
    match local.is_unspecified() {
        true => NONE.into(),
        false => local.to_string(),
    }
}

/// The group of a path: both addresses. One that is not set is a star.
fn path((local, remote): (IpAddr, IpAddr)) -> String {
    let text = |address: IpAddr| match address.is_unspecified() {
        true => "*".to_owned(),
        false => address.to_string(),
    };
    match local.is_unspecified() && remote.is_unspecified() {
        true => NONE.into(),
        false => format!("{} - {}", text(local), text(remote)),
    }
}

/// Name of the group that a finding belongs to; `None` if the property does not apply to it.
pub(super) fn key<'a>(
    by: By,
    subject: &Subject<'a>,
    path_of: &dyn Fn(u64) -> Option<&'a str>,
    interface_of: InterfaceOf,
) -> Option<String> {
    Some(match by {
        By::Process => process(subject.process),
        By::Cause => match (cause(subject), subject.has_fallen) {
            (Some(cause), _) => cause.to_owned(),
            (None, true) => UNKNOWN.into(),
            (None, false) => NONE.into(),
        },
        By::Dest => {
            let remote = subject.socket.map(|it| it.remote);
            remote.map_or_else(|| NONE.into(), destination)
        }
        By::Path => ends(subject).map_or_else(|| NONE.into(), path),
        By::Endpoint => ends(subject).map_or_else(|| NONE.into(), endpoint),
        By::Interface => {
            let set = ends(subject).filter(|(local, _)| !local.is_unspecified());
            let name = set.and_then(|(local, _)| interface_of(subject.netns, local));
            name.unwrap_or_else(|| set.map_or_else(|| NONE.into(), endpoint))
        }
        By::Netns => subject.netns.to_string(),
        By::Cgroup => match subject.process {
            Some(process) => subject
                .cgroup
                .or_else(|| path_of(process.cgroup_id))
                .map_or_else(|| process.cgroup_id.to_string(), str::to_owned),
            None => "?".into(),
        },
        By::Verdict => subject.verdict?.name().to_owned(),
    })
}
