//! Events of paths -> the paths of a connection: when each came up, was stale, failed or ended, and
//! what it carried at its last event. For `top` and `report`. Pure, and bounded.

use std::{net::SocketAddr, time::Duration};

use crate::model::{
    CauseCertainty, DecidedBy, Ledger, Path, PathId, PathKind, PathRole, ResetReason, Side,
    displayed,
};

/// Most paths that are remembered of one connection. When full, the oldest one that ended is
/// dropped, else the new one.
pub const PATHS_MAX: usize = 16;
/// Most spans in which a path was stale: the first ones, and the last.
const STALE_MAX: usize = 8;

/// Readings of a path that are closer are one: a rate between them would mean nothing.
const READINGS_APART_MIN: Duration = Duration::from_millis(100);

/// How a path failed or ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathEnd {
    /// When, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// It never came up.
    pub is_failed: bool,
    /// It ended otherwise than by being closed.
    pub is_failure: bool,
    /// Name of the cause, if known.
    pub cause: Option<String>,
    /// How the cause is known.
    pub known: CauseCertainty,
    /// Where that was decided, if known.
    pub decided_by: Option<DecidedBy>,
    /// The reason in the RST, if there was one.
    pub reset: Option<ResetReason>,
}

/// A path, as the events about it describe it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownPath {
    /// Identity; `None` if it never had a socket.
    pub id: Option<PathId>,
    /// Local address and port.
    pub local: SocketAddr,
    /// Remote address and port.
    pub remote: SocketAddr,
    /// How it belongs to the connection.
    pub role: PathRole,
    /// Which end sent the SYN, if known.
    pub side: Option<Side>,
    /// Address ids, own and the peer's, if known.
    pub ids: (Option<u8>, Option<u8>),
    /// It is a backup, for this end or for the peer.
    pub is_backup: bool,
    /// When it began, on `CLOCK_BOOTTIME`, or when it was first mentioned.
    pub from: Duration,
    /// When it came up, on `CLOCK_BOOTTIME`, if that was observed.
    pub up_at: Option<Duration>,
    /// It was open before tracing began.
    pub existing: bool,
    /// Spans in which the scheduler avoided it; the last one has no end if it still does.
    pub stale: Vec<(Duration, Option<Duration>)>,
    /// How it failed or ended.
    pub end: Option<PathEnd>,
    /// What it had carried at its last event, or when it was read after that.
    pub ledger: Option<Ledger>,
    /// When that was read, on `CLOCK_BOOTTIME`; `None` if it is of the last event.
    pub read_at: Option<Duration>,
    /// Payload sent and received between the last two readings, bytes per second.
    pub rate: Option<(u64, u64)>,
    /// Its last event, on `CLOCK_BOOTTIME`.
    pub last_at: Duration,
}

impl KnownPath {
    fn new(path: &Path) -> Self {
        let mut known = Self {
            id: path.path,
            local: displayed(path.socket.local),
            remote: displayed(path.socket.remote),
            role: path.role,
            side: None,
            ids: (None, None),
            is_backup: false,
            // When one began that was open before is of no use beside what was observed.
            from: match path.existing {
                true => path.at,
                false => path
                    .began_at
                    .or(path.up_at)
                    .map_or(path.at, |it| it.min(path.at)),
            },
            up_at: None,
            existing: path.existing || path.kind == PathKind::Open,
            stale: Vec::new(),
            end: None,
            ledger: None,
            read_at: None,
            rate: None,
            last_at: path.at,
        };
        known.update(path);
        known
    }

    fn update(&mut self, path: &Path) {
        self.last_at = self.last_at.max(path.at);
        if self.remote.ip().is_unspecified() {
            self.local = displayed(path.socket.local);
            self.remote = displayed(path.socket.remote);
        }
        self.side = path.side.or(self.side);
        self.ids = (path.local_id.or(self.ids.0), path.remote_id.or(self.ids.1));
        self.is_backup = path.backup_here || path.backup_peer;
        self.up_at = path.up_at.or(self.up_at);
        if path.ledger.is_some() {
            (self.ledger, self.read_at, self.rate) = (path.ledger, None, None);
        }
        match path.kind {
            PathKind::Up => self.up_at = self.up_at.or(Some(path.at)),
            PathKind::Stale => self.becomes_stale(path.at),
            PathKind::Recovered => self.recovers(path.at),
            PathKind::Failed | PathKind::ConnectFailed | PathKind::Down => {
                self.recovers(path.at);
                self.end = Some(PathEnd {
                    at: path.at,
                    is_failed: path.kind != PathKind::Down,
                    is_failure: path.kind != PathKind::Down || path.is_failure(),
                    cause: path.cause.as_deref().map(str::to_owned),
                    known: path.known,
                    decided_by: path.decided_by,
                    reset: path.reset,
                });
            }
            PathKind::Open
            | PathKind::Priority
            | PathKind::AddressAnnounced
            | PathKind::AddressEchoed
            | PathKind::AddressDropped
            | PathKind::AddressOverLimit
            | PathKind::AddressRemoved => {}
        }
    }

