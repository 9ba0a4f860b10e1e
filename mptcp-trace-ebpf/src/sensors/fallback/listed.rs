//! Sockets that were there before us: one pass over every file of every task, in all network namespaces.

use core::ffi::c_void;

use mptcp_trace_common::{
    counter,
    record::{
        CONN_ACTIVE, CONN_EXISTING, KIND_EXISTING, NO_MIB, Owner, SITE_LATER, SITE_LISTED,
        VIA_EXISTING,
    },
};

use super::{LISTEN, fell_back, flush_pending, look};
use crate::{
    emit,
    kernel::{is_mptcp, now_ns, process_comm, socket_of_file, task_cgroup, task_ids, task_uid},
    maps::{CALIBRATED, FALLEN, SWEEP},
    sensors::{
        owner::{listens, newborn, note_down_new},
        tell::{self, where_and_why},
    },
};

/// `struct bpf_iter__task_file`, made by the kernel for programs of this kind.
#[repr(C)]
struct TaskFile {
    meta: u64,
    task: u64,
    fd: u32,
    file: u64,
}

/// One file of one task.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub(crate) fn listed_task_file(ctx: *mut c_void) -> i32 {
    // SAFETY: the kernel hands this structure to programs of this section; the verifier checks the reads.
    let (task, file) = unsafe {
        let ctx = ctx.cast::<TaskFile>();
        ((*ctx).task, (*ctx).file)
    };
    if task == 0 || file == 0 {
        return 0;
    }
    let Some(sk) = socket_of_file(file) else {
        return 0;
    };
    if !sk.protocol().is_ok_and(is_mptcp) {
        return 0;
    }
    if CALIBRATED.get(SWEEP).is_some_and(|sweep| *sweep != 0) {
        flush_pending(sk);
        look(sk, SITE_LATER);
        return 0;
    }
    let mut state = CONN_EXISTING;
    if sk.msk_server_side() == Some(false) {
        state |= CONN_ACTIVE;
    }
    let mut conn = newborn(state, owner(task), sk.inode().unwrap_or(0));
    conn.owner.ns_tgid = conn.owner.tgid;
    if !note_down_new(sk, &conn) {
        return 0;
    }
    if fell_back(sk) == Some(true) {
        let _known = FALLEN.insert(sk.0, now_ns(), 0);
    }
    if sk.state().is_ok_and(|state| u32::from(state) == LISTEN) {
        listens(sk);
    }
    emit::count_fallback(counter::SEEN);
    let what = where_and_why(SITE_LISTED, NO_MIB, false);
    tell::connection(KIND_EXISTING, sk.0, what, 0);
    0
}

/// The task that has the file open.
#[inline(always)]
fn owner(task: u64) -> Owner {
    let (tgid, tid) = task_ids(task).unwrap_or((0, 0));
    Owner {
        cgroup_id: task_cgroup(task).unwrap_or(0),
        tgid,
        tid,
        ns_tgid: 0,
        uid: task_uid(task).unwrap_or(0),
        via: VIA_EXISTING,
        reserved: [0; 7],
        comm: process_comm(task),
    }
}
