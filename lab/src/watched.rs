//! `mptcp-lab watched`: `mptcp-trace top` in a real terminal while connections fall back. Its
//! screen must match the kernel's counters, at every size, and it must restore the terminal,
//! however it ends.

use std::{fs, path::PathBuf, process::Command, thread::sleep, time::Duration};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    cells::{Cells, judged, skipped},
    netns::Counters,
    process::is_in_path,
    report::Cell,
    scratch::Scratch,
    tracer::{OneMethodArgs, Run},
    truth,
    wait::Patience,
};

/// Until something is on the screen.
const PATIENCE: Patience = Patience::new(Duration::from_secs(30), Duration::from_millis(50));
/// Text that only the screen contains, and no command line: tracing is live.
const TABS: &str = "1 Connections";
/// Shell of the terminal.
const SHELL: &str = "bash";
/// Prompt of the shell.
const PROMPT: &str = "lab$";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    tried: OneMethodArgs,
    /// Write the screens to FILE
    #[arg(long, value_name = "FILE")]
    screens: Option<PathBuf>,
}

impl Args {
    fn cell(&self, case: &str, want: &str, got: &str, wrong: Option<String>) -> Cell {
        judged(case, &self.tried.attach, want, got, Vec::from_iter(wrong))
    }
}

/// Starts the tracer, plays recipes, presses keys, and kills it; returns true if every check
/// passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let OneMethodArgs { tracer, attach } = &args.tried;
    let mut cells = Cells::new()?;
    if !is_in_path("tmux") {
        let why = "there is no tmux; Debian: apt-get install tmux";
        cells.put(skipped("watched", attach, why))?;
        return cells.close();
    }
    let mut screens = Screens::default();
    let terminal = Terminal::start(80, 24)?;
    let before = terminal.settings()?;
    let top = || Run::of(tracer).args(["top", "--attach", attach]);
    // Limit it to this process and its children, whatever other programs on this host do.
    let ours = top().args(["--pid", &std::process::id().to_string(), "--follow"]);
    cells.put(shown(args, &terminal, &ours.typed(), &mut screens)?)?;
    for size in [(120, 30), (200, 60), (40, 12), (10, 3), (80, 24)] {
        cells.put(resized(args, &terminal, size, &mut screens)?)?;
    }
    cells.put(suspended(args, &terminal)?)?;
    terminal.keys(&["q"])?;
    cells.put(intact(args, "watched-quit", &terminal, &before)?)?;
    terminal.type_line(&top().typed())?;
    terminal.until(TABS)?;
    terminal.end_program()?;
    cells.put(intact(args, "watched-killed", &terminal, &before)?)?;
    terminal.type_line(&top().args(["--panic"]).typed())?;
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
    let truth = truth::play()?.counts;
    terminal.keys(&["3"])?;
    terminal.until("CAUSE ")?;
    let look = || Ok(counted(&terminal.screen()?, &truth));
    let got = PATIENCE.last(look, |got| Ok(*got == truth))?;
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
    let mut wrong = Vec::new();
    if truth != got {
        wrong.push(format!("the screen:\n{}", terminal.screen()?));
    }
    if has_others {
        wrong.push("the filter does not exclude other connections".to_owned());
    }
    let (truth, got) = (format!("{truth:?}"), format!("{got:?}"));
    let rung = &args.tried.attach;
    Ok(judged("watched-screen", rung, &truth, &got, wrong))
}

/// Fallbacks by cause, from the table of causes.
fn counted(screen: &str, causes: &Counters) -> Counters {
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
    let wrong = terminal.until(wanted).err().map(|why| format!("{why:#}"));
    if (width, height) == (120, 30) {
        screens.keep("The same in 120 columns", &terminal.screen()?);
    }
    let got = if wrong.is_some() { "otherwise" } else { wanted };
    Ok(args.cell(&case, wanted, got, wrong))
}

/// Suspends and resumes it.
fn suspended(args: &Args, terminal: &Terminal) -> anyhow::Result<Cell> {
    terminal.keys(&["C-z"])?;
    terminal.until("Stopped")?;
    let (is_alternate, _) = terminal.flags()?;
    terminal.type_line("fg")?;
    terminal.until("STATE")?;
    let wrong = is_alternate.then(|| "the alternate screen is still shown".to_owned());
    let got = if is_alternate { "taken" } else { "given back" };
    Ok(args.cell("watched-suspended", "given back", got, wrong))
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
    let wrong = (wanted != got).then(|| "the terminal was not restored".to_owned());
    Ok(args.cell(case, &wanted, &got, wrong))
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
        let (conf, size) = (["-f", "/dev/null", "-u"], ["-x", &width, "-y", &height]);
        terminal.tmux(&[&conf[..], &["new-session", "-d"], &size, &[&shell]].concat())?;
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
            sleep(PATIENCE.every);
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
        let screen = PATIENCE.last(|| self.screen(), |screen| Ok(screen.contains(wanted)))?;
        ensure!(
            screen.contains(wanted),
            "{wanted:?} is not on the screen:\n{screen}"
        );
        Ok(())
    }

    /// Terminal modes (`stty -g`), once the shell is in the foreground.
    fn settings(&self) -> anyhow::Result<String> {
        let _none = fs::remove_file(&self.settings.0);
        let file = self.settings.0.display();
        self.type_line(&format!(
            "clear; stty -g > {file}.new; mv {file}.new {file}"
        ))?;
        if !PATIENCE.holds(|| Ok(self.settings.0.exists()))? {
            bail!("stty does not answer:\n{}", self.screen()?);
        }
        Ok(fs::read_to_string(&self.settings.0)?.trim().to_owned())
    }

    /// Waits until the program that the shell started has exited. The prompt is no proof: the
    /// previous one reappears as soon as the alternate screen is left.
    fn until_idle(&self) -> anyhow::Result<()> {
        let runs = || self.tmux(&["display-message", "-p", "#{pane_current_command}"]);
        let runs = PATIENCE.last(runs, |runs| Ok(runs.trim() == SHELL))?;
        ensure!(runs.trim() == SHELL, "{} does not end", runs.trim());
        self.until(PROMPT)
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
        let want = Counters::from([
            ("MPCapableFallbackSYNACK".to_owned(), 2),
            ("Other".to_owned(), 1),
        ]);
        let got = counted(screen, &want);
        assert_eq!(
            got,
            Counters::from([("MPCapableFallbackSYNACK".to_owned(), 2)])
        );
    }
}
