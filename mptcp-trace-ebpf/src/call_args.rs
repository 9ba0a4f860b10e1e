//! Stores a function's arguments until it returns: a kretprobe cannot read them.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;

use crate::{
    kernel::current_cpu,
    maps::{ARGUMENTS, arguments},
};

/// The function whose arguments are stored. Several may be in progress on one thread: an interrupt
/// may process a packet during a call.
#[derive(Clone, Copy)]
pub(crate) enum CallSite {
    Try = 1,
    Disable = 2,
    Edge = 3,
    Accept = 4,
    SetOption = 5,
    GetOption = 6,
    Socket = 7,
    JoinRequest = 8,
    JoinConnection = 9,
    JoinEnds = 10,
    CheckStale = 11,
    Announce = 12,
    AcceptsPath = 13,
    SendPriority = 14,
    LocalId = 15,
    FinishJoin = 16,
    Cookie = 17,
    JoinPacket = 18,
}

/// Key under which the arguments are stored: function and thread. The idle task has the same id on
/// all CPUs, so its key contains the CPU. Process ids have at most 22 bits, so the upper bits of
/// the word are free.
#[inline(always)]
fn slot(site: CallSite) -> u64 {
    let thread = bpf_get_current_pid_tgid();
    let who = if thread == 0 {
        u64::from(current_cpu())
    } else {
        thread
    };
    who | (site as u64) << 56
}

/// Stores two arguments until the function returns.
#[inline(always)]
pub(crate) fn stash_args(site: CallSite, first: u64, second: u64) {
    let _full = ARGUMENTS.insert(slot(site), [first, second], 0);
}

/// Returns the stored arguments and removes them.
#[inline(always)]
pub(crate) fn take_args(site: CallSite) -> Option<[u64; 2]> {
    let slot = slot(site);
    let arguments = arguments(slot)?;
    let _gone = ARGUMENTS.remove(slot);
    Some(arguments)
}
