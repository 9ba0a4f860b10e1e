//! Facts about the host, each Yes, No(why) or Unknown(why). Knows nothing of how they are used.

pub mod btf;
pub mod netstat;
mod preemption;
pub mod privileges;
pub mod sandbox;
pub mod symbols;
pub mod system;

use std::{collections::BTreeMap, os::fd::BorrowedFd, path::PathBuf};

use mptcp_trace_common::layout::{Architecture, KernelLayout, KernelNumbers};

use self::{btf::BtfFacts, symbols::Symbols};
use crate::probes::function;

/// One thing that we wanted to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fact {
    /// It is so.
    Yes,
    /// It is not so; the sentence says how we know.
    No(String),
    /// It could not be found out; the sentence says why. Not the same as no.
    Unknown(String),
}

impl Fact {
    /// Yes if `so`, else no because of `why`.
    #[must_use]
    pub fn from_bool(so: bool, why: impl Into<String>) -> Self {
        if so { Self::Yes } else { Self::No(why.into()) }
    }

    /// The reason, if this fact rules something out.
    #[must_use]
    pub fn objection(&self) -> Option<&str> {
        match self {
            Self::No(why) => Some(why),
            Self::Yes | Self::Unknown(_) => None,
        }
    }
}

/// Where a process lives when it is not in the initial PID namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PidNamespace {
    /// Its inode number.
    pub inum: u32,
}

/// Where the kernel lets a thread be preempted inside a program, so that the program is not run for others on that
/// CPU until it goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Preemptible {
    /// On a trampoline (fentry, fexit).
    pub functions: bool,
    /// At a tracepoint.
    pub tracepoints: bool,
}

/// Everything the plan is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostSupport {
    /// `uname -r`.
    pub kernel: String,
    /// May this process load and attach BPF programs?
    pub privileges: Fact,
    /// Is there a description of this kernel's types?
    pub btf: Fact,
    /// Does the kernel's own description exist (needed by fexit, whatever `--btf` says)?
    pub own_btf: Fact,
    /// Was the kernel built with MPTCP?
    pub mptcp: Fact,
    /// Does `net.mptcp.enabled` allow new MPTCP sockets in our network namespace?
    pub mptcp_enabled: Fact,
    /// Does this kernel know `TCP_IS_MPTCP`?
    pub option: Fact,
    /// Can functions be probed with breakpoints?
    pub kprobes: Fact,
    /// Symbols of the kernel that the rungs ask for.
    pub symbols: Symbols,
    /// Functions of the kernel that its BTF describes.
    pub btf_functions: Vec<String>,
    /// Numbers of functions among the kernel's own types.
    pub function_numbers: BTreeMap<&'static str, u32>,
    /// Which architecture's member names were looked up.
    pub architecture: Architecture,
    /// Where the kernel keeps what the probes read.
    pub layout: KernelLayout,
    /// Members that could not be resolved, with the reason.
    pub missing_members: Vec<(String, String)>,
    /// Tracepoints of the kernel that its BTF describes.
    pub raw_tracepoints: Vec<String>,
    /// Is the function that decides fallbacks told their cause?
    pub cause_is_told: bool,
    /// Counters of MPTCP by number, with the names of their enumerators.
    pub counters: Vec<(i32, String)>,
    /// Numbers of what the kernel says of a mapping.
    pub numbers: KernelNumbers,
    /// Our PID namespace, if it is not the initial one.
    pub pid_namespace: Option<PidNamespace>,
    /// Where a thread can be preempted inside a program.
    pub preemptible: Preemptible,
    /// How many CPUs there can be, if they are numbered without a gap.
    pub cpus: Option<u32>,
}

/// What is found out in other ways than from symbols and types.
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
    /// [`HostSupport::preemptible`].
    pub preemptible: Preemptible,
    /// [`HostSupport::cpus`].
    pub cpus: Option<u32>,
}

impl HostSupport {
    /// Puts together what was found out about a kernel, running or not. `types` is an error where there is no type
    /// information.
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
            mptcp: mptcp(&symbols, &btf, &facts),
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
            cause_is_told: facts.cause_is_told,
            counters: facts.counters,
            numbers: facts.numbers,
            pid_namespace,
            preemptible,
            cpus,
        }
    }

    /// Forgets a function of the kernel, as if it had been inlined or removed.
    pub fn hide_function(&mut self, name: &str) {
        self.symbols.hide(name);
        self.btf_functions.retain(|known| known != name);
        self.function_numbers.remove(name);
    }
}

/// Looks at the host.
///
/// Nothing in here fails: what cannot be found out is a fact of its own. `btf_file` replaces the kernel's
/// own type information. `mark` marks the socket that is asked about, so that no tracer takes it for an application's.
#[must_use]
pub fn inspect(btf_file: Option<&PathBuf>, mark: impl Fn(BorrowedFd<'_>)) -> HostSupport {
    let own_btf = system::own_btf();
    // The two slow ones, side by side.
    let (symbols, (btf, numbers)) = std::thread::scope(|scope| {
        let symbols = scope.spawn(symbols::read);
        let btf = btf::read(btf_file.map(PathBuf::as_path));
        let numbers = btf_file.map(|_| btf::function_numbers());
        let symbols = symbols.join().unwrap_or_else(|_panic| {
            Symbols::unreadable("the thread that reads the symbols panicked")
        });
        (symbols, (btf, numbers))
    });
    let surroundings = Surroundings {
        kernel: system::kernel_release(),
        privileges: privileges::may_trace(),
        own_btf,
        mptcp_enabled: system::mptcp_enabled(),
        option: system::option_known(mark),
        kprobes: system::kprobes(),
        pid_namespace: system::pid_namespace(),
        preemptible: preemption::preemptible(),
        cpus: system::cpus(),
    };
    let mut host = HostSupport::new(surroundings, symbols, btf);
    // Another file has other numbers, whatever it says of members.
    if let Some(numbers) = numbers {
        host.function_numbers = numbers;
    }
    host
}

/// The kernel's symbols know best; its types are the second witness.
fn mptcp(symbols: &Symbols, btf: &Fact, facts: &BtfFacts) -> Fact {
    match symbols.find(function::MPTCP_GETSOCKOPT) {
        Ok(Some(_)) => Fact::Yes,
        Ok(None) => Fact::No("the kernel has no function mptcp_getsockopt (CONFIG_MPTCP)".into()),
        Err(why) => match btf {
            Fact::Yes => Fact::from_bool(
                facts.has_mptcp,
                "the kernel's type information has no struct mptcp_subflow_context (CONFIG_MPTCP)",
            ),
            Fact::No(_) | Fact::Unknown(_) => Fact::Unknown(why.to_owned()),
        },
    }
}
