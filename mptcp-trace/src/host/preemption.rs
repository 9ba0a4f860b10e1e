//! Determines whether the kernel can preempt a thread that runs in the kernel.

use std::fs;

use super::Preemptible;

/// Preemption model, set at boot or later; readable if debugfs is mounted. Lists all models, with
/// the active one in brackets.
const MODEL: &str = "/sys/kernel/debug/sched/preempt";
/// Since this release the default model is lazy preemption (`PREEMPT_LAZY`).
const LAZY_SINCE: Release = Release(6, 13);
/// Since this release programs at tracepoints run with preemption enabled (`tracepoint_srcu`,
/// SRCU-fast).
const TRACEPOINTS_SINCE: Release = Release(7, 0);

/// Version and patch level of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Release(u32, u32);

/// Inspects the running kernel.
pub(super) fn preemptible() -> Preemptible {
    let name = rustix::system::uname();
    decide(
        &name.release().to_string_lossy(),
        &name.version().to_string_lossy(),
        fs::read_to_string(MODEL).ok().as_deref(),
    )
}

/// Decides from `uname -r`, `uname -v`, and the model if readable. An unknown is taken as
/// preemptible: needless turns cost little.
fn decide(release: &str, version: &str, model: Option<&str>) -> Preemptible {
    let release = parse(release);
    let is_since = |since: Release| release.is_none_or(|it| it >= since);
    let words = || version.split_whitespace();
    let in_use = model
        .and_then(|models| models.split_once('(')?.1.split_once(')'))
        .map(|(in_use, _)| in_use);
    let functions = match in_use {
        Some("none" | "voluntary") => false,
        Some(_) => true,
        None => {
            words().any(|word| word == "PREEMPT" || word == "PREEMPT_RT") || is_since(LAZY_SINCE)
        }
    };
    Preemptible {
        functions,
        tracepoints: functions && is_since(TRACEPOINTS_SINCE),
    }
}

fn parse(release: &str) -> Option<Release> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    Some(Release(number()?, number()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOWHERE: Preemptible = Preemptible {
        functions: false,
        tracepoints: false,
    };
    const FUNCTIONS: Preemptible = Preemptible {
        functions: true,
        tracepoints: false,
    };
    const EVERYWHERE: Preemptible = Preemptible {
        functions: true,
        tracepoints: true,
    };

    #[test]
    fn the_model_in_use_decides_and_without_it_the_version_does() {
        let dynamic = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.43-1 (2025-08-27)";
        for (release, version, model, expected) in [
            (
                "6.1.0-50-cloud-amd64",
                "#1 SMP Debian 6.1.176-1",
                None,
                NOWHERE,
            ),
            ("6.12.43+deb13-amd64", dynamic, None, NOWHERE),
            (
                "6.12.43+deb13-amd64",
                dynamic,
                Some("none (voluntary) full\n"),
                NOWHERE,
            ),
            (
                "6.12.43+deb13-amd64",
                dynamic,
                Some("none voluntary (full)\n"),
                FUNCTIONS,
            ),
            (
                "6.12.43+deb13-rt-amd64",
                "#1 SMP PREEMPT_RT Debian",
                None,
                FUNCTIONS,
            ),
            ("6.18.5", dynamic, None, FUNCTIONS),
            ("6.18.5", dynamic, Some("full (lazy)\n"), FUNCTIONS),
            ("7.3.4+deb13-cloud-amd64", dynamic, None, EVERYWHERE),
            (
                "7.3.4+deb13-rt-amd64",
                "#1 SMP PREEMPT_RT Debian",
                None,
                EVERYWHERE,
            ),
            (
                "7.3.4",
                dynamic,
                Some("(none) voluntary full lazy\n"),
                NOWHERE,
            ),
            ("unheard of", dynamic, None, EVERYWHERE),
        ] {
            assert_eq!(
                decide(release, version, model),
                expected,
                "{release} {model:?}"
            );
        }
    }
}
