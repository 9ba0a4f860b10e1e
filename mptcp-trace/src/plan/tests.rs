//! Kernel shapes -> plans, compared as text.

use mptcp_trace_common::layout::{ABSENT, Architecture, KernelLayout, KernelNumbers};

use super::*;
use crate::host::{Preemptible, symbols::Symbols};

/// A kernel with everything, such as Debian's 6.12.
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
        preemptible: Preemptible::default(),
        cpus: Some(2),
        symbols: Symbols::from_names([
            "mptcp_getsockopt",
            "tcp_getsockopt",
            "do_tcp_getsockopt",
            "sk_getsockopt",
            "mptcp_setsockopt",
            "__sock_create",
        ]),
        btf_functions: vec![
            "mptcp_getsockopt".into(),
            "tcp_getsockopt".into(),
            "sk_getsockopt".into(),
            "mptcp_setsockopt".into(),
            "__sock_create".into(),
        ],
        function_numbers: std::collections::BTreeMap::new(),
        architecture: Architecture::NATIVE,
        layout: KernelLayout::from_offsets(&offsets),
        missing_members: Vec::new(),
        raw_tracepoints: [
            "sys_exit",
            "inet_sock_set_state",
            "tcp_destroy_sock",
            "subflow_check_data_avail",
            "mptcp_subflow_get_send",
            "sock_send_length",
            "sock_recv_length",
        ]
        .map(str::to_owned)
        .to_vec(),
        has_cause_parameter: true,
        counters: Vec::new(),
        numbers: KernelNumbers::NONE,
        pid_namespace: None,
        visits_all_tasks: true,
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
    host.missing_members
        .push((path.into(), "no such member".into()));
    host
}

