//! Turns data into SVG shapes in the colours of the page. Positions are percentages of the width,
//! so that drawings scale.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::{bins::Bins, words::share};

/// Number of causes with their own colour; all others share one.
pub(super) const COLOURS: usize = 6;
/// Height of the chart over time, pixels.
const BARS_HIGH: u32 = 150;

/// Colour of a cause, by its rank.
pub(super) fn colour(causes: &[(&str, u64)], name: &str) -> usize {
    let place = causes.iter().position(|(known, _)| *known == name);
    place.unwrap_or(COLOURS).min(COLOURS)
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.2}%", share * 100.0)
}

/// A bar that shows a share.
pub(super) fn bar(part: u64, whole: u64, class: &str) -> Markup {
    html! {
        svg.bar width="100%" height="10" aria-hidden="true" {
            rect.rail width="100%" height="10" rx="2" {}
            rect class=(class) width=(percent(share(part, whole))) height="10" rx="2" {}
        }
    }
}

/// Fallbacks over time: one bar per bin, with the most frequent cause at the bottom.
pub(super) fn over_time(bins: &Bins, causes: &[(&str, u64)]) -> Markup {
    let (bins, _) = bins.used();
    let total = |bin: &BTreeMap<String, u64>| bin.values().sum::<u64>();
    let highest = bins.iter().map(total).max().unwrap_or(0);
    let wide = 1.0 / f64::from(u32::try_from(bins.len()).unwrap_or(u32::MAX).max(1));
    let high = f64::from(BARS_HIGH);
    let mut rects = Vec::new();
    let mut x = 0.0;
    for bin in bins {
        let mut of_colour = [0; COLOURS + 1];
        for (name, count) in bin {
            of_colour[colour(causes, name)] += count;
        }
        let mut y = high;
        for (colour, count) in of_colour.into_iter().enumerate().filter(|it| it.1 > 0) {
            let tall = share(count, highest) * high;
            y -= tall;
            // A small gap separates neighbouring bars.
            rects.push((x + wide * 0.06, y, wide * 0.88, tall, colour));
        }
        x += wide;
    }
    html! {
        svg.time width="100%" height=(BARS_HIGH) role="img" aria-label={
            "Fallbacks over time by cause, at most " (highest) " at once; see the table of causes \
             for numbers"
        } {
            line.grid x1="0" x2="100%" y1="0.5" y2="0.5" {}
            line.grid x1="0" x2="100%" y1=(BARS_HIGH / 2) y2=(BARS_HIGH / 2) {}
            @for (x, y, wide, tall, colour) in rects {
                rect class={ "c" (colour) } x=(percent(x)) y=(format!("{y:.1}")) width=(percent(wide)) height=(format!("{tall:.1}")) {}
            }
            line.axis x1="0" x2="100%" y1=(format!("{:.1}", high - 0.5)) y2=(format!("{:.1}", high - 0.5)) {}
        }
    }
}
