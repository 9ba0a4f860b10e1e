//! A path manager in userspace: it listens to the kernel's events about connections, and opens and
//! closes paths itself. The kernel behaves differently while somebody listens.

use std::{
    net::SocketAddr,
    os::fd::{AsFd as _, BorrowedFd},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, bind, netlink::SocketAddrNetlink, recv},
};

use super::{ADDRESS, Command, Endpoint, Flags, GENERIC_BYTES, ID, NESTED, family, inside, within};
use crate::{
    netlink::{Netlink, attributes, find},
    netns,
};

/// Makes the connections of a namespace from now on wait for a path manager in userspace.
///
/// # Errors
///
/// Fails if this kernel has none.
pub fn enable(namespace: BorrowedFd<'_>) -> anyhow::Result<()> {
    let is_there = netns::set_sysctl(namespace, "net.mptcp.pm_type", "1")?;
    ensure!(is_there, "this kernel has no net.mptcp.pm_type");
    Ok(())
}

/// Kinds of events (`MPTCP_EVENT_*`).
pub mod event {
    /// A connection that may have more paths.
    pub const ESTABLISHED: u8 = 2;
    /// A connection ended.
    pub const CLOSED: u8 = 3;
}

/// An event about a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// `MPTCP_EVENT_*`.
    pub kind: u8,
    /// Token of the connection; none if the event is about a listener.
    pub token: Option<u32>,
}

/// Somebody who listens to the events of a network namespace.
pub struct Listener {
    netlink: Netlink,
}

impl Listener {
    /// Starts to listen.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn new(namespace: BorrowedFd<'_>) -> anyhow::Result<Self> {
        let netlink = netns::within(namespace, || {
            let group = group(&family(&Netlink::generic()?)?)?;
            // A socket that has sent something has an address already.
            let netlink = Netlink::generic()?;
            ensure!(
                (1..=32).contains(&group),
                "the group has the number {group}"
            );
            // Port 0: the kernel chooses one.
            let address = SocketAddrNetlink::new(0, 1 << (group - 1));
            bind(netlink.as_fd(), &address).context("cannot listen to the group")?;
            Ok(netlink)
        })?;
        Ok(Self { netlink })
    }

    /// The next event; none if there is none within this time.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error, also if it dropped events.
    pub fn next(&self, patience: Duration) -> anyhow::Result<Option<Event>> {
        /// Length of a struct nlmsghdr.
        const HEADER_BYTES: usize = 16;
        let timeout = Timespec::try_from(patience).context("too long a time")?;
        let mut waiting = [PollFd::new(&self.netlink, PollFlags::IN)];
        if poll(&mut waiting, Some(&timeout)).context("cannot wait for an event")? == 0 {
            return Ok(None);
        }
        let mut event = [0; 4096];
        let (_, length) = recv(self.netlink.as_fd(), &mut event, RecvFlags::empty())
            .context("cannot read an event")?;
        let event = event.get(HEADER_BYTES..length);
        let event = event.context("the kernel's event is short")?;
        parsed(event).map(Some)
    }
}

/// An event after its netlink header.
fn parsed(event: &[u8]) -> anyhow::Result<Event> {
    const TOKEN: u16 = 1;
    let (header, attributes) = event
        .split_first_chunk::<GENERIC_BYTES>()
        .context("the kernel's event is short")?;
    let token = find(attributes, TOKEN).ok();
    let token = token.and_then(|token| token.first_chunk());
    Ok(Event {
        kind: header[0],
        token: token.map(|token| u32::from_ne_bytes(*token)),
    })
}

/// Number of the group that gets events.
fn group(family: &[u8]) -> anyhow::Result<u32> {
    const GROUPS: u16 = 7;
    const NAME: u16 = 1;
    const NUMBER: u16 = 2;
    for (_index, group) in attributes(find(family, GROUPS)?)? {
        if find(group, NAME)?.starts_with(b"mptcp_pm_events\0") {
            let number = find(group, NUMBER)?.first_chunk();
            return Ok(u32::from_ne_bytes(*number.context("the number is short")?));
        }
    }
    anyhow::bail!("this kernel reports no events of MPTCP")
}

/// Opens a path of a connection, from an own address with this id.
///
/// # Errors
///
/// Fails with the kernel's error.
pub fn create(
    namespace: BorrowedFd<'_>,
    token: u32,
    (id, local): (u8, Endpoint),
    remote: SocketAddr,
) -> anyhow::Result<()> {
    path(
        namespace,
        Command::CreatePath,
        token,
        (Some(id), local),
        remote,
    )
    .context("cannot open a path")
}

/// Closes a path of a connection.
///
/// # Errors
///
/// Fails with the kernel's error.
pub fn destroy(
    namespace: BorrowedFd<'_>,
    token: u32,
    local: SocketAddr,
    remote: SocketAddr,
) -> anyhow::Result<()> {
    path(
        namespace,
        Command::DestroyPath,
        token,
        (None, end(local)),
        remote,
    )
    .context("cannot close a path")
}

fn end(address: SocketAddr) -> Endpoint {
    Endpoint {
        address: address.ip(),
        port: Some(address.port()),
        device: None,
        flags: Flags(0),
    }
}

fn path(
    namespace: BorrowedFd<'_>,
    command: Command,
    token: u32,
    (id, local): (Option<u8>, Endpoint),
    remote: SocketAddr,
) -> anyhow::Result<()> {
    use crate::netlink::attribute;
    const TOKEN: u16 = 4;
    const REMOTE: u16 = 6;
    within(namespace, command, || {
        let mut own = inside(local)?;
        if let Some(id) = id {
            own.extend(attribute(ID, &[&[id]]));
        }
        let body = [
            attribute(ADDRESS | NESTED, &[&own]),
            attribute(TOKEN, &[&token.to_ne_bytes()]),
            attribute(REMOTE | NESTED, &[&inside(end(remote))?]),
        ];
        Ok(body.concat())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attribute;

    #[test]
    fn an_event_has_a_kind_and_the_token_of_its_connection() {
        let check = |attributes: &[u8], token| {
            let event = [&[event::CLOSED, 1, 0, 0], attributes].concat();
            let kind = event::CLOSED;
            assert_eq!(parsed(&event).unwrap(), Event { kind, token });
        };
        check(&attribute(1, &[&7_u32.to_ne_bytes()]), Some(7));
        check(&attribute(2, &[&7_u32.to_ne_bytes()]), None);
        check(&[], None);
        assert!(parsed(&[1, 1]).is_err());
    }

    #[test]
    fn the_group_of_events_is_found_by_its_name() {
        let group_of = |name: &[u8], number: u32| {
            [
                attribute(1, &[name]),
                attribute(2, &[&number.to_ne_bytes()]),
            ]
            .concat()
        };
        let groups = [
            attribute(1, &[&group_of(b"mptcp_pm_cmds\0", 5)]),
            attribute(2, &[&group_of(b"mptcp_pm_events\0", 6)]),
        ];
        let family = |groups: &[Vec<u8>]| attribute(7, &[&groups.concat()]);
        assert_eq!(group(&family(&groups)).unwrap(), 6);
        assert!(group(&family(&groups[..1])).is_err());
    }
}
