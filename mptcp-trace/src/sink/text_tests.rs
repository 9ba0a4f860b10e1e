use std::{fs, path::Path, time::Duration};

use unicode_width::UnicodeWidthStr as _;

use super::{super::columns::ELLIPSIS, *};
use crate::model::{
    Answer, Api, CauseCertainty, Closed, ClosedBy, Errno, Evidence, NeverTried, Outcome,
    Path as Subflow, PathKind, PathRole, PeerHistory, Refusal, RefusalEvent, Refused, ResetReason,
    Rung, Side, Spoke, Whose,
    fixture::{Row as Fixture, a_path},
};

const DOCUMENT: &str = "../docs/lines.md";

/// Columns of the terminals in the document.
const WIDTHS: [usize; 3] = [80, 120, 200];

/// Ends of connections: IPv4, short and long IPv6, link-local with a zone, IPv4-mapped.
const ENDS: [(&str, &str); 8] = [
    ("10.77.0.1:45545", "10.77.0.2:443"),
    ("192.168.100.200:54321", "203.0.113.250:65535"),
    ("[2001:db8::5]:40402", "[2001:db8:7::20]:443"),
    (
        "[2001:db8:85a3:8d3:1319:8a2e:370:7348]:51234",
        "[2001:db8:1111:2222:3333:4444:5555:6666]:8443",
    ),
    ("[fe80::9c42:6eff:fe79:e8fd%2]:38914", "[fe80::5%2]:4455"),
    ("[::1]:40002", "[::1]:8080"),
    ("[::ffff:10.77.0.1]:45546", "[::ffff:198.51.100.7]:443"),
    ("10.77.0.2:443", "10.77.0.1:45545"),
];

/// Processes: usual, long, with the largest PID, with wide characters.
const PROCESSES: [(&str, u32); 5] = [
    ("curl", 4312),
    ("nginx", 812),
    ("a-15-byte-name!", 4_194_303),
    ("サーバー", 77),
    ("envoy", 23_144),
];

/// Forty findings of all kinds, one every 333 ms, across midnight.
fn findings() -> Vec<Finding> {
    let mut all = Vec::new();
    for round in 0..5_u32 {
        let (comm, pid) = PROCESSES[round as usize];
        for (step, (local, remote)) in (0..).zip(ENDS) {
            let number = round * 8 + step;
            let fixture = Fixture {
                address: number.into(),
                local,
                remote,
                pid,
                comm,
                ..Fixture::default()
            };
            let mut finding = finding(number, fixture);
            let time = SystemTime::UNIX_EPOCH
                + Duration::from_millis(1_709_251_190_000)
                + Duration::from_millis(333) * number;
            *time_of(&mut finding) = time;
            all.push(finding);
        }
    }
    all
}

