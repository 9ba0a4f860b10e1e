use super::*;
use crate::model::{
    Dump, Finding, Loss, Path, PathId, PathKind, PathRole, Reconciliation, Reconciliations, Rung,
    SensorId, SensorState, SocketId, Verdict as V,
    fixture::{Row, a_path, cleared},
};

const HOSTILE: &str = "<script>alert(1)</script>\" onload='x'\u{202e}\u{200b}\u{1b}[31m";

fn facts(sensor: SensorId) -> Facts {
    Facts {
        version: HOSTILE.into(),
        kernel: HOSTILE.into(),
        boot_epoch: Duration::from_secs(1_700_000_000),
        fallback_bit: None,
        causes: Vec::new(),
        counters_read_at: BTreeMap::new(),
        counters_listed_at: None,
        counters_at_start: BTreeMap::new(),
        sensors: vec![SensorState {
            sensor,
            rung: Rung::Fexit,
            probes: vec![HOSTILE.into()],
            limits: vec![HOSTILE.into()],
        }],
        dump: None,
    }
}

fn draw(findings: &[Finding], state: &State, ending: &Ending) -> String {
    draw_of(findings, state, ending, false)
}

fn draw_of(findings: &[Finding], state: &State, ending: &Ending, is_selection: bool) -> String {
    let mut gathered = Gathered::default();
    for finding in findings {
        gathered.add(finding);
    }
    gathered.finish();
    let text = page(&Report {
        title: HOSTILE,
        facts: &facts(SensorId::Query),
        gathered: &gathered,
        state,
        ending,
        is_selection,
        utc: true,
    });
    check_form(&text);
    text
}

/// What is opened is closed, in order, and nothing is fetched or run.
fn check_form(page: &str) {
    const VOID: [&str; 3] = ["meta", "br", "input"];
    let lower = page.to_lowercase();
    for word in [
        "<script",
        "http:",
        "https:",
        "javascript:",
        "url(",
        "@import",
        "src=",
        "\u{202e}",
        "\u{200b}",
        "\u{1b}",
    ] {
        assert!(!lower.contains(word), "{word:?} is in the page");
    }
    let mut open = Vec::new();
    let body = page.split_once("</style>").unwrap();
    let head = body.0.split_once("<style>").unwrap().0;
    for part in format!("{head}{}", body.1).split('<').skip(2) {
        let (tag, _) = part
            .split_once('>')
            .unwrap_or_else(|| panic!("no end of <{part}"));
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name.to_owned()));
            continue;
        }
        let name = tag.split_whitespace().next().unwrap();
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        assert!(!tag.contains(" onload="), "{tag}");
        if !VOID.contains(&name) {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty(), "{open:?} are not closed");
}

fn hostile() -> Vec<Finding> {
    let row = Row {
        comm: HOSTILE,
        cause: Some(HOSTILE),
        ..Row::default()
    };
    let asked = Row {
        verdict: Some(V::Stale),
        ..row
    };
    vec![row.connection(), asked.query(), asked.closing_verdict()]
}

#[test]
fn nothing_from_outside_is_obeyed() {
    let differs = Reconciliation {
        counted: [(HOSTILE.to_owned(), 1)].into(),
        why: Some(HOSTILE.into()),
        ..Reconciliation::default()
    };
    let state = State {
        reconciled: Reconciliations {
            fallbacks: vec![differs.clone()],
            paths: vec![differs],
        },
        losses: LossReport {
            sensors: vec![Loss::none(SensorId::Query)],
            ..LossReport::default()
        },
        ..State::default()
    };
    for ending in [Ending::Orderly, Ending::Damaged(HOSTILE.into())] {
        let page = draw(&hostile(), &state, &ending);
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(page.contains("\\u{202e}\\u{200b}\\u{1b}[31m"));
    }
}

#[test]
fn names_are_cut_and_invisible_letters_are_spelled_out() {
    for (text, is_shown) in [
        ("curl", "curl"),
        ("żółw", "żółw"),
        ("a\u{61c}b\u{feff}", "a\\u{61c}b\\u{feff}"),
        ("two\nlines", "two\\nlines"),
        ("0123456789x", "0123456789\u{2026}"),
    ] {
        assert_eq!(shown(text, 10), is_shown);
    }
}

