//! Suites that affect the whole host: they announce it and run one at a time.

use std::{
    fs::File,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};

/// Name of the lock file that such a suite holds.
const LOCK: &str = "mptcp-lab-alone.lock";
/// Timeout for the lock. After it the suite starts anyway: exclusion is a courtesy, not a need.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// Pause between two attempts.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// Holds the lock while it lives.
pub(crate) struct Alone {
    _lock: File,
}

impl Alone {
    /// Announces what this suite does to the rest of the host, and waits until no other such suite
    /// runs.
    pub(crate) fn claim(suite: &str, disturbs: &str) -> anyhow::Result<Self> {
        eprintln!("mptcp-lab: {suite} affects other processes on this host: {disturbs}");
        claim(&std::env::temp_dir().join(LOCK), WAIT_MAX)
    }
}

fn claim(path: &Path, wait_max: Duration) -> anyhow::Result<Alone> {
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        // The directory is world-writable: do not follow a planted symbolic link.
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let start = Instant::now();
    let mut has_said = false;
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < wait_max => {
                if !has_said {
                    eprintln!("mptcp-lab: waiting for another suite that affects the whole host");
                    has_said = true;
                }
                sleep(TRY_EVERY);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                eprintln!("mptcp-lab: the other suite is still running: starting anyway");
                break;
            }
            Err(why) => {
                return Err(why).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
    Ok(Alone { _lock: lock })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_waits_for_the_first_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let patience = Duration::from_millis(150);
        let waited = || {
            let start = Instant::now();
            let alone = claim(&path, patience).unwrap();
            (start.elapsed() >= patience, alone)
        };
        let (has_waited, first) = waited();
        assert!(!has_waited);
        assert!(waited().0);
        drop(first);
        assert!(!waited().0);
    }
}
