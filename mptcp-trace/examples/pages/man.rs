//! Man pages: the part that clap generates for a verb, its exit codes, and the text in
//! `src/cli/VERB.man`.

use std::{fs, io, path::Path};

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};
use mptcp_trace::cli::exit_codes;

/// Name of the program and of its own page.
pub(crate) const PROGRAM: &str = "mptcp-trace";

/// A man page.
pub(crate) struct Page {
    /// The verb; `None` for the program's own page.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests ask for it"))]
    pub(crate) verb: Option<String>,
    /// File name of the page.
    pub(crate) file: String,
    /// Content of the page.
    pub(crate) roff: Vec<u8>,
}

/// Returns the pages of the program and of every verb in its help.
pub(crate) fn pages(program: Command, date: &str) -> io::Result<Vec<Page>> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let verbs: Vec<Command> = program
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set())
        .cloned()
        .collect();
    let mut pages = vec![page(None, program, date)?];
    for verb in verbs {
        pages.push(page(Some(verb.get_name().to_owned()), verb, date)?);
    }
    Ok(pages)
}

fn page(verb: Option<String>, command: Command, date: &str) -> io::Result<Page> {
    let by_hand = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/cli")
        .join(format!("{}.man", verb.as_deref().unwrap_or(PROGRAM)));
    let by_hand = fs::read(&by_hand).map_err(|why| {
        io::Error::other(format!(
            "cannot read the hand-written part of a man page, {}: {why}; write one, as those beside it",
            by_hand.display()
        ))
    })?;
    let synopsis = synopsis(command.clone());
    let has_verbs = command.has_subcommands();
    let man = Man::new(command)
        .date(date)
        .source(format!("{PROGRAM} {}", env!("CARGO_PKG_VERSION")))
        .manual("Multipath TCP");
    let mut roff = Vec::new();
    man.render_title(&mut roff)?;
    man.render_name_section(&mut roff)?;
    synopsis.to_writer(&mut roff)?;
    man.render_description_section(&mut roff)?;
    if has_verbs {
        man.render_subcommands_section(&mut roff)?;
    }
    man.render_options_section(&mut roff)?;
    exit_status(verb.as_deref()).to_writer(&mut roff)?;
    roff.extend(by_hand);
    Ok(Page {
        verb,
        file: man.get_filename(),
        roff,
    })
}

/// The exit codes of a verb; without one, those of `live`, which runs then.
fn exit_status(verb: Option<&str>) -> Roff {
    let verb = verb.unwrap_or("live");
    let known = exit_codes::ALL.iter().find(|it| it.verb == verb);
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in known.map_or(&[][..], |it| it.codes) {
        roff.control("TP", []);
        roff.text([bold(*code)]);
        roff.text([roman(format!("{meaning}."))]);
    }
    roff
}

/// The synopsis as `--help` prints it; clap's own page would list all options a second time.
fn synopsis(mut command: Command) -> Roff {
    let usage = command.render_usage().to_string();
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    for (nth, line) in usage.trim_start_matches("Usage:").lines().enumerate() {
        if nth > 0 {
            roff.control("br", []);
        }
        let line = line.trim();
        let name = line.find(" [").unwrap_or(line.len());
        let (name, rest) = line.split_at(name);
        roff.text([bold(name), roman(rest)]);
    }
    roff
}