#[test]
fn the_page_of_an_empty_capture_says_that_it_is_empty() {
    let page = draw(&[], &State::default(), &Ending::Orderly);
    assert!(page.contains("No findings: no MPTCP connection and no query observed."));
    assert!(!page.contains("id=\"worst\"") && !page.contains("id=\"causes\""));
    assert!(page.contains("id=\"losses\"") && page.contains("id=\"origin\""));
}

#[test]
fn a_report_of_a_truncated_capture_begins_with_that_and_denies_no_loss() {
    for (ending, says) in [
        (Ending::CutOff, "The capture is cut off."),
        (Ending::Damaged("frame".into()), "The capture is damaged."),
    ] {
        let page = draw(&hostile(), &State::default(), &ending);
        assert!(page.find(says).unwrap() < page.find("<main>").unwrap());
        assert!(!page.contains("No losses: every event"));
        assert!(page.contains("<dd>?</dd>"));
    }
    let page = draw(&hostile(), &State::default(), &Ending::Orderly);
    assert!(!page.contains("cut off."));
}

#[test]
fn losses_are_shown_with_their_numbers() {
    let loss = Loss {
        seen: 1234,
        emitted: 1200,
        ring_full: 34,
        missed: 7,
        ..Loss::none(SensorId::Query)
    };
    let mut state = State {
        losses: LossReport {
            sensors: vec![loss],
            ..LossReport::default()
        },
        ..State::default()
    };
    let page = draw(&hostile(), &state, &Ending::Orderly);
    for says in [
        "41 events were",
        "1\u{202f}234",
        ">34<",
        ">7<",
        "Some events were lost",
    ] {
        assert!(page.contains(says), "{says}");
    }
    state.losses.sensors[0].emitted = 1;
    let page = draw(&hostile(), &state, &Ending::Orderly);
    assert!(page.contains("no: please report this"));
    state.losses.sensors.clear();
    state.reconciled.fallbacks = vec![Reconciliation {
        netns: 77,
        counted: [("DssFallback".to_owned(), 3)].into(),
        traced: [("DssFallback".to_owned(), 2)].into(),
        why: Some("kernel counted 3, traced 2".into()),
        ..Reconciliation::default()
    }];
    let page = draw(&hostile(), &state, &Ending::Orderly);
    assert!(page.contains("counts differ from the traced ones"));
    assert!(page.contains("Network namespace 77: kernel counted 3"));
    assert!(page.contains("<strong>no</strong>"));
    assert!(!page.contains("Events of paths"));
    state.reconciled.fallbacks[0].explained = true;
    let page = draw(&hostile(), &state, &Ending::Orderly);
    assert!(!page.contains("counts differ from the traced ones"));
    assert!(!page.contains("<strong>no</strong>") && page.contains("explained below"));
    assert!(page.contains("Network namespace 77: kernel counted 3"));
    state.reconciled.paths = vec![Reconciliation {
        netns: 78,
        counted: [("MPJoinAckRx".to_owned(), 5)].into(),
        traced: [("MPJoinAckRx".to_owned(), 4)].into(),
        why: Some("MPJoinAckRx: kernel counted 5".into()),
        ..Reconciliation::default()
    }];
    let page = draw(&hostile(), &state, &Ending::Orderly);
    assert!(page.contains("Events of paths in 1 network namespace"));
    assert!(page.contains("Network namespace 78: MPJoinAckRx: kernel counted 5"));
}

#[test]
fn a_dump_is_called_one_with_its_time_and_compares_no_counters() {
    let state = State::default();
    let of = |dump| {
        let facts = Facts {
            dump,
            ..facts(SensorId::Query)
        };
        let text = page(&Report {
            title: "dump",
            facts: &facts,
            gathered: &Gathered::default(),
            state: &state,
            ending: &Ending::Orderly,
            is_selection: false,
            utc: true,
        });
        check_form(&text);
        text
    };
    let (from, to) = (Duration::from_secs(1), Some(Duration::from_secs(61)));
    let page = of(Some(Dump { from, to }));
    let says = "This is a dump of a recording, from 2023-11-14 22:13:21 to 2023-11-14 22:14:21.";
    assert!(page.contains(says), "{page}");
    assert!(page.contains("Nothing to compare: this is a dump of a recording"));
    assert!(!page.contains("no kernel counter was read"));
    assert!(of(Some(Dump { from, to: None })).contains("from 2023-11-14 22:13:21."));
    assert!(!of(None).contains("dump of a recording"));
}

