//! Marks the sockets of a self-test, so that other instances on this host recognise them.
//!
//! The mark is an entry in a socket storage map with a name of its own: it ends with the socket,
//! accepted sockets inherit it, and every BPF program can read it there. Creating such a map
//! requires `CAP_BPF`, and adding an entry requires the map's descriptor: an unprivileged process
//! cannot mark its sockets (docs/decisions/0010-self-tests-are-marked-at-the-socket.md).

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use anyhow::Context as _;
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_map_type};
use mptcp_trace_common::record::SELF_TEST_MAP;

use super::syscall::bpf;

/// `BPF_F_NO_PREALLOC`, which the kernel requires of such maps, and `BPF_F_CLONE`: accepted sockets
/// inherit the mark.
const FLAGS: u32 = 1 | 1 << 9;

/// The map that holds the marks.
#[derive(Debug)]
pub struct Mark {
    map: OwnedFd,
}

impl Mark {
    /// Creates the map.
    ///
    /// # Errors
    ///
    /// Fails without `CAP_BPF`, and on kernels without socket storage.
    pub fn new() -> anyhow::Result<Self> {
        let types = types();
        let mut attr = blank();
        // SAFETY: the command uses this member of the union; it consists of integers.
        let load = unsafe { &mut attr.__bindgen_anon_7 };
        load.btf = types.as_ptr() as u64;
        load.btf_size = u32::try_from(types.len())?;
        let types = descriptor(bpf_cmd::BPF_BTF_LOAD, &mut attr)
            .context("cannot load the types of self-test marks")?;
        let mut attr = blank();
        // SAFETY: as above.
        let create = unsafe { &mut attr.__bindgen_anon_1 };
        create.map_type = bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as u32;
        create.key_size = 4;
        create.value_size = 4;
        create.map_flags = FLAGS;
        create.map_name = SELF_TEST_MAP.map(|byte| std::ffi::c_char::from_ne_bytes([byte]));
        create.btf_fd = types.as_raw_fd().cast_unsigned();
        create.btf_key_type_id = INTEGER;
        create.btf_value_type_id = INTEGER;
        let map = descriptor(bpf_cmd::BPF_MAP_CREATE, &mut attr)
            .context("cannot create the map of self-test marks")?;
        Ok(Self { map })
    }

    /// Marks a socket of this process.
    ///
    /// # Errors
    ///
    /// Fails if the kernel has no memory for the entry.
    pub fn socket(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let (key, value) = (socket.as_raw_fd(), 1_u32);
        let mut attr = blank();
        // SAFETY: the command uses this member of the union; it consists of integers.
        let update = unsafe { &mut attr.__bindgen_anon_2 };
        update.map_fd = self.map.as_raw_fd().cast_unsigned();
        update.key = (&raw const key) as u64;
        update.__bindgen_anon_1.value = (&raw const value) as u64;
        bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
    }
}

/// Type id of the only type below.
const INTEGER: u32 = 1;

/// BTF of a map from `int` to `int`.
fn types() -> Vec<u8> {
    const HEADER_BYTES: u32 = 24;
    const KIND_INT: u32 = 1 << 24;
    const SIGNED_32_BITS: u32 = 1 << 24 | 32;
    let strings = b"\0int\0";
    let integer = [1, KIND_INT, 4, SIGNED_32_BITS];
    let (types_bytes, strings_bytes) = (16, strings.len() as u32);
    let header = [HEADER_BYTES, 0, types_bytes, types_bytes, strings_bytes];
    let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
    // Version, and no flags.
    bytes.extend([1, 0]);
    bytes.extend(header.into_iter().chain(integer).flat_map(u32::to_ne_bytes));
    bytes.extend(strings);
    bytes
}

fn blank() -> bpf_attr {
    // SAFETY: an all-zero bpf_attr is valid: the kernel expects zeroes in unused fields.
    unsafe { std::mem::zeroed() }
}

fn descriptor(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let made = bpf(command, attr)?;
    // SAFETY: the descriptor was just created, and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}
