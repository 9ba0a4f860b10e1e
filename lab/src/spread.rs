//! Distribution of a table's plays: the address families of each, and the number of simultaneous
//! plays.

use crate::net::Family;

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
