//! Turns findings into an HTML page or a trace for a viewer: what fell back, which applications are
//! aware of it, what was lost. Pure and bounded; `cli/verbs/report.rs` does the I/O.

mod bins;
mod chart;
mod chrome_trace;
mod gather;
mod lanes;
mod page;
mod path_counts;
mod path_lanes;
mod shared;
mod words;

pub use bins::{BINS_MAX, Bins};
pub use chrome_trace::{Account, ChromeTrace, PROCESSES_MAX, TRACKS_MAX};
pub use gather::{
    Asked, CAUSES_MAX, CONNECTIONS_MAX, GROUPS_MAX, Gathered, Group, LANES_MAX, LISTED_MAX,
    OfCause, ReportedConnection,
};
pub use page::{Ending, Report, page};
pub use path_counts::{PathCounts, PathOutcome};
pub use shared::Shared;
