//! What we decide from the facts: which probes each sensor gets, and what is lost where it gets less.
//!
//! Pure: no file, no system call, no aya. The plan is a value; `doctor` prints it, [`crate::kernel`]
//! carries it out. Whether the kernel really takes a probe is only known by trying, so the plan is a
//! ladder: the rungs that nothing rules out, best first, and for the others the reason.

use std::fmt;

use mptcp_trace_common::layout::{ABSENT, KernelLayout};

use crate::{
    host::{Fact, HostSupport, privileges::how_to_give},
    model::Rung,
};

mod fallback;

pub(crate) use fallback::OTHERS_UNLISTED;

/// Name of the sensor that sees applications ask.
pub const QUERY: &str = "query";
/// Name of the sensor that sees connections fall back.
pub const FALLBACK: &str = "fallback";

/// Where a probe is attached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// Trampoline at the entry of a function.
    Fentry(String),
    /// Trampoline at the return of a function.
    Fexit(String),
    /// Breakpoint at the entry of a function.
    Kprobe(String),
    /// Breakpoint at the return of a function.
    Kretprobe(String),
    /// Tracepoint by its name alone, with the kernel's own arguments.
    RawTracepoint(&'static str),
    /// The same, with arguments whose types the kernel describes.
    TypedTracepoint(&'static str),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fentry(function) => write!(f, "fentry {function}"),
            Self::Fexit(function) => write!(f, "fexit {function}"),
            Self::Kprobe(function) => write!(f, "kprobe {function}"),
            Self::Kretprobe(function) => write!(f, "kretprobe {function}"),
            Self::RawTracepoint(name) => write!(f, "raw tracepoint {name}"),
            Self::TypedTracepoint(name) => write!(f, "typed tracepoint {name}"),
        }
    }
}

/// One program of the BPF object and its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Name of the program in the object.
    pub program: &'static str,
    /// Where it goes.
    pub target: Target,
}

impl Probe {
    /// True for a probe that opens a question, which comes behind all that close one.
    #[must_use]
    pub fn opens(&self) -> bool {
        match &self.target {
            Target::Fentry(_) | Target::Kprobe(_) => true,
            // What the inner function answers is understood where the outer one returns.
            Target::Fexit(_) => self.program == "query_fexit_mptcp",
            Target::Kretprobe(_) | Target::RawTracepoint(_) | Target::TypedTracepoint(_) => false,
        }
    }

    /// True if the rung is worth climbing without it: what it sees is beside the question.
    #[must_use]
    pub fn is_optional(&self) -> bool {
        [
            "query_fexit_set",
            "query_fexit_socket",
            "query_fexit_sock",
            "query_fexit_create",
            "query_kretprobe_set",
            "query_kprobe_set",
            "query_kretprobe_create",
            "query_kprobe_create",
            "query_tp_uring",
        ]
        .contains(&self.program)
    }
}

/// A rung that nothing rules out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RungPlan {
    /// Which one.
    pub rung: Rung,
    /// Its probes in the order in which they are attached: what closes a question before what opens
    /// one, so that none is opened that nobody closes.
    pub probes: Vec<Probe>,
    /// True if the outermost function that answers is probed, not only an inner one.
    pub outermost_probed: bool,
    /// What this rung cannot tell, a sentence each.
    pub limits: Vec<String>,
}

/// The ladder of one sensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SensorPlan {
    /// Its name.
    pub name: &'static str,
    /// The rungs to try, best first; never empty.
    pub rungs: Vec<RungPlan>,
    /// The rungs that are out, and why.
    pub ruled_out: Vec<(Rung, String)>,
}

/// One way of seeing fallbacks, and the births, owners and deaths of connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FallbackPlan {
    /// Which rung.
    pub rung: Rung,
    /// Its probes in the order in which they are attached.
    pub probes: Vec<Probe>,
    /// True if the function that decides is probed, so that nothing has to be foretold.
    pub decision_probed: bool,
    /// True if births and deaths are seen at the functions that do them.
    pub children_probed: bool,
    /// What this rung cannot tell, a sentence each.
    pub limits: Vec<String>,
}

