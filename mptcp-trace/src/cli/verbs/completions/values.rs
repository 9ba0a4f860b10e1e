//! The values that are offered for an option: names from the model, and what this host has.
//!
//! Whatever cannot be read (hidden processes, namespaces of others) is not offered, without a
//! message: the user is typing.

use std::{collections::BTreeMap, ffi::OsStr, fs, os::unix::fs::MetadataExt as _};

use clap::{Arg, Command, ValueHint};
use clap_complete::{ArgValueCompleter, CompletionCandidate};

use crate::{
    filter::{ALL_KINDS, PATH_KINDS},
    host::procfs,
    model::{FINGERPRINTS, Finding, RESET_REASONS, Verdict, all_causes},
    sink::{Column, escape},
};

/// Asks the script to complete a path: the shell knows how to quote it.
pub(super) const FILES: &str = "\u{1}files";
/// Asks the script to complete a command line of another program.
pub(super) const COMMAND: &str = "\u{1}command";

/// Maximum number of processes that are read: a user waits for them.
const PROCESSES_MAX: usize = 8192;

/// Adds the offered values to each option, of all verbs.
pub(super) fn offered(mut command: Command) -> Command {
    // clap decides here which options take a path.
    command.build();
    add(command)
}

fn add(command: Command) -> Command {
    command
        .mut_args(|arg| match values_of(&arg) {
            Some(values) => arg.add(ArgValueCompleter::new(values)),
            None => arg,
        })
        .mut_subcommands(add)
}

type Values = fn(&OsStr) -> Vec<CompletionCandidate>;

/// What is offered for an option, by its name; others have a closed list, or free text.
fn values_of(arg: &Arg) -> Option<Values> {
    match arg.get_id().as_str() {
        "pid" => Some(|typed| matching(typed, pids())),
        "comm" => Some(|typed| matching(typed, comms())),
        "netns" => Some(|typed| path_or(typed, namespaces)),
        "cgroup" => Some(|typed| matching(typed, cgroups())),
        "cause" => Some(|typed| chosen(typed, causes())),
        "verdict" => Some(|typed| chosen(typed, verdicts())),
        "kind" => Some(|typed| chosen(typed, kinds())),
        "packet" => Some(|typed| chosen(typed, packets())),
        "reset_reason" => Some(|typed| chosen(typed, reset_reasons())),
        "columns" => Some(|typed| matching(typed, columns())),
        "fail_on" => Some(|typed| matching(typed, failures())),
        _ => (arg.get_value_hint() == ValueHint::AnyPath).then_some(files),
    }
}

/// A word that begins with a dash is a flag, also where a file may stand.
fn files(typed: &OsStr) -> Vec<CompletionCandidate> {
    match typed.as_encoded_bytes().first() {
        Some(b'-') => Vec::new(),
        Some(_) | None => vec![FILES.into()],
    }
}

/// A value and its description.
type Offer = (String, String);

/// Those that begin with what was typed, in either case.
fn matching(typed: &OsStr, offers: impl IntoIterator<Item = Offer>) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else {
        return Vec::new();
    };
    let begins = |value: &str| {
        let start = value.get(..typed.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(typed))
    };
    offers
        .into_iter()
        // The lines that the script reads have no escape.
        .filter(|(value, _)| escape(value) == *value && begins(value))
        .map(|(value, about)| CompletionCandidate::new(value).help(Some(escape(&about).into())))
        .collect()
}

/// Those that begin with what was typed, which may leave them out with `!`.
fn chosen(typed: &OsStr, offers: impl IntoIterator<Item = Offer>) -> Vec<CompletionCandidate> {
    let text = typed.to_str().unwrap_or_default();
    match text.strip_prefix('!') {
        None => matching(typed, offers),
        Some(rest) => {
            let found = matching(OsStr::new(rest), offers).into_iter();
            found.map(|candidate| candidate.add_prefix("!")).collect()
        }
    }
}

fn path_or<I: IntoIterator<Item = Offer>>(
    typed: &OsStr,
    offers: fn() -> I,
) -> Vec<CompletionCandidate> {
    match typed.as_encoded_bytes().contains(&b'/') {
        true => files(typed),
        false => matching(typed, offers()),
    }
}

fn causes() -> impl Iterator<Item = Offer> {
    all_causes().map(|cause| (cause.name.to_owned(), cause.when.to_owned()))
}

fn verdicts() -> impl Iterator<Item = Offer> {
    let all = Verdict::ALL.into_iter();
    all.map(|verdict| (verdict.name().to_owned(), verdict.meaning().to_owned()))
}

fn packets() -> impl Iterator<Item = Offer> {
    FINGERPRINTS
        .iter()
        .map(|it| (it.name.to_owned(), it.meaning.to_owned()))
}

fn kinds() -> impl Iterator<Item = Offer> {
    let all = Finding::KINDS.into_iter();
    let groups = [
        (PATH_KINDS.to_owned(), "all kinds about paths".to_owned()),
        (ALL_KINDS.to_owned(), "every kind".to_owned()),
    ];
    all.map(|kind| (kind.replace('_', "-"), String::new()))
        .chain(groups)
}

