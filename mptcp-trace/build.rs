//! Compresses the compiled BPF object, about 400 kB, to a tenth of its size before it is included in
//! the program.

use std::{env, error::Error, fs, path::PathBuf};

use miniz_oxide::deflate::compress_to_vec_zlib;

/// The object, relative to this crate; `cargo xtask bpf` writes it.
const OBJECT: &str = "bpf/mptcp-trace.o";

/// Highest compression level: the time is spent only once, at build time.
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