#[test]
fn the_headline_counts_and_says_who_does_not_know() {
    let stale = hostile();
    let page = draw(&stale, &State::default(), &Ending::Orderly);
    assert!(page.contains("The only MPTCP connection observed fell back to TCP."));
    let never = (2..12).map(|address| Row {
        address,
        verdict: Some(V::NeverAsked),
        ..Row::default()
    });
    let healthy = Row {
        address: 99,
        cause: None,
        verdict: Some(V::StillMptcp),
        ..Row::default()
    };
    let mut findings = stale;
    findings.extend(never.flat_map(|row| [row.connection(), row.closing_verdict()]));
    findings.push(healthy.query());
    let page = draw(&findings, &State::default(), &Ending::Orderly);
    assert!(page.contains("11 of the 12 MPTCP connections observed fell back to TCP."));
    assert!(page.contains(
        "In 11 connections the application is unaware of the fallback: 1 was told MPTCP"
    ));
    assert!(page.contains("The most frequent cause is DssFallback (path), 10 times."));
}

#[test]
fn long_lists_end_and_say_how_much_is_left_out() {
    let findings: Vec<Finding> = (1..=60)
        .flat_map(|address| {
            let mut finding = Row {
                address,
                ..Row::default()
            }
            .connection();
            if let Finding::Connection(event) = &mut finding {
                event.connection.socket.remote.set_ip(
                    std::net::Ipv4Addr::new(10, 0, 0, u8::try_from(address).unwrap()).into(),
                );
            }
            [finding]
        })
        .collect();
    let page = draw(&findings, &State::default(), &Ending::Orderly);
    assert_eq!(page.matches("<tr id=\"c").count(), LANES_MAX);
    assert!(page.contains("30 more connections are not drawn"));
    let index = page.split_once("id=\"addresses\"").unwrap().1;
    let index = index.split_once("</section>").unwrap().0;
    assert_eq!(
        index.matches("<a class=\"mono\" href=\"#c").count(),
        LANES_MAX
    );
    assert_eq!(
        index.matches("<li><span class=\"mono\">10.0.0.").count(),
        30
    );
    assert!(page.contains("40 more rows, with 40 fallbacks, are omitted"));
}

#[test]
fn the_headline_says_what_it_counts() {
    let fallen = |address| Row {
        address,
        ..Row::default()
    };
    let healthy = |address| Row {
        address,
        cause: None,
        verdict: Some(V::StillMptcp),
        ..Row::default()
    };
    let plain = |address| Row {
        address,
        cause: None,
        kind: crate::model::ConnectionKind::Plain,
        ..Row::default()
    };
    let some = |fallen_max: u64, all: u64| -> Vec<Finding> {
        let fallen = (1..=fallen_max).map(|it| fallen(it).connection());
        let healthy = (fallen_max + 1..=all).map(|it| healthy(it).query());
        fallen.chain(healthy).collect()
    };
    for (findings, is_selection, says) in [
        (
            some(0, 0),
            false,
            "No findings: no MPTCP connection and no query observed.",
        ),
        (
            some(0, 0),
            true,
            "No findings: no MPTCP connection and no query in this selection.",
        ),
        (
            vec![plain(1).connection()],
            false,
            "No MPTCP connection observed.",
        ),
        (
            some(0, 1),
            false,
            "The only MPTCP connection observed did not fall back to TCP.",
        ),
        (
            some(1, 1),
            true,
            "The only MPTCP connection in this selection fell back to TCP.",
        ),
        (
            some(0, 2),
            false,
            "None of the 2 MPTCP connections observed fell back to TCP.",
        ),
        (
            some(2, 2),
            false,
            "All 2 MPTCP connections observed fell back to TCP.",
        ),
        (
            some(15, 17),
            false,
            "15 of the 17 MPTCP connections observed fell back to TCP.",
        ),
        (
            some(1, 3),
            true,
            "1 of the 3 MPTCP connections in this selection fell back to TCP.",
        ),
    ] {
        let state = State {
            not_shown: 7,
            ..State::default()
        };
        let page = draw_of(&findings, &state, &Ending::Orderly, is_selection);
        let headline = page.split_once("<p class=\"verdict\">").unwrap().1;
        assert_eq!(headline.split_once('<').unwrap().0, says);
        let left_out = page.contains("7 more findings were left out by the selection.");
        assert_eq!(left_out, is_selection, "{says}");
    }
}

