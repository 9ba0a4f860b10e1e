//! `cargo xtask btf`: reduces the type information of a kernel to the types that mptcp-trace looks
//! up.

use std::{env, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use mptcp_trace::host::btf;

fn main() -> ExitCode {
    match reduce() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("btf: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn reduce() -> anyhow::Result<()> {
    let paths: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [from, to] = &paths[..] else {
        bail!("usage: btf WHOLE SMALL");
    };
    let whole = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let small = btf::reduce(whole)
        .with_context(|| format!("{} is not the type information of a kernel", from.display()))?;
    fs::write(to, &small).with_context(|| format!("cannot write {}", to.display()))?;
    println!("{}: {} bytes", to.display(), small.len());
    Ok(())
}
