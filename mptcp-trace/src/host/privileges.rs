//! Capabilities of this process: which ones tracing requires, what each of the others enables, and
//! how the unneeded ones are dropped.

mod drop;

pub use drop::{GivenUp, RuntimeNeeds, drop_effective, drop_permanently, raised, with};

use std::{fs, os::unix::fs::MetadataExt as _};

use rustix::thread::{CapabilitySet, capabilities};

use super::Fact;

/// The capability that only kernels need that charge maps to `RLIMIT_MEMLOCK`.
pub const CREATES_LARGE_MAPS: &str = "CAP_SYS_RESOURCE";

/// The kernel's lockdown mode; not mounted in containers.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
/// The kernel's parameters, of which one sets that mode.
const PARAMETERS: &str = "/proc/cmdline";
/// Number of the last capability that the kernel knows.
const LAST_CAP: &str = "/proc/sys/kernel/cap_last_cap";
/// The number of `CAP_BPF`: older kernels use `CAP_SYS_ADMIN` instead.
const BPF_NUMBER: u32 = 39;

/// A capability that this program uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    /// Name as in `man 7 capabilities`.
    pub name: &'static str,
    /// Its bit.
    pub bit: CapabilitySet,
    /// Tracing is impossible without it.
    pub mandatory: bool,
    /// What it is used for.
    pub purpose: &'static str,
    /// What is lost without it.
    pub cost: &'static str,
}

/// All of them, the mandatory ones first. Printed by `doctor`, and in docs/security.md.
pub const TABLE: [Capability; 8] = [
    Capability {
        name: "CAP_BPF",
        bit: CapabilitySet::BPF,
        mandatory: true,
        purpose: "creates maps and loads programs",
        cost: "nothing is traced",
    },
    Capability {
        name: "CAP_PERFMON",
        bit: CapabilitySet::PERFMON,
        mandatory: true,
        purpose: "attaches programs to the kernel's functions and lets them read its memory",
        cost: "nothing is traced",
    },
    Capability {
        name: "CAP_SYS_PTRACE",
        bit: CapabilitySet::SYS_PTRACE,
        mandatory: false,
        purpose: "finds the network namespaces of other users' processes, to read the kernel's \
                  counters there",
        cost: "the kernel's counters are not compared in namespaces with only other users' \
               processes and no traced fallback",
    },
    Capability {
        name: "CAP_SYS_ADMIN",
        bit: CapabilitySet::SYS_ADMIN,
        mandatory: false,
        purpose: "enters named network namespaces (ip netns) without a process, to read the \
                  kernel's counters there; allows kprobes where kernel.perf_event_paranoid is \
                  above 2 on Debian kernels",
        cost: "the kernel's counters are not compared in namespaces without a process and a traced \
               fallback; where kernel.perf_event_paranoid is above 2 on Debian kernels, the attach \
               method kprobe is unavailable",
    },
    Capability {
        name: "CAP_NET_ADMIN",
        bit: CapabilitySet::NET_ADMIN,
        mandatory: false,
        purpose: "with CAP_SYS_ADMIN: creates the network namespace of the self-test where \
                  ordinary users may not create one (user.max_user_namespaces, AppArmor)",
        cost: "where ordinary users may not create namespaces, the fallback bit is not calibrated, \
               see self-test",
    },
    Capability {
        name: CREATES_LARGE_MAPS,
        bit: CapabilitySet::SYS_RESOURCE,
        mandatory: false,
        purpose: "raises RLIMIT_MEMLOCK, to which kernels before 5.11 charge maps",
        cost: "before 5.11, the limit must be raised before the start (ulimit -l unlimited, \
               LimitMEMLOCK=infinity)",
    },
    Capability {
        name: "CAP_SYS_CHROOT",
        bit: CapabilitySet::SYS_CHROOT,
        mandatory: false,
        purpose: "prevents a library from reading all kernel types needlessly",
        cost: "startup takes about 20 ms longer",
    },
    Capability {
        name: "CAP_KILL",
        bit: CapabilitySet::KILL,
        mandatory: false,
        purpose: "forwards SIGTERM to a COMMAND that runs as another user",
        cost: "a COMMAND that runs as another user must be stopped manually",
    },
];

