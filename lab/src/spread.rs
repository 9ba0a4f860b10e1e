//! How the plays of a table are spread: which addresses each is played with, and how many at a time.

use crate::net::Family;

/// The rungs in the order in which they take turns.
const RUNGS: [&str; 3] = ["fexit", "kprobe", "tracepoint"];

/// Which addresses, and how many plays at a time.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Spread {
    /// Only with these addresses
    #[arg(long, value_name = "v4|v6", value_parser = Family::parse, conflicts_with = "alternate")]
    pub family: Option<Family>,
    /// Play each with one kind of address: IPv4 and IPv6 in turn, from one play to the next and from one rung to
    /// the next; N moves the turn
    #[arg(long, value_name = "N")]
    pub alternate: Option<usize>,
    /// Play at most N at a time
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub at_once: u32,
}

impl Spread {
    /// The addresses that the play with this number in its table has on a rung.
    #[must_use]
    pub fn families(&self, number: usize, rung: &str) -> Vec<Family> {
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
