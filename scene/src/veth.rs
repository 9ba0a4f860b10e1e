//! Two network namespaces and the pair of virtual Ethernet devices that joins them.
//!
//! The namespaces are anonymous: each exists while a file or a process refers to it, and its device
//! goes with it, also if this program is killed. The pair is a veth or, where that module is
//! unavailable, a netkit, which is always built in (Linux 6.7 and later).

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::net::netdevice;

use crate::{
    link,
    net::{self, Family},
    netlink::{Message, Netlink, attribute},
    netns,
};

/// Name of the device in both namespaces.
pub const DEVICE: &str = "lab0";
/// Name of the device of the second pair, in both namespaces.
pub const SECOND_DEVICE: &str = "lab1";
/// Timeout until both ends have a carrier.
const CARRIER_DELAY_MAX: Duration = Duration::from_secs(10);

/// IPv4 address of the lab's client.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// IPv4 address of the lab's server.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// IPv6 address of the lab's client.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// IPv6 address of the lab's server.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);

/// IPv4 addresses of the second pair: the client's and the server's.
pub const SECOND_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 78, 0, 1), Ipv4Addr::new(10, 78, 0, 2)];
/// IPv6 addresses of the second pair: the client's and the server's.
pub const SECOND_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 2),
];

/// Offloads of the pair: work that the sender leaves to the device. Between two namespaces no
/// hardware does it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offloads {
    /// Off: packets arrive in full, with a complete checksum, as a middlebox needs them.
    Off,
    /// The kernel's defaults: checksum and segmentation are skipped.
    Default,
}

/// Two joined network namespaces: the client's and the server's. Offloads are off.
///
/// # Errors
///
/// Names the step that failed.
pub fn joined() -> anyhow::Result<(File, File)> {
    joined_with(Offloads::Off)
}

/// Two joined network namespaces: the client's and the server's.
///
/// # Errors
///
/// Names the step that failed.
pub fn joined_with(offloads: Offloads) -> anyhow::Result<(File, File)> {
    let (near, far, _devices) = joined_as(offloads)?;
    Ok((near, far))
}

/// Two joined namespaces without offloads, and the indices of their devices, which are unique
/// within this process.
///
/// # Errors
///
/// Names the step that failed.
pub fn joined_apart() -> anyhow::Result<(File, File, [u32; 2])> {
    joined_as(Offloads::Off)
}

/// Two joined network namespaces with two pairs of devices.
///
/// # Errors
///
/// Names the step that failed.
pub fn joined_twice(offloads: Offloads) -> anyhow::Result<(File, File)> {
    let (near, far, _devices) = joined_as(offloads)?;
    join_again_with(near.as_fd(), far.as_fd(), offloads)?;
    Ok((near, far))
}

/// Adds a second pair between the namespaces of [`joined_apart`], and a route of the client through
/// it to all other addresses of the server; returns the indices of its devices.
///
/// # Errors
///
/// Names the step that failed.
pub fn join_again(near: BorrowedFd<'_>, far: BorrowedFd<'_>) -> anyhow::Result<[u32; 2]> {
    join_again_with(near, far, Offloads::Off)
}

fn join_again_with(
    near: BorrowedFd<'_>,
    far: BorrowedFd<'_>,
    offloads: Offloads,
) -> anyhow::Result<[u32; 2]> {
    for namespace in [near, far] {
        // Packets for the server's first address arrive at its second device too.
        for who in ["all", "default"] {
            let name = format!("net.ipv4.conf.{who}.rp_filter");
            netns::set_sysctl(namespace, &name, "0")?;
        }
    }
    let devices = [next_index(), next_index()];
    let end = |namespace, side: usize| End {
        namespace,
        name: SECOND_DEVICE,
        v4: SECOND_V4[side],
        v6: SECOND_V6[side],
    };
    let ends = [end(near, 0), end(far, 1)];
    join(ends, devices, offloads)?;
    for (namespace, address) in [near, far].into_iter().zip(SECOND_V6) {
        wait_for_address(namespace, address.into())?;
    }
    netns::within(near, || {
        let [_, v4] = SECOND_V4;
        let [_, v6] = SECOND_V6;
        let route = Netlink::route()?;
        route
            .ask(&new_route(devices[0], libc::AF_INET, &v4.octets()))
            .context("cannot add a route")?;
        route
            .ask(&new_route(devices[0], libc::AF_INET6, &v6.octets()))
            .context("cannot add an IPv6 route")
    })?;
    resolve(near, SECOND_V4.map(IpAddr::from), Family::V4)?;
    resolve(near, SECOND_V6.map(IpAddr::from), Family::V6)?;
    Ok(devices)
}

