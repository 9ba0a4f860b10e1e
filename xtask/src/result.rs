//! The results of one suite on one kernel, their presentation, and their names.

use std::time::Duration;

use crate::{
    command::say,
    docs_table::{OLDEST_MARK, Outcomes},
    flavour::Wanted,
    matrix::{PhaseTime, Report},
    series::{self, Must, RUNNING},
    skips::Skip,
    suite::Suite,
    tally::Tally,
    times::Time,
};

/// Results of one suite on one kernel.
pub(crate) struct SuiteResult {
    series: String,
    pub(crate) suite: Suite,
    pub(crate) report: Report,
    pub(crate) took: Duration,
}

impl SuiteResult {
    /// A result without cells.
    pub(crate) fn empty(series: &str, suite: Suite) -> Self {
        Self {
            series: series.to_owned(),
            suite,
            report: Report::default(),
            took: Duration::ZERO,
        }
    }

    /// Prints failures and skips, and one line of counts.
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

    /// The failures, one line each.
    pub(crate) fn failures(&self) -> Vec<String> {
        let what = self.what();
        self.report
            .failure_sentences(self.must())
            .into_iter()
            .map(|sentence| format!("FAILED {what}: {sentence}"))
            .collect()
    }

    /// Suite and kernel, as a prefix of sentences.
    fn what(&self) -> String {
        format!("{}, {}", self.series, self.suite.name())
    }

    /// Durations of the suite's phases.
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

    /// The skip reasons, each with a count.
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

    /// True if the suite ran on the machine's own kernel.
    pub(crate) fn is_of_running_kernel(&self) -> bool {
        self.series == RUNNING
    }

    pub(crate) fn tally(&self) -> Tally {
        self.report.tally(self.must())
    }

    /// Name of the suite in the summary.
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
        } else if Wanted::parse(&self.series).oldest {
            format!("{release}{OLDEST_MARK}")
        } else {
            release.clone()
        }
    }

    /// Results for the documentation, one per suite; empty for a kernel without results.
    pub(crate) fn for_docs(self) -> Vec<Outcomes> {
        // The suffix of the version may identify the machine, and the page is public.
        let mut label = self.label();
        if self.series == RUNNING {
            label = label.split('-').next().unwrap_or_default().to_owned();
        }
        let suites = match self.suite == Suite::Together {
            true => &[
                Suite::Queries,
                Suite::Fallbacks,
                Suite::Verdicts,
                Suite::Paths,
            ][..],
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
        series::must(&self.series)
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
