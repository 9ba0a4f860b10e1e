//! Recipes played while a tracer serves or shows, and what the kernel counted meanwhile.

use std::ops::RangeInclusive;

use anyhow::{Context as _, ensure};

use crate::{net::Family, netns::Counters, provoke, recipes::RECIPES, side_by_side, sys};

/// Recipes to play: every cause that a middlebox provokes, and connections that do not fall back.
const PLAYED: [&str; 6] = [
    "healthy",
    "strip-synack",
    "strip-client-after-3",
    "mptcp-to-tcp-listener",
    "tcp-to-mptcp-listener",
    "strip-both-after-3",
];
/// Where no function can be probed, a connection with this cause is indistinguishable from one of a
/// TCP client and counts as plain: not compared.
pub(crate) const THIRD_ACK: &str = "MPCapableFallbackACK";

/// What happened.
#[derive(Default)]
pub(crate) struct Truth {
    /// The kernel's counters of fallbacks, summed over all namespaces.
    pub(crate) counts: Counters,
    /// Network namespaces and periods of the recipes: namespace numbers are reused.
    windows: Vec<(u64, RangeInclusive<u64>)>,
}

/// Plays all recipes simultaneously.
pub(crate) fn play() -> anyhow::Result<Truth> {
    let all = side_by_side::all(PLAYED, play_one)?;
    Ok(all.into_iter().fold(Truth::default(), Truth::and))
}

fn play_one(name: &str) -> anyhow::Result<Truth> {
    let recipe = RECIPES.iter().find(|recipe| recipe.name == name);
    let recipe = recipe.with_context(|| format!("there is no recipe {name}"))?;
    let from_ns = sys::boottime_ns();
    let (played, _left) = provoke::play(recipe, Family::V4);
    ensure!(
        played.scene.wrong.is_empty() && played.scene.skipped.is_none(),
        "{name} cannot be played: {:?} {:?}",
        played.scene.wrong,
        played.scene.skipped
    );
    let mut all = Truth::default();
    for (netns, moved) in &played.moved {
        all.windows.push((*netns, from_ns..=sys::boottime_ns()));
        for (cause, count) in moved {
            if played.counters.contains(cause) && cause != THIRD_ACK && *count > 0 {
                *all.counts.entry(cause.clone()).or_default() += *count;
            }
        }
    }
    Ok(all)
}

impl Truth {
    /// Whether an event belongs to the recipes, whatever else happens on this host.
    pub(crate) fn has(&self, netns: u64, at_ns: u64) -> bool {
        let mut windows = self.windows.iter();
        windows.any(|(of, when)| *of == netns && when.contains(&at_ns))
    }

    /// Merges two results.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.counts = plus(&self.counts, &other.counts);
        self.windows.extend(other.windows);
        self
    }
}

pub(crate) fn plus(one: &Counters, other: &Counters) -> Counters {
    let mut sum = one.clone();
    for (cause, count) in other {
        *sum.entry(cause.clone()).or_default() += count;
    }
    sum
}
