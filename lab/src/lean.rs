//! `mptcp-lab lean`: runs a program as an unprivileged user with the named capabilities and no way
//! to gain more, on systems without setpriv.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::Context as _;
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, capability_is_in_bounding_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// User id of `nobody`.
const USER: u32 = 65534;
/// Upper bound of the kernel's capability numbers.
const NUMBER_MAX: u32 = 63;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Capability to keep, such as `BPF` (repeatable)
    #[arg(long, value_name = "NAME", default_values = ["BPF", "PERFMON"])]
    cap: Vec<String>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Executes the program; returns only on error.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let keep = args
        .cap
        .iter()
        .map(|name| {
            CapabilitySet::from_name(name).with_context(|| format!("no capability CAP_{name}"))
        })
        .collect::<anyhow::Result<CapabilitySet>>()?;
    drop_to(keep).context("cannot become an unprivileged user")?;
    let (name, words) = args.command.split_first().context("no program to run")?;
    let why = Command::new(name).args(words).exec();
    Err(why).with_context(|| format!("cannot run {}", name.display()))
}

fn drop_to(keep: CapabilitySet) -> rustix::io::Result<()> {
    for number in 0..NUMBER_MAX {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(true) if !keep.contains(capability) => {
                remove_capability_from_bounding_set(capability)?;
            }
            Ok(_) => {}
            // Beyond the last capability of this kernel.
            Err(_invalid) => break,
        }
    }
    // The process is single-threaded, so the thread's groups are those of the process.
    set_thread_groups(&[])?;
    let (user, group) = (Uid::from_raw(USER), Gid::from_raw(USER));
    set_thread_res_gid(group, group, group)?;
    set_keep_capabilities(true)?;
    set_thread_res_uid(user, user, user)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: keep,
            permitted: keep,
            inheritable: keep,
        },
    )?;
    keep.iter()
        .try_for_each(|capability| configure_capability_in_ambient_set(capability, true))
}
