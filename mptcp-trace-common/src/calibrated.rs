//! Slots of the map `CALIBRATED`: values that userspace determines only after the probes are
//! attached.

/// Number of the fallback bit plus one; 0 if unknown.
pub const FALLBACK_BIT: u32 = 0;
/// Mode of the iterator over files: 0 lists open sockets, 1 searches for fallbacks that no probe
/// observed.
pub const SWEEP: u32 = 1;
/// 1 once every socket that was open before tracing began is listed: any other socket was created
/// later.
pub const LISTED: u32 = 2;
/// Index of MPTCP's per-namespace data (`mptcp_pernet_id`); 0 if unknown.
pub const PERNET_ID: u32 = 3;
/// Result of the program that searches for that index: the namespace has no data at the tried
/// index or any larger one.
pub const NO_DATA: u64 = u64::MAX;
/// Nesting level of the tracer's PID namespace; the initial one is 0.
pub const PIDNS_LEVEL: u32 = 4;

/// Number of slots.
pub const COUNT: u32 = 5;
