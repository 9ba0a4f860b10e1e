//! The kernel's path manager: limits and endpoints of a network namespace, as `ip mptcp` sets them
//! (generic netlink family `mptcp_pm`).

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd},
};

use anyhow::Context as _;
use rustix::net::netdevice;

pub mod userspace;

use crate::{
    netlink::{Message, Netlink, attribute, find},
    netns,
};

/// An own address that paths use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// Port, for an endpoint to announce.
    pub port: Option<u16>,
    /// Name of the device to bind joins to.
    pub device: Option<&'static str>,
    /// Use of the address.
    pub flags: Flags,
}

/// Use of an address (`MPTCP_PM_ADDR_FLAG_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags(u32);

impl Flags {
    /// Announce it to the peer.
    pub const SIGNAL: Self = Self(1);
    /// Join from it.
    pub const SUBFLOW: Self = Self(2);
    /// Join from it, as a backup.
    pub const BACKUP_SUBFLOW: Self = Self(2 | 4);
    /// None: the address has an id.
    pub const NONE: Self = Self(0);
}

/// Limits of the paths of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Additional paths.
    pub paths: u32,
    /// Announced addresses of the peer to join to.
    pub addresses: u32,
}

/// Commands of the family (`MPTCP_PM_CMD_*`).
#[derive(Clone, Copy)]
enum Command {
    Add = 1,
    Delete = 2,
    Get = 3,
    SetLimits = 5,
    GetLimits = 6,
    SetFlags = 7,
    CreatePath = 10,
    DestroyPath = 11,
}

/// Attribute that holds an address.
const ADDRESS: u16 = 1;
/// Flag of an attribute that holds others.
const NESTED: u16 = 0x8000;
/// Attributes of an address (`MPTCP_PM_ADDR_ATTR_*`).
const FAMILY: u16 = 1;
const ID: u16 = 2;
const V4: u16 = 3;
const V6: u16 = 4;
const PORT: u16 = 5;
const FLAGS: u16 = 6;
const DEVICE: u16 = 7;
/// Attributes of limits (`MPTCP_PM_ATTR_RCV_ADD_ADDRS`, `MPTCP_PM_ATTR_SUBFLOWS`).
const ACCEPTED: u16 = 2;
const PATHS: u16 = 3;

/// Adds an endpoint. The first one of a namespace gets the id 1.
///
/// # Errors
///
/// Fails with the kernel's error.
pub fn add(namespace: BorrowedFd<'_>, endpoint: Endpoint) -> anyhow::Result<()> {
    within(namespace, Command::Add, || encoded(endpoint)).context("cannot add an endpoint")
}

/// Deletes the endpoint with this id, and its paths.
///
/// # Errors
///
/// Fails with the kernel's error.
pub fn delete(namespace: BorrowedFd<'_>, id: u8) -> anyhow::Result<()> {
    let address = attribute(ADDRESS | NESTED, &[&attribute(ID, &[&[id]])]);
    within(namespace, Command::Delete, || Ok(address)).context("cannot delete an endpoint")
}

/// Changes whether the paths of an endpoint are backups.
///
/// # Errors
///
/// Fails with the kernel's error.
pub fn change(namespace: BorrowedFd<'_>, endpoint: Endpoint) -> anyhow::Result<()> {
    within(namespace, Command::SetFlags, || encoded(endpoint)).context("cannot change an endpoint")
}

/// Sets the limits; they apply to sockets that are created afterwards.
///
/// # Errors
///
/// Fails with the kernel's error.
pub fn limit(namespace: BorrowedFd<'_>, limits: Limits) -> anyhow::Result<()> {
    let body = [
        attribute(ACCEPTED, &[&limits.addresses.to_ne_bytes()]),
        attribute(PATHS, &[&limits.paths.to_ne_bytes()]),
    ];
    within(namespace, Command::SetLimits, || Ok(body.concat())).context("cannot set the limits")
}

/// Opens a path of the connection with this token, as a program that manages paths does: from `local`,
/// with this address id, to `remote`.
///
/// # Errors
///
/// Fails with the kernel's error.
pub fn open_path(
    namespace: BorrowedFd<'_>,
    token: u32,
    local: (IpAddr, u8),
    remote: SocketAddr,
) -> anyhow::Result<()> {
    const TOKEN: u16 = 4;
    const REMOTE: u16 = 6;
    let body = || {
        let end = |address, port| Endpoint {
            address,
            port,
            device: None,
            flags: Flags(0),
        };
        let (local, id) = local;
        let mut from = inside(end(local, None))?;
        from.extend(attribute(ID, &[&[id]]));
        let to = inside(end(remote.ip(), Some(remote.port())))?;
        Ok([
            attribute(TOKEN, &[&token.to_ne_bytes()]),
            attribute(ADDRESS | NESTED, &[&from]),
            attribute(REMOTE | NESTED, &[&to]),
        ]
        .concat())
    };
    within(namespace, Command::CreatePath, body).context("cannot open a path")
}

