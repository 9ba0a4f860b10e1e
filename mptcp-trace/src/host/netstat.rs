//! The kernel's own MPTCP counters, per namespace (`/proc/PID/net/netstat`).

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
    time::Duration,
};

use rustix::{
    thread::{LinkNameSpaceType, move_into_link_name_space},
    time::{ClockId, clock_gettime},
};

use super::procfs;

/// `MPTcpExt` counters by name.
pub type Counters = BTreeMap<String, u64>;

/// The counters of a network namespace at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Begin and end of the reading, on `CLOCK_BOOTTIME`.
    pub at: (Duration, Duration),
    /// Their values.
    pub counters: Counters,
}

/// The current time on the host's `CLOCK_BOOTTIME`: the BPF side timestamps records with it,
/// whatever time namespace this process is in.
#[must_use]
pub fn boottime() -> Duration {
    static OFFSET_NS: OnceLock<i128> = OnceLock::new();
    let offset = *OFFSET_NS.get_or_init(|| {
        // A missing file means a kernel without time namespaces.
        let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        boottime_offset(&offsets)
    });
    let now = clock_gettime(ClockId::Boottime);
    let ours = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    Duration::from_nanos(u64::try_from(ours - offset).unwrap_or_default())
}

/// Offset of `CLOCK_BOOTTIME` in our time namespace relative to the host's, nanoseconds (man 7
/// `time_namespaces`): a line `boottime SECONDS NANOSECONDS`.
fn boottime_offset(offsets: &str) -> i128 {
    let of = |line: &str| {
        let mut words = line.split_whitespace();
        // Kernels before 5.7 print clock numbers instead of names.
        if !matches!(words.next()?, "boottime" | "7") {
            return None;
        }
        let seconds: i128 = words.next()?.parse().ok()?;
        let nanoseconds: i128 = words.next()?.parse().ok()?;
        Some(seconds * 1_000_000_000 + nanoseconds)
    };
    offsets.lines().find_map(of).unwrap_or(0)
}

/// Directory of named namespaces (`ip netns`).
const NAMES: &str = "/run/netns";
/// At most this many named namespaces have their counters held open: each takes a descriptor.
const NAMED_MAX: usize = 256;

/// The namespaces whose counters can be read: those of all processes, and the named ones, which are
/// entered only once. A namespace held open this way lives on until its name is seen to be removed.
#[derive(Debug, Default)]
pub struct Reach {
    named: BTreeMap<u32, Named>,
}

/// The counters of a named namespace.
#[derive(Debug)]
struct Named {
    path: PathBuf,
    netstat: File,
}

impl Reach {
    /// Enters every named namespace, except those that this process may not enter and those beyond
    /// the limit.
    #[must_use]
    pub fn new() -> Self {
        let mut named = BTreeMap::new();
        for name in fs::read_dir(NAMES).into_iter().flatten().flatten() {
            let path = name.path();
            if named.len() >= NAMED_MAX {
                log::warn!(
                    "more than {NAMED_MAX} named network namespaces: the counters of the others \
                     are not read where no process is, and are reported as unread"
                );
                break;
            }
            if let Some(netns) = inode(&path)
                && let Some(netstat) = inside(&path)
            {
                named.insert(netns, Named { path, netstat });
            }
        }
        Self { named }
    }

    /// Reads the counters of every network namespace that has a process or a name, by inode number.
    /// Unreadable ones are left out.
    pub fn all(&mut self) -> BTreeMap<u32, Snapshot> {
        let mut found = BTreeMap::new();
        for process in processes() {
            let Some(netns) = inode(Path::new(&format!("{process}/ns/net"))) else {
                continue;
            };
            if !found.contains_key(&netns)
                && let Some(snapshot) = read(&format!("{process}/net/netstat"))
            {
                found.insert(netns, snapshot);
            }
        }
        self.named
            .retain(|netns, it| inode(&it.path) == Some(*netns));
        for (netns, it) in &mut self.named {
            if !found.contains_key(netns)
                && let Some(snapshot) = read_again(&mut it.netstat)
            {
                found.insert(*netns, snapshot);
            }
        }
        found
    }
}

/// Our own first: its namespace certainly exists.
fn processes() -> impl Iterator<Item = String> {
    let dir = procfs::dir();
    let others = fs::read_dir(dir).into_iter().flatten().flatten();
    let others = others.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| format!("{}/{name}", dir.display()))
    });
    std::iter::once("/proc/self".to_owned()).chain(others)
}

fn inode(path: &Path) -> Option<u32> {
    let namespace = fs::metadata(path).ok()?;
    u32::try_from(namespace.ino()).ok()
}

fn read(path: &str) -> Option<Snapshot> {
    let began = boottime();
    let text = fs::read_to_string(path).ok()?;
    Some(Snapshot {
        at: (began, boottime()),
        counters: parse(&text),
    })
}

fn read_again(netstat: &mut File) -> Option<Snapshot> {
    let began = boottime();
    let mut text = String::new();
    netstat.seek(SeekFrom::Start(0)).ok()?;
    netstat.read_to_string(&mut text).ok()?;
    Some(Snapshot {
        at: (began, boottime()),
        counters: parse(&text),
    })
}

/// Enters a namespace on a short-lived thread, and opens its counters.
fn inside(path: &Path) -> Option<File> {
    let namespace = File::open(path).ok()?;
    thread::scope(|scope| {
        let opening = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).ok()?;
            File::open("/proc/thread-self/net/netstat").ok()
        });
        opening.join().ok().flatten()
    })
}

/// Lines come in pairs, `MPTcpExt: NAME ...` and `MPTcpExt: VALUE ...`.
#[must_use]
pub fn parse(netstat: &str) -> Counters {
    let mut lines = netstat
        .lines()
        .filter_map(|line| line.strip_prefix("MPTcpExt: "));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return Counters::new();
    };
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_of_lines_is_names_and_values() {
        let text = "TcpExt: A B\nTcpExt: 1 2\nMPTcpExt: A DssFallback\nMPTcpExt: 5 7\n";
        let expected = [("A".to_owned(), 5), ("DssFallback".to_owned(), 7)];
        assert_eq!(parse(text), Counters::from(expected));
        assert_eq!(parse("MPTcpExt: A\n"), Counters::new());
        assert_eq!(parse(""), Counters::new());
    }

    #[test]
    fn a_time_namespace_is_taken_out_of_the_clock() {
        for (offsets, ns) in [
            ("", 0),
            (
                "monotonic           0         0\nboottime           0         0\n",
                0,
            ),
            (
                "monotonic      100000         0\nboottime      100000         5\n",
                100_000_000_000_005,
            ),
            (
                "monotonic       -1000         0\nboottime       -1000         0\n",
                -1_000_000_000_000,
            ),
            ("1 3 0\n7 4 1\n", 4_000_000_001),
            ("boottime x", 0),
        ] {
            assert_eq!(boottime_offset(offsets), ns, "{offsets:?}");
        }
    }

    #[test]
    fn our_own_namespace_is_among_them() {
        let ours = inode(Path::new("/proc/self/ns/net")).unwrap();
        assert!(Reach::new().all().contains_key(&ours));
    }
}
