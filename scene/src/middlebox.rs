//! A middlebox that changes MPTCP packets: an XDP program at each end of a veth or netkit pair
//! rewrites packets on ingress.
//!
//! It needs no other module, no daemon and no thread. Loopback is no substitute: there the kernel
//! hands over the parsed option with the packet and does not notice what is missing in the header.

use std::{
    fs::File,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Mutex, PoisonError},
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

use wire::{
    DEEDS, DROPPED, FLIPPED, MIRRORED, Orders, REJECTED, RENUMBERED, SHORTENED, SKEWED, SPOILT,
    STRIPPED,
};

/// The compiled XDP programs; `cargo xtask bpf --check` proves that they match their source.
#[cfg(feature = "askers")]
static BOXES: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/mptcp-boxes.o"));
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
    /// Packets answered with an RST.
    pub rejected: u64,
    /// Packets with a corrupted `MP_JOIN` option.
    pub spoilt: u64,
    /// SYN/ACKs with the MPTCP option of the SYN.
    pub mirrored: u64,
    /// Packets with other sequence numbers.
    pub renumbered: u64,
}

impl Done {
    fn of(sums: [u64; DEEDS]) -> Self {
        Self {
            stripped: sums[STRIPPED],
            dropped: sums[DROPPED],
            flipped: sums[FLIPPED],
            shortened: sums[SHORTENED],
            skewed: sums[SKEWED],
            rejected: sums[REJECTED],
            spoilt: sums[SPOILT],
            mirrored: sums[MIRRORED],
            renumbered: sums[RENUMBERED],
        }
    }
}

/// Two network namespaces and the pairs of devices that join them. The kernel removes them once
/// this value is dropped, or its process killed, and no process is left inside.
pub struct Middlebox {
    near: File,
    far: File,
    /// One for each pair of devices.
    taps: Vec<Tap>,
}

/// The program at two devices: at one arrives what comes from the client, at the other what comes
/// from the server.
pub(crate) struct Tap {
    /// Index of the device at which the server's packets arrive, and the client's; unique among all
    /// middleboxes of the process.
    devices: [u32; 2],
    program: Program,
    /// The program stays attached as long as these links live.
    _links: [XdpLink; 2],
}

impl Tap {
    /// Attaches the program to the device at which the server's packets arrive, and to the one at
    /// which the client's do: each by its namespace and name.
    pub(crate) fn new(
        program: Program,
        [near, far]: [(BorrowedFd<'_>, &str); 2],
        devices: [u32; 2],
        rules: Rules,
    ) -> anyhow::Result<Self> {
        let links = with_loaded(program, |loaded| {
            loaded.begin_counting(devices)?;
            loaded.order(devices, rules)?;
            let mut attach = |(end, name): (BorrowedFd<'_>, &str)| {
                netns::within(end, || loaded.attach(program, name))
            };
            Ok([attach(near)?, attach(far)?])
        })?;
        Ok(Self {
            devices,
            program,
            _links: links,
        })
    }

    pub(crate) fn set(&self, rules: Rules) -> anyhow::Result<()> {
        with_loaded(self.program, |loaded| loaded.order(self.devices, rules))
    }

    /// Counters of both devices.
    #[cfg(feature = "askers")]
    pub(crate) fn done(&self) -> anyhow::Result<Done> {
        let mut sums = [0; DEEDS];
        self.add_to(&mut sums)?;
        Ok(Done::of(sums))
    }

    fn add_to(&self, sums: &mut [u64; DEEDS]) -> anyhow::Result<()> {
        for device in self.devices {
            let by_processor = with_loaded(self.program, |loaded| {
                let counted = loaded.done.get(&device, 0);
                counted.context("cannot read the middlebox's counters")
            })?;
            for counted in by_processor.iter() {
                for (sum, more) in sums.iter_mut().zip(counted) {
                    *sum += more;
                }
            }
        }
        Ok(())
    }
}

/// The loaded program and its maps. All middleboxes of a process share it, so the kernel verifies
/// it once: on an emulated machine that takes longer than a connection.
struct Loaded {
    programs: Ebpf,
    orders: HashMap<MapData, u32, Orders>,
    done: PerCpuHashMap<MapData, u32, [u64; DEEDS]>,
}

/// An object, and its programs once they are loaded.
struct Object {
    bytes: &'static [u8],
    loaded: Mutex<Option<Loaded>>,
}

static MIDDLEBOX: Object = Object {
    bytes: OBJECT,
    loaded: Mutex::new(None),
};

#[cfg(feature = "askers")]
static ROUTERS: Object = Object {
    bytes: BOXES,
    loaded: Mutex::new(None),
};

/// An XDP program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Program {
    /// Follows the orders for its device, except those that cost the verifier too much.
    Middlebox,
    /// Follows all orders.
    #[cfg(feature = "askers")]
    Box,
    /// Shortens what routers quote to the IP header and 8 bytes.
    #[cfg(feature = "askers")]
    ShortQuotes,
    /// Drops what routers quote.
    #[cfg(feature = "askers")]
    NoQuotes,
}

impl Program {
    #[cfg(all(test, feature = "askers"))]
    const ALL: [Self; 4] = [
        Self::Middlebox,
        Self::Box,
        Self::ShortQuotes,
        Self::NoQuotes,
    ];

