//! Backup programs: several programs are attached to one probe, and if the kernel skips one, the
//! next handles the run.
//!
//! The kernel does not start a program on a CPU that is running it already (`bpf_prog.active`), to
//! prevent recursion. If a thread is preempted inside a program, the program is blocked on that CPU
//! until the thread runs again: dozens of runs are skipped in a row.
//!
//! So up to three programs are attached to such a probe, in order, each of which can do the work.
//! The first leaves a note that it handled the run; the others do nothing if they find the note,
//! and the last one removes it. A run is missed only if one thread per program is preempted at the
//! same probe on the same CPU.
//!
//! They are separate programs, not stubs that tail-call a common one: the guard also protects the
//! program's per-CPU stack (`priv_stack_ptr`, Linux 6.13 and later), and a tail call bypasses it.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    EbpfContext,
    programs::{BtfTracePointContext, FEntryContext, FExitContext, RawTracePointContext},
};

use crate::maps::{LAYOUT, RUN_PAIRS_BITS, RUNS, TURNS_AT_FUNCTIONS, TURNS_AT_TRACEPOINTS};

/// The context of a probe at which programs may take turns.
pub(crate) trait Place: EbpfContext {
    /// True if they do on this kernel.
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

/// Position of a program among those at one probe.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    First,
    Middle,
    Last,
}

/// True if this program has to handle the run; `count` counts a run that the first program missed.
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
        // An existing note is from an earlier run, whose last program the kernel skipped.
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

/// Stores the note in a free slot, or replaces the second one: two concurrent runs share a pair
/// only about once in several thousand.
#[inline(always)]
fn leave(one: &mut u64, other: &mut u64, run: u64) {
    if *one == 0 {
        *one = run;
    } else {
        *other = run;
    }
}

/// Identifies this run by the address of its context, which all programs of the run share, and no
/// other run in progress has. The verifier forbids arithmetic on addresses, but the difference of
/// two is a number; so the address is taken relative to [`LAYOUT`].
#[inline(always)]
fn run(ctx: *mut c_void) -> u64 {
    let mut run = ctx as u64;
    // SAFETY: one subtraction of two registers.
    unsafe {
        asm!("{run} -= {base}", run = inout(reg) run, base = in(reg) &raw const LAYOUT);
    }
    run
}

/// Index of the pair of notes. The upper bits of a product with an odd number (2^64 divided by the
/// golden ratio) depend on all of its bits.
#[inline(always)]
fn pair_of(run: u64) -> u32 {
    (run.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - RUN_PAIRS_BITS)) as u32
}

/// Declares the programs that take turns at a probe: their sensor, the attach macro, the function
/// that does the work (the first program has its name), and the names of the other programs. If
/// most runs are of no interest, `if` names a function that is checked first; runs that it rejects
/// leave no notes.
macro_rules! in_turns {
    (query: $($programs:tt)*) => {
        in_turns!(@all $crate::emit::count, $($programs)*);
    };
    (fallback: $($programs:tt)*) => {
        in_turns!(@all $crate::emit::count_fallback, $($programs)*);
    };
    (subflow: $($programs:tt)*) => {
        in_turns!(@all $crate::emit::count_subflow, $($programs)*);
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
        // A block of its own, because the first program has the same name as the worker function.
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
