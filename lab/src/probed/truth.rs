//! What is so in each case, and what a probe may say about it.

use super::{Part, Said, server::Peer};
use crate::{boxes::BoxKind, chain::Quoting, net::Family};

/// What stands in the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Box {
    Kind(BoxKind),
    /// nftables clears the option of packets with SYN while the router forwards them.
    Nftables,
}

/// A chain of routers, and what stands in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// The box, and the router that has it, from 1.
    pub(crate) stands: Option<(Box, usize)>,
    pub(crate) peer: Peer,
    pub(crate) family: Family,
    pub(crate) quoting: Quoting,
    /// The first router that does not quote in full.
    pub(crate) quoting_from: Option<usize>,
    routers: usize,
}

/// Every box in every router, for both families, where routers quote in full; in two routers, where
/// the third and later ones, or all, quote less; and peers without a box.
pub(crate) fn cases(routers: usize) -> Vec<Case> {
    let mut all = Vec::new();
    for family in Family::BOTH {
        let plain = Case {
            stands: None,
            peer: Peer::Mptcp,
            family,
            quoting: Quoting::Full,
            quoting_from: None,
            routers,
        };
        for peer in [Peer::Mptcp, Peer::Tcp, Peer::Closed, Peer::Silent] {
            all.push(Case { peer, ..plain });
        }
        let kinds = BoxKind::ALL.map(Box::Kind);
        for kind in kinds.into_iter().chain([Box::Nftables]) {
            for at in 1..=routers {
                let stands = Some((kind, at));
                all.push(Case { stands, ..plain });
            }
        }
        // A box and the program that shortens quotes need devices of their own.
        for (quoting, from, places) in [
            (Quoting::Short, 3, &[1, 3, 4, 5][..]),
            (Quoting::Silent, 3, &[1, 3, 4, 5]),
            (Quoting::Short, 1, &[2, 4]),
            (Quoting::Silent, 1, &[2, 4]),
        ] {
            let quoting_from = Some(from);
            let less = Case {
                quoting,
                quoting_from,
                ..plain
            };
            all.push(less);
            all.push(Case {
                peer: Peer::Tcp,
                ..less
            });
            for kind in kinds {
                for &at in places {
                    let stands = Some((kind, at));
                    all.push(Case { stands, ..less });
                }
            }
        }
    }
    all
}

impl Case {
    pub(crate) fn name(&self) -> String {
        let stands = match self.stands {
            Some((_, at)) => format!("{}-at-{at}", self.what()),
            None => self.what(),
        };
        let quoting = match (self.quoting_from, self.quoting) {
            (Some(from), Quoting::Short) => format!("-short-from-{from}"),
            (Some(from), Quoting::Silent) => format!("-silent-from-{from}"),
            _ => String::new(),
        };
        format!("{stands}{quoting}-{}", self.family.suffix())
    }

    /// What stands in the way, or what the peer is.
    fn what(&self) -> String {
        match (self.stands, self.peer) {
            (Some((Box::Kind(kind), _)), _) => kind.name().into(),
            (Some((Box::Nftables, _)), _) => "nftables".into(),
            (None, Peer::Mptcp) => "nothing".into(),
            (None, Peer::Tcp) => "tcp-peer".into(),
            (None, Peer::Closed) => "closed".into(),
            (None, Peer::Silent) => "no-answer".into(),
        }
    }

    /// Of cases that are summed up together.
    pub(crate) fn kind(&self) -> String {
        let quoting = match self.quoting {
            Quoting::Full => "full",
            Quoting::Short => "8 bytes",
            Quoting::Silent => "silent",
        };
        format!("{} ({quoting})", self.what())
    }

    pub(crate) fn needs_nft(&self) -> bool {
        match self.stands {
            Some((Box::Nftables | Box::Kind(BoxKind::Proxy), _)) => true,
            Some((Box::Kind(_), _)) => false,
            None => self.peer == Peer::Silent,
        }
    }

