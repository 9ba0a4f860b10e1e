//! A middlebox that changes MPTCP packets: an XDP program at each end of a veth or netkit pair
//! rewrites packets on ingress.
//!
//! It needs no other module, no daemon and no thread. Loopback is no substitute: there the kernel
//! hands over the parsed option with the packet and does not notice what is missing in the header.

use std::{
    fs::File,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{HashMap, MapData, PerCpuHashMap, PerCpuValues},
    programs::{
        Xdp, XdpMode,
        xdp::{XdpLink, XdpLinkId},
    },
    util::nr_cpus,
};

use socket2::Socket;

use crate::{
    net::{self, Family, Kind},
    netns,
    rules::{Rules, Treatment},
    veth::{self, CLIENT_V4, CLIENT_V6, SERVER_V4, SERVER_V6},
};

#[path = "../../scene-ebpf/src/wire.rs"]
mod wire;

use wire::{DEEDS, DROPPED, FLIPPED, Orders, SHORTENED, SKEWED, STRIPPED};

/// The compiled XDP program; `cargo xtask bpf --check` proves that it matches its source.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/bpf/mptcp-middlebox.o"
));

// SAFETY: only 32-bit integers, so there is no padding and every bit pattern is valid.
unsafe impl Pod for Orders {}

/// Counters of the middlebox: packets of both directions since its start.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Done {
    /// Packets with stripped MPTCP options.
    pub stripped: u64,
    /// Dropped packets.
    pub dropped: u64,
    /// Packets with a flipped payload byte.
    pub flipped: u64,
    /// Packets with a decremented DSS data-level length.
    pub shortened: u64,
    /// Packets with a corrupted DSS subflow sequence number.
    pub skewed: u64,
}

/// Two network namespaces and the pair of devices that joins them. The kernel removes them once
/// this value is dropped, or its process killed, and no process is left inside.
pub struct Middlebox {
    near: File,
    far: File,
    /// Device index at the client's end and at the server's; unique among all middleboxes.
    devices: [u32; 2],
    /// The program stays attached as long as these links live.
    _links: [XdpLink; 2],
}

/// The loaded program and its maps. All middleboxes of a process share it, so the kernel verifies
/// it once: on an emulated machine that takes longer than a connection.
struct Loaded {
    programs: Ebpf,
    orders: HashMap<MapData, u32, Orders>,
    done: PerCpuHashMap<MapData, u32, [u64; DEEDS]>,
}

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// Name of the program in the object.
const PROGRAM: &str = "middlebox";

impl Loaded {
    fn new() -> anyhow::Result<Self> {
        // Without the kernel's BTF: nothing here needs relocation, and parsing BTF is slow.
        let mut programs = EbpfLoader::new()
            .btf(None)
            .load(OBJECT)
            .context("cannot load the middlebox's BPF object")?;
        let orders = programs
            .take_map("ORDERS")
            .context("the middlebox's BPF object has no map ORDERS")?;
        let done = programs
            .take_map("DONE")
            .context("the middlebox's BPF object has no map DONE")?;
        let mut loaded = Self {
            programs,
            orders: HashMap::try_from(orders)?,
            done: PerCpuHashMap::try_from(done)?,
        };
        loaded
            .program()?
            .load()
            .context("cannot load the XDP program of the middlebox")?;
        Ok(loaded)
    }

    fn program(&mut self) -> anyhow::Result<&mut Xdp> {
        let program = self
            .programs
            .program_mut(PROGRAM)
            .context("the middlebox's BPF object has no program of its name")?;
        Ok(program.try_into()?)
    }

    /// Attaches the program in this thread's network namespace.
    fn attach(&mut self) -> anyhow::Result<XdpLink> {
        let program = self.program()?;
        // Generic mode: native XDP on veth needs a program at both ends and a queue for each CPU.
        let link: XdpLinkId = program
            .attach(veth::DEVICE, XdpMode::Skb)
            .context("cannot attach the XDP program of the middlebox")?;
        Ok(program.take_link(link)?)
    }

    fn order(&mut self, [near, far]: [u32; 2], rules: Rules) -> anyhow::Result<()> {
        let ends = [
            (near, Orders::new(false, rules.to_client)),
            (far, Orders::new(true, rules.to_server)),
        ];
        for (device, orders) in ends {
            self.orders
                .insert(device, orders, 0)
                .context("cannot write the middlebox's rules")?;
        }
        Ok(())
    }

    fn begin_counting(&mut self, devices: [u32; 2]) -> anyhow::Result<()> {
        let processors = nr_cpus().map_err(|(file, why)| anyhow::anyhow!("{file}: {why}"))?;
        for device in devices {
            let zeros = PerCpuValues::try_from(vec![[0; DEEDS]; processors])?;
            self.done
                .insert(device, zeros, 0)
                .context("cannot create counters for the middlebox")?;
        }
        Ok(())
    }
}

/// Returns the program of this process; loads it on first use.
fn loaded() -> anyhow::Result<MutexGuard<'static, Option<Loaded>>> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if loaded.is_none() {
        *loaded = Some(Loaded::new()?);
    }
    Ok(loaded)
}

/// Runs a closure on the loaded program.
fn with_loaded<T>(act: impl FnOnce(&mut Loaded) -> anyhow::Result<T>) -> anyhow::Result<T> {
    act(loaded()?
        .as_mut()
        .context("the middlebox's program is not loaded")?)
}

