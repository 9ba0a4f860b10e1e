//! Runs the checks of the fuzz targets (fuzz/src/checks.rs) on the committed seeds and captures. It
//! is fast enough for every run, and turns each crash that fuzzing finds into a regression test.

#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(unreachable_pub, reason = "it is the library of another crate")]
#[path = "../../fuzz/src/checks.rs"]
mod checks;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Time limit per file in an unoptimised build: a hang is a finding too.
const PATIENCE: Duration = Duration::from_secs(20);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn seeds(target: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&root().join("fuzz/seeds").join(target), &mut found);
    assert!(!found.is_empty(), "{target} has no seeds");
    found
}

/// Runs a check on bytes, and fails with the file's name if it takes too long.
fn check(name: &Path, bytes: &[u8], check: impl Fn(&[u8])) {
    let start = Instant::now();
    check(bytes);
    let took = start.elapsed();
    assert!(took < PATIENCE, "{} took {took:?}", name.display());
}

/// Checks a seed as it is, truncated at several lengths, and with flipped bits.
fn check_variants(name: &Path, judge: impl Fn(&[u8])) {
    const CUTS: usize = 16;
    const FLIPS: usize = 64;
    let whole = fs::read(name).unwrap();
    check(name, &whole, &judge);
    for cut in 0..CUTS {
        check(name, &whole[..whole.len() * cut / CUTS], &judge);
    }
    for flip in 0..FLIPS.min(whole.len()) {
        let mut damaged = whole.clone();
        let at = flip * whole.len() / FLIPS;
        damaged[at] ^= 1 << (flip % 8);
        check(name, &damaged, &judge);
    }
}

#[test]
fn records_of_any_bytes_are_lines_or_refused() {
    for seed in seeds("decode") {
        check_variants(&seed, checks::decode);
    }
}

#[test]
fn types_of_any_bytes_are_read_or_refused() {
    for seed in seeds("btf") {
        check_variants(&seed, checks::btf);
    }
}

#[test]
fn captures_of_any_bytes_are_replayed_or_refused() {
    for seed in seeds("capture") {
        check_variants(&seed, checks::capture);
    }
}

#[test]
fn every_capture_of_a_real_kernel_is_replayed_in_every_way() {
    let mut found = Vec::new();
    files(&root().join("captures"), &mut found);
    found.retain(|path| path.extension().is_some_and(|it| it == "mpt"));
    assert!(found.len() > 20, "{found:?}");
    for capture in found {
        check(&capture, &fs::read(&capture).unwrap(), checks::capture);
    }
}

/// In the worst case, the time is proportional to the size of the file.
#[test]
fn a_capture_that_is_all_out_of_order_takes_no_quadratic_time() {
    let start = Instant::now();
    checks::capture(&out_of_order());
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

/// Queries in one reordering window: early ones, late ones, and then all between them in reverse
/// order.
fn out_of_order() -> Vec<u8> {
    use mptcp_trace_common::record::QueryRecord;
    const THIRD: u64 = 5_000;
    const BEGIN_NS: u64 = 1_000_000_000;
    let seed = fs::read(root().join("captures/sessions/host.mpt")).unwrap();
    let facts_bytes = u32::from_le_bytes(seed[12..16].try_into().unwrap()) as usize;
    let mut file = seed[..16 + facts_bytes].to_vec();
    let record = first_query(&seed);
    let at = std::mem::offset_of!(QueryRecord, boottime_ns);
    let latency = std::mem::offset_of!(QueryRecord, latency_ns);
    let in_order = (0..THIRD).chain(2 * THIRD..3 * THIRD);
    for number in in_order.chain((THIRD..2 * THIRD).rev()) {
        let mut record = record.clone();
        record[at..at + 8].copy_from_slice(&(BEGIN_NS + number).to_ne_bytes());
        record[latency..latency + 8].fill(0);
        file.extend(2_u32.to_le_bytes());
        file.extend(u32::try_from(record.len()).unwrap().to_le_bytes());
        file.extend(record);
    }
    file
}

fn first_query(capture: &[u8]) -> Vec<u8> {
    use mptcp_trace_common::record::KIND_QUERY;
    let mut rest = &capture[8..];
    loop {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let (kind, length) = (word(0), word(4) as usize);
        let body = &rest[8..8 + length];
        if kind == 2 && body.starts_with(&KIND_QUERY.to_ne_bytes()) {
            return body.to_vec();
        }
        rest = &rest[8 + length..];
    }
}
