//! The recipes of paths: how the paths of MPTCP connections come up, fail and end, as one table row
//! each, with what the tracer must report and what the kernel counts.

use super::{End, Stage};
use crate::rules::{Rules, Treatment};

mod scripts;
mod table;

pub use table::PATH_RECIPES;

/// An address of an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spot {
    /// That of the first path.
    First,
    /// That of the second path.
    Second,
    /// Another one of the client on the second path.
    Third,
    /// One that the end does not have.
    Foreign,
    /// Every address.
    Any,
}

/// A path, by its addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Between the first addresses.
    First,
    /// From the client's second address to the server's first one.
    Second,
    /// From the client's third address to the server's first one.
    Third,
    /// From an address that the client does not have to the server's first one.
    Foreign,
    /// Between the second addresses, on this port of the server or on that of the connection.
    Announced(Option<u16>),
}

/// What happens to a path that was up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// The scheduler avoids it.
    Stale,
    /// The scheduler uses it again.
    Recovered,
    /// Its priority changes.
    Priority,
}

/// How a path begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begins {
    /// It comes up.
    Up,
    /// It does not.
    Fails,
}

/// The life of one path at one end.
#[derive(Clone, Copy, Debug)]
pub struct Fate {
    /// The end.
    pub at: End,
    /// The path.
    pub way: Way,
    /// Whether it comes up.
    pub begins: Begins,
    /// What happens to it while it is up.
    pub moments: &'static [Moment],
    /// Accepted causes of its failure or end.
    pub causes: &'static [&'static str],
    /// Further causes that the attach method `tracepoint` may give.
    pub inferred: &'static [&'static str],
    /// Accepted names of the reason in the RST; empty or [`NO_RESET`]: there may be none.
    pub resets: &'static [&'static str],
    /// The attach method `tracepoint` reports it without its connection.
    pub nameless: bool,
    /// The attach method `tracepoint` misses it.
    pub hidden: bool,
    /// It belongs to no connection.
    pub stray: bool,
    /// It came to a listener of the kernel's own.
    pub by_kernel: bool,
    /// Only on kernels that have this counter.
    pub since: Option<&'static str>,
    /// There may be more lines like it.
    pub repeats: bool,
}

impl Fate {
    /// A path that comes up and goes with its connection.
    #[must_use]
    pub const fn up(at: End, way: Way) -> Self {
        Self {
            at,
            way,
            begins: Begins::Up,
            moments: &[],
            causes: &["connection-closed"],
            inferred: &[],
            resets: &[],
            nameless: false,
            hidden: false,
            stray: false,
            by_kernel: false,
            since: None,
            repeats: false,
        }
    }

    /// A path that comes up and ends for another reason.
    #[must_use]
    pub const fn ends(at: End, way: Way, causes: &'static [&'static str]) -> Self {
        Self {
            causes,
            ..Self::up(at, way)
        }
    }

    /// A path that does not come up.
    #[must_use]
    pub const fn fails(at: End, way: Way, causes: &'static [&'static str]) -> Self {
        Self {
            begins: Begins::Fails,
            ..Self::ends(at, way, causes)
        }
    }
}

/// Among accepted reasons in an RST: there may be none.
pub const NO_RESET: &str = "";

/// The number of increments of a counter.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// The end.
    pub at: End,
    /// Name of the counter.
    pub name: &'static str,
    /// Fewest and most increments.
    pub number: (u64, u64),
    /// The counter that some kernels use instead.
    pub or: Option<&'static str>,
}

/// One way for paths to come up, fail or end.
pub struct PathRecipe {
    /// Its name.
    pub name: &'static str,
    /// Rules of the middlebox on the second path.
    pub rules: Rules,
    /// It waits for timers of seconds.
    pub is_slow: bool,
    /// Actions, from the configuration of the path manager on.
    pub script: fn(&mut Stage) -> anyhow::Result<()>,
    /// What the tracer must report.
    pub fates: &'static [Fate],
    /// What the kernel counts where it has the counter; no other counter of paths may grow.
    pub counted: &'static [Counted],
    /// Accepted names of why the client tried no second path; empty: it did, or nobody asks.
    pub never_tried: &'static [&'static str],
    /// Further names that the attach method `tracepoint` may give.
    pub never_inferred: &'static [&'static str],
}

/// Every counter of paths that a recipe must account for.
pub const PATH_COUNTERS: [&str; 34] = [
    "MPJoinSynTx",
    "MPJoinSynTxCreatSkErr",
    "MPJoinSynTxBindErr",
    "MPJoinSynTxConnectErr",
    "MPJoinNoTokenFound",
    "MPJoinSynRx",
    "MPJoinSynBackupRx",
    "MPJoinSynAckRx",
    "MPJoinSynAckBackupRx",
    "MPJoinSynAckHMacFailure",
    "MPJoinSynAckNoMPJoin",
    "MPJoinAckRx",
    "MPJoinAckHMacFailure",
    "MPJoinAckNoMPJoin",
    "MPJoinAckNoCtx",
    "MPJoinRejected",
    "MPJoinNotEstablished",
    "MPJoinNoIdFound",
    "MPJoinPortSynRx",
    "MPJoinPortSynAckRx",
    "MPJoinPortAckRx",
    "MismatchPortSynRx",
    "MismatchPortAckRx",
    "MPCapableEndpAttempt",
    "AddAddrDrop",
    "RmAddr",
    "RmAddrDrop",
    "RmSubflow",
    "MPPrioTx",
    "MPPrioRx",
    "MPRstTx",
    "MPRstRx",
    "SubflowStale",
    "SubflowRecover",
];

const NO_SYN: Treatment = Treatment {
    strip_syn: true,
    ..Treatment::NONE
};
const NO_MORE: Treatment = Treatment {
    strip_from: Some(0),
    ..Treatment::NONE
};

/// Rules for packets from the client.
const fn to_server(to_server: Treatment) -> Rules {
    Rules {
        to_server,
        to_client: Treatment::NONE,
    }
}

/// Rules for packets from the server.
const fn to_client(to_client: Treatment) -> Rules {
    Rules {
        to_server: Treatment::NONE,
        to_client,
    }
}

/// Answer every packet from the client with an RST.
const REJECT: Rules = to_server(Treatment {
    reject: true,
    ..Treatment::NONE
});
/// Drop every packet.
const CUT: Treatment = Treatment {
    drop_all: true,
    ..Treatment::NONE
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_recipe_has_a_name_of_its_own_and_counts_known_counters() {
        let names: BTreeSet<_> = PATH_RECIPES.iter().map(|recipe| recipe.name).collect();
        assert_eq!(names.len(), PATH_RECIPES.len());
        let others = crate::recipes::RECIPES.iter().map(|recipe| recipe.name);
        let shared: Vec<&str> = others.filter(|name| names.contains(name)).collect();
        assert!(shared.is_empty(), "{shared:?}");
        let counted = PATH_RECIPES.iter().flat_map(|recipe| recipe.counted);
        for &Counted { name, number, .. } in counted {
            assert!(PATH_COUNTERS.contains(&name), "{name}");
            assert!(number.0 <= number.1, "{name}");
        }
    }
}
