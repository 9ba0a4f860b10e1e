//! A client and a server with routers between them: a network namespace for each, joined by veth
//! pairs, with IPv4 and IPv6.
//!
//! The namespaces are anonymous, as those of [`veth`](crate::veth).

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd as _, BorrowedFd},
};

use anyhow::Context as _;
use aya::programs::xdp::XdpLink;

use crate::{
    boxes::{BoxKind, Installed, Place},
    middlebox::{self, Program},
    net::Family,
    netlink::Netlink,
    netns,
    veth::{self, End, Offloads},
};

/// Maximum number of routers of a chain.
pub const ROUTERS_MAX: usize = 16;

/// What a router sends about a packet whose time to live it has used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quoting {
    /// The whole header, as Linux does.
    Full,
    /// The IP header and 8 bytes of the TCP header (RFC 792).
    Short,
    /// Nothing.
    Silent,
}

/// A client, routers and a server. The kernel removes them once this value is dropped, or its process
/// killed, and no process is left inside.
pub struct Chain {
    /// Client, routers, server.
    nodes: Vec<File>,
    /// Of each link, the device index at the client's side and at the server's.
    links: Vec<[u32; 2]>,
}

impl Chain {
    /// Joins a client and a server by routers; returns once packets can be sent.
    ///
    /// # Errors
    ///
    /// Names the step that failed; fails without root, or with more than [`ROUTERS_MAX`] routers.
    pub fn new(routers: usize) -> anyhow::Result<Self> {
        anyhow::ensure!(
            (1..=ROUTERS_MAX).contains(&routers),
            "a chain has 1 to {ROUTERS_MAX} routers"
        );
        let nodes: Vec<File> = (0..routers + 2)
            .map(|_node| netns::new())
            .collect::<anyhow::Result<_>>()?;
        for node in &nodes {
            // A router asks for the address of a neighbour from its link-local one, and would wait
            // for the detection of duplicates.
            for who in ["all", "default"] {
                let name = format!("net.ipv6.conf.{who}.accept_dad");
                netns::set_sysctl(node.as_fd(), &name, "0")?;
            }
        }
        let mut links = Vec::new();
        for (link, pair) in nodes.windows(2).enumerate() {
            let devices = [veth::next_index(), veth::next_index()];
            let name = device(link);
            let end = |side: usize| End {
                namespace: pair[side].as_fd(),
                name: &name,
                v4: v4(link, side),
                v6: v6(link, side),
            };
            veth::join([end(0), end(1)], devices, Offloads::Off)?;
            links.push(devices);
        }
        let chain = Self { nodes, links };
        for node in 0..chain.nodes.len() {
            chain.set_up(node)?;
        }
        for family in Family::BOTH {
            let ends = [chain.client_address(family), chain.server_address(family)];
            veth::resolve(chain.client(), ends, family)?;
        }
        Ok(chain)
    }

    /// Number of routers.
    #[must_use]
    pub fn routers(&self) -> usize {
        self.links.len() - 1
    }

