//! mptcp-trace shows which Multipath TCP connections silently became plain TCP, and what the kernel
//! answered their applications.
//!
//! The modules follow the flow of the data: facts about the host ([`host`]) become a plan
//! ([`plan`]), the plan becomes attached probes ([`kernel`]); their records are decoded
//! ([`decode`]) into the types of the [`model`], given a wall clock time ([`enrich`]) and printed
//! ([`sink`]). See `ARCHITECTURE.md` for the rest.

#![deny(clippy::print_stderr)]

/// Writes text to stderr. If stderr is closed or its disk is full, the text is lost, and the
/// program goes on: `eprint!` would panic.
macro_rules! stderr {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let text = format!($($text)*);
        let text = $crate::escape::without_error_numbers(&text);
        let _unwritable = std::io::stderr().write_all(text.as_bytes());
    }};
}

/// Variant of [`stderr`] that ends the line.
macro_rules! stderr_line {
    ($($text:tt)*) => {
        stderr!("{}\n", format_args!($($text)*))
    };
}

pub mod aggregation;
pub mod annotate;
pub mod bundle;
pub mod canary;
pub mod capture;
pub mod cli;
pub mod coalesce;
pub mod correlate;
pub mod decode;
pub mod enrich;
pub mod escape;
pub mod filter;
pub mod history;
pub mod hops;
pub mod host;
pub mod kernel;
pub mod ledger;
pub mod model;
pub mod observe;
pub mod pair;
pub mod paths;
pub mod peers;
pub mod pipeline;
pub mod plan;
pub mod probes;
pub mod recorder;
pub mod redact;
pub mod report;
pub mod serve;
pub mod sink;
pub mod top;