impl Middlebox {
    /// Creates and joins the namespaces; all packets pass unchanged.
    ///
    /// # Errors
    ///
    /// Fails without root, without veth or BPF in the kernel, or beyond 128 middleboxes at a time.
    pub fn new() -> anyhow::Result<Self> {
        let (near, far, devices) = veth::joined_apart()?;
        let links = with_loaded(|loaded| {
            loaded.begin_counting(devices)?;
            loaded.order(devices, Rules::default())?;
            let mut attach = |end: &File| netns::within(end.as_fd(), || loaded.attach());
            Ok([attach(&near)?, attach(&far)?])
        })?;
        Ok(Self {
            near,
            far,
            devices,
            _links: links,
        })
    }

    /// Replaces the rules. The packet counters of each connection and direction continue.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn set(&self, rules: Rules) -> anyhow::Result<()> {
        with_loaded(|loaded| loaded.order(self.devices, rules))
    }

    /// Reads the counters.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn done(&self) -> anyhow::Result<Done> {
        let mut sums = [0; DEEDS];
        for device in self.devices {
            let by_processor = with_loaded(|loaded| {
                let counted = loaded.done.get(&device, 0);
                counted.context("cannot read the middlebox's counters")
            })?;
            for counted in by_processor.iter() {
                for (sum, more) in sums.iter_mut().zip(counted) {
                    *sum += more;
                }
            }
        }
        Ok(Done {
            stripped: sums[STRIPPED],
            dropped: sums[DROPPED],
            flipped: sums[FLIPPED],
            shortened: sums[SHORTENED],
            skewed: sums[SKEWED],
        })
    }

    /// Opens a listening socket in the server's namespace.
    ///
    /// # Errors
    ///
    /// Names the step that failed.
    pub fn listen(&self, kind: Kind, family: Family) -> anyhow::Result<Socket> {
        let socket = self.open(self.far(), kind, (server_address(family), 0).into())?;
        socket.listen(16).context("cannot listen")?;
        Ok(socket)
    }

    /// Opens a connection through the middlebox; returns the client's socket and the accepted one.
    ///
    /// # Errors
    ///
    /// Names the step that failed.
    pub fn pair(
        &self,
        kind: Kind,
        listener: &Socket,
        family: Family,
    ) -> anyhow::Result<(Socket, Socket)> {
        let client = self.open(self.near(), kind, (client_address(family), 0).into())?;
        let address = listener
            .local_addr()
            .context("the listener has no address")?;
        client
            .connect(&address)
            .context("cannot connect through the middlebox")?;
        let (server, _peer) = net::accept(listener)?;
        Ok((client, server))
    }

    fn open(
        &self,
        namespace: BorrowedFd<'_>,
        kind: Kind,
        at: SocketAddr,
    ) -> anyhow::Result<Socket> {
        let family = match at {
            SocketAddr::V4(_) => Family::V4,
            SocketAddr::V6(_) => Family::V6,
        };
        netns::within(namespace, || {
            let socket = net::open(kind, family).context("cannot open a socket")?;
            net::bind(&socket, at).with_context(|| format!("cannot bind to {at}"))?;
            Ok(socket)
        })
    }

    /// The client's network namespace.
    #[must_use]
    pub fn near(&self) -> BorrowedFd<'_> {
        self.near.as_fd()
    }

    /// The server's network namespace.
    #[must_use]
    pub fn far(&self) -> BorrowedFd<'_> {
        self.far.as_fd()
    }
}

/// Address of the client's end.
#[must_use]
pub fn client_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => CLIENT_V4.into(),
        Family::V6 => CLIENT_V6.into(),
        Family::Mapped => CLIENT_V4.to_ipv6_mapped().into(),
    }
}

/// Address of the server's end.
#[must_use]
pub fn server_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => SERVER_V4.into(),
        Family::V6 => SERVER_V6.into(),
        Family::Mapped => SERVER_V4.to_ipv6_mapped().into(),
    }
}

impl Drop for Middlebox {
    fn drop(&mut self) {
        // Free the entries for the next middlebox. An entry that cannot be removed costs only
        // space.
        let _failed = with_loaded(|loaded| {
            for device in self.devices {
                loaded.orders.remove(&device)?;
                loaded.done.remove(&device)?;
            }
            Ok(())
        });
    }
}

impl Orders {
    fn new(is_to_server: bool, treatment: Treatment) -> Self {
        /// Number of a data packet that never arrives.
        const NEVER: u32 = u32::MAX;
        Self {
            is_to_server: is_to_server.into(),
            strip_syn: treatment.strip_syn.into(),
            drop_capable_syn: treatment.drop_capable_syn.into(),
            strip_from: treatment.strip_from.unwrap_or(NEVER),
            flip_at: treatment.flip_payload_at.unwrap_or(NEVER),
            shorten_from: treatment.shorten_dss_from.unwrap_or(NEVER),
            skew_from: treatment.skew_subflow_seq_from.unwrap_or(NEVER),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Maximum number of instructions for the verifier: more would be noticeably slow on an
    /// emulated machine.
    const VERIFIED_MAX: u32 = 60_000;

    #[test]
    fn the_verifier_is_through_with_the_program_soon() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root to load BPF programs");
            return;
        }
        let verified = with_loaded(|loaded| {
            let info = loaded.program()?.info()?;
            info.verified_instruction_count()
                .context("this kernel does not count them")
        })
        .unwrap();
        println!("{PROGRAM}: {verified}");
        assert!(verified < VERIFIED_MAX, "{verified}");
    }
}
