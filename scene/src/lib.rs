//! Multipath TCP connections and what makes them fall back: network namespaces, a middlebox between
//! them, and the applications at both ends. `mptcp-trace demo` plays one scene; the lab plays them
//! all and checks the tracer's output.

pub mod account;
pub mod actor;
#[cfg(feature = "askers")]
pub mod askers;
#[cfg(feature = "askers")]
pub mod boxes;
#[cfg(feature = "askers")]
pub mod chain;
pub mod demo;
pub mod lines;
pub mod link;
pub mod middlebox;
pub mod net;
mod netlink;
pub mod netns;
pub mod option;
pub mod path_manager;
pub mod query;
pub mod recipes;
pub mod rules;
pub mod scratch;
pub mod side_by_side;
pub mod sys;
pub mod veth;
