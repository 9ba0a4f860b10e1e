//! The procfs that shows the traced processes. `--proc DIR` names the host's one in a container
//! with a PID namespace of its own, whose `/proc` shows only the processes of the container.
//!
//! What this process reads about itself, about the kernel and about its own network namespace comes
//! from `/proc`, wherever the other one is mounted.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{PROC_SUPER_MAGIC, statfs};

use super::PidNamespace;

/// Inode number of the initial PID namespace, which is part of the ABI (`PROC_PID_INIT_INO`).
const INITIAL_INUM: u32 = 0xeffffffc;

const OURS: &str = "/proc";

/// Another procfs than `/proc`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Named {
    dir: PathBuf,
    /// Our process id in it.
    own_pid: u32,
    /// Number of PID namespaces that we are in below its own.
    levels: u32,
    /// Its PID namespace, if it is not the initial one.
    namespace: Option<PidNamespace>,
}

/// The choice of the command line: a mount point is a property of the whole process.
static NAMED: OnceLock<Named> = OnceLock::new();

/// Looks up processes in `dir` from now on.
///
/// # Errors
///
/// Reports why `dir` does not show the processes of the host.
pub fn choose(dir: &Path) -> anyhow::Result<()> {
    let named = inspect(dir).with_context(|| {
        format!(
            "--proc {} is unusable (mount the host's /proc there, read-only)",
            dir.display()
        )
    })?;
    // A second choice would be one of the same command line.
    let _first = NAMED.set(named);
    Ok(())
}

fn inspect(dir: &Path) -> anyhow::Result<Named> {
    let found = statfs(dir).map_err(std::io::Error::from);
    let found = found.context("it cannot be inspected")?;
    ensure!(found.f_type == PROC_SUPER_MAGIC, "it is no procfs");
    let own_pid = match fs::read_link(dir.join("self")) {
        Ok(own) => own.to_str().and_then(|own| own.parse().ok()),
        Err(why) if why.kind() == ErrorKind::NotFound => None,
        Err(why) => return Err(why).context("its link `self` cannot be read"),
    };
    // A procfs shows the processes of its PID namespace and of the nested ones.
    let own_pid = own_pid.context(
        "it is not the root of a procfs, or shows a PID namespace that this process is not in (that of \
         another container?)",
    )?;
    let status = fs::read_to_string(dir.join("self/status"))
        .context("its file self/status cannot be read")?;
    let levels = levels_below(&status);
    let initial = match fs::metadata(dir.join("1/ns/pid")) {
        Ok(namespace) => namespace.ino() == u64::from(INITIAL_INUM),
        // It takes CAP_SYS_PTRACE; the threads of the kernel are in the initial one only.
        Err(_) => has_kernel_threads(dir),
    };
    if initial {
        return Ok(Named {
            dir: dir.to_owned(),
            own_pid,
            levels,
            namespace: None,
        });
    }
    if levels == 0 {
        bail!(
            "it shows only the processes of this container (PID namespace), like /proc: that is not \
             the host's"
        );
    }
    // The host is a container itself, as a node of `kind` is.
    let namespace = fs::metadata(dir.join("1/ns/pid")).context(
        "its PID namespace is not the initial one, and determining which one it is takes \
         CAP_SYS_PTRACE",
    )?;
    let inum = u32::try_from(namespace.ino()).context("its PID namespace has no usable number")?;
    Ok(Named {
        dir: dir.to_owned(),
        own_pid,
        levels,
        namespace: Some(PidNamespace {
            inum,
            levels_above: levels,
        }),
    })
}

/// Number of PID namespaces that the process is in below that of the procfs, from its `status`:
/// `NSpid` lists its process id in each, the outermost first.
fn levels_below(status: &str) -> u32 {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let count = line.map_or(1, |ids| ids.split_whitespace().count());
    u32::try_from(count).unwrap_or(u32::MAX).saturating_sub(1)
}

