//! Scenarios that provoke for real what mptcp-trace traces, and the comparison of what an application was
//! told with what the tracer says that it was told.
//!
//! `ask` plays applications that ask, `matrix` and `flood` compare; `provoke` makes connections fall back,
//! `fallbacks`, `mix` and `reuse` compare; `verdicts` compares what both together mean; `init` is the first process of a virtual machine that does either.

pub mod actor;
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
pub mod demo;
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
pub mod link;
pub mod load;
pub mod matrix;
pub mod middlebox;
pub mod mix;
pub mod namespaces;
pub mod net;
pub mod netns;
pub mod option;
pub mod pair;
pub mod play;
mod played;
pub mod provoke;
pub mod question;
pub mod recipes;
pub mod report;
pub mod reuse;
pub mod rules;
mod scratch;
pub mod served;
mod side_by_side;
pub mod spread;
mod stopwatch;
pub mod sys;
pub mod together;
pub mod traced;
mod tracer;
pub mod verdicts;
pub mod veth;
pub mod watched;
