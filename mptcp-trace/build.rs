//! Packs the compiled BPF object: it is most of a half megabyte, and takes a tenth of that in the
//! program.

use std::{env, error::Error, fs, path::PathBuf};

use miniz_oxide::deflate::compress_to_vec_zlib;

/// Where it is, from here; `cargo xtask bpf` puts it there.
const OBJECT: &str = "bpf/mptcp-trace.o";

/// The smallest that it can be: it is done once.
const LEVEL: u8 = 10;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={OBJECT}");
    println!("cargo::rerun-if-changed=build.rs");
    let object = fs::read(OBJECT).map_err(|why| format!("cannot read {OBJECT}: {why}"))?;
    let packed = compress_to_vec_zlib(&object, LEVEL);
    let out: PathBuf = env::var_os("OUT_DIR")
        .ok_or("cargo names no OUT_DIR")?
        .into();
    fs::write(out.join("mptcp-trace.o.z"), packed)?;
    Ok(())
}
