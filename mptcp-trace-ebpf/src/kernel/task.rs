//! Tasks: the current one, open files, ids.

use super::*;
use crate::entry::Entry;
use mptcp_trace_common::map_values::Conn;

/// The current task, as an address.
#[inline(always)]
pub(crate) fn current_task() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_get_current_task() }
}

/// Control group (v2) of the current task.
#[inline(always)]
pub(crate) fn current_cgroup() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_get_current_cgroup_id() }
}

/// Network namespace of the current task, by inode number.
#[inline(always)]
pub(crate) fn current_netns() -> Result<u32, Fault> {
    let proxy: u64 = read!(current_task(), task_nsproxy)?;
    read!(read!(proxy, nsproxy_net)?, net_inum)
}

/// Writes the name of the task's process to the owner of a socket.
#[inline(always)]
pub(crate) fn put_process_comm(conn: Entry<Conn>, task: u64) {
    let leader = task_leader(task);
    let from = leader.wrapping_add(u64::from(offset!(task_comm)));
    // SAFETY: the helper writes 16 bytes, zeroes on a fault, to a place of 16 bytes in a map.
    unsafe {
        let to = (&raw mut (*conn.as_ptr()).owner.comm).cast();
        generated::bpf_probe_read_kernel(to, 16, from as *const c_void);
    }
}

/// True for a kernel thread; the idle task is none.
#[inline(always)]
pub(crate) fn is_kernel_thread(task: u64, tid: u32) -> bool {
    tid != 0 && read!(task, task_mm).is_ok_and(|memory: u64| memory == 0)
}

/// Real user id of a task that is not the current one.
#[inline(always)]
pub(crate) fn task_uid(task: u64) -> Result<u32, Fault> {
    let cred: u64 = read!(task, task_cred)?;
    read!(cred, cred_uid)
}

/// Control group (v2) of a task that is not the current one.
#[inline(always)]
pub(crate) fn task_cgroup(task: u64) -> Result<u64, Fault> {
    let set: u64 = read!(task, task_cgroups)?;
    let group: u64 = read!(set, cgroups_default)?;
    let node: u64 = read!(group, cgroup_node)?;
    read!(node, node_id)
}

/// The file of a descriptor of the current task, as an address.
#[inline(always)]
pub(crate) fn current_file(fd: u32) -> Result<u64, Fault> {
    let task = current_task();
    let files: u64 = read!(task, task_files)?;
    let mut table = StructPrefix::<2>::unread();
    table.read(read!(files, files_fdt)?)?;
    let size: u32 = table.get(offset!(fdt_max_fds))?;
    if fd >= size {
        return Err(Fault);
    }
    let array: u64 = table.get(offset!(fdt_fd))?;
    let file: u64 = read_at(array + u64::from(fd) * 8, 0)?;
    if file == 0 { Err(Fault) } else { Ok(file) }
}

/// The socket of a file; `None` if the file is not a socket.
#[inline(always)]
pub(crate) fn socket_of_file(file: u64) -> Option<Sock> {
    open_socket_of_file(file).map(|(_socket, sk)| sk)
}

/// Like [`socket_of_file`], but also returns the address of the `struct socket`.
#[inline(always)]
pub(crate) fn open_socket_of_file(file: u64) -> Option<(u64, Sock)> {
    let address: u64 = read!(file, file_private_data).ok()?;
    let mut socket = StructPrefix::<4>::unread();
    socket.read(address).ok()?;
    // The private data of another kind of file is not a `struct socket`: only a socket points back.
    let back: u64 = socket.get(offset!(socket_file)).ok()?;
    if back != file {
        return None;
    }
    let sk: u64 = socket.get(offset!(socket_sk)).ok()?;
    (sk != 0).then_some((address, Sock(sk)))
}

/// The socket that an `io_uring` request (`struct io_kiocb`) queried.
#[inline(always)]
pub(crate) fn socket_queried_by_uring(request: u64) -> Option<Sock> {
    /// Kernel UAPI: a command to the file itself, and the socket command that is `getsockopt`.
    const IORING_OP_URING_CMD: u8 = 46;
    const SOCKET_URING_OP_GETSOCKOPT: u32 = 2;
    let opcode: u8 = read_or_zero!(request, uring_opcode);
    if opcode != IORING_OP_URING_CMD {
        return None;
    }
    let command: u32 = read_or_zero!(request, uring_command);
    match command {
        SOCKET_URING_OP_GETSOCKOPT => socket_of_file(read_or_zero!(request, uring_file)),
        _other => None,
    }
}

/// Process and thread id of a task that is not the current one.
#[inline(always)]
pub(crate) fn task_ids(task: u64) -> Result<(u32, u32), Fault> {
    Ok((read!(task, task_tgid)?, read!(task, task_pid)?))
}

/// First thread of a task's process.
#[inline(always)]
pub(crate) fn task_leader(task: u64) -> u64 {
    read_or_zero!(task, task_group_leader)
}

/// Nesting level of a task's PID namespace; 0 for the initial one.
#[inline(always)]
pub(crate) fn pid_namespace_level(task: u64) -> u32 {
    let numbers: u64 = read_or_zero!(task, task_numbers);
    read_or_zero!(numbers, numbers_level)
}

/// A task's id in the PID namespace with this inode number, at the level that userspace determined;
/// 0 if it is not in that namespace. Not inlined, because every id of a record needs it.
#[inline(never)]
pub(crate) fn number_in_pid_namespace(task: u64, inum: u32) -> u32 {
    let level = CALIBRATED
        .get(calibrated::PIDNS_LEVEL)
        .map_or(0, |level| *level);
    let numbers: u64 = read_or_zero!(task, task_numbers);
    let deepest: u32 = read_or_zero!(numbers, numbers_level);
    if level > deepest {
        return 0;
    }
    let stride = u64::from(offset!(numbers_second)) - u64::from(offset!(numbers_first));
    let at = numbers + u64::from(level) * stride;
    let namespace: u64 = read_or_zero!(at, numbers_first_namespace);
    let its_inum: u32 = read_or_zero!(namespace, pidns_inum);
    match its_inum == inum {
        true => read_or_zero!(at, numbers_first),
        false => 0,
    }
}
