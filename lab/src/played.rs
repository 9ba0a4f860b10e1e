//! Results of a recipe or scenario played with `mptcp-lab play`.

use std::collections::BTreeMap;

/// Answers and counters of a recipe or scenario.
pub(crate) struct Played {
    /// Answers to the applications, by query name.
    pub(crate) answers: BTreeMap<String, String>,
    /// The kernel's counters, one entry per namespace.
    pub(crate) counted: Vec<String>,
    /// Deviations from the script.
    pub(crate) wrong: Vec<String>,
    /// Why it cannot be played here.
    pub(crate) skipped: Option<String>,
}

impl Played {
    /// Lines for a terminal, each with the name.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let Self {
            answers,
            counted,
            wrong,
            skipped,
        } = self;
        let answers = answers
            .iter()
            .map(|(when, answer)| format!("{name}: {when} got {answer}"));
        let counted = counted
            .iter()
            .map(|what| format!("{name}: the kernel counted {what}"));
        let wrong = wrong.iter().map(|why| format!("{name}: went wrong: {why}"));
        let skipped = skipped
            .iter()
            .map(|why| format!("{name}: cannot be played here: {why}"));
        answers.chain(counted).chain(wrong).chain(skipped).collect()
    }
}
