//! `mptcp-lab watched`: `mptcp-trace top` in a real terminal while connections fall back. Its
//! screen must match the kernel's counters, at every size, and it must restore the terminal,
//! however it ends.

mod paths;

use std::{
    collections::BTreeSet, fs, path::PathBuf, process::Command, thread::sleep, time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

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
    cells.put(helped(args, &terminal, &mut screens)?)?;
    cells.put(explained(args, &terminal, &mut screens)?)?;
    cells.put(recorded(args, &terminal, &mut screens)?)?;
    cells.put(refused(args, &terminal)?)?;
    cells.put(paths::read(args, &terminal)?)?;
    // From here on the mouse is in use.
    cells.put(clicked(args, &terminal)?)?;
    cells.put(suspended(args, &terminal)?)?;
    terminal.keys(&["q"])?;
    cells.put(intact(args, "watched-quit", &terminal, &before)?)?;
    terminal.type_line(&top().typed())?;
    terminal.until(TABS)?;
    terminal.keys(&["m"])?;
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

/// Scrolls through the help in a small terminal: all groups of keys must appear.
fn helped(args: &Args, terminal: &Terminal, screens: &mut Screens) -> anyhow::Result<Cell> {
    const GROUPS: [&str; 3] = ["Move", "Program", "While you type"];
    const PAGES_MAX: usize = 30;
    terminal.resize(80, 10)?;
    terminal.keys(&["?"])?;
    terminal.until("more lines below")?;
    screens.keep("The keys in a small terminal", &terminal.screen()?);
    let mut seen = String::new();
    for _page in 0..PAGES_MAX {
        let screen = terminal.screen()?;
        let is_last = !screen.contains("more lines below");
        seen.push_str(&screen);
        if is_last {
            break;
        }
        terminal.keys(&["PageDown"])?;
    }
    terminal.keys(&["Escape"])?;
    terminal.resize(80, 24)?;
    terminal.until("STATE")?;
    let missing: Vec<&str> = GROUPS
        .into_iter()
        .filter(|group| !seen.contains(group))
        .collect();
    let wrong = (!missing.is_empty()).then(|| format!("the help lacks {missing:?}"));
    let got = format!("{} groups", GROUPS.len() - missing.len());
    Ok(args.cell("watched-help", "3 groups", &got, wrong))
}

/// Explains a cause: the words must be those of the command.
fn explained(args: &Args, terminal: &Terminal, screens: &mut Screens) -> anyhow::Result<Cell> {
    const CAUSE: &str = "MPCapableFallbackSYNACK";
    terminal.resize(80, 40)?;
    terminal.keys(&["3", "/", "s", "y", "n", "a", "c", "k", "Enter", "e"])?;
    terminal.until("decided by")?;
    let screen = terminal.screen()?;
    screens.keep("The explanation of a cause", &screen);
    let command = Command::new(&args.tried.tracer)
        .args(["explain", CAUSE])
        .output()
        .context("cannot run the tracer")?;
    let words = String::from_utf8_lossy(&command.stdout).into_owned();
    let lacks = words.split_whitespace().find(|word| !screen.contains(word));
    let wrong = lacks.map(|word| format!("the screen lacks {word:?}:\n{screen}"));
    terminal.keys(&["Escape", "Escape", "1"])?;
    terminal.resize(80, 24)?;
    terminal.until("STATE")?;
    let got = if wrong.is_some() {
        "otherwise"
    } else {
        "as printed"
    };
    Ok(args.cell("watched-explain", "as printed", got, wrong))
}

/// Records what happens between two keys: a replay must show these fallbacks and no others, and
/// agree with the kernel.
fn recorded(args: &Args, terminal: &Terminal, screens: &mut Screens) -> anyhow::Result<Cell> {
    let file = Scratch::new("late.mpt");
    record_to(terminal, &file.0.display().to_string())?;
    terminal.until("recording ")?;
    let truth = truth::play()?.counts;
    let sum: u64 = truth.values().sum();
    // Until all of them are on the screen, they may still be in the ring.
    let all = |screen: &String| Ok(screen.contains(&format!("{} fell back", 2 * sum)));
    let screen = PATIENCE.last(|| terminal.screen(), all)?;
    screens.keep("A capture is being written", &screen);
    terminal.keys(&["w"])?;
    terminal.until("mptcp-trace replay")?;
    let replayed = Command::new(&args.tried.tracer)
        .args(["replay", "--json"])
        .arg(&file.0)
        .output()
        .context("cannot run the tracer")?;
    let said = String::from_utf8_lossy(&replayed.stderr).into_owned();
    let (got, agrees) = replayed_counts(&String::from_utf8_lossy(&replayed.stdout))?;
    let mut wrong = Vec::new();
    if !replayed.status.success() {
        wrong.push(format!("the replay ended with {}: {said}", replayed.status));
    }
    if !agrees {
        wrong.push(format!("the replay does not agree with the kernel: {said}"));
    }
    if got != truth {
        wrong.push(format!("the screen was:\n{screen}"));
    }
    let (truth, got) = (format!("{truth:?}"), format!("{got:?}"));
    let rung = &args.tried.attach;
    Ok(judged("watched-capture", rung, &truth, &got, wrong))
}

/// Types the name of a file for a capture, in place of the proposed one.
fn record_to(terminal: &Terminal, name: &str) -> anyhow::Result<()> {
    terminal.keys(&["w"])?;
    terminal.until("capture to: mptcp-")?;
    terminal.tmux(&["send-keys", "-N", "40", "BSpace"])?;
    terminal.tmux(&["send-keys", "-l", name])?;
    terminal.keys(&["Enter"])
}

/// Fallbacks by cause, from JSON lines; whether the kernel's counters of their network namespaces
/// agree with them.
fn replayed_counts(lines: &str) -> anyhow::Result<(Counters, bool)> {
    let mut counts = Counters::new();
    let mut namespaces = BTreeSet::new();
    let mut agrees = false;
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).context("the replay prints no JSON")?;
        let data = &line["data"];
        match line["type"].as_str() {
            Some("fallback") => {
                let cause = data["cause"].as_str().unwrap_or("unknown");
                *counts.entry(cause.to_owned()).or_default() += 1;
                namespaces.insert(data["netns"].as_u64());
            }
            Some("end") => {
                let accounts = data["reconciliation"].as_array();
                let accounts = accounts.context("the end has no account")?;
                let mut of_ours = accounts
                    .iter()
                    .filter(|it| namespaces.contains(&it["netns"].as_u64()));
                agrees = of_ours.all(|it| it["agrees"] == true);
            }
            Some(_) | None => {}
        }
    }
    Ok((counts, agrees))
}

