//! Facts about the host, each Yes, No(why) or Unknown(why), independent of their use.

pub mod btf;
pub mod cgroup_root;
pub mod netstat;
mod preemption;
pub mod privileges;
pub mod procfs;
pub mod sandbox;
pub mod symbols;
pub mod system;

use std::{collections::BTreeMap, os::fd::BorrowedFd, path::PathBuf};

use mptcp_trace_common::layout::{ABSENT, Architecture, KernelLayout, KernelNumbers};

use self::{btf::BtfFacts, symbols::Symbols};
use crate::probes::function;

/// An answer about the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fact {
    /// The statement holds.
    Yes,
    /// It does not hold; the sentence gives the evidence.
    No(String),
    /// It could not be determined; the sentence gives the reason. Not the same as no.
    Unknown(String),
}

impl Fact {
    /// Yes if `holds`, else no because of `why`.
    #[must_use]
    pub fn from_bool(holds: bool, why: impl Into<String>) -> Self {
        if holds {
            Self::Yes
        } else {
            Self::No(why.into())
        }
    }

    /// The reason, if this fact is a No.
    #[must_use]
    pub fn objection(&self) -> Option<&str> {
        match self {
            Self::No(why) => Some(why),
            Self::Yes | Self::Unknown(_) => None,
        }
    }
}

/// A PID namespace other than the initial one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PidNamespace {
    /// Inode number.
    pub inum: u32,
    /// Nesting levels between it and that of this process, which is nested in it.
    pub levels_above: u32,
}

/// Where the kernel may preempt a thread inside a program, so that the kernel skips that program
/// for other threads on the CPU until the thread continues.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Preemptible {
    /// In a trampoline (fentry, fexit).
    pub functions: bool,
    /// At a tracepoint.
    pub tracepoints: bool,
}

/// Everything that the plan is based on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostSupport {
    /// `uname -r`.
    pub kernel: String,
    /// May this process load and attach BPF programs?
    pub privileges: Fact,
    /// Is BTF available for this kernel?
    pub btf: Fact,
    /// Does the kernel have its own BTF (required by fexit, whatever `--btf` provides)?
    pub own_btf: Fact,
    /// Was the kernel built with MPTCP?
    pub mptcp: Fact,
    /// Does `net.mptcp.enabled` allow new MPTCP sockets in our network namespace?
    pub mptcp_enabled: Fact,
    /// Does this kernel know `TCP_IS_MPTCP`?
    pub option: Fact,
    /// Does the kernel support kprobes?
    pub kprobes: Fact,
    /// Symbols of the kernel that the attach methods look up.
    pub symbols: Symbols,
    /// Functions that the kernel's BTF describes.
    pub btf_functions: Vec<String>,
    /// Type ids of functions in the kernel's own BTF.
    pub function_numbers: BTreeMap<&'static str, u32>,
    /// The architecture whose member names were looked up.
    pub architecture: Architecture,
    /// Offsets of the members that the probes read.
    pub layout: KernelLayout,
    /// Members that could not be resolved, with the reason.
    pub missing_members: Vec<(String, String)>,
    /// Tracepoints that the kernel's BTF describes.
    pub raw_tracepoints: Vec<String>,
    /// Does the function that decides fallbacks take their cause as an argument?
    pub has_cause_parameter: bool,
    /// MPTCP counters by index, with the names of their enumerators.
    pub counters: Vec<(i32, String)>,
    /// Values of the kernel's `mapping_status` and `skb_ext_id`.
    pub numbers: KernelNumbers,
    /// The PID namespace whose process ids are used, if it is not the initial one: our own, or that
    /// of `--proc`.
    pub pid_namespace: Option<PidNamespace>,
    /// Is this process in the initial PID namespace? Elsewhere, the kernel's iterators visit only
    /// the tasks of that namespace, whatever procfs is used.
    pub visits_all_tasks: bool,
    /// Where the kernel may preempt a thread inside a program.
    pub preemptible: Preemptible,
    /// Number of possible CPUs, if their numbers have no gap.
    pub cpus: Option<u32>,
}

/// Facts from sources other than symbols and types.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Surroundings {
    /// [`HostSupport::kernel`].
    pub kernel: String,
    /// [`HostSupport::privileges`].
    pub privileges: Fact,
    /// [`HostSupport::own_btf`].
    pub own_btf: Fact,
    /// [`HostSupport::mptcp_enabled`].
    pub mptcp_enabled: Fact,
    /// [`HostSupport::option`].
    pub option: Fact,
    /// [`HostSupport::kprobes`].
    pub kprobes: Fact,
    /// [`HostSupport::pid_namespace`].
    pub pid_namespace: Option<PidNamespace>,
    /// [`HostSupport::visits_all_tasks`].
    pub visits_all_tasks: bool,
    /// [`HostSupport::preemptible`].
    pub preemptible: Preemptible,
    /// [`HostSupport::cpus`].
    pub cpus: Option<u32>,
}

