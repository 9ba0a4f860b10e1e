//! `cargo xtask bpf`: rebuilds the committed BPF objects, or verifies that they match the source.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::{
    command::{self, say},
    places::{self, Places},
    provision::BPF_LINKER,
    rust_src,
    rustc_wrapper::{BPF_TARGET, REMAP_VARIABLE},
};

/// Builds the BPF objects into the paths where they are committed: mptcp-trace/bpf/mptcp-trace.o
/// (the tracer), scene/bpf/mptcp-middlebox.o (the middlebox) and scene/bpf/mptcp-boxes.o (the boxes of
/// the lab's routers).
///
/// Installs missing build dependencies: the source of core, and the pinned bpf-linker.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask bpf\n  cargo xtask bpf --check")]
pub(crate) struct Args {
    /// Change nothing; fail if a committed object does not match the source
    #[arg(long)]
    check: bool,
}

/// Compiler version of the committed objects: another version generates different machine code.
const RUSTC_VERSION: &str = "1.95.0";

/// A BPF object and its crate.
struct Object {
    package: &'static str,
    binary: &'static str,
    /// Path of the committed object, relative to the workspace.
    path: &'static str,
}

const OBJECTS: [Object; 3] = [
    Object {
        package: "mptcp-trace-ebpf",
        binary: "mptcp-trace",
        path: "mptcp-trace/bpf/mptcp-trace.o",
    },
    Object {
        package: "mptcp-trace-scene-ebpf",
        binary: "mptcp-middlebox",
        path: "scene/bpf/mptcp-middlebox.o",
    },
    Object {
        package: "mptcp-trace-scene-ebpf",
        binary: "mptcp-boxes",
        path: "scene/bpf/mptcp-boxes.o",
    },
];

