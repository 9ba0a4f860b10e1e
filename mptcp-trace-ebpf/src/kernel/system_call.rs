//! The context of a program that runs when a system call returns.

use super::*;

/// Context at the return of a system call, `sys_exit(struct pt_regs *regs, long ret)`.
pub(crate) trait AtReturn: EbpfContext {
    /// The register at this offset of `struct pt_regs`.
    fn register(&self, offset: u16) -> u64;

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
    fn returned(&self) -> i32 {
        self.arg::<i64>(1) as i32
    }
}

/// Number of the system call.
#[inline(always)]
pub(crate) fn syscall_number(ctx: &impl AtReturn) -> u32 {
    ctx.register(offset!(regs_number)) as u32
}

/// Arguments of a system call, read on demand.
pub(crate) struct Called<'a, C>(pub(crate) &'a C);

impl<C: AtReturn> Called<'_, C> {
    #[inline(always)]
    pub(crate) fn fd(&self) -> u32 {
        self.0.register(offset!(regs_argument_0)) as u32
    }

    #[inline(always)]
    pub(crate) fn level(&self) -> u32 {
        self.0.register(offset!(regs_argument_1)) as u32
    }

    #[inline(always)]
    pub(crate) fn optname(&self) -> u32 {
        self.0.register(offset!(regs_argument_2)) as u32
    }

    /// First argument of `socket`.
    #[inline(always)]
    pub(crate) fn family(&self) -> u64 {
        self.0.register(offset!(regs_argument_0))
    }

    /// Second argument of `socket`.
    #[inline(always)]
    pub(crate) fn kind(&self) -> u64 {
        self.0.register(offset!(regs_argument_1))
    }

    /// Third argument of `socket`.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u64 {
        self.0.register(offset!(regs_argument_2))
    }

    #[inline(always)]
    pub(crate) fn optval(&self) -> u64 {
        self.0.register(offset!(regs_argument_3))
    }

    #[inline(always)]
    pub(crate) fn optlen(&self) -> u64 {
        self.0.register(offset!(regs_argument_4))
    }
}

/// True if the current system call uses the numbers of 32-bit programs. On an architecture without
/// `task_syscall_status`, the registers of a 32-bit call cannot be mistaken for a query.
#[inline(always)]
pub(crate) fn is_syscall_of_32_bits() -> bool {
    read!(current_task(), task_syscall_status)
        .is_ok_and(|status: u32| status & SYSCALL_OF_32_BITS != 0)
}
