//! The active question of `probe`: where on the way to a peer does MPTCP get lost?
//!
//! A SYN with `MP_CAPABLE` and a growing time to live expires at one router after the other; each
//! quotes what reached it. The first quote without the option, and the SYN/ACK of the end, name the
//! part of the path (the method of tracebox, IMC 2013). This module decides what to send and what
//! follows from the answers; a [`Wire`] sends. It trusts no byte that it receives.

mod conclude;
mod evidence;
mod options;
mod packet;
mod parse;
mod picture;
mod survey;
mod wire;
mod words;

pub use conclude::{Certainty, Conclusion, Outcome, Passes, Span, conclude};
pub use evidence::{Answer, Back, Data, DataEnd, Ends, Evidence, Hop, Limits, Report};
pub use options::OptionState;
pub use packet::Carried;
pub use parse::{Heard, parse};
pub use picture::{About, json, text};
pub use survey::{Opened, Wire, survey};
pub use wire::{Choice, RawWire, may_send, source_for};

#[cfg(test)]
mod tests;