fn encoded(endpoint: Endpoint) -> anyhow::Result<Vec<u8>> {
    Ok(attribute(ADDRESS | NESTED, &[&inside(endpoint)?]))
}

/// The attributes of an address.
fn inside(endpoint: Endpoint) -> anyhow::Result<Vec<u8>> {
    let Endpoint {
        address,
        port,
        device,
        flags: Flags(flags),
    } = endpoint;
    let (family, mut inside) = match address {
        IpAddr::V4(v4) => (libc::AF_INET, attribute(V4, &[&v4.octets()])),
        IpAddr::V6(v6) => (libc::AF_INET6, attribute(V6, &[&v6.octets()])),
    };
    inside.extend(attribute(FAMILY, &[&(family as u16).to_ne_bytes()]));
    inside.extend(attribute(FLAGS, &[&flags.to_ne_bytes()]));
    if let Some(port) = port {
        inside.extend(attribute(PORT, &[&port.to_ne_bytes()]));
    }
    if let Some(name) = device {
        let index = netdevice::name_to_index(Netlink::route()?.as_fd(), name)
            .with_context(|| format!("there is no device {name}"))?;
        inside.extend(attribute(DEVICE, &[&index.to_ne_bytes()]));
    }
    Ok(inside)
}

fn within(
    namespace: BorrowedFd<'_>,
    command: Command,
    attributes: impl FnOnce() -> anyhow::Result<Vec<u8>> + Send,
) -> anyhow::Result<()> {
    netns::within(namespace, || {
        // The acknowledgement of the first request stays unread in its socket.
        let family = number(&family(&Netlink::generic()?)?)?;
        Netlink::generic()?.ask(&generic(family, command as u8, &attributes()?))
    })
}

/// Settings of the path manager in the network namespace of this thread. Reading them changes nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The limits.
    pub limits: Limits,
    /// The endpoints.
    pub endpoints: Vec<Configured>,
}

/// An endpoint, as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configured {
    /// Its id.
    pub id: u8,
    /// Its address.
    pub address: IpAddr,
    /// Its port, if it has one.
    pub port: Option<u16>,
    /// Name of its device, if it has one.
    pub device: Option<String>,
    /// Names of its flags, as `ip mptcp` prints them, or a number for unknown ones.
    pub flags: Vec<String>,
}

/// Reads the settings.
///
/// # Errors
///
/// Fails if the kernel has no such family, or refuses: endpoints need `CAP_NET_ADMIN`.
pub fn settings() -> anyhow::Result<Settings> {
    let netlink = Netlink::generic()?;
    let number = number(&family(&netlink)?)?;
    // The acknowledgement of the first request stays unread in its socket.
    let limits = Netlink::generic()?
        .answer(&generic(number, Command::GetLimits as u8, &[]))
        .context("cannot read the limits")?;
    let endpoints = Netlink::generic()?
        .dump(&generic(number, Command::Get as u8, &[]))
        .context("cannot read the endpoints")?;
    Ok(Settings {
        limits: limits_of(attributes(&limits))?,
        endpoints: endpoints
            .iter()
            .map(|endpoint| configured(attributes(endpoint)))
            .collect::<anyhow::Result<_>>()?,
    })
}

fn attributes(message: &[u8]) -> &[u8] {
    message.get(GENERIC_BYTES..).unwrap_or_default()
}

fn limits_of(attributes: &[u8]) -> anyhow::Result<Limits> {
    let number = |kind| -> anyhow::Result<u32> {
        let value = find(attributes, kind)?.first_chunk();
        Ok(u32::from_ne_bytes(*value.context("a limit is short")?))
    };
    Ok(Limits {
        addresses: number(ACCEPTED)?,
        paths: number(PATHS)?,
    })
}

