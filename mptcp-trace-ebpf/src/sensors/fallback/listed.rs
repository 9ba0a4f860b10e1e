//! Lists the sockets that were open before tracing began: one pass over every file of every task,
//! in all network namespaces.

use core::ffi::c_void;

use aya_ebpf::{bindings::seq_file, helpers::generated::bpf_seq_write};
use mptcp_trace_common::{
    calibrated, counter,
    map_values::Conn,
    record::{ConnState, Kind, NO_MIB, OwnerVia, Site},
};

use super::{fell_back, flush_pending, look, no_packet};
use crate::{
    admit::in_namespace,
    emit,
    entry::{Entry, get, set},
    kernel::{
        Sock, is_mptcp, now_ns, put_process_comm, socket_of_file, task_cgroup, task_ids, task_uid,
    },
    maps::{CALIBRATED, FALLEN, READ_NEXT, conn},
    sensors::{
        connection_record::{self, site_and_cause},
        owner::{kernel_takes_over, track_new},
        subflow,
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

/// At most this many records are counted for a socket: its own, and those of its paths.
const RECORDS_MAX: u32 = 16;

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
    let lists = CALIBRATED
        .get(calibrated::SWEEP)
        .is_none_or(|sweep| *sweep == 0);
    if lists {
        if !list(task, sk) {
            return 0;
        }
    } else {
        flush_pending(sk);
        look(sk, Site::LATER, no_packet);
    }
    let paths = subflow::scan(sk, lists);
    if lists {
        // Userspace reads one byte per record, so that it can drain the ring before it is full.
        let bytes = [0_u8; RECORDS_MAX as usize];
        let records = 1 + paths;
        let records = if records > RECORDS_MAX {
            RECORDS_MAX
        } else {
            records
        };
        // SAFETY: the pointers come from the kernel; the verifier checks them, and that the bytes
        // are readable.
        let _full = unsafe { bpf_seq_write((*meta).seq, bytes.as_ptr().cast(), records) };
    }
    0
}

/// One file of one task: if it is the connection in [`READ_NEXT`], reports its open paths once.
///
/// A program of its own, so that a reading and a sweep may run at the same time.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub(crate) fn read_task_file(ctx: *mut c_void) -> i32 {
    // SAFETY: as above.
    let file = unsafe { (*ctx.cast::<TaskFile>()).file };
    if file == 0 {
        return 0;
    }
    let Some(next) = READ_NEXT.get_ptr_mut(0) else {
        return 0;
    };
    let Some(sk) = socket_of_file(file) else {
        return 0;
    };
    // SAFETY: the pointer is into the array, and aligned. Userspace writes it before a reading only.
    unsafe {
        if sk.0 != next.read() || !sk.protocol().is_ok_and(is_mptcp) {
            return 0;
        }
        // Several tasks may have the file open.
        next.write(0);
    }
    subflow::read(sk);
    0
}

/// Tracks a socket that a task has open, and reports it; false if it was created while tracing, or is
/// listed already.
#[inline(always)]
fn list(task: u64, sk: Sock) -> bool {
    let new = match conn(sk.0) {
        // It was used between the moment of attaching and this one.
        Some(known) if get!(known, state).contains(ConnState::UNSEEN_BIRTH) => known,
        Some(_) => return false,
        None => match track_new(sk) {
            Some(new) => new,
            None => return false,
        },
    };
    set!(new, inode, sk.inode().unwrap_or(0));
    let side = match sk.msk_server_side() {
        Some(false) => ConnState::ACTIVE,
        Some(true) | None => ConnState::empty(),
    };
    let known = get!(new, state).difference(ConnState::UNSEEN_BIRTH);
    set!(new, state, known | ConnState::EXISTING | side);
    match sk.is_of_kernel() {
        // A file of one can be lent to a process, for example for the handshake of TLS.
        true => kernel_takes_over(new),
        false => set_owner_to(task, new),
    }
    if fell_back(sk) == Some(true) {
        let _known = FALLEN.insert(sk.0, now_ns(), 0);
    }
    emit::count_fallback(counter::SEEN);
    let what = site_and_cause(Site::LISTED, NO_MIB, false);
    connection_record::emit(Kind::EXISTING, sk.0, what, 0);
    true
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
