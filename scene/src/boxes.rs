//! The boxes that stand in the way of MPTCP: eight kinds, each installed in a router with one call.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use socket2::SockRef;

use crate::{
    middlebox::{Done, Program, Tap},
    net::{self, Family, Kind},
    rules::{Rules, Treatment},
};

/// What a box does to MPTCP.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BoxKind {
    /// Overwrites MPTCP options with NOPs, in both directions.
    Clear,
    /// Removes MPTCP options in both directions; the rest of the header moves up.
    Compact,
    /// Drops SYNs with an MPTCP option.
    DropSyn,
    /// Takes DSS out of all packets, in both directions, and leaves other MPTCP options.
    StripData,
    /// Overwrites the MPTCP option of SYN/ACKs with NOPs.
    StripSynAck,
    /// Sends the MPTCP option of the SYN back in the SYN/ACK, in the place of the server's.
    Mirror,
    /// Answers in the place of the server, by plain TCP, and makes a connection of its own to it.
    Proxy,
    /// Changes the sequence numbers of both directions, and the acknowledgement numbers accordingly.
    Rewrite,
}

/// Where a box is installed: a router with a device on the way to the client, and one on the way to
/// the server.
#[derive(Debug)]
pub struct Place<'a> {
    /// The router's network namespace.
    pub namespace: BorrowedFd<'a>,
    /// Name of the device on the way to the client.
    pub to_client: String,
    /// Name of the device on the way to the server.
    pub to_server: String,
    /// Indices of both devices, in this order; unique within this process.
    pub(crate) indices: [u32; 2],
}

/// A box that works as long as this value lives.
pub struct Installed(Works);

enum Works {
    Xdp(Tap),
    Proxy(#[expect(dead_code, reason = "dropping it ends the proxy")] Proxy),
}

impl BoxKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Clear,
        Self::Compact,
        Self::DropSyn,
        Self::StripData,
        Self::StripSynAck,
        Self::Mirror,
        Self::Proxy,
        Self::Rewrite,
    ];

    /// Name in output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Compact => "compact",
            Self::DropSyn => "drop-syn",
            Self::StripData => "strip-data",
            Self::StripSynAck => "strip-synack",
            Self::Mirror => "mirror",
            Self::Proxy => "proxy",
            Self::Rewrite => "rewrite",
        }
    }

    /// Installs the box, for IPv4 and IPv6.
    ///
    /// # Errors
    ///
    /// Names the step that failed; a proxy needs the program `nft`.
    pub fn install(self, place: &Place<'_>) -> anyhow::Result<Installed> {
        let Some(rules) = self.rules() else {
            return Ok(Installed(Works::Proxy(Proxy::start(place)?)));
        };
        treat(place, rules).with_context(|| format!("cannot install the box {}", self.name()))
    }

    /// What the box does to packets; none for the proxy, which has connections of its own.
    fn rules(self) -> Option<Rules> {
        /// Added to the sequence numbers of the client and of the server.
        const SHIFTS: [u32; 2] = [0x1234_5678, 0x9abc_def1];
        let both = |treatment| Rules {
            to_server: treatment,
            to_client: treatment,
        };
        let none = Treatment::NONE;
        let clear = Treatment {
            strip_syn: true,
            strip_from: Some(0),
            ..none
        };
        Some(match self {
            Self::Clear => both(clear),
            Self::Compact => both(Treatment {
                compact: true,
                ..clear
            }),
            Self::DropSyn => Rules {
                to_server: Treatment {
                    drop_option_syn: true,
                    ..none
                },
                to_client: none,
            },
            Self::StripData => both(Treatment {
                strip_dss: true,
                ..none
            }),
            Self::StripSynAck => Rules {
                to_server: none,
                to_client: Treatment {
                    strip_syn: true,
                    ..none
                },
            },
            Self::Mirror => both(Treatment {
                mirror: true,
                ..none
            }),
            Self::Proxy => return None,
            Self::Rewrite => Rules {
                to_server: Treatment {
                    sequence_add: SHIFTS[0],
                    acknowledgement_add: SHIFTS[1].wrapping_neg(),
                    ..none
                },
                to_client: Treatment {
                    sequence_add: SHIFTS[1],
                    acknowledgement_add: SHIFTS[0].wrapping_neg(),
                    ..none
                },
            },
        })
    }
}

/// Installs a box that follows rules, for IPv4 and IPv6.
///
/// # Errors
///
/// Names the step that failed.
pub fn treat(place: &Place<'_>, rules: Rules) -> anyhow::Result<Installed> {
    let [to_client, to_server] = place.indices;
    // The server's packets arrive at the device on the way to it.
    let ends = [
        (place.namespace, place.to_server.as_str()),
        (place.namespace, place.to_client.as_str()),
    ];
    let tap = Tap::new(Program::Box, ends, [to_server, to_client], rules)
        .context("cannot install a box")?;
    Ok(Installed(Works::Xdp(tap)))
}

