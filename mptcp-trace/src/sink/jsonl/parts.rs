//! Fields shared by several messages.

use std::{net::SocketAddr, time::Duration};

use super::object::{Object, Word};
use crate::model::{Family, Owner, Place, Pod, Process, Protocol, Socket};

/// The process that asked, as fields of the message itself.
pub(super) fn caller(process: &Process, data: &mut Object<'_>) {
    let Process {
        pid,
        tid,
        host_pid,
        host_tid,
        uid,
        cgroup_id,
        comm,
    } = process;
    data.field("pid", *pid);
    data.field("tid", *tid);
    // The host's numbers are printed only if they differ.
    if *pid != Some(*host_pid) {
        data.field("host_pid", *host_pid);
        data.field("host_tid", *host_tid);
    }
    data.field("comm", comm.as_str());
    data.field("uid", *uid);
    data.field("cgroup_id", *cgroup_id);
}

/// A socket, as fields of the message itself.
pub(super) fn socket(socket: &Socket, data: &mut Object<'_>) {
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
    data.field("netns", *netns);
    data.field("socket", *id);
    data.field("inode", *inode);
    data.field(
        "protocol",
        match protocol {
            Protocol::Mptcp => Word("mptcp"),
            Protocol::Tcp => Word("tcp"),
        },
    );
    data.field("family", family_name(*family));
    data.field("state", *state);
    data.object("local", |data| endpoint(*local, data));
    data.object("remote", |data| endpoint(*remote, data));
}

/// The owner of a connection.
pub(super) fn owner(owner: Option<&Owner>, place: &Place, data: &mut Object<'_>) {
    data.maybe_object("owner", owner, |Owner { process, via }, data| {
        let Place {
            cgroup,
            container,
            unit,
            pod,
        } = place;
        caller(process, data);
        data.field("cgroup", cgroup.as_deref());
        data.field("container", container.as_deref());
        data.field("unit", unit.as_deref());
        if let Some(pod) = pod.as_deref() {
            self::pod(pod, data);
        }
        data.field("via", Word(via.name()));
    });
}

/// The owner's pod, with the names of OpenTelemetry's conventions. Most hosts have none: what is unknown
/// is absent.
fn pod(pod: &Pod, data: &mut Object<'_>) {
    let Pod {
        uid,
        namespace,
        name,
        container,
    } = pod;
    for (field, value) in [
        ("k8s.namespace.name", namespace),
        ("k8s.pod.name", name),
        ("k8s.pod.uid", uid),
        ("k8s.container.name", container),
    ] {
        if let Some(value) = value {
            data.field(field, value.as_str());
        }
    }
}

/// One end of a connection.
pub(super) fn endpoint(address: SocketAddr, data: &mut Object<'_>) {
    data.field("addr", address.ip());
    data.field("port", address.port());
    if let SocketAddr::V6(v6) = address
        && v6.scope_id() != 0
    {
        data.field("zone", v6.scope_id());
    }
}

pub(super) fn family_name(family: Family) -> Word {
    match family {
        Family::Ipv4 => Word("ipv4"),
        Family::Ipv6 => Word("ipv6"),
    }
}

pub(super) fn millis(duration: Duration) -> Option<u64> {
    u64::try_from(duration.as_millis()).ok()
}
