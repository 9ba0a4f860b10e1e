//! Parses the results of the lab's verbs, and judges them: passed, failed, or skipped for a reason
//! that is acceptable on this kernel.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    series::{Must, NO_MPTCP_CASE},
    tally::Tally,
};

/// One case with one attach method: the result that the program saw, and what the tracer reported.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Cell {
    pub(crate) case: String,
    pub(crate) rung: String,
    pub(crate) outcome: Outcome,
    #[serde(default)]
    pub(crate) caller: Option<String>,
    #[serde(default)]
    pub(crate) traced: Option<String>,
    #[serde(default)]
    pub(crate) why: String,
    /// The first attempt's mismatch, if this is the result of the second attempt.
    #[serde(default)]
    pub(crate) first_try: Option<String>,
    /// The suite of the cell, if several suites report together.
    #[serde(default)]
    pub(crate) suite: Option<String>,
}

/// A capture that the lab recorded.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Kept {
    pub(crate) name: String,
    pub(crate) rung: String,
    /// The capture as hexadecimal digits, two per byte.
    pub(crate) capture: String,
    /// The lines printed live.
    pub(crate) lines: String,
}

/// Duration of one phase of a suite with one attach method.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PhaseTime {
    pub(crate) rung: String,
    pub(crate) phase: String,
    pub(crate) seconds: f64,
}

/// The lab's own judgement of a cell.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// Caller and tracer agree.
    Ok,
    /// Caller and tracer disagree.
    Mismatch,
    /// The attach method is unavailable on this kernel.
    Unavailable,
    /// The case cannot be set up here.
    Skipped,
}

/// All results of one verb on one kernel.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The output of `uname -r`.
    pub(crate) kernel: Option<String>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) phases: Vec<PhaseTime>,
    /// Recorded captures. A repeated recording replaces the first one.
    pub(crate) kept: Vec<Kept>,
    /// The totals in the lab's last line, which reveal missing cells.
    counted: Option<Counted>,
    /// Why nothing was run, if that is not a failure.
    pub(crate) skipped: Option<String>,
    /// Failures of the run as a whole, which no cell reports.
    pub(crate) failures: Vec<String>,
}

/// The lab's own count of its cells.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Counted {
    ok: usize,
    mismatch: usize,
}

/// Our judgement of a cell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

impl Report {
    /// The part that concerns one of several suites that report together. A cell about all of them
    /// belongs to each.
    pub(crate) fn of(&self, suite: &str) -> Self {
        let is_of = |cell: &&Cell| cell.suite.as_deref().is_none_or(|of| of == suite);
        Self {
            kernel: self.kernel.clone(),
            cells: self.cells.iter().filter(is_of).cloned().collect(),
            ..Self::default()
        }
    }

