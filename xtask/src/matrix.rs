//! What a verb of the lab reports, and the judgement over it: passed, failed, or skipped for a reason
//! that is good on this kernel.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    shapes::{Must, NO_MPTCP_CASE},
    tally::Tally,
};

/// One case on one rung: what a program saw happen, and what the tracer says.
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
    /// What was wrong at the first try, if this is what the second one gave.
    #[serde(default)]
    pub(crate) first_try: Option<String>,
    /// Which suite it is of, where several report together.
    #[serde(default)]
    pub(crate) suite: Option<String>,
}

/// A capture that the lab recorded.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Kept {
    pub(crate) name: String,
    pub(crate) rung: String,
    /// The capture, two hexadecimal digits a byte.
    pub(crate) capture: String,
    /// What was printed live.
    pub(crate) lines: String,
}

/// How long a phase of a suite took on one rung.
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
    /// They do not.
    Mismatch,
    /// The rung does not attach on this kernel.
    Unavailable,
    /// The case cannot be made here.
    Skipped,
}

/// All that one verb said on one kernel.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Its `uname -r`.
    pub(crate) kernel: Option<String>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) phases: Vec<PhaseTime>,
    /// What was recorded. Of what was done twice, only the second time counts.
    pub(crate) kept: Vec<Kept>,
    /// What the lab's last line counts: no case is missing.
    counted: Option<Counted>,
    /// Why nothing was run at all, if that is no failure.
    pub(crate) skipped: Option<String>,
    /// Why the run as a whole is no success although no cell may say so.
    pub(crate) failures: Vec<String>,
}

/// The lab's own count of its cells.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Counted {
    ok: usize,
    mismatch: usize,
}

/// What we make of a cell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

impl Report {
    /// What one of several suites that report together said; a cell about all of them is of each.
    pub(crate) fn of(&self, suite: &str) -> Self {
        let is_of = |cell: &&Cell| cell.suite.as_deref().is_none_or(|of| of == suite);
        Self {
            kernel: self.kernel.clone(),
            cells: self.cells.iter().filter(is_of).cloned().collect(),
            ..Self::default()
        }
    }

    /// Takes one line of the lab's stdout. Lines of types that are not known here are for others.
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
            Some("summary") => self.counted = serde_json::from_value(data).ok(),
            Some(_) => {}
            None => self
                .failures
                .push(format!("a line of the lab has no type: {line:?}")),
        }
    }

    /// Takes the code with which the lab ended. It is 1 when a cell is wrong, which the cell says.
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
            // Floods are reported beside the sum: more cells than it counts are right.
            Some(counted) if counted.ok > ok || counted.mismatch > mismatch => {
                self.failures.push(format!(
                    "the lab counted {} right and {} wrong cells, but reported {ok} and {mismatch}",
                    counted.ok, counted.mismatch
                ));
            }
            Some(_) => {}
        }
    }

    /// Adds a failure for each asked rung on which nothing was right, where the kernel must have it; where a suite may have
    /// nothing to do on a kernel (`is_certain` is false), for each that no cell speaks of.
    pub(crate) fn require(&mut self, must: Must, rungs: &[String], is_certain: bool) {
        match must {
            Must::Nothing => {}
            Must::Refuse => {
                if !self.cells.iter().any(|cell| cell.case == NO_MPTCP_CASE) {
                    self.failures
                        .push(format!("no case {NO_MPTCP_CASE} was reported"));
                }
            }
            Must::EveryRung => {
                for rung in rungs {
                    self.require_rung(rung, is_certain);
                }
            }
        }
    }

    /// The same of one rung.
    pub(crate) fn require_rung(&mut self, rung: &str, is_certain: bool) {
        let is_it = |cell: &Cell| {
            cell.rung == rung
                && (!is_certain
                    || cell.outcome != Outcome::Skipped && cell.outcome != Outcome::Unavailable)
        };
        if !self.cells.iter().any(is_it) {
            self.failures
                .push(format!("no case was played on the rung {rung}"));
        }
    }

    /// Counts over the cells and the failures of the run.
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

    /// A sentence for each thing that failed.
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

    /// Cells that were right only at the second try: case, rung, and what was wrong first.
    pub(crate) fn second_tries(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.cells.iter().filter_map(|cell| {
            let first = cell.first_try.as_deref()?;
            Some((cell.case.as_str(), cell.rung.as_str(), first))
        })
    }

    /// The reasons to skip, each with its rung and the number of cases it took away.
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

    /// A sentence for each reason to skip, with the number of cases it took away.
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
    match (cell.outcome, must) {
        (Outcome::Ok, _) => Verdict::Passed,
        (Outcome::Mismatch, _) => Verdict::Failed(format!(
            "the program saw {}, the trace says {}{}",
            cell.caller.as_deref().unwrap_or("nothing"),
            cell.traced.as_deref().unwrap_or("nothing"),
            if cell.why.is_empty() {
                String::new()
            } else {
                format!(" ({})", cell.why)
            }
        )),
        (Outcome::Unavailable, Must::EveryRung) => {
            Verdict::Failed(format!("this kernel must have the rung: {}", cell.why))
        }
        (Outcome::Unavailable, Must::Refuse | Must::Nothing) | (Outcome::Skipped, _) => {
            Verdict::Skipped(cell.why.clone())
        }
    }
}

/// A flood is one more case: its caller's number of questions against the trace's lines and losses.
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
        // What was skipped is no reason for a code, and nothing but skips is no success where the kernel has the rung.
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
