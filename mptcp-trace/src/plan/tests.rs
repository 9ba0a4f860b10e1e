//! Kernel shapes -> plans, compared as text.

use super::*;
use crate::host::symbols::Symbols;

/// A kernel that has everything, as Debian's 6.12 does.
fn whole() -> HostSupport {
    let offsets = [8; KernelLayout::MEMBERS.len()];
    HostSupport {
        kernel: "6.12.117+deb13-cloud-amd64".into(),
        privileges: Fact::Yes,
        btf: Fact::Yes,
        own_btf: Fact::Yes,
        mptcp: Fact::Yes,
        mptcp_enabled: Fact::Yes,
        option: Fact::Yes,
        kprobes: Fact::Yes,
        tracefs: Fact::Yes,
        symbols: Symbols::from_names(["mptcp_getsockopt", "tcp_getsockopt", "do_tcp_getsockopt"]),
        btf_functions: vec!["mptcp_getsockopt".into(), "tcp_getsockopt".into()],
        layout: KernelLayout::from_offsets(&offsets),
        missing_members: Vec::new(),
        syscall_context: Fact::Yes,
        pid_namespace: None,
    }
}

fn no(why: &str) -> Fact {
    Fact::No(why.into())
}

fn without(mut host: HostSupport, path: &str) -> HostSupport {
    let mut offsets = host.layout.offsets();
    for (slot, member) in offsets.iter_mut().zip(KernelLayout::MEMBERS) {
        if member.path == path {
            *slot = ABSENT;
        }
    }
    host.layout = KernelLayout::from_offsets(&offsets);
    host.missing_members.push((path.into(), "not there".into()));
    host
}

/// The plan as `doctor` would tell it, or the refusal.
fn told(host: &HostSupport, only: Option<Rung>) -> String {
    match plan(host, only) {
        Err(refusal) => format!("refused: {refusal}"),
        Ok(Plan { query, notes }) => {
            let mut lines = Vec::new();
            for rung in &query.rungs {
                let probes: Vec<String> = rung
                    .probes
                    .iter()
                    .map(|probe| probe.target.to_string())
                    .collect();
                lines.push(format!("{}: {}", rung.rung, probes.join(", ")));
            }
            lines.extend(
                query
                    .ruled_out
                    .iter()
                    .map(|(rung, why)| format!("not {rung}: {why}")),
            );
            lines.extend(notes.iter().map(|note| format!("note: {note}")));
            lines.join("\n")
        }
    }
}

const FEXIT: &str = "fexit: fexit tcp_getsockopt, fexit mptcp_getsockopt, fentry tcp_getsockopt, \
                     fentry mptcp_getsockopt";
const KPROBE: &str = "kprobe: kretprobe do_tcp_getsockopt, kretprobe mptcp_getsockopt, \
                      kprobe do_tcp_getsockopt, kprobe mptcp_getsockopt";
const TRACEPOINT: &str = "tracepoint: tracepoint syscalls:sys_exit_getsockopt, \
                          tracepoint syscalls:sys_enter_getsockopt";

#[test]
fn a_stock_kernel_gets_the_whole_ladder() {
    assert_eq!(
        told(&whole(), None),
        format!("{FEXIT}\n{KPROBE}\n{TRACEPOINT}")
    );
}

#[test]
fn an_asked_for_rung_stands_alone() {
    assert_eq!(
        told(&whole(), Some(Rung::Kprobe)),
        format!(
            "{KPROBE}\nnot fexit: another rung was asked for with --attach\n\
             not tracepoint: another rung was asked for with --attach"
        )
    );
}

#[test]
fn the_inner_function_is_probed_where_the_kernel_has_it() {
    let symbols = Symbols::from_names([
        "mptcp_getsockopt",
        "mptcp_getsockopt_sol_tcp",
        "tcp_getsockopt",
        "do_tcp_getsockopt",
    ]);
    let host = HostSupport { symbols, ..whole() };
    let plan = plan(&host, Some(Rung::Kprobe)).unwrap();
    let [rung] = &plan.query.rungs[..] else {
        panic!("{plan:?}")
    };
    assert!(!rung.outermost_probed);
    assert!(rung.probes.contains(&Probe {
        program: "query_kprobe_sol_tcp",
        target: Target::Kprobe("mptcp_getsockopt_sol_tcp".into()),
    }));
}

