//! What to type if this user may not trace: for this user, on this machine.

use std::{
    env,
    path::{Path, PathBuf},
};

use rustix::thread::{CapabilitySet, capability_is_in_bounding_set};

use super::{CANNOT_ANSWER, Exit, shell::line};
use crate::host::{Fact, privileges};

/// Where sudo and similar programs search, whatever the caller's PATH.
const ROOT_PATH: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Programs that run a command as root, the most common first.
const ELEVATORS: [&str; 4] = ["sudo", "doas", "run0", "pkexec"];

/// Files that container engines create.
const CONTAINER_MARKS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// Variables that Kubernetes, or podman and systemd-nspawn, set.
const CONTAINER_VARIABLES: [&str; 2] = ["KUBERNETES_SERVICE_HOST", "container"];

/// What decides the advice.
#[derive(Clone, Debug)]
struct Situation {
    /// Why this process may not trace.
    why: String,
    /// The effective user is root.
    is_root: bool,
    /// The process runs in a container.
    is_in_container: bool,
    /// Root in this container has what tracing needs.
    may_grant: bool,
    /// The first of [`ELEVATORS`] that is installed.
    elevator: Option<&'static str>,
    /// The program `su` is installed.
    has_su: bool,
    /// The program `setcap` is installed.
    has_setcap: bool,
    /// The program: its name if root finds it by that, else its path.
    program: String,
    /// The program's path.
    path: String,
    /// Arguments as typed.
    words: Vec<String>,
}

/// The exit of a process that may not trace; `None` if it may.
pub(super) fn refusal() -> Option<Exit> {
    let Fact::No(why) = privileges::may_trace() else {
        return None;
    };
    Some(Exit::Lines(CANNOT_ANSWER, lines(why)))
}

/// The reason why this process may not trace, and what to type.
pub(super) fn lines(why: String) -> Vec<String> {
    advice(&situation(why))
}

fn situation(why: String) -> Situation {
    let path = env::current_exe().unwrap_or_else(|_unknown| PathBuf::from("mptcp-trace"));
    let name = path.file_name().map(PathBuf::from).unwrap_or_default();
    let is_found = ROOT_PATH.iter().any(|folder| {
        let known = Path::new(folder).join(&name).canonicalize();
        known.is_ok_and(|known| known == path)
    });
    let words = env::args_os().skip(1);
    Situation {
        why,
        is_root: rustix::process::geteuid().is_root(),
        is_in_container: CONTAINER_MARKS.iter().any(|mark| Path::new(mark).exists())
            || CONTAINER_VARIABLES
                .iter()
                .any(|name| env::var_os(name).is_some()),
        may_grant: [CapabilitySet::BPF, CapabilitySet::PERFMON]
            .into_iter()
            .all(|it| capability_is_in_bounding_set(it).unwrap_or(false)),
        elevator: ELEVATORS.into_iter().find(|it| is_installed(it)),
        has_su: is_installed("su"),
        has_setcap: is_installed("setcap"),
        program: if is_found { name } else { path.clone() }
            .to_string_lossy()
            .into_owned(),
        path: path.to_string_lossy().into_owned(),
        words: words.map(|it| it.to_string_lossy().into_owned()).collect(),
    }
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = env::split_paths(&path).chain(ROOT_PATH.map(PathBuf::from));
    folders.any(|folder| folder.join(program).is_file())
}