#[test]
fn an_address_leads_to_its_connection() {
    let remotes = [
        "192.0.2.9:443",
        "[2001:db8::1]:443",
        "192.0.2.10:80",
        "192.0.2.9:80",
    ];
    let findings: Vec<Finding> = remotes
        .iter()
        .zip(1..)
        .flat_map(|(remote, address)| {
            let row = Row {
                address,
                remote,
                at_ms: 100 - address,
                verdict: Some(V::Stale),
                ..Row::default()
            };
            [row.connection(), row.closing_verdict()]
        })
        .collect();
    let page = draw(&findings, &State::default(), &Ending::Orderly);
    let index = page.split_once("<ul class=\"index\">").unwrap().1;
    let index = index.split_once("</ul>").unwrap().0;
    let mut shown = Vec::new();
    for entry in index.split("href=\"#").skip(1) {
        let (id, rest) = entry.split_once("\">").unwrap();
        let (remote, _) = rest.split_once('<').unwrap();
        let lane = page.split_once(&format!("<tr id=\"{id}\">")).unwrap().1;
        let lane = lane.split_once("</tr>").unwrap().0;
        assert!(
            lane.contains(&format!(">{remote}</span>")),
            "{id}: {remote}"
        );
        // One drawing for each axis, each of which has a switch.
        for axis in ["clock", "age", "spread"] {
            assert_eq!(lane.matches(&format!("<svg class=\"v {axis}\"")).count(), 1);
            assert_eq!(page.matches(&format!("id=\"axis-{axis}\"")).count(), 1);
            assert_eq!(page.matches(&format!("for=\"axis-{axis}\"")).count(), 1);
        }
        shown.push(remote);
    }
    assert_eq!(
        shown,
        [
            "192.0.2.9:80",
            "192.0.2.9:443",
            "192.0.2.10:80",
            "[2001:db8::1]:443"
        ]
    );
}

/// A path of a connection: the one with this socket.
fn a_path_of(socket: u64, kind: PathKind, at_s: u64) -> Path {
    Path {
        path: Some(PathId {
            socket: SocketId(socket),
            began_at: Duration::from_secs(1),
        }),
        began_at: Some(Duration::from_secs(1)),
        up_at: (kind != PathKind::Failed).then(|| Duration::from_millis(1020)),
        role: match socket {
            1 => PathRole::First,
            _ => PathRole::Join,
        },
        at: Duration::from_secs(at_s),
        ..a_path(kind)
    }
}

fn with_paths() -> Vec<Finding> {
    let of = |address, path: Path| {
        let at_ms = u64::try_from(path.at.as_millis()).unwrap();
        Row {
            address,
            at_ms,
            cause: None,
            ..Row::default()
        }
        .path(path)
    };
    let lost = Path {
        cause: Some("timeout".into()),
        decided_by: Some(crate::model::DecidedBy::Nobody),
        ..a_path_of(2, PathKind::Down, 9)
    };
    let closed = |address| Row {
        address,
        at_ms: 9_500,
        ..Row::default()
    };
    vec![
        of(7, a_path_of(1, PathKind::Up, 2)),
        of(7, a_path_of(2, PathKind::Up, 3)),
        of(7, a_path_of(2, PathKind::Stale, 5)),
        of(7, a_path_of(3, PathKind::Failed, 6)),
        of(7, lost),
        of(7, a_path_of(1, PathKind::Down, 9)),
        closed(7).closed(|_| {}),
        // Healthy, with one path: it counts, and has no lane.
        of(8, a_path_of(1, PathKind::Up, 2)),
        of(9, a_path_of(1, PathKind::ConnectFailed, 3)),
    ]
}