/// True if process 2 is a thread of the kernel (`kthreadd`).
fn has_kernel_threads(dir: &Path) -> bool {
    const PF_KTHREAD: u64 = 0x0020_0000;
    let flags = |stat: &str| {
        let (_name, fields) = stat.rsplit_once(") ")?;
        fields.split(' ').nth(6)?.parse::<u64>().ok()
    };
    let stat = fs::read_to_string(dir.join("2/stat")).unwrap_or_default();
    flags(&stat).is_some_and(|flags| flags & PF_KTHREAD != 0)
}

/// The directory in which processes are looked up.
#[must_use]
pub fn dir() -> &'static Path {
    NAMED
        .get()
        .map_or(Path::new(OURS), |named| named.dir.as_path())
}

/// The directory of a process.
#[must_use]
pub fn of(pid: u32) -> PathBuf {
    dir().join(pid.to_string())
}

/// True if process ids are those of an outer PID namespace (`--proc`): system calls of this process
/// do not take them.
#[must_use]
pub fn is_outer() -> bool {
    NAMED.get().is_some_and(|it| it.levels > 0)
}

/// The process id that [`dir`] has for a child of ours.
///
/// # Errors
///
/// Reports that it cannot be found.
pub fn number_of_child(pid: u32) -> anyhow::Result<u32> {
    if !is_outer() {
        return Ok(pid);
    }
    let (dir, parent) = (dir(), own_pid().to_string());
    let is_it = |status: &str| {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        field("PPid:").is_some_and(|it| it.trim() == parent)
            && field("NSpid:")
                .and_then(|ids| ids.split_whitespace().last())
                .is_some_and(|innermost| innermost == pid.to_string())
    };
    let processes = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .find(|number: &u32| {
            fs::read_to_string(of(*number).join("status")).is_ok_and(|it| is_it(&it))
        })
        .with_context(|| format!("{} does not show our child {pid}", dir.display()))
}

/// Our own process id as [`dir`] has it.
#[must_use]
pub fn own_pid() -> u32 {
    NAMED.get().map_or_else(std::process::id, |it| it.own_pid)
}

/// True if [`dir`] numbers processes as records do.
#[must_use]
pub fn has_our_numbers() -> bool {
    if NAMED.get().is_some() {
        return true;
    }
    let us = fs::read_link("/proc/self");
    us.is_ok_and(|us| us.as_os_str() == std::process::id().to_string().as_str())
}

/// The PID namespace whose process ids are used, if it is not the initial one.
#[must_use]
pub fn pid_namespace() -> Option<PidNamespace> {
    match NAMED.get() {
        Some(named) => named.namespace,
        None => own_pid_namespace(),
    }
}

/// Our PID namespace, if it is not the initial one.
#[must_use]
pub fn own_pid_namespace() -> Option<PidNamespace> {
    let ours = fs::metadata("/proc/self/ns/pid").ok()?;
    // The kernel's inode numbers for namespaces have 32 bits (`struct ns_common`).
    let inum = u32::try_from(ours.ino()).ok()?;
    (inum != INITIAL_INUM).then_some(PidNamespace {
        inum,
        levels_above: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_procfs_is_accepted() {
        for (dir, why) in [
            ("/no/such/directory", "cannot be inspected"),
            ("/", "it is no procfs"),
            ("/etc/passwd", "it is no procfs"),
            // It is of the right type, and has no processes.
            ("/proc/sys", "that this process is not in"),
        ] {
            let said = format!("{:#}", inspect(Path::new(dir)).unwrap_err());
            assert!(said.contains(why), "{dir}: {said}");
        }
    }

    #[test]
    fn nested_pid_namespaces_are_counted() {
        for (status, levels) in [
            ("Name:\tx\nNSpid:\t7\n", 0),
            ("NSpid:\t4312\t7\n", 1),
            ("NSpid:\t4312\t7\t1\n", 2),
            ("", 0),
        ] {
            assert_eq!(levels_below(status), levels, "{status:?}");
        }
    }

    #[test]
    fn without_an_option_it_is_our_own() {
        assert_eq!(dir(), Path::new("/proc"));
        assert_eq!(own_pid(), std::process::id());
        assert!(has_our_numbers() && !is_outer());
        assert!(of(own_pid()).join("stat").exists());
    }
}