impl FallbackPlan {
    /// True if the query sensor has a program where this one wants one: that one does both.
    #[must_use]
    pub fn shares_with(&self, query: &RungPlan) -> bool {
        self.probes_beside(query).len() < self.probes.len()
    }

    /// The probes that are needed beside those of the query sensor, in the order in which they are attached.
    #[must_use]
    pub fn probes_beside(&self, query: &RungPlan) -> Vec<Probe> {
        let is_taken = |probe: &&Probe| query.probes.iter().any(|it| it.target == probe.target);
        let mut probes = self.probes.clone();
        probes.retain(|probe| !is_taken(&probe));
        probes
    }
}

/// The rungs of the fallback sensor.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FallbackLadder {
    /// The rungs to try, best first; may be empty.
    pub rungs: Vec<FallbackPlan>,
    /// The rungs that are out, and why.
    pub ruled_out: Vec<(Rung, String)>,
}

impl FallbackLadder {
    /// The rungs to try beside a query sensor on `rung`: that one first, then those below.
    pub fn beside(&self, rung: Rung) -> impl Iterator<Item = &FallbackPlan> {
        self.rungs.iter().filter(move |plan| plan.rung >= rung)
    }
}

/// What is going to be done on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The query sensor; it is mandatory.
    pub query: SensorPlan,
    /// The fallback sensor; without a rung for it there are queries only.
    pub fallback: FallbackLadder,
    /// What the reader should know about this host, a sentence each.
    pub notes: Vec<String>,
}

/// Why this host cannot answer at all, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal(pub String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// What to tell a process that may not trace.
#[must_use]
pub fn unprivileged(why: &str) -> String {
    // No privilege helps there.
    if why.contains("lockdown=") {
        return why.to_owned();
    }
    format!(
        "not enough privileges to load BPF programs: {why}; {}",
        how_to_give()
    )
}

/// Decides from the facts; `only` restricts the ladder to one rung.
///
/// # Errors
///
/// The reason why nothing can be traced on this host.
pub fn plan(host: &HostSupport, only: Option<Rung>) -> Result<Plan, Refusal> {
    if let Fact::No(why) = &host.mptcp {
        return Err(Refusal(format!(
            "this kernel ({}) is built without MPTCP, so there is nothing to trace: {why}; \
             run a kernel with CONFIG_MPTCP=y",
            host.kernel
        )));
    }
    if let Fact::No(why) = &host.privileges {
        return Err(Refusal(unprivileged(why)));
    }
    if let Fact::No(why) = &host.btf {
        return Err(Refusal(why.clone()));
    }
    let mut rungs = Vec::new();
    let mut ruled_out = Vec::new();
    for rung in Rung::LADDER {
        let candidate = match rung {
            Rung::Fexit => fexit(host),
            Rung::Kprobe => kprobe(host),
            Rung::Tracepoint => tracepoint(host),
        };
        match candidate {
            Ok(_) if only.is_some_and(|only| only != rung) => {
                ruled_out.push((rung, "another rung was asked for with --attach".into()));
            }
            Ok(candidate) => rungs.push(candidate),
            Err(why) => ruled_out.push((rung, why)),
        }
    }
    if rungs.is_empty() {
        return Err(no_rung(only, &ruled_out));
    }
    let query = SensorPlan {
        name: QUERY,
        rungs,
        ruled_out,
    };
    Ok(Plan {
        query,
        fallback: fallback::ladder(host, only),
        notes: notes(host),
    })
}

/// The sentence for a ladder without rungs.
#[must_use]
pub fn no_rung(only: Option<Rung>, reasons: &[(Rung, String)]) -> Refusal {
    let relevant: Vec<String> = reasons
        .iter()
        .filter(|(rung, _)| only.is_none_or(|only| only == *rung))
        .map(|(rung, why)| format!("{rung}: {why}"))
        .collect();
    let advice = match only {
        Some(_) => "try --attach auto",
        None => "mptcp-trace doctor tells more",
    };
    Refusal(format!(
        "no way to see queries on this kernel: {}; {advice}",
        relevant.join("; ")
    ))
}

