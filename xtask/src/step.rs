//! One step of `cargo xtask test`: its counts, and why it was skipped.

use crate::{command::say, skips::Skip, tally::Tally};

/// The result of a step.
pub(crate) struct Step {
    pub(crate) tally: Tally,
    pub(crate) skips: Vec<Skip>,
}

impl From<Tally> for Step {
    fn from(tally: Tally) -> Self {
        Self {
            tally,
            skips: Vec::new(),
        }
    }
}

impl Step {
    /// A step that was not run.
    pub(crate) fn skipped(what: &str, why: &str) -> Self {
        say(format_args!("skipped: {why}"));
        Self {
            tally: Tally::one_skipped(),
            skips: vec![Skip {
                what: what.to_owned(),
                why: why.to_owned(),
                count: 1,
            }],
        }
    }
}
