//! Who acts in a recipe, and what an actor tries.

use crate::{net::Endpoint, option::Choice};

/// The acting processes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Who {
    /// The client.
    Client,
    /// A child of the client's process.
    ClientChild,
    /// Another process on the client's side.
    Other,
    /// The server.
    Server,
    /// A child of the server's process.
    ServerChild,
    /// An external program on the client's side, not part of the lab.
    Program,
}

impl Who {
    /// Process name.
    #[must_use]
    pub fn comm(self) -> &'static str {
        match self {
            Self::Client => "lab-client",
            Self::ClientChild => "lab-c-child",
            Self::Other => "lab-other",
            Self::Server => "lab-server",
            Self::ServerChild => "lab-s-child",
            Self::Program => "program",
        }
    }
}

/// Kind of the socket at the time of the attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    /// A socket that is MPTCP at that time.
    Mptcp,
    /// A socket that is TCP, from the beginning or after a fallback.
    Tcp,
}

/// An attempt of an application and its result.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Acting process.
    pub who: Who,
    /// Process number.
    pub pid: u32,
    /// Operation attempted.
    pub what: Aim,
    /// Result: `ok`, or the name of the errno.
    pub told: String,
}

/// An operation that the kernel may refuse.
#[derive(Clone, Debug)]
pub enum Aim {
    /// Create an MPTCP socket.
    Socket,
    /// Set or get a socket option.
    Option {
        /// The option and the operation on it.
        choice: Choice,
        /// Kind of the socket.
        held: Held,
        /// Local address of the socket.
        local: Endpoint,
        /// Remote address, if connected.
        remote: Option<Endpoint>,
    },
}