    /// Parses one line of the lab's stdout. Lines of other types are ignored.
    pub(crate) fn read_line(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            self.failures
                .push(format!("a line of the lab is no JSON: {line:?}"));
            return;
        };
        let data = value.get("data").cloned().unwrap_or_default();
        match value.get("type").and_then(Value::as_str) {
            Some("host") => {
                self.kernel = data
                    .get("kernel")
                    .and_then(Value::as_str)
                    .map(str::to_owned);
            }
            Some("cell") => self.read_cell(data),
            Some("capture") => self.read_capture(data),
            Some("flood") => self.read_cell(flood_as_cell(data)),
            Some("phase") => self.read_phase(data),
            Some("failed") => {
                let why = data.get("why").and_then(Value::as_str).unwrap_or_default();
                self.failures.push(format!("the lab stopped: {why}"));
            }
            Some("summary") => self.counted = serde_json::from_value(data).ok(),
            Some(_) => {}
            None => self
                .failures
                .push(format!("a line of the lab has no type: {line:?}")),
        }
    }

    /// Handles the lab's exit code. Code 1 means that a cell is wrong, which the cell itself
    /// reports.
    pub(crate) fn read_exit_code(&mut self, code: i64) {
        let of = |wanted: Outcome| {
            self.cells
                .iter()
                .filter(|cell| cell.outcome == wanted)
                .count()
        };
        let (ok, mismatch) = (of(Outcome::Ok), of(Outcome::Mismatch));
        if code != 0 && !(mismatch > 0 && code == 1) {
            self.failures
                .push(format!("the lab exited with code {code}"));
        }
        if self.cells.is_empty() {
            self.failures.push("the lab reported no case".to_owned());
            return;
        }
        match self.counted {
            None => self
                .failures
                .push("the lab ended before its summary: cases are missing".to_owned()),
            // Floods are reported besides the totals, so there may be more correct cells than they
            // count.
            Some(counted) if counted.ok > ok || counted.mismatch > mismatch => {
                self.failures.push(format!(
                    "the lab counted {} right and {} wrong cells, but reported {ok} and {mismatch}",
                    counted.ok, counted.mismatch
                ));
            }
            Some(_) => {}
        }
    }

    /// Adds a failure for each required attach method on which no case was played. If `is_certain`
    /// is false, the suite may have nothing to play on a kernel; then a skipped or unavailable cell
    /// suffices.
    pub(crate) fn require(&mut self, must: Must, rungs: &[String], is_certain: bool) {
        match must {
            Must::Nothing => {}
            Must::Refuse => {
                if !self.cells.iter().any(|cell| cell.case == NO_MPTCP_CASE) {
                    self.failures
                        .push(format!("no case {NO_MPTCP_CASE} was reported"));
                }
            }
            Must::EveryRung | Must::EveryRungBut(_) => {
                for rung in rungs.iter().filter(|rung| must.needs(rung)) {
                    self.require_rung(rung, is_certain);
                }
            }
        }
    }

    /// Like `require`, for one attach method.
    pub(crate) fn require_rung(&mut self, rung: &str, is_certain: bool) {
        let is_it = |cell: &Cell| {
            cell.rung == rung
                && (!is_certain
                    || cell.outcome != Outcome::Skipped && cell.outcome != Outcome::Unavailable)
        };
        if !self.cells.iter().any(is_it) {
            self.failures
                .push(format!("no case was played with the attach method {rung}"));
        }
    }

    /// Counts the cells, and the failures of the run.
    pub(crate) fn tally(&self, must: Must) -> Tally {
        let mut tally = Tally::default();
        for cell in &self.cells {
            tally.add(match verdict(cell, must) {
                Verdict::Passed => Tally::of(true),
                Verdict::Failed(_) => Tally::of(false),
                Verdict::Skipped(_) => Tally::one_skipped(),
            });
        }
        for _ in &self.failures {
            tally.add(Tally::of(false));
        }
        if self.skipped.is_some() {
            tally.add(Tally::one_skipped());
        }
        tally
    }

    /// One sentence per failure.
    pub(crate) fn failure_sentences(&self, must: Must) -> Vec<String> {
        self.cells
            .iter()
            .filter_map(|cell| match verdict(cell, must) {
                Verdict::Failed(why) => Some(format!("{} on {}: {why}", cell.case, cell.rung)),
                Verdict::Passed | Verdict::Skipped(_) => None,
            })
            .chain(self.failures.iter().cloned())
            .collect()
    }

    /// Cells that passed only at the second attempt: case, attach method, and the first mismatch.
    pub(crate) fn second_tries(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.cells.iter().filter_map(|cell| {
            let first = cell.first_try.as_deref()?;
            Some((cell.case.as_str(), cell.rung.as_str(), first))
        })
    }

    /// The skip reasons, each with its attach method and the number of skipped cases.
    pub(crate) fn skips(&self, must: Must) -> Vec<(String, String, u32)> {
        let mut reasons: Vec<(String, String, u32)> = Vec::new();
        let mut add = |rung: &str, why: String| match reasons
            .iter_mut()
            .find(|(known, reason, _)| known == rung && *reason == why)
        {
            Some((_, _, count)) => *count += 1,
            None => reasons.push((rung.to_owned(), why, 1)),
        };
        for cell in &self.cells {
            if let Verdict::Skipped(why) = verdict(cell, must) {
                add(&cell.rung, why);
            }
        }
        if let Some(why) = &self.skipped {
            add("", why.clone());
        }
        reasons
    }

    /// One sentence per skip reason, with the number of skipped cases.
    pub(crate) fn skip_sentences(&self, must: Must) -> Vec<String> {
        self.skips(must)
            .into_iter()
            .map(|(rung, why, count)| match rung.as_str() {
                "" => format!("skipped: {why}"),
                rung => format!("{count} skipped on {rung}: {why}"),
            })
            .collect()
    }

    fn read_capture(&mut self, data: Value) {
        match serde_json::from_value::<Kept>(data) {
            Ok(kept) => {
                self.kept.retain(|other| !other.is_like(&kept));
                self.kept.push(kept);
            }
            Err(error) => {
                self.failures
                    .push(format!("a capture of the lab cannot be read: {error}"));
            }
        }
    }

    fn read_phase(&mut self, data: Value) {
        match serde_json::from_value(data) {
            Ok(phase) => self.phases.push(phase),
            Err(error) => {
                self.failures
                    .push(format!("a phase of the lab cannot be read: {error}"));
            }
        }
    }

    fn read_cell(&mut self, data: Value) {
        match serde_json::from_value(data) {
            Ok(cell) => self.cells.push(cell),
            Err(error) => {
                self.failures
                    .push(format!("a cell of the lab cannot be read: {error}"));
            }
        }
    }
}