#[test]
fn the_paths_of_a_connection_have_lanes_and_a_table() {
    let page = draw(&with_paths(), &State::default(), &Ending::Orderly);
    for wanted in [
        "None of the 2 MPTCP connections observed fell back to TCP.",
        "1 connection closed: 1 was MPTCP to the end, 0 fell back; 1 used several paths; 1 could \
         not be opened; 1 join failed.",
        // Lanes.
        "stale +4.000\u{a0}s to +8.000\u{a0}s, down +8.000\u{a0}s: timeout, 9.20 kB (50%)",
        "failed +5.000\u{a0}s: MPJoinAckRejected (prohibited), by the peer",
        r#"<line class="stale""#,
        r#"<path class="lost""#,
        "MPTCP to the end",
        // The table.
        r#"<h2 id="paths">Paths</h2>"#,
        "3 paths came up or were open, 1 join failed, and a path became stale 1 time.",
        "<td class=\"\">down: timeout</td><td class=\"n\">8.00 kB</td><td class=\"n\">1.20 kB</td><td class=\"n\">50%</td>",
        // Causes.
        "<td>join failed</td>",
        "<td>path ended</td>",
        "<td>connect failed</td>",
        "No connection fell back during tracing.",
    ] {
        assert!(page.contains(wanted), "{wanted} is missing in {page}");
    }
    assert_eq!(page.matches("<tr class=\"path\">").count(), 3);
    assert_eq!(page.matches("<tr id=\"c").count(), 1);
}

#[test]
fn a_cause_of_a_path_from_outside_is_not_obeyed() {
    let row = Row {
        comm: HOSTILE,
        ..Row::default()
    };
    let path = Path {
        cause: Some(HOSTILE.into()),
        ..a_path_of(2, PathKind::Failed, 6)
    };
    let page = draw(&[row.path(path)], &State::default(), &Ending::Orderly);
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
}

#[test]
fn a_path_whose_peer_speaks_mptcp_over_another_one_is_named_with_the_numbers() {
    let row = |address, local| Row {
        address,
        local,
        cause: Some("MPCapableFallbackSYNACK"),
        ..Row::default()
    };
    let fallbacks = |count| -> Vec<Finding> {
        (1..=count)
            .map(|it| row(it, "198.51.100.2:1000").connection())
            .collect()
    };
    let mut path = a_path(PathKind::Up);
    (path.side, path.role, path.is_mptcp) = (Some(Side::Active), PathRole::First, true);
    let up = Row {
        address: 9,
        ..Row::default()
    }
    .path(path);
    for (count, is_named) in [(2, false), (3, true)] {
        let findings = [fallbacks(count), vec![up.clone()]].concat();
        let page = draw(&findings, &State::default(), &Ending::Orderly);
        let sentence = "the path over 198.51.100.2 takes MPTCP away: the peer spoke it in 1 of 1 over \
                        10.0.0.1, 0 of 3 over 198.51.100.2";
        assert_eq!(page.contains(sentence), is_named, "{count}");
        assert_eq!(page.contains("Peer or path"), is_named, "{count}");
    }
}

#[test]
fn what_packets_show_is_counted_and_stands_beside_the_connection_in_its_table() {
    let page = draw(
        &[
            cleared(Row::default().connection()),
            Row {
                address: 2,
                ..Row::default()
            }
            .connection(),
        ],
        &State::default(),
        &Ending::Orderly,
    );
    assert!(
        page.contains("<th scope=\"col\">The packet shows</th>"),
        "{page}"
    );
    let counted = "<th class=\"name\" scope=\"row\">option-cleared</th><td class=\"n\">1</td>";
    assert!(page.contains(counted), "{page}");
    assert!(
        page.contains("<td class=\"\">option-cleared</td>"),
        "{page}"
    );
    let none = draw(
        &[Row::default().connection()],
        &State::default(),
        &Ending::Orderly,
    );
    assert!(!none.contains("The packet shows"));
}
