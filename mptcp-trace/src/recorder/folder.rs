//! The folder of a recording: its lock, and the names of the files in it.

use std::{
    cell::Cell,
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail, ensure};
use rustix::{
    fs::{FlockOperation, OFlags, flock},
    process::geteuid,
};

/// The folder without `--keep-dir`, unless systemd names another one.
pub const FOLDER: &str = "/var/lib/mptcp-trace";

const LOCK: &str = "lock";
const DUMP: &str = "dump-";
const SEGMENT: &str = "segment-";
const RUN: &str = "-run-";
const ENDING: &str = ".mpt";
/// A file with this ending is not complete.
const PARTIAL: &str = ".part";

/// How often the lock is tried: a reader holds it for a moment to see whether somebody records.
const LOCK_TRIES: u32 = 5;
/// Pause between two of these tries.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A segment in a folder. Segments with a common `run` were written by one process.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Segment {
    /// Increases with time, also from one run to the next.
    pub(super) number: u64,
    /// The number of the first segment of its run.
    pub(super) run: u64,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// Not, for example, a FIFO that somebody else made.
    pub(super) is_file: bool,
    /// The last time that something was written to it.
    pub(super) written_at: SystemTime,
}

/// The folder that this process records in: no other process does.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    lock: File,
    /// The path is a symbolic link: systemd makes such ones.
    is_link: bool,
    /// What this process has created, and removes again if it never records.
    made: Made,
    is_used: Cell<bool>,
}

/// What was missing before.
#[derive(Clone, Copy, Debug)]
struct Made {
    folder: bool,
    lock: bool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A start that failed leaves nothing behind.
        if self.made.lock && !self.is_used.get() && self.is_locked() {
            let _stays = fs::remove_file(self.path.join(LOCK));
            if self.made.folder {
                let _stays = fs::remove_dir(&self.path);
            }
        }
    }
}

impl Folder {
    /// Creates the folder if it is missing, and locks it.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be written, if other users could change it, or if another process records
    /// there.
    pub fn lock(path: &Path) -> anyhow::Result<Self> {
        let what = || format!("cannot record in {}", path.display());
        let is_missing = |path: &Path| fs::symlink_metadata(path).is_err();
        let made = Made {
            folder: is_missing(path),
            lock: is_missing(&path.join(LOCK)),
        };
        create(path).with_context(what)?;
        let lock = locked(path).with_context(what)?;
        remove_partial(path);
        Ok(Self {
            path: path.to_owned(),
            lock,
            is_link: is_link(path),
            made,
            is_used: Cell::new(false),
        })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if the lock in the folder is ours.
    fn is_locked(&self) -> bool {
        let Ok(ours) = self.lock.metadata() else {
            return false;
        };
        fs::symlink_metadata(self.path.join(LOCK))
            .is_ok_and(|it| (it.dev(), it.ino()) == (ours.dev(), ours.ino()))
    }

    /// Checks it as at the start; creates and locks it again if it was removed.
    pub(super) fn restore(&mut self) -> anyhow::Result<()> {
        ensure!(
            self.is_link || !is_link(&self.path),
            "it was replaced by a symbolic link"
        );
        create(&self.path)?;
        if !self.is_locked() {
            self.lock = locked(&self.path)?;
        }
        Ok(())
    }

    /// The number of the next segment.
    pub(super) fn next_number(&self) -> io::Result<u64> {
        let last = segments(&self.path)?.last().map_or(0, |it| it.number);
        Ok(last + 1)
    }

    /// Creates a segment.
    pub(super) fn create_segment(&self, number: u64, run: u64) -> io::Result<(PathBuf, File)> {
        let name = format!("{SEGMENT}{number:08}{RUN}{run:08}{ENDING}");
        let path = self.path.join(name);
        let file = created(&path)?;
        self.is_used.set(true);
        Ok((path, file))
    }

    /// Removes the oldest segments until the others have at most that many bytes.
    pub(super) fn make_room(&self, bytes_max: u64) -> io::Result<()> {
        let mut all = segments(&self.path)?;
        all.retain(|it| it.is_file);
        let mut bytes: u64 = all.iter().map(|it| it.bytes).sum();
        all.reverse();
        while bytes > bytes_max
            && let Some(oldest) = all.pop()
        {
            remove(&oldest.path)?;
            bytes -= oldest.bytes;
        }
        Ok(())
    }
}

/// The segments of a folder, oldest first.
pub(super) fn segments(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Some((number, run)) = numbers(&entry.file_name()) else {
            continue;
        };
        // It may have been removed since.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        found.push(Segment {
            number,
            run,
            path: entry.path(),
            bytes: metadata.len(),
            is_file: metadata.is_file(),
            written_at: metadata.modified()?,
        });
    }
    found.sort();
    Ok(found)
}

fn numbers(name: &OsStr) -> Option<(u64, u64)> {
    let name = name.to_str()?.strip_prefix(SEGMENT)?;
    let (number, run) = name.strip_suffix(ENDING)?.split_once(RUN)?;
    Some((number.parse().ok()?, run.parse().ok()?))
}

