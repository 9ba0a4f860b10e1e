//! Several programs at one place, which take turns: a run that the kernel keeps one from is taken by the next.
//!
//! The kernel does not start a program on a CPU on which it runs already (`bpf_prog.active`), so that it cannot call itself
//! without end. Where a thread can be preempted inside a program, it thereby keeps all others on that CPU out of
//! it until it runs again: dozens of runs are skipped in a row.
//!
//! So up to three programs hang at such a place, one behind the other, each of which can do the work. The first leaves a note
//! that this run was taken; the next ones do nothing where they find it, and the last takes it away. Only as many threads as
//! there are turns, of one CPU, all preempted at one place, keep another one out.
//!
//! They are programs of their own, not small ones that call a common one by tail call: that guard is also what makes it right
//! that a program has one stack for each CPU (`priv_stack_ptr`, Linux 6.13 and later), and a tail call goes around it.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    EbpfContext,
    programs::{BtfTracePointContext, FEntryContext, FExitContext, RawTracePointContext},
};

use crate::maps::{LAYOUT, RUN_PAIRS_BITS, RUNS, TURNS_AT_FUNCTIONS, TURNS_AT_TRACEPOINTS};

/// A place at which programs may take turns.
pub(crate) trait Place: EbpfContext {
    /// True if they do so on this kernel.
    fn has_turns() -> bool;
}

macro_rules! place {
    ($($context:ty),*: $global:ident) => {
        $(impl Place for $context {
            #[inline(always)]
            fn has_turns() -> bool {
                $global.load() != 0
            }
        })*
    };
}

place!(FEntryContext, FExitContext: TURNS_AT_FUNCTIONS);
place!(RawTracePointContext, BtfTracePointContext: TURNS_AT_TRACEPOINTS);

/// Which of the programs at a place one is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    First,
    Middle,
    Last,
}

/// True if this program has to do the work; `count` counts a run that the first one did not get.
#[inline(always)]
pub(crate) fn is_ours<C: Place>(ctx: &C, turn: Turn, count: fn()) -> bool {
    if !C::has_turns() {
        return turn == Turn::First;
    }
    let run = run(ctx.as_ptr());
    let Some(notes) = RUNS.get_ptr_mut(pair_of(run)) else {
        return turn == Turn::First;
    };
    // SAFETY: the pointer is to a value in the map, plain data that several CPUs may write to.
    let [one, other] = unsafe { &mut *notes };
    let is_taken = *one == run || *other == run;
    match turn {
        // A note that is there already is of an earlier run, of which the kernel skipped the last program.
        Turn::First if is_taken => {}
        Turn::First => leave(one, other, run),
        Turn::Middle if is_taken => return false,
        Turn::Middle => {
            count();
            leave(one, other, run);
        }
        Turn::Last if *one == run => {
            *one = 0;
            return false;
        }
        Turn::Last if is_taken => {
            *other = 0;
            return false;
        }
        Turn::Last => count(),
    }
    true
}

/// Where there is room, else instead of the second one: two runs that are under way have one pair once in some thousands.
#[inline(always)]
fn leave(one: &mut u64, other: &mut u64, run: u64) {
    if *one == 0 {
        *one = run;
    } else {
        *other = run;
    }
}

/// A number for this run: where its context is, which is the same for all programs of a run, and of no other that is under
/// way. Seen from the layout, since the kernel keeps addresses from being calculated with; their difference is a number.
#[inline(always)]
fn run(ctx: *mut c_void) -> u64 {
    let mut run = ctx as u64;
    // SAFETY: one subtraction of two registers.
    unsafe {
        asm!("{run} -= {base}", run = inout(reg) run, base = in(reg) &raw const LAYOUT);
    }
    run
}

/// Where its notes are. The upper bits of a product with an odd number (2^64 divided by the golden ratio) depend on all of
/// its bits.
#[inline(always)]
fn pair_of(run: u64) -> u32 {
    (run.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - RUN_PAIRS_BITS)) as u32
}

/// The programs that take turns at a place: their sensor, where they hang, the function that does the work, whose name is
/// that of the first program, and the names of the others. Where most runs are of no interest, `if` names a function that
/// tells which are: it is asked before anything else, and notes are left of no others.
macro_rules! in_turns {
    (query: $($programs:tt)*) => {
        in_turns!(@all $crate::emit::count, $($programs)*);
    };
    (fallback: $($programs:tt)*) => {
        in_turns!(@all $crate::emit::count_fallback, $($programs)*);
    };
    (@all $count:path, #[$place:meta] $worker:ident($context:ident), $second:ident, $third:ident) => {
        in_turns!(@three $count, $place, $worker, $context, $second, $third, |_ctx: &$context| true);
    };
    (
        @all $count:path,
        #[$place:meta] $worker:ident($context:ident), $second:ident, $third:ident, if $is_of_interest:ident
    ) => {
        in_turns!(@three $count, $place, $worker, $context, $second, $third, $is_of_interest);
    };
    (@three $count:path, $place:meta, $worker:ident, $context:ident, $second:ident, $third:ident, $is_of_interest:expr) => {
        // Inside of it the programs may have names that are taken outside.
        const _: () = {
            in_turns!(@one $count, $place, First, $worker, $context, self::$worker, $is_of_interest);
            in_turns!(@one $count, $place, Middle, $second, $context, self::$worker, $is_of_interest);
            in_turns!(@one $count, $place, Last, $third, $context, self::$worker, $is_of_interest);
        };
    };
    (@one $count:path, $place:meta, $turn:ident, $name:ident, $context:ident, $worker:path, $is_of_interest:expr) => {
        #[$place]
        pub(crate) fn $name(ctx: $context) -> i32 {
            let count = || $count(mptcp_trace_common::counter::TAKEN);
            if ($is_of_interest)(&ctx)
                && $crate::turns::is_ours(&ctx, $crate::turns::Turn::$turn, count)
            {
                $worker(ctx)
            } else {
                0
            }
        }
    };
}
pub(crate) use in_turns;
