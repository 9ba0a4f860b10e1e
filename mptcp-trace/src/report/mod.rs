//! Findings -> one page for people: what fell back, who knows of it, what was lost. Pure, and bounded: what is written,
//! and where, `cli/report.rs` decides.

mod chart;
mod gather;
mod page;
mod words;

pub use gather::{
    Asked, BINS_MAX, Bins, CAUSES_MAX, CONNECTIONS_MAX, GROUPS_MAX, Gathered, Group, LANES_MAX,
    OfCause, ReportedConnection, Shared,
};
pub use page::{Ending, Report, page};
