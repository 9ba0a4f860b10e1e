//! Permanently drops privileges that are not needed once everything is attached and opened.
//!
//! Capabilities belong to threads, so call this while there is only one. A process forked earlier
//! keeps its own.

use anyhow::{Context as _, ensure};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

use super::names;

/// Above the number of any kernel's last capability.
const NUMBER_MAX: u32 = 63;

/// Privileged work that remains after everything is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RuntimeNeeds {
    /// Reading the kernel's counters in all network namespaces.
    pub reads_counters: bool,
    /// Signalling a command, which may have changed its user id.
    pub signals_a_command: bool,
    /// Creating files in directories that the user may have no access to.
    pub writes_files: bool,
    /// Creating a file in the working directory when the user asks for it. The capability is not
    /// effective before ([`raised`]).
    pub creates_files: bool,
}

impl RuntimeNeeds {
    /// The capabilities required for all of that.
    #[must_use]
    pub fn needs(self) -> CapabilitySet {
        let Self {
            reads_counters,
            signals_a_command,
            writes_files,
            creates_files,
        } = self;
        [
            (reads_counters, CapabilitySet::SYS_PTRACE),
            (signals_a_command, CapabilitySet::KILL),
            (writes_files || creates_files, CapabilitySet::DAC_OVERRIDE),
        ]
        .into_iter()
        .filter_map(|(is_needed, capability)| is_needed.then_some(capability))
        .collect()
    }

    /// Those of them that are raised only for a moment, see [`raised`].
    #[must_use]
    pub fn dormant(self) -> CapabilitySet {
        match self.creates_files && !self.writes_files {
            true => CapabilitySet::DAC_OVERRIDE,
            false => CapabilitySet::empty(),
        }
    }
}

/// Result of dropping privileges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenUp {
    /// Names of the capabilities that remain.
    pub kept: Vec<String>,
    /// Names of the capabilities that were dropped.
    pub dropped: Vec<String>,
    /// The bounding set is empty, so that no program can regain any; otherwise only `no_new_privs`
    /// prevents it.
    pub bounded: bool,
}

/// This set plus `CAP_BPF`: some kernels require it for every map access.
#[must_use]
pub fn with(needs: CapabilitySet, bpf: bool) -> CapabilitySet {
    match bpf {
        true => needs | CapabilitySet::BPF | CapabilitySet::SYS_ADMIN & held_instead_of_bpf(),
        false => needs,
    }
}

/// `CAP_SYS_ADMIN`, if `CAP_BPF` is missing.
fn held_instead_of_bpf() -> CapabilitySet {
    match capabilities(None) {
        Ok(sets) if !sets.permitted.contains(CapabilitySet::BPF) => CapabilitySet::SYS_ADMIN,
        Ok(_) | Err(_) => CapabilitySet::empty(),
    }
}

/// Removes all others from the effective set, as a trial: they can still be raised again.
///
/// # Errors
///
/// Fails if the kernel refuses.
pub fn drop_effective(keep: CapabilitySet) -> anyhow::Result<()> {
    let sets = capabilities(None).context("cannot read the capabilities of this process")?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: sets.permitted & keep,
            ..sets
        },
    )
    .context("cannot disable capabilities")
}

/// Permanently drops all others: from the effective, permitted, inheritable and ambient sets and,
/// if allowed, from the bounding set. No program started from here on gains any. Those in `dormant`
/// are not effective until they are [`raised`].
///
/// # Errors
///
/// Fails if one remains afterwards.
pub fn drop_permanently(keep: CapabilitySet, dormant: CapabilitySet) -> anyhow::Result<GivenUp> {
    let before = capabilities(None).context("cannot read the capabilities of this process")?;
    let kept = before.permitted & keep;
    // The trial may have removed `CAP_SETPCAP`, which changing the bounding set requires.
    if before.permitted.contains(CapabilitySet::SETPCAP) {
        let effective = before.effective | CapabilitySet::SETPCAP;
        let raised = CapabilitySets {
            effective,
            ..before
        };
        set_capabilities(None, raised).context("cannot raise CAP_SETPCAP")?;
    }
    let bounded = empty_bounding_set();
    // Kernels before 4.3 have no ambient set.
    if let Err(why) = clear_ambient_capability_set() {
        log::debug!("the ambient set is unchanged: {why}");
    }
    let sets = CapabilitySets {
        effective: kept - dormant,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).context("cannot drop capabilities")?;
    set_no_new_privs(true).context("cannot set no_new_privs")?;
    let now = capabilities(None).context("cannot read the capabilities of this process")?;
    ensure!(
        now == sets,
        "this process still holds {}",
        names(now.permitted).join(", ")
    );
    Ok(GivenUp {
        kept: names(kept),
        dropped: names(before.permitted - kept),
        bounded,
    })
}

