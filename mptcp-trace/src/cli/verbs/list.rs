//! `mptcp-trace list`: prints the open MPTCP sockets.

use std::{convert::Infallible, io::IsTerminal as _};

use anyhow::Context as _;

use crate::{
    cli::{
        CANNOT_ANSWER, DONE, Exit,
        args::{FindingFilterArgs, ListArgs},
        colour, interfaces,
        options::Scope,
        print, select, talk, terminal, tracing,
    },
    enrich::CgroupCache,
    host::system::proc_is_ours,
    model::SensorId,
    pipeline::{Inventory, prefixed},
    plan::OTHERS_UNLISTED,
    sink::{FindingCounts, Format, Source, TextLines, TextOptions},
};

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: &ListArgs, verbose: u8) -> Result<u8, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(list(args, verbose))
}

async fn list(args: &ListArgs, verbose: u8) -> Result<u8, Exit> {
    let wanted = select::wanted(&FindingFilterArgs::default(), &args.which, &args.whose)?;
    // No task is traced; existing sockets are still listed.
    let started = tracing::start(&args.attach.options(), &Scope::SelfTestOnly, verbose).await?;
    let (is_in_pid_namespace, mut session) = (started.is_in_pid_namespace, started.session);
    if !session.has_fallbacks() {
        return Err(Exit::Because(
            CANNOT_ANSWER,
            "sockets cannot be listed on this kernel; mptcp-trace doctor reports why".into(),
        ));
    }
    if is_in_pid_namespace && talk::has_notes() {
        stderr!("{}", prefixed(&format!("note: {OTHERS_UNLISTED}")));
    }
    session.tracer.stop()?;
    let mut cgroups = CgroupCache::live(proc_is_ours());
    let mut found = Inventory::default();
    let facts = session.facts.clone();
    for bytes in std::mem::take(&mut session.backlog) {
        found.take(&bytes, &facts, &mut cgroups);
    }
    let Ok(()) = session.records.drain(|bytes| {
        found.take(bytes, &facts, &mut cgroups);
        Ok::<(), Infallible>(())
    });
    let format = match args.json {
        true => Format::Json,
        false => {
            let is_terminal = std::io::stdout().is_terminal();
            let options = TextOptions {
                header: is_terminal || args.header,
                colour: colour::is_wanted(is_terminal),
                width: terminal::stdout_width(args.wide, is_terminal),
                interface: interfaces::name,
                ..TextOptions::default()
            };
            Format::Text(Box::new(TextLines::of_sockets(options)))
        }
    };
    let losses = session.losses()?;
    let mut out = Vec::new();
    if args.json {
        format.start(&facts, Source::Live, &mut out);
    }
    let printed = found.print(&wanted, &cgroups, &format, &mut out);
    format.end(
        FindingCounts {
            findings: printed,
            not_shown: found.len() as u64 - printed,
            coalesced: 0,
            evicted: 0,
        },
        &losses,
        &[],
        &mut out,
    );
    print(&String::from_utf8_lossy(&out))?;
    let word = if printed == 1 { "socket" } else { "sockets" };
    let mut said = format!("{printed} MPTCP {word}");
    if found.len() as u64 > printed {
        said.push_str(&format!("; not shown: {}", found.len() as u64 - printed));
    }
    let lost: u64 = losses
        .of(SensorId::Fallback)
        .map_or(0, crate::model::Loss::lost);
    if lost > 0 {
        said.push_str(&format!(
            "; {lost} more were lost: the ring is too small, use a larger --ring-size"
        ));
    }
    stderr!("{}", prefixed(&said));
    Ok(DONE)
}