fn finding(number: u32, fixture: Fixture) -> Finding {
    let cause = |name| Fixture {
        cause: Some(name),
        ..fixture
    };
    let fallback = |name: &'static str, change: &dyn Fn(&mut ConnectionEvent)| {
        let mut finding = cause(name).connection();
        if let Finding::Connection(event) = &mut finding {
            change(event);
        }
        finding
    };
    let query = |answer, verdict, api| {
        let name = (verdict == Verdict::Explained).then_some("MPCapableFallbackSYNACK");
        let mut finding = Fixture {
            verdict: Some(verdict),
            cause: name,
            ..fixture
        }
        .query();
        if let Finding::Query(event) = &mut finding {
            event.query.answer = answer;
            event.query.errno = answer.errno();
            event.query.api = api;
            if let Some(judgement) = &mut event.judgement {
                judgement.delay = name.map(|_| Duration::from_micros(34_100));
            }
        }
        finding
    };
    let closing = |verdict, closed_by, doubt: Option<&'static str>| {
        let mut finding = Fixture {
            verdict: Some(verdict),
            cause: Some("DssFallback"),
            ..fixture
        }
        .closing_verdict();
        if let Finding::Verdict(event) = &mut finding {
            event.closed_by = closed_by;
            event.doubt = doubt.map(Into::into);
            event.judgement.delay = Some(Duration::from_nanos(4_533_000));
        }
        finding
    };
    match number {
        // The second round has paths instead of what the first one had.
        21 => return fixture.path(a_path(PathKind::Failed)),
        24 => return fixture.path(a_path(PathKind::Up)),
        26 => return fixture.path(a_path(PathKind::Stale)),
        28 => {
            return fixture.path(Subflow {
                cause: Some("timeout".into()),
                errno: Some(Errno(110)),
                ..a_path(PathKind::Down)
            });
        }
        29 => return fixture.path(a_path(PathKind::Recovered)),
        32 => return fixture.path(a_path(PathKind::Priority)),
        33 => return fixture.path(a_path(PathKind::ConnectFailed)),
        35 => return fixture.closed(|_| {}),
        37 => return fixture.closed(fell_back),
        _ => {}
    }
    match number % 20 {
        0 => fallback("MPCapableFallbackSYNACK", &|event| {
            event.connection.since_connect = Some(Duration::from_micros(1_749));
        }),
        1 => query(Answer::Tcp, Verdict::Explained, Api::TcpIsMptcp),
        2 => fallback("DssFallback", &|event| {
            event.connection.since_connect = Some(Duration::from_millis(1_020));
            event.connection.evidence = vec![Evidence::NoDss];
            event.connection.bytes = Some((80, 1_048_576));
        }),
        3 => closing(Verdict::Stale, ClosedBy::Death, None),
        4 => query(Answer::Mptcp, Verdict::StillMptcp, Api::TcpIsMptcp),
        5 => fallback("MPCapableFallbackSYNACK", &|event| {
            event.connection.known = CauseCertainty::Inferred;
            event.connection.side = Some(Side::Passive);
            event.connection.late = true;
        }),
        6 => Fixture {
            kind: ConnectionKind::Plain,
            cause: None,
            ..fixture
        }
        .connection(),
        7 => query(Answer::Tcp, Verdict::PlainTcp, Api::TcpIsMptcp),
        8 => fallback("MPCapableDataFallback", &|event| {
            event.connection.kind = ConnectionKind::FallbackDenied;
        }),
        9 => query(
            Answer::Unsupported(Errno::EOPNOTSUPP),
            Verdict::Unsupported,
            Api::TcpIsMptcp,
        ),
        10 => fallback("MPCapableSYNTXDrop", &|event| {
            event.connection.since_connect = Some(Duration::from_secs(61));
        }),
        11 => Fixture {
            kind: ConnectionKind::Blackhole,
            cause: None,
            ..fixture
        }
        .connection(),
        12 => query(Answer::Mptcp, Verdict::Misled, Api::SoProtocol),
        13 => closing(
            Verdict::NeverAsked,
            ClosedBy::Exit,
            Some("queries were capped"),
        ),
        14 => refused(&fixture),
        15 => query(Answer::Tcp, Verdict::Unexplained, Api::MptcpFullInfo),
        16 => fallback("MPCapableFallbackACK", &|event| {
            event.connection.cause = None;
            event.connection.owner = None;
        }),
        17 => query(Answer::Mptcp, Verdict::TooEarly, Api::TcpIsMptcp),
        18 => closing(Verdict::Contradicted, ClosedBy::Eviction, None),
        _ => Fixture {
            kind: ConnectionKind::Existing,
            ..fixture
        }
        .connection(),
    }
}

/// It fell back at its beginning, and was queried.
fn fell_back(closed: &mut Closed) {
    closed.outcome = Outcome::FellBack {
        at: None,
        cause: Some("MPCapableFallbackSYNACK".into()),
    };
    (closed.paths_tried, closed.paths_up, closed.paths_failed) = (1, 1, 0);
    closed.paths.clear();
    closed.queries = 3;
}

