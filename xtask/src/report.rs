//! `cargo xtask report`: tests a page of `mptcp-trace report` in a real browser.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    build,
    command::{self, find_program},
    places::Places,
    step::Step,
    tally::Tally,
};

/// The capture in the pictures: fallbacks of several causes, with every verdict that they can have.
const CAPTURE: &str = "captures/7.3-fexit/verdicts.mpt";
/// The capture that is repeated to get a long one, and the repetitions for at least 50,000
/// findings.
const LONG_OF: &str = "captures/7.3-fexit/fallbacks.mpt";
const LONG_TIMES: &str = "450";
/// The script that drives the browser.
const DRIVER: &str = include_str!("report.py");
/// Browsers that the script supports.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// Python interpreters to try; one of them may have the script's imports.
const PYTHONS: [&str; 2] = ["python3", "/usr/bin/python3"];

/// Writes reports and opens them in headless Chromium. Checks that the page fetches nothing else,
/// logs no errors, and paints within 3 s, also with 50,000 findings; that the switch of the axis and
/// the links to connections work without scripts; and what is printed. Draws docs/report-light.png
/// and docs/report-dark.png.
///
/// Needs Chromium, and Python with websocket-client (Debian: chromium, python3-websocket).
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Draw no pictures
    #[arg(long)]
    no_pictures: bool,
}

/// Runs the checks and draws the pictures.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    let driver = driver().map_err(|why| anyhow!(why))?;
    let tracer = build::loader(&places, false)?;
    Ok(look(&places, &driver, &tracer, !args.no_pictures)?.exit_code())
}

/// Runs the checks as a step of the tests, without pictures. `tracer` writes the reports: a release
/// build takes a tenth of the time.
pub(crate) fn step(places: &Places, tracer: Option<&Path>) -> Result<Step> {
    match driver() {
        Ok(driver) => {
            let tracer = match tracer {
                Some(tracer) => tracer.to_owned(),
                None => build::loader(places, false)?,
            };
            Ok(look(places, &driver, &tracer, false)?.into())
        }
        Err(why) => Ok(Step::skipped("report in a browser", why)),
    }
}

/// The programs that open a page.
struct Driver {
    browser: PathBuf,
    /// A Python that can import the script's modules.
    python: &'static str,
}

/// Finds the programs on this machine, or returns what is missing.
fn driver() -> Result<Driver, &'static str> {
    let browser = BROWSERS
        .into_iter()
        .find_map(find_program)
        .ok_or("there is no Chromium; Debian: apt-get install chromium")?;
    let python = PYTHONS
        .into_iter()
        .find(|python| can_drive(python))
        .ok_or("no Python here has websocket-client; Debian: apt-get install python3-websocket")?;
    Ok(Driver { browser, python })
}

fn look(places: &Places, driver: &Driver, tracer: &Path, draws: bool) -> Result<Tally> {
    let scratch = tempfile::tempdir().context("cannot make a scratch directory")?;
    let long = scratch.path().join("long.mpt");
    let mut many = command::cargo(&places.root);
    many.args(["run", "--quiet", "--package", "mptcp-trace"])
        .args(["--example", "many", "--"])
        .args([Path::new(LONG_OF), Path::new(LONG_TIMES), &long]);
    command::run(&mut many, "cannot write a long capture")?;
    let short = places.root.join(CAPTURE);
    for (capture, page) in [(&short, "short.html"), (&long, "long.html")] {
        let mut report = Command::new(tracer);
        report
            .args(["report", "--utc", "--output"])
            .arg(scratch.path().join(page))
            .arg(capture);
        command::run(&mut report, "cannot write a report")?;
    }
    let Driver { browser, python } = driver;
    let mut driver = Command::new(python);
    driver.arg("-").arg(browser).arg(scratch.path());
    if draws {
        driver.arg(places.root.join("docs"));
    }
    let mut driver = driver
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start python")?;
    let mut stdin = driver.stdin.take().context("python has no stdin")?;
    stdin
        .write_all(DRIVER.as_bytes())
        .context("cannot pass the script to python")?;
    drop(stdin);
    let status = driver.wait().context("cannot wait for python")?;
    Ok(Tally::of(status.success()))
}

fn can_drive(python: &str) -> bool {
    Command::new(python)
        .args(["-c", "import websocket"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
