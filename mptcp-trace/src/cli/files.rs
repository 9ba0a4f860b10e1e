//! Files written by the program: readable by their owner only, and never reached through links of
//! other users.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use rustix::{process::geteuid, thread::CapabilitySet};

use crate::host::privileges;

use super::{Exit, USAGE, stdout};

/// Most symbolic links that are followed, as in the kernel.
const LINKS_MAX: usize = 40;

/// What happens to existing content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum How {
    /// Output is appended.
    Append,
    /// Kept until [`empty`] is called.
    Anew,
}

/// Opens a file for writing; creates it (mode 0600) if it is missing.
///
/// # Errors
///
/// Reports why the file cannot be written, or who owns the link to it.
pub(super) fn open(path: &Path, how: How) -> anyhow::Result<File> {
    let what = || format!("cannot write to {}", path.display());
    open_end(&end_of_links(path).with_context(what)?, how).with_context(what)
}

/// Creates a file (mode 0600) that does not exist yet. In the working directory, this works also if
/// another user owns it and this process kept the capability for that.
///
/// # Errors
///
/// Reports why it cannot be created; a file that exists is left alone.
pub(super) fn create(path: &Path) -> anyhow::Result<File> {
    let create = || {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open(path)
    };
    let mut created = create();
    // A name without a directory.
    let is_here = path.components().count() == 1 && path.file_name().is_some();
    let is_refused = |it: &io::Result<File>| {
        it.as_ref()
            .is_err_and(|why| why.kind() == ErrorKind::PermissionDenied)
    };
    if is_here && is_refused(&created) {
        created = privileges::raised(CapabilitySet::DAC_OVERRIDE, create);
    }
    match created {
        Ok(file) => Ok(file),
        Err(why) if why.kind() == ErrorKind::AlreadyExists => {
            bail!("the file exists, and is not overwritten: choose another name")
        }
        Err(why) => Err(why.into()),
    }
}

fn open_end(end: &End, how: How) -> anyhow::Result<File> {
    let (path, follow) = match end {
        End::Path(path) => (path, 0),
        End::OfProcess(path) => (path, libc::O_NOFOLLOW),
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .append(how == How::Append)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW ^ follow)
        .open(path)?;
    let there = file.metadata()?;
    let is_ours = there.uid() == geteuid().as_raw();
    ensure!(
        !there.is_file() || there.nlink() <= 1 || is_ours,
        "it has hard links and belongs to user {}: use another file",
        there.uid()
    );
    Ok(file)
}

/// Target of a path.
pub(super) enum End {
    /// Not a link.
    Path(PathBuf),
    /// A descriptor of a process (`/dev/stdout`, `/proc/self/fd/3`), a link that no user can forge.
    OfProcess(PathBuf),
}

/// Resolves the path of a file that will be replaced.
///
/// # Errors
///
/// Reports who owns the link to it.
pub(super) fn place(path: &Path) -> anyhow::Result<PathBuf> {
    let what = || format!("cannot write to {}", path.display());
    Ok(match end_of_links(path).with_context(what)? {
        End::Path(path) | End::OfProcess(path) => path,
    })
}

/// Follows links that belong to this user or to root.
///
/// # Errors
///
/// Reports who owns another link.
pub(super) fn end_of_links(path: &Path) -> anyhow::Result<End> {
    let mut path = path.to_owned();
    for _link in 0..LINKS_MAX {
        let there = match fs::symlink_metadata(&path) {
            Ok(there) => there,
            Err(why) if why.kind() == ErrorKind::NotFound => return Ok(End::Path(path)),
            Err(why) => return Err(why.into()),
        };
        if !there.is_symlink() {
            return Ok(End::Path(path));
        }
        // `/dev/fd` is a link to a directory there.
        let folder = folder(&path).canonicalize()?;
        if path.starts_with("/proc") {
            return of_process(path);
        }
        if let (true, Some(name)) = (folder.starts_with("/proc"), path.file_name()) {
            return of_process(folder.join(name));
        }
        let maker = there.uid();
        if maker != geteuid().as_raw() && maker != 0 {
            bail!(
                "{} is a symbolic link created by user {maker}: name the file itself",
                path.display()
            );
        }
        let target = fs::read_link(&path)?;
        path = match path.parent() {
            Some(parent) => parent.join(target),
            None => target,
        };
    }
    bail!("more than {LINKS_MAX} symbolic links");
}