fn fexit(host: &HostSupport) -> Result<RungPlan, String> {
    if let Some(why) = host.own_btf.objection() {
        return Err(format!(
            "trampolines need the kernel's own type information: {why}"
        ));
    }
    require(host, COMMON_MEMBERS)?;
    require(host, SUBFLOW_MEMBERS)?;
    for function in ["mptcp_getsockopt", "tcp_getsockopt"] {
        if !host.btf_functions.iter().any(|known| known == function) {
            return Err(format!(
                "the kernel's type information has no function {function}"
            ));
        }
    }
    let probe = |program, target: fn(String) -> Target, function: &str| Probe {
        program,
        target: target(function.to_owned()),
    };
    let mut probes = vec![
        probe("query_fexit_tcp", Target::Fexit, "tcp_getsockopt"),
        probe("query_fexit_mptcp", Target::Fexit, "mptcp_getsockopt"),
    ];
    let mut limits = vec![LATENCY.to_owned()];
    limits.extend(optional_limits(host));
    let has = |name: &str| host.btf_functions.iter().any(|known| known == name);
    match socket_level(host, has) {
        Ok(function @ SOCKET_LEVEL) => {
            probes.push(probe("query_fexit_socket", Target::Fexit, function));
        }
        Ok(function) => probes.push(probe("query_fexit_sock", Target::Fexit, function)),
        Err(limit) => limits.push(limit),
    }
    if has(SET) {
        probes.push(probe("query_fexit_set", Target::Fexit, SET));
    } else {
        limits.push(no_set());
    }
    if has(CREATE) && require(host, CALLER_MEMBERS).is_ok() {
        probes.push(probe("query_fexit_create", Target::Fexit, CREATE));
    } else {
        limits.push(no_create());
    }
    probes.sort_by_key(Probe::opens);
    Ok(RungPlan {
        rung: Rung::Fexit,
        probes,
        outermost_probed: true,
        limits,
    })
}

