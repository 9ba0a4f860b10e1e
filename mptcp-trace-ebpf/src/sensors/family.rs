//! Which processes descend from a wanted one? (`--follow`)

use aya_ebpf::{EbpfContext as _, macros::raw_tracepoint, programs::RawTracePointContext};
use aya_log_ebpf::debug;

use crate::{
    admit::{current_pid_in_namespace, follow},
    kernel::task_ids,
    maps::PIDS,
};

/// A wanted process had a child: the child is wanted too.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub(crate) fn family_fork(ctx: RawTracePointContext) -> i32 {
    if follow() && PIDS.get_ptr(current_pid_in_namespace()).is_some() {
        let child: u64 = ctx.arg(1);
        // A new thread has the process id of its siblings, which is known already.
        if let Ok((tgid, pid)) = task_ids(child)
            && tgid == pid
        {
            let stored = PIDS.insert(tgid, 1, 0).is_ok();
            debug!(&ctx, "process {} has a child {}: followed {}", ctx.tgid(), tgid, stored as u8);
        }
    }
    0
}

/// A process is gone for good: its number may be given to a stranger.
#[raw_tracepoint(tracepoint = "sched_process_free")]
pub(crate) fn family_free(ctx: RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    if let Ok((tgid, pid)) = task_ids(task)
        && tgid == pid
        && PIDS.get_ptr(tgid).is_some()
    {
        // Absent by now means that userspace took it out first.
        let _absent = PIDS.remove(tgid);
    }
    0
}