    /// Takes what it has carried so far.
    fn read(&mut self, path: &Path) {
        let Some(ledger) = path.ledger else {
            return;
        };
        if let (Some(before), Some(at)) = (&self.ledger, self.read_at) {
            let elapsed = path.at.saturating_sub(at);
            if elapsed < READINGS_APART_MIN {
                return;
            }
            let per_second = |now: u64, before: u64| {
                let bytes = u128::from(now.saturating_sub(before));
                let rate = bytes * 1_000_000_000 / elapsed.as_nanos();
                u64::try_from(rate).unwrap_or(u64::MAX)
            };
            self.rate = Some((
                per_second(ledger.bytes_sent, before.bytes_sent),
                per_second(ledger.bytes_received, before.bytes_received),
            ));
        }
        (self.ledger, self.read_at) = (Some(ledger), Some(path.at));
    }

    fn becomes_stale(&mut self, at: Duration) {
        if self.is_stale() {
            return;
        }
        if self.stale.len() >= STALE_MAX {
            self.stale.pop();
        }
        self.stale.push((at, None));
    }

    fn recovers(&mut self, at: Duration) {
        if let Some((from, to @ None)) = self.stale.last_mut() {
            *to = Some(at.max(*from));
        }
    }

    /// The scheduler avoids it.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.end.is_none() && matches!(self.stale.last(), Some((_, None)))
    }

    /// Its state, in one word.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match &self.end {
            Some(end) if end.is_failed => "failed",
            Some(_) => "down",
            None if self.is_stale() => "stale",
            None => "up",
        }
    }

    /// It failed, was stale, or ended otherwise than by being closed.
    #[must_use]
    pub fn is_troubled(&self) -> bool {
        !self.stale.is_empty() || self.end.as_ref().is_some_and(|end| end.is_failure)
    }

    /// Payload that it had carried at its last event, in both directions, bytes.
    #[must_use]
    pub fn carried(&self) -> Option<u64> {
        let ledger = self.ledger.as_ref()?;
        Some(ledger.bytes_sent.saturating_add(ledger.bytes_received))
    }

    /// How it belongs to the connection, in words.
    #[must_use]
    pub fn role_words(&self) -> &'static str {
        match (self.role, self.side) {
            (PathRole::First, _) => "first",
            (PathRole::Join, Some(Side::Passive)) => "join by the peer",
            (PathRole::Join, Some(Side::Active) | None) => "join",
        }
    }

    /// Both address ids, `?` for an unknown one.
    #[must_use]
    pub fn ids_words(&self) -> String {
        let id = |id: Option<u8>| id.map_or_else(|| "?".to_owned(), |id| id.to_string());
        match self.role {
            PathRole::First => "0/0".to_owned(),
            PathRole::Join => format!("{}/{}", id(self.ids.0), id(self.ids.1)),
        }
    }
}

/// The paths of a connection, in the order in which they were first mentioned.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Paths {
    known: Vec<KnownPath>,
    /// Paths that are not remembered.
    dropped: u64,
}

impl Paths {
    /// Takes an event of a path; one of an address concerns no path. Returns its place.
    pub fn take(&mut self, path: &Path) -> Option<usize> {
        if path.kind.is_of_address() {
            return None;
        }
        let is_it = |it: &KnownPath| it.id.is_some() && it.id == path.path;
        if let Some(at) = self.known.iter().position(is_it) {
            if let Some(known) = self.known.get_mut(at) {
                known.update(path);
            }
            return Some(at);
        }
        if self.known.len() >= PATHS_MAX {
            self.dropped += 1;
            let oldest = self.known.iter().position(|it| it.end.is_some())?;
            self.known.remove(oldest);
        }
        self.known.push(KnownPath::new(path));
        Some(self.known.len() - 1)
    }

    /// Takes what an open path has carried so far. One without an event before is left to its event,
    /// which names it better.
    pub fn read(&mut self, path: &Path) {
        let socket = path.path.map(|id| id.socket);
        let is_it = |it: &&mut KnownPath| it.end.is_none() && it.id.map(|id| id.socket) == socket;
        if let Some(known) = self.known.iter_mut().find(is_it) {
            known.read(path);
        }
    }

