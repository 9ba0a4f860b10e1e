//! Starts other programs and reports on them. Every failure names the program, its purpose, and the
//! last lines of its stderr.

use std::{
    ffi::OsStr,
    fmt::Display,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Most lines of stderr shown for a failed quiet program.
const LAST_LINES_MAX: usize = 30;

/// Prints a progress message on stderr; stdout is for results.
pub(crate) fn say(what: impl Display) {
    eprintln!("xtask: {what}");
}

/// Prints an error chain as one sentence and returns its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("xtask: error: {error:#}");
    ExitCode::FAILURE
}

/// Runs a program with its output visible; fails unless it exits with 0.
pub(crate) fn run(command: &mut Command, purpose: &str) -> Result<()> {
    let status = status(command, purpose)?;
    if status.success() {
        return Ok(());
    }
    bail!("{purpose}: {} {}", name(command), describe(status))
}

/// Runs a program with its output visible, and returns its exit status.
pub(crate) fn status(command: &mut Command, purpose: &str) -> Result<ExitStatus> {
    command
        .status()
        .with_context(|| cannot_start(command, purpose))
}

/// Runs a program quietly and returns its stdout; its stderr is shown only if it fails.
pub(crate) fn output(command: &mut Command, purpose: &str) -> Result<Vec<u8>> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| cannot_start(command, purpose))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    bail!(
        "{purpose}: {} {}; it said:\n{}",
        name(command),
        describe(output.status),
        last_lines(&said, LAST_LINES_MAX)
    )
}

/// Like [`output`], for programs that print text.
pub(crate) fn text(command: &mut Command, purpose: &str) -> Result<String> {
    Ok(String::from_utf8_lossy(&output(command, purpose)?).into_owned())
}

/// A cargo command in the workspace: the cargo that started xtask, or the one in PATH.
pub(crate) fn cargo(root: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root);
    command
}

/// Searches PATH, and the directories that an ordinary user's PATH lacks.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// True if this process may install packages, load BPF and create namespaces.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid has no arguments, touches no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Describes an exit status in words.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

/// The exit code that a shell reports: 128 + signal number if a signal killed the program.
pub(crate) fn shell_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code & 0xff).unwrap_or(1)
}

/// The last `lines_max` lines of a text.
pub(crate) fn last_lines(text: &str, lines_max: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(lines_max);
    lines.get(first..).unwrap_or_default().join("\n")
}

fn cannot_start(command: &Command, purpose: &str) -> String {
    format!("{purpose}: cannot start {}", name(command))
}

fn name(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .take(3)
            .map(OsStr::to_string_lossy)
            .map(std::borrow::Cow::into_owned),
    );
    format!(
        "`{}{}`",
        words.join(" "),
        if command.get_args().len() > 3 {
            " ..."
        } else {
            ""
        }
    )
}
