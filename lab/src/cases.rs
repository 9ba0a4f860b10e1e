//! The cases: queries in every form on sockets of every kind.

use crate::{
    asker::Asker,
    net::{Family, Kind},
    question::Holding,
};

mod fallen;
mod odd;
mod usual;

use odd::Sort;

/// An MPTCP socket that has not fallen back.
const MPTCP: Holding = Holding {
    kind: Some(Kind::Mptcp),
    fell_back: false,
};
/// An MPTCP socket whose connection fell back.
const FALLEN: Holding = Holding {
    kind: Some(Kind::Mptcp),
    fell_back: true,
};
/// A TCP socket.
const TCP: Holding = Holding {
    kind: Some(Kind::Tcp),
    fell_back: false,
};
/// Anything but a TCP socket.
const OTHER: Holding = Holding {
    kind: None,
    fell_back: false,
};

/// One case; it may make several queries, each with its own name.
pub(crate) struct Case {
    /// Its name.
    pub(crate) name: &'static str,
    /// Whether it needs MPTCP in the kernel.
    pub(crate) needs_mptcp: bool,
    /// Address families to run it with.
    pub(crate) families: &'static [Family],
    /// Makes the queries.
    pub(crate) run: fn(&mut Asker, Family) -> anyhow::Result<()>,
}

const ALL: &[Family] = &Family::ALL;
const BOTH: &[Family] = &Family::BOTH;
/// For cases that do not depend on the address family.
const ONE: &[Family] = &[Family::V4];

const fn mptcp(
    name: &'static str,
    families: &'static [Family],
    run: fn(&mut Asker, Family) -> anyhow::Result<()>,
) -> Case {
    Case {
        name,
        needs_mptcp: true,
        families,
        run,
    }
}

const fn any(
    name: &'static str,
    families: &'static [Family],
    run: fn(&mut Asker, Family) -> anyhow::Result<()>,
) -> Case {
    Case {
        needs_mptcp: false,
        ..mptcp(name, families, run)
    }
}

/// Every case, in the order of execution.
pub(crate) const CASES: &[Case] = &[
    mptcp("mptcp-fresh", BOTH, usual::mptcp_fresh),
    mptcp("mptcp-bound", ALL, usual::mptcp_bound),
    mptcp("mptcp-listening", ALL, usual::mptcp_listening),
    mptcp("mptcp-connecting", BOTH, usual::mptcp_connecting),
    mptcp("mptcp-pair", ALL, usual::mptcp_pair),
    mptcp("fallen-client", ALL, fallen::client),
    mptcp("fallen-self", BOTH, fallen::to_itself),
    mptcp("fallen-midway", BOTH, fallen::midway),
    mptcp("fallen-server", BOTH, fallen::server),
    mptcp("stripped-syn", BOTH, fallen::stripped_syn),
    mptcp("stripped-syn-ack", BOTH, fallen::stripped_syn_ack),
    mptcp("stripped-ack", BOTH, fallen::stripped_ack),
    mptcp("disconnected", BOTH, fallen::disconnected),
    any("tcp-fresh", BOTH, usual::tcp_fresh),
    any("tcp-pair", ALL, usual::tcp_pair),
    mptcp(
        "tcp-from-mptcp-listener",
        ALL,
        usual::tcp_from_mptcp_listener,
    ),
    mptcp("optlen-mptcp", ONE, |asker, family| {
        odd::optlen(asker, family, Sort::Mptcp)
    }),
    mptcp("optlen-fallen", ONE, |asker, family| {
        odd::optlen(asker, family, Sort::Fallen)
    }),
    any("optlen-tcp", ONE, |asker, family| {
        odd::optlen(asker, family, Sort::Tcp)
    }),
    mptcp("bad-pointer-mptcp", ONE, |asker, family| {
        odd::bad_pointer(asker, family, Sort::Mptcp)
    }),
    mptcp("bad-pointer-fallen", ONE, |asker, family| {
        odd::bad_pointer(asker, family, Sort::Fallen)
    }),
    any("bad-pointer-tcp", ONE, |asker, family| {
        odd::bad_pointer(asker, family, Sort::Tcp)
    }),
    mptcp("thread-mptcp", ONE, |asker, family| {
        odd::thread(asker, family, Sort::Mptcp)
    }),
    mptcp("thread-fallen", ONE, |asker, family| {
        odd::thread(asker, family, Sort::Fallen)
    }),
    any("thread-tcp", ONE, |asker, family| {
        odd::thread(asker, family, Sort::Tcp)
    }),
    mptcp("32bit-mptcp", BOTH, |asker, family| {
        odd::compat(asker, family, Sort::Mptcp)
    }),
    mptcp("32bit-fallen", BOTH, |asker, family| {
        odd::compat(asker, family, Sort::Fallen)
    }),
    any("32bit-tcp", BOTH, |asker, family| {
        odd::compat(asker, family, Sort::Tcp)
    }),
    mptcp("other-option-mptcp", ONE, |asker, family| {
        odd::other_option(asker, family, Sort::Mptcp)
    }),
    any("other-option-tcp", ONE, |asker, family| {
        odd::other_option(asker, family, Sort::Tcp)
    }),
    any("other", ONE, odd::other),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::CASES;

    #[test]
    fn every_case_has_a_name_of_its_own_and_addresses() {
        let names: BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), CASES.len());
        assert!(CASES.iter().all(|case| !case.families.is_empty()));
    }
}
