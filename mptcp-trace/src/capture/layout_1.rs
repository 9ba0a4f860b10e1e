//! Records of captures with layout 1, converted into the current ones.
//!
//! Their records grew at the end four times; the length of one shows how much of it there is.

use std::mem::offset_of;

use mptcp_trace_common::{
    numbers::{SOL_TCP, TCP_IS_MPTCP},
    record::{
        ConnFlags, ConnRecord, ConnState, EvidenceBits, Kind, Marks, Owner, OwnerVia, PathBits,
        QueryFlags, QueryRecord, RecordRung, Site, SubflowBits,
    },
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Length of a [`Query`] at first, when it had no `born_ns`, bytes.
const QUERY_BYTES_1: usize = offset_of!(Query, born_ns);
/// Length without `connect_ns`, option level and number.
const QUERY_BYTES_2: usize = offset_of!(Query, connect_ns);
/// Length without `ns_tgid` and `ns_tid`.
const QUERY_BYTES_3: usize = offset_of!(Query, ns_tgid);

/// Length of a [`Connection`] without `netns_cookie`, bytes.
const CONNECTION_BYTES_1: usize = offset_of!(Connection, netns_cookie);
/// Length without `current_ns_tgid`.
const CONNECTION_BYTES_2: usize = offset_of!(Connection, current_ns_tgid);

/// A [`QueryRecord`] of that time.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct Query {
    kind: Kind,
    valid: QueryFlags,
    boottime_ns: u64,
    latency_ns: u64,
    socket: u64,
    /// `mptcp_sock.flags` when the query was made.
    msk_flags_enter: u64,
    msk_flags_exit: u64,
    inode: u64,
    cgroup_id: u64,
    tgid: u32,
    tid: u32,
    uid: u32,
    netns: u32,
    ret: i32,
    user_value: u32,
    /// Bytes that the kernel wrote to the answer buffer.
    user_len: i32,
    protocol: u16,
    family: u16,
    local_port: u16,
    remote_port_be: u16,
    state: u8,
    rung: RecordRung,
    path: PathBits,
    reserved: u8,
    local_addr: [u8; 16],
    remote_addr: [u8; 16],
    comm: [u8; 16],
    born_ns: u64,
    connect_ns: u64,
    level: u32,
    optname: u32,
    is_set: u32,
    reserved_2: u32,
    ns_tgid: u32,
    ns_tid: u32,
}

/// An [`Owner`] of that time.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct OldOwner {
    cgroup_id: u64,
    tgid: u32,
    tid: u32,
    ns_tgid: u32,
    uid: u32,
    via: OwnerVia,
    reserved: [u8; 3],
    ns_tid: u32,
    comm: [u8; 16],
}

/// A [`ConnRecord`] of that time.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct Connection {
    kind: Kind,
    valid: ConnFlags,
    boottime_ns: u64,
    /// When the record was written.
    noticed_ns: u64,
    socket: u64,
    born_ns: u64,
    connect_ns: u64,
    inode: u64,
    msk_flags: u64,
    bytes_sent: u64,
    bytes_received: u64,
    owner: OldOwner,
    current_tgid: u32,
    current_tid: u32,
    current_comm: [u8; 16],
    netns: u32,
    mib: i32,
    evidence: u32,
    subflow_flags: u32,
    conn_state: ConnState,
    off_ms: u32,
    protocol: u16,
    family: u16,
    local_port: u16,
    remote_port_be: u16,
    state: u8,
    subflow_state: u8,
    rung: RecordRung,
    site: Site,
    extra_subflows: u8,
    reserved: [u8; 3],
    local_addr: [u8; 16],
    remote_addr: [u8; 16],
    netns_cookie: u64,
    current_ns_tgid: u32,
    reserved_2: u32,
}

