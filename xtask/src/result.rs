//! What one suite gave on one kernel, how it is shown, and what it is called.

use std::time::Duration;

use crate::{
    command::say,
    docs_table::{OLDEST_MARK, Outcomes},
    matrix::{PhaseTime, Report},
    shapes::{self, Must, OLDEST, RUNNING},
    skips::Skip,
    suite::Suite,
    tally::Tally,
    times::Time,
};

/// What one suite gave on one kernel.
pub(crate) struct SuiteResult {
    series: String,
    pub(crate) suite: Suite,
    pub(crate) report: Report,
    pub(crate) took: Duration,
}

impl SuiteResult {
    /// Before anything was run.
    pub(crate) fn empty(series: &str, suite: Suite) -> Self {
        Self {
            series: series.to_owned(),
            suite,
            report: Report::default(),
            took: Duration::ZERO,
        }
    }

    /// Prints what failed and what was skipped, and one line of counts.
    pub(crate) fn show(&self) {
        let what = self.what();
        for sentence in self.report.skip_sentences(self.must()) {
            say(format_args!("{what}: {sentence}"));
        }
        for (case, rung, first) in self.report.second_tries() {
            say(format_args!(
                "{what}: {case} on {rung} was right at the second try only; at the first: {first}"
            ));
        }
        for failure in self.failures() {
            println!("{failure}");
        }
        let took = self.took.as_secs();
        println!("{}: {} ({took} s)", self.name(), self.tally());
    }

    /// What failed, a line each.
    pub(crate) fn failures(&self) -> Vec<String> {
        let what = self.what();
        self.report
            .failure_sentences(self.must())
            .into_iter()
            .map(|sentence| format!("FAILED {what}: {sentence}"))
            .collect()
    }

    /// What was tried, before a sentence about it.
    fn what(&self) -> String {
        format!("{}, {}", self.series, self.suite.name())
    }

    /// What took how long.
    pub(crate) fn times(&self) -> Vec<Time> {
        let name = self.name();
        let mut rest = self.took;
        let mut times = Vec::new();
        for PhaseTime {
            rung,
            phase,
            seconds,
        } in &self.report.phases
        {
            let took = Duration::try_from_secs_f64(*seconds).unwrap_or_default();
            rest = rest.saturating_sub(took);
            times.push(Time::new(&format!("{name}, {rung}"), phase, took));
        }
        times.push(Time::new(&name, "other", rest));
        times
    }

    /// The reasons to skip, a sentence and a count each.
    pub(crate) fn skips(&self) -> Vec<Skip> {
        self.report
            .skips(self.must())
            .into_iter()
            .map(|(_rung, why, count)| Skip {
                what: self.what(),
                why,
                count,
            })
            .collect()
    }

    /// It was run on the machine's own kernel.
    pub(crate) fn is_of_running_kernel(&self) -> bool {
        self.series == RUNNING
    }

    /// Its counts.
    pub(crate) fn tally(&self) -> Tally {
        self.report.tally(self.must())
    }

    /// Its name in the summary.
    pub(crate) fn name(&self) -> String {
        format!("{} on {}", self.suite.name(), self.label())
    }

    /// Name of the kernel in tables.
    fn label(&self) -> String {
        let Some(release) = &self.report.kernel else {
            return format!("{} (not booted)", self.series);
        };
        if self.series == RUNNING {
            format!("{RUNNING}: {release}")
        } else if self.series.ends_with(OLDEST) {
            format!("{release}{OLDEST_MARK}")
        } else {
            release.clone()
        }
    }

    /// What goes into the documentation, suite by suite: nothing for a kernel that gave no result.
    pub(crate) fn for_docs(self) -> Vec<Outcomes> {
        // What stands behind the version names a machine; its page is read on others.
        let mut label = self.label();
        if self.series == RUNNING {
            label = label.split('-').next().unwrap_or_default().to_owned();
        }
        let suites = match self.suite == Suite::Together {
            true => &[Suite::Queries, Suite::Fallbacks, Suite::Verdicts][..],
            false => std::slice::from_ref(&self.suite),
        };
        suites
            .iter()
            .map(|&suite| Outcomes {
                suite,
                label: label.clone(),
                report: self.report.of(suite.name()),
            })
            .filter(|outcomes| !outcomes.report.cells.is_empty())
            .collect()
    }

    fn must(&self) -> Must {
        shapes::must(&self.series)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_named_by_its_suite_and_its_kernel() {
        let check = |series: &str, kernel: Option<&str>, want: &str| {
            let mut result = SuiteResult::empty(series, Suite::Fallbacks);
            result.report.kernel = kernel.map(str::to_owned);
            assert_eq!(result.name(), want);
        };
        check("6.12", Some("6.12.118-x"), "fallbacks on 6.12.118-x");
        check(
            "6.12-oldest",
            Some("6.12.43-x"),
            "fallbacks on 6.12.43-x (oldest)",
        );
        check("6.19", None, "fallbacks on 6.19 (not booted)");
        check(RUNNING, Some("6.18.1"), "fallbacks on running: 6.18.1");
    }
}