/// One capability, and whether this process has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Which.
    pub capability: Capability,
    /// It is in the effective set.
    pub held: bool,
}

/// The table with this process's capabilities; empty if they cannot be read.
#[must_use]
pub fn held() -> Vec<Held> {
    let Ok(sets) = capabilities(None) else {
        return Vec::new();
    };
    TABLE
        .map(|capability| Held {
            capability,
            held: counts_as(sets.effective).contains(capability.bit),
        })
        .to_vec()
}

/// `CAP_SYS_ADMIN` includes the capabilities that were split off it later.
fn counts_as(held: CapabilitySet) -> CapabilitySet {
    match held.contains(CapabilitySet::SYS_ADMIN) {
        true => held | CapabilitySet::BPF | CapabilitySet::PERFMON,
        false => held,
    }
}

/// Whether the kernel's requirements are met (`man 7 capabilities`): `CAP_BPF` and `CAP_PERFMON`,
/// or the older `CAP_SYS_ADMIN` that includes both.
#[must_use]
pub fn may_trace() -> Fact {
    let read = |file| fs::read_to_string(file).ok();
    if is_locked_down(read(LOCKDOWN), read(PARAMETERS)) {
        return Fact::No(LOCKED_DOWN.to_owned());
    }
    let held = match capabilities(None) {
        Ok(sets) => sets.effective,
        Err(why) => {
            return Fact::Unknown(format!(
                "cannot read the capabilities of this process: {why}"
            ));
        }
    };
    let last = fs::read_to_string(LAST_CAP)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    judge(held, last, is_of_the_host())
}

/// Why nothing can be traced in that mode.
const LOCKED_DOWN: &str = "the kernel is locked down (lockdown=confidentiality, \
                           /sys/kernel/security/lockdown): BPF programs cannot read its memory, \
                           regardless of capabilities; boot with lockdown=integrity or without";

/// True if no BPF program may read kernel memory, whatever its loader's capabilities. `modes` is the
/// content of [`LOCKDOWN`], the active mode in brackets; without it, `parameters` decides, that of
/// [`PARAMETERS`].
fn is_locked_down(modes: Option<String>, parameters: Option<String>) -> bool {
    match (modes, parameters) {
        (Some(modes), _) => modes.contains("[confidentiality]"),
        (None, Some(parameters)) => {
            // The kernel never lowers the mode.
            let mut words = parameters.split_ascii_whitespace();
            words.any(|word| word == "lockdown=confidentiality")
        }
        (None, None) => false,
    }
}

/// `last`: the last capability that the kernel knows, if readable. `of_the_host`: this process is
/// in the initial user namespace.
fn judge(held: CapabilitySet, last: Option<u32>, of_the_host: bool) -> Fact {
    if last.is_some_and(|last| last < BPF_NUMBER) {
        return match held.contains(CapabilitySet::SYS_ADMIN) {
            true => whose(of_the_host),
            false => Fact::No(
                "this process lacks CAP_SYS_ADMIN (this kernel has no CAP_BPF and CAP_PERFMON yet)"
                    .into(),
            ),
        };
    }
    let missing: Vec<&str> = TABLE
        .iter()
        .filter(|it| it.mandatory && !counts_as(held).contains(it.bit))
        .map(|it| it.name)
        .collect();
    match missing.is_empty() {
        true => whose(of_the_host),
        false => Fact::No(format!("this process lacks {}", missing.join(" and "))),
    }
}

fn whose(of_the_host: bool) -> Fact {
    Fact::from_bool(
        of_the_host,
        "this process has its capabilities only in a user namespace (rootless container), but the \
         kernel requires those of the host",
    )
}