/// A descriptor of a process, but not our stdout if that is closed.
fn of_process(path: PathBuf) -> anyhow::Result<End> {
    if leads_to_stdout(&path) {
        stdout::check()?;
    }
    Ok(End::OfProcess(path))
}

/// True for the stdout of this process, whose offset others may share.
pub(super) fn leads_to_stdout(descriptor: &Path) -> bool {
    let own = ["/proc/self/fd/1", "/proc/thread-self/fd/1"];
    own.iter().any(|it| descriptor == Path::new(it))
        || descriptor == Path::new(&format!("/proc/{}/fd/1", std::process::id()))
}

/// Truncates a regular file and restricts it to its owner; leaves pipes and devices alone.
///
/// # Errors
///
/// Fails if the file cannot be changed.
pub(super) fn empty(file: &File) -> anyhow::Result<()> {
    let there = file.metadata()?;
    if there.is_file() {
        file.set_len(0)?;
        if there.uid() == geteuid().as_raw() {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

/// Directory of a file.
pub(super) fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Refuses to overwrite an input, e.g. when the arguments are swapped.
///
/// # Errors
///
/// Names the file; `what` says what it is.
pub(super) fn refuse_to_overwrite(input: &Path, what: &str, output: &Path) -> Result<(), Exit> {
    let (Ok(one), Ok(other)) = (fs::metadata(input), fs::metadata(output)) else {
        return Ok(());
    };
    if (one.dev(), one.ino()) != (other.dev(), other.ino()) {
        return Ok(());
    }
    let why = format!(
        "{} is the {what} itself: choose another --output",
        output.display()
    );
    Err(Exit::Because(USAGE, why))
}

/// True if both are the same regular file, by any name.
///
/// # Errors
///
/// Fails if the metadata of one cannot be read.
pub(super) fn are_same(one: &File, other: &File) -> anyhow::Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok(one.is_file() && (one.dev(), one.ino()) == (other.dev(), other.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    #[test]
    fn a_new_file_is_for_its_owner_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let file = create(&at("new")).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        symlink("nowhere", at("link")).unwrap();
        for name in ["new", "link"] {
            let why = format!("{:#}", create(&at(name)).unwrap_err());
            assert!(why.contains("the file exists"), "{why}");
        }
        assert!(!at("nowhere").exists());
        let why = format!("{:#}", create(&at("missing/new")).unwrap_err());
        assert!(why.contains("No such file"), "{why}");
    }

    #[test]
    fn files_are_for_their_owner_and_links_of_others_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let file = open(&at("new"), How::Append).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        symlink("new", at("ours")).unwrap();
        assert!(are_same(&file, &open(&at("ours"), How::Anew).unwrap()).unwrap());
        fs::hard_link(at("new"), at("twin")).unwrap();
        assert!(are_same(&file, &open(&at("twin"), How::Anew).unwrap()).unwrap());
        assert!(open(Path::new("/dev/null"), How::Append).is_ok());
        symlink("loop", at("loop")).unwrap();
        assert!(open(&at("loop"), How::Anew).is_err());
        if !geteuid().is_root() {
            println!("skipped: the rest of files_are_for_their_owner needs root");
            return;
        }
        symlink("new", at("theirs")).unwrap();
        std::os::unix::fs::lchown(at("theirs"), Some(65_534), None).unwrap();
        let why = format!("{:#}", open(&at("theirs"), How::Anew).unwrap_err());
        assert!(why.contains("symbolic link created by user 65534"), "{why}");
        chown(at("new"), Some(65_534), None).unwrap();
        let why = format!("{:#}", open(&at("twin"), How::Append).unwrap_err());
        assert!(why.contains("hard links"), "{why}");
    }
}
