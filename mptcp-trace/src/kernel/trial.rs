//! A minimal program on a kernel function: if the kernel refuses it, ours need not be prepared.
//!
//! Some kernels have trampolines but do not let programs use them. To find out with our own
//! programs would first require loading the whole object, which takes as long as the rest of the
//! start.

use std::io;

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type};
use rustix::fd::{FromRawFd as _, OwnedFd};

/// `r0 = 0` and `exit`: the opcode of an instruction is its first byte.
const SAYS_NOTHING: [u8; 2] = [0xb7, 0x95];

/// Loads an empty program for the return of the function with this type id, and unloads it.
///
/// # Errors
///
/// The errno with which the kernel refused.
pub(super) fn trampoline(function: u32) -> io::Result<()> {
    let program = SAYS_NOTHING.map(|code| {
        // SAFETY: an all-zero bpf_insn is valid: integers only.
        let mut instruction: bpf_insn = unsafe { std::mem::zeroed() };
        instruction.code = code;
        instruction
    });
    // SAFETY: an all-zero bpf_attr is valid: the kernel expects zeroes in unused fields.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the command uses this member of the union; all members consist of integers.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
    load.expected_attach_type = bpf_attach_type::BPF_TRACE_FEXIT as u32;
    load.insns = program.as_ptr() as u64;
    load.insn_cnt = SAYS_NOTHING.len() as u32;
    load.license = c"GPL".as_ptr() as u64;
    load.attach_btf_id = function;
    // SAFETY: the command reads `attr` and what it points at: both live until after the call.
    let made = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_PROG_LOAD,
            &raw mut attr,
            size_of_val(&attr),
        )
    };
    match i32::try_from(made) {
        Ok(made) if made >= 0 => {
            // SAFETY: the descriptor was just created, and has no other owner.
            drop(unsafe { OwnedFd::from_raw_fd(made) });
            Ok(())
        }
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}
