use super::*;
use crate::{
    report::Outcome,
    traced::{Losses, PathLine},
};

#[test]
fn runs_are_read_from_what_the_kernel_says_about_a_program() {
    let info = "pos:\t0\nprog_type:\t26\nrun_time_ns:\t70\nrun_cnt:\t12\nrecursion_misses:\t0\n";
    assert_eq!(run_count(info).unwrap(), 12);
    assert!(run_count("pos:\t0\n").is_err());
}

#[test]
fn a_program_that_runs_for_packets_is_found_in_the_quietest_time_and_an_idle_count_proves_nothing()
{
    let of = |runs, other_runs| Transfer {
        packets: 10_000,
        runs,
        other_runs,
    };
    let check = |all: &[Transfer], want| assert_eq!(packets("kprobe", all).outcome, want);
    check(&[of(0, 9)], Outcome::Ok);
    check(&[of(5_000, 9), of(50, 9)], Outcome::Ok);
    check(&[of(5_000, 9), of(51, 9)], Outcome::Mismatch);
    check(&[of(0, 0)], Outcome::Mismatch);
    check(&[], Outcome::Mismatch);
}

#[test]
fn records_of_others_are_theirs() {
    let own = Own {
        since_ns: 10,
        netns: [1, 2],
    };
    let line = |netns, boottime_ns| {
        TracedLine::PathDown(Box::new(PathLine {
            netns,
            boottime_ns,
            ..PathLine::default()
        }))
    };
    let end = |seen| {
        TracedLine::End(End {
            losses: vec![Losses {
                sensor: "subflow".to_owned(),
                seen,
                ..Losses::default()
            }],
            ..End::default()
        })
    };
    let check = |number: usize, others: usize, seen, want| {
        let mut lines = vec![line(2, 11); number];
        lines.extend(vec![line(1, 9); others]);
        lines.push(end(seen));
        assert_eq!(
            own.records("kprobe", &lines).outcome,
            want,
            "{number} {others} {seen}"
        );
    };
    check(500, 0, 510, Outcome::Ok);
    check(500, 0, 601, Outcome::Mismatch);
    check(500, 3, 601, Outcome::Ok);
    check(601, 0, 601, Outcome::Mismatch);
    check(99, 0, 99, Outcome::Mismatch);
}
