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
    model::{Loss, LossReport, Reconciliations, SensorId, SensorState},
    pipeline::{self, Inventory, PrintedSockets, prefixed},
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
    let (visits_all_tasks, mut session) = (started.visits_all_tasks, started.session);
    if !session.has_fallbacks() {
        return Err(Exit::Because(
            CANNOT_ANSWER,
            "sockets cannot be listed on this kernel; mptcp-trace doctor reports why".into(),
        ));
    }
    if let Some(why) = session.unlisted {
        return Err(Exit::Because(CANNOT_ANSWER, why));
    }
    let has_paths = |state: &SensorState| state.sensor == SensorId::Subflow;
    if args.paths && !session.facts.sensors.iter().any(has_paths) {
        return Err(Exit::Because(
            CANNOT_ANSWER,
            "paths cannot be listed on this kernel; mptcp-trace doctor reports why".into(),
        ));
    }
    if !visits_all_tasks && talk::has_notes() {
        stderr!("{}", prefixed(&format!("note: {OTHERS_UNLISTED}")));
    }
    session.tracer.stop()?;
    let mut cgroups = CgroupCache::live(pipeline::lookup(&args.attach.pod_logs));
    let mut found = Inventory::default();
    let facts = session.facts.clone();
    for bytes in std::mem::take(&mut session.backlog) {
        found.take(&bytes, &facts, &mut cgroups);
    }
    let Ok(()) = session.records.drain(|bytes| {
        found.take(bytes, &facts, &mut cgroups);
        Ok::<(), Infallible>(())
    });
    let format = format(args);
    let losses = session.losses()?;
    let mut out = Vec::new();
    if args.json {
        format.start(&facts, Source::Live, &mut out);
    }
    let listed = match args.paths {
        true => found.print_with_paths(&wanted, &cgroups, &format, &mut out),
        false => PrintedSockets {
            sockets: found.print(&wanted, &cgroups, &format, &mut out),
            ..PrintedSockets::default()
        },
    };
    let printed = listed.sockets;
    format.end(
        FindingCounts {
            findings: printed + listed.paths,
            not_shown: found.len() as u64 - printed,
            ..FindingCounts::default()
        },
        &losses,
        &Reconciliations::default(),
        &mut out,
    );
    print(&String::from_utf8_lossy(&out))?;
    stderr!(
        "{}",
        prefixed(&said(args, listed, found.len() as u64, &losses))
    );
    Ok(DONE)
}

fn format(args: &ListArgs) -> Format {
    match args.json {
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
    }
}

/// The last line: what was printed, and what is missing.
fn said(args: &ListArgs, listed: PrintedSockets, found: u64, losses: &LossReport) -> String {
    let printed = listed.sockets;
    let word = if printed == 1 { "socket" } else { "sockets" };
    let mut said = format!("{printed} MPTCP {word}");
    if args.paths {
        let word = if listed.paths == 1 { "path" } else { "paths" };
        said.push_str(&format!(", {} open {word}", listed.paths));
        if listed.backups > 0 {
            said.push_str(&format!(" ({} as backup)", listed.backups));
        }
    }
    if found > printed {
        said.push_str(&format!("; not shown: {}", found - printed));
    }
    let of_paths = args.paths.then_some(SensorId::Subflow);
    let lost: u64 = [Some(SensorId::Fallback), of_paths]
        .into_iter()
        .flatten()
        .filter_map(|sensor| losses.of(sensor).map(Loss::lost))
        .sum();
    if lost > 0 {
        said.push_str(&format!(
            "; {lost} more were lost: the ring is too small, use a larger --ring-size"
        ));
    }
    said
}