/// Raises dormant capabilities of this thread, if it holds them, while `act` runs.
pub fn raised<T>(wanted: CapabilitySet, act: impl FnOnce() -> T) -> T {
    let Ok(sets) = capabilities(None) else {
        return act();
    };
    let effective = sets.effective | sets.permitted & wanted;
    let is_raised = set_capabilities(None, CapabilitySets { effective, ..sets }).is_ok();
    let done = act();
    // Lowering is always allowed.
    if is_raised && let Err(why) = set_capabilities(None, sets) {
        log::warn!("capabilities remain raised: {why}");
    }
    done
}

/// Empties the bounding set; true if nothing remains in it.
fn empty_bounding_set() -> bool {
    let mut is_empty = true;
    for number in 0..NUMBER_MAX {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(true) => is_empty &= remove_capability_from_bounding_set(capability).is_ok(),
            Ok(false) => {}
            // The kernel has no more capabilities.
            Err(_invalid) => break,
        }
    }
    is_empty
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_done_later_says_what_is_kept() {
        assert_eq!(RuntimeNeeds::default().needs(), CapabilitySet::empty());
        let all = RuntimeNeeds {
            reads_counters: true,
            signals_a_command: true,
            writes_files: true,
            creates_files: true,
        };
        assert_eq!(
            all.needs(),
            CapabilitySet::SYS_PTRACE | CapabilitySet::KILL | CapabilitySet::DAC_OVERRIDE
        );
        assert_eq!(all.dormant(), CapabilitySet::empty());
        let later = RuntimeNeeds {
            creates_files: true,
            ..RuntimeNeeds::default()
        };
        assert_eq!(later.needs(), CapabilitySet::DAC_OVERRIDE);
        assert_eq!(later.dormant(), CapabilitySet::DAC_OVERRIDE);
    }

    #[test]
    fn a_dormant_capability_is_effective_only_while_it_is_raised() {
        let thread = std::thread::spawn(|| {
            const ONE: CapabilitySet = CapabilitySet::DAC_OVERRIDE;
            drop_permanently(ONE, ONE).unwrap();
            let effective = || capabilities(None).unwrap().effective;
            let held = capabilities(None).unwrap().permitted;
            assert_eq!(effective(), CapabilitySet::empty());
            let (of_act, inside) = raised(ONE | CapabilitySet::KILL, || (7, effective()));
            assert_eq!((of_act, inside), (7, held & ONE));
            assert_eq!(effective(), CapabilitySet::empty());
        });
        thread.join().unwrap();
    }

    /// Capabilities are per thread, and this one ends right after.
    #[test]
    fn a_thread_that_gives_up_has_nothing_left() {
        let thread = std::thread::spawn(|| {
            let before = capabilities(None).unwrap();
            drop_effective(CapabilitySet::empty()).unwrap();
            assert_eq!(
                capabilities(None).unwrap().effective,
                CapabilitySet::empty()
            );
            let given = drop_permanently(CapabilitySet::KILL, CapabilitySet::empty()).unwrap();
            let after = capabilities(None).unwrap();
            assert_eq!(after.permitted, before.permitted & CapabilitySet::KILL);
            assert_eq!(after.effective, after.permitted);
            assert_eq!(after.inheritable, CapabilitySet::empty());
            assert_eq!(given.kept, names(after.permitted));
            assert_eq!(
                given.bounded,
                before.permitted.contains(CapabilitySet::SETPCAP)
                    || !capability_is_in_bounding_set(CapabilitySet::CHOWN).unwrap()
            );
            assert!(rustix::thread::no_new_privs().unwrap());
        });
        thread.join().unwrap();
    }
}
