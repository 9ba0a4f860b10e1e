//! The wire between the half of mptcp-trace that runs in the kernel and the half that reads it.
//!
//! Plain data only: `repr(C)`, sized integers, explicit padding, no `bool`, `enum` or `Option`.
//! Sizes are asserted here, once, for both sides. This crate imports `core` and nothing else.

#![no_std]

pub mod calibrated;
pub mod counter;
pub mod filter;
pub mod layout;
pub mod record;