/// Three lines: the reason, what to type, and how to need it no more.
fn advice(situation: &Situation) -> Vec<String> {
    let Situation {
        why,
        is_root,
        is_in_container,
        may_grant,
        elevator,
        has_su,
        has_setcap,
        program,
        path,
        words,
    } = situation;
    let reason = format!("not enough privileges to load BPF programs: {why}");
    // No privilege of this process helps.
    if why.contains("lockdown=") {
        return vec![why.clone()];
    }
    let typed = line(
        [program.as_str()]
            .into_iter()
            .chain(words.iter().map(String::as_str)),
    );
    if why.contains("user namespace") {
        return vec![
            reason,
            format!("type, on the host: sudo {typed}"),
            "or start the container as root of the host, without a user namespace of its own"
                .into(),
        ];
    }
    // Capabilities that are added to a container reach its root only.
    if *is_in_container && !*is_root && *may_grant && elevator.is_none() {
        return vec![
            reason,
            "this container has them, but only for its root: start it with docker run --user 0 ... (podman: \
             the same)"
                .into(),
            "or, in Kubernetes: securityContext: {runAsUser: 0}".into(),
        ];
    }
    // Root in a container may lack them; an ordinary user becomes root first, if that is possible.
    if *is_in_container && (*is_root || elevator.is_none()) {
        return vec![
            reason,
            "no program in this container can grant them: start it, as root, by docker run --cap-add \
             BPF --cap-add PERFMON ..., or with --privileged (podman as root: the same)"
                .into(),
            "or, in Kubernetes: securityContext: {capabilities: {add: [BPF, PERFMON]}}".into(),
        ];
    }
    if *is_root {
        return vec![
            reason,
            "root lacks them too: what started this process dropped them (CapBnd in \
             /proc/self/status; a systemd unit sets CapabilityBoundingSet=)"
                .into(),
            "type, in a login shell of root or over ssh: the same command".into(),
        ];
    }
    let as_root = |command: &str| match elevator {
        Some(elevator) => format!("type: {elevator} {command}"),
        None if *has_su => format!("type: {}", line(["su", "-c", command])),
        None => format!("type, as root: {command}"),
    };
    let grant = line(["setcap", "cap_bpf,cap_perfmon+ep", path]);
    let other = match has_setcap {
        true => format!(
            "or, to let every user of this machine trace without that, {}",
            as_root(&grant)
        ),
        false => "or give this process CAP_BPF and CAP_PERFMON in another way: docs/install.md, \
                  Capabilities"
            .to_owned(),
    };
    vec![reason, as_root(&typed), other]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_for_this_user_on_this_machine() {
        let usual = Situation {
            why: "this process lacks CAP_BPF".into(),
            is_root: false,
            is_in_container: false,
            may_grant: true,
            elevator: Some("sudo"),
            has_su: true,
            has_setcap: true,
            program: "mptcp-trace".into(),
            path: "/usr/bin/mptcp-trace".into(),
            words: vec!["--pid".into(), "7".into(), "--output".into(), "a b".into()],
        };
        for (situation, second, third) in [
            (
                usual.clone(),
                "type: sudo mptcp-trace --pid 7 --output 'a b'",
                "sudo setcap cap_bpf,cap_perfmon+ep /usr/bin/mptcp-trace",
            ),
            (
                Situation {
                    elevator: None,
                    words: Vec::new(),
                    program: "/home/me/mptcp-trace".into(),
                    ..usual.clone()
                },
                "type: su -c /home/me/mptcp-trace",
                "su -c 'setcap cap_bpf,cap_perfmon+ep /usr/bin/mptcp-trace'",
            ),
            (
                Situation {
                    elevator: None,
                    has_su: false,
                    has_setcap: false,
                    words: Vec::new(),
                    ..usual.clone()
                },
                "type, as root: mptcp-trace",
                "docs/install.md",
            ),
            (
                Situation {
                    is_in_container: true,
                    elevator: None,
                    has_setcap: false,
                    ..usual.clone()
                },
                "docker run --user 0",
                "runAsUser: 0",
            ),
            (
                Situation {
                    is_in_container: true,
                    may_grant: false,
                    elevator: None,
                    has_setcap: false,
                    ..usual.clone()
                },
                "docker run --cap-add BPF --cap-add PERFMON",
                "securityContext",
            ),
            (
                Situation {
                    is_in_container: true,
                    is_root: true,
                    ..usual.clone()
                },
                "docker run --cap-add BPF --cap-add PERFMON",
                "add: [BPF, PERFMON]",
            ),
            (
                Situation {
                    is_root: true,
                    ..usual.clone()
                },
                "CapabilityBoundingSet=",
                "the same command",
            ),
            (
                Situation {
                    why: "only in a user namespace".into(),
                    ..usual.clone()
                },
                "on the host: sudo mptcp-trace",
                "without a user namespace",
            ),
        ] {
            let lines = advice(&situation);
            let [reason, first, other] = &lines[..] else {
                panic!("{lines:?}")
            };
            assert!(reason.ends_with(&situation.why), "{lines:?}");
            assert!(first.contains(second), "{lines:?}");
            assert!(other.contains(third), "{lines:?}");
            for (program, is_installed) in [
                ("sudo", situation.elevator == Some("sudo")),
                ("setcap ", situation.has_setcap),
                ("su -c", situation.has_su),
            ] {
                // What to type on the host is not about this machine.
                let is_named = lines.iter().any(|it| it.contains(program));
                let is_of_the_host = first.contains("on the host");
                assert!(is_installed || is_of_the_host || !is_named, "{lines:?}");
            }
        }
        let locked = Situation {
            why: "the kernel is locked down (lockdown=confidentiality)".into(),
            ..usual
        };
        assert_eq!(advice(&locked), [locked.why.as_str()]);
    }
}
