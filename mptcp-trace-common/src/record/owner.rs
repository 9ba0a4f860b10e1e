//! Owners of sockets.

use crate::wire::{names, structure};

names! {
    /// The action by which an owner was identified.
    OwnerVia: u8 {
        /// It created the socket.
        SOCKET = 1,
        /// It connected the socket.
        CONNECT = 2,
        /// It listens with the socket.
        LISTEN = 3,
        /// It accepted the socket.
        ACCEPT = 4,
        /// It sent or received data.
        IO = 5,
        /// It made a query on the socket.
        QUERY = 6,
        /// It owns the listener of the socket, which has not been accepted yet.
        LISTENER = 7,
        /// It had the socket open when tracing began.
        EXISTING = 8,
        /// The kernel created the socket for itself, and no process holds it.
        KERNEL = 9,
    }
}

structure! {
    /// The process that holds a socket, recorded while it was the current one; never the task of a
    /// softirq.
    pub struct Owner {
        /// Id of its cgroup (v2).
        pub cgroup_id: u64,
        /// Process (`task_struct.tgid`, initial PID namespace); 0 if no owner is known.
        pub tgid: u32,
        /// Thread that was observed (`task_struct.pid`, initial PID namespace).
        pub tid: u32,
        /// The process in the tracer's PID namespace; 0 if it is not in it.
        pub ns_tgid: u32,
        /// The thread in the tracer's PID namespace; 0 if it is not in it.
        pub ns_tid: u32,
        /// Real user id, initial user namespace.
        pub uid: u32,
        /// The action by which it was identified.
        pub via: OwnerVia,
        /// Aligns the next field.
        pub reserved: [u8; 3],
        /// Name of the process (its first thread), NUL-padded.
        pub comm: [u8; 16],
    }
}

impl Owner {
    /// [`Self::comm`] of a socket of the kernel's own that no kernel thread has used yet. Else `comm`,
    /// `tid` and `ns_tid` are those of such a thread.
    pub const KERNEL_COMM: [u8; 16] = *b"kernel\0\0\0\0\0\0\0\0\0\0";

    /// No owner is known.
    pub const NONE: Self = Self {
        cgroup_id: 0,
        tgid: 0,
        tid: 0,
        ns_tgid: 0,
        ns_tid: 0,
        uid: 0,
        via: OwnerVia(0),
        reserved: [0; 3],
        comm: [0; 16],
    };
}

const _: () = assert!(size_of::<Owner>() == 48);
