//! A middlebox in the kernel: an XDP program at each end of a veth or netkit pair rewrites what arrives there.
//!
//! It needs no other module, no daemon and no thread. Loopback would be no substitute: there the kernel hands
//! the parsed option along with the packet, and does not miss what the header has lost.

use std::{
    fs::File,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Mutex, PoisonError},
};

use anyhow::Context as _;
use aya::{
    Ebpf, Pod,
    maps::{Array, MapData, PerCpuArray},
    programs::{Xdp, XdpMode},
};

use crate::{
    netns,
    rules::{Rules, Treatment},
    veth,
};

#[path = "../../lab-ebpf/src/wire.rs"]
mod wire;

use wire::{DEEDS, DROPPED, FLIPPED, Orders, SHORTENED, SKEWED, STRIPPED, TO_CLIENT, TO_SERVER};

/// The compiled XDP programs; `cargo xtask bpf --check` proves that they are what the source gives.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/bpf/mptcp-middlebox.o"
));

// SAFETY: 32-bit numbers only, so there is no padding, and every pattern of bits is a value.
unsafe impl Pod for Orders {}

/// What the middlebox has done so far, in packets of either direction.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Done {
    /// Lost their MPTCP options.
    pub stripped: u64,
    /// Were dropped.
    pub dropped: u64,
    /// Had a byte of their payload flipped.
    pub flipped: u64,
    /// Had their DSS data-level length made smaller.
    pub shortened: u64,
    /// Had their DSS subflow sequence number made wrong.
    pub skewed: u64,
}

/// Two network namespaces and what is between them. Nothing is left of it when it is dropped, or the process
/// killed, and nobody is inside any more.
pub struct Middlebox {
    near: File,
    far: File,
    orders: Mutex<Array<MapData, Orders>>,
    done: PerCpuArray<MapData, u64>,
    /// The programs stay where they are as long as this lives.
    _programs: Ebpf,
}

impl Middlebox {
    /// Makes the namespaces, joins them, and lets everything pass.
    ///
    /// # Errors
    ///
    /// Fails if this is not root, or the kernel has no veth or no BPF.
    pub fn new() -> anyhow::Result<Self> {
        let (near, far) = veth::joined()?;
        let mut programs = Ebpf::load(OBJECT).context("cannot load the middlebox's BPF object")?;
        let mut orders = Array::try_from(
            programs
                .take_map("ORDERS")
                .context("the middlebox's BPF object has no map ORDERS")?,
        )?;
        let done = PerCpuArray::try_from(
            programs
                .take_map("DONE")
                .context("the middlebox's BPF object has no map DONE")?,
        )?;
        order(&mut orders, Rules::default())?;
        for (name, namespace) in [("to_server", far.as_fd()), ("to_client", near.as_fd())] {
            netns::within(namespace, || attach(&mut programs, name))?;
        }
        Ok(Self {
            near,
            far,
            orders: Mutex::new(orders),
            done,
            _programs: programs,
        })
    }

    /// From now on, do this. Packets are counted on, by connection and direction.
    ///
    /// # Errors
    ///
    /// What the kernel refuses with.
    pub fn set(&self, rules: Rules) -> anyhow::Result<()> {
        order(
            &mut self.orders.lock().unwrap_or_else(PoisonError::into_inner),
            rules,
        )
    }

    /// What was done so far.
    ///
    /// # Errors
    ///
    /// What the kernel refuses with.
    pub fn done(&self) -> anyhow::Result<Done> {
        let mut sums = [0; DEEDS as usize];
        for (slot, sum) in (0..).zip(&mut sums) {
            let by_cpu = self
                .done
                .get(&slot, 0)
                .context("cannot ask what the middlebox has done")?;
            *sum = by_cpu.iter().sum();
        }
        let of = |slot: u32| sums[slot as usize];
        Ok(Done {
            stripped: of(STRIPPED),
            dropped: of(DROPPED),
            flipped: of(FLIPPED),
            shortened: of(SHORTENED),
            skewed: of(SKEWED),
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

/// Attaches one of the programs in this thread's network namespace.
fn attach(programs: &mut Ebpf, name: &str) -> anyhow::Result<()> {
    let program: &mut Xdp = programs
        .program_mut(name)
        .with_context(|| format!("the middlebox's BPF object has no program {name}"))?
        .try_into()?;
    program
        .load()
        .with_context(|| format!("cannot load the XDP program {name}"))?;
    // Generic mode: the driver's own would want a program at both ends and a queue for each processor.
    program
        .attach(veth::DEVICE, XdpMode::Skb)
        .with_context(|| format!("cannot attach the XDP program {name}"))?;
    Ok(())
}

fn order(orders: &mut Array<MapData, Orders>, rules: Rules) -> anyhow::Result<()> {
    for (direction, treatment) in [(TO_SERVER, rules.to_server), (TO_CLIENT, rules.to_client)] {
        orders
            .set(direction, Orders::from(treatment), 0)
            .context("cannot tell the middlebox what to do")?;
    }
    Ok(())
}

impl From<Treatment> for Orders {
    fn from(treatment: Treatment) -> Self {
        /// The number of a data packet that never comes.
        const NEVER: u32 = u32::MAX;
        Self {
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

    /// Instructions that the verifier may look at: more would be felt on an emulated machine.
    const VERIFIED_MAX: u32 = 60_000;

    #[test]
    fn the_verifier_is_through_with_the_programs_soon() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root to load BPF programs");
            return;
        }
        let mut programs = Ebpf::load(OBJECT).unwrap();
        for name in ["to_server", "to_client"] {
            let program: &mut Xdp = programs.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap();
            let verified = program
                .info()
                .unwrap()
                .verified_instruction_count()
                .unwrap();
            println!("{name}: {verified}");
            assert!(verified < VERIFIED_MAX, "{name}: {verified}");
        }
    }
}