/// Gives a device of the client another address.
///
/// # Errors
///
/// Fails with the kernel's error.
pub fn add_address(near: BorrowedFd<'_>, device: &str, address: IpAddr) -> anyhow::Result<()> {
    netns::within(near, || {
        let index = netdevice::name_to_index(Netlink::route()?.as_fd(), device)
            .context("cannot find a veth")?;
        let message = match address {
            IpAddr::V4(v4) => new_address(index, libc::AF_INET, &v4.octets(), 24),
            IpAddr::V6(v6) => new_address(index, libc::AF_INET6, &v6.octets(), 64),
        };
        let asked = Netlink::route()?.ask(&message);
        asked.context("cannot give a veth another address")
    })?;
    wait_for_address(near, address)
}

/// Makes both ends resolve each other's address, with a connection that is refused: a join whose SYN
/// waits for that may be too late for a recipe.
pub(crate) fn resolve(
    near: BorrowedFd<'_>,
    [client, server]: [IpAddr; 2],
    family: Family,
) -> anyhow::Result<()> {
    /// The discard port: nobody listens in a new namespace.
    const PORT: u16 = 9;
    let connected = netns::within(near, || {
        let socket = net::open(net::Kind::Tcp, family).context("cannot open a socket")?;
        net::bind(&socket, (client, 0).into())
            .with_context(|| format!("cannot bind to {client}"))?;
        let to = SocketAddr::new(server, PORT).into();
        Ok(socket.connect_timeout(&to, CARRIER_DELAY_MAX))
    })?;
    match connected {
        Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        done => done.with_context(|| format!("{server} does not answer")),
    }
}

/// Waits until the kernel has set an address up: before that it answers no neighbour solicitation
/// for it, and the next one follows after a second.
pub(crate) fn wait_for_address(namespace: BorrowedFd<'_>, address: IpAddr) -> anyhow::Result<()> {
    let family = match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    };
    netns::within(namespace, || {
        let socket = net::open(net::Kind::Tcp, family).context("cannot open a socket")?;
        net::bind(&socket, (address, 0).into())
            .with_context(|| format!("the address {address} does not become usable"))
    })
}

/// Brings the client's end of the second pair down.
///
/// # Errors
///
/// Fails with the kernel's error.
pub fn cut(near: BorrowedFd<'_>) -> anyhow::Result<()> {
    netns::within(near, || {
        link::bring_down(SECOND_DEVICE).context("cannot bring a veth down")
    })
}

fn joined_as(offloads: Offloads) -> anyhow::Result<(File, File, [u32; 2])> {
    let (near, far) = (netns::new()?, netns::new()?);
    let devices = [next_index(), next_index()];
    let ends = [
        End {
            namespace: near.as_fd(),
            name: DEVICE,
            v4: CLIENT_V4,
            v6: CLIENT_V6,
        },
        End {
            namespace: far.as_fd(),
            name: DEVICE,
            v4: SERVER_V4,
            v6: SERVER_V6,
        },
    ];
    join(ends, devices, offloads)?;
    Ok((near, far, devices))
}

/// A device index outside the range that the kernel assigns in a new namespace, and unique within
/// this process.
pub(crate) fn next_index() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// One end of the pair.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    /// Namespace of this end.
    pub(crate) namespace: BorrowedFd<'a>,
    /// Name of its device.
    pub(crate) name: &'a str,
    /// IPv4 address, prefix length 24.
    pub(crate) v4: Ipv4Addr,
    /// IPv6 address, prefix length 64.
    pub(crate) v6: Ipv6Addr,
}

