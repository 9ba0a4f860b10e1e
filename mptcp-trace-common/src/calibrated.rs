//! Slots of the map `CALIBRATED`: what userspace finds out only when the probes run already.

/// 0 if the fallback bit is not known, else its number plus one.
pub const FALLBACK_BIT: u32 = 0;
/// What the iterator over files does: 0 lists, 1 looks for fallbacks that nobody saw.
pub const SWEEP: u32 = 1;
/// 1 once every socket that was open before tracing began is noted: a socket that is not was born later.
pub const LISTED: u32 = 2;
/// The number of MPTCP's own data among those of a network namespace (`mptcp_pernet_id`); 0 if it is not known.
pub const PERNET_ID: u32 = 3;
/// How deep the tracer's PID namespace is.
pub const PIDNS_LEVEL: u32 = 4;

/// Number of slots.
pub const COUNT: u32 = 5;
