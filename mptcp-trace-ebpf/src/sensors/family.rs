//! Tracks the descendants of the processes that the filter names (`--follow`).

use aya_ebpf::{EbpfContext as _, macros::raw_tracepoint, programs::RawTracePointContext};
use aya_log_ebpf::debug;

use mptcp_trace_common::counter;

use crate::{admit::is_wanted_process, emit, kernel::task_ids, maps::FAMILY};

/// A wanted process forked: its child is wanted too.
#[raw_tracepoint]
pub(crate) fn family_fork(ctx: RawTracePointContext) -> i32 {
    if is_wanted_process() {
        let child: u64 = ctx.arg(1);
        // A new thread has the process id of its siblings, which is admitted already.
        if let Ok((tgid, pid)) = task_ids(child)
            && tgid == pid
        {
            let stored = FAMILY.insert(tgid, 1, 0).is_ok();
            if !stored {
                emit::count(counter::UNFOLLOWED);
            }
            debug!(
                &ctx,
                "process {} has a child {}: followed {}",
                ctx.tgid(),
                tgid,
                stored as u8
            );
        }
    }
    0
}

/// A process was freed: its id may be reused.
#[raw_tracepoint]
pub(crate) fn family_free(ctx: RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    if let Ok((tgid, pid)) = task_ids(task)
        && tgid == pid
    {
        // Most processes that end are not in the map.
        let _absent = FAMILY.remove(tgid);
    }
    0
}
