//! `mptcp-lab watched`: `mptcp-trace top` in a real terminal while connections fall back. Its
//! screen must match the kernel's counters, at every size, and it must restore the terminal,
//! however it ends.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    compare::{mismatch, ok},
    report::{Cell, Cells, Outcome},
    scratch::Scratch,
    served,
};

/// Timeout until something is on the screen.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Interval of the checks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Text that only the screen contains, and no command line: tracing is live.
const TABS: &str = "1 Connections";
/// Shell of the terminal.
const SHELL: &str = "bash";
/// Prompt of the shell.
const PROMPT: &str = "lab$";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The mptcp-trace to test
    #[arg(long, value_name = "PATH")]
    pub(crate) tracer: PathBuf,
    /// Attach method
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    pub(crate) attach: String,
    /// Write the screens to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) screens: Option<PathBuf>,
}

/// Starts the tracer, plays recipes, presses keys, and kills it; returns true if every check
/// passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let mut cells = Cells::new(std::io::stdout())?;
    if Command::new("tmux").arg("-V").output().is_err() {
        cells.put(Cell {
            outcome: Outcome::Skipped,
            why: "there is no tmux; Debian: apt-get install tmux".into(),
            ..ok("watched", &args.attach, "", "")
        })?;
        return cells.close();
    }
    let mut screens = Screens::default();
    let terminal = Terminal::start(80, 24)?;
    let before = terminal.settings()?;
    let command = format!("{} top --attach {}", args.tracer.display(), args.attach);
    // Limit it to this process and its children, whatever other programs on this host do.
    let ours = format!("{command} --pid {} --follow", std::process::id());
    cells.put(shown(args, &terminal, &ours, &mut screens)?)?;
    for size in [(120, 30), (200, 60), (40, 12), (10, 3), (80, 24)] {
        cells.put(resized(args, &terminal, size, &mut screens)?)?;
    }
    cells.put(suspended(args, &terminal)?)?;
    terminal.keys(&["q"])?;
    cells.put(intact(args, "watched-quit", &terminal, &before)?)?;
    terminal.type_line(&command)?;
    terminal.until(TABS)?;
    terminal.end_program()?;
    cells.put(intact(args, "watched-killed", &terminal, &before)?)?;
    terminal.type_line(&format!("{command} --panic"))?;
    terminal.until("panicked, as --panic requests")?;
    cells.put(intact(args, "watched-panicked", &terminal, &before)?)?;
    if let Some(file) = &args.screens {
        fs::write(file, screens.text())
            .with_context(|| format!("cannot write to {}", file.display()))?;
    }
    cells.close()
}

/// The screen must show fallbacks by cause that match the kernel's counters.
fn shown(
    args: &Args,
    terminal: &Terminal,
    command: &str,
    screens: &mut Screens,
) -> anyhow::Result<Cell> {
    terminal.type_line(command)?;
    terminal.until(TABS)?;
    let truth = served::play()?.counts;
    terminal.keys(&["3"])?;
    terminal.until("CAUSE ")?;
    let start = Instant::now();
    let got = loop {
        let got = counted(&terminal.screen()?, &truth);
        if got == truth || start.elapsed() > WAIT_MAX {
            break got;
        }
        sleep(LOOK_EVERY);
    };
    screens.keep("Causes", &terminal.screen()?);
    terminal.keys(&["1"])?;
    terminal.until("REMOTE")?;
    screens.keep("Connections, the worst first", &terminal.screen()?);
    // Keys are not commands while a text is being entered.
    terminal.keys(&["/", "d", "s", "s"])?;
    terminal.until("filter: dss")?;
    screens.keep("The filter while it is typed", &terminal.screen()?);
    let has_others = terminal.screen()?.contains("MPCapableFallbackSYNACK");
    terminal.keys(&["Enter", "Enter"])?;
    terminal.until("FELL BACK: DssFallback")?;
    screens.keep("One connection's life", &terminal.screen()?);
    terminal.keys(&["Escape", "Escape", "Space"])?;
    terminal.until("PAUSED")?;
    terminal.keys(&["Space"])?;
    terminal.until("live")?;
    let (caller, traced) = (format!("{truth:?}"), format!("{got:?}"));
    if truth != got {
        let why = format!("the screen:\n{}", terminal.screen()?);
        return Ok(mismatch(
            "watched-screen",
            &args.attach,
            &caller,
            &traced,
            why,
        ));
    }
    if has_others {
        let why = "the filter does not exclude other connections".to_owned();
        return Ok(mismatch(
            "watched-screen",
            &args.attach,
            "filtered",
            "not",
            why,
        ));
    }
    Ok(ok("watched-screen", &args.attach, &caller, &traced))
}