/// Joins two network namespaces; returns once packets can be sent.
///
/// # Errors
///
/// Names the step that failed.
pub(crate) fn join(
    ends: [End<'_>; 2],
    devices: [u32; 2],
    offloads: Offloads,
) -> anyhow::Result<()> {
    let [near, far] = ends;
    netns::within(near.namespace, || {
        let new = |kind| new_pair(kind, near.name, devices, far.namespace);
        Netlink::route()?
            .ask(&new(Kind::Veth))
            .or_else(|why| {
                let ask = || Netlink::route()?.ask(&new(Kind::Netkit));
                ask().map_err(|_| why)
            })
            .context("cannot make a veth pair (CONFIG_VETH), nor a netkit pair (CONFIG_NETKIT)")
    })?;
    for end in ends {
        netns::within(end.namespace, || set_up(end, offloads))?;
    }
    for end in ends {
        netns::within(end.namespace, || wait_for_carrier(end.name))?;
    }
    Ok(())
}

fn set_up(end: End<'_>, offloads: Offloads) -> anyhow::Result<()> {
    match offloads {
        Offloads::Off => {
            switch_offloads_off(end.name).context("cannot turn off the offloads of a veth")?;
        }
        Offloads::Default => {}
    }
    let route = Netlink::route()?;
    let index = netdevice::name_to_index(route.as_fd(), end.name).context("cannot find a veth")?;
    link::bring_up(end.name).context("cannot bring a veth up")?;
    route
        .ask(&new_address(index, libc::AF_INET, &end.v4.octets(), 24))
        .context("cannot give a veth an address")?;
    route
        .ask(&new_address(index, libc::AF_INET6, &end.v6.octets(), 64))
        .context("cannot give a veth an IPv6 address")
}

/// Makes the sender compute checksums and segment packets.
///
/// Otherwise neither happens between two namespaces: the checksum field holds only a partial sum,
/// and a program that changes a packet on the way cannot correct it.
fn switch_offloads_off(device: &str) -> io::Result<()> {
    const ETHTOOL_STXCSUM: u32 = 0x17;
    // A struct ethtool_value: command and value. Offloads that depend on checksum offload go off
    // too.
    let mut value = [ETHTOOL_STXCSUM, 0];
    let mut request = link::interface(device);
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: the ioctl accesses only the two words behind the pointer, which outlive the call.
    unsafe { link::ioctl_interface(libc::SIOCETHTOOL, &mut request) }
}

/// Waits for the carrier: without it the kernel drops packets.
fn wait_for_carrier(device: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let mut request = link::interface(device);
        // SAFETY: this ioctl writes only to the request.
        unsafe { link::ioctl_interface(libc::SIOCGIFFLAGS, &mut request) }
            .context("cannot ask for flags")?;
        // SAFETY: the ioctl has just written this member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        if i32::from(flags) & libc::IFF_RUNNING != 0 {
            return Ok(());
        }
        ensure!(
            start.elapsed() < CARRIER_DELAY_MAX,
            "a veth has no carrier after {} s",
            CARRIER_DELAY_MAX.as_secs()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A struct ifinfomsg with nothing but the device's index.
fn device(index: u32) -> [u8; 16] {
    let mut device = [0; 16];
    device[4..8].copy_from_slice(&index.to_ne_bytes());
    device
}

/// Kind of the pair.
#[derive(Clone, Copy)]
enum Kind {
    Veth,
    Netkit,
}

fn new_pair(
    kind: Kind,
    device_name: &str,
    [near_index, far_index]: [u32; 2],
    far: BorrowedFd<'_>,
) -> Message {
    /// `VETH_INFO_PEER` and `IFLA_NETKIT_PEER_INFO`.
    const PEER_INFO: u16 = 1;
    const IFLA_INFO_DATA: u16 = 2;
    const IFLA_NETKIT_MODE: u16 = 5;
    /// L2 mode, like a veth: with Ethernet headers and neighbour resolution.
    const NETKIT_L2: u32 = 0;
    let name = attribute(libc::IFLA_IFNAME, &[device_name.as_bytes(), b"\0"]);
    let place = attribute(libc::IFLA_NET_NS_FD, &[&far.as_raw_fd().to_ne_bytes()]);
    let peer = attribute(PEER_INFO, &[&device(far_index), &name, &place]);
    let (kind, mode): (&[u8], _) = match kind {
        Kind::Veth => (b"veth", Vec::new()),
        Kind::Netkit => (
            b"netkit",
            attribute(IFLA_NETKIT_MODE, &[&NETKIT_L2.to_ne_bytes()]),
        ),
    };
    let kind = attribute(libc::IFLA_INFO_KIND, &[kind]);
    let data = attribute(IFLA_INFO_DATA, &[&peer, &mode]);
    let link = attribute(libc::IFLA_LINKINFO, &[&kind, &data]);
    Message::creating(
        libc::RTM_NEWLINK,
        [&device(near_index)[..], &name, &link].concat(),
    )
}

fn new_address(index: u32, family: libc::c_int, address: &[u8], prefix_bits: u8) -> Message {
    // A struct ifaddrmsg. The link has no other hosts and the address must be usable at once: no
    // duplicate address detection.
    let mut body = vec![family as u8, prefix_bits, libc::IFA_F_NODAD as u8, 0];
    body.extend(index.to_ne_bytes());
    body.extend(attribute(libc::IFA_LOCAL, &[address]));
    body.extend(attribute(libc::IFA_ADDRESS, &[address]));
    Message::creating(libc::RTM_NEWADDR, body)
}

/// A default route, behind the route of the first pair.
fn new_route(index: u32, family: libc::c_int, gateway: &[u8]) -> Message {
    route_to(&[], 0, index, family, gateway)
}

/// A route to a network, whose address has as many bytes as the gateway's unless the prefix is empty.
pub(crate) fn route_to(
    network: &[u8],
    prefix_bits: u8,
    index: u32,
    family: libc::c_int,
    gateway: &[u8],
) -> Message {
    /// Of all of them: there is no other one to the same network.
    const METRIC: u32 = 2_000;
    // A struct rtmsg.
    let mut body = vec![
        family as u8,
        prefix_bits,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_BOOT,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_UNICAST,
    ];
    body.extend(0_u32.to_ne_bytes());
    if prefix_bits > 0 {
        body.extend(attribute(libc::RTA_DST, &[network]));
    }
    body.extend(attribute(libc::RTA_GATEWAY, &[gateway]));
    body.extend(attribute(libc::RTA_OIF, &[&index.to_ne_bytes()]));
    body.extend(attribute(libc::RTA_PRIORITY, &[&METRIC.to_ne_bytes()]));
    Message::creating(libc::RTM_NEWROUTE, body)
}
