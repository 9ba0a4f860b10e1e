//! Open sockets as text: fixed columns, one line per socket.

use std::io::Write as _;

use super::text::{cause, who};
use crate::model::{ConnectionEvent, LastAsked};

/// Column header.
pub(super) fn header(out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _infallible = writeln!(
        out,
        "{:<11} {:<9} {:>8} {:>7} {:<15} {:>10} LOCAL -> REMOTE",
        "STATE", "IS", "SUBFLOWS", "PID", "COMM", "NETNS"
    );
}

/// One socket.
pub(super) fn socket(event: &ConnectionEvent, asked: Option<LastAsked>, out: &mut Vec<u8>) {
    let connection = &event.connection;
    let socket = &connection.socket;
    let (pid, comm) = who(connection.owner.as_ref());
    let mut story = Vec::new();
    let is = match connection.fell_back {
        Some(true) => {
            story.push(cause(connection));
            "FELL BACK"
        }
        Some(false) => "MPTCP",
        None => "?",
    };
    let subflows = connection
        .subflows
        .map_or_else(|| "?".to_owned(), |count| count.to_string());
    if let Some(LastAsked { at: _, api, answer }) = asked {
        let word = answer.word().unwrap_or("?");
        story.push(format!("told {word} ({})", api.name()));
    }
    let story = match &story[..] {
        [] => String::new(),
        words => format!("  {}", words.join(", ")),
    };
    let _infallible = writeln!(
        out,
        "{:<11} {is:<9} {subflows:>8} {pid:>7} {comm:<15} {:>10} {} -> {}{story}",
        socket.state, socket.netns, socket.local, socket.remote,
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Answer, Api, Finding, fixture::Row};

    #[test]
    fn a_line_has_what_is_known_and_question_marks_for_the_rest() {
        let Finding::Connection(fallen) = Row::default().connection() else {
            panic!("not a connection")
        };
        let last = LastAsked {
            at: Duration::ZERO,
            api: Api::TcpIsMptcp,
            answer: Answer::Tcp,
        };
        for (fell_back, subflows, asked, starts, ends) in [
            (
                Some(true),
                Some(1),
                Some(last),
                "ESTABLISHED FELL BACK        1       7 curl ",
                "192.0.2.7:443  DssFallback, told tcp (TCP_IS_MPTCP)\n",
            ),
            (
                Some(false),
                Some(12),
                None,
                "ESTABLISHED MPTCP           12       7 curl ",
                "192.0.2.7:443\n",
            ),
            (
                None,
                None,
                None,
                "ESTABLISHED ?                ?       7 curl ",
                "192.0.2.7:443\n",
            ),
        ] {
            let mut event = fallen.clone();
            event.connection.fell_back = fell_back;
            event.connection.subflows = subflows;
            let mut line = Vec::new();
            socket(&event, asked, &mut line);
            let line = String::from_utf8(line).unwrap();
            assert!(line.starts_with(starts) && line.ends_with(ends), "{line}");
        }
    }
}
