//! Sockets that are there, for people: fixed columns, one line a socket.

use std::io::Write as _;

use super::text::{cause, who};
use crate::model::ConnectionEvent;

/// The names of the columns.
pub(super) fn header(out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _infallible = writeln!(
        out,
        "{:<11} {:<9} {:>7} {:<15} {:>10} LOCAL -> REMOTE",
        "STATE", "IS", "PID", "COMM", "NETNS"
    );
}

/// One line.
pub(super) fn socket(event: &ConnectionEvent, out: &mut Vec<u8>) {
    let connection = &event.connection;
    let socket = &connection.socket;
    let (pid, comm) = who(connection.owner.as_ref());
    let (is, why) = match connection.fell_back {
        Some(true) => ("FELL BACK", format!("  {}", cause(connection))),
        Some(false) => ("MPTCP", String::new()),
        None => ("?", String::new()),
    };
    let _infallible = writeln!(
        out,
        "{:<11} {is:<9} {pid:>7} {comm:<15} {:>10} {} -> {}{why}",
        socket.state, socket.netns, socket.local, socket.remote,
    );
}
