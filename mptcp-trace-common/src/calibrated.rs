//! Slots of the map `CALIBRATED`: values that userspace learns only after the probes are attached.

/// Number of the fallback bit plus one; 0 if unknown.
pub const FALLBACK_BIT: u32 = 0;
/// What the iterator over files does: 0 lists sockets, 1 looks for fallbacks that no probe
/// observed.
pub const SWEEP: u32 = 1;
/// 1 once every socket that was open before tracing began is listed: any other socket was created
/// later.
pub const LISTED: u32 = 2;
/// Index of MPTCP's per-namespace data (`mptcp_pernet_id`); 0 if unknown.
pub const PERNET_ID: u32 = 3;
/// Answer of the program that looks for that index: the namespace has no data with the tried one,
/// nor with a larger one.
pub const NO_DATA: u64 = u64::MAX;
/// Nesting level of the tracer's PID namespace; the initial one is 0.
pub const PIDNS_LEVEL: u32 = 4;

/// Number of slots.
pub const COUNT: u32 = 5;