/// Bytes of all files of a recording.
pub(super) fn bytes(folder: &Path) -> io::Result<u64> {
    let segments = segments(folder)?.iter().map(|it| it.bytes).sum::<u64>();
    Ok(segments + dumps(folder)?.iter().map(|it| it.2).sum::<u64>())
}

/// The dumps in a folder, oldest first: time, path and bytes.
pub(super) fn dumps(folder: &Path) -> io::Result<Vec<(SystemTime, PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_dump = |it: &str| it.starts_with(DUMP) && it.ends_with(ENDING);
        if name.to_str().is_some_and(is_dump)
            && let Ok(metadata) = entry.metadata()
        {
            found.push((metadata.modified()?, entry.path(), metadata.len()));
        }
    }
    found.sort();
    Ok(found)
}

/// Removes the oldest dumps until at most `count` with at most `bytes_max` bytes remain.
pub(super) fn keep_dumps(folder: &Path, count: usize, bytes_max: u64) -> io::Result<()> {
    let all = dumps(folder)?;
    let mut bytes: u64 = all.iter().map(|it| it.2).sum();
    for (left, (_, path, its_bytes)) in (1..=all.len()).rev().zip(all) {
        if left > count || bytes > bytes_max {
            remove(&path)?;
            bytes -= its_bytes;
        }
    }
    Ok(())
}

/// A file for a dump that is being written, and the name that it gets when it is complete.
pub(super) fn create_dump(folder: &Path, stamp: &str) -> io::Result<(PathBuf, File, PathBuf)> {
    for again in 0..100_u32 {
        let number = match again {
            0 => String::new(),
            more => format!("-{more}"),
        };
        let path = folder.join(format!("{DUMP}{stamp}{number}{ENDING}"));
        if path.exists() {
            continue;
        }
        let partial = path.with_extension(&PARTIAL[1..]);
        match created(&partial) {
            Ok(file) => return Ok((partial, file, path)),
            Err(why) if why.kind() == ErrorKind::AlreadyExists => {}
            Err(why) => return Err(why),
        }
    }
    Err(io::Error::other("there are a hundred dumps of this second"))
}

/// Whether a process records there now; `None` if that cannot be found out.
pub(super) fn is_recorded(folder: &Path) -> Option<bool> {
    let lock = open_file(&folder.join(LOCK)).ok()?;
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Some(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Some(true),
        Err(_unknown) => None,
    }
}

/// Opens a file to read it; never waits for a writer, and follows no link.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// True if a file is part of the recording in that folder, whether or not it exists.
#[must_use]
pub fn is_part(folder: &Path, file: &Path) -> bool {
    let within = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _here => Path::new("."),
    };
    let is_there = match (fs::canonicalize(within), fs::canonicalize(folder)) {
        (Ok(within), Ok(folder)) => within == folder,
        _unknown => false,
    };
    let name = file.file_name();
    is_there && name.is_some_and(|name| name == LOCK || numbers(name).is_some())
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|it| it.is_symlink())
}

fn created(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(why) if why.kind() != ErrorKind::NotFound => Err(why),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A process that was killed leaves them.
fn remove_partial(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_partial = |it: &str| it.starts_with(DUMP) && it.ends_with(PARTIAL);
        if name.to_str().is_some_and(is_partial) {
            let _stays = remove(&entry.path());
        }
    }
}

/// Creates the folder (mode 0700); checks one that exists.
fn create(path: &Path) -> anyhow::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(why) if why.kind() == ErrorKind::AlreadyExists => {}
        created => created?,
    }
    check(path)
}

/// A folder that exists must be ours alone to write.
pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    let there = fs::metadata(path)?;
    ensure!(there.is_dir(), "it is not a directory");
    let us = geteuid().as_raw();
    ensure!(
        there.uid() == us,
        "it belongs to user {}, and this is user {us}",
        there.uid()
    );
    ensure!(
        there.mode() & 0o022 == 0,
        "other users may write there (mode {:o}): use a directory of its own, or chmod 700 it",
        there.mode() & 0o7777
    );
    Ok(())
}

fn locked(folder: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    options.mode(0o600).custom_flags(nofollow);
    let mut lock = options.open(folder.join(LOCK))?;
    for left in (0..LOCK_TRIES).rev() {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) if left > 0 => sleep(LOCK_PAUSE),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                let _unknown = lock.read_to_string(&mut pid);
                let pid = match pid.trim() {
                    "" => String::new(),
                    pid => format!(" (process {pid})"),
                };
                bail!("another mptcp-trace{pid} records there: choose another --keep-dir");
            }
            Err(why) => return Err(why.into()),
        }
    }
    lock.set_len(0)?;
    // Only for the message above: a full disk is noticed by what is recorded.
    let _unwritten = writeln!(lock, "{}", std::process::id());
    Ok(lock)
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
