//! Throughput of the stages behind the ring on one core, in records per second:
//! `cargo bench -p mptcp-trace`.
//!
//! The input repeats the records of a capture with increasing timestamps. The output stays in
//! memory: reading the capture and writing the lines are not measured.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a benchmark")]
#![expect(missing_docs, reason = "criterion's macro makes a public function")]

use std::{fs::File, hint::black_box, io, path::Path, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mptcp_trace::{
    capture::{Frame, Reader},
    correlate::Correlator,
    decode::{Observation, decode},
    enrich,
    model::{Event, Facts},
    pipeline::{Stages, View},
    sink::{Format, Source, TextOptions, TimeStyle},
};
use mptcp_trace_common::record::{Kind, QueryRecord};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// Records in one round.
const RECORDS: u64 = 100_000;
/// Time between two records, in nanoseconds.
const PAUSE_NS: u64 = 10_000;

/// Returns the records of a connection that fell back: its queries, and the fallback between them.
fn records() -> (Facts, Vec<Vec<u8>>) {
    let capture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures/sessions/program.mpt");
    let (mut reader, facts) = Reader::open(File::open(capture).unwrap()).unwrap();
    let mut queries = Vec::new();
    loop {
        match reader.next_frame().unwrap() {
            Frame::Record(bytes) if bytes.starts_with(Kind::QUERY.as_bytes()) => {
                queries.push(QueryRecord::read_from_bytes(&bytes).unwrap());
            }
            Frame::Record(_)
            | Frame::Place(..)
            | Frame::Pod(..)
            | Frame::Clock(_)
            | Frame::Missed(..) => {}
            Frame::End(_) | Frame::CutOff => break,
        }
    }
    let first = queries[0].boottime_ns;
    let later = (0..RECORDS)
        .zip(queries.iter().cycle())
        .map(|(number, query)| {
            let record = QueryRecord {
                boottime_ns: first + number * PAUSE_NS,
                ..*query
            };
            record.as_bytes().to_vec()
        });
    (facts, later.collect())
}

fn decoded(facts: &Facts, records: &[Vec<u8>]) -> Vec<Event> {
    let event = |record: &Vec<u8>| match decode(record, facts).unwrap() {
        Observation::Query(query) => Event::Query(enrich::query(facts, query)),
        other @ (Observation::Connection(_)
        | Observation::Refusal(_)
        | Observation::Counters(_)
        | Observation::CountersAtStart(_)
        | Observation::Canary(_)
        | Observation::CanaryConnection(_)
        | Observation::Change(_)
        | Observation::CanaryChange(_)
        | Observation::Path(_)
        | Observation::CanaryPath(_)
        | Observation::Packet(..)
        | Observation::PathReading(_)) => panic!("{other:?} is not a query"),
    };
    records.iter().map(event).collect()
}

fn stages(criterion: &mut Criterion) {
    let (facts, records) = records();
    let mut group = criterion.benchmark_group("records");
    group.throughput(Throughput::Elements(RECORDS));
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(3));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            for record in &records {
                let _observation = black_box(decode(record, &facts));
            }
        });
    });
    group.bench_function("correlate", |bencher| {
        bencher.iter_batched(
            || decoded(&facts, &records),
            |events| {
                let (mut correlator, mut ready) = (Correlator::default(), Vec::new());
                for event in events {
                    correlator.take(event, &facts, &mut ready);
                    ready.clear();
                }
            },
            criterion::BatchSize::LargeInput,
        );
    });
    let text = || {
        Format::text(TextOptions {
            time: TimeStyle::Utc,
            ..TextOptions::default()
        })
    };
    let json: (&str, &dyn Fn() -> Format) = ("all, JSON", &|| Format::Json);
    for (name, format) in [json, ("all, text", &text)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (source, view) = (Source::Replay, View::default());
                let facts = facts.clone();
                let mut stages = Stages::new(facts, format(), source, io::sink(), None, view, None);
                for record in &records {
                    assert!(stages.take(record).is_ok(), "it cannot be written");
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
