//! The paths of a stage: addresses, endpoints, limits, and what happens to them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::{ARRIVE_MS_MAX, CLIENT, LISTENER, MESSAGE_BYTES, SERVER, Stage, own_socket};
use crate::{
    actor::{Order, Reply},
    net::{Endpoint, Family, Kind},
    netns,
    path_manager::{self, Flags, Limits},
    recipes::{
        End, NotHere,
        cast::Who,
        paths::{Spot, Way},
    },
    rules::Rules,
    veth::{self, SECOND_DEVICE, SECOND_V4, SECOND_V6},
};

/// Timeout for a counter that must grow.
const COUNTED_DELAY_MAX: Duration = Duration::from_secs(8);
/// Pause between two readings of a counter.
const COUNTED_DELAY: Duration = Duration::from_millis(20);
/// Bytes of one message that no path carries in one burst.
const BULK_BYTES: usize = 400_000;

impl Stage {
    /// The address at a place.
    #[must_use]
    pub fn address(&self, at: End, spot: Spot) -> IpAddr {
        let (client, server) = self.bed.addresses(self.family);
        let side = match at {
            End::Client => 0,
            End::Server => 1,
        };
        let v4 = |third, fourth| Ipv4Addr::new(10, third, 0, fourth);
        let v6 = |first, last| Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last);
        match (spot, self.family) {
            (Spot::First, _) => [client, server][side],
            (Spot::Second, Family::V6) => SECOND_V6[side].into(),
            (Spot::Second, Family::V4 | Family::Mapped) => SECOND_V4[side].into(),
            (Spot::Third, Family::V6) => v6(0xfd78, 3).into(),
            (Spot::Third, Family::V4 | Family::Mapped) => v4(78, 3).into(),
            (Spot::Foreign, Family::V6) => v6(0xfd79, 1).into(),
            (Spot::Foreign, Family::V4 | Family::Mapped) => v4(79, 1).into(),
            (Spot::Any, Family::V6) => Ipv6Addr::UNSPECIFIED.into(),
            (Spot::Any, Family::V4 | Family::Mapped) => Ipv4Addr::UNSPECIFIED.into(),
        }
    }

    /// Client and server address of a path of a connection; port 0 where it is unknown.
    ///
    /// # Errors
    ///
    /// Fails if there is no such connection.
    pub fn way(&self, connection: usize, way: Way) -> anyhow::Result<(Endpoint, Endpoint)> {
        let ends = self.connections.get(connection);
        let (client, server) = ends.context("a connection was not made")?;
        let spot = |at, spot, port| Endpoint::from(SocketAddr::new(self.address(at, spot), port));
        Ok(match way {
            Way::First => (client.clone(), server.clone()),
            Way::Second => (spot(End::Client, Spot::Second, 0), server.clone()),
            Way::Third => (spot(End::Client, Spot::Third, 0), server.clone()),
            Way::Foreign => (spot(End::Client, Spot::Foreign, 0), server.clone()),
            Way::Announced(port) => (
                spot(End::Client, Spot::Second, 0),
                spot(End::Server, Spot::Second, port.unwrap_or(server.port)),
            ),
        })
    }

    /// Replaces the rules of a path, numbered from 0.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn set_rules(&self, path: usize, rules: Rules) -> anyhow::Result<()> {
        self.bed.set_rules(path, rules)
    }

    /// Sets the limits of an end.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn limit(&self, at: End, paths: u32, addresses: u32) -> anyhow::Result<()> {
        path_manager::limit(self.namespace(at), Limits { paths, addresses })
    }

    /// Adds an endpoint.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn endpoint(&self, at: End, spot: Spot, flags: Flags) -> anyhow::Result<()> {
        path_manager::add(self.namespace(at), self.described(at, spot, flags, None))
    }

    /// Adds an endpoint to announce, with a port of its own.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn endpoint_with_port(&self, port: u16) -> anyhow::Result<()> {
        let endpoint = self.described(End::Server, Spot::Second, Flags::SIGNAL, Some(port));
        path_manager::add(self.namespace(End::Server), endpoint)
    }

    /// Makes the paths of the client's endpoint ordinary ones.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn no_backup(&self) -> anyhow::Result<()> {
        let endpoint = self.described(End::Client, Spot::Second, Flags::SUBFLOW, None);
        path_manager::change(self.namespace(End::Client), endpoint)
    }

    /// Fills the server's table of endpoints with addresses that it does not have, until the kernel
    /// takes no more: 8, or as many as there are address ids on newer kernels.
    ///
    /// # Errors
    ///
    /// Fails if the table is not full then.
    pub fn fill_endpoints(&self) -> anyhow::Result<()> {
        /// Address ids have one byte.
        const ENDPOINTS_MAX: u16 = u8::MAX as u16 + 1;
        for number in 1..=ENDPOINTS_MAX {
            let address = match self.address(End::Server, Spot::Foreign) {
                IpAddr::V4(_) => {
                    let [third, fourth] = number.to_be_bytes();
                    Ipv4Addr::new(10, 80, third, fourth).into()
                }
                IpAddr::V6(_) => Ipv6Addr::new(0xfd80, 0, 0, 0, 0, 0, 0, number).into(),
            };
            let endpoint = path_manager::Endpoint {
                address,
                port: None,
                device: None,
                flags: Flags::NONE,
            };
            if let Err(why) = path_manager::add(self.namespace(End::Server), endpoint) {
                // The first one shows that the address is not the reason.
                return if number > 1 { Ok(()) } else { Err(why) };
            }
        }
        bail!("the kernel takes any number of endpoints")
    }

    /// Opens a path of the client's connection between the second addresses, as a program that
    /// manages paths does.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn open_path(&mut self) -> anyhow::Result<()> {
        const ID: u8 = 7;
        let port = self.target.context("the server does not listen")?.port();
        let socket = CLIENT.to_owned();
        let done = self.order(Who::Client, Order::Token { socket })?;
        let token = done.token.context("a connection without a token")?;
        let local = (self.address(End::Client, Spot::Second), ID);
        let remote = SocketAddr::new(self.address(End::Server, Spot::Second), port);
        path_manager::open_path(self.namespace(End::Client), token, local, remote)
    }

    /// Connects a TCP socket of the client to the server, which does not accept it.
    ///
    /// # Errors
    ///
    /// Fails with the actor's error.
    pub fn connect_unaccepted(&mut self) -> anyhow::Result<()> {
        let to = self.target.context("the server does not listen")?;
        let at = SocketAddr::new(self.address(End::Client, Spot::First), 0);
        let (socket, kind) = ("unaccepted".to_owned(), Kind::Tcp);
        self.order(Who::Client, Order::Open { socket, kind, at })?;
        let socket = "unaccepted".to_owned();
        let patience_ms = None;
        self.order(
            Who::Client,
            Order::Connect {
                socket,
                to,
                patience_ms,
            },
        )?;
        Ok(())
    }

    /// Deletes the first endpoint of an end.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn delete_endpoint(&self, at: End) -> anyhow::Result<()> {
        path_manager::delete(self.namespace(at), 1)
    }

    fn described(
        &self,
        at: End,
        spot: Spot,
        flags: Flags,
        port: Option<u16>,
    ) -> path_manager::Endpoint {
        let is_join = flags != Flags::SIGNAL;
        let is_second = matches!(spot, Spot::Second | Spot::Third);
        path_manager::Endpoint {
            address: self.address(at, spot),
            port,
            device: (is_join && is_second).then_some(SECOND_DEVICE),
            flags,
        }
    }

    fn namespace(&self, at: End) -> std::os::fd::BorrowedFd<'_> {
        match at {
            End::Client => self.bed.near(),
            End::Server => self.bed.far(),
        }
    }

    /// Gives the client a third address, on the second path.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn third_address(&self) -> anyhow::Result<()> {
        let address = self.address(End::Client, Spot::Third);
        veth::add_address(self.bed.near(), SECOND_DEVICE, address)
    }

    /// Brings the client's device of the second path down.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn cut(&self) -> anyhow::Result<()> {
        veth::cut(self.bed.near())
    }

    /// Makes the server also listen on its second address, on the same port.
    ///
    /// # Errors
    ///
    /// Fails with the actor's error.
    pub fn listen_beside(&mut self, kind: Kind) -> anyhow::Result<()> {
        let target = self.target.context("the server does not listen")?;
        let at = SocketAddr::new(self.address(End::Server, Spot::Second), target.port());
        let socket = "beside".to_owned();
        self.order(Who::Server, Order::Listen { socket, kind, at })?;
        Ok(())
    }

    /// Closes the listener.
    ///
    /// # Errors
    ///
    /// Fails with the actor's error.
    pub fn close_listener(&mut self) -> anyhow::Result<()> {
        let socket = LISTENER.to_owned();
        self.order(Who::Server, Order::Close { socket })?;
        Ok(())
    }

    /// Closes the client's socket without lingering.
    ///
    /// # Errors
    ///
    /// Fails with the actor's error.
    pub fn abort(&mut self) -> anyhow::Result<()> {
        let socket = CLIENT.to_owned();
        self.order(Who::Client, Order::Abort { socket })?;
        Ok(())
    }

    /// Closes the client's socket, then the server's.
    ///
    /// # Errors
    ///
    /// Fails with the actor's error.
    pub fn close_in_turn(&mut self) -> anyhow::Result<()> {
        for (who, socket) in [(Who::Client, CLIENT), (Who::Server, SERVER)] {
            let socket = socket.to_owned();
            self.order(who, Order::Close { socket })?;
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Opens a client whose connect must fail.
    ///
    /// # Errors
    ///
    /// Fails if it succeeds.
    pub fn connect_in_vain(&mut self) -> anyhow::Result<()> {
        let to = self.target.context("the server does not listen")?;
        let opening = self.opening(Kind::Mptcp);
        let opened = self.order(Who::Client, opening)?;
        let local = opened.local.context("a socket without an address")?;
        let connect = Order::Connect {
            socket: CLIENT.to_owned(),
            to,
            patience_ms: None,
        };
        match self.try_order(Who::Client, connect)? {
            Reply::Failed { .. } => self.connections.push((local, to.into())),
            Reply::Done(_) => bail!("the connection was made"),
        }
        Ok(())
    }

    /// Sends a lot in one direction, so that all paths are used; it must arrive.
    ///
    /// # Errors
    ///
    /// Fails if it does not arrive.
    pub fn pour(&mut self, from: Who, to: Who) -> anyhow::Result<()> {
        let bytes = BULK_BYTES;
        let socket = own_socket(from).to_owned();
        self.order(from, Order::Pour { socket, bytes })?;
        let order = Order::Recv {
            socket: own_socket(to).to_owned(),
            bytes,
            patience_ms: ARRIVE_MS_MAX,
        };
        let received = self.order(to, order)?.bytes.unwrap_or_default();
        ensure!(received == bytes, "{received} bytes of {bytes} arrived");
        Ok(())
    }

    /// Sends a message that the peer does not receive yet.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be sent.
    pub fn say_unread(&mut self, from: Who) -> anyhow::Result<()> {
        let socket = own_socket(from).to_owned();
        let bytes = MESSAGE_BYTES;
        self.order(from, Order::Send { socket, bytes })?;
        Ok(())
    }

    /// Receives such a message.
    ///
    /// # Errors
    ///
    /// Fails if it does not arrive.
    pub fn read_unread(&mut self, to: Who) -> anyhow::Result<()> {
        let order = Order::Recv {
            socket: own_socket(to).to_owned(),
            bytes: MESSAGE_BYTES,
            patience_ms: ARRIVE_MS_MAX,
        };
        let received = self.order(to, order)?.bytes.unwrap_or_default();
        ensure!(received == MESSAGE_BYTES, "{received} bytes arrived");
        Ok(())
    }

    /// Waits until a counter of an end has grown by this number; a kernel without it gets a pause.
    ///
    /// # Errors
    ///
    /// Fails if it does not grow.
    pub fn until_counted(&self, at: End, counter: &str, number: u64) -> anyhow::Result<()> {
        const UNKNOWN: Duration = Duration::from_millis(700);
        if !self.counts(counter) {
            sleep(UNKNOWN);
            return Ok(());
        }
        let start = Instant::now();
        loop {
            let count = self.counted(at, counter)?;
            if count >= number {
                return Ok(());
            }
            ensure!(
                start.elapsed() < COUNTED_DELAY_MAX,
                "{counter} is {count} after {} s",
                COUNTED_DELAY_MAX.as_secs()
            );
            sleep(COUNTED_DELAY);
        }
    }

    /// Growth of a counter of an end so far.
    ///
    /// # Errors
    ///
    /// Fails if the counters cannot be read.
    pub fn counted(&self, at: End, counter: &str) -> anyhow::Result<u64> {
        let before = match at {
            End::Client => &self.before[0],
            End::Server => &self.before[1],
        };
        let moved = netns::moved(before, &netns::counters(self.namespace(at))?);
        Ok(moved.get(counter).copied().unwrap_or(0))
    }

    /// Sets a sysctl of an end, which the recipe needs.
    ///
    /// # Errors
    ///
    /// Fails if this kernel lacks it.
    pub fn set(&self, at: End, name: &str, value: &str) -> anyhow::Result<()> {
        match netns::set_sysctl(self.namespace(at), name, value)? {
            true => Ok(()),
            false => Err(NotHere("this kernel lacks a sysctl of the recipe").into()),
        }
    }

    /// Sets a sysctl of an end, where there is one.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn set_if_there(&self, at: End, name: &str, value: &str) -> anyhow::Result<()> {
        netns::set_sysctl(self.namespace(at), name, value).map(|_is_there| ())
    }
}
