//! Writes the man page of every verb, generated from clap's definitions:
//! `cargo run --package mptcp-trace --example pages -- DIRECTORY [DATE]`.
//!
//! This is an example so that the program does not depend on the crates for it; `cargo xtask dist`
//! runs it.

mod man;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use clap::CommandFactory as _;
use mptcp_trace::cli::Cli;

fn main() -> io::Result<()> {
    let mut arguments = env::args_os().skip(1);
    let Some(directory) = arguments.next().map(PathBuf::from) else {
        return Err(io::Error::other(
            "say where to write: cargo run --example pages -- DIRECTORY [DATE]",
        ));
    };
    let date = arguments
        .next()
        .and_then(|date| date.into_string().ok())
        .unwrap_or_default();
    write_pages(&directory.join("man"), &date)
}

fn write_pages(directory: &Path, date: &str) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for page in man::pages(Cli::command(), date)? {
        fs::write(directory.join(page.file), page.roff)?;
    }
    Ok(())
}
