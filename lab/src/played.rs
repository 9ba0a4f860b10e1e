//! What came of a recipe or a scenario that was played for somebody to look at.

use std::collections::BTreeMap;

/// What the applications and the kernel say of a recipe or scenario.
pub(crate) struct Played {
    /// What the applications were told: when, and what the kernel said.
    pub(crate) answers: BTreeMap<String, String>,
    /// What the kernel counted, a namespace each.
    pub(crate) counted: Vec<String>,
    /// What did not happen as it was meant to.
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
            .map(|(when, answer)| format!("{name}: {when} was told {answer}"));
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
