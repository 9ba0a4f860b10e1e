//! Bundles: the files that a maintainer asks for first, in one archive (tar, zstd). This module
//! knows files and their names, not their content, except that one of them is a capture.
//!
//! A program that is interrupted leaves no partial bundle: the parts are unnamed temporary files,
//! and the complete bundle is renamed into place.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, ErrorKind, Read, Seek as _, Write as _},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use ruzstd::{
    decoding::StreamingDecoder,
    encoding::{CompressionLevel, compress_to_vec},
};
use tempfile::NamedTempFile;

/// First bytes of a bundle (RFC 8878).
pub const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Folder of all files in the archive.
const FOLDER: &str = "mptcp-trace-bundle";

/// Name of the capture in the archive.
pub const CAPTURE: &str = "capture.mpt";

/// At most this many bytes after the end of a capture are read.
const LEFT_BYTES_MAX: u64 = 1 << 20;

/// The destination of a bundle.
#[derive(Debug)]
pub enum Destination {
    /// This path; an existing file is replaced.
    Path(PathBuf),
    /// A pipe or a device.
    Stream(File),
}

impl Destination {
    /// Checks whether a bundle could be written there, without changing anything.
    ///
    /// # Errors
    ///
    /// Reports why it could not.
    pub fn new(path: &Path) -> anyhow::Result<Self> {
        let what = || format!("cannot write the bundle {}", path.display());
        let there = match fs::metadata(path) {
            Err(why) if why.kind() == ErrorKind::NotFound => None,
            there => Some(there.with_context(what)?),
        };
        let destination = match there {
            Some(there) if there.is_dir() => {
                return Err(anyhow::anyhow!("it is a directory: name a file in it").context(what()));
            }
            Some(there) if !there.is_file() => {
                Self::Stream(File::options().write(true).open(path).with_context(what)?)
            }
            // Resolves a symbolic link, so that its target is replaced.
            Some(_) => Self::Path(path.canonicalize().with_context(what)?),
            None => Self::Path(path.to_owned()),
        };
        if let Self::Path(path) = &destination {
            beside(path).with_context(what)?;
        }
        Ok(destination)
    }

    /// The directory that the bundle is written to; `None` for a stream.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(folder(path)),
            Self::Stream(_) => None,
        }
    }

    /// Writes the whole bundle or nothing; only its owner may read it.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be written.
    pub fn put(self, bundle: &[u8]) -> anyhow::Result<()> {
        let put = match self {
            Self::Stream(mut out) => out.write_all(bundle),
            Self::Path(path) => beside(&path).and_then(|mut file| {
                file.write_all(bundle)?;
                file.as_file().sync_all()?;
                file.persist(path).map_err(|why| why.error)?;
                Ok(())
            }),
        };
        put.context("cannot write the bundle")
    }
}

/// A temporary file in the same directory, so that a rename is atomic; removed when dropped.
fn beside(path: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".mptcp-trace-bundle-")
        .tempfile_in(folder(path))
        .map_err(|why| unnamed(&why))
}

/// An error about a temporary file, without its name, which says nothing to the user.
pub fn unnamed(error: &io::Error) -> io::Error {
    let text = error.to_string();
    let (reason, _name) = text.split_once(" at path ").unwrap_or((&text, ""));
    io::Error::new(error.kind(), reason.to_owned())
}

/// The directory of a file.
fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Directories for temporary files, unless `TMPDIR` names another one: a container with a read-only root often has
/// only the second one, which is memory.
const TEMPORARY: [&str; 2] = ["/tmp", "/dev/shm"];

/// The directory for temporary files.
pub fn temporary_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| match std::env::var_os("TMPDIR") {
        Some(_) => std::env::temp_dir(),
        None => usable(TEMPORARY.map(PathBuf::from)),
    })
}

/// The first directory in which files can be created, or the first one.
fn usable(folders: [PathBuf; 2]) -> PathBuf {
    let is_usable = |folder: &PathBuf| tempfile::tempfile_in(folder).is_ok();
    let second = !is_usable(&folders[0]) && is_usable(&folders[1]);
    let [first, other] = folders;
    if second { other } else { first }
}

