use super::*;
use crate::model::{
    Finding, Loss, Reconciliation, Rung, SensorId, SensorState, Verdict as V, fixture::Row,
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
    let state = State {
        reconciled: vec![Reconciliation {
            counted: [(HOSTILE.to_owned(), 1)].into(),
            why: Some(HOSTILE.into()),
            ..Reconciliation::default()
        }],
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
    state.reconciled = vec![Reconciliation {
        netns: 77,
        counted: [("DssFallback".to_owned(), 3)].into(),
        traced: [("DssFallback".to_owned(), 2)].into(),
        why: Some("kernel counted 3, traced 2".into()),
        unread: false,
    }];
    let page = draw(&hostile(), &state, &Ending::Orderly);
    assert!(page.contains("fallback counts differ from the traced ones"));
    assert!(page.contains("Network namespace 77: kernel counted 3"));
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
    assert!(page.contains("30 more connections that fell back are not drawn"));
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
