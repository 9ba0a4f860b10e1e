//! The cases: queries in every form on sockets of every kind.

use super::asker::Asker;
use crate::{
    net::{Family, Kind},
    query::Holding,
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
    pub(crate) name: &'static str,
    /// Whether it needs MPTCP in the kernel.
    pub(crate) needs_mptcp: bool,
    pub(crate) families: &'static [Family],
    run: Run,
}

/// Makes the queries.
#[derive(Clone, Copy)]
enum Run {
    /// On sockets that the case creates.
    Usual(Usual),
    /// On a socket of this sort.
    Odd(Odd, Sort),
}

const ALL: &[Family] = &Family::ALL;
const BOTH: &[Family] = &Family::BOTH;
/// For cases that do not depend on the address family.
const ONE: &[Family] = &[Family::V4];

type Usual = fn(&mut Asker, Family) -> anyhow::Result<()>;
type Odd = fn(&mut Asker, Family, Sort) -> anyhow::Result<()>;

const fn mptcp(name: &'static str, families: &'static [Family], run: Usual) -> Case {
    Case {
        name,
        needs_mptcp: true,
        families,
        run: Run::Usual(run),
    }
}

const fn any(name: &'static str, families: &'static [Family], run: Usual) -> Case {
    Case {
        needs_mptcp: false,
        ..mptcp(name, families, run)
    }
}

const fn odd(name: &'static str, families: &'static [Family], run: Odd, sort: Sort) -> Case {
    Case {
        name,
        needs_mptcp: !matches!(sort, Sort::Tcp),
        families,
        run: Run::Odd(run, sort),
    }
}

impl Case {
    /// Makes the queries.
    pub(crate) fn run(&self, asker: &mut Asker, family: Family) -> anyhow::Result<()> {
        match self.run {
            Run::Usual(run) => run(asker, family),
            Run::Odd(run, sort) => run(asker, family, sort),
        }
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
    odd("optlen-mptcp", ONE, odd::optlen, Sort::Mptcp),
    odd("optlen-fallen", ONE, odd::optlen, Sort::Fallen),
    odd("optlen-tcp", ONE, odd::optlen, Sort::Tcp),
    odd("bad-pointer-mptcp", ONE, odd::bad_pointer, Sort::Mptcp),
    odd("bad-pointer-fallen", ONE, odd::bad_pointer, Sort::Fallen),
    odd("bad-pointer-tcp", ONE, odd::bad_pointer, Sort::Tcp),
    odd("thread-mptcp", ONE, odd::thread, Sort::Mptcp),
    odd("thread-fallen", ONE, odd::thread, Sort::Fallen),
    odd("thread-tcp", ONE, odd::thread, Sort::Tcp),
    odd("32bit-mptcp", BOTH, odd::compat, Sort::Mptcp),
    odd("32bit-fallen", BOTH, odd::compat, Sort::Fallen),
    odd("32bit-tcp", BOTH, odd::compat, Sort::Tcp),
    odd("other-option-mptcp", ONE, odd::other_option, Sort::Mptcp),
    odd("other-option-tcp", ONE, odd::other_option, Sort::Tcp),
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
