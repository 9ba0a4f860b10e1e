//! Rows of findings, and the filters that admit them.

use super::*;
use crate::model::{
    ConnectionKind, PathKind,
    fixture::{Row, a_path, cleared},
};

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn everything() -> FindingFilter {
    FindingFilter::default()
}

fn check(wanted: &FindingFilter, finding: &Finding, is_wanted: bool) {
    let path_of = |id| (id == 5).then_some("/a/b.service");
    assert_eq!(
        wanted.matches(finding, &path_of),
        is_wanted,
        "{wanted:?} {finding:?}"
    );
}

#[test]
fn who_asks_for_nothing_gets_everything() {
    for finding in [
        Row::default().connection(),
        Row {
            cause: None,
            ..Row::default()
        }
        .query(),
    ] {
        check(&everything(), &finding, true);
    }
}

#[test]
fn a_cause_is_carried_by_a_fallback_and_by_every_verdict_that_stands_on_it() {
    let of = |name| FindingFilter {
        causes: vec![cause(name).unwrap().into()],
        ..everything()
    };
    let row = Row {
        verdict: Some(Verdict::Explained),
        ..Row::default()
    };
    for finding in [row.connection(), row.query(), row.closing_verdict()] {
        check(&of("DssFallback"), &finding, true);
        check(&of("mptcpextdssfallback"), &finding, true);
        check(&of("InfiniteMapTx"), &finding, false);
    }
    let bare = Row { cause: None, ..row };
    check(&of("DssFallback"), &bare.query(), false);
    let plain = Row {
        kind: ConnectionKind::Plain,
        ..bare
    };
    check(&of("plain"), &plain.connection(), true);
    check(&of("DssFallback"), &plain.connection(), false);
    let blackhole = Row {
        kind: ConnectionKind::Blackhole,
        ..bare
    };
    check(&of("Blackhole"), &blackhole.connection(), true);
    let both = FindingFilter {
        causes: ["InfiniteMapTx", "DssFallback"].map(Choice::from).to_vec(),
        ..everything()
    };
    check(&both, &row.connection(), true);
}

#[test]
fn only_queries_and_closing_verdicts_carry_a_verdict() {
    let of = |name| FindingFilter {
        verdicts: vec![verdict(name).unwrap().into()],
        ..everything()
    };
    let row = Row {
        verdict: Some(Verdict::Stale),
        ..Row::default()
    };
    for (name, holds) in [("stale", true), ("STALE", true), ("explained", false)] {
        check(&of(name), &row.query(), holds);
        check(&of(name), &row.closing_verdict(), holds);
        check(&of(name), &row.connection(), false);
    }
    check(
        &of("stale"),
        &Row {
            verdict: None,
            ..row
        }
        .query(),
        false,
    );
}

#[test]
fn either_end_may_have_the_address_and_the_port() {
    let row = Row::default();
    for (text, holds) in [
        ("10.0.0.1", true),
        ("192.0.2.7", true),
        ("192.0.2.0/24", true),
        ("192.0.3.0/24", false),
        ("::/0", false),
    ] {
        let wanted = FindingFilter {
            addrs: vec![prefix(text).into()],
            ..everything()
        };
        check(&wanted, &row.connection(), holds);
        check(&wanted, &row.query(), holds);
    }
    for (port, holds) in [
        ("1000", true),
        ("443", true),
        ("400-500", true),
        ("80-90", false),
    ] {
        let wanted = FindingFilter {
            ports: vec![Ports::parse(port).unwrap().into()],
            ..everything()
        };
        check(&wanted, &row.connection(), holds);
        check(&wanted, &row.query(), holds);
    }
}

#[test]
fn processes_namespaces_and_control_groups_are_those_of_the_owner_or_of_the_caller() {
    let row = Row::default();
    let with = |change: fn(&mut FindingFilter)| {
        let mut wanted = everything();
        change(&mut wanted);
        wanted
    };
    let group = |text: &str| FindingFilter {
        cgroups: vec![Cgroup::parse(text).unwrap()],
        ..everything()
    };
    for (wanted, holds) in [
        (with(|it| it.pids = vec![7]), true),
        (with(|it| it.pids = vec![8]), false),
        (with(|it| it.comms = vec!["curl".into()]), true),
        (with(|it| it.comms = vec!["cur".into()]), false),
        (with(|it| it.netns = vec![9]), true),
        (with(|it| it.netns = vec![10]), false),
        (group("5"), true),
        (group("6"), false),
        (group("/a/b.service"), true),
        (group("/sys/fs/cgroup/a/b.service/"), true),
        (group("/a"), true),
        (group("/"), true),
        (group("/a/b"), false),
        (group("/a/b.service/c"), false),
    ] {
        check(&wanted, &row.connection(), holds);
        check(&wanted, &row.query(), holds);
    }
    let stranger = Row {
        cgroup_id: 6,
        cgroup: None,
        ..row
    };
    check(&group("/"), &stranger.query(), false);
}

#[test]
fn options_must_all_hold() {
    let wanted = FindingFilter {
        pids: vec![7],
        ports: vec![Ports::parse("80").unwrap().into()],
        ..everything()
    };
    check(&wanted, &Row::default().connection(), false);
}

