//! `mptcp-trace explain`: the meaning of a fallback counter, and what to do next.

use std::{fmt::Write as _, fs};

use crate::cli::{DONE, Exit, USAGE, args::ExplainArgs, print};
use crate::{
    filter::closest,
    model::{CAUSES, Verdict, find_cause},
    sink::{culprits, explanation},
};

/// Width of a paragraph, columns.
const WIDTH: usize = 88;

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: &ExplainArgs) -> Result<u8, Exit> {
    let text = match &args.cause {
        None => list(&counters()),
        // Lines mark an inferred cause with `?`.
        Some(name) => match find_cause(name.trim_end_matches('?')) {
            Some(cause) => explanation(cause, WIDTH),
            None if let Some(verdict) = Verdict::find(name.trim_end_matches('?')) => format!(
                "{}, a verdict: {}.\n{}\nmptcp-trace --verdict {} shows the queries and connections \
                 with it.\nA program that has to know queries after connect() or accept(), and again \
                 whenever the answer matters:\ngetsockopt(fd, SOL_TCP, TCP_IS_MPTCP) returns 1 as \
                 long as the connection is MPTCP.\n",
                verdict.name(),
                verdict.meaning(),
                more(verdict),
                verdict.name()
            ),
            None => {
                let causes = CAUSES.iter().map(|it| it.name);
                let known: Vec<&str> = causes.chain(Verdict::ALL.map(Verdict::name)).collect();
                let advice = match closest(name, &known) {
                    Some(closest) => format!("did you mean {closest}?"),
                    None => "mptcp-trace explain lists all".to_owned(),
                };
                let why = format!("no cause {name:?}: {advice}");
                return Err(Exit::Because(USAGE, why));
            }
        },
    };
    print(&text)?;
    Ok(DONE)
}

/// What else a reader of such a line has to know, in lines.
fn more(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::TooEarly => {
            "\nA line without a remote address: the query came before connect(), so the socket had no \
             peer yet, or\nit is of a listening socket. --columns adds the column id: lines with the \
             same id are about the same\nsocket, also once it is connected. If the connection \
             falls back and the program never\nqueries again, a closing verdict follows.\n"
        }
        Verdict::Explained
        | Verdict::PlainTcp
        | Verdict::StillMptcp
        | Verdict::Stale
        | Verdict::NeverAsked
        | Verdict::Unexplained
        | Verdict::Misled
        | Verdict::Unsupported
        | Verdict::Contradicted => "",
    }
}

/// One line per cause, with its count in this network namespace.
fn list(counters: &[(String, u64)]) -> String {
    let mut text = format!(
        "{:<26} {:>8}  {:<18} {}\n",
        "CAUSE", "COUNTED", "CULPRITS", "WHEN"
    );
    for cause in CAUSES {
        let counted = counters
            .iter()
            .find(|(name, _)| name == cause.name)
            .map_or_else(|| "-".to_owned(), |(_, count)| count.to_string());
        // Writing to memory does not fail.
        let _infallible = writeln!(
            text,
            "{:<26} {counted:>8}  {:<18} {}",
            cause.name,
            culprits(cause),
            cause.when
        );
    }
    text.push_str(
        "\nCOUNTED: by the kernel in this network namespace since its creation; - if \
                   this kernel ",
    );
    text.push_str("lacks the counter.\n`mptcp-trace explain CAUSE` prints the details.\n");
    text
}

/// The `MPTcpExt` counters of this network namespace; empty where the kernel has none.
fn counters() -> Vec<(String, u64)> {
    fs::read_to_string("/proc/net/netstat").map_or_else(|_| Vec::new(), |text| parse(&text))
}

/// Lines come in pairs, `MPTcpExt: NAME ...` and `MPTcpExt: VALUE ...`.
fn parse(netstat: &str) -> Vec<(String, u64)> {
    let mut lines = netstat
        .lines()
        .filter_map(|line| line.strip_prefix("MPTcpExt: "));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return Vec::new();
    };
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_name() {
        let netstat =
            "TcpExt: A B\nTcpExt: 1 2\nMPTcpExt: MPCapableSYNRX DssFallback\nMPTcpExt: 5 7\n";
        assert_eq!(
            parse(netstat),
            [
                ("MPCapableSYNRX".to_owned(), 5),
                ("DssFallback".to_owned(), 7)
            ]
        );
        assert_eq!(parse("TcpExt: A\nTcpExt: 1\n"), []);
        assert_eq!(parse("MPTcpExt: A\n"), []);
    }

    #[test]
    fn the_list_has_a_line_for_each_cause_and_its_count() {
        let text = list(&[("DssFallback".to_owned(), 7)]);
        for cause in CAUSES {
            assert!(
                text.lines().any(|line| line.starts_with(cause.name)),
                "{}",
                cause.name
            );
        }
        let line = text
            .lines()
            .find(|line| line.starts_with("DssFallback"))
            .unwrap_or_default();
        assert_eq!(line.split_whitespace().nth(1), Some("7"));
    }
}
