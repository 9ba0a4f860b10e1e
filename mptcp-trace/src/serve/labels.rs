//! The labels by which findings are counted.

/// Label value for "not applicable".
pub(super) const NONE: &str = "none";
/// Label value of an unknown cause or side.
pub(super) const UNKNOWN: &str = "unknown";

/// Label of fallbacks beside their cause.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Whose {
    /// Name of the owner's process.
    Process,
    /// Path of the owner's control group.
    Cgroup,
}

impl Whose {
    /// Name of the label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Cgroup => "cgroup",
        }
    }
}

/// Labels of a fallback: cause, side, certainty of the cause, owner.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Fallback {
    /// Name of the kernel's counter, or `unknown`.
    pub cause: String,
    /// `client`, `server`, or `unknown`.
    pub side: &'static str,
    /// `reported`, `inferred`, or `unknown`.
    pub known: &'static str,
    /// Kind of label and name at the time of counting; none without `--label`.
    pub whose: Option<(Whose, String)>,
}

/// Labels of a query: API, answer, verdict; `none` where not applicable.
pub type QueryLabels = (&'static str, &'static str, &'static str);
