//! The ladder of the fallback sensor.
//!
//! What decides is the shape of the kernel: is there a function that is told the cause, is there a second
//! copy of it that the compiler made, which tracepoints exist.

use super::{
    FallbackLadder, FallbackPlan, Probe, REGISTER_MEMBERS, Target, at_return, reason, require,
};
use crate::{
    host::{Fact, HostSupport},
    model::Rung,
};

/// Members without which no connection can be told of.
const CONNECTION_MEMBERS: &[&str] = &[
    "sock_family",
    "sock_state",
    "sock_num",
    "sock_dport",
    "sock_daddr",
    "sock_rcv_saddr",
    "sock_net",
    "sock_protocol",
    "net_inum",
    "tcp_is_mptcp",
    "icsk_ulp_data",
    "subflow_conn",
    "msk_flags",
    "msk_first",
];

/// Members that lead from a descriptor to its socket.
const FILE_MEMBERS: &[&str] = &[
    "task_files",
    "files_fdt",
    "fdt_max_fds",
    "fdt_fd",
    "file_private_data",
    "socket_file",
    "socket_sk",
];

/// The function that decides, where it is a function of its own.
const DECISION: &str = "__mptcp_try_fallback";
/// The one into which some compilers inline a copy of it.
const CORRUPTION: &str = "mptcp_dss_corruption";

pub(super) fn ladder(host: &HostSupport, only: Option<Rung>) -> FallbackLadder {
    let mut ladder = FallbackLadder::default();
    for rung in Rung::LADDER {
        let candidate = match rung {
            Rung::Fexit => fexit(host),
            Rung::Kprobe => kprobe(host),
            Rung::Tracepoint => tracepoint(host),
        };
        match candidate {
            Ok(_) if only.is_some_and(|only| only != rung) => ladder
                .ruled_out
                .push((rung, "another rung was asked for with --attach".into())),
            Ok(mut plan) => {
                plan.limits.extend(optional_limits(host));
                ladder.rungs.push(plan);
            }
            Err(why) => ladder.ruled_out.push((rung, why)),
        }
    }
    ladder
}

/// Gathers probes in the order in which they are to be attached.
#[derive(Default)]
struct Gathered {
    probes: Vec<Probe>,
    limits: Vec<String>,
}

impl Gathered {
    fn probe(&mut self, program: &'static str, target: Target) {
        self.probes.push(Probe { program, target });
    }

    /// A tracepoint; true if the kernel has it.
    fn tracepoint(
        &mut self,
        host: &HostSupport,
        program: &'static str,
        name: &'static str,
    ) -> bool {
        let is_there = host.raw_tracepoints.iter().any(|known| known == name);
        if is_there {
            self.probe(program, Target::RawTracepoint(name));
        }
        is_there
    }

    /// What every rung hangs on tracepoints: it costs least there.
    fn shared(&mut self, host: &HostSupport) -> Result<(), String> {
        if !self.tracepoint(host, "life_tp_destroy", "tcp_destroy_sock") {
            self.limits.push(
                "the end of TCP connections is not seen (no tracepoint tcp_destroy_sock): their ids \
                 stay in the table until it is full"
                    .into(),
            );
        }
        if !self.tracepoint(host, "life_tp_state", "inet_sock_set_state") {
            return Err("this kernel has no tracepoint inet_sock_set_state".into());
        }
        if !self.tracepoint(host, "fallback_tp_data", "subflow_check_data_avail") {
            self.limits.push(
                "what was wrong with the data is not seen (evidence): this kernel has no tracepoint \
                 subflow_check_data_avail"
                    .into(),
            );
        }
        Ok(())
    }
}

fn has_type(host: &HostSupport, function: &str) -> bool {
    host.btf_functions.iter().any(|known| known == function)
}

/// The exact name is there: a variant of the compiler may have other arguments.
fn has_symbol(host: &HostSupport, function: &str) -> bool {
    host.symbols
        .find(function)
        .is_ok_and(|found| found == Some(function))
}

const INFERRED: &str = "the cause is inferred from the function that fell back, or from what its data was like: \
                        this kernel tells no function the cause";