/// Bits of [`Connection::subflow_flags`] that have moved since, and where to.
const MOVED: [(u32, SubflowBits); 3] = [
    (1 << 16, SubflowBits::SERVER_SIDE),
    (1 << 17, SubflowBits::SIDE_KNOWN),
    (1 << 18, SubflowBits::CHECKSUMS),
];

/// Bits of [`Connection::subflow_flags`] that have stayed where they were.
const STAYED: SubflowBits = SubflowBits::REQUEST_MPTCP
    .union(SubflowBits::MP_CAPABLE)
    .union(SubflowBits::MP_JOIN)
    .union(SubflowBits::VALID_CSUM_SEEN)
    .union(SubflowBits::MPC_DROP)
    .union(SubflowBits::REMOTE_KEY);

/// The record in the current layout. If it is none of that time, it gets a kind that no record has,
/// so that the decoder refuses it: by chance it may look like a current one.
pub(super) fn converted(mut bytes: Vec<u8>) -> Vec<u8> {
    let Ok((kind, _rest)) = Kind::read_from_prefix(&bytes) else {
        return bytes;
    };
    let converted = match kind {
        Kind::QUERY | Kind::OPTION_REFUSED | Kind::SOCKET_REFUSED => query(&bytes),
        Kind::FALLBACK
        | Kind::TCP_CHILD
        | Kind::ACCEPTED
        | Kind::EXISTING
        | Kind::BLACKHOLE
        | Kind::CLOSED => connection(&bytes),
        // The kernel's counters have not changed.
        Kind::COUNTED | Kind::COUNTED_AT_START => return bytes,
        Kind(_unknown) => None,
    };
    converted.unwrap_or_else(|| {
        bytes[..size_of::<Kind>()].fill(0);
        bytes
    })
}

/// A record of one of these lengths, with zeroes for what it does not have.
fn extended<T: FromBytes + IntoBytes>(bytes: &[u8], shorter: &[usize]) -> Option<T> {
    let is_known = bytes.len() == size_of::<T>() || shorter.contains(&bytes.len());
    is_known.then(|| {
        let mut whole = T::new_zeroed();
        whole.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        whole
    })
}

fn query(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut old: Query = extended(bytes, &[QUERY_BYTES_1, QUERY_BYTES_2, QUERY_BYTES_3])?;
    if bytes.len() < QUERY_BYTES_3 {
        // All were of the only option traced at that time.
        if old.kind != Kind::QUERY {
            return None;
        }
        (old.level, old.optname) = (SOL_TCP, TCP_IS_MPTCP);
    }
    if bytes.len() <= QUERY_BYTES_3 {
        // There were only ids of the initial PID namespace.
        (old.ns_tgid, old.ns_tid) = (old.tgid, old.tid);
    }
    let mut flags = old.valid;
    flags.set(QueryFlags::IS_SET, old.is_set != 0);
    let new = QueryRecord {
        kind: old.kind,
        flags,
        boottime_ns: old.boottime_ns,
        latency_ns: old.latency_ns,
        socket: old.socket,
        msk_flags: old.msk_flags_exit,
        inode: old.inode,
        cgroup_id: old.cgroup_id,
        born_ns: old.born_ns,
        connect_ns: old.connect_ns,
        tgid: old.tgid,
        tid: old.tid,
        ns_tgid: old.ns_tgid,
        ns_tid: old.ns_tid,
        uid: old.uid,
        netns: old.netns,
        ret: old.ret,
        user_value: old.user_value,
        level: old.level,
        optname: old.optname,
        comm: old.comm,
        local_addr: old.local_addr,
        remote_addr: old.remote_addr,
        protocol: old.protocol,
        family: old.family,
        local_port: old.local_port,
        remote_port_be: old.remote_port_be,
        state: old.state,
        rung: old.rung,
        path: old.path,
        reserved: [0; 5],
    };
    Some(new.as_bytes().to_vec())
}

