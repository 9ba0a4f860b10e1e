//! Programs that take turns with another one at the same place, so that hardly any of its runs is missed; the kernel half
//! says how (`turns`).

use crate::{
    host::Preemptible,
    plan::{Probe, Target},
};

/// By the first program of a place, the others. What is not among them misses runs where the kernel skips them: what it
/// would have seen is seen again, and its place is too busy for more than one program.
const OTHERS: [(&str, [&str; 2]); 26] = [
    (
        "query_fexit_mptcp",
        ["query_fexit_mptcp_2", "query_fexit_mptcp_3"],
    ),
    (
        "query_fexit_tcp",
        ["query_fexit_tcp_2", "query_fexit_tcp_3"],
    ),
    (
        "query_fexit_set",
        ["query_fexit_set_2", "query_fexit_set_3"],
    ),
    (
        "query_fexit_socket",
        ["query_fexit_socket_2", "query_fexit_socket_3"],
    ),
    (
        "query_fexit_sock",
        ["query_fexit_sock_2", "query_fexit_sock_3"],
    ),
    (
        "query_fexit_create",
        ["query_fexit_create_2", "query_fexit_create_3"],
    ),
    (
        "query_tp_return",
        ["query_tp_return_2", "query_tp_return_3"],
    ),
    (
        "query_raw_return",
        ["query_raw_return_2", "query_raw_return_3"],
    ),
    (
        "fallback_fentry_try",
        ["fallback_fentry_try_2", "fallback_fentry_try_3"],
    ),
    (
        "fallback_fexit_try",
        ["fallback_fexit_try_2", "fallback_fexit_try_3"],
    ),
    (
        "fallback_fentry_mp_fail",
        ["fallback_fentry_mp_fail_2", "fallback_fentry_mp_fail_3"],
    ),
    (
        "fallback_fexit_disable",
        ["fallback_fexit_disable_2", "fallback_fexit_disable_3"],
    ),
    (
        "fallback_fexit_connect",
        ["fallback_fexit_connect_2", "fallback_fexit_connect_3"],
    ),
    (
        "fallback_fexit_state_change",
        [
            "fallback_fexit_state_change_2",
            "fallback_fexit_state_change_3",
        ],
    ),
    (
        "fallback_fexit_simultaneous",
        [
            "fallback_fexit_simultaneous_2",
            "fallback_fexit_simultaneous_3",
        ],
    ),
    (
        "fallback_fexit_detect",
        ["fallback_fexit_detect_2", "fallback_fexit_detect_3"],
    ),
    ("life_tp_state", ["life_tp_state_2", "life_tp_state_3"]),
    (
        "life_fentry_drop",
        ["life_fentry_drop_2", "life_fentry_drop_3"],
    ),
    (
        "life_fentry_init",
        ["life_fentry_init_2", "life_fentry_init_3"],
    ),
    (
        "life_fentry_destroy",
        ["life_fentry_destroy_2", "life_fentry_destroy_3"],
    ),
    (
        "life_fexit_accept",
        ["life_fexit_accept_2", "life_fexit_accept_3"],
    ),
    (
        "life_tp_destroy",
        ["life_tp_destroy_2", "life_tp_destroy_3"],
    ),
    ("life_tp_return", ["life_tp_return_2", "life_tp_return_3"]),
    (
        "life_raw_return",
        ["life_raw_return_2", "life_raw_return_3"],
    ),
    (
        "fallback_tp_data",
        ["fallback_tp_data_2", "fallback_tp_data_3"],
    ),
    (
        "fallback_tp_send",
        ["fallback_tp_send_2", "fallback_tp_send_3"],
    ),
];

/// The programs that hang beside that of `probe` on such a kernel, in the order in which they run behind it.
pub(super) fn others(probe: &Probe, preemptible: Preemptible) -> &'static [&'static str] {
    let is_of_use = match &probe.target {
        Target::Fentry(_) | Target::Fexit(_) => preemptible.functions,
        Target::RawTracepoint(_) | Target::TypedTracepoint(_) => preemptible.tracepoints,
        // Breakpoints are never preempted.
        Target::Kprobe(_) | Target::Kretprobe(_) => false,
    };
    OTHERS
        .iter()
        .find(|(first, _)| is_of_use && *first == probe.program)
        .map_or(&[], |(_, others)| others)
}

/// True for a program that only gets what another one was kept from.
pub(super) fn is_other(program: &str) -> bool {
    OTHERS.iter().any(|(_, others)| others.contains(&program))
}

/// True where what is attached last runs first (`bpf_trampoline_link_prog`); tracepoints keep the order.
pub(super) fn is_stack(target: &Target) -> bool {
    matches!(target, Target::Fentry(_) | Target::Fexit(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_take_turns_only_where_a_thread_can_be_preemptible() {
        let probe = |target| Probe {
            program: "query_fexit_mptcp",
            target,
        };
        let function = probe(Target::Fexit("mptcp_getsockopt".into()));
        let tracepoint = probe(Target::RawTracepoint("sys_exit"));
        let breakpoint = probe(Target::Kprobe("mptcp_getsockopt".into()));
        let both = ["query_fexit_mptcp_2", "query_fexit_mptcp_3"];
        for (functions, tracepoints) in [(false, false), (true, false), (true, true)] {
            let on = Preemptible {
                functions,
                tracepoints,
            };
            assert_eq!(others(&function, on) == both, functions);
            assert_eq!(others(&tracepoint, on) == both, tracepoints);
            assert!(others(&breakpoint, on).is_empty());
        }
    }

    #[test]
    fn what_misses_runs_is_not_what_takes_them() {
        for (first, others) in OTHERS {
            assert!(!is_other(first));
            assert_eq!(others, [2, 3].map(|turn| format!("{first}_{turn}")));
            assert!(others.into_iter().all(is_other));
        }
    }
}