    /// The client's network namespace.
    #[must_use]
    pub fn client(&self) -> BorrowedFd<'_> {
        self.node(0)
    }

    /// The server's network namespace.
    #[must_use]
    pub fn server(&self) -> BorrowedFd<'_> {
        self.node(self.nodes.len() - 1)
    }

    /// The network namespace of a router, counted from 1 at the client's side.
    #[must_use]
    pub fn router(&self, number: usize) -> BorrowedFd<'_> {
        self.node(number)
    }

    fn node(&self, number: usize) -> BorrowedFd<'_> {
        self.nodes[number].as_fd()
    }

    /// Address of the client.
    #[must_use]
    pub fn client_address(&self, family: Family) -> IpAddr {
        address(0, 0, family)
    }

    /// Address of the server.
    #[must_use]
    pub fn server_address(&self, family: Family) -> IpAddr {
        address(self.routers(), 1, family)
    }

    /// The address from which a router, counted from 1, reports what it drops.
    #[must_use]
    pub fn router_address(&self, number: usize, family: Family) -> IpAddr {
        address(number - 1, 1, family)
    }

    /// Installs a box in a router, counted from 1; it works as long as the returned value lives. It
    /// sees a packet before the router decrements its time to live: from the client's side, the box
    /// is between the router before this one and this router.
    ///
    /// # Errors
    ///
    /// As [`BoxKind::install`].
    pub fn install(&self, kind: BoxKind, router: usize) -> anyhow::Result<Installed> {
        kind.install(&self.place(router))
    }

    /// The two devices of a router.
    #[must_use]
    pub fn place(&self, router: usize) -> Place<'_> {
        let [to_client, to_server] = [router - 1, router].map(device);
        Place {
            namespace: self.node(router),
            to_client,
            to_server,
            indices: [self.links[router - 1][1], self.links[router][0]],
        }
    }

    /// Makes routers, from this one (counted from 1) to the last one, quote as told for as long as the
    /// returned value lives.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn quote(&self, from_router: usize, quoting: Quoting) -> anyhow::Result<Option<Quoted>> {
        // On their way to the client their packets pass this device.
        let attach = |program| {
            let node = self.node(from_router - 1);
            middlebox::attach(node, &device(from_router - 1), program)
        };
        Ok(match quoting {
            Quoting::Full => None,
            Quoting::Short => Some(Quoted(attach(Program::ShortQuotes)?)),
            Quoting::Silent => Some(Quoted(attach(Program::NoQuotes)?)),
        })
    }

    /// Routes and settings of one node.
    fn set_up(&self, node: usize) -> anyhow::Result<()> {
        let last = self.nodes.len() - 1;
        let of_all = [
            ("net.ipv4.conf.all.rp_filter", "0"),
            ("net.ipv4.icmp_ratelimit", "0"),
            ("net.ipv6.icmp.ratelimit", "0"),
        ];
        let of_routers = [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
        ];
        let is_router = node != 0 && node != last;
        let of_routers = of_routers.into_iter().filter(|_setting| is_router);
        for (name, value) in of_all.into_iter().chain(of_routers) {
            netns::set_sysctl(self.node(node), name, value)?;
        }
        netns::within(self.node(node), || {
            if node > 0 {
                // To the client: the node before this one, also for the server.
                let link = node - 1;
                add_routes(&[], [0, 0], self.links[link][1], link, 0)?;
            } else {
                add_routes(&[], [0, 0], self.links[0][0], 0, 1)?;
            }
            if node > 0 && node < last - 1 {
                let network = [
                    network(v4(last - 1, 0).into()),
                    network(v6(last - 1, 0).into()),
                ];
                add_routes(&network, [24, 64], self.links[node][0], node, 1)?;
            }
            Ok(())
        })?;
        let link = node.min(last - 1);
        let side = usize::from(node == last);
        veth::wait_for_address(self.node(node), v6(link, side).into())
    }
}

/// Keeps routers from quoting in full.
pub struct Quoted(#[expect(dead_code, reason = "dropping it detaches the program")] XdpLink);

/// Adds a route for each address family, through the node at one side of a link.
fn add_routes(
    networks: &[Vec<u8>],
    prefix_bits: [u8; 2],
    index: u32,
    link: usize,
    side: usize,
) -> anyhow::Result<()> {
    let gateways = [
        (libc::AF_INET, v4(link, side).octets().to_vec()),
        (libc::AF_INET6, v6(link, side).octets().to_vec()),
    ];
    for (which, (family, gateway)) in gateways.iter().enumerate() {
        let network = networks.get(which).map(Vec::as_slice).unwrap_or_default();
        let message = veth::route_to(network, prefix_bits[which], index, *family, gateway);
        let asked = Netlink::route()?.ask(&message);
        asked.context("cannot add a route to a chain of routers")?;
    }
    Ok(())
}

/// Bytes of the network of a link.
fn network(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => [&v4.octets()[..3], &[0]].concat(),
        IpAddr::V6(v6) => [&v6.octets()[..8], &[0; 8]].concat(),
    }
}

/// Name of the device of a link, at both ends.
fn device(link: usize) -> String {
    format!("hop{link}")
}

fn address(link: usize, side: usize, family: Family) -> IpAddr {
    match family {
        Family::V4 => v4(link, side).into(),
        Family::V6 => v6(link, side).into(),
        Family::Mapped => v4(link, side).to_ipv6_mapped().into(),
    }
}

/// Address at one side of a link: 0 is the client's.
fn v4(link: usize, side: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 79, link as u8, side as u8 + 1)
}

fn v6(link: usize, side: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd79, 0, 0, link as u16, 0, 0, 0, side as u16 + 1)
}
