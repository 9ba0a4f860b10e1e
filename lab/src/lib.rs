//! Scenarios that provoke for real what mptcp-trace traces, and the comparison of what an application was
//! told with what the tracer says that it was told.
//!
//! `ask` plays the applications, `matrix` and `flood` compare, `init` is the first process of a virtual
//! machine that does either.

pub mod ask;
pub mod bench;
pub mod cases;
pub mod compare;
pub mod figures;
pub mod flood;
pub mod init;
pub mod link;
pub mod matrix;
pub mod middlebox;
pub mod net;
pub mod packet;
pub mod question;
pub mod report;
pub mod sys;
pub mod traced;