#[test]
fn an_unknown_name_is_answered_with_the_closest_one_or_with_the_list() {
    for (why, says) in [
        (
            cause("DssFallbak").unwrap_err(),
            "did you mean DssFallback?",
        ),
        (cause("nonsense").unwrap_err(), "known are "),
        (
            verdict("neverasked").unwrap_err(),
            "did you mean never-asked?",
        ),
        (verdict("fine").unwrap_err(), "known are explained, "),
        (kind("fallbacks").unwrap_err(), "did you mean fallback?"),
        (
            FailOn::parse("fallbak").unwrap_err(),
            "did you mean fallback?",
        ),
        (FailOn::parse("stael").unwrap_err(), "did you mean stale?"),
        (pid("nginx").unwrap_err(), "--comm nginx"),
        (pid("0").unwrap_err(), "start at 1"),
        (pid("-3").unwrap_err(), "write a process id"),
        (
            Ports::parse("90-80").unwrap_err(),
            "lower port first: 80-90",
        ),
        (Ports::parse("0").unwrap_err(), "from 1 to 65535"),
        (Ports::parse("http").unwrap_err(), "8000-8080"),
        (addr("[::1]:443").unwrap_err(), "--port 443"),
        (addr("localhost").unwrap_err(), "write 192.0.2.7"),
    ] {
        assert!(why.contains(says), "{why:?} lacks {says:?}");
    }
    assert!(Cgroup::parse("nginx.service").is_err());
    assert!(Cgroup::parse("").is_err());
}

#[test]
fn addresses_are_taken_as_people_write_them() {
    for (typed, means) in [
        ("::1", "::1/128"),
        ("[::1]", "::1/128"),
        ("fe80::5%eth0", "fe80::5/128"),
        ("[fe80::5%eth0]", "fe80::5/128"),
        ("fe80::%eth0/64", "fe80::/64"),
        ("[2001:db8::]/32", "2001:db8::/32"),
        ("192.0.2.0/24", "192.0.2.0/24"),
    ] {
        assert_eq!(addr(typed).unwrap().to_string(), means, "{typed}");
    }
}

#[test]
fn a_value_after_an_exclamation_mark_is_left_out() {
    let row = Row {
        verdict: Some(Verdict::Explained),
        ..Row::default()
    };
    let causes = |typed: &[&str]| FindingFilter {
        causes: typed.iter().map(|it| choice(cause)(it).unwrap()).collect(),
        ..everything()
    };
    for (typed, holds) in [
        (&["!DssFallback"][..], false),
        (&["!InfiniteMapTx"], true),
        // What is left out is left out whatever else is wanted.
        (&["DssFallback", "!DssFallback"], false),
        (&["DssFallback", "!InfiniteMapTx"], true),
        (&["InfiniteMapTx", "!DssFallback"], false),
    ] {
        check(&causes(typed), &row.connection(), holds);
        check(&causes(typed), &row.query(), holds);
    }
    // A finding without a cause has none of those that are left out.
    let bare = Row { cause: None, ..row };
    check(&causes(&["!DssFallback"]), &bare.query(), true);
    assert!(choice(cause)("!nonsense").is_err());
}

#[test]
fn findings_are_of_one_kind_each() {
    let row = Row {
        verdict: Some(Verdict::Stale),
        ..Row::default()
    };
    for (finding, of) in [
        (row.query(), "query"),
        (row.connection(), "fallback"),
        (row.closing_verdict(), "verdict"),
    ] {
        for name in Finding::KINDS {
            let wanted = FindingFilter {
                kinds: vec![kind(name).unwrap().into()],
                ..everything()
            };
            check(&wanted, &finding, name == of);
        }
    }
    assert_eq!(kind("option-refused"), Ok("option_refused"));
}

#[test]
fn a_run_fails_on_what_was_named_and_on_nothing_else() {
    let row = Row {
        verdict: Some(Verdict::Stale),
        ..Row::default()
    };
    let existing = Row {
        kind: ConnectionKind::Existing,
        ..row
    };
    for (word, fallback, query, closing_verdict) in [
        ("fallback", true, false, false),
        ("Fallback", true, false, false),
        ("stale", false, true, true),
        ("explained", false, false, false),
        ("DssFallback", true, true, true),
        ("MPTcpExtInfiniteMapTx", false, false, false),
    ] {
        let on = FailOn::parse(word).unwrap();
        assert_eq!(on.matches(&row.connection()), fallback, "{word}");
        assert_eq!(on.matches(&row.query()), query, "{word}");
        assert_eq!(
            on.matches(&row.closing_verdict()),
            closing_verdict,
            "{word}"
        );
    }
    assert!(!FailOn::Fallback.matches(&existing.connection()));
}

