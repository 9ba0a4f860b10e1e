//! Numbers of system calls, which depend on the architecture.

use crate::wire::structure;

/// A system call that an architecture does not have.
pub const NO_SYSCALL: u32 = u32::MAX;

structure! {
    /// Numbers, on one architecture, of the system calls whose return is probed.
    pub struct SyscallNumbers {
        /// `getsockopt`.
        pub getsockopt: u32,
        /// `setsockopt`.
        pub setsockopt: u32,
        /// `socket`.
        pub socket: u32,
        /// `accept`.
        pub accept: u32,
        /// `accept4`.
        pub accept4: u32,
        /// `getsockopt` of a 32-bit program.
        pub getsockopt_32: u32,
        /// `socketcall` of a 32-bit program, which makes all calls of sockets.
        pub socketcall_32: u32,
    }
}

impl SyscallNumbers {
    /// No system call is known.
    pub const NONE: Self = Self {
        getsockopt: NO_SYSCALL,
        setsockopt: NO_SYSCALL,
        socket: NO_SYSCALL,
        accept: NO_SYSCALL,
        accept4: NO_SYSCALL,
        getsockopt_32: NO_SYSCALL,
        socketcall_32: NO_SYSCALL,
    };
}

const _: () = assert!(size_of::<SyscallNumbers>() == 28);