fn kprobe(host: &HostSupport) -> Result<RungPlan, String> {
    if let Some(why) = host.kprobes.objection() {
        return Err(format!("this kernel has no kprobes: {why}"));
    }
    require(host, COMMON_MEMBERS)?;
    require(host, SUBFLOW_MEMBERS)?;
    // Only the plain name has its arguments where the source says; a variant of the compiler may have
    // dropped some.
    let exact = |name: &str| {
        host.symbols
            .find(name)
            .is_ok_and(|found| found == Some(name))
    };
    let pick = |names: [&'static str; 2]| names.into_iter().find(|name| exact(name));
    let missing = |names: [&str; 2]| match host.symbols.find(names[1]) {
        Err(why) => why.to_owned(),
        Ok(_) => format!("the kernel has no function {} or {}", names[0], names[1]),
    };
    let outer = ["mptcp_getsockopt_sol_tcp", "mptcp_getsockopt"];
    let inner = ["do_tcp_getsockopt", "tcp_getsockopt"];
    let outer = pick(outer).ok_or_else(|| missing(outer))?;
    let inner = pick(inner).ok_or_else(|| missing(inner))?;
    let outermost_probed = outer == "mptcp_getsockopt";
    let outer_program = if outermost_probed {
        "query_kprobe_mptcp"
    } else {
        "query_kprobe_sol_tcp"
    };
    let probe = |program, target: fn(String) -> Target, function: &str| Probe {
        program,
        target: target(function.to_owned()),
    };
    let mut probes = vec![
        probe("query_kretprobe_tcp", Target::Kretprobe, inner),
        probe("query_kretprobe_mptcp", Target::Kretprobe, outer),
        probe("query_kprobe_tcp", Target::Kprobe, inner),
        probe(outer_program, Target::Kprobe, outer),
    ];
    let mut limits = optional_limits(host);
    // What is not TCP's own is answered by the outer of the two functions, and never comes to the inner one.
    if !outermost_probed {
        limits.push(
            "questions with options of SOL_MPTCP are not seen: mptcp_getsockopt is not probed"
                .into(),
        );
    } else if inner != TCP_LEVEL && exact(TCP_LEVEL) {
        probes.extend([
            probe("query_kretprobe_tcp", Target::Kretprobe, TCP_LEVEL),
            probe("query_kprobe_other", Target::Kprobe, TCP_LEVEL),
        ]);
    } else if inner != TCP_LEVEL {
        limits.push(format!(
            "questions with options of SOL_MPTCP about TCP sockets are not seen, and about MPTCP sockets that fell \
             back not understood: the kernel has no function {TCP_LEVEL}"
        ));
    }
    match socket_level(host, exact) {
        Ok(function) => probes.extend([
            probe("query_kretprobe_sock", Target::Kretprobe, function),
            probe(
                if function == SOCKET_LEVEL {
                    "query_kprobe_socket"
                } else {
                    "query_kprobe_sock"
                },
                Target::Kprobe,
                function,
            ),
        ]),
        Err(limit) => limits.push(limit),
    }
    if exact(SET) {
        probes.push(probe("query_kretprobe_set", Target::Kretprobe, SET));
        probes.push(probe("query_kprobe_set", Target::Kprobe, SET));
    } else {
        limits.push(no_set());
    }
    if exact(CREATE) && require(host, CALLER_MEMBERS).is_ok() {
        probes.extend([
            probe("query_kretprobe_create", Target::Kretprobe, CREATE),
            probe("query_kprobe_create", Target::Kprobe, CREATE),
        ]);
    } else {
        limits.push(no_create());
    }
    probes.sort_by_key(Probe::opens);
    Ok(RungPlan {
        rung: Rung::Kprobe,
        probes,
        outermost_probed,
        limits,
    })
}

fn tracepoint(host: &HostSupport) -> Result<RungPlan, String> {
    require(host, COMMON_MEMBERS)?;
    require(host, FILE_MEMBERS)?;
    require(host, REGISTER_MEMBERS)?;
    let mut limits = vec![
        "queries of 32-bit programs are not seen: their system calls have numbers of their own"
            .to_owned(),
        "the function that answered is not seen: the answer is told from the state bits of the \
         connection"
            .to_owned(),
        LATENCY.to_owned(),
        "where the kernel preempts tracepoints, a run is missed if three tasks are interrupted in the middle of one on the same \
         CPU: such runs are counted (missed)"
            .to_owned(),
    ];
    limits.extend(optional_limits(host));
    if let Err(why) = require(host, CALLER_MEMBERS) {
        limits.push(format!("refused MPTCP sockets are not seen: {why}"));
    }
    let (typed, raw) = ("query_tp_return", "query_raw_return");
    let mut probes = vec![at_return(host, typed, raw)?];
    // Kernels that cannot ask that way have no such members.
    if require(host, URING_MEMBERS).is_ok()
        && host.raw_tracepoints.iter().any(|known| known == URING)
    {
        probes.push(Probe {
            program: "query_tp_uring",
            target: Target::RawTracepoint(URING),
        });
        limits.push(
            "what is asked or refused through io_uring is not seen; verdicts about connections that were asked about so are in doubt"
                .to_owned(),
        );
    }
    Ok(RungPlan {
        rung: Rung::Tracepoint,
        probes,
        outermost_probed: true,
        limits,
    })
}

/// The program where system calls return: the one that is told the types of its arguments, if the kernel describes them.
fn at_return(host: &HostSupport, typed: &'static str, raw: &'static str) -> Result<Probe, String> {
    /// The tracepoint where every system call returns.
    const RETURN: &str = "sys_exit";
    if !host.raw_tracepoints.iter().any(|known| known == RETURN) {
        return Err(format!("this kernel has no tracepoint {RETURN}"));
    }
    Ok(match host.own_btf.objection() {
        None => Probe {
            program: typed,
            target: Target::TypedTracepoint(RETURN),
        },
        Some(_why) => Probe {
            program: raw,
            target: Target::RawTracepoint(RETURN),
        },
    })
}

const LATENCY: &str = "how long an answer took is not known: only its end is seen";

/// The function that sets options of MPTCP sockets.
const SET: &str = "mptcp_setsockopt";

fn no_set() -> String {
    format!(
        "refused setsockopt calls are not seen: the kernel has no function {SET} that can be probed"
    )
}

/// The function that makes sockets.
const CREATE: &str = "__sock_create";

fn no_create() -> String {
    format!(
        "refused MPTCP sockets are not seen: the kernel has no function {CREATE} that can be probed"
    )
}

/// The function that answers a TCP socket, whatever it was asked for.
const TCP_LEVEL: &str = "tcp_getsockopt";
/// The function that answers for every socket, where it is told a `struct socket`.
const SOCKET_LEVEL: &str = "sock_getsockopt";
/// The same, where it is told a `struct sock`. It has more words of arguments than trampolines of older kernels can
/// keep; those kernels have the other one.
const SOCK_LEVEL: &str = "sk_getsockopt";

/// The function that answers questions with options of `SOL_SOCKET`, or what cannot be seen without it.
fn socket_level(host: &HostSupport, has: impl Fn(&str) -> bool) -> Result<&'static str, String> {
    if has(SOCKET_LEVEL) && host.layout.socket_sk != ABSENT {
        Ok(SOCKET_LEVEL)
    } else if has(SOCK_LEVEL) && !has(SOCKET_LEVEL) {
        Ok(SOCK_LEVEL)
    } else {
        Err(format!(
            "questions with SO_PROTOCOL are not seen: the kernel has no function {SOCKET_LEVEL} or {SOCK_LEVEL} that \
             can be probed"
        ))
    }
}

