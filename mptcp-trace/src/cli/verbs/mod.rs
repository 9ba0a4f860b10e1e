//! One file per verb: converts its arguments to options and runs it. Verbs do not depend on each
//! other.

pub(super) mod annotate;
pub(super) mod bundle;
pub(super) mod completions;
pub(super) mod demo;
pub(super) mod doctor;
pub(super) mod dump;
pub(super) mod explain;
pub(super) mod list;
pub(super) mod live;
pub(super) mod pair;
pub(super) mod probe;
pub(super) mod replay;
pub(super) mod report;
pub(super) mod schema;
pub(super) mod serve;
pub(super) mod top;
