//! Scenarios that provoke everything mptcp-trace traces, and the comparison of the applications'
//! answers with the tracer's reports.
//!
//! `ask` runs applications that query, `matrix` and `flood` compare; `provoke` makes connections
//! fall back, `fallbacks`, `mix` and `reuse` compare; `verdicts` compares the conclusions from
//! both; `init` is the init process of a virtual machine that runs any of them.

use mptcp_trace_scene::{
    account, actor,
    askers::{ask, bench, flood as flood_asker, load},
    boxes, chain, lines, link, middlebox, net, netns, option, path_manager, query, recipes, rules,
    scratch, side_by_side, sys, veth,
};

mod alone;
mod bulk;
mod call_cost;
mod cells;
mod cgroup;
mod churn;
pub mod cli;
mod compare;
mod events;
mod exported;
mod fallbacks;
mod figures;
pub mod findings;
mod fingerprints;
mod flood;
mod floods;
mod init;
mod iperf;
mod matrix;
mod metrics;
mod mix;
mod namespaces;
mod pair;
mod paired;
mod paths;
pub mod play;
mod probed;
mod process;
mod prometheus;
mod provoke;
mod recorded;
pub mod report;
mod reuse;
pub mod scene;
mod served;
mod serving;
mod spread;
mod stopwatch;
mod together;
mod traced;
mod tracer;
mod truth;
mod verdicts;
mod wait;
mod watched;
