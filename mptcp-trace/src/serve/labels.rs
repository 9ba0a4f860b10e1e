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
    /// The owner's pod and its container.
    Pod,
    /// The local interface.
    Interface,
}

impl Whose {
    /// Names of its labels.
    #[must_use]
    pub fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Process => &["process"],
            Self::Cgroup => &["cgroup"],
            // Prometheus itself has the labels `namespace` and `pod` for the pod that it scrapes.
            Self::Pod => &["k8s_namespace_name", "k8s_pod_name", "k8s_container_name"],
            Self::Interface => &["interface"],
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
    /// Kind of labels, and their values at the time of counting; none without `--label`.
    pub whose: Option<(Whose, Vec<String>)>,
}

/// Labels of a query: API, answer, verdict; `none` where not applicable.
pub type QueryLabels = (&'static str, &'static str, &'static str);

/// Labels of a handshake: what the peer answered, and the interface, if that was a label when it was
/// counted.
pub type HandshakeLabels = (&'static str, Option<String>);

/// What a peer may answer.
pub(super) const ANSWERS: [&str; 2] = ["mptcp", "tcp"];
