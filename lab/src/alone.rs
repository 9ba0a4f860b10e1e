//! Suites that affect the whole host: they announce it and run one at a time.

use std::{
    fs::{File, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use anyhow::Context as _;

use crate::wait::Patience;

/// Name of the lock file that such a suite holds.
const LOCK: &str = "mptcp-lab-alone.lock";
/// For the lock. After it the suite starts anyway: exclusion is a courtesy, not a need.
const LOCKED: Patience = Patience::new(Duration::from_secs(300), Duration::from_millis(100));

/// Holds the lock while it lives.
pub(crate) struct Alone {
    _lock: File,
}

impl Alone {
    /// Announces what this suite does to the rest of the host, and waits until no other such suite
    /// runs.
    pub(crate) fn claim(suite: &str, disturbs: &str) -> anyhow::Result<Self> {
        eprintln!("mptcp-lab: {suite} affects other processes on this host: {disturbs}");
        claim(&std::env::temp_dir().join(LOCK), LOCKED)
    }
}

fn claim(path: &Path, patience: Patience) -> anyhow::Result<Alone> {
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        // The directory is world-writable: do not follow a planted symbolic link.
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let mut has_said = false;
    let is_locked = || match lock.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => {
            if !std::mem::replace(&mut has_said, true) {
                eprintln!("mptcp-lab: waiting for another suite that affects the whole host");
            }
            Ok(false)
        }
        Err(TryLockError::Error(why)) => {
            Err(why).with_context(|| format!("cannot lock {}", path.display()))
        }
    };
    if !patience.holds(is_locked)? {
        eprintln!("mptcp-lab: the other suite is still running: starting anyway");
    }
    Ok(Alone { _lock: lock })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_second_waits_for_the_first_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let limit = Duration::from_millis(150);
        let patience = Patience::new(limit, Duration::from_millis(10));
        let waited = || {
            let start = Instant::now();
            let alone = claim(&path, patience).unwrap();
            (start.elapsed() >= limit, alone)
        };
        let (has_waited, first) = waited();
        assert!(!has_waited);
        assert!(waited().0);
        drop(first);
        assert!(!waited().0);
    }
}