fn fexit(host: &HostSupport) -> Result<FallbackPlan, String> {
    if let Some(why) = host.own_btf.objection() {
        return Err(format!(
            "trampolines need the kernel's own type information: {why}"
        ));
    }
    require(host, CONNECTION_MEMBERS)?;
    let mut gathered = Gathered::default();
    for (program, function, exit) in [
        ("life_fentry_destroy", "mptcp_destroy", false),
        ("life_fexit_accept", "mptcp_stream_accept", true),
        ("life_fentry_drop", "mptcp_subflow_drop_ctx", false),
        ("life_fentry_send", "mptcp_sendmsg", false),
        ("life_fentry_receive", "mptcp_recvmsg", false),
        ("life_fentry_init", "mptcp_init_sock", false),
    ] {
        if !has_type(host, function) {
            return Err(format!(
                "the kernel's type information has no function {function}"
            ));
        }
        let target = if exit { Target::Fexit } else { Target::Fentry };
        gathered.probe(program, target(function.to_owned()));
    }
    let optional =
        |gathered: &mut Gathered, program, target: fn(String) -> Target, function: &str| {
            let is_there = has_type(host, function);
            if is_there {
                gathered.probe(program, target(function.to_owned()));
            }
            is_there
        };
    optional(
        &mut gathered,
        "fallback_fentry_mp_fail",
        Target::Fentry,
        "mptcp_pm_mp_fail_received",
    );
    optional(
        &mut gathered,
        "fallback_fexit_disable",
        Target::Fexit,
        "mptcp_active_disable",
    );
    let decision_probed = has_type(host, DECISION) && host.cause_is_told;
    if decision_probed {
        gathered.probe("fallback_fexit_try", Target::Fexit(DECISION.into()));
        gathered.probe("fallback_fentry_try", Target::Fentry(DECISION.into()));
    } else {
        let mut edges = 0;
        for (program, function) in [
            ("fallback_fexit_connect", "mptcp_connect"),
            ("fallback_fexit_simultaneous", "mptcp_syn_options"),
            ("fallback_fexit_state_change", "subflow_state_change"),
            ("fallback_fexit_detect", "mptcp_active_detect_blackhole"),
        ] {
            edges += u32::from(optional(&mut gathered, program, Target::Fexit, function));
        }
        if edges == 0 {
            return Err("the kernel's type information has no function that can fall back".into());
        }
        // The functions that fall back in the data path run with every packet, and so does
        // subflow_finish_connect: trampolines on them cost a bulk transfer a fifth of its speed. The tracepoints
        // beside them cost next to nothing.
        gathered.limits.push(INFERRED.into());
        gathered.limits.push(LATE.into());
    }
    corruption(host, &mut gathered);
    gathered.shared(host)?;
    Ok(FallbackPlan {
        rung: Rung::Fexit,
        probes: gathered.probes,
        decision_probed,
        children_probed: true,
        limits: gathered.limits,
    })
}

/// The second copy of the decision, where the compiler made one. It has lost its plain name or its
/// description, so that only a breakpoint reaches it.
fn corruption(host: &HostSupport, gathered: &mut Gathered) {
    let Ok(Some(symbol)) = host.symbols.find(CORRUPTION) else {
        return;
    };
    if let Fact::No(why) = &host.kprobes {
        gathered.limits.push(format!(
            "DSSCorruptionFallback is noticed late: the compiler made a copy of {DECISION} in {symbol}, \
             which only a kprobe could see: {why}"
        ));
    } else {
        gathered.probe("fallback_kprobe_dss", Target::Kprobe(symbol.to_owned()));
    }
}

