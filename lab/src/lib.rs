//! Scenarios that provoke everything mptcp-trace traces, and the comparison of the applications'
//! answers with the tracer's reports.
//!
//! `ask` runs applications that query, `matrix` and `flood` compare; `provoke` makes connections
//! fall back, `fallbacks`, `mix` and `reuse` compare; `verdicts` compares the conclusions from
//! both; `init` is the init process of a virtual machine that runs any of them.

use mptcp_trace_scene::{
    actor, lines, link, middlebox, net, netns, option, question, recipes, rules, scratch, sys, veth,
};

mod alone;
pub mod ask;
pub mod asker;
pub mod bench;
mod beside;
pub mod bulk;
pub mod call_cost;
pub mod cases;
mod cgroup;
pub mod churn;
pub mod cli;
pub mod compare;
mod events;
pub mod exported;
pub mod fallbacks;
pub mod figures;
pub mod findings;
pub mod flood;
pub mod floods;
pub mod init;
mod iperf;
mod keep;
pub mod lean;
pub mod load;
pub mod matrix;
pub mod mix;
pub mod namespaces;
pub mod pair;
pub mod play;
mod played;
pub mod provoke;
pub mod report;
pub mod reuse;
pub mod served;
mod side_by_side;
pub mod spread;
mod stopwatch;
pub mod together;
pub mod traced;
mod tracer;
pub mod verdicts;
pub mod watched;