impl HostSupport {
    /// Combines the facts about a kernel, running or not. `types` is an error without BTF.
    #[must_use]
    pub fn new(
        surroundings: Surroundings,
        symbols: Symbols,
        types: anyhow::Result<BtfFacts>,
    ) -> Self {
        let Surroundings {
            kernel,
            privileges,
            own_btf,
            mptcp_enabled,
            option,
            kprobes,
            pid_namespace,
            visits_all_tasks,
            preemptible,
            cpus,
        } = surroundings;
        let (btf, facts) = match types {
            Ok(facts) => (Fact::Yes, facts),
            Err(why) => (Fact::No(format!("{why:#}")), BtfFacts::default()),
        };
        Self {
            kernel,
            privileges,
            mptcp: mptcp(&symbols, &btf, &facts, &mptcp_enabled),
            mptcp_enabled,
            option,
            kprobes,
            btf,
            own_btf,
            symbols,
            btf_functions: facts.functions,
            function_numbers: facts.function_numbers,
            architecture: facts.architecture,
            layout: facts.layout,
            missing_members: facts.missing,
            raw_tracepoints: facts.tracepoints,
            has_cause_parameter: facts.has_cause_parameter,
            counters: facts.counters,
            numbers: facts.numbers,
            pid_namespace,
            visits_all_tasks,
            preemptible,
            cpus,
        }
    }

    /// True if the kernel has MPTCP, but not for IPv6.
    #[must_use]
    pub fn is_v4_only(&self) -> bool {
        is_v4_only(&self.layout)
    }

    /// Hides a function of the kernel, as if it had been inlined or removed.
    pub fn hide_function(&mut self, name: &str) {
        self.symbols.hide(name);
        self.btf_functions.retain(|known| known != name);
        self.function_numbers.remove(name);
    }
}

/// Inspects the host.
///
/// Does not fail: what cannot be determined is an Unknown fact. `btf_file` replaces the kernel's
/// own BTF. `mark` marks the queried socket, so that no tracer mistakes it for an application's.
#[must_use]
pub fn inspect(btf_file: Option<&PathBuf>, mark: impl Fn(BorrowedFd<'_>)) -> HostSupport {
    let kernel = system::kernel_release();
    let own_btf = system::own_btf();
    let kprobes = system::kprobes();
    // The two slow ones, in parallel.
    let (symbols, (btf, numbers)) = std::thread::scope(|scope| {
        let symbols = scope.spawn(|| match kprobes.objection() {
            None => symbols::read(),
            // Only kprobes are attached by symbol, and the kernel takes 40 ms to print its table.
            Some(why) => Symbols::unreadable(why),
        });
        let btf = btf::read(&kernel, btf_file.map(PathBuf::as_path));
        let numbers = btf_file.map(|_| btf::function_numbers());
        let symbols = symbols.join().unwrap_or_else(|_panic| {
            Symbols::unreadable("the thread that reads the symbols panicked")
        });
        (symbols, (btf, numbers))
    });
    let surroundings = Surroundings {
        kernel,
        privileges: privileges::may_trace(),
        own_btf,
        mptcp_enabled: system::mptcp_enabled(),
        option: system::option_known(mark),
        kprobes,
        pid_namespace: procfs::pid_namespace(),
        visits_all_tasks: procfs::own_pid_namespace().is_none(),
        preemptible: preemption::preemptible(),
        cpus: system::cpus(),
    };
    let mut host = HostSupport::new(surroundings, symbols, btf);
    // The ids come from the running kernel, since those in another file differ.
    if let Some(numbers) = numbers {
        host.function_numbers = numbers;
    }
    host
}

/// True for a kernel whose addresses of paths have no room for IPv6.
fn is_v4_only(layout: &KernelLayout) -> bool {
    layout.address_v4 != ABSENT && layout.address_v6 == ABSENT
}

/// The kernel's symbols are the best source; its types come second, its settings third.
fn mptcp(symbols: &Symbols, btf: &Fact, facts: &BtfFacts, enabled: &Fact) -> Fact {
    match symbols.find(function::MPTCP_GETSOCKOPT) {
        Ok(Some(_)) => Fact::Yes,
        Ok(None) => Fact::No("the kernel has no function mptcp_getsockopt (CONFIG_MPTCP)".into()),
        Err(why) => match btf {
            Fact::Yes => Fact::from_bool(
                facts.has_mptcp,
                "the kernel's type information has no struct mptcp_subflow_context (CONFIG_MPTCP)",
            ),
            Fact::No(_) | Fact::Unknown(_) => match enabled {
                // A kernel without MPTCP has no such setting.
                Fact::Yes | Fact::No(_) => Fact::Yes,
                Fact::Unknown(_) => Fact::Unknown(why.to_owned()),
            },
        },
    }
}
