//! Exports findings and losses as metrics, for graphs and alerts.
//!
//! Cardinality is bounded: labels are fixed words (cause, side, verdict, api, ...); names of
//! processes or control groups are labels only on request, and only the first
//! [`counters::NAMES_MAX`] of them.

pub mod counters;
pub mod exposition;
pub mod http;
pub mod labels;
pub mod listen;
pub mod metrics;
pub mod otlp;
pub mod paths;
pub mod peers;
pub mod process;
pub mod zeros;
