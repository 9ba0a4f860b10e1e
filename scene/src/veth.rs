//! Two network namespaces and the pair of virtual Ethernet devices that joins them.
//!
//! The namespaces are anonymous: each exists while a file or a process refers to it, and its device
//! goes with it, also if this program is killed. The pair is a veth or, where that module is
//! unavailable, a netkit, which is always built in (Linux 6.7 and later).

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, send,
    socket_with,
};

use crate::{link, netns};

/// Name of the device in both namespaces.
pub const DEVICE: &str = "lab0";
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

fn joined_as(offloads: Offloads) -> anyhow::Result<(File, File, [u32; 2])> {
    let (near, far) = (netns::new()?, netns::new()?);
    let devices = [next_index(), next_index()];
    let ends = [
        End {
            namespace: near.as_fd(),
            v4: CLIENT_V4,
            v6: CLIENT_V6,
        },
        End {
            namespace: far.as_fd(),
            v4: SERVER_V4,
            v6: SERVER_V6,
        },
    ];
    join(ends, devices, offloads)?;
    Ok((near, far, devices))
}

/// A device index outside the range that the kernel assigns in a new namespace, and unique within
/// this process.
fn next_index() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// One end of the pair.
#[derive(Clone, Copy)]
struct End<'a> {
    /// Namespace of this end.
    namespace: BorrowedFd<'a>,
    /// IPv4 address, prefix length 24.
    v4: Ipv4Addr,
    /// IPv6 address, prefix length 64.
    v6: Ipv6Addr,
}

/// Joins two network namespaces; returns once packets can be sent.
///
/// # Errors
///
/// Names the step that failed.
fn join(ends: [End<'_>; 2], devices: [u32; 2], offloads: Offloads) -> anyhow::Result<()> {
    let [near, far] = ends;
    netns::within(near.namespace, || {
        Route::open()?
            .ask(&new_pair(Kind::Veth, devices, far.namespace))
            .or_else(|why| {
                let ask = || Route::open()?.ask(&new_pair(Kind::Netkit, devices, far.namespace));
                ask().map_err(|_| why)
            })
            .context("cannot make a veth pair (CONFIG_VETH), nor a netkit pair (CONFIG_NETKIT)")
    })?;
    for end in ends {
        netns::within(end.namespace, || set_up(end, offloads))?;
    }
    for end in ends {
        netns::within(end.namespace, wait_for_carrier)?;
    }
    Ok(())
}

fn set_up(end: End<'_>, offloads: Offloads) -> anyhow::Result<()> {
    match offloads {
        Offloads::Off => {
            switch_offloads_off().context("cannot turn off the offloads of a veth")?;
        }
        Offloads::Default => {}
    }
    let route = Route::open()?;
    let index = netdevice::name_to_index(&route.socket, DEVICE).context("cannot find a veth")?;
    link::bring_up(DEVICE).context("cannot bring a veth up")?;
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
fn switch_offloads_off() -> io::Result<()> {
    const ETHTOOL_STXCSUM: u32 = 0x17;
    // A struct ethtool_value: command and value. Offloads that depend on checksum offload go off
    // too.
    let mut value = [ETHTOOL_STXCSUM, 0];
    let mut request = link::interface(DEVICE);
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: the ioctl accesses only the two words behind the pointer, which outlive the call.
    unsafe { link::ioctl_interface(libc::SIOCETHTOOL, &mut request) }
}

/// Waits for the carrier: without it the kernel drops packets.
fn wait_for_carrier() -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let mut request = link::interface(DEVICE);
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

/// Route netlink socket in this thread's network namespace.
struct Route {
    socket: OwnedFd,
}

impl Route {
    fn open() -> anyhow::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is protocol 0.
            None,
        )
        .context("cannot open a route netlink socket")?;
        Ok(Self { socket })
    }

    fn ask(&self, message: &Message) -> anyhow::Result<()> {
        const ERROR_BYTES: usize = HEADER_BYTES + 4;
        send(self.socket.as_fd(), &message.finished(), SendFlags::empty())?;
        let mut answer = [0; 1024];
        let (_, length) = recv(self.socket.as_fd(), &mut answer, RecvFlags::empty())?;
        // The acknowledgement is an error message, whose code 0 means success.
        ensure!(
            length >= ERROR_BYTES,
            "the kernel's answer has {length} bytes"
        );
        let [.., a, b, c, d] = *answer
            .first_chunk::<ERROR_BYTES>()
            .context("the kernel's answer is short")?;
        match i32::from_ne_bytes([a, b, c, d]) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error.wrapping_neg()).into()),
        }
    }
}

/// Length of a struct nlmsghdr.
const HEADER_BYTES: usize = 16;
/// A struct ifinfomsg with nothing but the device's index.
fn device(index: u32) -> [u8; 16] {
    let mut device = [0; 16];
    device[4..8].copy_from_slice(&index.to_ne_bytes());
    device
}

/// A netlink message, without its header.
struct Message {
    kind: u16,
    body: Vec<u8>,
}

impl Message {
    /// Prepends the header: create, and acknowledge.
    fn finished(&self) -> Vec<u8> {
        const FLAGS: u16 =
            (libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
        let length = (HEADER_BYTES + self.body.len()) as u32;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(self.kind.to_ne_bytes());
        message.extend(FLAGS.to_ne_bytes());
        // Sequence number and port id: this socket has only one user.
        message.extend([0; 8]);
        message.extend(&self.body);
        message
    }
}

/// Kind of the pair.
#[derive(Clone, Copy)]
enum Kind {
    Veth,
    Netkit,
}

fn new_pair(kind: Kind, [near_index, far_index]: [u32; 2], far: BorrowedFd<'_>) -> Message {
    /// `VETH_INFO_PEER` and `IFLA_NETKIT_PEER_INFO`.
    const PEER_INFO: u16 = 1;
    const IFLA_INFO_DATA: u16 = 2;
    const IFLA_NETKIT_MODE: u16 = 5;
    /// L2 mode, like a veth: with Ethernet headers and neighbour resolution.
    const NETKIT_L2: u32 = 0;
    let name = attribute(libc::IFLA_IFNAME, &[DEVICE.as_bytes(), b"\0"]);
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
    Message {
        kind: libc::RTM_NEWLINK,
        body: [&device(near_index)[..], &name, &link].concat(),
    }
}

fn new_address(index: u32, family: libc::c_int, address: &[u8], prefix_bits: u8) -> Message {
    // A struct ifaddrmsg. The link has no other hosts and the address must be usable at once: no
    // duplicate address detection.
    let mut body = vec![family as u8, prefix_bits, libc::IFA_F_NODAD as u8, 0];
    body.extend(index.to_ne_bytes());
    body.extend(attribute(libc::IFA_LOCAL, &[address]));
    body.extend(attribute(libc::IFA_ADDRESS, &[address]));
    Message {
        kind: libc::RTM_NEWADDR,
        body,
    }
}

/// A netlink attribute, padded to the alignment of the next one.
fn attribute(kind: u16, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let length = (4 + value.len()) as u16;
    let mut attribute = length.to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_tells_its_length_without_the_padding() {
        let rows: [(&[&[u8]], &[u8]); 3] = [
            (&[], &[4, 0, 3, 0]),
            (&[b"ab", b"c"], &[7, 0, 3, 0, b'a', b'b', b'c', 0]),
            (&[b"abcd"], &[8, 0, 3, 0, b'a', b'b', b'c', b'd']),
        ];
        for (parts, bytes) in rows {
            assert_eq!(attribute(3, parts), bytes);
        }
    }
}
