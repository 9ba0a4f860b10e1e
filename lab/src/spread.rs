//! Distribution of a table's plays: the address families of each, and the number of simultaneous
//! plays.

use anyhow::ensure;

use crate::{net::Family, scene::case, tracer::again::Only};

/// The attach methods, in the order of alternation.
const RUNGS: [&str; 3] = ["fexit", "kprobe", "tracepoint"];

/// Address families, and number of simultaneous plays.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Spread {
    /// Only this address family
    #[arg(long, value_name = "v4|v6", value_parser = Family::parse, conflicts_with = "alternate")]
    pub(crate) family: Option<Family>,
    /// Play each with one address family: IPv4 and IPv6 alternate from one play to the next and
    /// from one attach method to the next; N shifts the alternation
    #[arg(long, value_name = "N")]
    pub(crate) alternate: Option<usize>,
    /// Play at most N at a time
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) at_once: u32,
}

impl Spread {
    /// Address families of the play at this index of its table, for an attach method.
    pub(crate) fn families(&self, number: usize, rung: &str) -> Vec<Family> {
        let rung = RUNGS.iter().position(|known| *known == rung);
        match (self.family, self.alternate) {
            (Some(family), _) => vec![family],
            (None, None) => Family::BOTH.to_vec(),
            (None, Some(turn)) => {
                let turn = turn + number + rung.unwrap_or(0);
                vec![Family::BOTH[turn % Family::BOTH.len()]]
            }
        }
    }
}

/// Which rows of a table of plays.
pub(crate) struct Selection<'a> {
    /// What a row is called in messages.
    pub(crate) kind: &'static str,
    /// Only these; empty: all.
    pub(crate) names: &'a [String],
    /// Not these.
    pub(crate) without: &'a [String],
    pub(crate) only: Only<'a>,
}

impl Selection<'_> {
    /// The selected rows, each with its address families for an attach method.
    pub(crate) fn of<T>(
        &self,
        table: &'static [T],
        name: fn(&T) -> &'static str,
        spread: Spread,
        rung: &str,
    ) -> anyhow::Result<Vec<(&'static T, Family)>> {
        let known: Vec<&str> = table.iter().map(name).collect();
        for named in self.names.iter().chain(self.without) {
            let kind = self.kind;
            ensure!(
                known.contains(&named.as_str()),
                "there is no {kind} {named}; the {kind}s are {}",
                known.join(", ")
            );
        }
        let is_among = |names: &[String], row: &T| names.iter().any(|it| it == name(row));
        let is_wanted = |row: &T| {
            (self.names.is_empty() || is_among(self.names, row)) && !is_among(self.without, row)
        };
        let mut rows = Vec::new();
        for (number, row) in table.iter().enumerate().filter(|(_, row)| is_wanted(row)) {
            let families = spread.families(number, rung).into_iter();
            let families = families.filter(|family| self.only.has(&case(name(row), *family)));
            rows.extend(families.map(|family| (row, family)));
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_by_play_rung_and_number() {
        let all = Spread {
            family: None,
            alternate: None,
            at_once: 1,
        };
        assert_eq!(all.families(0, "fexit"), Family::BOTH);
        let only = Spread {
            family: Some(Family::V6),
            ..all
        };
        assert_eq!(only.families(0, "fexit"), [Family::V6]);
        let turn = |turn, number, rung| {
            let spread = Spread {
                alternate: Some(turn),
                ..all
            };
            spread.families(number, rung)
        };
        assert_eq!(turn(0, 0, "fexit"), [Family::V4]);
        for other in [
            turn(1, 0, "fexit"),
            turn(0, 1, "fexit"),
            turn(0, 0, "kprobe"),
        ] {
            assert_eq!(other, [Family::V6]);
        }
    }
}
