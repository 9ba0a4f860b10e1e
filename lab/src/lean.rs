//! `mptcp-lab lean`: a program as an ordinary user with the capabilities that are named and no way to more, for kernels
//! on which there is no setpriv.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::Context as _;
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, capability_is_in_bounding_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// Nobody.
const USER: u32 = 65534;
/// More capabilities than any kernel has.
const NUMBER_MAX: u32 = 63;

/// What to run, and with what.
#[derive(clap::Args)]
pub struct Args {
    /// A capability that it has, like `BPF` (repeatable)
    #[arg(long, value_name = "NAME", default_values = ["BPF", "PERFMON"])]
    cap: Vec<String>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes that program; never returns but with an error.
///
/// # Errors
///
/// Fails without root, and if there is no such program.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let keep = args
        .cap
        .iter()
        .map(|name| {
            CapabilitySet::from_name(name).with_context(|| format!("no capability CAP_{name}"))
        })
        .collect::<anyhow::Result<CapabilitySet>>()?;
    drop_to(keep).context("cannot become an ordinary user")?;
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
            // The kernel knows no more of them.
            Err(_invalid) => break,
        }
    }
    // There is one thread: what is a thread's is the process's.
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