fn refused(fixture: &Fixture) -> Finding {
    let Finding::Query(event) = fixture.query() else {
        panic!("not a query")
    };
    Finding::Refusal(Box::new(RefusalEvent {
        refusal: Refusal {
            at: Duration::ZERO,
            process: event.query.process,
            what: Refused::Option {
                socket: event.query.socket,
                level: 6,
                optname: 30,
                is_set: true,
            },
            errno: Errno::EOPNOTSUPP,
            rung: Rung::Fexit,
        },
        time: SystemTime::UNIX_EPOCH,
    }))
}

fn time_of(finding: &mut Finding) -> &mut SystemTime {
    match finding {
        Finding::Query(event) => &mut event.time,
        Finding::Connection(event) => &mut event.time,
        Finding::Verdict(event) => &mut event.time,
        Finding::Refusal(event) => &mut event.time,
        Finding::Path(event) => &mut event.time,
        Finding::Closed(event) => &mut event.time,
    }
}

fn printed(options: TextOptions) -> String {
    let mut lines = TextLines::new(options);
    let mut out = Vec::new();
    lines.header(&mut out);
    for finding in findings() {
        lines.finding(&finding, &mut out);
    }
    lines.existing(&mut out);
    String::from_utf8(out).unwrap()
}

fn options(width: Width) -> TextOptions {
    TextOptions {
        header: true,
        time: TimeStyle::Utc,
        width,
        lists_existing: true,
        lists_never_asked: true,
        ..TextOptions::default()
    }
}

/// The columns at which cells begin: those of the header's words after two spaces, or one.
fn begins(header: &str, layout: &Layout) -> Vec<(Column, usize, usize)> {
    let mut all = Vec::new();
    for column in Column::FOR_FINDINGS {
        let width = layout.width_of(column);
        if width > 0 {
            let start = layout.before(column);
            let cell = between(header, start, start + width).unwrap();
            let cell = cell.trim().trim_end_matches(ELLIPSIS);
            assert!(
                !cell.is_empty() && column.header().starts_with(cell),
                "{header:?} has no {column:?} at {start}"
            );
            all.push((column, start, width));
        }
    }
    all
}

/// The part of a line between two display columns.
fn between(line: &str, start: usize, end: usize) -> Option<String> {
    let (mut at, mut cell) = (0, String::new());
    for character in line.chars() {
        if at >= end {
            break;
        }
        if at >= start {
            cell.push(character);
        }
        let wide = character.to_string().width();
        // A wide character across a border would shift what follows.
        if at < start && at + wide > start {
            return None;
        }
        at += wide;
    }
    Some(cell)
}

#[test]
fn no_line_is_wider_than_the_terminal_and_every_column_is_aligned() {
    for width in 40..=250 {
        let text = printed(options(Width::Fixed(width)));
        let layout = Layout::new(&FINDINGS, &[], Some(width), 0);
        let mut lines = text.lines();
        let header = lines.next().unwrap();
        let columns = begins(header, &layout);
        let lines: Vec<&str> = lines.filter(|line| !line.starts_with("-- ")).collect();
        assert_eq!(lines.len(), 40, "{text}");
        for (line, finding) in lines.into_iter().zip(findings()) {
            assert!(line.width() <= width, "{width}: {line}");
            let row = Row::of(&finding);
            for (column, start, cell_width) in &columns {
                let last = columns.last().is_some_and(|(it, ..)| it == column);
                let end = if last { width } else { start + cell_width };
                let cell = between(line, *start, end).unwrap_or_else(|| panic!("{line}"));
                if !last {
                    let gap = between(line, end, end + 1).unwrap();
                    assert!(gap.trim().is_empty(), "{width}, {column:?}: {line}");
                }
                let whole = match column {
                    Column::Kind => &row.kind,
                    Column::Result => &row.result,
                    Column::Process => &row.pid,
                    Column::Time
                    | Column::Pid
                    | Column::Comm
                    | Column::Local
                    | Column::Remote
                    | Column::State
                    | Column::Is
                    | Column::Subflows
                    | Column::Netns
                    | Column::Id
                    | Column::After
                    | Column::Details => continue,
                };
                let shown = cell.trim_end().trim_end_matches(ELLIPSIS);
                // The PID is never truncated.
                let is_shown = match *column == Column::Process {
                    true => shown.ends_with(whole.as_str()),
                    false => whole.starts_with(shown) && !shown.is_empty(),
                };
                assert!(is_shown, "{width}, {column:?} {whole}: {line}");
            }
        }
    }
}

