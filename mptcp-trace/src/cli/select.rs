//! Validates processes, thread names and network namespaces named by the user.

use std::{
    fs,
    io::{self, ErrorKind, IsTerminal as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use super::{
    args::{ConnectionFilterArgs, FindingFilterArgs, TaskFilterArgs, ViewArgs},
    colour, talk, terminal,
};
use crate::{
    aggregation::Sums,
    coalesce::AnswerCoalescer,
    correlate::Limits,
    filter::{ALL_KINDS, FindingFilter},
    host::procfs,
    kernel::readable,
    model::Verdict,
    pipeline::{Detail, EndOf, PeerBook, View, Watched},
    sink::{TextOptions, Width},
};
use anyhow::{Context as _, bail, ensure};
use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, PidfdFlags, pidfd_open},
};

/// Why there is no process with this id. `has_host_ids`: ids are those of the host.
fn gone(pid: u32, has_host_ids: bool) -> String {
    let why = format!("no process {pid}: it has ended or never existed (ps -p {pid})");
    match has_host_ids {
        true => why,
        false => format!(
            "{why}; process ids are those of this container (PID namespace): for those of the host, mount \
             its /proc and name it with --proc"
        ),
    }
}

/// Opens a process to be notified of its end.
///
/// # Errors
///
/// Reports that the process is missing, or that the ID is that of a thread.
pub(super) fn watch(pid: u32) -> anyhow::Result<Watched> {
    let gone = || gone(pid, procfs::pid_namespace().is_none() || procfs::is_outer());
    let status = match fs::read_to_string(procfs::of(pid).join("status")) {
        Ok(status) if procfs::has_our_numbers() => status,
        // In another PID namespace this number belongs to another process.
        Ok(_) => String::new(),
        // Gone, or hidden (/proc mounted with hidepid=2): pidfd_open decides.
        Err(why) if why.kind() == ErrorKind::NotFound => String::new(),
        Err(why) => return Err(why).with_context(|| format!("cannot inspect process {pid}")),
    };
    let tgid = status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:"))
        .and_then(|tgid| tgid.trim().parse::<u32>().ok());
    if let Some(tgid) = tgid
        && tgid != pid
    {
        bail!("{pid} is a thread of process {tgid}: use --pid {tgid}");
    }
    if procfs::is_outer() {
        let dir = rustix::fs::open(
            procfs::of(pid),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let dir = dir.map_err(|_why| anyhow::anyhow!(gone()))?;
        let end = EndOf::Outer(dir);
        return Ok(Watched { pid, end });
    }
    let raw = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .with_context(gone)?;
    let pidfd = match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => bail!(gone()),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {
            bail!(
                "{pid} is a thread, and /proc does not show of which process: use the PID of the \
                 process"
            )
        }
        Err(why) => return Err(why).with_context(|| format!("cannot watch process {pid}")),
    };
    let pidfd = readable(pidfd).with_context(|| format!("cannot watch process {pid}"))?;
    let end = EndOf::Ours(pidfd);
    Ok(Watched { pid, end })
}

/// Builds the view from the options.
///
/// # Errors
///
/// Reports an impossible process name or a missing namespace.
pub(super) fn view(view: &ViewArgs, whose: &TaskFilterArgs) -> anyhow::Result<View> {
    let wanted = wanted(&view.what, &view.which, whose)?;
    Ok(View {
        within: wanted.netns.clone(),
        wanted,
        fail_on: view.fail_on.clone(),
        summary: Sums::new(&view.sums()),
        hides_routine: true,
        is_of_command: false,
        repeats: view.coalesce.then(AnswerCoalescer::default),
        limits: Limits {
            connections: usize::try_from(view.max_connections)?,
            ..Limits::STATED
        },
        observers: Vec::new(),
        peers: PeerBook::default(),
        sums_follow: false,
    })
}

/// How lines are presented on stdout, or elsewhere.
pub(super) fn lines(view: &ViewArgs, is_stdout: bool) -> TextOptions {
    let ViewArgs { what, lines, .. } = view;
    let is_terminal = is_stdout && io::stdout().is_terminal();
    let width = match is_stdout {
        true => terminal::stdout_width(lines.wide, is_terminal),
        false => Width::Unlimited,
    };
    let lists = |kind: &str| {
        let mut named = what.kind.iter().filter(|it| !it.is_excluded);
        named.any(|it| it.value == kind || it.value == ALL_KINDS)
    };
    let mut verdicts = what.verdict.iter().filter(|it| !it.is_excluded);
    TextOptions {
        header: is_terminal || lines.header,
        colour: colour::is_wanted(is_terminal),
        time: lines.time.style(),
        columns: lines.columns.clone(),
        width,
        why: lines.why,
        packets: talk::detail() == Detail::Full,
        interface: |_netns, _index| None,
        lists_existing: lists("existing"),
        lists_no_join: lists("closed"),
        lists_never_asked: lists("verdict") || verdicts.any(|it| it.value == Verdict::NeverAsked),
    }
}