fn kprobe(host: &HostSupport) -> Result<FallbackPlan, String> {
    if let Some(why) = host.kprobes.objection() {
        return Err(format!("this kernel has no kprobes: {why}"));
    }
    require(host, CONNECTION_MEMBERS)?;
    let mut gathered = Gathered::default();
    for (program, function, at_return) in [
        ("life_kprobe_destroy", "mptcp_destroy", false),
        ("life_kretprobe_accept", "mptcp_stream_accept", true),
        ("life_kprobe_accept", "mptcp_stream_accept", false),
        ("life_kprobe_drop", "mptcp_subflow_drop_ctx", false),
        ("life_kprobe_io", "mptcp_sendmsg", false),
        ("life_kprobe_io", "mptcp_recvmsg", false),
        ("life_kprobe_init", "mptcp_init_sock", false),
    ] {
        if !has_symbol(host, function) {
            return Err(match host.symbols.find(function) {
                Err(why) => why.to_owned(),
                Ok(_) => format!("the kernel has no function {function}"),
            });
        }
        let target = if at_return {
            Target::Kretprobe
        } else {
            Target::Kprobe
        };
        gathered.probe(program, target(function.to_owned()));
    }
    if has_symbol(host, "mptcp_pm_mp_fail_received") {
        let function = "mptcp_pm_mp_fail_received".to_owned();
        gathered.probe("fallback_kprobe_mp_fail", Target::Kprobe(function));
    }
    if has_symbol(host, "mptcp_active_disable") {
        let function = "mptcp_active_disable";
        gathered.probe(
            "fallback_kretprobe_disable",
            Target::Kretprobe(function.into()),
        );
        gathered.probe("fallback_kprobe_disable", Target::Kprobe(function.into()));
    }
    let decision_probed = has_symbol(host, DECISION) && host.cause_is_told;
    if decision_probed {
        gathered.probe("fallback_kretprobe_try", Target::Kretprobe(DECISION.into()));
        gathered.probe("fallback_kprobe_try", Target::Kprobe(DECISION.into()));
    } else {
        let function = "mptcp_active_detect_blackhole";
        if has_symbol(host, function) {
            gathered.probe(
                "fallback_kretprobe_detect",
                Target::Kretprobe(function.into()),
            );
            gathered.probe("fallback_kprobe_edge", Target::Kprobe(function.into()));
        }
        gathered.limits.push(INFERRED.into());
        gathered.limits.push(LATE.into());
    }
    corruption(host, &mut gathered);
    gathered.shared(host)?;
    Ok(FallbackPlan {
        rung: Rung::Kprobe,
        probes: gathered.probes,
        decision_probed,
        children_probed: true,
        limits: gathered.limits,
    })
}

const LATE: &str = "a fallback outside of the handshake and of bad data is noticed with the next data, \
                    question or change of state, not at the time";

fn tracepoint(host: &HostSupport) -> Result<FallbackPlan, String> {
    require(host, CONNECTION_MEMBERS)?;
    require(host, FILE_MEMBERS)?;
    require(host, REGISTER_MEMBERS)?;
    let mut gathered = Gathered::default();
    let (typed, raw) = ("life_tp_return", "life_raw_return");
    gathered.probes.push(at_return(host, typed, raw)?);
    let sent = gathered.tracepoint(host, "life_tp_io", "sock_send_length");
    let received = gathered.tracepoint(host, "life_tp_io", "sock_recv_length");
    gathered.tracepoint(host, "fallback_tp_send", "mptcp_subflow_get_send");
    gathered.limits.extend([
        "the cause is inferred from the state of the connection and from what its data was like: no \
         function is seen here"
            .to_owned(),
        LATE.to_owned(),
        CHILDREN.to_owned(),
        COMPLAINTS.to_owned(),
    ]);
    if !(sent && received) {
        gathered.limits.push(
            "a process that was handed a socket is not noticed until it asks: this kernel has no \
             tracepoints sock_send_length and sock_recv_length"
                .into(),
        );
    }
    gathered.shared(host)?;
    Ok(FallbackPlan {
        rung: Rung::Tracepoint,
        probes: gathered.probes,
        decision_probed: false,
        children_probed: false,
        limits: gathered.limits,
    })
}

/// Why a TCP child of an MPTCP listener has no cause on the tracepoint rung.
const CHILDREN: &str = "a TCP child of an MPTCP listener is seen, but not whether its client never asked \
                        for MPTCP or lost it in the third packet of the handshake (MPCapableFallbackACK)";

/// What is not seen from inside of a PID namespace (`bpf_iter` of task files goes through the tasks of its own).
pub(crate) const OTHERS_UNLISTED: &str = "open sockets of processes outside of this PID namespace are not listed, and their fallbacks \
                                          may go unseen where no probe sees them happen: run it in the host's PID namespace (--pid host)";

const COMPLAINTS: &str = "that the other end complained of a checksum is no evidence here (mp-fail-received): no \
                          tracepoint tells of it";

/// What is lost without the members that a record can do without.
fn optional_limits(host: &HostSupport) -> Vec<String> {
    let mut limits = Vec::new();
    if host.pid_namespace.is_some() {
        limits.push(OTHERS_UNLISTED.to_owned());
    }
    for (path, what) in [
        (
            "mptcp_sock.bytes_sent",
            "how much went over MPTCP before is not known",
        ),
        (
            "mptcp_sock.pm.server_side",
            "which end opened a connection is not known",
        ),
        (
            "mptcp_sock.pm.extra_subflows",
            "how many subflows a connection has is not known",
        ),
    ] {
        if host
            .missing_members
            .iter()
            .any(|(missing, _)| missing == path)
        {
            limits.push(format!(
                "{what} on this kernel: {path}: {}",
                reason(host, path)
            ));
        }
    }
    limits
}
