use super::*;
use crate::{
    flood_asker::{Answer, address},
    report::Endpoint,
};

fn told(mptcp: (Option<&str>, i32), tcp: (Option<&str>, i32)) -> Told {
    let answer = |kind, (errno, value): (Option<&str>, i32)| Answer {
        kind,
        errno: errno.map(str::to_owned),
        value,
        count: 10,
    };
    Told {
        pid: 1,
        tids: vec![100, 101],
        answers: vec![answer(Kind::Mptcp, mptcp), answer(Kind::Tcp, tcp)],
    }
}

fn modern() -> Told {
    told((None, 1), (None, 0))
}

fn line(thread: u32, number: u32) -> Traced {
    let (kind, family) = kind(number);
    let v4 = address(thread, number);
    let (family, addr, nowhere) = match family {
        Family::V4 => ("ipv4", v4.ip().to_string(), "0.0.0.0"),
        Family::V6 | Family::Mapped => ("ipv6", v4.ip().to_ipv6_mapped().to_string(), "::"),
    };
    Traced {
        pid: 1,
        tid: 100 + thread,
        protocol: protocol_word(kind).into(),
        family: family.into(),
        state: "CLOSE".into(),
        local: Endpoint {
            addr,
            port: v4.port(),
        },
        remote: Endpoint {
            addr: nowhere.into(),
            port: 0,
        },
        answer: Some(protocol_word(kind).into()),
        fell_back: Some(false),
        rung: "fexit".into(),
        ..Traced::default()
    }
}

fn flooded(lines: Vec<Traced>, ring_full: u64, told: &Told) -> Flooded {
    let mut books = Books::new("fexit", 2, 10);
    let emitted = lines.len() as u64;
    for line in lines {
        books.take(TracedLine::Query(Box::new(line)));
    }
    let losses = Losses {
        sensor: "query".to_owned(),
        seen: emitted + ring_full,
        emitted,
        ring_full,
        ..Losses::default()
    };
    books.take(TracedLine::End(End {
        routine: 0,
        findings: emitted,
        losses: vec![losses],
        reconciliation: Vec::new(),
        path_reconciliation: Vec::new(),
    }));
    books.close(told, 0.0)
}

fn all() -> Vec<Traced> {
    (0..2)
        .flat_map(|thread| (0..10).map(move |number| line(thread, number)))
        .collect()
}

#[test]
fn every_question_once_or_counted_as_lost() {
    assert_eq!(flooded(all(), 0, &modern()).outcome, Outcome::Ok);
    assert_eq!(
        flooded(all().split_off(3), 3, &modern()).outcome,
        Outcome::Ok
    );
    assert_eq!(flooded(all().split_off(3), 0, &modern()).unaccounted, 3);
    assert_eq!(flooded(all(), 1, &modern()).unaccounted, -1);
}

#[test]
fn without_an_end_line_nothing_is_right() {
    let mut books = Books::new("fexit", 2, 10);
    for line in all() {
        books.take(TracedLine::Query(Box::new(line)));
    }
    assert_eq!(books.close(&modern(), 0.0).outcome, Outcome::Mismatch);
}

#[test]
fn doubled_mixed_up_and_wrong_lines_are_counted() {
    let with = |line: Traced| {
        let mut lines = all();
        lines[4] = line;
        let flooded = flooded(lines, 0, &modern());
        assert_eq!(flooded.outcome, Outcome::Mismatch);
        (flooded.duplicates, flooded.mixed_up, flooded.wrong_answer)
    };
    assert_eq!(with(line(0, 3)), (1, 0, 0));
    type Spoil = fn(&mut Traced);
    let check = |spoils: &[Spoil], want: (u64, u64, u64)| {
        for spoil in spoils {
            let mut line = line(0, 4);
            spoil(&mut line);
            let shown = format!("{line:?}");
            assert_eq!(with(line), want, "{shown}");
        }
    };
    let mixed_up: [Spoil; 11] = [
        |line| line.tid = 7,
        // Another thread of the same flood.
        |line| line.tid = 101,
        |line| line.pid = 7,
        |line| line.family = "ipv6".into(),
        |line| line.protocol = "tcp".into(),
        |line| line.state = "LISTEN".into(),
        |line| line.rung = "kprobe".into(),
        |line| line.fell_back = Some(true),
        |line| (line.local.addr, line.local.port) = ("10.0.0.1".into(), 10_004),
        |line| line.local.port = 10_005,
        |line| (line.remote.addr, line.remote.port) = ("127.1.0.4".into(), 10_004),
    ];
    check(&mixed_up, (0, 1, 0));
    let wrong: [Spoil; 3] = [
        |line| line.answer = Some("tcp".into()),
        |line| line.answer = None,
        |line| {
            line.answer = Some("unsupported".into());
            line.errno = Some("EOPNOTSUPP".into());
        },
    ];
    check(&wrong, (0, 0, 1));
}

#[test]
fn unsupported_is_right_exactly_where_the_asker_was_told_so() {
    let old = told((Some("EOPNOTSUPP"), -1), (Some("ENOPROTOOPT"), -1));
    let unsupported = || -> Vec<Traced> {
        let lines = all().into_iter().map(|line| {
            let errno = if line.protocol == "mptcp" {
                "EOPNOTSUPP"
            } else {
                "ENOPROTOOPT"
            };
            Traced {
                answer: Some("unsupported".into()),
                errno: Some(errno.into()),
                ..line
            }
        });
        lines.collect()
    };
    assert_eq!(flooded(unsupported(), 0, &old).outcome, Outcome::Ok);
    assert_eq!(flooded(unsupported(), 0, &modern()).wrong_answer, 20);
    assert_eq!(flooded(all(), 0, &old).wrong_answer, 20);
}
