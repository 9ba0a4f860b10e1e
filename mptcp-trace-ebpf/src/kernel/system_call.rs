//! The context of a program that runs when a system call returns.

use super::*;
use crate::maps::syscall;

/// Context at the return of a system call, `sys_exit(struct pt_regs *regs, long ret)`.
pub(crate) trait AtReturn: EbpfContext {
    /// The register at this offset of `struct pt_regs`.
    fn register(&self, offset: u16) -> u64;

    /// The four bytes at this offset. They are the lower half of a register: both architectures are
    /// little-endian.
    fn half(&self, offset: u16) -> u32;

    /// Return value of the call.
    fn returned(&self) -> i32;
}

impl AtReturn for BtfTracePointContext {
    /// The verifier knows the type of the pointer's target: a load, without a helper.
    #[inline(always)]
    fn register(&self, offset: u16) -> u64 {
        let regs = self.arg::<*const u8>(0);
        // SAFETY: the verifier checks the offset against the type, and rejects the program at a
        // wrong one.
        unsafe { core::ptr::read_volatile(regs.byte_add(usize::from(offset)).cast::<u64>()) }
    }

    #[inline(always)]
    fn half(&self, offset: u16) -> u32 {
        let regs = self.arg::<*const u8>(0);
        // SAFETY: as above.
        unsafe { core::ptr::read_volatile(regs.byte_add(usize::from(offset)).cast::<u32>()) }
    }

    #[inline(always)]
    fn returned(&self) -> i32 {
        self.arg::<i64>(1) as i32
    }
}

impl AtReturn for RawTracePointContext {
    #[inline(always)]
    fn register(&self, offset: u16) -> u64 {
        read_at(self.arg(0), offset).unwrap_or(0)
    }

    #[inline(always)]
    fn half(&self, offset: u16) -> u32 {
        read_at(self.arg(0), offset).unwrap_or(0)
    }

    #[inline(always)]
    fn returned(&self) -> i32 {
        self.arg::<i64>(1) as i32
    }
}

/// Number of the system call.
#[inline(always)]
pub(crate) fn syscall_number(ctx: &impl AtReturn) -> u32 {
    ctx.half(offset!(regs_number))
}

/// [`Called::arguments`]: they are in the registers of a 64-bit program.
const NATIVE: u64 = 0;
/// [`Called::arguments`]: they are in the registers of a 32-bit program.
const NARROW: u64 = 1;

/// Arguments of a system call, read on demand.
pub(crate) struct Called<'a, C> {
    ctx: &'a C,
    /// Where the arguments are: [`NATIVE`], [`NARROW`], or else the address in the caller's memory of 32
    /// bits each (`socketcall`). One number: the verifier refuses the parts of an enum that are not
    /// initialised.
    arguments: u64,
}

/// The argument at this place, counted from 0.
macro_rules! argument {
    ($called:expr, $native:ident, $narrow:ident, $number:literal) => {
        match $called.arguments {
            NATIVE => $called.ctx.register(offset!($native)),
            NARROW => u64::from($called.ctx.half(offset!($narrow))),
            at => u64::from(read_user_u32(at.wrapping_add($number * 4)).unwrap_or(0)),
        }
    };
}

/// Number of `getsockopt` for `socketcall` (`SYS_GETSOCKOPT`).
const SOCKETCALL_GETSOCKOPT: u32 = 15;

impl<'a, C: AtReturn> Called<'a, C> {
    /// A call of a 64-bit program.
    #[inline(always)]
    pub(crate) const fn native(ctx: &'a C) -> Self {
        Self {
            ctx,
            arguments: NATIVE,
        }
    }

    /// A `getsockopt` of a 32-bit program, if it is one.
    #[inline(always)]
    pub(crate) fn narrow_getsockopt(ctx: &'a C, number: u32) -> Option<Self> {
        if !is_syscall_of_32_bits(ctx) {
            return None;
        }
        if number == syscall!(getsockopt_32) {
            return Some(Self {
                ctx,
                arguments: NARROW,
            });
        }
        if ctx.half(offset!(regs_argument_32_0)) != SOCKETCALL_GETSOCKOPT {
            return None;
        }
        let at = u64::from(ctx.half(offset!(regs_argument_32_1)));
        // No memory of a program, and not to be taken for the numbers above.
        if at <= NARROW {
            return None;
        }
        Some(Self { ctx, arguments: at })
    }

    #[inline(always)]
    pub(crate) fn fd(&self) -> u32 {
        argument!(self, regs_argument_0, regs_argument_32_0, 0) as u32
    }

    #[inline(always)]
    pub(crate) fn level(&self) -> u32 {
        argument!(self, regs_argument_1, regs_argument_32_1, 1) as u32
    }

    #[inline(always)]
    pub(crate) fn optname(&self) -> u32 {
        argument!(self, regs_argument_2, regs_argument_32_2, 2) as u32
    }

    /// First argument of `socket`.
    #[inline(always)]
    pub(crate) fn family(&self) -> u64 {
        argument!(self, regs_argument_0, regs_argument_32_0, 0)
    }

    /// Second argument of `socket`.
    #[inline(always)]
    pub(crate) fn kind(&self) -> u64 {
        argument!(self, regs_argument_1, regs_argument_32_1, 1)
    }

    /// Third argument of `socket`.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u64 {
        argument!(self, regs_argument_2, regs_argument_32_2, 2)
    }

    #[inline(always)]
    pub(crate) fn optval(&self) -> u64 {
        argument!(self, regs_argument_3, regs_argument_32_3, 3)
    }

    #[inline(always)]
    pub(crate) fn optlen(&self) -> u64 {
        argument!(self, regs_argument_4, regs_argument_32_4, 4)
    }
}

/// True if the system call that returns is one of a 32-bit program, with numbers of its own.
#[inline(always)]
pub(crate) fn is_syscall_of_32_bits(ctx: &impl AtReturn) -> bool {
    if is_arm64() {
        let mode = offset!(syscall_mode);
        return mode != ABSENT && ctx.half(mode) & PSR_MODE32 != 0;
    }
    read!(current_task(), syscall_mode).is_ok_and(|status: u32| status & TS_COMPAT != 0)
}