/// Fallbacks by cause, from the table of causes.
fn counted(screen: &str, causes: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let of = |cause: &String| {
        let line = screen
            .lines()
            .find_map(|line| line.strip_prefix(cause.as_str()))?;
        let fell = line.split_whitespace().nth(1)?.parse().ok()?;
        Some((cause.clone(), fell))
    };
    causes.keys().filter_map(of).collect()
}

fn resized(
    args: &Args,
    terminal: &Terminal,
    (width, height): (u16, u16),
    screens: &mut Screens,
) -> anyhow::Result<Cell> {
    terminal.resize(width, height)?;
    // Columns that fit into this width.
    let wanted = match width {
        ..40 => "mptcp-trac",
        40..96 => "STATE",
        96.. => "VERDICT",
    };
    let case = format!("watched-{width}x{height}");
    if let Err(why) = terminal.until(wanted) {
        let why = format!("{why:#}");
        return Ok(mismatch(&case, &args.attach, wanted, "otherwise", why));
    }
    if (width, height) == (120, 30) {
        screens.keep("The same in 120 columns", &terminal.screen()?);
    }
    Ok(ok(&case, &args.attach, wanted, wanted))
}

/// Suspends and resumes it.
fn suspended(args: &Args, terminal: &Terminal) -> anyhow::Result<Cell> {
    terminal.keys(&["C-z"])?;
    terminal.until("Stopped")?;
    let (is_alternate, _) = terminal.flags()?;
    terminal.type_line("fg")?;
    terminal.until("STATE")?;
    if is_alternate {
        let why = "the alternate screen is still shown".to_owned();
        return Ok(mismatch(
            "watched-suspended",
            &args.attach,
            "given back",
            "not",
            why,
        ));
    }
    Ok(ok(
        "watched-suspended",
        &args.attach,
        "back again",
        "back again",
    ))
}

/// Checks that the terminal is as it was before.
fn intact(args: &Args, case: &str, terminal: &Terminal, before: &str) -> anyhow::Result<Cell> {
    terminal.until_idle()?;
    let after = terminal.settings()?;
    let (is_alternate, has_cursor) = terminal.flags()?;
    let wanted = format!("{before}, cursor");
    let got = format!(
        "{after}{}{}",
        if is_alternate { ", screen taken" } else { "" },
        if has_cursor { ", cursor" } else { "" }
    );
    if wanted == got {
        return Ok(ok(case, &args.attach, "as before", "as before"));
    }
    let why = "the terminal was not restored".to_owned();
    Ok(mismatch(case, &args.attach, &wanted, &got, why))
}

