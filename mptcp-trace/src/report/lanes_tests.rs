use super::*;
use crate::{
    model::{Api, Finding, Verdict, fixture::Row},
    report::gather::{Asked, Gathered},
};

const MS: u64 = 1_000_000;

/// A connection that begins, is asked, falls back and ends at these times.
fn life(begin: u64, asked: &[u64], fell: u64, end: u64) -> ReportedConnection {
    let row = Row {
        verdict: Some(Verdict::Stale),
        ..Row::default()
    };
    let mut gathered = Gathered::default();
    for finding in [row.connection(), row.closing_verdict()] {
        let finding: Finding = finding;
        gathered.add(&finding);
    }
    gathered.finish();
    let mut life = gathered.drawn().next().unwrap().clone();
    let at = Duration::from_nanos;
    life.connected_at = Some(at(begin));
    life.fell_at = Some(at(fell));
    life.closed = Some((at(end), ClosedBy::Death));
    life.asked = asked
        .iter()
        .map(|asked| Asked {
            at: at(*asked),
            api: Api::TcpIsMptcp,
            answer: Answer::Mptcp,
        })
        .collect();
    life
}

fn drawing(life: &ReportedConnection, axis: Axis) -> String {
    lane(life, axis, &[]).into_string()
}

/// Places of the marks in a drawing, percent.
fn drawn_at(drawing: &str) -> Vec<f64> {
    let marks = drawing.split("<svg class=\"at\" x=\"").skip(1);
    let places = marks.map(|mark| mark.split_once('%').unwrap().0.parse().unwrap());
    places.collect()
}

#[test]
fn lanes_share_an_axis_to_scale() {
    let lives = [
        life(0, &[], 500 * MS, 1000 * MS),
        life(4000 * MS, &[], 5000 * MS, 10_000 * MS),
    ];
    let [clock, age, _] = Axis::all(lives.iter());
    assert_eq!(clock.name(), "clock");
    for (life, axis, places) in [
        (&lives[0], clock, [3.0, 7.7, 12.4]),
        (&lives[1], clock, [40.6, 50.0, 97.0]),
        // From 100 ms to 10 s: the fallbacks are 0.5 s and 1 s old.
        (&lives[1], age, [3.0, 52.82, 87.2]),
    ] {
        let drawn = drawn_at(&drawing(life, axis));
        assert_eq!(drawn.len(), places.len());
        for (drawn, place) in drawn.iter().zip(places) {
            assert!((drawn - place).abs() < 0.06, "{drawn}% is not {place}%");
        }
    }
}

#[test]
fn what_is_too_close_to_separate_is_counted_and_named_with_its_time() {
    let short = life(300_000 * MS, &[300_001 * MS], 300_002 * MS, 300_003 * MS);
    let long = life(0, &[], 10 * MS, 600_000 * MS);
    let axes = Axis::all([&short, &long].into_iter());
    let [clock, age, spread] = axes.map(|axis| drawing(&short, axis));
    assert_eq!(drawn_at(&clock), [50.0]);
    assert!(clock.contains("y=\"24\">4</text>"), "{clock}");
    assert!(clock.contains(
        "<title>began +0\u{a0}ns, told mptcp by TCP_IS_MPTCP +1.000\u{a0}ms, fell back \
         +2.000\u{a0}ms, closed +3.000\u{a0}ms</title>"
    ));
    assert!(clock.contains(">+2.000\u{a0}ms</text>"));
    assert!(drawn_at(&age).len() > 1, "{age}");
    assert_eq!(drawn_at(&spread).len(), 4);
    assert!(!spread.contains("class=\"number"));
    // The fallback is where it was, whatever is near.
    let asked = life(0, &[95_000 * MS], 100_000 * MS, 105_000 * MS);
    let [clock, ..] = Axis::all([&asked, &long].into_iter()).map(|axis| drawing(&asked, axis));
    let fell = 3.0 + 94.0 / 6.0;
    assert!((drawn_at(&clock)[1] - fell).abs() < 0.01, "{clock}");
    assert!(clock.contains(">3</text>"));
}

#[test]
fn ticks_are_round_and_their_labels_have_room() {
    let local = Duration::from_secs(1_700_000_000);
    for (begin_ms, length_ms, labels) in [
        (0, 14_000, &["22:13:20", "22:13:25", "22:13:30"][..]),
        (
            1200,
            300,
            &[
                "22:13:21.200",
                "22:13:21.300",
                "22:13:21.400",
                "22:13:21.500",
            ],
        ),
        (0, 600_000, &["22:14", "22:16", "22:18", "22:20", "22:22"]),
        (
            0,
            40_000_000,
            &["00:00", "02:00", "04:00", "06:00", "08:00"],
        ),
        (7, 0, &["22:13:20.007000000"]),
    ] {
        let [begin, length] = [begin_ms, length_ms].map(Duration::from_millis);
        let axis = Axis::Clock { begin, length };
        let ticks = axis.ticks(local);
        let named: Vec<_> = ticks.iter().filter_map(|it| it.clock(local)).collect();
        assert_eq!(named, labels);
    }
    let axis = Axis::Age { from: 5, to: 10 };
    let named: Vec<_> = axis.ticks(local).into_iter().map(Tick::age).collect();
    assert_eq!(
        named,
        ["0", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]
    );
    let days = Axis::Clock {
        begin: Duration::ZERO,
        length: Duration::from_secs(86_400 * 7),
    };
    assert!(days.ticks(local).iter().all(|it| it.clock(local).is_none()));
    for power in 0..64 {
        let length = Duration::from_nanos(1 << power);
        for begin in [Duration::ZERO, Duration::from_nanos(u64::MAX / 2)] {
            let ticks = Axis::Clock { begin, length }.ticks(local).len();
            assert!(ticks <= 6, "{ticks} ticks on {length:?}");
        }
    }
}