#[test]
fn a_variant_of_the_compiler_is_never_trusted_with_its_arguments() {
    let symbols = Symbols::from_names([
        "mptcp_getsockopt",
        "mptcp_getsockopt_sol_tcp.isra.0",
        "tcp_getsockopt",
        "do_tcp_getsockopt.constprop.0",
    ]);
    let host = HostSupport { symbols, ..whole() };
    assert_eq!(
        told(&host, Some(Rung::Kprobe)).lines().next(),
        Some(
            "kprobe: kretprobe tcp_getsockopt, kretprobe mptcp_getsockopt, kprobe tcp_getsockopt, \
             kprobe mptcp_getsockopt"
        )
    );
}

#[test]
fn a_kernel_without_kprobes_and_types_of_its_own_keeps_the_tracepoints() {
    let host = HostSupport {
        kprobes: no("CONFIG_KPROBE_EVENTS"),
        own_btf: no("CONFIG_DEBUG_INFO_BTF"),
        ..whole()
    };
    assert_eq!(
        told(&host, None),
        format!(
            "{TRACEPOINT}\nnot fexit: trampolines need the kernel's own type information: \
             CONFIG_DEBUG_INFO_BTF\nnot kprobe: this kernel has no kprobes: CONFIG_KPROBE_EVENTS"
        )
    );
}

#[test]
fn what_cannot_be_found_out_does_not_rule_a_rung_out() {
    let unknown = || Fact::Unknown("/proc is not mounted".into());
    let host = HostSupport {
        privileges: unknown(),
        mptcp: unknown(),
        own_btf: unknown(),
        kprobes: unknown(),
        tracefs: unknown(),
        ..whole()
    };
    assert_eq!(
        told(&host, None),
        format!("{FEXIT}\n{KPROBE}\n{TRACEPOINT}")
    );
}

#[test]
fn a_missing_member_disables_what_reads_it_and_nothing_else() {
    let host = without(whole(), "task_struct.files");
    assert_eq!(
        told(&host, None),
        format!(
            "{FEXIT}\n{KPROBE}\nnot tracepoint: task_struct.files is not where it can be read: not there"
        )
    );
    let host = without(whole(), "mptcp_subflow_context.conn");
    assert!(told(&host, None).starts_with(TRACEPOINT));
    let host = without(whole(), "sock_common.skc_num");
    assert!(told(&host, None).starts_with("refused: no way to see queries"));
    let host = without(whole(), "socket_alloc.vfs_inode.i_ino");
    let plan = plan(&host, Some(Rung::Fexit)).unwrap();
    assert_eq!(
        plan.query.rungs[0].limits,
        ["the inode of a socket is not known on this kernel"]
    );
}

#[test]
fn a_host_that_cannot_answer_is_told_why_and_what_to_do() {
    for (host, says) in [
        (
            HostSupport {
                mptcp: no("CONFIG_MPTCP"),
                ..whole()
            },
            "built without MPTCP, so there is nothing to trace: CONFIG_MPTCP; run a kernel with",
        ),
        (
            HostSupport {
                privileges: no("this process lacks CAP_BPF"),
                ..whole()
            },
            "not enough privileges to load BPF programs: this process lacks CAP_BPF; run it as root",
        ),
        (
            HostSupport {
                btf: no("no types; give --btf FILE"),
                ..whole()
            },
            "give --btf FILE",
        ),
    ] {
        let told = told(&host, None);
        assert!(
            told.starts_with("refused: ") && told.contains(says),
            "{told}"
        );
    }
}

#[test]
fn a_kernel_without_the_option_is_traced_with_a_note() {
    let host = HostSupport {
        option: no("this kernel does not know TCP_IS_MPTCP"),
        ..whole()
    };
    let told = told(&host, None);
    assert!(told.ends_with(
        "note: this kernel does not know TCP_IS_MPTCP: every answer will be `unsupported`"
    ));
}

#[test]
fn what_closes_a_question_is_attached_before_what_opens_one() {
    let plan = plan(&whole(), None).unwrap();
    for rung in &plan.query.rungs {
        let closes = |probe: &Probe| match &probe.target {
            Target::Fexit(_) | Target::Kretprobe(_) => true,
            Target::Fentry(_) | Target::Kprobe(_) => false,
            Target::Tracepoint(_, name) => name.starts_with("sys_exit"),
        };
        let first_opener = rung.probes.iter().position(|probe| !closes(probe)).unwrap();
        assert!(
            rung.probes[first_opener..]
                .iter()
                .all(|probe| !closes(probe)),
            "{}",
            rung.rung
        );
        // A connection that fell back is answered by the inner function: if the outer one were attached
        // first, a query in that moment would look as if MPTCP had answered it.
        let last = rung.probes.last().unwrap().target.to_string();
        assert!(
            !last.contains(" tcp_") && !last.contains("do_tcp"),
            "{last}"
        );
    }
}
