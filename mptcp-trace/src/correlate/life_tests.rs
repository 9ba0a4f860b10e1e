use std::time::Duration;

use super::{
    life::{End, Life},
    *,
};
use crate::model::{
    Change, ChangeKind, Closed, NeverTried, Outcome, PathId, PathKind, PathManager, PathRole,
    Place, Rung, Side, SocketId, fixture::a_path,
};

fn path(kind: PathKind, number: u64) -> crate::model::Path {
    crate::model::Path {
        path: Some(PathId {
            socket: SocketId(number),
            began_at: Duration::from_secs(1),
        }),
        role: match number {
            1 => PathRole::First,
            _ => PathRole::Join,
        },
        side: Some(Side::Active),
        existing: false,
        was_reported_up: false,
        is_stale: false,
        ..a_path(kind)
    }
}

fn closes(life: &mut Life, pending_paths: u8) {
    let path = path(PathKind::Up, 1);
    let change = Change {
        kind: ChangeKind::Closed,
        at: Duration::from_secs(9),
        id: ConnectionId {
            socket: SocketId(1),
            born_at: Duration::ZERO,
            attempt: 0,
        },
        socket: path.socket,
        owner: None,
        admitted: true,
        query_untraced: false,
        connecting: false,
        fell_back: Some(false),
        pending_paths,
    };
    let end = End {
        at: change.at,
        outcome: Outcome::Mptcp,
        queries: 0,
    };
    life.closes(&change, end);
}

fn closed(life: Life) -> Closed {
    let end = End {
        at: Duration::from_secs(9),
        outcome: Outcome::Mptcp,
        queries: 3,
    };
    let id = ConnectionId {
        socket: SocketId(1),
        born_at: Duration::ZERO,
        attempt: 0,
    };
    life.into_closed(id, end).0
}

fn life(events: &[(PathKind, u64)]) -> Life {
    let first = path(PathKind::Up, 1);
    let mut life = Life::new(first.socket);
    for (kind, number) in events {
        let path = path(*kind, *number);
        life.learn(&path, &Place::default());
        life.happened(&path);
    }
    life
}

fn counts(closed: &Closed) -> [u32; 4] {
    [
        closed.paths_tried,
        closed.paths_up,
        closed.paths_failed,
        closed.paths_most,
    ]
}

#[test]
fn each_path_counts_once_whatever_was_reported_of_it() {
    use PathKind::{Down, Failed, Up};
    for (before, pending, after, expected) in [
        (&[(Up, 1)][..], 0, &[(Down, 1)][..], [1, 1, 0, 1]),
        (&[(Up, 1), (Up, 2), (Failed, 3)], 0, &[], [3, 2, 1, 2]),
        // It was up, which only its end showed.
        (&[(Up, 1), (Down, 2)], 0, &[], [2, 2, 0, 2]),
        // Being opened when the connection ended: it fails, or never ends, or was up after all.
        (&[(Up, 1)], 1, &[(Failed, 2)], [2, 1, 1, 1]),
        (&[(Up, 1)], 1, &[], [2, 1, 1, 1]),
        (&[(Up, 1)], 1, &[(Down, 2)], [2, 2, 0, 2]),
        (&[(Up, 1)], 2, &[(Down, 2), (Failed, 3)], [3, 2, 1, 2]),
    ] {
        let mut life = life(before);
        closes(&mut life, pending);
        for (kind, number) in after {
            let mut path = path(*kind, *number);
            // The first one was reported when it came up.
            path.was_reported_up = *number == 1;
            life.happened(&path);
        }
        assert_eq!(
            counts(&closed(life)),
            expected,
            "{before:?} {pending} {after:?}"
        );
    }
}

#[test]
fn a_connection_with_one_path_says_why_by_the_first_rule_that_fits() {
    let usual = PathManager {
        accepts_paths: true,
        accepts_addresses: true,
        established: true,
        has_work: true,
        addresses_used: 1,
        ..PathManager::default()
    };
    for (manager, announced, expected) in [
        (
            PathManager {
                established: false,
                ..usual
            },
            false,
            NeverTried::NotEstablished,
        ),
        (
            PathManager {
                in_userspace: true,
                ..usual
            },
            false,
            NeverTried::UserspaceManager,
        ),
        (
            PathManager {
                accepts_paths: false,
                ..usual
            },
            true,
            NeverTried::LimitZero,
        ),
        (
            PathManager {
                accepts_addresses: false,
                ..usual
            },
            true,
            NeverTried::AddressLimitZero,
        ),
        (
            PathManager {
                peer_denies_id0: true,
                ..usual
            },
            false,
            NeverTried::PeerDeniesInitialAddress,
        ),
        (
            PathManager {
                has_work: false,
                ..usual
            },
            false,
            NeverTried::NoEndpoint,
        ),
        (
            PathManager {
                addresses_used: 0,
                ..usual
            },
            false,
            NeverTried::OnlyEndpointInUse,
        ),
        (usual, false, NeverTried::Unknown),
    ] {
        let mut up = path(PathKind::Up, 1);
        up.manager = Some(manager);
        let mut life = Life::new(up.socket.clone());
        life.learn(&up, &Place::default());
        life.happened(&up);
        if announced {
            let mut announced = path(PathKind::AddressOverLimit, 1);
            announced.decided_by = Some(crate::model::DecidedBy::Peer);
            life.happened(&announced);
        }
        assert_eq!(closed(life.clone()).never_tried, Some(expected));
        // Not where a second path was tried.
        let mut tried = life.clone();
        tried.happened(&path(PathKind::Failed, 2));
        assert_eq!(closed(tried).never_tried, None);
        // The other end only waits, and must see joins that it refuses.
        up.side = Some(Side::Passive);
        for (rung, expected) in [
            (Rung::Fexit, Some(NeverTried::NoJoinCame)),
            (Rung::Kprobe, Some(NeverTried::NoJoinCame)),
            (Rung::Tracepoint, None),
        ] {
            up.rung = rung;
            life.learn(&up, &Place::default());
            assert_eq!(closed(life.clone()).never_tried, expected, "{rung:?}");
        }
        life.happened(&path(PathKind::Failed, 2));
        assert_eq!(closed(life).never_tried, None);
    }
}

#[test]
fn a_stale_path_that_ends_usable_had_recovered() {
    let mut life = life(&[(PathKind::Up, 1), (PathKind::Up, 2)]);
    let stale = path(PathKind::Stale, 2);
    assert!(!life.note_stale(&stale));
    assert!(!life.note_stale(&path(PathKind::Down, 1)));
    let mut down = path(PathKind::Down, 2);
    assert!(life.clone().note_stale(&down));
    down.is_stale = true;
    assert!(!life.clone().note_stale(&down));
    assert!(!life.note_stale(&path(PathKind::Recovered, 2)));
    assert!(!life.note_stale(&path(PathKind::Down, 2)));
}