fn reset_reasons() -> impl Iterator<Item = Offer> {
    let all = RESET_REASONS.iter();
    all.map(|it| (it.name.to_owned(), it.meaning.to_owned()))
}

fn columns() -> impl Iterator<Item = Offer> {
    Column::FOR_FINDINGS
        .map(|it| (it.name().to_owned(), String::new()))
        .into_iter()
}

fn failures() -> impl Iterator<Item = Offer> {
    let any = ("fallback".to_owned(), "any fallback".to_owned());
    [any].into_iter().chain(verdicts()).chain(causes())
}

/// The visible processes, by PID, with their names; none if /proc shows those of another PID
/// namespace.
fn processes() -> BTreeMap<u64, String> {
    if !procfs::has_our_numbers() {
        return BTreeMap::new();
    }
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .take(PROCESSES_MAX)
        .filter_map(|pid: u64| {
            let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, name_in(&String::from_utf8_lossy(&stat))?))
        })
        .collect()
}

/// The name in /proc/PID/stat; none for a thread of the kernel, which has no application.
fn name_in(stat: &str) -> Option<String> {
    const PF_KTHREAD: u64 = 0x0020_0000;
    let (head, fields) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once(" (")?;
    // The fields after the name: state, parent, group, session, terminal, its group, flags.
    let flags = fields.split(' ').nth(6)?.parse::<u64>().ok()?;
    (flags & PF_KTHREAD == 0).then(|| name.to_owned())
}

fn pids() -> impl Iterator<Item = Offer> {
    let mut all = processes();
    // This process ends before anyone can trace it.
    all.remove(&u64::from(std::process::id()));
    all.into_iter().map(|(pid, name)| (pid.to_string(), name))
}

/// The names of processes, with the first one that has it.
fn comms() -> impl Iterator<Item = Offer> {
    let mut names = BTreeMap::new();
    for (pid, name) in pids() {
        names.entry(name).or_insert_with(|| format!("PID {pid}"));
    }
    names.into_iter()
}

/// The namespaces of `ip netns` by name, and all visible ones by number.
fn namespaces() -> Vec<Offer> {
    // Inode numbers of namespaces are unique only within nsfs, where all of them are.
    let Ok(ours) = fs::metadata("/proc/self/ns/net") else {
        return Vec::new();
    };
    let mut names = BTreeMap::new();
    let mut numbers = BTreeMap::from([(ours.ino(), "of this shell".to_owned())]);
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let (Ok(name), Ok(found)) = (entry.file_name().into_string(), fs::metadata(entry.path()))
        else {
            continue;
        };
        // A file without a namespace on it was left behind.
        if found.dev() == ours.dev() {
            names.insert(name.clone(), format!("namespace {}", found.ino()));
            numbers.entry(found.ino()).or_insert(name);
        }
    }
    for (pid, name) in processes() {
        // Another user's process may only be looked at with privileges.
        if let Ok(found) = fs::metadata(format!("/proc/{pid}/ns/net")) {
            let owner = || format!("{name} ({pid})");
            numbers.entry(found.ino()).or_insert_with(owner);
        }
    }
    let numbers = numbers.into_iter();
    let numbers = numbers.map(|(number, about)| (number.to_string(), about));
    names.into_iter().chain(numbers).collect()
}

/// The control groups that processes are in.
fn cgroups() -> impl Iterator<Item = Offer> {
    let mut paths = BTreeMap::new();
    for (pid, name) in processes() {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::")) {
            let owner = || format!("{name} ({pid})");
            paths.entry(path.to_owned()).or_insert_with(owner);
        }
    }
    paths.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_and_a_thread_of_the_kernel_is_none() {
        for (stat, comm) in [
            ("7 (curl) S 1 7 7 0 -1 4194560 0", Some("curl")),
            ("7 (a) S (b) R 1 7 7 0 -1 4194560 0", Some("a) S (b")),
            ("7 (kthreadd) S 0 0 0 0 -1 2129984 0", None),
            ("7 (", None),
            ("", None),
        ] {
            let found = name_in(stat);
            assert_eq!(found.as_deref(), comm, "{stat}");
        }
    }

    #[test]
    fn names_cannot_drive_the_terminal_or_break_the_lines() {
        let offer = |value: &str, about: &str| (value.to_owned(), about.to_owned());
        let offers = [
            offer("7", "\u{1b}[31mred\ttwo\nlines"),
            offer("two\nlines", ""),
        ];
        let found = matching(OsStr::new(""), offers);
        assert_eq!(found.len(), 1);
        let about = found[0].get_help().unwrap().to_string();
        assert_eq!(about, "\\u{1b}[31mred\\ttwo\\nlines");
    }

    #[test]
    fn names_are_found_in_either_case() {
        let found = matching(OsStr::new("mpcap"), causes());
        assert!(!found.is_empty());
        assert!(matching(OsStr::new("ł"), causes()).is_empty());
    }
}
