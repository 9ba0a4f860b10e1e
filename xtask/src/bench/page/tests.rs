use super::*;
use crate::bench::figures::{Call, CallCost, Guests, Rate};

fn call(beside: &str, added: Option<f64>) -> Call {
    Call {
        beside: beside.to_owned(),
        call: "in-bursts".to_owned(),
        ns_median: 279.4,
        ns_min: 270.0,
        added_ns_median: added,
        added_ns_min: added,
    }
}

fn this_machine() -> Machine {
    Machine {
        cpu: "A CPU".to_owned(),
        cores: 2,
        memory_gb: 7.8,
        kernel: "6.18".to_owned(),
        rustc: "1.95.0".to_owned(),
        bpftrace: None,
        iperf3: Some("3.12".to_owned()),
        qemu: None,
        date: "2026-01-02".to_owned(),
    }
}

fn native() -> Native {
    Native {
        machine: this_machine(),
        quick: false,
        calls: vec![
            call("nothing", None),
            call("mptcp-trace, text", Some(900.4)),
            call("bpftrace, printing", Some(8000.0)),
        ],
        footprints: Vec::new(),
        start: None,
        resident: None,
        rates: vec![Rate {
            offered: 10_000,
            seconds: 10.0,
            asked: 100_000,
            lines: 100_000,
            ring_full: 0,
            otherwise_lost: 0,
            balances: true,
            reader_cpu_s: 0.6,
            peak_kb: 1,
        }],
        bulk: Vec::new(),
        floods: Vec::new(),
        stages: Vec::new(),
        binaries: Vec::new(),
    }
}

fn page() -> String {
    let marks = BLOCKS.map(|(name, _)| marks(name).join("\n"));
    format!("# By hand\n\n{}\n\nBy hand too.\n", marks.join("\n"))
}

#[test]
fn the_machine_is_described_in_one_line() {
    let want = "A CPU, 2 processors, 7.8 GB of memory, Linux 6.18; rustc 1.95.0, iperf3 3.12; 2026-01-02.\n";
    assert_eq!(machine(&this_machine(), false), want);
    assert!(machine(&this_machine(), true).contains("not to be relied on"));
}

#[test]
fn a_call_is_shown_in_full_without_a_tracer_and_as_the_added_cost_with_one() {
    let table = calls(&native());
    assert!(
        table.contains("| nothing | 279 (270) | - | - | - |"),
        "{table}"
    );
    assert!(
        table.contains("| mptcp-trace, text | +900 (+900) | - | - | - |"),
        "{table}"
    );
}

#[test]
fn instructions_are_those_added_to_the_call_of_the_same_kernel() {
    let cost = |beside: &str, ns, reader_ns| CallCost {
        beside: beside.to_owned(),
        call: "is-mptcp".to_owned(),
        ns,
        reader_ns,
    };
    let guest = Guest {
        kernel: "6.12.118".to_owned(),
        calls: vec![cost("nothing", 953.1, 0.0), cost("fexit", 6878.0, 7000.0)],
        bulk: Vec::new(),
    };
    let table = guests(&[guest]);
    assert!(
        table.contains("| 6.12.118 | nothing | 953 | - | - | - | - | - |"),
        "{table}"
    );
    assert!(
        table.contains("| 6.12.118 | fexit | +5925 | - | - | - | - | 7000 |"),
        "{table}"
    );
}

#[test]
fn what_was_not_measured_stays_as_it_is() {
    let all = Benchmarks {
        native: Some(native()),
        guests: None,
    };
    let first = updated(page(), &all).unwrap();
    assert!(first.contains("mptcp-trace, text"));
    assert_eq!(
        updated(first.clone(), &Benchmarks::default())
            .unwrap()
            .matches("mptcp-trace, text")
            .count(),
        first.matches("mptcp-trace, text").count()
    );
    let guests = Benchmarks {
        native: None,
        guests: Some(Guests {
            machine: this_machine(),
            quick: true,
            kernels: Vec::new(),
        }),
    };
    let second = updated(first, &guests).unwrap();
    assert!(second.contains("mptcp-trace, text") && second.contains("not to be relied on"));
    assert!(second.starts_with("# By hand") && second.ends_with("By hand too.\n"));
    assert!(updated("no marks".to_owned(), &all).is_err());
}

#[test]
fn a_limit_that_is_missed_is_said_aloud() {
    let all = Benchmarks {
        native: Some(native()),
        guests: None,
    };
    let text = budget(&all);
    assert!(
        text.contains("| <= 0.25 x 8000 ns | 900 ns | kept |"),
        "{text}"
    );
    assert!(text.contains("| < 5 % | 6.0 % | **missed** |"), "{text}");
}

#[test]
fn thousands_are_separated() {
    for (number, want) in [(0.0, "0"), (999.6, "1,000"), (28_500_000.0, "28,500,000")] {
        assert_eq!(grouped(number), want);
    }
}
