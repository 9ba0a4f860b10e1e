//! The durations of a test run.

use std::time::Duration;

use serde::Serialize;

/// Duration of one phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Time {
    /// Name of a suite on a kernel, a step, or a kernel.
    pub(crate) what: String,
    /// `build`, `boot`, `start` of the tracer, `play`, ...
    pub(crate) phase: String,
    pub(crate) seconds: f64,
}

impl Time {
    pub(crate) fn new(what: &str, phase: &str, took: Duration) -> Self {
        Self {
            what: what.to_owned(),
            phase: phase.to_owned(),
            seconds: took.as_secs_f64(),
        }
    }
}

/// Number of slowest phases that are listed.
const SLOWEST_MAX: usize = 10;

/// The slowest phases, one line each, and the sum per kind of phase.
pub(crate) fn table(times: &[Time]) -> String {
    let mut sorted: Vec<&Time> = times.iter().collect();
    sorted.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let mut text = format!("{:<54} {:<10} {:>8}\n", "slowest", "phase", "seconds");
    for Time {
        what,
        phase,
        seconds,
    } in sorted.iter().take(SLOWEST_MAX)
    {
        text.push_str(&format!("{what:<54} {phase:<10} {seconds:>8.1}\n"));
    }
    text.push_str(&format!(
        "\n{:<54} {:<10} {:>8}\n",
        "in all", "phase", "seconds"
    ));
    for (phase, seconds) in sums(times) {
        text.push_str(&format!("{:<54} {phase:<10} {seconds:>8.1}\n", ""));
    }
    text
}

/// Seconds per phase, longest first.
fn sums(times: &[Time]) -> Vec<(String, f64)> {
    let mut sums: Vec<(String, f64)> = Vec::new();
    for time in times {
        match sums.iter_mut().find(|(phase, _)| *phase == time.phase) {
            Some((_, seconds)) => *seconds += time.seconds,
            None => sums.push((time.phase.clone(), time.seconds)),
        }
    }
    sums.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_come_first_and_phases_add_up() {
        let time = |what: &str, phase: &str, seconds: u64| {
            Time::new(what, phase, Duration::from_secs(seconds))
        };
        let mut times: Vec<Time> = (0..12).map(|n| time(&format!("s{n}"), "play", n)).collect();
        times.push(time("6.12", "boot", 100));
        let table = table(&times);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].starts_with("6.12"), "{table}");
        assert!(lines[2].starts_with("s11"), "{table}");
        assert!(!table.contains("s2 "), "{table}");
        assert_eq!(
            sums(&times),
            [("boot".to_owned(), 100.0), ("play".to_owned(), 66.0)]
        );
    }
}
