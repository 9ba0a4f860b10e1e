//! Findings and losses as metrics, for whoever graphs and alerts: what is counted, how it is written, who may ask.
//!
//! Cardinality is stated and bounded: labels are words of ours (cause, side, verdict, api, ...); names of processes
//! or control groups are labels only where they are asked for, and then of the first [`counters::NAMES_MAX`] only.

pub mod counters;
pub mod exposition;
pub mod http;
pub mod otlp;
pub mod page;
