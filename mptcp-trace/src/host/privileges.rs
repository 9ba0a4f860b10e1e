//! May this process load and attach BPF programs?

use rustix::thread::{CapabilitySet, capabilities};

use super::Fact;

/// What the kernel asks for (`man 7 capabilities`): `CAP_BPF` and `CAP_PERFMON`, or the older
/// `CAP_SYS_ADMIN` that holds both.
#[must_use]
pub fn may_trace() -> Fact {
    let held = match capabilities(None) {
        Ok(sets) => sets.effective,
        Err(why) => {
            return Fact::Unknown(format!(
                "capabilities of this process cannot be read: {why}"
            ));
        }
    };
    judge(held)
}

fn judge(held: CapabilitySet) -> Fact {
    if held.contains(CapabilitySet::SYS_ADMIN) {
        return Fact::Yes;
    }
    let missing: Vec<&str> = [
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
    ]
    .into_iter()
    .filter(|(capability, _)| !held.contains(*capability))
    .map(|(_, name)| name)
    .collect();
    Fact::from_bool(
        missing.is_empty(),
        format!("this process lacks {}", missing.join(" and ")),
    )
}

/// True if this process may make namespaces and mounts of its own.
#[must_use]
pub fn may_make_namespaces() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_new_capabilities_or_the_old_one_are_enough() {
        let none = CapabilitySet::empty();
        let both = CapabilitySet::BPF | CapabilitySet::PERFMON;
        assert_eq!(judge(both), Fact::Yes);
        assert_eq!(judge(CapabilitySet::SYS_ADMIN), Fact::Yes);
        assert_eq!(
            judge(none),
            Fact::No("this process lacks CAP_BPF and CAP_PERFMON".into())
        );
        assert_eq!(
            judge(CapabilitySet::BPF | CapabilitySet::NET_ADMIN),
            Fact::No("this process lacks CAP_PERFMON".into())
        );
    }
}