/// A temporary file without a name.
///
/// # Errors
///
/// Fails if there is no place for it.
pub fn temporary() -> io::Result<File> {
    tempfile::tempfile_in(temporary_folder())
}

fn cannot_write(name: &str) -> String {
    let folder = temporary_folder().display();
    format!(
        "cannot write {name} in {folder}, the directory for temporary files (TMPDIR names another)"
    )
}

/// The parts of a bundle that exist so far.
#[derive(Debug, Default)]
pub struct Parts(BTreeMap<&'static str, File>);

impl Parts {
    /// Creates an empty part, replacing one of the same name.
    ///
    /// # Errors
    ///
    /// Fails if there is no space for it.
    pub fn make(&mut self, name: &'static str) -> anyhow::Result<&mut File> {
        let file = temporary().with_context(|| cannot_write(name))?;
        Ok(self.0.entry(name).insert_entry(file).into_mut())
    }

    /// Creates a part from bytes.
    ///
    /// # Errors
    ///
    /// Fails if there is no space for it.
    pub fn write(&mut self, name: &'static str, bytes: &[u8]) -> anyhow::Result<()> {
        self.make(name)?
            .write_all(bytes)
            .with_context(|| cannot_write(name))
    }

    /// Replaces a part.
    pub fn replace(&mut self, name: &'static str, file: File) {
        self.0.insert(name, file);
    }

    /// True if the part exists.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Removes a part if it is empty.
    ///
    /// # Errors
    ///
    /// Fails if its metadata cannot be read.
    pub fn remove_if_empty(&mut self, name: &str) -> anyhow::Result<()> {
        if let Some(file) = self.0.get(name)
            && file
                .metadata()
                .with_context(|| format!("cannot inspect {name}"))?
                .len()
                == 0
        {
            self.0.remove(name);
        }
        Ok(())
    }

    /// A path by which this process can open a part from its beginning.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let file = self.0.get(name)?;
        Some(format!("/proc/self/fd/{}", file.as_raw_fd()).into())
    }

    /// Opens a part from its beginning.
    ///
    /// # Errors
    ///
    /// Fails if the part does not exist.
    pub fn open(&self, name: &str) -> anyhow::Result<File> {
        let path = self.path(name).with_context(|| format!("no {name}"))?;
        File::open(path).with_context(|| format!("cannot read {name}"))
    }
}

/// Packs the existing parts, in the order of these names.
///
/// # Errors
///
/// Fails if a part cannot be read, or if there is no space.
pub fn pack(names: &[&str], parts: &Parts) -> anyhow::Result<Vec<u8>> {
    let what = || "cannot pack the bundle";
    let modified = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut tar = tar::Builder::new(temporary().with_context(what)?);
    for name in names.iter().filter(|name| parts.has(name)) {
        let mut file = parts.open(name)?;
        let mut header = tar::Header::new_gnu();
        header.set_size(file.metadata().with_context(what)?.len());
        header.set_mode(0o600);
        header.set_mtime(modified);
        tar.append_data(&mut header, format!("{FOLDER}/{name}"), &mut file)
            .with_context(what)?;
    }
    let mut tar = tar.into_inner().with_context(what)?;
    tar.rewind().with_context(what)?;
    // The compressor panics if its output fails: it writes to memory, which cannot.
    Ok(compress_to_vec(
        BufReader::new(tar),
        CompressionLevel::Fastest,
    ))
}

/// A decompressed bundle. Errors of the decompressor are in terms of its code: they are replaced.
struct Unpacked<R>(R);

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|why| {
            if why.raw_os_error().is_some() || why.kind() == ErrorKind::Interrupted {
                return why;
            }
            log::info!("the decompressor reports: {why}");
            io::Error::new(
                ErrorKind::InvalidData,
                "the bundle is cut off or damaged: copy it again",
            )
        })
    }
}