#[test]
fn the_page_says_from_which_width_on_a_column_is_shown() {
    for width in 80..=200 {
        let has = |column| Layout::new(&FINDINGS, &[], Some(width), 0).width_of(column) > 0;
        assert_eq!(has(Column::After), width >= 84, "{width}");
        let both = has(Column::Local) && has(Column::Details);
        assert_eq!(both, width >= 120, "{width}");
    }
    let list = Layout::new(&SOCKETS, &[], Some(80), 0);
    assert_eq!(list.width_of(Column::Details), 24);
}

#[test]
fn an_address_keeps_its_port_at_any_width() {
    for width in 60..=200 {
        let layout = Layout::new(&FINDINGS, &[], Some(width), 0);
        let (start, cell) = (
            layout.before(Column::Remote),
            layout.width_of(Column::Remote),
        );
        for (line, finding) in printed(options(Width::Fixed(width)))
            .lines()
            .skip(1)
            .filter(|line| !line.starts_with("-- "))
            .zip(findings())
        {
            let shown = between(line, start, start + cell).unwrap();
            let port = Row::of(&finding).remote.unwrap().port();
            assert!(
                shown.trim_end().ends_with(&format!(":{port}")),
                "{width}: {line}"
            );
        }
    }
}

#[test]
fn without_a_width_nothing_is_truncated_and_each_family_is_aligned() {
    let text = printed(options(Width::Unlimited));
    assert!(!text.contains(ELLIPSIS), "{text}");
    let mut ends: [Vec<usize>; 2] = [Vec::new(), Vec::new()];
    for (line, finding) in text
        .lines()
        .skip(1)
        .filter(|line| !line.starts_with("-- "))
        .zip(findings())
    {
        let remote = Row::of(&finding).remote.unwrap();
        let found = line.find(&remote.to_string()).unwrap();
        ends[usize::from(remote.is_ipv6())].push(line[..found].width());
    }
    for mut of_family in ends {
        of_family.dedup();
        assert_eq!(of_family.len(), 1, "{text}");
    }
}

#[test]
fn the_document_shows_the_same_findings_at_three_widths() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    let document = fs::read_to_string(&path).unwrap();
    let mut expected = String::new();
    let mut rest = document.as_str();
    for width in WIDTHS {
        let mark = format!("<!-- {width} columns -->\n```text\n");
        let (before, after) = rest.split_once(&mark).unwrap();
        let (_old, after) = after.split_once("```\n").unwrap();
        let table = printed(options(Width::Fixed(width)));
        expected.extend([before, &mark, &table, "```\n"]);
        rest = after;
    }
    expected.push_str(rest);
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    assert!(document == expected, "run with UPDATE_GOLDENS=1");
}

#[test]
fn chosen_columns_never_exceed_the_width_and_no_number_is_cut() {
    let all = Column::FOR_FINDINGS.to_vec();
    let pids_last = vec![Column::Local, Column::Remote, Column::Pid];
    let others = vec![
        Column::Id,
        Column::Local,
        Column::Remote,
        Column::Details,
        Column::Netns,
    ];
    for columns in [all, pids_last, others] {
        let names: Vec<&str> = columns.iter().map(|it| it.name()).collect();
        for width in 1..=250 {
            let text = printed(TextOptions {
                columns: columns.clone(),
                ..options(Width::Fixed(width))
            });
            for line in text.lines().filter(|line| !line.starts_with("-- ")) {
                assert!(line.width() <= width, "{names:?}, {width}: {line}");
            }
        }
    }
    let text = printed(TextOptions {
        header: false,
        columns: vec![Column::Local, Column::Remote, Column::Pid],
        ..options(Width::Fixed(46))
    });
    for (line, finding) in text
        .lines()
        .filter(|line| !line.starts_with("-- "))
        .zip(findings())
    {
        let pid = Row::of(&finding).pid;
        assert!(line.ends_with(&format!(" {pid}")), "{line}");
    }
}