/// Builds the filter of shown findings.
///
/// # Errors
///
/// Reports an impossible process name or a missing namespace.
pub(super) fn wanted(
    what: &FindingFilterArgs,
    which: &ConnectionFilterArgs,
    whose: &TaskFilterArgs,
) -> anyhow::Result<FindingFilter> {
    for name in &whose.comm {
        let _bytes = comm(name)?;
    }
    Ok(FindingFilter {
        kinds: what.kind.clone(),
        causes: which.cause.clone(),
        verdicts: what.verdict.clone(),
        packets: what.packet.clone(),
        reset_reasons: what.reset_reason.clone(),
        addrs: which.addr.clone(),
        ports: which.port.clone(),
        pids: whose.pid.clone(),
        comms: whose.comm.clone(),
        netns: whose
            .netns
            .iter()
            .map(|name| netns(name))
            .collect::<anyhow::Result<_>>()?,
        cgroups: which.cgroup.clone(),
    })
}

/// A thread name as stored in the kernel: at most 15 bytes and a NUL.
///
/// # Errors
///
/// Reports that no thread can have this name.
pub(super) fn comm(name: &str) -> anyhow::Result<[u8; 16]> {
    let mut comm = [0; 16];
    ensure!(!name.is_empty(), "--comm needs a name");
    ensure!(
        name.len() < comm.len(),
        "no thread can have the name {name:?}: the kernel keeps only 15 bytes, use --comm {:?}",
        String::from_utf8_lossy(&name.as_bytes()[..15])
    );
    comm[..name.len()].copy_from_slice(name.as_bytes());
    Ok(comm)
}

/// Inode number of a network namespace, by name, path or number.
///
/// # Errors
///
/// Reports that the namespace is missing.
pub(super) fn netns(what: &str) -> anyhow::Result<u32> {
    if let Ok(inum) = what.parse::<u32>() {
        return Ok(inum);
    }
    let path = if what.contains('/') {
        Path::new(what).to_owned()
    } else {
        Path::new("/run/netns").join(what)
    };
    let found = fs::metadata(&path).with_context(|| {
        format!(
            "no network namespace {what}: cannot access {} (ip netns list); of one that is gone, give \
             the inode number that the lines show",
            path.display()
        )
    })?;
    // Inode numbers of namespaces are unique only within nsfs.
    let nsfs = fs::metadata("/proc/self/ns/net").context(
        "cannot inspect our own network \
                             namespace",
    )?;
    // nsfs also holds the other kinds of namespaces.
    let kind = kind_of_namespace(&path);
    ensure!(
        found.dev() == nsfs.dev() && kind.is_none_or(|kind| kind.starts_with("net:[")),
        "{} is not a network namespace",
        path.display()
    );
    u32::try_from(found.ino())
        .with_context(|| format!("{} is not a network namespace", path.display()))
}

/// The kernel's name of a namespace (`net:[4026531840]`): the target of a link in /proc, or the
/// root of a mount elsewhere, as made by `ip netns`. None if neither applies.
fn kind_of_namespace(path: &Path) -> Option<String> {
    if let Ok(name) = fs::read_link(path)
        && (path.starts_with("/proc") || path.starts_with(procfs::dir()))
    {
        return Some(name.to_string_lossy().into_owned());
    }
    let path = fs::canonicalize(path).ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    // The last mount covers the earlier ones.
    let mount = mounts.lines().rfind(|line| {
        let point = line.split(' ').nth(4);
        point.is_some_and(|point| Path::new(point) == path)
    })?;
    mount.split(' ').nth(3).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_thread_can_have_are_refused_with_the_one_it_can() {
        assert_eq!(&comm("curl").unwrap(), b"curl\0\0\0\0\0\0\0\0\0\0\0\0");
        let why = comm("a-name-that-is-too-long").unwrap_err().to_string();
        assert!(why.contains("\"a-name-that-is-\""), "{why}");
        assert!(comm("").is_err());
    }

    #[tokio::test]
    async fn a_process_is_watched_and_what_is_none_is_not() {
        assert!(watch(std::process::id()).is_ok());
        assert!(!gone(7, true).contains("--proc"));
        assert!(gone(7, false).contains("--proc"));
        let why = watch(u32::MAX / 4).unwrap_err().to_string();
        assert!(why.contains("it has ended or never existed"), "{why}");
    }

    #[test]
    fn a_namespace_is_found_by_path_and_number_and_nothing_else_is_one() {
        let ours = netns("/proc/self/ns/net").unwrap();
        assert_eq!(netns(&ours.to_string()).unwrap(), ours);
        assert!(netns("/etc/passwd").is_err());
        assert!(netns("/proc/self/ns/pid").is_err());
        assert!(netns("no-such-namespace").is_err());
    }
}
