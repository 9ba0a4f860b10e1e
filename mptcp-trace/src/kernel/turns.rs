//! Backup programs at the same probe, so that hardly any run is missed. The module `turns` of the
//! BPF side explains how they take turns; the table of probes lists them.

use crate::{
    host::Preemptible,
    plan::Probe,
    probes::{self, Hook},
};

/// The programs attached in addition to that of `probe` on such a kernel, in the order in which
/// they run after it.
pub(super) fn others(probe: &Probe, preemptible: Preemptible) -> &'static [&'static str] {
    let is_of_use = match probe.target.hook {
        Hook::Fentry | Hook::Fexit => preemptible.functions,
        Hook::RawTracepoint | Hook::TypedTracepoint => preemptible.tracepoints,
        // Kprobes are never preempted.
        Hook::Kprobe | Hook::Kretprobe => false,
    };
    match is_of_use {
        true => probe.attachment.turns,
        false => &[],
    }
}

/// True for a program that only takes over runs that another one missed.
pub(super) fn is_other(program: &str) -> bool {
    probes::attachments().any(|it| it.turns.contains(&program))
}

/// True if the program attached last runs first (`bpf_trampoline_link_prog`); tracepoints keep the
/// order.
pub(super) fn is_stack(hook: Hook) -> bool {
    matches!(hook, Hook::Fentry | Hook::Fexit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Target;

    #[test]
    fn programs_take_turns_only_where_a_thread_can_be_preempted() {
        let probe = |program| {
            let attachment = probes::attachments().find(|it| it.program == program);
            let attachment = attachment.unwrap();
            Probe {
                attachment,
                target: Target {
                    hook: attachment.hook,
                    name: String::new(),
                },
            }
        };
        let function = probe("query_fexit_mptcp");
        let tracepoint = probe("life_tp_state");
        let breakpoint = probe("query_kprobe_mptcp");
        for (functions, tracepoints) in [(false, false), (true, false), (true, true)] {
            let on = Preemptible {
                functions,
                tracepoints,
            };
            let at_function = others(&function, on);
            assert_eq!(
                at_function == ["query_fexit_mptcp_2", "query_fexit_mptcp_3"],
                functions
            );
            assert_eq!(at_function.is_empty(), !functions);
            let at_tracepoint = others(&tracepoint, on);
            assert_eq!(
                at_tracepoint == ["life_tp_state_2", "life_tp_state_3"],
                tracepoints
            );
            assert_eq!(at_tracepoint.is_empty(), !tracepoints);
            assert!(others(&breakpoint, on).is_empty());
        }
    }

    #[test]
    fn what_misses_runs_is_not_what_takes_them() {
        for it in probes::attachments().filter(|it| !it.turns.is_empty()) {
            assert!(!is_other(it.program));
            assert_eq!(
                it.turns,
                [2, 3].map(|turn| format!("{}_{turn}", it.program))
            );
            assert!(it.turns.iter().all(|turn| is_other(turn)));
        }
    }
}