#[test]
fn seconds_since_the_epoch_are_whole_at_any_width() {
    for (width, seconds) in [
        (Width::Fixed(80), "1709251190"),
        (Width::Unlimited, "1709251190.000000"),
    ] {
        let text = printed(TextOptions {
            time: TimeStyle::Epoch,
            ..options(width)
        });
        let mut lines = text.lines();
        let header = lines.next().unwrap();
        let first = lines.next().unwrap();
        assert_eq!(first.split(' ').next(), Some(seconds));
        assert_eq!(header.find("KIND"), first.find("fallback"), "{text}");
    }
}

#[test]
fn chosen_columns_are_printed_in_their_order() {
    let columns = vec![Column::Remote, Column::Pid, Column::State, Column::Netns];
    let text = printed(TextOptions {
        columns,
        header: false,
        ..options(Width::Unlimited)
    });
    let first: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(first, ["10.77.0.2:443", "4312", "ESTABLISHED", "9"]);
}

#[test]
fn a_fallback_and_never_asked_are_one_line_and_open_sockets_are_counted() {
    let connection = |kind, address, fell_back| {
        let mut finding = Fixture {
            kind,
            address,
            ..Fixture::default()
        }
        .connection();
        if let Finding::Connection(event) = &mut finding {
            event.connection.fell_back = fell_back;
        }
        finding
    };
    let never_asked = |address| {
        Fixture {
            address,
            verdict: Some(Verdict::NeverAsked),
            ..Fixture::default()
        }
        .closing_verdict()
    };
    let findings = [
        connection(ConnectionKind::Existing, 1, Some(true)),
        connection(ConnectionKind::Existing, 2, Some(false)),
        connection(ConnectionKind::Existing, 3, None),
        connection(ConnectionKind::Fallback, 4, Some(true)),
        never_asked(4),
        // The line of its fallback was not printed: another process held it, for example.
        never_asked(5),
        never_asked(1),
    ];
    let print = |lists_existing, lists_never_asked| {
        let mut lines = TextLines::new(TextOptions {
            lists_existing,
            lists_never_asked,
            columns: vec![Column::Kind, Column::Result],
            ..TextOptions::default()
        });
        let mut out = Vec::new();
        let printed: Vec<Printed> = findings
            .iter()
            .map(|finding| lines.finding(finding, &mut out))
            .collect();
        (String::from_utf8(out).unwrap(), printed)
    };
    let (text, printed) = print(false, false);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].ends_with("3 opened earlier: 1 MPTCP, 1 fell back, 1 unknown (--kind existing)"),
        "{text}"
    );
    assert_eq!(
        lines[1..],
        ["fallback       DssFallback", "verdict        never-asked"]
    );
    assert_eq!(
        printed,
        [
            Printed::WithExisting,
            Printed::WithExisting,
            Printed::WithExisting,
            Printed::Line,
            Printed::WithFallback,
            Printed::Line,
            Printed::WithFallback,
        ]
    );
    let (text, printed) = print(true, true);
    assert_eq!(text.lines().count(), findings.len());
    assert!(printed.iter().all(|it| *it == Printed::Line));
}

