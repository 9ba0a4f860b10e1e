//! `mptcp-trace explain`: the meaning of a cause, a verdict or another word of a line, and what to
//! do next.

use std::{fmt::Write as _, fs};

use crate::cli::{DONE, Exit, USAGE, args::ExplainArgs, print};
use crate::{
    filter::closest,
    model::{
        CAUSES, CONNECT_CAUSES, Cause, FINGERPRINTS, JOIN_CAUSES, JOIN_REFUSALS, NEVER_TRIED,
        PATH_ENDS, RESET_REASONS, Verdict, all_causes, find_cause, find_term,
    },
    sink::{culprits, explanation, term, wrapped},
};

/// Width of a paragraph, columns.
const WIDTH: usize = 88;

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: &ExplainArgs) -> Result<u8, Exit> {
    let text = match &args.cause {
        None => list(&counters()),
        // Lines mark an inferred cause with `?`.
        Some(name) => explained(name.trim_end_matches('?')).ok_or_else(|| {
            let known = known();
            let advice = match closest(name, &known) {
                Some(closest) => format!("did you mean {closest}?"),
                None => "mptcp-trace explain lists all".to_owned(),
            };
            Exit::Because(USAGE, format!("no cause {name:?}: {advice}"))
        })?,
    };
    print(&text)?;
    Ok(DONE)
}

/// What can be explained.
fn known() -> Vec<&'static str> {
    let causes = all_causes().map(|it| it.name);
    let terms = NEVER_TRIED
        .iter()
        .chain(&RESET_REASONS)
        .chain(&FINGERPRINTS)
        .map(|it| it.name);
    causes
        .chain(Verdict::ALL.map(Verdict::name))
        .chain(terms)
        .collect()
}

fn explained(name: &str) -> Option<String> {
    if let Some(cause) = find_cause(name) {
        return Some(explanation(cause, WIDTH));
    }
    if let Some(verdict) = Verdict::find(name) {
        return Some(format!(
            "{}, a verdict: {}.\n{}\nmptcp-trace --verdict {} shows the queries and connections \
             with it.\nA program that has to know queries after connect() or accept(), and again \
             whenever the answer matters:\ngetsockopt(fd, SOL_TCP, TCP_IS_MPTCP) returns 1 as \
             long as the connection is MPTCP.\n",
            verdict.name(),
            verdict.meaning(),
            more(verdict),
            verdict.name()
        ));
    }
    let found = find_term(name)?;
    let about = match () {
        () if RESET_REASONS.contains(found) => "a reason in an RST (RFC 8684 section 3.6)",
        () if FINGERPRINTS.contains(found) => "what the packet that decided shows",
        () => "why a connection had no second path",
    };
    Some(term(found, about, WIDTH))
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

/// One line per cause, in groups, with its count in this network namespace.
fn list(counters: &[(String, u64)]) -> String {
    let groups: [(&str, &[Cause]); 5] = [
        ("Fallbacks, and what is around them", CAUSES),
        ("Connections that could not be opened", CONNECT_CAUSES),
        ("Paths of this end that could not join", JOIN_CAUSES),
        (
            "Paths of the peer that this end did not let join",
            JOIN_REFUSALS,
        ),
        ("Ends of paths", PATH_ENDS),
    ];
    let mut text = String::new();
    // Writing to memory does not fail.
    for (title, causes) in groups {
        let _infallible = writeln!(
            text,
            "{title}\n{:<26} {:>8}  {:<18} WHEN",
            "CAUSE", "COUNTED", "CULPRITS"
        );
        for cause in causes {
            let counted = counters
                .iter()
                .find(|(name, _)| name == cause.name)
                .map_or_else(|| "-".to_owned(), |(_, count)| count.to_string());
            let _infallible = writeln!(
                text,
                "{:<26} {counted:>8}  {:<18} {}",
                cause.name,
                culprits(cause),
                cause.when
            );
        }
        text.push('\n');
    }
    for (title, terms) in [
        ("Why there was no second path", &NEVER_TRIED[..]),
        ("Reasons in an RST", &RESET_REASONS[..]),
        ("What the packet that decided shows", &FINGERPRINTS[..]),
    ] {
        let names: Vec<&str> = terms.iter().map(|it| it.name).collect();
        let names = wrapped(&names.join(", "), WIDTH).join("\n");
        let _infallible = writeln!(text, "{title}\n{names}\n");
    }
    text.push_str(
        "COUNTED: by the kernel in this network namespace since its creation; - if there is none, or \
         this kernel lacks the counter.\n`mptcp-trace explain NAME` prints the details.\n",
    );
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
        // `plain` is no counter, but it has an explanation.
        for cause in all_causes().filter(|it| it.name != "plain") {
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
        for term in NEVER_TRIED.iter().chain(&RESET_REASONS) {
            assert!(text.contains(term.name), "{}", term.name);
        }
    }

    #[test]
    fn every_name_in_a_line_has_an_explanation() {
        for name in known() {
            let text = explained(name).unwrap();
            assert!(text.starts_with(name), "{name}: {text}");
            assert!(text.lines().count() > 3, "{name}: {text}");
        }
        assert_eq!(explained("no-such-name"), None);
    }
}
