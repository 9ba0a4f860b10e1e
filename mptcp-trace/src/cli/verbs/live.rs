//! `mptcp-trace live`: trace the running kernel.

use crate::{
    cli::{
        Exit, USAGE,
        args::{LiveArgs, TaskFilterArgs},
        interfaces,
        keep::Keep,
        options::{Live, Names},
        run, select,
    },
    pipeline::PeerBook,
    sink::TextOptions,
};

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: LiveArgs, verbose: u8) -> Result<u8, Exit> {
    run::trace(wanted(args)?, verbose)
}

/// Converts arguments to options; rejects invalid combinations.
fn wanted(args: LiveArgs) -> Result<Live, Exit> {
    let usage = |why: &str| {
        Err(Exit::Because(
            USAGE,
            format!("{why}; see mptcp-trace --help"),
        ))
    };
    if args.follow && args.pid.is_empty() && args.command.is_empty() {
        return usage("--follow needs a --pid to follow");
    }
    if !args.command.is_empty() && !args.pid.is_empty() {
        return usage("--pid and a COMMAND cannot be traced together");
    }
    // The BPF side filters by task.
    let mut view = select::view(&args.view, &TaskFilterArgs::default())?;
    view.summary = view.summary.naming(interfaces::of_address);
    view.peers = PeerBook::naming(interfaces::of_address);
    Ok(Live {
        attaching: args.attach.options(),
        view,
        names: Names {
            pids: args.pid,
            comms: args.comm,
            netns: args.netns,
            follow: args.follow,
            awaits_process: false,
        },
        text: (!args.json).then(|| {
            let text = select::lines(&args.view, args.output.is_none());
            TextOptions {
                interface: interfaces::name,
                ..text
            }
        }),
        output: args.output,
        capture: args.capture,
        keep: Keep::typed(args.keep)?,
        ready_file: args.ready_file,
        duration: args.duration,
        stop_after: args.stop_after,
        writes_later: false,
        command: args.command,
    })
}