#[test]
fn a_terminal_that_becomes_wider_gets_a_new_header() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static WIDTH: AtomicUsize = AtomicUsize::new(80);
    let mut lines = TextLines::new(TextOptions {
        header: true,
        ..options(Width::Terminal(|| Some(WIDTH.load(Ordering::Relaxed))))
    });
    let mut out = Vec::new();
    lines.header(&mut out);
    let findings = findings();
    lines.finding(&findings[0], &mut out);
    lines.finding(&findings[1], &mut out);
    WIDTH.store(120, Ordering::Relaxed);
    lines.finding(&findings[2], &mut out);
    let text = String::from_utf8(out).unwrap();
    let headers: Vec<usize> = text
        .lines()
        .filter(|line| line.starts_with("TIME"))
        .map(|line| line.split_whitespace().count())
        .collect();
    assert_eq!(headers.len(), 2, "{text}");
    assert!(headers[0] < headers[1], "{text}");
}

#[test]
fn why_prints_the_sentence_within_the_width() {
    let text = printed(TextOptions {
        why: true,
        ..options(Width::Fixed(60))
    });
    assert!(text.lines().all(|line| line.width() <= 60), "{text}");
    assert!(text.contains("\n    because\n"), "{text}");
    assert!(
        text.contains("\n    was open before tracing began"),
        "{text}"
    );
}

