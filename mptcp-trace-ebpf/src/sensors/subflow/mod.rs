//! Reports how the paths of MPTCP connections come up, fail and end.
//!
//! The state of their TCP sockets is the backbone, with every attach method: a path begins when its
//! SYN is sent or its third ACK arrives, and ends when its socket is closed. Functions add why, and
//! joins that never have a socket. Nothing here runs for each packet.

mod happened;
mod joins;
mod life;
mod lost;
mod manager;
mod record;

pub(crate) use joins::lacks_context;
pub(crate) use life::{read, scan};

/// `TCP_*` of `include/net/tcp_states.h`, part of the kernel's UAPI.
const ESTABLISHED: u32 = 1;
const SYN_SENT: u32 = 2;
const SYN_RECV: u32 = 3;
const FIN_WAIT1: u32 = 4;
const CLOSE: u32 = 7;
const CLOSE_WAIT: u32 = 8;
const LISTEN: u32 = 10;
