//! `cargo xtask picture`: the README's pictures, light and dark, made from a real run of the demo on
//! the running kernel.

use std::{
    fs,
    process::{Command, ExitCode},
};

use anstyle::{Color, RgbColor};
use anyhow::{Context as _, Result, bail, ensure};

use crate::{build, command::say, places::Places};

/// The pictures: the colours of the page around them decide which one a reader sees.
const PICTURES: [(&str, Theme); 2] = [
    (
        "docs/demo-light.svg",
        Theme {
            text: rgb(0x1f, 0x23, 0x28),
            background: rgb(0xff, 0xff, 0xff),
            red: rgb(0xb3, 0x1d, 0x28),
            green: rgb(0x11, 0x63, 0x29),
            yellow: rgb(0x7d, 0x4e, 0x00),
        },
    ),
    (
        "docs/demo-dark.svg",
        Theme {
            text: rgb(0xe6, 0xed, 0xf3),
            background: rgb(0x0d, 0x11, 0x17),
            red: rgb(0xff, 0x7b, 0x72),
            green: rgb(0x3f, 0xb9, 0x50),
            yellow: rgb(0xd2, 0x99, 0x22),
        },
    ),
];

/// Columns of the terminal: what the width of a page on the web, 850 pixels, shows at full size.
const COLUMNS: &str = "98";

/// The colours in use.
#[derive(Clone, Copy)]
struct Theme {
    text: RgbColor,
    background: RgbColor,
    red: RgbColor,
    green: RgbColor,
    yellow: RgbColor,
}

const fn rgb(red: u8, green: u8, blue: u8) -> RgbColor {
    RgbColor(red, green, blue)
}

impl Theme {
    fn draw(self, run: &str) -> String {
        let mut colours = anstyle_svg::VGA.0;
        colours[1] = self.red;
        colours[2] = self.green;
        colours[3] = self.yellow;
        anstyle_svg::Term::new()
            .palette(anstyle_svg::Palette(colours))
            .fg_color(Color::Rgb(self.text))
            .bg_color(Color::Rgb(self.background))
            .render_svg(run)
    }
}
/// Words that the output must contain: a run without a fallback does not show the tool.
const MUST_SHOW: [&str; 3] = ["still-mptcp", "fallback", "explained"];

/// Runs the demo in a terminal, and draws its output into docs/demo-light.svg and demo-dark.svg.
///
/// `mptcp-trace demo` provokes a real fallback on the running kernel. Needs root, and script(1).
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Runs the demo and draws its output.
pub(crate) fn verb(_nothing: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    let tracer = build::loader(&places, true)?;
    // The demo needs a pseudo-terminal, because colours are only for terminals.
    let words = format!("exec '{}' demo", tracer.display());
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &words, "/dev/null"])
        .env("TERM", "xterm-256color")
        .env("COLUMNS", COLUMNS)
        .env_remove("NO_COLOR")
        .output()
        .context("cannot run script (Debian: bsdutils)")?;
    let printed = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    if !output.status.success() {
        bail!("the demo failed ({}):\n{printed}", output.status);
    }
    for word in MUST_SHOW {
        ensure!(
            printed.contains(word),
            "the demo did not show {word:?}, so that there is nothing to draw; it printed:\n{printed}"
        );
    }
    let run = format!("$ sudo mptcp-trace demo\n{}", printed.trim_end());
    for (picture, theme) in PICTURES {
        let path = places.root.join(picture);
        fs::write(&path, theme.draw(&run))
            .with_context(|| format!("cannot write {}", path.display()))?;
        say(format_args!("drew {}", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}