impl Installed {
    /// Replaces what it does to packets; a proxy stays as it is.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn set(&self, rules: Rules) -> anyhow::Result<()> {
        match &self.0 {
            Works::Xdp(tap) => tap.set(rules),
            Works::Proxy(_) => Ok(()),
        }
    }

    /// What the box has done; none for the proxy.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn done(&self) -> anyhow::Result<Option<Done>> {
        match &self.0 {
            Works::Xdp(tap) => tap.done().map(Some),
            Works::Proxy(_) => Ok(None),
        }
    }
}

/// A TCP proxy in a router: nftables redirects connections from the client to it.
struct Proxy {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    fn start(place: &Place<'_>) -> anyhow::Result<Self> {
        let namespace: OwnedFd = place.namespace.try_clone_to_owned()?;
        let listeners = crate::netns::within(place.namespace, || {
            let v4 = listen(Family::V4, 0)?;
            let port = v4.local_addr()?.port();
            let listeners = [v4, listen(Family::V6, port)?];
            redirect(&place.to_client, port)?;
            Ok(listeners)
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("lab-proxy".into())
            .spawn(move || {
                let way = Some(LinkNameSpaceType::Network);
                if let Err(why) = move_into_link_name_space(namespace.as_fd(), way) {
                    eprintln!("the proxy of the lab cannot enter its router: {why}");
                    return;
                }
                serve(&listeners, &until);
            })
            .context("cannot start the proxy")?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed.
            let _panic = thread.join();
        }
    }
}

fn listen(family: Family, port: u16) -> anyhow::Result<TcpListener> {
    let socket = net::open(Kind::Tcp, family).context("cannot open the proxy's socket")?;
    let any: IpAddr = match family {
        Family::V4 | Family::Mapped => [0, 0, 0, 0].into(),
        Family::V6 => {
            socket.set_only_v6(true)?;
            [0_u16; 8].into()
        }
    };
    let at = SocketAddr::new(any, port);
    socket
        .bind(&at.into())
        .with_context(|| format!("the proxy cannot bind to {at}"))?;
    socket.listen(64).context("the proxy cannot listen")?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Redirects TCP connections that arrive at a device to this port of the router.
fn redirect(device: &str, port: u16) -> anyhow::Result<()> {
    let rules = format!(
        "add table inet lab; add chain inet lab to_proxy {{ type nat hook prerouting priority -100; \
         }}; add rule inet lab to_proxy iifname {device} meta l4proto tcp redirect to :{port}"
    );
    nft(&rules)
}

/// Runs `nft` in this thread's network namespace.
///
/// # Errors
///
/// Fails without the program, or with its message.
pub fn nft(rules: &str) -> anyhow::Result<()> {
    let done = Command::new("nft").arg(rules).output();
    let done = done.context("cannot run nft: install the package nftables")?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "nft {rules}: {said}");
    Ok(())
}

/// Serves clients until told to stop; connections end with their ends.
fn serve(listeners: &[TcpListener; 2], stop: &AtomicBool) {
    const INTERVAL: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    while !stop.load(Ordering::Relaxed) {
        let mut ready = listeners
            .each_ref()
            .map(|it| PollFd::new(it, PollFlags::IN));
        if poll(&mut ready, Some(&INTERVAL)).is_err() {
            return;
        }
        for listener in listeners {
            let Ok((client, _address)) = listener.accept() else {
                continue;
            };
            std::thread::spawn(move || {
                if let Err(why) = forward(&client) {
                    eprintln!("the proxy of the lab lost a connection: {why:#}");
                }
            });
        }
    }
}

/// Opens a connection to the server that the client meant, and copies in both directions.
fn forward(client: &TcpStream) -> anyhow::Result<()> {
    const TIMEOUT: Duration = Duration::from_secs(5);
    client.set_nonblocking(false)?;
    let socket = SockRef::from(client);
    let meant = match client.local_addr()? {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    let meant = meant?.as_socket().context("no address")?;
    let server = TcpStream::connect_timeout(&meant, TIMEOUT);
    let server = server.with_context(|| format!("cannot connect to {meant}"))?;
    std::thread::scope(|scope| {
        scope.spawn(|| copy(client, &server));
        copy(&server, client);
    });
    Ok(())
}

/// Copies until the end, and passes the end on.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    // An end that resets the connection ends it too.
    let _reset = io::copy(&mut from, &mut to);
    let _gone = to.shutdown(std::net::Shutdown::Write);
}