#[test]
fn a_group_of_kinds_holds_its_kinds_and_paths_that_work_are_routine() {
    let down = |cause: &'static str| {
        let mut path = a_path(PathKind::Down);
        path.cause = Some(cause.into());
        Row::default().path(path)
    };
    let of = |name| FindingFilter {
        kinds: vec![choice(kind)(name).unwrap()],
        ..everything()
    };
    for (finding, is_routine) in [
        (Row::default().path(a_path(PathKind::Up)), true),
        (Row::default().path(a_path(PathKind::Priority)), true),
        (down("connection-closed"), true),
        (down("removed"), true),
        (down("timeout"), false),
        (Row::default().path(a_path(PathKind::Failed)), false),
        (Row::default().path(a_path(PathKind::ConnectFailed)), false),
        (Row::default().path(a_path(PathKind::Stale)), false),
        (Row::default().path(a_path(PathKind::Recovered)), false),
    ] {
        assert_eq!(finding.is_routine(), is_routine, "{finding:?}");
        for (name, is_wanted) in [
            ("path", true),
            ("all", true),
            ("ALL", true),
            (finding.kind(), true),
            ("closed", false),
            ("query", false),
        ] {
            check(&of(name), &finding, is_wanted);
            assert_eq!(of(name).names(&finding), is_wanted, "{name}");
        }
        check(&of("!path"), &finding, false);
        assert!(!of("!path").names(&finding) && !of("!query").names(&finding));
        assert!(!everything().names(&finding));
    }
    let closed = Row::default().closed(|_| {});
    assert!(!closed.is_routine());
    check(&of("all"), &closed, true);
    check(&of("path"), &closed, false);
    check(&of("path"), &Row::default().connection(), false);
    assert_eq!(kind("path-failed"), Ok("path_failed"));
}

#[test]
fn a_reset_reason_is_a_name_or_a_code_and_a_cause_may_be_that_of_a_path() {
    let failed = Row::default().path(a_path(PathKind::Failed));
    for (text, is_wanted) in [
        ("prohibited", true),
        ("Prohibited", true),
        ("3", true),
        ("1", false),
        ("middlebox", false),
        ("!prohibited", false),
        ("!0", true),
    ] {
        let wanted = FindingFilter {
            reset_reasons: vec![choice(reset_reason)(text).unwrap()],
            ..everything()
        };
        check(&wanted, &failed, is_wanted);
        // It has no reset: no reason to show, none to leave out.
        check(&wanted, &Row::default().connection(), text.starts_with('!'));
    }
    for wrong in ["", "256", "-1", "prohibit", "nonsense"] {
        let why = reset_reason(wrong).unwrap_err();
        assert!(why.contains("code"), "{why}");
    }
    let wanted = FindingFilter {
        causes: vec![cause("mptcpextmpjoinackrejected").unwrap().into()],
        ..everything()
    };
    check(&wanted, &failed, true);
    check(&wanted, &Row::default().connection(), false);
    let on = FailOn::parse("MPJoinAckRejected").unwrap();
    assert!(on.rests_on_paths() && !on.rests_on_fallbacks() && !on.rests_on_queries());
    assert!(on.matches(&failed) && !on.matches(&Row::default().connection()));
    let on = FailOn::parse("DssFallback").unwrap();
    assert!(!on.rests_on_paths() && on.rests_on_fallbacks());
}

#[test]
fn whose_connections_are_shown_does_not_depend_on_what_findings_say() {
    let wanted = FindingFilter {
        kinds: vec![kind("query").unwrap().into()],
        causes: vec![cause("DssFallback").unwrap().into()],
        verdicts: vec![verdict("stale").unwrap().into()],
        reset_reasons: vec![3.into()],
        pids: vec![7],
        ..everything()
    };
    let closed = Row::default().closed(|_| {});
    check(&wanted, &closed, false);
    check(&wanted.of_connections(), &closed, true);
    let other = Row {
        pid: 8,
        ..Row::default()
    };
    check(&wanted.of_connections(), &other.closed(|_| {}), false);
}

#[test]
fn findings_are_selected_by_what_their_packet_shows() {
    let of = |text: &str| FindingFilter {
        packets: vec![choice(packet)(text).unwrap()],
        ..everything()
    };
    let with = cleared(Row::default().connection());
    let without = Row::default().connection();
    check(&of("option-cleared"), &with, true);
    check(&of("Option-Cleared"), &with, true);
    check(&of("option-absent"), &with, false);
    check(&of("!option-cleared"), &with, false);
    check(&of("option-cleared"), &without, false);
    check(&of("!option-cleared"), &without, true);
    assert!(of("option-cleared").names(&with));
    assert!(!of("option-cleared").names(&without));
    let closed = cleared(Row::default().path(a_path(PathKind::Down)));
    assert!(of("option-cleared").names(&closed));
    assert_eq!(of("option-cleared").of_connections(), everything());
}

#[test]
fn what_a_packet_shows_is_no_cause_and_the_error_names_the_option() {
    for shown in Shown::ALL {
        let why = cause(shown.name()).unwrap_err();
        assert!(
            why.ends_with(&format!("--packet {}", shown.name())),
            "{why}"
        );
        assert_eq!(packet(shown.name()), Ok(shown));
    }
    let why = packet("option-clear").unwrap_err();
    assert!(why.contains("did you mean option-cleared?"), "{why}");
}