/// The plan as `doctor` would print it, or the refusal.
fn printed_plan(host: &HostSupport, only: Option<Rung>) -> String {
    match plan(host, only) {
        Err(refusal) => format!("refused: {refusal}"),
        Ok(plan) => {
            let (query, notes) = (plan.of(SensorId::Query), &plan.notes);
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

const FEXIT: &str = "fexit: fexit tcp_getsockopt, fexit sk_getsockopt, fexit mptcp_setsockopt, \
                     fexit __sock_create, fexit mptcp_getsockopt";
const KPROBE: &str = "kprobe: kretprobe do_tcp_getsockopt, kretprobe mptcp_getsockopt, \
                      kretprobe tcp_getsockopt, kretprobe sk_getsockopt, \
                      kretprobe mptcp_setsockopt, kretprobe __sock_create, \
                      kprobe do_tcp_getsockopt, kprobe mptcp_getsockopt, kprobe tcp_getsockopt, \
                      kprobe sk_getsockopt, kprobe mptcp_setsockopt, kprobe __sock_create";
const TRACEPOINT: &str = "tracepoint: typed tracepoint sys_exit";

#[test]
fn a_stock_kernel_gets_the_whole_ladder() {
    assert_eq!(
        printed_plan(&whole(), None),
        format!("{FEXIT}\n{KPROBE}\n{TRACEPOINT}")
    );
}

/// Link-time optimisation of clang: the type information may still have the plain name, by which
/// the kernel then finds no function.
#[test]
fn a_function_that_clang_renamed_is_probed_by_its_new_name() {
    let symbols = [
        "mptcp_getsockopt.llvm.17",
        "tcp_getsockopt",
        "do_tcp_getsockopt",
        "sk_getsockopt",
        "mptcp_setsockopt",
        "__sock_create",
    ];
    let host = HostSupport {
        symbols: Symbols::from_names(symbols),
        ..whole()
    };
    let renamed = KPROBE.replace("mptcp_getsockopt", "mptcp_getsockopt.llvm.17");
    assert_eq!(
        printed_plan(&host, None),
        format!(
            "{renamed}\n{TRACEPOINT}\n\
             not fexit: the compiler renamed the kernel's function mptcp_getsockopt.llvm.17"
        )
    );
}

#[test]
fn a_kernel_with_mptcp_for_ipv4_only_is_said_to_be_one() {
    let host = without(whole(), "mptcp_addr_info.addr6");
    let note = "note: this kernel has MPTCP for IPv4 only";
    assert!(printed_plan(&host, None).contains(note));
    assert!(!printed_plan(&whole(), None).contains(note));
    let limits = |host: &HostSupport| {
        let plan = plan(host, None).unwrap();
        let rungs = &plan.of(SensorId::Subflow).rungs;
        let limits: Vec<String> = rungs.iter().flat_map(|it| it.limits.clone()).collect();
        limits.join("\n")
    };
    assert!(limits(&whole()).contains("IPv6"));
    assert!(!limits(&host).contains("IPv6"));
}

#[test]
fn a_requested_rung_is_the_only_one() {
    assert_eq!(
        printed_plan(&whole(), Some(Rung::Kprobe)),
        format!(
            "{KPROBE}\nnot fexit: another attach method was selected with --attach\n\
             not tracepoint: another attach method was selected with --attach"
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
    let [rung] = &plan.of(SensorId::Query).rungs[..] else {
        panic!("{plan:?}")
    };
    assert!(!rung.outermost_probed());
    assert!(rung.probes.iter().any(|it| {
        it.program() == "query_kprobe_sol_tcp"
            && it.target.to_string() == "kprobe mptcp_getsockopt_sol_tcp"
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
        printed_plan(&host, Some(Rung::Kprobe)).lines().next(),
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
        printed_plan(&host, None),
        format!(
            "tracepoint: raw tracepoint sys_exit\nnot fexit: trampolines need the kernel's own type information: \
             CONFIG_DEBUG_INFO_BTF\nnot kprobe: this kernel has no kprobes: CONFIG_KPROBE_EVENTS"
        )
    );
    for (host, is_limited) in [(host, true), (whole(), false)] {
        let plan = plan(&host, Some(Rung::Tracepoint)).unwrap();
        let limits = &plan.of(SensorId::Fallback).rungs[0].limits;
        assert_eq!(
            limits.iter().any(|it| it == NONE_LISTED),
            is_limited,
            "{limits:?}"
        );
    }
}

#[test]
fn what_cannot_be_found_out_does_not_rule_a_rung_out() {
    let unknown = || Fact::Unknown("/proc is not mounted".into());
    let host = HostSupport {
        privileges: unknown(),
        mptcp: unknown(),
        own_btf: unknown(),
        kprobes: unknown(),
        ..whole()
    };
    assert_eq!(
        printed_plan(&host, None),
        format!("{FEXIT}\n{KPROBE}\n{TRACEPOINT}")
    );
}

#[test]
fn a_missing_member_disables_what_reads_it_and_nothing_else() {
    let host = without(whole(), "task_struct.files");
    assert_eq!(
        printed_plan(&host, None),
        format!(
            "{FEXIT}\n{KPROBE}\nnot tracepoint: task_struct.files cannot be read: no such member"
        )
    );
    let host = without(whole(), "mptcp_subflow_context.conn");
    assert!(printed_plan(&host, None).starts_with(TRACEPOINT));
    let host = without(whole(), "sock_common.skc_num");
    assert!(printed_plan(&host, None).starts_with("refused: queries cannot be traced"));
    let host = without(whole(), "socket_alloc.vfs_inode.i_ino");
    let plan = plan(&host, Some(Rung::Fexit)).unwrap();
    assert_eq!(
        plan.of(SensorId::Query).rungs[0].limits,
        [
            "query latency is unknown: only the return is traced",
            "the inode of a socket is unknown: socket_alloc.vfs_inode.i_ino cannot be read: no such member"
        ]
    );
}

#[test]
fn a_host_that_cannot_be_traced_gets_the_reason_and_advice() {
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
            "not enough privileges to load BPF programs: this process lacks CAP_BPF",
        ),
        (
            HostSupport {
                btf: no("no types; give --btf FILE"),
                ..whole()
            },
            "give --btf FILE",
        ),
    ] {
        let printed_plan = printed_plan(&host, None);
        assert!(
            printed_plan.starts_with("refused: ") && printed_plan.contains(says),
            "{printed_plan}"
        );
    }
}

#[test]
fn a_kernel_without_the_option_is_traced_with_a_note() {
    let host = HostSupport {
        option: no("this kernel does not support TCP_IS_MPTCP"),
        ..whole()
    };
    let printed_plan = printed_plan(&host, None);
    assert!(printed_plan.ends_with(
        "note: this kernel does not support TCP_IS_MPTCP: every answer will be `unsupported`"
    ));
}

#[test]
fn return_probes_are_attached_before_entry_probes() {
    let plan = plan(&whole(), None).unwrap();
    for rung in &plan.of(SensorId::Query).rungs {
        let closes = |probe: &Probe| !probe.opens();
        let openers = rung.probes.iter().skip_while(|probe| closes(probe));
        assert!(openers.clone().all(Probe::opens), "{}", rung.rung);
        assert_eq!(openers.count() == 0, rung.rung == Rung::Tracepoint);
        // The inner function answers for a connection that fell back: if the outer one were
        // attached first, MPTCP would seem to have answered a query at that moment.
        let last = rung.probes.last().unwrap().target.to_string();
        assert!(
            !last.contains(" tcp_") && !last.contains("do_tcp"),
            "{last}"
        );
    }
}

const LIFE_FEXIT: &str = "fentry mptcp_destroy, fexit mptcp_stream_accept, fentry mptcp_subflow_drop_ctx, \
                          fentry mptcp_sendmsg, fentry mptcp_recvmsg, fentry mptcp_init_sock";
const LIFE_KPROBE: &str = "kprobe mptcp_destroy, kretprobe mptcp_stream_accept, kprobe mptcp_stream_accept, \
                           kprobe mptcp_subflow_drop_ctx, kprobe mptcp_sendmsg, kprobe mptcp_recvmsg, \
                           kprobe mptcp_init_sock";
const SHARED: &str = "raw tracepoint tcp_destroy_sock, raw tracepoint inet_sock_set_state, \
                      raw tracepoint subflow_check_data_avail";
const LIFE: [&str; 6] = [
    "mptcp_destroy",
    "mptcp_stream_accept",
    "mptcp_subflow_drop_ctx",
    "mptcp_sendmsg",
    "mptcp_recvmsg",
    "mptcp_init_sock",
];

/// A kernel with these functions in addition to those that every one has.
fn with_functions(typed: &[&str], symbols: &[&str]) -> HostSupport {
    let mut host = whole();
    let more = LIFE.iter().chain(typed).map(|it| (*it).to_owned());
    host.btf_functions.extend(more);
    let queries = ["mptcp_getsockopt", "tcp_getsockopt", "do_tcp_getsockopt"];
    let names = queries.iter().chain(&LIFE).chain(symbols);
    host.symbols = Symbols::from_names(names.copied());
    host
}

/// The fallback sensor with one attach method, as `doctor` would print it.
fn printed_fallback(host: &HostSupport, rung: Rung) -> String {
    let ladder = plan(host, None).unwrap().of(SensorId::Fallback).clone();
    let planned = ladder.rungs.iter().find(|plan| plan.rung == rung);
    let Some(planned) = planned else {
        let (_, why) = ladder.ruled_out.iter().find(|(it, _)| *it == rung).unwrap();
        return format!("no: {why}");
    };
    let probes: Vec<String> = planned
        .probes
        .iter()
        .map(|probe| probe.target.to_string())
        .collect();
    probes.join(", ")
}

#[test]
fn a_function_that_takes_the_cause_is_probed_and_nothing_is_predicted() {
    let function = ["__mptcp_try_fallback"];
    let host = with_functions(&function, &function);
    assert_eq!(
        printed_fallback(&host, Rung::Fexit),
        format!("{LIFE_FEXIT}, fexit __mptcp_try_fallback, fentry __mptcp_try_fallback, {SHARED}")
    );
    assert_eq!(
        printed_fallback(&host, Rung::Kprobe),
        format!(
            "{LIFE_KPROBE}, kretprobe __mptcp_try_fallback, kprobe __mptcp_try_fallback, {SHARED}"
        )
    );
    let ladder = plan(&host, None).unwrap().of(SensorId::Fallback).clone();
    assert!(
        ladder.rungs[..2]
            .iter()
            .all(|it| it.decision_probed() && it.limits.is_empty())
    );
}

#[test]
fn the_copy_that_the_compiler_made_of_the_decision_gets_a_breakpoint() {
    let host = with_functions(
        &["__mptcp_try_fallback"],
        &["__mptcp_try_fallback", "mptcp_dss_corruption.isra.0"],
    );
    for rung in [Rung::Fexit, Rung::Kprobe] {
        let printed_plan = printed_fallback(&host, rung);
        assert!(
            printed_plan.contains("kprobe mptcp_dss_corruption.isra.0"),
            "{printed_plan}"
        );
    }
    let host = HostSupport {
        kprobes: no("CONFIG_KPROBE_EVENTS"),
        ..host
    };
    let ladder = plan(&host, None).unwrap().of(SensorId::Fallback).clone();
    let [limit] = &ladder.rungs[0].limits[..] else {
        panic!("{ladder:?}")
    };
    assert!(
        limit.starts_with("DSSCorruptionFallback is detected late"),
        "{limit}"
    );
}

#[test]
fn without_a_function_that_takes_the_cause_the_edge_is_probed_where_possible() {
    // The compiler inlined the first one: its type is known, but it has no symbol.
    let edges = ["mptcp_connect", "mptcp_active_detect_blackhole"];
    let host = HostSupport {
        has_cause_parameter: false,
        ..with_functions(
            &edges,
            &[
                "mptcp_active_detect_blackhole",
                "mptcp_dss_corruption.constprop.0",
            ],
        )
    };
    assert_eq!(
        printed_fallback(&host, Rung::Fexit),
        format!(
            "{LIFE_FEXIT}, fexit mptcp_active_detect_blackhole, \
             kprobe mptcp_dss_corruption.constprop.0, {SHARED}"
        )
    );
    assert_eq!(
        printed_fallback(&host, Rung::Kprobe),
        format!(
            "{LIFE_KPROBE}, kretprobe mptcp_active_detect_blackhole, \
             kprobe mptcp_active_detect_blackhole, \
             kprobe mptcp_dss_corruption.constprop.0, {SHARED}"
        )
    );
    // The function alone is not sufficient: an older one of the same name does not take the cause.
    let function = ["__mptcp_try_fallback"];
    let host = HostSupport {
        has_cause_parameter: false,
        ..with_functions(&function, &function)
    };
    assert_eq!(
        printed_fallback(&host, Rung::Fexit),
        "no: the kernel's type information has no function that can fall back"
    );
}

#[test]
fn where_no_function_can_be_probed_tracepoints_do_and_say_what_they_cannot() {
    let host = with_functions(&[], &[]);
    let printed_plan = printed_fallback(&host, Rung::Tracepoint);
    assert!(
        printed_plan.starts_with("typed tracepoint sys_exit, "),
        "{printed_plan}"
    );
    let ladder = plan(&host, Some(Rung::Tracepoint))
        .unwrap()
        .of(SensorId::Fallback)
        .clone();
    let [plan] = &ladder.rungs[..] else {
        panic!("{ladder:?}")
    };
    assert!(!plan.decision_probed() && !plan.children_probed() && plan.limits.len() == 5);
    // Along with a query sensor of the same method, one program at the return of system calls
    // serves both.
    let both = super::plan(&host, None).unwrap();
    let along_with = |rung| {
        let mut queries = both.of(SensorId::Query).rungs.iter();
        let query = queries.find(|it| it.rung == rung).unwrap();
        let mut selection = Selection::best(&both, query);
        while selection.of(SensorId::Fallback).unwrap().rung != Rung::Tracepoint {
            selection = selection.with_worse(&both, SensorId::Fallback).unwrap();
        }
        selection
    };
    let same = along_with(Rung::Tracepoint);
    assert!(same.is_shared(SensorId::Fallback) && !same.is_shared(SensorId::Query));
    let own = same.probes_of(SensorId::Fallback);
    assert_eq!(own.len(), plan.probes.len() - 1);
    let other = along_with(Rung::Fexit);
    assert!(!other.is_shared(SensorId::Fallback));
    assert_eq!(other.probes_of(SensorId::Fallback), plan.probes);
    let no_returns = HostSupport {
        raw_tracepoints: vec!["inet_sock_set_state".into()],
        ..host.clone()
    };
    assert_eq!(
        printed_fallback(&no_returns, Rung::Tracepoint),
        "no: this kernel has no tracepoint sys_exit"
    );
    let host = HostSupport {
        raw_tracepoints: vec!["sys_exit".into(), "subflow_check_data_avail".into()],
        ..host
    };
    assert_eq!(
        printed_fallback(&host, Rung::Tracepoint),
        "no: this kernel has no tracepoint inet_sock_set_state"
    );
}

#[test]
fn what_this_kernel_does_not_let_be_read_is_a_sentence() {
    for (path, says) in [
        (
            "mptcp_sock.bytes_sent",
            "the bytes sent over MPTCP before a fallback",
        ),
        (
            "mptcp_sock.pm.server_side",
            "the side that opened a connection",
        ),
        ("mptcp_sock.pm.extra_subflows", "the number of subflows"),
    ] {
        let ladder = plan(&without(whole(), path), None)
            .unwrap()
            .of(SensorId::Fallback)
            .clone();
        for rung in &ladder.rungs {
            let said = |it: &String| it.starts_with(says) && it.contains(path);
            assert!(rung.limits.iter().any(said), "{:?}", rung.limits);
        }
    }
}

#[test]
fn beside_a_query_sensor_on_a_lower_rung_no_better_one_is_tried() {
    let function = ["__mptcp_try_fallback"];
    let plan = plan(&with_functions(&function, &function), None).unwrap();
    for (number, query) in plan.of(SensorId::Query).rungs.iter().enumerate() {
        let mut selection = Selection::best(&plan, query);
        let mut tried = Vec::new();
        while let Some(fallback) = selection.of(SensorId::Fallback) {
            tried.push(fallback.rung);
            selection = selection.with_worse(&plan, SensorId::Fallback).unwrap();
        }
        assert_eq!(tried, Rung::LADDER[number..]);
        // Without a method that works it is off, and the query sensor never is.
        assert_eq!(selection.query(), query);
        for sensor in [SensorId::Fallback, SensorId::Query] {
            assert!(selection.with_worse(&plan, sensor).is_none(), "{sensor}");
        }
    }
}

/// The function that answers for every socket takes a `struct socket` on older kernels, and a
/// `struct sock` on newer ones, which trampolines of older kernels did not support.
#[test]
fn the_protocol_query_is_seen_where_a_function_answers_it() {
    let names = |more: &[&str]| -> Vec<String> {
        ["mptcp_getsockopt", "tcp_getsockopt", "do_tcp_getsockopt"]
            .iter()
            .chain(more)
            .map(|name| (*name).to_owned())
            .collect()
    };
    for (more, entry) in [
        (
            &["sock_getsockopt", "sk_getsockopt"][..],
            Some("sock_getsockopt"),
        ),
        (&["sk_getsockopt"][..], Some("sk_getsockopt")),
        (&[][..], None),
    ] {
        let host = HostSupport {
            symbols: Symbols::from_names(names(more).iter().map(String::as_str)),
            btf_functions: names(more),
            ..whole()
        };
        for rung in [Rung::Fexit, Rung::Kprobe] {
            let plan = plan(&host, Some(rung)).unwrap();
            let [planned] = &plan.of(SensorId::Query).rungs[..] else {
                panic!("{plan:?}")
            };
            let said = planned.limits.iter().any(|it| it.contains("SO_PROTOCOL"));
            assert_eq!(
                said,
                entry.is_none(),
                "{rung} {more:?}: {:?}",
                planned.limits
            );
            if let Some(entry) = entry {
                let wanted = format!("{rung} {entry}");
                assert!(
                    planned
                        .probes
                        .iter()
                        .any(|it| it.target.to_string() == wanted),
                    "{rung} {more:?}"
                );
            }
        }
    }
}

#[test]
fn what_is_refused_is_seen_where_it_can_be_and_said_where_it_cannot() {
    let limits = |host: &HostSupport, rung: Rung| {
        let plan = plan(host, Some(rung)).unwrap();
        plan.of(SensorId::Query).rungs[0].limits.join("; ")
    };
    let no_set = HostSupport {
        symbols: Symbols::from_names(["mptcp_getsockopt", "tcp_getsockopt", "sk_getsockopt"]),
        btf_functions: ["mptcp_getsockopt", "tcp_getsockopt", "sk_getsockopt"]
            .map(str::to_owned)
            .to_vec(),
        ..whole()
    };
    for rung in [Rung::Fexit, Rung::Kprobe] {
        assert!(limits(&no_set, rung).contains("refused MPTCP sockets are not traced: the kernel"));
        assert!(limits(&no_set, rung).contains("refused setsockopt calls are not traced"));
        assert!(!limits(&whole(), rung).contains("refused"));
    }
    assert!(!limits(&whole(), Rung::Tracepoint).contains("refused"));
}