/// A file that exists, a directory that is missing, a full disk: each is reported, and `top` goes on.
fn refused(args: &Args, terminal: &Terminal) -> anyhow::Result<Cell> {
    let existing = Scratch::new("existing.mpt");
    fs::write(&existing.0, "kept").context("cannot write a file")?;
    let name = existing.0.display().to_string();
    let mut wrong = Vec::new();
    let missing = format!("{name}.d/a.mpt");
    for (name, wanted) in [
        (name.as_str(), "the file exists"),
        (&missing, "No such file"),
    ] {
        // The whole message has room.
        terminal.resize(160, 24)?;
        record_to(terminal, name)?;
        wrong.extend(terminal.until(wanted).err().map(|why| format!("{why:#}")));
    }
    if fs::read(&existing.0).context("cannot read a file")? != b"kept" {
        wrong.push("an existing file was overwritten".to_owned());
    }
    terminal.resize(80, 24)?;
    terminal.keys(&["1"])?;
    terminal.until("live")?;
    let got = if wrong.is_empty() {
        "reported"
    } else {
        "otherwise"
    };
    let rung = &args.tried.attach;
    Ok(judged("watched-refused", rung, "reported", got, wrong))
}

/// The mouse is off until `m`; a click selects a tab then.
fn clicked(args: &Args, terminal: &Terminal) -> anyhow::Result<Cell> {
    let mut wrong = Vec::new();
    if terminal.has_mouse()? {
        wrong.push("the mouse is in use before m".to_owned());
    }
    terminal.keys(&["m"])?;
    if !PATIENCE.holds(|| terminal.has_mouse())? {
        wrong.push("the mouse is not in use after m".to_owned());
    }
    let screen = terminal.screen()?;
    let place = screen.lines().enumerate().find_map(|(line, text)| {
        let column = text.find("3 Causes")?;
        Some((column + 1, line + 1))
    });
    let (column, line) = place.context("there are no tabs")?;
    terminal.bytes(&format!("\x1b[<0;{column};{line}M\x1b[<0;{column};{line}m"))?;
    wrong.extend(terminal.until("CAUSE ").err().map(|why| format!("{why:#}")));
    terminal.keys(&["1"])?;
    terminal.until("STATE")?;
    let got = if wrong.is_empty() {
        "selects"
    } else {
        "otherwise"
    };
    let rung = &args.tried.attach;
    Ok(judged("watched-mouse", rung, "selects", got, wrong))
}

