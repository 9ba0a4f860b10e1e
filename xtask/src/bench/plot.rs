//! docs/benchmarks-light.svg and -dark.svg: bars for the cost that tracing adds to a call. The upper panel shows time
//! on the running kernel, the lower one instructions in virtual machines.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::figures::{Benchmarks, Guest, Native};

/// What a page on the web shows at full size, in pixels.
const WIDTH: u32 = 850;
/// Height of a bar and the gap above it, in pixels.
const BAR_HEIGHT: u32 = 24;
/// Height of a panel without its bars, in pixels.
const PANEL_HEIGHT: u32 = 100;
/// Width of the column with the bars' labels, in pixels.
const NAMES_WIDTH: u32 = 330;
/// Scale factor that leaves space for the number after the longest bar.
const ROOM: f64 = 1.12;
const FONT: &str = "sans-serif";
const TRACED: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const OTHER: RGBColor = RGBColor(0x9e, 0xc9, 0xe8);
const THEIRS: RGBColor = RGBColor(0xd6, 0x8a, 0x3c);

/// One bar.
#[derive(Clone, Debug, PartialEq)]
struct Bar {
    name: String,
    added: f64,
    colour: RGBColor,
}

/// Bars with a title and a unit.
struct Panel {
    title: &'static str,
    unit: &'static str,
    bars: Vec<Bar>,
}

/// Draws every panel for which there are figures, light and dark, into a folder.
pub(crate) fn draw(docs: &Path, all: &Benchmarks) -> Result<()> {
    let panels = panels(all);
    if panels.is_empty() {
        return Ok(());
    }
    let svg = render(&panels).context("cannot draw the figures")?;
    for (name, svg) in [
        ("benchmarks-light.svg", &svg),
        ("benchmarks-dark.svg", &dark(&svg)),
    ] {
        let path = docs.join(name);
        fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The picture for a dark page. The colours of the bars suit both.
fn dark(svg: &str) -> String {
    svg.replace("#FFFFFF", "#0D1117")
        .replace("#000000", "#E6EDF3")
}

fn panels(all: &Benchmarks) -> Vec<Panel> {
    let natives = all.native.as_ref().map(|native| Panel {
        title: "Added to one call, by wall clock, median",
        unit: "ns",
        bars: native_bars(native),
    });
    let guests = all.guests.as_ref().map(|guests| Panel {
        title: "Added to one call, in instructions",
        unit: "instructions",
        bars: guests.kernels.iter().flat_map(guest_bars).collect(),
    });
    let all = [natives, guests].into_iter().flatten();
    all.filter(|panel| !panel.bars.is_empty()).collect()
}

fn native_bars(native: &Native) -> Vec<Bar> {
    native
        .calls
        .iter()
        .filter_map(|call| {
            let (what, own) = match call.call.as_str() {
                // Only rates without loss are comparable: a lost record costs less.
                "in-bursts" => ("traced query", TRACED),
                "other" => ("other option", OTHER),
                _ => return None,
            };
            Some(Bar {
                name: format!("{}: {what}", call.beside),
                added: call.added_ns_median?,
                colour: colour(&call.beside, own),
            })
        })
        .collect()
}

fn guest_bars(guest: &Guest) -> Vec<Bar> {
    guest
        .calls
        .iter()
        .filter_map(|cost| {
            let (what, own) = match cost.call.as_str() {
                "is-mptcp" => ("traced query", TRACED),
                "other-tcp" => ("other option", OTHER),
                _ => return None,
            };
            Some(Bar {
                name: format!("Linux {}, {}: {what}", guest.kernel, cost.beside),
                added: guest.added(&cost.beside, &cost.call)?,
                colour: colour(&cost.beside, own),
            })
        })
        .collect()
}

/// Other tools' bars have another colour.
fn colour(beside: &str, own: RGBColor) -> RGBColor {
    if beside.starts_with("bpftrace") || beside == "kprobe events" {
        THEIRS
    } else {
        own
    }
}

fn height(panel: &Panel) -> u32 {
    PANEL_HEIGHT + BAR_HEIGHT * u32::try_from(panel.bars.len()).unwrap_or(u32::MAX / BAR_HEIGHT / 2)
}

fn render(panels: &[Panel]) -> Result<String> {
    let mut svg = String::new();
    {
        let total = panels.iter().map(height).sum();
        let root = SVGBackend::with_string(&mut svg, (WIDTH, total)).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let mut rest = root;
        for panel in panels {
            let (this, below) = rest.split_vertically(height(panel));
            draw_panel(&this, panel)?;
            rest = below;
        }
        rest.present().map_err(failed)?;
    }
    svg.push('\n');
    Ok(svg)
}

fn draw_panel(area: &DrawingArea<SVGBackend<'_>, Shift>, panel: &Panel) -> Result<()> {
    let longest = panel.bars.iter().map(|bar| bar.added).fold(1.0, f64::max);
    let last = panel.bars.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, (FONT, 20))
        .margin(8)
        .x_label_area_size(42)
        .y_label_area_size(NAMES_WIDTH)
        // The first bar is at the top.
        .build_cartesian_2d(0.0..longest * ROOM, last..0.0)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .y_labels(0)
        .max_light_lines(0)
        .x_label_formatter(&|ns| format!("{ns:.0}"))
        .x_desc(panel.unit)
        .label_style((FONT, 16))
        .draw()
        .map_err(failed)?;
    let at = |h, v| (FONT, 16).into_text_style(area).pos(Pos::new(h, v));
    for (row, bar) in (0..).map(f64::from).zip(&panel.bars) {
        let middle = row + 0.5;
        let end = bar.added.max(0.0);
        let body = Rectangle::new([(0.0, row + 0.12), (end, row + 0.88)], bar.colour.filled());
        let name = EmptyElement::at((0.0, middle))
            + Text::new(bar.name.clone(), (-6, 0), at(HPos::Right, VPos::Center));
        let number = EmptyElement::at((end, middle))
            + Text::new(
                format!("{:+.0}", bar.added),
                (5, 0),
                at(HPos::Left, VPos::Center),
            );
        chart.draw_series([body]).map_err(failed)?;
        chart.draw_series([name]).map_err(failed)?;
        chart.draw_series([number]).map_err(failed)?;
    }
    Ok(())
}

/// Converts the library's error, which borrows from the drawing.
fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_has_its_name_and_its_number() {
        let bar = |name: &str, added| Bar {
            name: name.to_owned(),
            added,
            colour: TRACED,
        };
        let panel = Panel {
            title: "a title",
            unit: "ns",
            bars: vec![bar("slow", 8322.4), bar("faster than nothing", -3.0)],
        };
        let svg = render(&[panel]).unwrap();
        for word in [
            "<svg",
            "a title",
            "slow",
            "+8322",
            "faster than nothing",
            "-3",
        ] {
            assert!(svg.contains(word), "{word} is not in {svg}");
        }
        let dark = dark(&svg);
        assert!(svg.contains("#FFFFFF") && svg.contains("#000000"));
        assert!(!dark.contains("#FFFFFF") && !dark.contains("#000000"));
    }

    #[test]
    fn nothing_measured_is_nothing_drawn() {
        assert!(panels(&Benchmarks::default()).is_empty());
    }
}
