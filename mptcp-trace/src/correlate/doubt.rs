//! Why a closing verdict may be wrong: the sentences behind "in doubt".

/// Doubt if the kernel skipped runs of a probe.
pub(super) const MAY_BE_MISSED: &str =
    "the kernel skipped probe runs since, perhaps for queries about this connection";

/// Doubt of a connection of which a query is certainly missing.
pub(super) const UNTRACED: &str =
    "a later query about it was not traced (capped, lost, or through io_uring)";

/// Doubt if queries are missing, and their connections are unknown.
pub(super) const PERHAPS_UNTRACED: &str =
    "queries were not traced (capped or lost), perhaps about this connection";

/// Doubt of a connection whose end was not recorded.
pub(super) const UNSEEN_END: &str = "its end was lost, and queries about it may be lost too";

/// Doubt of an evicted connection that may live on.
pub(super) const EVICTED: &str = "later queries may be unknown: it was evicted (--max-connections)";
