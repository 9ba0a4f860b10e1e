use super::*;
use crate::report::Outcome;

#[test]
fn every_difference_is_a_mismatch_and_so_is_a_scenario_that_proves_nothing() {
    let [idle, listening, _] = &SCENARIOS;
    let seen = |joins, events: &[u8], count| Seen {
        joins,
        events: events.to_vec(),
        counted: [
            Counters::new(),
            Counters::from([("MPJoinAckRx".to_owned(), count)]),
        ],
    };
    let right = || seen(1, &[1, 10, 3], 1);
    let check = |scenario, alone, traced, want| {
        assert_eq!(cell("kprobe", scenario, alone, traced).outcome, want);
    };
    check(listening, Ok(right()), Ok(right()), Outcome::Ok);
    for other in [
        seen(0, &[1, 10, 3], 1),
        seen(1, &[1, 3], 1),
        seen(1, &[1, 10, 3], 2),
    ] {
        check(listening, Ok(right()), Ok(other), Outcome::Mismatch);
    }
    // A kernel that joins although nobody listens would not notice the tracer.
    check(idle, Ok(right()), Ok(right()), Outcome::Mismatch);
    let failed = || Err(Failure::Failed(String::new()));
    check(listening, failed(), Ok(right()), Outcome::Mismatch);
    check(listening, Ok(right()), failed(), Outcome::Mismatch);
    let impossible = || Err(Failure::Impossible(String::new()));
    check(listening, impossible(), impossible(), Outcome::Skipped);
}