/// Recorded screens, for human readers.
#[derive(Default)]
struct Screens(Vec<(&'static str, String)>);

impl Screens {
    fn keep(&mut self, title: &'static str, screen: &str) {
        self.0.push((title, screen.trim_end().to_owned()));
    }

    fn text(&self) -> String {
        self.0
            .iter()
            .map(|(title, screen)| format!("{title}:\n\n```text\n{screen}\n```\n\n"))
            .collect()
    }
}

/// A tmux terminal with its own server.
struct Terminal {
    socket: Scratch,
    settings: Scratch,
}

impl Terminal {
    fn start(width: u16, height: u16) -> anyhow::Result<Self> {
        let terminal = Self {
            socket: Scratch::new("tmux"),
            settings: Scratch::new("stty"),
        };
        let (width, height) = (width.to_string(), height.to_string());
        let shell = format!(
            "PS1='{PROMPT} ' RUST_BACKTRACE=0 LC_ALL=C.UTF-8 exec {SHELL} --norc --noprofile"
        );
        let words = [
            "-f",
            "/dev/null",
            "-u",
            "new-session",
            "-d",
            "-x",
            &width,
            "-y",
            &height,
        ];
        let mut words = words.to_vec();
        words.push(&shell);
        terminal.tmux(&words)?;
        terminal.tmux(&["set", "-g", "window-size", "manual"])?;
        terminal.until(PROMPT)?;
        Ok(terminal)
    }

    fn tmux(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("tmux")
            .arg("-S")
            .arg(&self.socket.0)
            .args(words)
            .env_remove("TMUX")
            .output()
            .context("cannot start tmux")?;
        ensure!(
            output.status.success(),
            "tmux {words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn screen(&self) -> anyhow::Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    fn keys(&self, keys: &[&str]) -> anyhow::Result<()> {
        for key in keys {
            self.tmux(&["send-keys", key])?;
            // A letter directly after an escape would be read as another key.
            sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn type_line(&self, line: &str) -> anyhow::Result<()> {
        self.tmux(&["send-keys", "-l", line])?;
        self.keys(&["Enter"])
    }

    fn resize(&self, width: u16, height: u16) -> anyhow::Result<()> {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(&["resize-window", "-x", &width, "-y", &height])?;
        Ok(())
    }

    fn until(&self, wanted: &str) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let screen = self.screen()?;
            if screen.contains(wanted) {
                return Ok(());
            }
            if start.elapsed() > WAIT_MAX {
                bail!("{wanted:?} is not on the screen:\n{screen}");
            }
            sleep(LOOK_EVERY);
        }
    }

    /// Terminal modes (`stty -g`), once the shell is in the foreground.
    fn settings(&self) -> anyhow::Result<String> {
        let _none = fs::remove_file(&self.settings.0);
        let file = self.settings.0.display();
        self.type_line(&format!(
            "clear; stty -g > {file}.new; mv {file}.new {file}"
        ))?;
        let start = Instant::now();
        while !self.settings.0.exists() {
            ensure!(
                start.elapsed() < WAIT_MAX,
                "stty does not answer:\n{}",
                self.screen()?
            );
            sleep(LOOK_EVERY);
        }
        Ok(fs::read_to_string(&self.settings.0)?.trim().to_owned())
    }

    /// Waits until the program that the shell started has exited. The prompt is no proof: the
    /// previous one reappears as soon as the alternate screen is left.
    fn until_idle(&self) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let runs = self.tmux(&["display-message", "-p", "#{pane_current_command}"])?;
            if runs.trim() == SHELL {
                return self.until(PROMPT);
            }
            ensure!(start.elapsed() < WAIT_MAX, "{} does not end", runs.trim());
            sleep(LOOK_EVERY);
        }
    }

    /// Terminates the shell's program, as a system shutdown does.
    fn end_program(&self) -> anyhow::Result<()> {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"])?;
        let shell = shell.trim();
        let file = format!("/proc/{shell}/task/{shell}/children");
        let children = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let pids: Vec<Pid> = children
            .split_whitespace()
            .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
            .collect();
        ensure!(!pids.is_empty(), "the shell runs no program");
        for pid in pids {
            kill_process(pid, Signal::TERM).context("cannot stop the shell's program")?;
        }
        Ok(())
    }

    /// Whether the alternate screen is shown, and whether the cursor is.
    fn flags(&self) -> anyhow::Result<(bool, bool)> {
        let flags = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"])?;
        Ok((flags.starts_with('1'), flags.trim_end().ends_with('1')))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _gone = self.tmux(&["kill-server"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_causes_is_read() {
        let screen = "\
            CAUSE                              CONNS    FELL SHARE             ASKED DECEIVED\n\
            MPCapableFallbackSYNACK                3       2 ██████▋     67%       0        0\n\
            DssFallback                            1       1 ██████████ 100%       0        0\n";
        let want = BTreeMap::from([
            ("MPCapableFallbackSYNACK".to_owned(), 2),
            ("Other".to_owned(), 1),
        ]);
        let got = counted(screen, &want);
        assert_eq!(
            got,
            BTreeMap::from([("MPCapableFallbackSYNACK".to_owned(), 2)])
        );
    }
}
