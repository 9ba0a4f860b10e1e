//! A connection of two paths between the namespaces of a test bed.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, BorrowedFd},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use socket2::Socket;

use crate::{
    account,
    net::{self, Family, Kind},
    netns,
    path_manager::{self, Endpoint, Flags, Limits},
    recipes::TestBed,
    veth::{SECOND_DEVICE, SECOND_V4, SECOND_V6},
    wait::Patience,
};

/// Timeout for a second path, and for what is on its way: an emulated machine is slow.
pub(super) const PATIENCE: Patience =
    Patience::new(Duration::from_secs(30), Duration::from_millis(20));
/// Bytes in each direction that bring the second path up: the kernel joins after data.
const FIRST_BYTES: usize = 10_000;

/// Both ends.
pub(super) struct Joined {
    pub(super) client: Socket,
    pub(super) server: Socket,
    /// The join needs it.
    _listener: Socket,
}

/// Makes both ends accept a second path, and the client open one for each connection of this family.
pub(crate) fn prepare(
    near: BorrowedFd<'_>,
    far: BorrowedFd<'_>,
    family: Family,
) -> anyhow::Result<()> {
    let limits = Limits {
        paths: 2,
        addresses: 0,
    };
    path_manager::limit(near, limits)?;
    path_manager::limit(far, limits)?;
    let address: IpAddr = match family {
        Family::V4 | Family::Mapped => SECOND_V4[0].into(),
        Family::V6 => SECOND_V6[0].into(),
    };
    let endpoint = Endpoint {
        address,
        port: None,
        device: Some(SECOND_DEVICE),
        flags: Flags::SUBFLOW,
    };
    path_manager::add(near, endpoint)
}

/// Waits until both ends have this number of paths beside the first one.
pub(crate) fn have_joins(ends: [&Socket; 2], number: u8) -> anyhow::Result<bool> {
    let joins = |end: &Socket| account::connection(end.as_raw_fd()).map(|it| it.joins);
    PATIENCE.holds(|| Ok(joins(ends[0])? == number && joins(ends[1])? == number))
}

impl Joined {
    /// Opens a connection, and waits until its second path is up at both ends.
    pub(super) fn open(bed: &TestBed, family: Family) -> anyhow::Result<Self> {
        let joined = Self::connect(bed, family)?;
        ensure!(joined.has_joins(1)?, "the second path does not come up");
        Ok(joined)
    }

    /// Opens a connection that may have more paths.
    pub(super) fn connect(bed: &TestBed, family: Family) -> anyhow::Result<Self> {
        let (client, server) = bed.addresses(family);
        let socket = |namespace: BorrowedFd<'_>, address: IpAddr| {
            netns::within(namespace, || {
                let socket = net::open(Kind::Mptcp, family).context("cannot open a socket")?;
                net::bind(&socket, SocketAddr::new(address, 0))?;
                Ok(socket)
            })
        };
        let listener = socket(bed.far(), server)?;
        listener.listen(4).context("cannot listen")?;
        let client = socket(bed.near(), client)?;
        let to = listener.local_addr()?;
        client.connect(&to).context("cannot connect")?;
        let (server, _peer) = net::accept(&listener)?;
        let joined = Self {
            client,
            server,
            _listener: listener,
        };
        joined.exchange(FIRST_BYTES)?;
        Ok(joined)
    }

    /// Waits until both ends have this number of paths beside the first one.
    pub(super) fn has_joins(&self, number: u8) -> anyhow::Result<bool> {
        have_joins([&self.client, &self.server], number)
    }

    /// Sends bytes in both directions at once.
    pub(super) fn exchange(&self, bytes: usize) -> anyhow::Result<()> {
        let send = |mut from: &Socket| from.write_all(&vec![b'l'; bytes]).context("cannot send");
        let receive = |mut to: &Socket| {
            to.set_read_timeout(Some(PATIENCE.limit))?;
            to.read_exact(&mut vec![0; bytes])
                .context("data is missing")
        };
        std::thread::scope(|scope| {
            let all = [
                scope.spawn(move || send(&self.client)),
                scope.spawn(move || send(&self.server)),
                scope.spawn(move || receive(&self.client)),
                scope.spawn(move || receive(&self.server)),
            ];
            for one in all {
                let done = one.join();
                done.map_err(|_panic| anyhow::anyhow!("a thread panicked"))??;
            }
            Ok(())
        })
    }
}