/// Runs `play` on the capture in a bundle.
///
/// # Errors
///
/// Reports that this is not a bundle, or that it has no capture.
pub fn with_capture<T>(
    bundle: impl Read,
    play: impl FnOnce(&mut dyn Read) -> T,
) -> anyhow::Result<T> {
    let decoder = StreamingDecoder::new(BufReader::new(bundle)).map_err(|why| {
        log::info!("the decompressor reports: {why}");
        anyhow::anyhow!("this is not an mptcp-trace bundle, or it is cut off at its begin")
    })?;
    let mut tar = tar::Archive::new(Unpacked(decoder));
    let wrong = |why: io::Error| match why.kind() == ErrorKind::InvalidData {
        // From the decompressor: what is inside is unknown.
        true => why.into(),
        false => anyhow::Error::new(why).context("this is not an mptcp-trace bundle"),
    };
    // Raw entries: an extension for long names may have any length and would be kept in memory. Our
    // names are short.
    for entry in tar.entries().map_err(wrong)?.raw(true) {
        let mut entry = entry.map_err(wrong)?;
        let is_capture = entry
            .path()
            .is_ok_and(|path| path.file_name().is_some_and(|name| name == CAPTURE));
        if is_capture {
            let played = play(&mut entry);
            // Reads the rest, so that damage after the capture is noticed; limited, because it may
            // have any length.
            io::copy(&mut entry.take(LEFT_BYTES_MAX), &mut io::sink()).map_err(wrong)?;
            return Ok(played);
        }
    }
    anyhow::bail!("this bundle contains no capture: nothing could be traced")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capture_comes_out_as_it_went_in() {
        let bytes: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut parts = Parts::default();
        parts.write(CAPTURE, b"of before").unwrap();
        parts.write(CAPTURE, &bytes).unwrap();
        parts.write("host.json", b"{}").unwrap();
        let packed = pack(&["host.json", "missing", CAPTURE], &parts).unwrap();
        let read = |input: &mut dyn Read| {
            let mut all = Vec::new();
            input.read_to_end(&mut all).unwrap();
            all
        };
        assert!(with_capture(&packed[..], read).unwrap() == bytes);
        // A truncated bundle is an error, never a panic.
        for length in [0, 3, 4, 20, packed.len() / 2] {
            let sink = |input: &mut dyn Read| io::copy(input, &mut io::sink()).map(|_| ());
            let cut = with_capture(&packed[..length], sink);
            assert!(!matches!(cut, Ok(Ok(()))), "{length}");
        }
        let empty = pack(&["missing"], &parts).unwrap();
        let why = with_capture(&empty[..], read).unwrap_err();
        assert!(why.to_string().contains("no capture"), "{why}");
    }

    /// File names in a directory.
    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn where_there_is_no_tmp_temporary_files_are_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let (there, missing) = (folder.path().to_owned(), folder.path().join("missing"));
        assert_eq!(usable([missing.clone(), there.clone()]), there);
        assert_eq!(usable([there.clone(), missing.clone()]), there);
        assert_eq!(usable([missing.clone(), missing.join("too")]), missing);
    }

    #[test]
    fn a_bundle_takes_its_place_when_it_is_complete_and_leaves_nothing_else() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b");
        let destination = Destination::new(&path).unwrap();
        assert_eq!(names(folder.path()), [""; 0]);
        destination.put(b"first").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // A link remains, and its target is replaced.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("b", &link).unwrap();
        let destination = Destination::new(&link).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        destination.put(b"second").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(names(folder.path()), ["b", "link"]);
        // A device is written to, not replaced.
        Destination::new(Path::new("/dev/null"))
            .unwrap()
            .put(b"third")
            .unwrap();
        assert!(!Path::new("/dev/null").is_file());
    }

    #[test]
    fn an_unwritable_bundle_path_is_rejected_before_packing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        for (path, says) in [
            ("", "is a directory"),
            ("no/such/b", "cannot write the bundle"),
            ("file/b", "cannot write the bundle"),
        ] {
            let why = Destination::new(&folder.path().join(path)).unwrap_err();
            assert!(format!("{why:#}").contains(says), "{why:#}");
        }
    }
}
