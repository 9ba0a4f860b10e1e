//! The source of Rust's standard library, which rustup does not install by default: every BPF
//! program is compiled with `core`, and programs for another architecture with `std`. Its version
//! must be exactly that of the compiler.
//!
//! The toolchain is only changed where rustup itself can add the component. Other copies go into
//! the cache, and cargo gets their path.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    apt::{self, Apt},
    command::{self, say},
    places::{Places, make_empty},
};

/// Environment variable that names a tar file with `library/core`; it takes precedence over the
/// network.
pub(crate) const ARCHIVE_VARIABLE: &str = "MPTCP_TRACE_RUST_SRC";

/// The `library` directory of the compiler's source, fetched if necessary.
pub(crate) fn provide(places: &Places, rustc_version: &str) -> Result<PathBuf> {
    let sysroot = sysroot(places)?;
    if let Some(library) = library_in(&sysroot.join("lib/rustlib/src/rust")) {
        return Ok(library);
    }
    let cached = places.cache.join("rust-src").join(rustc_version);
    if let Some(library) = library_in(&cached) {
        return Ok(library);
    }
    say(format_args!(
        "the source of Rust's library {rustc_version} is not installed: looking for it"
    ));
    let mut failures = Vec::new();
    for (name, way) in WAYS {
        match way(places, rustc_version, &cached) {
            Ok(()) => {
                let library = library_in(&sysroot.join("lib/rustlib/src/rust"))
                    .or_else(|| library_in(&cached));
                if let Some(library) = library {
                    say(format_args!(
                        "source of Rust's library: {} ({name})",
                        library.display()
                    ));
                    return Ok(library);
                }
                failures.push(format!("{name}: contains no library/core/Cargo.toml"));
            }
            Err(error) => failures.push(format!("{name}: {error:#}")),
        }
    }
    bail!(
        "cannot find the source of Rust's library {rustc_version}, which programs for BPF and for \
         other architectures are compiled with; tried\n  {}\nset {ARCHIVE_VARIABLE} to a tar file \
         of the compiler's source that holds library/core",
        failures.join("\n  ")
    )
}

/// The source of the standard library, from which it has to be compiled for `triple`; `None` if
/// rustup has installed it for that target.
pub(crate) fn unless_installed(places: &Places, triple: &str) -> Result<Option<PathBuf>> {
    let installed = sysroot(places)?
        .join("lib/rustlib")
        .join(triple)
        .join("lib");
    if installed.is_dir() {
        return Ok(None);
    }
    provide(places, &version(places)?).map(Some)
}

/// Version of the compiler, such as `1.95.0`.
pub(crate) fn version(places: &Places) -> Result<String> {
    let mut rustc = Command::new("rustc");
    rustc.arg("-vV").current_dir(&places.root);
    let said = command::text(&mut rustc, "cannot ask rustc for its version")?;
    let version = said.lines().find_map(|line| line.strip_prefix("release: "));
    version
        .map(str::to_owned)
        .context("rustc does not say its version")
}

type Way = fn(&Places, &str, &Path) -> Result<()>;

/// The ways to get the source, in order.
const WAYS: [(&str, Way); 3] = [
    ("archive named by MPTCP_TRACE_RUST_SRC", from_archive),
    ("rustup component rust-src", from_rustup),
    ("Debian package rust-src", from_debian),
];

fn from_archive(_places: &Places, _version: &str, cached: &Path) -> Result<()> {
    let archive = env::var_os(ARCHIVE_VARIABLE).ok_or_else(|| anyhow!("not set"))?;
    make_empty(cached)?;
    command::output(
        Command::new("tar")
            .arg("-xf")
            .arg(&archive)
            .arg("-C")
            .arg(cached),
        &format!("cannot unpack {}", archive.display()),
    )?;
    Ok(())
}

fn from_rustup(places: &Places, _version: &str, _cached: &Path) -> Result<()> {
    command::output(
        Command::new("rustup")
            .args(["component", "add", "rust-src"])
            .current_dir(&places.root),
        "cannot add the component",
    )?;
    Ok(())
}

fn from_debian(places: &Places, version: &str, cached: &Path) -> Result<()> {
    let apt = Apt::open(places)?;
    let found = apt.find("^rust-src$")?;
    let package = found
        .iter()
        .find(|package| package.version.starts_with(&format!("{version}+")))
        .ok_or_else(|| anyhow!("the archive has no rust-src {version}"))?;
    let deb = apt.download(&package.name, &package.version)?;
    let unpacked = places.cache.join("rust-src/unpacked");
    make_empty(&unpacked)?;
    apt::unpack(&deb, &unpacked)?;
    make_empty(cached)?;
    let library = unpacked.join(format!("usr/src/rustc-{version}/library"));
    fs::rename(&library, cached.join("library"))
        .with_context(|| format!("the package holds no {}", library.display()))?;
    // Debian vendors std's dependencies; core has none, and cargo must not find a second workspace.
    fs::remove_dir_all(&unpacked).context("cannot remove the unpacked package")?;
    if let Some(directory) = deb.parent() {
        fs::remove_dir_all(directory).context("cannot remove the package file")?;
    }
    Ok(())
}

fn library_in(directory: &Path) -> Option<PathBuf> {
    let library = directory.join("library");
    library.join("core/Cargo.toml").is_file().then_some(library)
}

fn sysroot(places: &Places) -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "sysroot"]).current_dir(&places.root);
    Ok(PathBuf::from(
        command::text(&mut rustc, "cannot ask rustc for its sysroot")?.trim(),
    ))
}
