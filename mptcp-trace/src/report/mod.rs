//! Turns findings into an HTML page: what fell back, which applications are aware of it, what was
//! lost. Pure and bounded; `cli/verbs/report.rs` does the I/O.

mod chart;
mod gather;
mod lanes;
mod page;
mod words;

pub use gather::{
    Asked, BINS_MAX, Bins, CAUSES_MAX, CONNECTIONS_MAX, GROUPS_MAX, Gathered, Group, LANES_MAX,
    LISTED_MAX, OfCause, ReportedConnection, Shared,
};
pub use page::{Ending, Report, page};
