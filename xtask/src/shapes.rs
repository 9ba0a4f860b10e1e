//! The kernels that are tested, and what must work on each: the one list that tells a skip from a
//! failure. A kernel's number names a package to boot here; nothing in the product looks at it.

/// Every rung of the query sensor, best first.
pub(crate) const RUNGS: [&str; 3] = ["fexit", "kprobe", "tracepoint"];
/// The one case of the matrix on a kernel without MPTCP: the tool says so and exits 3.
pub(crate) const NO_MPTCP_CASE: &str = "no-mptcp";
/// Series name of the kernel that `cargo xtask kernel` builds.
pub(crate) const SOL_TCP: &str = "sol-tcp";
/// Name of the machine's own kernel in tables.
pub(crate) const RUNNING: &str = "running";

/// One kernel, by what it offers.
pub(crate) struct Shape {
    /// What `--kernel` takes.
    pub(crate) series: &'static str,
    /// Why this kernel is in the list.
    pub(crate) why: &'static str,
    /// What must not be missing here.
    pub(crate) must: Must,
}

/// What a kernel must offer; what is missing beyond it is a skip.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Must {
    /// Every rung attaches.
    EveryRung,
    /// No MPTCP in this kernel: the tool must refuse, and well.
    Refuse,
    /// Nobody knows: a machine's own kernel, or a series that is not in the list.
    Nothing,
}

/// The matrix. `cargo xtask test` boots them all except `sol-tcp`, which takes long to build.
pub(crate) const SHAPES: [Shape; 7] = [
    Shape {
        series: "5.10",
        why: "no MPTCP in the kernel",
        must: Must::Refuse,
    },
    Shape {
        series: "6.1",
        why: "MPTCP without TCP_IS_MPTCP",
        must: Must::EveryRung,
    },
    Shape {
        series: "6.12",
        why: "the option, socket lookups as of Debian 13",
        must: Must::EveryRung,
    },
    Shape {
        series: "6.16",
        why: "between two releases: members moved",
        must: Must::EveryRung,
    },
    Shape {
        series: "6.18",
        why: "long-term series after 6.12",
        must: Must::EveryRung,
    },
    Shape {
        series: "7.3",
        why: "newest that Debian has",
        must: Must::EveryRung,
    },
    Shape {
        series: SOL_TCP,
        why: "mptcp_getsockopt_sol_tcp is a symbol",
        must: Must::EveryRung,
    },
];

/// What the list says about a series.
pub(crate) fn must(series: &str) -> Must {
    SHAPES
        .iter()
        .find(|shape| shape.series == series)
        .map_or(Must::Nothing, |shape| shape.must)
}

/// Why a series is in the list.
pub(crate) fn why(series: &str) -> Option<&'static str> {
    SHAPES
        .iter()
        .find(|shape| shape.series == series)
        .map(|shape| shape.why)
}

/// The series whose matrix is flooded by `cargo xtask test`: the flood takes minutes in emulation, and
/// one kernel with every rung is enough to prove the counters of each.
pub(crate) const FLOODED: &str = "6.12";
