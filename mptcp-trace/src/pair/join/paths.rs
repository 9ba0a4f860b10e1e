//! Which paths of two joined connections are the same ones.

use super::*;

impl Direction<'_> {
    /// The paths of two connections that are joined.
    pub(super) fn paths(&self, client: &Seen, server: &Seen, by: By) -> Vec<PathPair> {
        let mut left: Vec<usize> = (0..server.paths.len()).collect();
        let mut pairs = Vec::new();
        let mut alone = Vec::new();
        for (place, path) in client.paths.iter().enumerate() {
            let found = left.iter().enumerate().find_map(|(at, number)| {
                let there = server.paths.get(*number)?;
                Some((at, same_path(path, there)?))
            });
            match found {
                Some((at, by)) => pairs.push(PathPair {
                    client: Some(place),
                    server: Some(left.remove(at)),
                    orphan: None,
                    by: Some(by),
                }),
                None => alone.push(place),
            }
        }
        for place in alone {
            let path = client.paths.get(place);
            if let Some((number, by)) = path.and_then(|path| self.orphan(path)) {
                pairs.push(PathPair {
                    client: Some(place),
                    server: None,
                    orphan: Some(number),
                    by: Some(by),
                });
                continue;
            }
            let found = client.paths.get(place).and_then(|path| {
                left.iter().position(|number| {
                    (server.paths.get(*number)).is_some_and(|there| fits_by_ids(path, there))
                })
            });
            let server = found.map(|at| left.remove(at));
            let is_first = client
                .paths
                .get(place)
                .is_some_and(|path| path.role == PathRole::First);
            pairs.push(PathPair {
                client: Some(place),
                server,
                orphan: None,
                by: server.map(|_| if is_first { by } else { By::Ids }),
            });
        }
        pairs.extend(left.into_iter().map(|server| PathPair {
            client: None,
            server: Some(server),
            orphan: None,
            by: None,
        }));
        pairs
    }

    /// The join that the server refused, without its connection, to which a path of the client
    /// belongs.
    pub(super) fn orphan(&self, path: &PathSeen) -> Option<(usize, By)> {
        if path.role != PathRole::Join || path.side == Some(Side::Passive) {
            return None;
        }
        let number = *self
            .orphans
            .get(&Key::Numbers(path.marks.sent?.wrapping_add(1), 0))?;
        let there = self.server(number)?.paths.first()?;
        Some((number, same_path(path, there)?))
    }
}

/// By what two ends are those of one path.
fn same_path(client: &PathSeen, server: &PathSeen) -> Option<By> {
    let side = client.side.unwrap_or(Side::Active);
    let other = match side {
        Side::Active => Side::Passive,
        Side::Passive => Side::Active,
    };
    if let (Some(here), Some(there)) = (key(client, side), key(server, other)) {
        return (here == there).then_some(By::Sequences);
    }
    let (opened, accepted) = match side {
        Side::Active => (client, server),
        Side::Passive => (server, client),
    };
    let sent = opened.marks.sent?.wrapping_add(1);
    (Some(sent) == accepted.marks.received).then_some(By::Sequence)
}

/// Two ends of one connection have the same address ids, and were not joined by anything better.
fn fits_by_ids(client: &PathSeen, server: &PathSeen) -> bool {
    let are_opposite = match (client.side, server.side) {
        (Some(a), Some(b)) => a != b,
        (None, _) | (_, None) => true,
    };
    let same = |a: Option<u8>, b: Option<u8>| a.is_some() && a == b;
    client.role == server.role
        && are_opposite
        && (client.role == PathRole::First
            || same(client.ids.0, server.ids.1) && client.up.is_some() == server.up.is_some())
}
