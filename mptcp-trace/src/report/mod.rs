//! Turns findings into an HTML page or a trace for a viewer: what fell back, which applications are
//! aware of it, what was lost. Pure and bounded; `cli/verbs/report.rs` does the I/O.

mod chart;
mod chrome_trace;
mod gather;
mod lanes;
mod page;
mod words;

pub use chrome_trace::{Account, ChromeTrace, PROCESSES_MAX, TRACKS_MAX};
pub use gather::{
    Asked, BINS_MAX, Bins, CAUSES_MAX, CONNECTIONS_MAX, GROUPS_MAX, Gathered, Group, LANES_MAX,
    LISTED_MAX, OfCause, ReportedConnection, Shared,
};
pub use page::{Ending, Report, page};