    /// Name in the object.
    fn name(self) -> &'static str {
        match self {
            Self::Middlebox => "middlebox",
            #[cfg(feature = "askers")]
            Self::Box => "middlebox",
            #[cfg(feature = "askers")]
            Self::ShortQuotes => "short_quotes",
            #[cfg(feature = "askers")]
            Self::NoQuotes => "no_quotes",
        }
    }

    fn object(self) -> &'static Object {
        match self {
            Self::Middlebox => &MIDDLEBOX,
            #[cfg(feature = "askers")]
            Self::Box | Self::ShortQuotes | Self::NoQuotes => &ROUTERS,
        }
    }
}

/// Attaches a program to a device of a network namespace, for as long as the returned link lives.
#[cfg(feature = "askers")]
pub(crate) fn attach(
    namespace: BorrowedFd<'_>,
    device: &str,
    program: Program,
) -> anyhow::Result<XdpLink> {
    with_loaded(program, |loaded| {
        netns::within(namespace, || loaded.attach(program, device))
    })
}

impl Loaded {
    fn new(object: &[u8]) -> anyhow::Result<Self> {
        // Without the kernel's BTF: nothing here needs relocation, and parsing BTF is slow.
        let mut programs = EbpfLoader::new()
            .btf(None)
            .load(object)
            .context("cannot load the middlebox's BPF object")?;
        let orders = programs
            .take_map("ORDERS")
            .context("the middlebox's BPF object has no map ORDERS")?;
        let done = programs
            .take_map("DONE")
            .context("the middlebox's BPF object has no map DONE")?;
        Ok(Self {
            programs,
            orders: HashMap::try_from(orders)?,
            done: PerCpuHashMap::try_from(done)?,
        })
    }

    /// Loads a program that is not loaded yet.
    fn load(&mut self, program: Program) -> anyhow::Result<()> {
        let xdp = self.program(program)?;
        if xdp.fd().is_ok() {
            return Ok(());
        }
        let name = program.name();
        xdp.load()
            .with_context(|| format!("cannot load the XDP program {name} of the middlebox"))
    }

    fn program(&mut self, program: Program) -> anyhow::Result<&mut Xdp> {
        let program = self
            .programs
            .program_mut(program.name())
            .context("the middlebox's BPF object has no program of its name")?;
        Ok(program.try_into()?)
    }

    /// Attaches a loaded program in this thread's network namespace.
    fn attach(&mut self, program: Program, device: &str) -> anyhow::Result<XdpLink> {
        let program = self.program(program)?;
        // Generic mode: native XDP on veth needs a program at both ends and a queue for each CPU.
        let link: XdpLinkId = program
            .attach(device, XdpMode::Skb)
            .context("cannot attach the XDP program of the middlebox")?;
        Ok(program.take_link(link)?)
    }