/// Builds or checks the objects, and prints their SHA-256.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    if args.check {
        check(&places)
    } else {
        rebuild(&places)
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Fails if a committed object does not match the source, and names the command that fixes it.
pub(crate) fn check(places: &Places) -> Result<()> {
    let toolchain = Toolchain::provide(places)?;
    // Start from an empty directory, so that no artifact of an older build is used by mistake.
    let target = places.target.join("bpf-check");
    places::make_empty(&target)?;
    for object in &OBJECTS {
        let built = build(places, &toolchain, object, &target)?;
        compare(&places.root.join(object.path), &built)?;
    }
    fs::remove_dir_all(&target).with_context(|| format!("cannot remove {}", target.display()))
}

fn compare(path: &Path, built: &[u8]) -> Result<()> {
    let committed = fs::read(path).with_context(|| {
        format!(
            "cannot read the committed object {}; type: cargo xtask bpf",
            path.display()
        )
    })?;
    if committed != built {
        bail!(
            "the committed object {} (sha256 {}) does not match the source (sha256 {}); type: \
             cargo xtask bpf, and commit the object",
            path.display(),
            sha256(&committed),
            sha256(built)
        );
    }
    println!("{}  {}", sha256(built), path.display());
    Ok(())
}

fn rebuild(places: &Places) -> Result<()> {
    let toolchain = Toolchain::provide(places)?;
    for object in &OBJECTS {
        let built = build(places, &toolchain, object, &places.target.join("bpf"))?;
        let path = places.root.join(object.path);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        // Leave an identical file untouched, so that cargo does not rebuild the loader.
        if !fs::read(&path).is_ok_and(|old| old == built) {
            fs::write(&path, &built).with_context(|| format!("cannot write {}", path.display()))?;
        }
        println!("{}  {}", sha256(&built), path.display());
    }
    Ok(())
}

/// Runs clippy on the BPF crates for their own target, and denies warnings.
pub(crate) fn clippy(places: &Places) -> Result<()> {
    let toolchain = Toolchain::provide(places)?;
    for object in &OBJECTS {
        let mut cargo =
            toolchain.cargo(places, "clippy", object, &places.target.join("bpf-clippy"));
        cargo.args(["--", "-D", "warnings"]);
        command::run(&mut cargo, &format!("clippy on {}", object.package))?;
    }
    Ok(())
}

fn build(
    places: &Places,
    toolchain: &Toolchain,
    object: &Object,
    target: &Path,
) -> Result<Vec<u8>> {
    say(format_args!(
        "building {} with rustc {RUSTC_VERSION}",
        object.path
    ));
    let mut cargo = toolchain.cargo(places, "build", object, target);
    let own_path = env::current_exe().context("cannot find xtask's own program file")?;
    cargo
        .env("RUSTC_WRAPPER", own_path)
        .env(REMAP_VARIABLE, toolchain.remap(places));
    command::run(&mut cargo, &format!("cannot build {}", object.path))?;
    let path = target.join(BPF_TARGET).join("release").join(object.binary);
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    reject_paths(
        &bytes,
        &[&places.root, &places.cache, &toolchain.core_source],
    )?;
    Ok(bytes)
}

/// Provisioned tools of a BPF build.
struct Toolchain {
    linker: PathBuf,
    core_source: PathBuf,
}

impl Toolchain {
    fn provide(places: &Places) -> Result<Self> {
        let version = rust_src::version(places)?;
        if version != RUSTC_VERSION {
            bail!(
                "cannot build BPF objects with rustc {version}: the committed ones are built by \
                 {RUSTC_VERSION}, and another compiler gives other objects; type: rustup \
                 toolchain install {RUSTC_VERSION} && cargo +{RUSTC_VERSION} xtask bpf"
            );
        }
        let core_source = rust_src::provide(places, &version)?;
        Ok(Self {
            linker: BPF_LINKER.provide(places)?,
            core_source,
        })
    }

    /// A cargo command with the target, core's source and the linker. It ignores the user's own
    /// build settings, which would change the objects.
    fn cargo(&self, places: &Places, verb: &str, object: &Object, target: &Path) -> Command {
        let mut cargo = command::cargo(&places.root);
        for (name, _) in env::vars_os() {
            let name_bytes = name.as_encoded_bytes();
            if [&b"CARGO_PROFILE_"[..], b"CARGO_BUILD_", b"CARGO_TARGET_"]
                .iter()
                .any(|prefix| name_bytes.starts_with(prefix))
            {
                cargo.env_remove(&name);
            }
        }
        for name in [
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
        ] {
            cargo.env_remove(name);
        }
        let flags = [
            "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
            "-Cdebuginfo=0".to_owned(),
            format!("-Clinker={}", self.linker.display()),
        ];
        cargo
            .args([
                verb,
                "--release",
                "-Zbuild-std=core",
                "--target",
                BPF_TARGET,
            ])
            .args(["--package", object.package, "--bin", object.binary])
            .arg("--target-dir")
            .arg(target)
            // build-std is unstable but the toolchain is stable: this variable enables it there.
            .env("RUSTC_BOOTSTRAP", "1")
            // Only this variable makes cargo use core's source from outside the sysroot, which
            // stays untouched.
            .env("__CARGO_TESTS_ONLY_SRC_ROOT", &self.core_source)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        cargo
    }

    /// Path remappings, so that panic messages and debug information do not contain local paths.
    fn remap(&self, places: &Places) -> String {
        let mut pairs = vec![
            format!("{}=/mptcp-trace", places.root.display()),
            format!("{}=/rust-src", self.core_source.display()),
        ];
        if let Some(home) = places::cargo_home() {
            pairs.push(format!("{}=/cargo", home.display()));
        }
        pairs.join("\n")
    }
}

/// Fails if the object contains a local path: it would differ on another machine.
fn reject_paths(object: &[u8], places: &[&Path]) -> Result<()> {
    for place in places {
        let bytes = place.as_os_str().as_encoded_bytes();
        if object.windows(bytes.len()).any(|window| window == bytes) {
            bail!(
                "the BPF object names {}, so no other machine could reproduce it",
                place.display()
            );
        }
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
