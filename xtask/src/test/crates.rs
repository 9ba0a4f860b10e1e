//! The crates' own tests, and other tests that need no lab.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Skip, Step};
use crate::{command, places::Places, tally::Tally};

/// Prefix of the line that a skipped test prints, followed by the reason.
const SKIP_MARK: &str = "skipped: ";
const NAME: &str = "cargo test";

/// Compiles the tests.
pub(super) fn build(places: &Places) -> Result<()> {
    let mut cargo = command::cargo(&places.root);
    cargo.args(["test", "--quiet", "--no-run"]);
    command::run(&mut cargo, "cannot build the tests")
}

/// Runs the tests.
pub(super) fn run(places: &Places) -> Result<Step> {
    let mut cargo = command::cargo(&places.root);
    // A skipped test prints its reason, which libtest hides by default.
    cargo
        .args(["test", "--no-fail-fast", "--", "--show-output"])
        .stderr(Stdio::inherit());
    let output = cargo.output().context("cannot start cargo test")?;
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines().filter(|line| is_worth_showing(line)) {
        println!("{line}");
    }
    let mut step = count(&text);
    if output.status.success() {
        ensure!(
            step.tally.passed > 0,
            "cargo test ended without a test that passed"
        );
        return Ok(step);
    }
    if step.tally.failed == 0 {
        // A compile error or a crashed test program, which no line counts.
        step.tally.failed = 1;
    }
    println!("{text}");
    Ok(step)
}

/// Checks with promtool that the alerts in contrib/ are valid, fire and clear.
pub(super) fn alert_rules(places: &Places) -> Result<Step> {
    let folder = places.root.join("contrib/prometheus");
    let mut tally = Tally::default();
    for (verb, file) in [
        ("check", "mptcp-trace.rules.yml"),
        ("test", "mptcp-trace.rules.test.yml"),
    ] {
        let ended = Command::new("promtool")
            .args([verb, "rules", file])
            .current_dir(&folder)
            .status();
        match ended {
            Ok(status) if !status.success() => {
                bail!("promtool {verb} rules {}", command::describe(status))
            }
            Ok(_) => tally.add(Tally::of(true)),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Step::skipped(
                    "alert rules",
                    "there is no promtool; Debian: apt-get install prometheus",
                ));
            }
            Err(why) => return Err(why).context("cannot run promtool"),
        }
    }
    Ok(tally.into())
}

fn is_worth_showing(line: &str) -> bool {
    line.starts_with("test result: ") || line.starts_with(SKIP_MARK) || line.contains("... FAILED")
}

/// Adds up the result lines of all test programs; a test that prints a skip reason does not count
/// as passed.
fn count(output: &str) -> Step {
    let mut tally = Tally::default();
    let mut skips: Vec<Skip> = Vec::new();
    for line in output.lines() {
        if let Some(result) = line.strip_prefix("test result: ") {
            let number = |what: &str| {
                result
                    .split(['.', ';'])
                    .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
                    .unwrap_or(0)
            };
            tally.add(Tally {
                passed: number("passed"),
                failed: number("failed"),
                skipped: number("ignored"),
            });
        } else if let Some(why) = line.strip_prefix(SKIP_MARK) {
            skips.push(Skip {
                what: NAME.to_owned(),
                why: why.to_owned(),
                count: 1,
            });
        }
    }
    let said_skipped = u32::try_from(skips.len()).unwrap_or(u32::MAX);
    tally.passed = tally.passed.saturating_sub(said_skipped);
    tally.skipped += said_skipped;
    Step { tally, skips }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_test_programs_add_up() {
        let check = |output: &str, passed, failed, skipped| {
            assert_eq!(
                count(output).tally,
                Tally {
                    passed,
                    failed,
                    skipped
                }
            );
        };
        check(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            3,
            0,
            1,
        );
        check(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured",
            1,
            2,
            0,
        );
        check(
            "skipped: live: needs root\ntest result: ok. 3 passed; 0 failed; 0 ignored",
            2,
            0,
            1,
        );
        check(
            "test result: ok. 3 passed; 0 failed\nskipped: live: needs root\n",
            2,
            0,
            1,
        );
        check("", 0, 0, 0);
    }
}