/// Suspends and resumes it.
fn suspended(args: &Args, terminal: &Terminal) -> anyhow::Result<Cell> {
    terminal.keys(&["C-z"])?;
    terminal.until("Stopped")?;
    let (is_alternate, _) = terminal.flags()?;
    let has_mouse = terminal.has_mouse()?;
    terminal.type_line("fg")?;
    terminal.until("STATE")?;
    let is_back = PATIENCE.holds(|| terminal.has_mouse())?;
    let wrong = [
        (is_alternate, "the alternate screen is still shown"),
        (has_mouse, "the mouse is still in use"),
        (!is_back, "the mouse is not in use again"),
    ];
    let wrong: Vec<String> = wrong
        .into_iter()
        .filter(|(is_wrong, _)| *is_wrong)
        .map(|(_, what)| what.to_owned())
        .collect();
    let got = if wrong.is_empty() {
        "given back"
    } else {
        "taken"
    };
    let rung = &args.tried.attach;
    Ok(judged("watched-suspended", rung, "given back", got, wrong))
}

/// Checks that the terminal is as it was before.
fn intact(args: &Args, case: &str, terminal: &Terminal, before: &str) -> anyhow::Result<Cell> {
    terminal.until_idle()?;
    let after = terminal.settings()?;
    let (is_alternate, has_cursor) = terminal.flags()?;
    let wanted = format!("{before}, cursor");
    let got = format!(
        "{after}{}{}{}",
        if is_alternate { ", screen taken" } else { "" },
        if has_cursor { ", cursor" } else { "" },
        if terminal.has_mouse()? {
            ", mouse taken"
        } else {
            ""
        },
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

    /// Sends bytes as a terminal does.
    fn bytes(&self, text: &str) -> anyhow::Result<()> {
        let bytes: Vec<String> = text.bytes().map(|it| format!("{it:02x}")).collect();
        let mut words = vec!["send-keys", "-H"];
        words.extend(bytes.iter().map(String::as_str));
        self.tmux(&words)?;
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

    /// Whether the program receives the mouse.
    fn has_mouse(&self) -> anyhow::Result<bool> {
        let flag = self.tmux(&["display-message", "-p", "#{mouse_any_flag}"])?;
        Ok(flag.trim() == "1")
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
    fn a_replay_is_counted_and_must_agree() {
        let fell = r#"{"type":"fallback","data":{"cause":"DssFallback","netns":7}}"#;
        for (netns, of_it, agrees) in [(7, true, true), (7, false, false), (8, false, true)] {
            let account = format!(r#"{{"netns":{netns},"agrees":{of_it}}}"#);
            let end = format!(r#"{{"type":"end","data":{{"reconciliation":[{account}]}}}}"#);
            let (counts, got) = replayed_counts(&format!("{fell}\n{fell}\n{end}")).unwrap();
            assert_eq!(counts, Counters::from([("DssFallback".to_owned(), 2)]));
            assert_eq!(got, agrees, "{account}");
        }
        // A capture that is cut off has no end.
        assert!(!replayed_counts(fell).unwrap().1);
    }

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
