//! `mptcp-trace demo`: provokes a real fallback on this kernel and traces it.
//!
//! The scene runs in its own process and network namespaces and is traced like any command. Nothing
//! remains when that process ends, however it ends.

use std::{ffi::OsString, io::IsTerminal as _};

use anyhow::Context as _;

use crate::{
    cli::{DONE, Exit, args::DemoArgs, colour, options, run::trace, terminal},
    host::{Fact, system::mptcp_enabled},
    sink::TextOptions,
};

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: &DemoArgs, verbose: u8) -> Result<u8, Exit> {
    if args.scene {
        let counted = mptcp_trace_scene::demo::play()
            .context(
                "cannot run the demo: it needs root with CAP_SYS_ADMIN and CAP_NET_ADMIN (in a container: \
                 --privileged), MPTCP and the veth module",
            )?;
        stderr_line!("demo: {counted}");
        return Ok(DONE);
    }
    stderr_line!(
        "demo: a client and a server in two network namespaces talk over MPTCP. Then the path between them\n\
         demo: starts to strip the MPTCP options from every packet, as middleboxes do. Both ask \
         the kernel\n\
         demo: before and after: is this still MPTCP?"
    );
    if let Fact::No(_) = mptcp_enabled() {
        stderr_line!(
            "demo: MPTCP is switched off on this host, but not in these two network namespaces"
        );
    }
    let code = trace(traced(args)?, verbose)?;
    if code == DONE {
        stderr_line!("demo: what a cause means: mptcp-trace explain DssFallback");
    }
    Ok(code)
}

/// The lines: a demo has a header also where it does not go to a terminal.
fn text() -> TextOptions {
    let is_terminal = std::io::stdout().is_terminal();
    TextOptions {
        header: true,
        colour: colour::is_wanted(is_terminal),
        width: terminal::stdout_width(false, is_terminal),
        ..TextOptions::default()
    }
}

/// Options for tracing the scene.
fn traced(args: &DemoArgs) -> anyhow::Result<options::Live> {
    let me = std::env::current_exe().context("cannot find the program's own file")?;
    let command = [me.into_os_string(), "demo".into(), "--scene".into()];
    Ok(options::Live {
        text: (!args.json).then(text),
        command: command.map(OsString::from).to_vec(),
        ..options::Live::new(args.attach.options())
    })
}