/// Members without which no record can be written.
const COMMON_MEMBERS: &[&str] = &[
    "sock_family",
    "sock_state",
    "sock_num",
    "sock_dport",
    "sock_daddr",
    "sock_rcv_saddr",
    "sock_net",
    "sock_protocol",
    "net_inum",
];
/// Members that lead from a task to its network namespace.
const CALLER_MEMBERS: &[&str] = &["task_nsproxy", "nsproxy_net"];
/// Members that lead from a subflow to its connection.
const SUBFLOW_MEMBERS: &[&str] = &["tcp_is_mptcp", "icsk_ulp_data", "subflow_conn"];
/// Members that lead from a descriptor to its socket, and to the state bits.
const FILE_MEMBERS: &[&str] = &[
    "task_files",
    "files_fdt",
    "fdt_max_fds",
    "fdt_fd",
    "file_private_data",
    "socket_file",
    "socket_sk",
    "msk_flags",
];

/// An `io_uring` request has been carried out.
const URING: &str = "io_uring_complete";
/// Members that tell what it was about.
const URING_MEMBERS: &[&str] = &["uring_opcode", "uring_file", "uring_command"];

/// What a system call was called with.
const REGISTER_MEMBERS: &[&str] = &[
    "regs_number",
    "regs_argument_0",
    "regs_argument_1",
    "regs_argument_2",
    "regs_argument_3",
    "regs_argument_4",
];

fn require(host: &HostSupport, fields: &[&str]) -> Result<(), String> {
    let members = KernelLayout::members(host.architecture);
    for (member, offset) in members.iter().zip(host.layout.offsets()) {
        if fields.contains(&member.field) && offset == ABSENT {
            let why = reason(host, member.path);
            return Err(format!(
                "{} is not where it can be read: {why}",
                member.path
            ));
        }
    }
    Ok(())
}

/// What is lost without the members that a record can do without.
fn optional_limits(host: &HostSupport) -> Vec<String> {
    let mut limits = Vec::new();
    let KernelLayout {
        sock_socket,
        socket_alloc_inode_number,
        sock_v6_daddr,
        sock_v6_rcv_saddr,
        ..
    } = host.layout;
    if sock_socket == ABSENT || socket_alloc_inode_number == ABSENT {
        limits.push("the inode of a socket is not known on this kernel".into());
    }
    if sock_v6_daddr == ABSENT || sock_v6_rcv_saddr == ABSENT {
        limits.push("queries about IPv6 sockets are lost (and counted): CONFIG_IPV6 is off".into());
    }
    limits
}

fn reason(host: &HostSupport, path: &str) -> String {
    host.missing_members
        .iter()
        .find(|(missing, _)| missing == path)
        .map_or_else(|| "unknown".to_owned(), |(_, why)| why.clone())
}

fn notes(host: &HostSupport) -> Vec<String> {
    let mut notes = Vec::new();
    if let Fact::No(why) = &host.mptcp_enabled {
        notes.push(format!("MPTCP is switched off here: {why}"));
    }
    if let Fact::No(why) = &host.option {
        notes.push(format!("{why}: every answer will be `unsupported`"));
    }
    notes
}

#[cfg(test)]
mod tests;
