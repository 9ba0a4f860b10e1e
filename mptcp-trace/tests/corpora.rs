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

use mptcp_trace::capture::{Frame, Reader, Writer};
use mptcp_trace_common::record::{Kind, QueryRecord};
use zerocopy::{FromBytes as _, IntoBytes as _};

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
fn packets_of_any_bytes_are_annotated_or_refused() {
    for seed in seeds("packets") {
        check_variants(&seed, checks::packets);
    }
    check_variants(
        &root().join("captures/sessions/packets.pcap"),
        checks::packets,
    );
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
    const THIRD: u64 = 5_000;
    const BEGIN_NS: u64 = 1_000_000_000;
    let seed = fs::File::open(root().join("captures/sessions/host.mpt")).unwrap();
    let (mut reader, facts) = Reader::open(seed).unwrap();
    let record = first_query(&mut reader);
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &facts).unwrap();
    let in_order = (0..THIRD).chain(2 * THIRD..3 * THIRD);
    for number in in_order.chain((THIRD..2 * THIRD).rev()) {
        let record = QueryRecord {
            boottime_ns: BEGIN_NS + number,
            latency_ns: 0,
            ..record
        };
        writer.record(record.as_bytes()).unwrap();
    }
    file
}

fn first_query(reader: &mut Reader<fs::File>) -> QueryRecord {
    loop {
        if let Frame::Record(bytes) = reader.next_frame().unwrap()
            && bytes.starts_with(Kind::QUERY.as_bytes())
        {
            return QueryRecord::read_from_bytes(&bytes).unwrap();
        }
    }
}