fn connection(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut old: Connection = extended(bytes, &[CONNECTION_BYTES_1, CONNECTION_BYTES_2])?;
    if bytes.len() <= CONNECTION_BYTES_2 {
        // There were only ids of the initial PID namespace.
        (old.owner.ns_tgid, old.owner.ns_tid) = (old.owner.tgid, old.owner.tid);
        old.current_ns_tgid = old.current_tgid;
    }
    let mut subflow = SubflowBits::from_bits_retain(old.subflow_flags as u16) & STAYED;
    for (before, now) in MOVED {
        subflow.set(now, old.subflow_flags & before != 0);
    }
    let new = ConnRecord {
        kind: old.kind,
        flags: old.valid,
        boottime_ns: old.boottime_ns,
        socket: old.socket,
        born_ns: old.born_ns,
        connect_ns: old.connect_ns,
        inode: old.inode,
        msk_flags: old.msk_flags,
        bytes_sent: old.bytes_sent,
        bytes_received: old.bytes_received,
        netns_cookie: old.netns_cookie,
        owner: Owner {
            cgroup_id: old.owner.cgroup_id,
            tgid: old.owner.tgid,
            tid: old.owner.tid,
            ns_tgid: old.owner.ns_tgid,
            ns_tid: old.owner.ns_tid,
            uid: old.owner.uid,
            via: old.owner.via,
            reserved: [0; 3],
            comm: old.owner.comm,
        },
        current_comm: old.current_comm,
        current_tgid: old.current_tgid,
        current_tid: old.current_tid,
        current_ns_tgid: old.current_ns_tgid,
        netns: old.netns,
        mib: old.mib,
        conn_state: old.conn_state,
        off_ms: old.off_ms,
        local_addr: old.local_addr,
        remote_addr: old.remote_addr,
        evidence: EvidenceBits::from_bits_retain(old.evidence as u16),
        subflow,
        protocol: old.protocol,
        family: old.family,
        local_port: old.local_port,
        remote_port_be: old.remote_port_be,
        state: old.state,
        subflow_state: old.subflow_state,
        rung: old.rung,
        site: old.site,
        extra_subflows: old.extra_subflows,
        pending_paths: 0,
        reserved: [0; 2],
        marks: Marks::NONE,
    };
    Some(new.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    /// A query of which each byte differs from its neighbours.
    fn old_query() -> Query {
        Query {
            kind: Kind::QUERY,
            valid: QueryFlags::INODE | QueryFlags::MSK_FLAGS,
            boottime_ns: 1,
            latency_ns: 2,
            socket: 3,
            msk_flags_enter: 4,
            msk_flags_exit: 5,
            inode: 6,
            cgroup_id: 7,
            tgid: 8,
            tid: 9,
            uid: 10,
            netns: 11,
            ret: -12,
            user_value: 13,
            user_len: 14,
            protocol: 15,
            family: 16,
            local_port: 17,
            remote_port_be: 18,
            state: 19,
            rung: RecordRung::KPROBE,
            path: PathBits::MPTCP,
            reserved: 0,
            local_addr: [20; 16],
            remote_addr: [21; 16],
            comm: [22; 16],
            born_ns: 23,
            connect_ns: 24,
            level: 25,
            optname: 26,
            is_set: 1,
            reserved_2: 0,
            ns_tgid: 27,
            ns_tid: 28,
        }
    }

    fn converted_query(bytes: &[u8]) -> QueryRecord {
        QueryRecord::read_from_bytes(&converted(bytes.to_vec())).unwrap()
    }

    #[test]
    fn a_query_keeps_everything_that_its_length_has() {
        let old = old_query();
        let bytes = old.as_bytes();
        let newest = converted_query(bytes);
        let flags = QueryFlags::INODE | QueryFlags::MSK_FLAGS | QueryFlags::IS_SET;
        let whole = QueryRecord {
            kind: Kind::QUERY,
            flags,
            boottime_ns: 1,
            latency_ns: 2,
            socket: 3,
            msk_flags: 5,
            inode: 6,
            cgroup_id: 7,
            born_ns: 23,
            connect_ns: 24,
            tgid: 8,
            tid: 9,
            ns_tgid: 27,
            ns_tid: 28,
            uid: 10,
            netns: 11,
            ret: -12,
            user_value: 13,
            level: 25,
            optname: 26,
            comm: [22; 16],
            local_addr: [20; 16],
            remote_addr: [21; 16],
            protocol: 15,
            family: 16,
            local_port: 17,
            remote_port_be: 18,
            state: 19,
            rung: RecordRung::KPROBE,
            path: PathBits::MPTCP,
            reserved: [0; 5],
        };
        assert_eq!(newest, whole);
        // Before there were ids of another PID namespace, all were of the initial one.
        let third = QueryRecord {
            ns_tgid: 8,
            ns_tid: 9,
            ..whole
        };
        assert_eq!(converted_query(&bytes[..184]), third);
        let second = QueryRecord {
            flags: flags.difference(QueryFlags::IS_SET),
            connect_ns: 0,
            level: SOL_TCP,
            optname: TCP_IS_MPTCP,
            ..third
        };
        assert_eq!(converted_query(&bytes[..160]), second);
        let first = QueryRecord {
            born_ns: 0,
            ..second
        };
        assert_eq!(converted_query(&bytes[..152]), first);
    }

    #[test]
    fn what_is_no_record_of_that_time_gets_a_kind_that_no_record_has() {
        let query = old_query();
        let refusal = Query {
            kind: Kind::OPTION_REFUSED,
            ..old_query()
        };
        let current = QueryRecord {
            kind: Kind::QUERY,
            ..QueryRecord::new_zeroed()
        };
        for bytes in [
            &query.as_bytes()[..191],
            // There were no refusals yet.
            &refusal.as_bytes()[..160],
            current.as_bytes(),
            &[99, 0, 0, 0, 1],
        ] {
            let refused = converted(bytes.to_vec());
            assert_eq!(refused[..4], [0; 4]);
            assert_eq!(refused[4..], bytes[4..]);
        }
        for bytes in [&[][..], &[1, 0, 0], &[10, 0, 0, 0, 1]] {
            assert_eq!(converted(bytes.to_vec()), bytes);
        }
    }

    #[test]
    fn a_connection_keeps_its_bits_and_its_ids() {
        let mut old = Connection::new_zeroed();
        old.kind = Kind::FALLBACK;
        old.subflow_flags = 1 << 17 | 1 << 16 | 1 << 7 | 1 << 3 | 1;
        old.evidence = 1 << 31 | 1 << 7;
        (old.owner.tgid, old.owner.tid) = (1, 2);
        (old.owner.ns_tgid, old.owner.ns_tid) = (3, 4);
        (old.current_tgid, old.current_ns_tgid) = (5, 6);
        old.netns_cookie = 7;
        let convert = |length: usize| {
            let bytes = converted(old.as_bytes()[..length].to_vec());
            ConnRecord::read_from_bytes(&bytes).unwrap()
        };
        let newest = convert(240);
        assert_eq!(
            newest.subflow,
            SubflowBits::SIDE_KNOWN
                | SubflowBits::SERVER_SIDE
                | SubflowBits::REMOTE_KEY
                | SubflowBits::REQUEST_MPTCP
        );
        assert_eq!(newest.evidence, EvidenceBits::SIMULTANEOUS);
        let ids = |it: ConnRecord| (it.owner.ns_tgid, it.owner.ns_tid, it.current_ns_tgid);
        assert_eq!(ids(newest), (3, 4, 6));
        assert_eq!(ids(convert(232)), (1, 2, 5));
        assert_eq!(convert(232).netns_cookie, 7);
        assert_eq!(ids(convert(224)), (1, 2, 5));
        assert_eq!(convert(224).netns_cookie, 0);
    }
}
