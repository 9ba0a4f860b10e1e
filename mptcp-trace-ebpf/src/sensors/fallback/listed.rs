//! Lists the sockets that were open before tracing began: one pass over every file of every task,
//! in all network namespaces.

use core::ffi::c_void;

use aya_ebpf::{bindings::seq_file, helpers::generated::bpf_seq_write};
use mptcp_trace_common::{
    calibrated, counter,
    map_values::Conn,
    record::{ConnState, Kind, NO_MIB, OwnerVia, Site},
};

use super::{fell_back, flush_pending, look};
use crate::{
    admit::in_namespace,
    emit,
    entry::{Entry, set},
    kernel::{is_mptcp, now_ns, put_process_comm, socket_of_file, task_cgroup, task_ids, task_uid},
    maps::{CALIBRATED, FALLEN},
    sensors::{
        connection_record::{self, site_and_cause},
        owner::track_new,
    },
};

/// `struct bpf_iter__task_file`; the kernel builds it for programs of this type.
#[repr(C)]
struct TaskFile {
    meta: *const Meta,
    task: u64,
    fd: u32,
    file: u64,
}

/// `struct bpf_iter_meta`; also built by the kernel.
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

/// One file of one task.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub(crate) fn listed_task_file(ctx: *mut c_void) -> i32 {
    // SAFETY: the kernel passes this structure to programs of this section; the verifier checks the
    // reads.
    let (meta, task, file) = unsafe {
        let ctx = ctx.cast::<TaskFile>();
        ((*ctx).meta, (*ctx).task, (*ctx).file)
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
    if CALIBRATED
        .get(calibrated::SWEEP)
        .is_some_and(|sweep| *sweep != 0)
    {
        flush_pending(sk);
        look(sk, Site::LATER);
        return 0;
    }
    let Some(new) = track_new(sk) else {
        return 0;
    };
    set!(new, inode, sk.inode().unwrap_or(0));
    let side = match sk.msk_server_side() {
        Some(false) => ConnState::ACTIVE,
        Some(true) | None => ConnState::empty(),
    };
    set!(new, state, ConnState::EXISTING | side);
    set_owner_to(task, new);
    if fell_back(sk) == Some(true) {
        let _known = FALLEN.insert(sk.0, now_ns(), 0);
    }
    emit::count_fallback(counter::SEEN);
    let what = site_and_cause(Site::LISTED, NO_MIB, false);
    connection_record::emit(Kind::EXISTING, sk.0, what, 0);
    // Userspace reads one byte per socket, so that it can drain the ring before it is full.
    let byte = 0_u8;
    // SAFETY: the pointers come from the kernel; the verifier checks them, and that the byte is
    // readable.
    let _full = unsafe { bpf_seq_write((*meta).seq, (&raw const byte).cast(), 1) };
    0
}

/// Makes the task that has the file open the owner.
#[inline(always)]
fn set_owner_to(task: u64, conn: Entry<Conn>) {
    let (tgid, tid) = task_ids(task).unwrap_or((0, 0));
    set!(conn, owner.cgroup_id, task_cgroup(task).unwrap_or(0));
    set!(conn, owner.tgid, tgid);
    set!(conn, owner.tid, tid);
    let here = in_namespace(|| task, u64::from(tgid) << 32 | u64::from(tid));
    set!(conn, owner.ns_tgid, here.tgid);
    set!(conn, owner.ns_tid, here.tid);
    set!(conn, owner.uid, task_uid(task).unwrap_or(0));
    set!(conn, owner.via, OwnerVia::EXISTING);
    put_process_comm(conn, task);
}
