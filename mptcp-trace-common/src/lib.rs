//! The wire format between the BPF programs of mptcp-trace and its userspace.
//!
//! Plain data only: `repr(C)`, sized integers, explicit padding, no `bool`, `enum` or `Option`.
//! Sizes are asserted here, once, for both sides. With the feature `bytes`, which userspace
//! enables, whole records can be read from bytes and written to bytes.

#![no_std]

mod wire;

pub mod calibrated;
pub mod counter;
pub mod filter;
pub mod layout;
pub mod map_values;
pub mod numbers;
pub mod record;