    /// When paths were read last, on `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn read_at(&self) -> Option<Duration> {
        self.known.iter().filter_map(|it| it.read_at).max()
    }

    /// The paths.
    pub fn iter(&self) -> std::slice::Iter<'_, KnownPath> {
        self.known.iter()
    }

    /// Number of paths that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Number of paths that are not remembered: there were too many.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// A path failed, was stale, or ended otherwise than by being closed.
    #[must_use]
    pub fn are_troubled(&self) -> bool {
        self.known.iter().any(KnownPath::is_troubled)
    }

    /// Payload of all of them at their last events, in both directions, bytes.
    #[must_use]
    pub fn carried(&self) -> u64 {
        let each = self.known.iter().filter_map(KnownPath::carried);
        each.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        SocketId,
        fixture::{a_ledger, a_path},
    };

    fn event(socket: u64, kind: PathKind, at_s: u64) -> Path {
        Path {
            at: Duration::from_secs(at_s),
            path: Some(PathId {
                socket: SocketId(socket),
                began_at: Duration::from_secs(1),
            }),
            ..a_path(kind)
        }
    }

    #[test]
    fn a_path_is_what_its_events_say() {
        let mut paths = Paths::default();
        for (event, state, spans) in [
            (event(1, PathKind::Up, 1), "up", 0),
            (event(1, PathKind::Stale, 2), "stale", 1),
            (event(1, PathKind::Stale, 3), "stale", 1),
            (event(1, PathKind::Recovered, 4), "up", 1),
            (event(1, PathKind::Stale, 5), "stale", 2),
            (event(1, PathKind::Down, 6), "down", 2),
        ] {
            assert_eq!(paths.take(&event), Some(0));
            let path = paths.iter().next().unwrap();
            assert_eq!((path.state(), path.stale.len()), (state, spans));
        }
        let path = paths.iter().next().unwrap();
        let seconds = Duration::from_secs;
        assert_eq!(
            path.stale,
            [
                (seconds(2), Some(seconds(4))),
                (seconds(5), Some(seconds(6)))
            ]
        );
        assert!(path.is_troubled() && !path.end.as_ref().unwrap().is_failure);
        assert_eq!(path.carried(), Some(9_200));
        assert_eq!(paths.take(&event(2, PathKind::AddressAnnounced, 7)), None);
        assert_eq!(paths.take(&event(2, PathKind::Failed, 7)), Some(1));
        assert_eq!(paths.iter().nth(1).unwrap().state(), "failed");
        assert_eq!(paths.carried(), 9_200);
        assert_eq!(a_ledger().bytes_sent + a_ledger().bytes_received, 9_200);
    }

    #[test]
    fn joins_without_a_socket_are_different_paths() {
        let mut paths = Paths::default();
        for number in 0..2 {
            let join = Path {
                path: None,
                ..event(1, PathKind::Failed, 1)
            };
            assert_eq!(paths.take(&join), Some(number));
        }
    }

    #[test]
    fn when_full_the_oldest_one_that_ended_is_dropped() {
        let mut paths = Paths::default();
        let limit = u64::try_from(PATHS_MAX).unwrap();
        for socket in 1..=limit {
            paths.take(&event(socket, PathKind::Up, socket));
        }
        assert_eq!(paths.take(&event(100, PathKind::Up, 100)), None);
        paths.take(&event(2, PathKind::Down, 101));
        assert_eq!(paths.take(&event(102, PathKind::Up, 102)), Some(15));
        assert_eq!((paths.len(), paths.dropped()), (PATHS_MAX, 2));
        let sockets = paths.iter().map(|it| it.id.unwrap().socket.0);
        assert!(!sockets.clone().any(|it| it == 2) && sockets.clone().any(|it| it == 1));
    }

    fn reading(socket: u64, at_ms: u64, bytes_sent: u64) -> Path {
        Path {
            at: Duration::from_millis(at_ms),
            ledger: Some(Ledger {
                bytes_sent,
                ..a_ledger()
            }),
            ..event(socket, PathKind::Open, 0)
        }
    }

    #[test]
    fn a_reading_updates_an_open_path_and_two_of_them_have_a_rate() {
        let mut paths = Paths::default();
        paths.take(&event(1, PathKind::Up, 1));
        let sent = |paths: &Paths| {
            let path = paths.iter().next().unwrap();
            let sent = path.ledger.map(|it| it.bytes_sent);
            (sent, path.rate.map(|it| it.0), paths.read_at().is_some())
        };
        assert_eq!(sent(&paths), (None, None, false));
        paths.read(&reading(1, 2_000, 10_000));
        assert_eq!(sent(&paths), (Some(10_000), None, true));
        // Two tasks had it open.
        paths.read(&reading(1, 2_001, 10_100));
        assert_eq!(sent(&paths), (Some(10_000), None, true));
        paths.read(&reading(1, 4_000, 14_000));
        assert_eq!(sent(&paths), (Some(14_000), Some(2_000), true));
        // What its end says is newer.
        paths.take(&event(1, PathKind::Down, 6));
        assert_eq!(sent(&paths), (Some(8_000), None, false));
        paths.read(&reading(1, 7_000, 20_000));
        assert_eq!(sent(&paths), (Some(8_000), None, false));
    }

    #[test]
    fn a_reading_makes_no_path_and_is_of_the_open_one_at_its_address() {
        let mut paths = Paths::default();
        paths.read(&reading(1, 2_000, 10_000));
        assert!(paths.is_empty());
        let again = Path {
            path: Some(PathId {
                socket: SocketId(1),
                began_at: Duration::from_secs(3),
            }),
            ..event(1, PathKind::Up, 3)
        };
        for event in [
            event(1, PathKind::Up, 1),
            event(1, PathKind::Down, 2),
            again,
        ] {
            paths.take(&event);
        }
        paths.read(&reading(1, 4_000, 10_000));
        let read: Vec<bool> = paths.iter().map(|it| it.read_at.is_some()).collect();
        assert_eq!(read, [false, true]);
    }
}
