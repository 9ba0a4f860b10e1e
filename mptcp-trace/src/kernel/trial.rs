//! The smallest program there is, on a function of the kernel: where that is refused, ours need not be made ready.
//!
//! Some kernels have trampolines and let nobody use them. To find that out with our own programs would take the whole
//! object first, and as long as all the rest of a start.

use std::io;

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type};
use rustix::fd::{FromRawFd as _, OwnedFd};

/// `r0 = 0` and `exit`: the code of an instruction is its first byte.
const SAYS_NOTHING: [u8; 2] = [0xb7, 0x95];

/// Loads a program that says nothing, for the return of the function of that number, and lets go of it.
///
/// # Errors
///
/// What the kernel refused it with.
pub(super) fn trampoline(function: u32) -> io::Result<()> {
    let program = SAYS_NOTHING.map(|code| {
        // SAFETY: an all-zero bpf_insn is valid: integers only.
        let mut instruction: bpf_insn = unsafe { std::mem::zeroed() };
        instruction.code = code;
        instruction
    });
    // SAFETY: an all-zero bpf_attr is what the kernel wants of what is not set.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: of the parts that lie on top of each other, this one belongs to the command; all of them are integers.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
    load.expected_attach_type = bpf_attach_type::BPF_TRACE_FEXIT as u32;
    load.insns = program.as_ptr() as u64;
    load.insn_cnt = SAYS_NOTHING.len() as u32;
    load.license = c"GPL".as_ptr() as u64;
    load.attach_btf_id = function;
    // SAFETY: the command reads `attr`, and what it points at: both live until after the call.
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
            // SAFETY: the descriptor was just made, and nobody else knows of it.
            drop(unsafe { OwnedFd::from_raw_fd(made) });
            Ok(())
        }
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}
