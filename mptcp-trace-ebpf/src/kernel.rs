//! Typed reads of kernel memory, through the layout of the running kernel. The only unsafe reads.
//!
//! Every function here answers "could not be read" with [`Fault`]; its caller counts it.

use aya_ebpf::helpers::{bpf_get_current_task, bpf_probe_read_kernel, bpf_probe_read_user};
use mptcp_trace_common::layout::ABSENT;

use crate::maps::LAYOUT;

/// A read of kernel or user memory that failed.
pub(crate) struct Fault;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;

/// The offset of one member, as the loader found it in the kernel's BTF.
macro_rules! offset {
    ($field:ident) => {{
        // SAFETY: LAYOUT is a static of this program. The read is volatile because the loader writes the
        // value between compilation and loading.
        unsafe { core::ptr::read_volatile(&raw const LAYOUT.$field) }
    }};
}

/// Reads the member `$field` of the structure at `$base`.
macro_rules! read {
    ($base:expr, $field:ident) => {
        read_at($base, offset!($field))
    };
}

#[inline(always)]
fn read_at<T>(base: u64, offset: u16) -> Result<T, Fault> {
    if offset == ABSENT || base == 0 {
        return Err(Fault);
    }
    // SAFETY: the helper copes with any address; a bad one is an error, not a fault of the kernel.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.map_err(|_errno| Fault)
}

/// A `struct sock` of the kernel, by address.
#[derive(Clone, Copy)]
pub(crate) struct Sock(pub(crate) u64);

/// Where a connection goes from and to; addresses in network byte order.
pub(crate) struct Endpoints {
    pub(crate) local_addr: [u8; 16],
    pub(crate) remote_addr: [u8; 16],
    pub(crate) local_port: u16,
    pub(crate) remote_port_be: u16,
}

impl Sock {
    #[inline(always)]
    pub(crate) fn family(self) -> Result<u16, Fault> {
        read!(self.0, sock_family)
    }

    #[inline(always)]
    pub(crate) fn state(self) -> Result<u8, Fault> {
        read!(self.0, sock_state)
    }

    #[inline(always)]
    pub(crate) fn protocol(self) -> Result<u16, Fault> {
        read!(self.0, sock_protocol)
    }

    /// Inode number of the network namespace.
    #[inline(always)]
    pub(crate) fn netns(self) -> Result<u32, Fault> {
        read!(read!(self.0, sock_net)?, net_inum)
    }

    /// Inode number of the socket; none before it is accepted.
    #[inline(always)]
    pub(crate) fn inode(self) -> Result<u64, Fault> {
        read!(read!(self.0, sock_socket)?, socket_alloc_inode_number)
    }

    #[inline(always)]
    pub(crate) fn endpoints(self, family: u16) -> Result<Endpoints, Fault> {
        let mut ends = Endpoints {
            local_addr: [0; 16],
            remote_addr: [0; 16],
            local_port: read!(self.0, sock_num)?,
            remote_port_be: read!(self.0, sock_dport)?,
        };
        if family == AF_INET6 {
            ends.local_addr = read!(self.0, sock_v6_rcv_saddr)?;
            ends.remote_addr = read!(self.0, sock_v6_daddr)?;
        } else {
            let local: [u8; 4] = read!(self.0, sock_rcv_saddr)?;
            let remote: [u8; 4] = read!(self.0, sock_daddr)?;
            ends.local_addr[..4].copy_from_slice(&local);
            ends.remote_addr[..4].copy_from_slice(&remote);
        }
        Ok(ends)
    }

    /// State bits of an MPTCP connection.
    #[inline(always)]
    pub(crate) fn msk_flags(self) -> Result<u64, Fault> {
        read!(self.0, msk_flags)
    }

    /// The MPTCP connection of a TCP socket that is its subflow.
    #[inline(always)]
    pub(crate) fn msk_of_subflow(self) -> Option<Sock> {
        // Other upper layer protocols (tls) use icsk_ulp_data too: is_mptcp decides whose it is.
        let is_mptcp: u8 = read!(self.0, tcp_is_mptcp).ok()?;
        if is_mptcp == 0 {
            return None;
        }
        let context: u64 = read!(self.0, icsk_ulp_data).ok()?;
        let msk: u64 = read!(context, subflow_conn).ok()?;
        (msk != 0).then_some(Sock(msk))
    }
}

/// True for the sockets that a query can be about.
#[inline(always)]
pub(crate) fn is_tcp_or_mptcp(family: u16, protocol: u16) -> bool {
    (family == AF_INET || family == AF_INET6)
        && (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP)
}

/// True for the protocol number of MPTCP sockets.
#[inline(always)]
pub(crate) fn is_mptcp(protocol: u16) -> bool {
    protocol == IPPROTO_MPTCP
}

/// The file behind a descriptor of the current task, as an address.
#[inline(always)]
pub(crate) fn current_file(fd: u32) -> Result<u64, Fault> {
    // SAFETY: the helper has no precondition.
    let task = unsafe { bpf_get_current_task() };
    let files: u64 = read!(task, task_files)?;
    let table: u64 = read!(files, files_fdt)?;
    let size: u32 = read!(table, fdt_max_fds)?;
    if fd >= size {
        return Err(Fault);
    }
    let array: u64 = read!(table, fdt_fd)?;
    let file: u64 = read_at(array + u64::from(fd) * 8, 0)?;
    if file == 0 { Err(Fault) } else { Ok(file) }
}

/// The socket behind a file, or nothing if it is no socket.
#[inline(always)]
pub(crate) fn socket_of_file(file: u64) -> Option<Sock> {
    let socket: u64 = read!(file, file_private_data).ok()?;
    // What stands behind a file of another kind is not a `struct socket`: only a socket points back.
    let back: u64 = read!(socket, socket_file).ok()?;
    if back != file {
        return None;
    }
    let sk: u64 = read!(socket, socket_sk).ok()?;
    (sk != 0).then_some(Sock(sk))
}

/// Process and thread id of a task that is not the current one.
#[inline(always)]
pub(crate) fn task_ids(task: u64) -> Result<(u32, u32), Fault> {
    Ok((read!(task, task_tgid)?, read!(task, task_pid)?))
}

/// Four bytes of the caller's memory.
#[inline(always)]
pub(crate) fn read_user_u32(address: u64) -> Result<u32, Fault> {
    // SAFETY: the helper copes with any address.
    unsafe { bpf_probe_read_user(address as *const u32) }.map_err(|_errno| Fault)
}

/// One byte of the caller's memory.
#[inline(always)]
pub(crate) fn read_user_u8(address: u64) -> Result<u8, Fault> {
    // SAFETY: the helper copes with any address.
    unsafe { bpf_probe_read_user(address as *const u8) }.map_err(|_errno| Fault)
}
