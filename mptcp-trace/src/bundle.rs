//! Bundles: what a maintainer asks for first, in one file (tar, zstd). Knows files and their names, not what is in
//! them, except that one of them is a capture.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use ruzstd::{
    decoding::StreamingDecoder,
    encoding::{CompressionLevel, compress_to_vec},
};

/// First bytes of a bundle (RFC 8878).
pub const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Folder that everything lies in.
const FOLDER: &str = "mptcp-trace-bundle";

/// Name of the capture in it.
pub const CAPTURE: &str = "capture.mpt";

/// Makes the file that [`pack`] will fill; only its owner may read it.
///
/// # Errors
///
/// Fails if it cannot be written.
pub fn create(path: &Path) -> anyhow::Result<File> {
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write the bundle {}", path.display()))
}

/// Packs the files of a folder that are there, in the order of their names.
///
/// # Errors
///
/// Fails if something cannot be read or written.
pub fn pack(names: &[&str], folder: &Path, mut out: File) -> anyhow::Result<()> {
    let what = || "cannot pack the bundle";
    let modified = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut tar = tar::Builder::new(tempfile::tempfile().with_context(what)?);
    for name in names {
        let Ok(mut file) = File::open(folder.join(name)) else {
            continue;
        };
        let mut header = tar::Header::new_gnu();
        header.set_size(file.metadata().with_context(what)?.len());
        header.set_mode(0o600);
        header.set_mtime(modified);
        tar.append_data(&mut header, format!("{FOLDER}/{name}"), &mut file)
            .with_context(what)?;
    }
    let mut tar = tar.into_inner().with_context(what)?;
    tar.rewind().with_context(what)?;
    // The compressor does not survive an output that fails: it gets one that cannot.
    let packed = compress_to_vec(BufReader::new(tar), CompressionLevel::Fastest);
    out.write_all(&packed)
        .and_then(|()| out.sync_all())
        .context("cannot write the bundle")
}

/// Runs `play` on the capture in a bundle.
///
/// # Errors
///
/// Says why this is no bundle, or that there is no capture in it.
pub fn with_capture<T>(
    bundle: impl Read,
    play: impl FnOnce(&mut dyn Read) -> T,
) -> anyhow::Result<T> {
    let unpacked = StreamingDecoder::new(BufReader::new(bundle))
        .map_err(|why| anyhow::anyhow!("this is no bundle of mptcp-trace: {why}"))?;
    let mut tar = tar::Archive::new(unpacked);
    let wrong = "this is no bundle of mptcp-trace";
    for entry in tar.entries().context(wrong)? {
        let mut entry = entry.context(wrong)?;
        let is_capture = entry
            .path()
            .is_ok_and(|path| path.file_name().is_some_and(|name| name == CAPTURE));
        if is_capture {
            let played = play(&mut entry);
            // Whatever is left is read, so that damage behind the end is noticed.
            io::copy(&mut entry, &mut io::sink()).context("the bundle is damaged")?;
            return Ok(played);
        }
    }
    anyhow::bail!("there is no capture in this bundle: nothing could be traced")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capture_comes_out_as_it_went_in() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(folder.path().join(CAPTURE), &bytes).unwrap();
        std::fs::write(folder.path().join("host.json"), "{}").unwrap();
        let path = folder.path().join("b.tar.zst");
        let names = ["host.json", "missing", CAPTURE];
        pack(&names, folder.path(), create(&path).unwrap()).unwrap();
        let read = |input: &mut dyn Read| {
            let mut all = Vec::new();
            input.read_to_end(&mut all).unwrap();
            all
        };
        let packed = std::fs::read(&path).unwrap();
        assert!(with_capture(&packed[..], read).unwrap() == bytes);
        // Part of it is no bundle, and never a panic.
        for length in [0, 3, 4, 20, packed.len() / 2] {
            let sink = |input: &mut dyn Read| io::copy(input, &mut io::sink()).map(|_| ());
            let cut = with_capture(&packed[..length], sink);
            assert!(!matches!(cut, Ok(Ok(()))), "{length}");
        }
        let empty = folder.path().join("empty.tar.zst");
        pack(&["missing"], folder.path(), create(&empty).unwrap()).unwrap();
        let why = with_capture(File::open(&empty).unwrap(), read).unwrap_err();
        assert!(why.to_string().contains("no capture"), "{why}");
    }
}