fn configured(attributes: &[u8]) -> anyhow::Result<Configured> {
    let inside = find(attributes, ADDRESS).or_else(|_| find(attributes, ADDRESS | NESTED))?;
    let v4 = find(inside, V4).ok().and_then(|it| it.first_chunk::<4>());
    let v6 = find(inside, V6).ok().and_then(|it| it.first_chunk::<16>());
    let address = match (v4, v6) {
        (Some(v4), _) => IpAddr::from(*v4),
        (None, Some(v6)) => IpAddr::from(*v6),
        (None, None) => anyhow::bail!("an endpoint has no address"),
    };
    let half = |kind| Some(u16::from_ne_bytes(*find(inside, kind).ok()?.first_chunk()?));
    let word = |kind| Some(u32::from_ne_bytes(*find(inside, kind).ok()?.first_chunk()?));
    let device = word(DEVICE).filter(|index| *index != 0);
    Ok(Configured {
        id: find(inside, ID)
            .ok()
            .and_then(<[u8]>::first)
            .copied()
            .unwrap_or(0),
        address,
        port: half(PORT).filter(|port| *port != 0),
        device: device.map(device_name),
        flags: flag_names(word(FLAGS).unwrap_or(0)),
    })
}

/// Name of a device, or its index if it is gone.
fn device_name(index: u32) -> String {
    let name = Netlink::route().and_then(|it| Ok(netdevice::index_to_name(it.as_fd(), index)?));
    name.unwrap_or_else(|_gone| index.to_string())
}

/// `MPTCP_PM_ADDR_FLAG_*` of `include/uapi/linux/mptcp.h`, with iproute2's names.
fn flag_names(flags: u32) -> Vec<String> {
    const NAMES: [&str; 6] = [
        "signal", "subflow", "backup", "fullmesh", "implicit", "laminar",
    ];
    let known = NAMES
        .iter()
        .enumerate()
        .filter(|(bit, _)| flags >> bit & 1 == 1)
        .map(|(_, name)| (*name).to_owned());
    let unknown = flags >> NAMES.len() << NAMES.len();
    known
        .chain((unknown != 0).then(|| format!("{unknown:#x}")))
        .collect()
}

/// The attributes of the family.
fn family(netlink: &Netlink) -> anyhow::Result<Vec<u8>> {
    const CONTROL: u16 = 16;
    const GET_FAMILY: u8 = 3;
    const NAME: u16 = 2;
    let name = attribute(NAME, &[b"mptcp_pm\0"]);
    let answer = netlink.answer(&generic(CONTROL, GET_FAMILY, &name));
    let answer = answer.context("this kernel has no generic netlink family mptcp_pm")?;
    Ok(answer.get(GENERIC_BYTES..).unwrap_or_default().to_vec())
}

/// The number of the family: generic netlink assigns it when the kernel starts.
fn number(family: &[u8]) -> anyhow::Result<u16> {
    const NUMBER: u16 = 1;
    let number = find(family, NUMBER)?;
    let number = number.first_chunk().context("the number is short")?;
    Ok(u16::from_ne_bytes(*number))
}

/// Length of a struct genlmsghdr.
const GENERIC_BYTES: usize = 4;

fn generic(family: u16, command: u8, attributes: &[u8]) -> Message {
    const VERSION: u8 = 1;
    Message::new(family, [&[command, VERSION, 0, 0], attributes].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_read_as_it_was_configured() {
        let inside = [
            attribute(FAMILY, &[&2_u16.to_ne_bytes()]),
            attribute(ID, &[&[7]]),
            attribute(FLAGS, &[&(1_u32 | 4 | 1 << 9).to_ne_bytes()]),
            attribute(V4, &[&[192, 0, 2, 1]]),
            attribute(PORT, &[&4433_u16.to_ne_bytes()]),
        ];
        let message = attribute(ADDRESS | NESTED, &[&inside.concat()]);
        assert_eq!(
            configured(&message).unwrap(),
            Configured {
                id: 7,
                address: [192, 0, 2, 1].into(),
                port: Some(4433),
                device: None,
                flags: ["signal", "backup", "0x200"].map(str::to_owned).to_vec(),
            }
        );
        assert!(configured(&attribute(ADDRESS, &[&attribute(ID, &[&[7]])])).is_err());
    }

    #[test]
    fn limits_need_both_numbers() {
        let accepted = attribute(ACCEPTED, &[&3_u32.to_ne_bytes()]);
        let paths = attribute(PATHS, &[&2_u32.to_ne_bytes()]);
        let limits = limits_of(&[accepted.clone(), paths].concat()).unwrap();
        assert_eq!((limits.addresses, limits.paths), (3, 2));
        assert!(limits_of(&accepted).is_err());
    }
}