#[test]
fn text_from_outside_cannot_drive_the_terminal() {
    let hostile = Fixture {
        comm: "\u{1b}[31mred\nx",
        ..Fixture::default()
    };
    for width in [Width::Unlimited, Width::Fixed(80)] {
        let mut out = Vec::new();
        TextLines::new(options(width)).finding(&hostile.connection(), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}

/// Result, whether there is a time, and details.
fn cells(finding: &Finding) -> (String, bool, String) {
    let row = Row::of(finding);
    (row.result, row.after.is_some(), row.details.join(", "))
}

#[test]
fn a_line_of_a_path_says_which_why_and_what_it_carried() {
    let path = |kind, change: &dyn Fn(&mut Subflow)| {
        let mut path = a_path(kind);
        change(&mut path);
        Fixture::default().path(path)
    };
    let same: &dyn Fn(&mut Subflow) = &|_| {};
    for (finding, result, has_time, details) in [
        (path(PathKind::Up, same), "first path, client", true, ""),
        (
            path(PathKind::Up, &|it| {
                it.role = PathRole::Join;
                it.side = Some(Side::Passive);
                (it.local_id, it.remote_id) = (None, Some(2));
                it.backup_peer = true;
                it.up_at = None;
            }),
            "join by the peer",
            false,
            "ids ?/2, backup at the peer",
        ),
        (
            path(PathKind::Failed, same),
            "MPJoinAckRejected",
            true,
            "received RST: prohibited, join, ids 1/0",
        ),
        (
            path(PathKind::Failed, &|it| {
                it.known = CauseCertainty::Inferred;
                it.reset = Some(ResetReason {
                    code: 6,
                    transient: true,
                    received: false,
                });
                it.late = true;
            }),
            "MPJoinAckRejected?",
            true,
            "sent RST: middlebox (transient), join, ids 1/0, noticed late",
        ),
        // No reason was given: there is nothing to say.
        (
            path(PathKind::Failed, &|it| {
                it.cause = None;
                it.reset = Some(ResetReason {
                    code: 0,
                    transient: false,
                    received: false,
                });
            }),
            "cause unknown",
            true,
            "join, ids 1/0",
        ),
        (
            path(PathKind::ConnectFailed, same),
            "MPCapableSynRefused",
            true,
            "ECONNREFUSED, first path, client",
        ),
        (
            path(PathKind::Down, same),
            "connection-closed",
            true,
            "join, ids 1/0, 8.00 kB sent (50 %), 1.20 kB received, 3 retransmitted, RTT 20.0 ms",
        ),
        (
            path(PathKind::Down, &|it| {
                it.is_mptcp = false;
                it.existing = true;
                it.ledger = None;
            }),
            "connection-closed",
            true,
            "join, ids 1/0, fell back, opened earlier",
        ),
        (
            path(PathKind::Priority, same),
            "backup here",
            true,
            "join, ids 1/0",
        ),
        (
            path(PathKind::Priority, &|it| it.backup_here = false),
            "not a backup",
            true,
            "join, ids 1/0",
        ),
        (
            Fixture::default().closed(|_| {}),
            "mptcp",
            true,
            "2 of 3 paths up, 1 failed, no query, 16.0 kB sent, 1.20 kB received",
        ),
        (
            Fixture::default().closed(fell_back),
            "fell back",
            true,
            "MPCapableFallbackSYNACK, 1 path, 3 queries, 16.0 kB sent, 1.20 kB received",
        ),
        (
            Fixture::default().closed(|it| {
                (it.paths_tried, it.paths_up, it.paths_failed) = (1, 1, 0);
                it.never_tried = Some(NeverTried::NoEndpoint);
                it.queries = 1;
                it.duration = None;
                it.incomplete = true;
            }),
            "mptcp",
            false,
            "1 path, no second path: no-endpoint, 1 query, 16.0 kB sent, 1.20 kB received, not \
             all of it observed",
        ),
    ] {
        let found = cells(&finding);
        assert_eq!(found, (result.into(), has_time, details.into()));
    }
}

#[test]
fn that_no_join_came_is_printed_on_request_only() {
    let finding = Fixture::default().closed(|it| it.never_tried = Some(NeverTried::NoJoinCame));
    let print = |lists_no_join| {
        let mut lines = TextLines::new(TextOptions {
            lists_no_join,
            why: true,
            ..TextOptions::default()
        });
        let mut out = Vec::new();
        let _printed = lines.finding(&finding, &mut out);
        String::from_utf8(out).unwrap()
    };
    let text = print(true);
    assert!(text.contains("no second path: no-join-came"), "{text}");
    assert!(text.contains("no join of it"), "{text}");
    let text = print(false);
    assert!(!text.contains("join"), "{text}");
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn every_event_of_a_path_has_a_sentence_and_a_refusal_names_the_reason() {
    for kind in PathKind::ALL {
        let said = why(&Fixture::default().path(a_path(kind)));
        assert!(said.len() > 30, "{kind:?}: {said}");
    }
    let said = why(&Fixture::default().path(a_path(PathKind::Failed)));
    assert!(said.contains("prohibited: Code 3"), "{said}");
    let said = why(&Fixture::default().path(Subflow {
        cause: Some("Tomorrow\u{1b}".into()),
        ..a_path(PathKind::Down)
    }));
    assert_eq!(said, "no explanation of Tomorrow\\u{1b} is known");
    let said = why(&Fixture::default().closed(|it| {
        it.never_tried = Some(NeverTried::LimitZero);
    }));
    assert!(said.contains("allows no second path"), "{said}");
}

#[test]
fn why_says_whether_the_peer_or_a_path_is_the_reason_with_the_numbers() {
    let said = |whose| {
        let mut finding = Fixture {
            cause: Some("MPCapableFallbackSYNACK"),
            ..Fixture::default()
        }
        .connection();
        let Finding::Connection(event) = &mut finding else {
            unreachable!()
        };
        let spoke = |local: &str, mptcp, tcp| Spoke {
            local: local.into(),
            mptcp,
            tcp,
        };
        let spoke = vec![spoke("\u{1b}0", 30, 0), spoke("eth1", 0, 42)];
        event.history = Some(Box::new(PeerHistory { whose, spoke }));
        let mut out = Vec::new();
        let why = TextOptions {
            why: true,
            ..options(Width::Unlimited)
        };
        TextLines::new(why).finding(&finding, &mut out);
        String::from_utf8(out).unwrap()
    };
    let path = said(Whose::Path(vec!["eth1".into()]));
    let clause = "by the connections so far, the path over eth1 takes MPTCP away: the peer spoke it in \
                  30 of 30 over \\u{1b}0, 0 of 42 over eth1";
    // It begins a sentence, or follows a semicolon.
    assert!(path.contains(&clause[1..]), "{path}");
    assert!(path.contains("mptcp-trace probe 192.0.2.7:443"), "{path}");
    assert!(!said(Whose::Unknown).contains("so far"));
}
