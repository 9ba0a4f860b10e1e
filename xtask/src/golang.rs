//! Builds the lab's Go program, which tests the query that Go's standard library makes. The
//! compiler is Debian's, unpacked into the cache and never installed. The program uses only the
//! standard library.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    apt::{self, Apt, Package},
    architecture::Architecture,
    command::{self, say},
    places::{Places, make_empty},
};

/// The first minor version of Go 1 that supports MPTCP.
const MINOR_MIN: u32 = 21;

/// Builds the static program for an architecture, and beside it the one for its 32-bit system calls.
/// Returns the path of the first. The compiler is fetched if it is not in the cache.
pub(crate) fn program(places: &Places, architecture: Architecture) -> Result<PathBuf> {
    let goroot = compiler(places)?;
    let program = places
        .target
        .join(format!("lab-go-{}", architecture.name()));
    build(places, &goroot, architecture.debian(), &program)?;
    build(places, &goroot, architecture.go_32(), &beside(&program))?;
    Ok(program)
}

/// Path of the 32-bit program beside this one; the lab looks for it there.
pub(crate) fn beside(program: &Path) -> PathBuf {
    let mut path = program.as_os_str().to_owned();
    path.push("-32");
    path.into()
}

/// Builds the program for an architecture by its name in Go.
fn build(places: &Places, goroot: &Path, architecture: &str, program: &Path) -> Result<()> {
    let mut go = Command::new(goroot.join("bin/go"));
    go.args(["build", "-trimpath", "-o"])
        .arg(program)
        .arg("main.go")
        .current_dir(places.root.join("lab/go"))
        .env("GOROOT", goroot)
        .env("GOCACHE", places.target.join("go-cache"))
        .env("GOFLAGS", "-mod=mod")
        .env("GOPROXY", "off")
        .env("GOTOOLCHAIN", "local")
        .env("GO111MODULE", "off")
        .env("GOARCH", architecture)
        .env("CGO_ENABLED", "0");
    command::output(&mut go, "cannot build the lab's program in Go")?;
    Ok(())
}

fn compiler(places: &Places) -> Result<PathBuf> {
    let directory = places.cache.join("go");
    if let Some(goroot) = goroot_in(&directory) {
        return Ok(goroot);
    }
    let apt = Apt::open(places)?;
    let found = apt.find("^golang-1[.][0-9]+-(go|src)$")?;
    let minor = newest(&found).ok_or_else(|| {
        anyhow!("the archive has no Go with MPTCP support: 1.{MINOR_MIN} or later is needed")
    })?;
    say(format_args!(
        "Go 1.{minor} is needed for a program of the lab: fetching it into the cache"
    ));
    make_empty(&directory)?;
    for part in ["go", "src"] {
        let name = format!("golang-1.{minor}-{part}");
        let package = found
            .iter()
            .find(|package| package.name == name)
            .with_context(|| format!("the archive has no {name}"))?;
        let deb = apt.download(&package.name, &package.version)?;
        apt::unpack(&deb, &directory)?;
        if let Some(directory) = deb.parent() {
            fs::remove_dir_all(directory).context("cannot remove the package file")?;
        }
    }
    goroot_in(&directory).ok_or_else(|| anyhow!("Debian's Go packages contain no compiler"))
}

/// A complete GOROOT: the compiler and the source of its library.
fn goroot_in(directory: &Path) -> Option<PathBuf> {
    fs::read_dir(directory.join("usr/lib"))
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|goroot| goroot.join("bin/go").is_file() && goroot.join("src/net").is_dir())
}

/// The newest minor version for which both packages exist.
fn newest(packages: &[Package]) -> Option<u32> {
    let has = |minor: u32, part: &str| {
        let name = format!("golang-1.{minor}-{part}");
        packages.iter().any(|package| package.name == name)
    };
    packages
        .iter()
        .filter_map(|package| {
            let minor = package.name.strip_prefix("golang-1.")?;
            minor.split('-').next()?.parse().ok()
        })
        .filter(|&minor| minor >= MINOR_MIN && has(minor, "go") && has(minor, "src"))
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_go_that_speaks_mptcp_is_taken() {
        let check = |names: &[&str], want: Option<u32>| {
            let packages: Vec<Package> = names
                .iter()
                .map(|&name| Package {
                    name: name.to_owned(),
                    ..Package::default()
                })
                .collect();
            assert_eq!(newest(&packages), want, "{names:?}");
        };
        check(&["golang-1.19-go", "golang-1.19-src"], None);
        check(
            &[
                "golang-1.19-go",
                "golang-1.19-src",
                "golang-1.22-src",
                "golang-1.22-go",
                "golang-1.24-go",
                "golang-1.23-go",
                "golang-1.23-src",
            ],
            Some(23),
        );
        check(&[], None);
    }
}
