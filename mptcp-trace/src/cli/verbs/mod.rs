//! A file for each verb: what is typed for it, turned into what is wanted. No verb knows another.

pub(super) mod bundle;
pub(super) mod demo;
pub(super) mod doctor;
pub(super) mod explain;
pub(super) mod list;
pub(super) mod live;
pub(super) mod replay;
pub(super) mod report;
pub(super) mod serve;
pub(super) mod top;
