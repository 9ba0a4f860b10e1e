//! Opens captures, which are files of their own or part of a bundle.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use anyhow::Context as _;

use super::Exit;
use crate::bundle;

/// Runs `play` on a capture, or on the capture inside a bundle.
pub(super) fn with_capture<T>(
    path: &Path,
    play: impl FnOnce(&mut dyn io::Read) -> Result<T, Exit>,
) -> Result<T, Exit> {
    let name = path.display();
    let mut file = File::open(path).with_context(|| format!("cannot open the capture {name}"))?;
    let mut head = [0; bundle::MAGIC.len()];
    // A read error is reported by the next reader.
    let got = file.read(&mut head).unwrap_or(0);
    let mut whole = io::Cursor::new(head).take(got as u64).chain(file);
    if head[..got] == bundle::MAGIC {
        return bundle::with_capture(whole, play)
            .with_context(|| format!("cannot replay {name}"))?;
    }
    play(&mut whole)
}