    /// The conclusion that is right, where routers quote in full.
    fn conclusion(&self) -> &'static str {
        match (self.stands, self.peer) {
            (Some((kind, _)), _) => match kind {
                Box::Kind(BoxKind::Clear | BoxKind::Compact) | Box::Nftables => "taken-out",
                Box::Kind(BoxKind::DropSyn) => "dropped",
                Box::Kind(BoxKind::StripData) => "data-taken-out",
                Box::Kind(BoxKind::StripSynAck) => "taken-out-back",
                Box::Kind(BoxKind::Mirror) => "mirrored",
                Box::Kind(BoxKind::Proxy) => "another-machine",
                Box::Kind(BoxKind::Rewrite) => "passes",
            },
            (None, Peer::Mptcp) => "passes",
            (None, Peer::Tcp) => "peer",
            (None, Peer::Closed) => "closed",
            (None, Peer::Silent) => "no-answer",
        }
    }

    /// Behind which hop, and up to which one, it is.
    fn part(&self) -> Option<(usize, Option<usize>)> {
        let (kind, at) = self.stands?;
        match kind {
            // Before the time to live is decremented.
            Box::Kind(_) => Some((at - 1, Some(at))),
            // After.
            Box::Nftables if at == self.routers => Some((at, None)),
            Box::Nftables => Some((at, Some(at + 1))),
        }
    }

    /// What is so, in words.
    pub(crate) fn so(&self) -> String {
        let (after, before) = self.part().unwrap_or((0, None));
        match self.stands {
            Some(_) => format!("{} in {}", self.what(), Part { after, before }),
            None => self.what(),
        }
    }

    /// Where a probe may name a place, it is the right one, and no larger than necessary.
    pub(crate) fn is_exact(&self, said: &Said) -> bool {
        let named = match self.stands {
            Some((Box::Kind(BoxKind::Rewrite), _)) => said.renumbered,
            _ => said.place,
        };
        let exact = self.part().map(|(after, before)| Part { after, before });
        match self.stands {
            Some((Box::Kind(BoxKind::StripSynAck | BoxKind::Mirror), _)) | None => {
                said.conclusion == self.conclusion()
            }
            // Behind the last router, a quote cannot show it.
            Some((Box::Nftables, at)) if at == self.routers => said.conclusion == "peer",
            Some(_) => said.conclusion == self.conclusion() && named == exact,
        }
    }

    /// What is wrong in what a probe says.
    pub(crate) fn faults(&self, said: &Said, code: Option<i32>) -> Vec<String> {
        let mut faults = Vec::new();
        for (what, named) in [("place", said.place), ("renumbered", said.renumbered)] {
            if let Some(named) = named
                && !self.contains(said, what, named)
            {
                faults.push(format!("a wrong {what}: {named}"));
            }
        }
        if self.quoting_from.is_none() {
            if !self.is_exact(said) {
                faults.push(format!("not exact: {} is expected", self.conclusion()));
            }
            // A box in the last router may act behind its quote.
            if said.certainty == "open" && said.conclusion != "peer" {
                faults.push("it cannot say, although routers quote in full".into());
            }
            if said.conclusion == "peer" && said.certainty != "open" {
                faults.push(format!(
                    "peer is {}, although a box looks the same",
                    said.certainty
                ));
            }
        } else if !self.may_say(&said.conclusion) {
            faults.push(format!("{} is not so", said.conclusion));
        }
        let right = match said.conclusion.as_str() {
            "passes" => 0,
            "closed" | "no-answer" | "handshake-only" => 5,
            _ => 4,
        };
        if code != Some(right) {
            faults.push(format!("exit code {code:?}, not {right}"));
        }
        faults
    }

    /// Whether the place that is named contains the one where the box is.
    fn contains(&self, said: &Said, what: &str, named: Part) -> bool {
        let is_rewriting = matches!(self.stands, Some((Box::Kind(BoxKind::Rewrite), _)));
        if what == "renumbered" && !is_rewriting {
            return false;
        }
        // The peer has no place on the path; "after" is how far the option came.
        let Some((after, before)) = self.part() else {
            return said.conclusion == "peer" && named.after <= self.routers;
        };
        let is_behind = match (before, named.before) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(before), Some(named)) => before <= named,
        };
        named.after <= after && is_behind
    }

    /// Whether a conclusion is true, where routers quote too little for the best one.
    fn may_say(&self, conclusion: &str) -> bool {
        let weaker = match self.stands {
            // Nothing shows where the option went: the answer has none.
            Some((Box::Kind(BoxKind::Clear | BoxKind::Compact | BoxKind::Proxy), _))
            | Some((Box::Nftables, _)) => "peer",
            // No segment that a router would quote: only the end of the connection shows it.
            Some((Box::Kind(BoxKind::StripData), _)) => "data-lost",
            _ => "",
        };
        conclusion == self.conclusion() || conclusion == weaker
    }
}
