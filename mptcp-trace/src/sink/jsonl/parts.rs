//! What several messages have in common.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use serde::Serialize;

use crate::model::{Family, Owner, Place, Process, Protocol, Socket, SocketId, TcpState};

/// A string of the message, written where it goes, without another string in between.
pub(super) struct Text<T>(pub(super) T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Who asked, as fields of the message itself.
#[derive(Serialize)]
pub(super) struct CallerFields<'a> {
    pid: u32,
    tid: u32,
    comm: &'a str,
    uid: u32,
    cgroup_id: u64,
}

impl<'a> CallerFields<'a> {
    pub(super) fn of(process: &'a Process) -> Self {
        let Process {
            pid,
            tid,
            uid,
            cgroup_id,
            comm,
        } = process;
        Self {
            pid: *pid,
            tid: *tid,
            comm,
            uid: *uid,
            cgroup_id: *cgroup_id,
        }
    }
}

/// A socket, as fields of the message itself.
#[derive(Serialize)]
pub(super) struct SocketFields {
    netns: u32,
    socket: Text<SocketId>,
    inode: Option<u64>,
    protocol: &'static str,
    family: &'static str,
    state: Text<TcpState>,
    local: Endpoint,
    remote: Endpoint,
}

impl SocketFields {
    pub(super) fn of(socket: &Socket) -> Self {
        let Socket {
            id,
            inode,
            netns,
            protocol,
            family,
            state,
            local,
            remote,
        } = socket;
        Self {
            netns: *netns,
            socket: Text(*id),
            inode: *inode,
            protocol: match protocol {
                Protocol::Mptcp => "mptcp",
                Protocol::Tcp => "tcp",
            },
            family: family_name(*family),
            state: Text(*state),
            local: Endpoint::of(*local),
            remote: Endpoint::of(*remote),
        }
    }
}

/// Whoever holds a connection.
#[derive(Serialize)]
pub(super) struct OwnerData<'a> {
    #[serde(flatten)]
    process: CallerFields<'a>,
    cgroup: Option<&'a str>,
    container: Option<&'a str>,
    unit: Option<&'a str>,
    via: &'static str,
}

impl<'a> OwnerData<'a> {
    pub(super) fn of(owner: &'a Owner, place: &'a Place) -> Self {
        let Owner { process, via } = owner;
        let Place {
            cgroup,
            container,
            unit,
        } = place;
        Self {
            process: CallerFields::of(process),
            cgroup: cgroup.as_deref(),
            container: container.as_deref(),
            unit: unit.as_deref(),
            via: via.name(),
        }
    }
}

/// One end of a connection.
#[derive(Serialize)]
pub(super) struct Endpoint {
    addr: Text<IpAddr>,
    port: u16,
}

impl Endpoint {
    pub(super) fn of(address: SocketAddr) -> Self {
        Self {
            addr: Text(address.ip()),
            port: address.port(),
        }
    }
}

pub(super) fn family_name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

pub(super) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn millis(duration: Duration) -> Option<u64> {
    u64::try_from(duration.as_millis()).ok()
}

/// UTC with all nine digits, so that lines sort as text.
pub(super) struct Rfc3339(pub(super) SystemTime);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::try_from(self.0) {
            Ok(stamp) => write!(f, "{stamp:.9}"),
            Err(_out_of_range) => f.write_str("?"),
        }
    }
}