    fn order(&mut self, [near, far]: [u32; 2], rules: Rules) -> anyhow::Result<()> {
        let ends = [
            (near, Orders::new(false, rules.to_client, near)),
            (far, Orders::new(true, rules.to_server, near)),
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

/// Runs a closure on the object of a program, which is loaded on first use.
fn with_loaded<T>(
    program: Program,
    act: impl FnOnce(&mut Loaded) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let object = program.object();
    let mut loaded = object.loaded.lock().unwrap_or_else(PoisonError::into_inner);
    if loaded.is_none() {
        *loaded = Some(Loaded::new(object.bytes)?);
    }
    let loaded = loaded
        .as_mut()
        .context("the middlebox's program is not loaded")?;
    loaded.load(program)?;
    act(loaded)
}

impl Middlebox {
    /// Creates and joins the namespaces; all packets pass unchanged.
    ///
    /// # Errors
    ///
    /// Fails without root, without veth or BPF in the kernel, or beyond 128 middleboxes at a time.
    pub fn new() -> anyhow::Result<Self> {
        let (near, far, devices) = veth::joined_apart()?;
        Self::between(near, far, &[(veth::DEVICE, devices)])
    }

    /// Creates namespaces with two pairs between them: two paths.
    ///
    /// # Errors
    ///
    /// Fails as `new` does.
    pub fn with_two_paths() -> anyhow::Result<Self> {
        let (near, far, first) = veth::joined_apart()?;
        let second = veth::join_again(near.as_fd(), far.as_fd())?;
        let pairs = [(veth::DEVICE, first), (veth::SECOND_DEVICE, second)];
        Self::between(near, far, &pairs)
    }

    fn between(near: File, far: File, pairs: &[(&str, [u32; 2])]) -> anyhow::Result<Self> {
        let taps = pairs.iter().map(|&(name, devices)| {
            let ends = [(near.as_fd(), name), (far.as_fd(), name)];
            Tap::new(Program::Middlebox, ends, devices, Rules::default())
        });
        let taps = taps.collect::<anyhow::Result<_>>()?;
        Ok(Self { near, far, taps })
    }

    /// Replaces the rules of the first path. The packet counters of each connection and direction continue.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn set(&self, rules: Rules) -> anyhow::Result<()> {
        self.set_on(0, rules)
    }

    /// Replaces the rules of the path with this number, from 0.
    ///
    /// # Errors
    ///
    /// Fails if there is no such path, or with the kernel's error.
    pub fn set_on(&self, path: usize, rules: Rules) -> anyhow::Result<()> {
        let tap = self.taps.get(path).context("there is no such path")?;
        tap.set(rules)
    }

    /// Reads the counters.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    pub fn done(&self) -> anyhow::Result<Done> {
        let mut sums = [0; DEEDS];
        for tap in &self.taps {
            tap.add_to(&mut sums)?;
        }
        Ok(Done::of(sums))
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

impl Drop for Tap {
    fn drop(&mut self) {
        // Free the entries for the next one. An entry that cannot be removed costs only space.
        let _failed = with_loaded(self.program, |loaded| {
            for device in &self.devices {
                loaded.orders.remove(device)?;
                loaded.done.remove(device)?;
            }
            Ok(())
        });
    }
}

impl Orders {
    fn new(is_to_server: bool, treatment: Treatment, pair: u32) -> Self {
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
            drop_syn: treatment.drop_syn.into(),
            drop_all: treatment.drop_all.into(),
            drop_rest: treatment.drop_rest.into(),
            reject: treatment.reject.into(),
            spoil_join_syn: treatment.spoil_join_syn.into(),
            spoil_join_ack: treatment.spoil_join_ack.into(),
            compact: treatment.compact.into(),
            strip_dss: treatment.strip_dss.into(),
            drop_option_syn: treatment.drop_option_syn.into(),
            mirror: if treatment.mirror { pair } else { 0 },
            sequence_add: treatment.sequence_add,
            acknowledgement_add: treatment.acknowledgement_add,
        }
    }
}

#[cfg(all(test, feature = "askers"))]
mod tests {
    use super::*;

    /// Maximum number of instructions for the verifier: more would be noticeably slow on an
    /// emulated machine. Boxes of routers are not played there.
    const VERIFIED_MAX: u32 = 60_000;

    #[test]
    fn the_verifier_is_through_with_the_program_soon() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root to load BPF programs");
            return;
        }
        for program in Program::ALL {
            let verified = with_loaded(program, |loaded| {
                let info = loaded.program(program)?.info()?;
                info.verified_instruction_count()
                    .context("this kernel does not count them")
            })
            .unwrap();
            println!("{program:?}: {verified}");
            assert!(
                verified < VERIFIED_MAX || program == Program::Box,
                "{program:?}: {verified}"
            );
        }
    }
}
