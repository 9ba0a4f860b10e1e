//! `mptcp-lab ask`: the applications. Each query is one raw system call and one line with its
//! result.

use std::{fs::File, io::Write, path::PathBuf};

use anyhow::{Context as _, ensure};

use super::{
    asker::{Asker, AskerLine},
    cases::{CASES, Case},
};
use crate::{
    link,
    net::{self, Family, Kind},
};

/// Arguments of `mptcp-lab ask`.
#[derive(clap::Args)]
pub struct Args {
    /// Only this case, or the cases whose names begin with it (repeatable)
    #[arg(long, value_name = "NAME")]
    pub case: Vec<String>,
    /// Only this address family, in cases that use one
    #[arg(long, value_name = "v4|v6", value_parser = Family::parse)]
    pub family: Option<Family>,
    /// Write the lines to FILE instead of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Stay in this network namespace instead of creating a new one
    #[arg(long)]
    pub here: bool,
}

/// Runs the cases.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let wanted = |case: &Case, name: &str| {
        case.name == name
            || case
                .name
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('-'))
    };
    for name in &args.case {
        ensure!(
            CASES.iter().any(|case| wanted(case, name)),
            "cannot run the case {name}: there is none of that name; the cases are {}",
            CASES
                .iter()
                .map(|case| case.name)
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    let out: Box<dyn Write + Send> = match &args.out {
        Some(path) => Box::new(
            File::create(path).with_context(|| format!("cannot write to {}", path.display()))?,
        ),
        None => Box::new(std::io::stdout()),
    };
    if !args.here {
        link::enter_network_namespace()
            .context("cannot make a network namespace; run it as root, or with --here")?;
    }
    let mptcp = net::open(Kind::Mptcp, Family::V4);
    let mut asker = Asker::new(out);
    for case in CASES {
        if !args.case.is_empty() && !args.case.iter().any(|name| wanted(case, name)) {
            continue;
        }
        let is_wanted =
            |it: &&Family| case.families.len() == 1 || args.family.is_none_or(|only| only == **it);
        for &family in case.families.iter().filter(is_wanted) {
            let made = match &mptcp {
                Err(why) if case.needs_mptcp => Err(anyhow::anyhow!("no MPTCP socket: {why}")),
                Ok(_) | Err(_) => case.run(&mut asker, family),
            };
            if let Err(why) = made {
                let skipped = AskerLine::Skipped {
                    case: format!("{}-{}", case.name, family.suffix()),
                    why: format!("{why:#}"),
                };
                asker.write(&skipped)?;
            }
        }
    }
    Ok(())
}