/// True in the initial user namespace: BPF requires capabilities of that one.
fn is_of_the_host() -> bool {
    // Part of the ABI (PROC_USER_INIT_INO).
    const INITIAL_INO: u64 = 0xefff_fffd;
    // If unreadable, the kernel will refuse on its own.
    fs::metadata("/proc/self/ns/user").map_or(true, |ours| ours.ino() == INITIAL_INO)
}

/// What missing capabilities cost, one sentence each.
#[must_use]
pub fn costs() -> Vec<String> {
    /// Costs that also matter to a reader of the findings; `doctor` lists all.
    const AFFECT_FINDINGS: CapabilitySet = CapabilitySet::SYS_PTRACE;
    held()
        .iter()
        .filter(|it| !it.held && AFFECT_FINDINGS.contains(it.capability.bit))
        .map(|it| format!("without {}: {}", it.capability.name, it.capability.cost))
        .collect()
}

/// True if this process may create a network namespace, and bring up loopback in it.
#[must_use]
pub fn may_make_namespaces() -> bool {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Names of the capabilities in a set, or their numbers if they have no name here.
fn names(set: CapabilitySet) -> Vec<String> {
    set.iter_names()
        .map(|(name, _)| format!("CAP_{name}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: CapabilitySet = CapabilitySet::empty();
    const BOTH: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::PERFMON);

    #[test]
    fn both_new_capabilities_or_the_old_one_are_enough() {
        let no = |why: &str| Fact::No(why.into());
        for (held, last, fact) in [
            (BOTH, Some(40), Fact::Yes),
            (CapabilitySet::SYS_ADMIN, Some(40), Fact::Yes),
            (CapabilitySet::SYS_ADMIN, Some(37), Fact::Yes),
            (BOTH, None, Fact::Yes),
            (
                NONE,
                Some(40),
                no("this process lacks CAP_BPF and CAP_PERFMON"),
            ),
            (
                CapabilitySet::BPF | CapabilitySet::NET_ADMIN,
                Some(40),
                no("this process lacks CAP_PERFMON"),
            ),
            (
                CapabilitySet::PERFMON,
                Some(40),
                no("this process lacks CAP_BPF"),
            ),
            (
                BOTH,
                Some(37),
                no(
                    "this process lacks CAP_SYS_ADMIN (this kernel has no CAP_BPF and CAP_PERFMON yet)",
                ),
            ),
        ] {
            assert_eq!(judge(held, last, true), fact, "{held:?} {last:?}");
        }
    }

    #[test]
    fn capabilities_of_a_user_namespace_do_not_count() {
        let Fact::No(why) = judge(BOTH, Some(40), false) else {
            panic!("they counted");
        };
        assert!(why.contains("user namespace"), "{why}");
    }

    #[test]
    fn required_capabilities_come_first() {
        let mandatory: Vec<&str> = TABLE
            .iter()
            .take_while(|it| it.mandatory)
            .map(|it| it.name)
            .collect();
        assert_eq!(mandatory, ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(
            TABLE.iter().filter(|it| it.mandatory).count(),
            mandatory.len()
        );
    }

    #[test]
    fn a_locked_down_kernel_is_reported() {
        const BOOTED: &str = "console=ttyS0 lockdown=confidentiality quiet\n";
        for (modes, parameters, is_locked) in [
            (Some("none integrity [confidentiality]\n"), None, true),
            (Some("none [integrity] confidentiality\n"), None, false),
            (Some("[none] integrity confidentiality\n"), None, false),
            // The kernel may lack that mode.
            (Some(""), Some(BOOTED), false),
            (None, Some(BOOTED), true),
            (
                None,
                Some("lockdown=confidentiality lockdown=integrity"),
                true,
            ),
            (None, Some("lockdown=integrity"), false),
            (None, None, false),
        ] {
            let is = is_locked_down(modes.map(str::to_owned), parameters.map(str::to_owned));
            assert_eq!(is, is_locked, "{modes:?} {parameters:?}");
        }
    }

    #[test]
    fn names_are_those_of_the_manual() {
        for it in TABLE {
            assert_eq!(names(it.bit), [it.name]);
        }
    }
}