/// Judges one cell. What a kernel of this shape must have may not be missing.
pub(crate) fn verdict(cell: &Cell, must: Must) -> Verdict {
    match cell.outcome {
        Outcome::Ok => Verdict::Passed,
        Outcome::Mismatch => Verdict::Failed(format!(
            "the program saw {}, the trace says {}{}",
            cell.caller.as_deref().unwrap_or("nothing"),
            cell.traced.as_deref().unwrap_or("nothing"),
            if cell.why.is_empty() {
                String::new()
            } else {
                format!(" ({})", cell.why)
            }
        )),
        Outcome::Unavailable if must.needs(&cell.rung) => Verdict::Failed(format!(
            "this kernel must support the attach method: {}",
            cell.why
        )),
        Outcome::Unavailable | Outcome::Skipped => Verdict::Skipped(cell.why.clone()),
    }
}

/// Converts a flood into a cell: the caller's number of queries against the trace's lines and
/// losses.
fn flood_as_cell(mut data: Value) -> Value {
    if let Some(fields) = data.as_object_mut() {
        fields.entry("case").or_insert_with(|| "flood".into());
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[&str]) -> Report {
        let mut report = Report::default();
        for line in lines {
            report.read_line(line);
        }
        report
    }

    const OK: &str = r#"{"type":"cell","data":{"case":"fresh","rung":"fexit","outcome":"ok","caller":"mptcp","traced":"mptcp","why":""}}"#;
    const MISMATCH: &str = r#"{"type":"cell","data":{"case":"fresh","rung":"fexit","outcome":"mismatch","caller":"mptcp","traced":"tcp","why":""}}"#;
    const UNAVAILABLE: &str = r#"{"type":"cell","data":{"case":"fresh","rung":"fexit","outcome":"unavailable","caller":null,"traced":null,"why":"no trampoline"}}"#;
    const SKIPPED: &str = r#"{"type":"cell","data":{"case":"compat","rung":"fexit","outcome":"skipped","why":"no 32-bit"}}"#;

    #[test]
    fn a_missing_rung_fails_only_where_the_kernel_must_have_it() {
        let check = |line: &str, must: Must, passed, failed, skipped| {
            assert_eq!(
                report(&[line]).tally(must),
                Tally {
                    passed,
                    failed,
                    skipped
                },
                "{line}"
            );
        };
        check(OK, Must::EveryRung, 1, 0, 0);
        check(MISMATCH, Must::Nothing, 0, 1, 0);
        check(UNAVAILABLE, Must::EveryRung, 0, 1, 0);
        check(UNAVAILABLE, Must::Nothing, 0, 0, 1);
        check(SKIPPED, Must::EveryRung, 0, 0, 1);
        check("no json", Must::Nothing, 0, 1, 0);
    }

    #[test]
    fn why_the_lab_stopped_is_a_failure() {
        let why = r#"{"type":"failed","data":{"why":"no network namespace"}}"#;
        let sentences = report(&[OK, why]).failure_sentences(Must::EveryRung);
        assert_eq!(sentences, ["the lab stopped: no network namespace"]);
    }

    #[test]
    fn a_second_try_keeps_what_was_wrong_first() {
        let again = OK.replace(
            "\"why\":\"\"",
            "\"why\":\"\",\"first_try\":\"a line was missing\"",
        );
        let report = report(&[OK, &again]);
        let tries: Vec<_> = report.second_tries().collect();
        assert_eq!(tries, [("fresh", "fexit", "a line was missing")]);
        assert_eq!(report.tally(Must::EveryRung).passed, 2);
    }

    #[test]
    fn of_what_was_recorded_twice_only_the_second_time_counts() {
        let line = |rung: &str, lines: &str| {
            format!(
                r#"{{"type":"capture","data":{{"name":"fallbacks","rung":"{rung}","capture":"00","lines":"{lines}"}}}}"#
            )
        };
        let (first, other, second) = (line("fexit", "a"), line("kprobe", "b"), line("fexit", "c"));
        let got = report(&[&first, &other, &second]);
        assert_eq!(got.failures, [""; 0]);
        let kept: Vec<&str> = got.kept.iter().map(|kept| kept.lines.as_str()).collect();
        assert_eq!(kept, ["b", "c"]);
        let broken = report(&[r#"{"type":"capture","data":{}}"#]);
        assert_eq!(broken.failures.len(), 1);
    }

    #[test]
    fn a_kernel_that_is_gone_is_one_skip() {
        let gone = Report {
            skipped: Some("the archive has it no more".into()),
            ..Report::default()
        };
        assert_eq!(gone.tally(Must::EveryRung), Tally::one_skipped());
        assert_eq!(
            gone.skip_sentences(Must::EveryRung),
            ["skipped: the archive has it no more"]
        );
    }

    #[test]
    fn silence_is_no_success() {
        let rungs = ["fexit".to_owned(), "kprobe".to_owned()];
        let check = |lines: &[&str], must: Must, code, failed| {
            let mut report = report(lines);
            report.read_line(r#"{"type":"summary","data":{}}"#);
            report.require(must, &rungs, true);
            report.read_exit_code(code);
            assert_eq!(report.tally(must).failed, failed, "{:?}", report.failures);
        };
        check(&[OK], Must::Nothing, 0, 0);
        check(&[OK], Must::EveryRung, 0, 1);
        check(&[OK], Must::Nothing, 101, 1);
        check(&[OK], Must::Nothing, 1, 1);
        check(&[MISMATCH], Must::Nothing, 1, 1);
        check(&[], Must::Nothing, 0, 1);
        check(&[OK], Must::Refuse, 0, 1);
        // Skipped cells do not explain an exit code, and a run with only skips does not pass if the
        // kernel has the attach method.
        let skipped = OK.replace("\"ok\"", "\"skipped\"");
        check(&[&skipped], Must::Nothing, 1, 1);
        check(&[&skipped], Must::Nothing, 0, 0);
        check(&[&skipped], Must::EveryRung, 0, 2);
        for (summary, failed) in [
            (r#"{"type":"summary","data":{"ok":1,"mismatch":0}}"#, 0),
            (r#"{"type":"summary","data":{"ok":2,"mismatch":0}}"#, 1),
            (r#"{"type":"summary","data":{"ok":0,"mismatch":1}}"#, 1),
        ] {
            let mut report = report(&[OK]);
            report.read_line(summary);
            report.read_exit_code(0);
            assert_eq!(report.failures.len(), failed, "{summary}");
        }
        let mut broken_off = report(&[OK]);
        broken_off.read_exit_code(0);
        assert_eq!(broken_off.failures.len(), 1);
    }
}
