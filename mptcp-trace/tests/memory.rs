//! What is remembered is bounded: a million connections need no more memory than a tenth of them.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs::File,
    mem::offset_of,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use mptcp_trace::{
    capture::{Frame, Reader},
    correlate::{Correlator, Limits},
    decode::{Observation, decode},
    enrich::{self, CgroupCache},
    model::{Event, Facts},
};
use mptcp_trace_common::record::{ConnRecord, KIND_FALLBACK, KIND_QUERY, QueryRecord};

/// The system's, and how much it has given out.
struct Counting;

static ALLOCATED_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes on to the system's allocator as it came; what is counted beside it touches no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the promises of this function, which are those of the other one.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above; the pointer comes from `alloc`, and so from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Connections that are remembered at most.
const REMEMBERED: usize = 50_000;
/// When memory is looked at first: everything is full by then.
const FULL: u64 = 100_000;
const CONNECTIONS: u64 = 1_000_000;

/// From one connection to the next: so many end up in the window in which events are put into order.
const PAUSE_NS: u64 = 10_000;

/// Tables are tidied up now and then.
const SLACK_BYTES: usize = 1 << 20;
/// What a connection may cost: its ends, its owner, what its application was told, and its places in the tables.
const CONNECTION_BYTES: usize = 1024;

/// A fallback and a question, as a kernel wrote them.
fn templates() -> (Facts, Vec<u8>, Vec<u8>) {
    let capture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures/sessions/program.mpt");
    let (mut reader, facts) = Reader::open(File::open(capture).unwrap()).unwrap();
    let (mut fallback, mut question) = (None, None);
    loop {
        match reader.next_frame().unwrap() {
            Frame::Record(bytes) if bytes.starts_with(&KIND_FALLBACK.to_ne_bytes()) => {
                fallback = Some(bytes);
            }
            Frame::Record(bytes) if bytes.starts_with(&KIND_QUERY.to_ne_bytes()) => {
                question = Some(bytes);
            }
            Frame::Record(_) | Frame::Place(..) | Frame::Clock(_) | Frame::Missed(..) => {}
            Frame::End(_) | Frame::CutOff => break,
        }
    }
    (facts, fallback.unwrap(), question.unwrap())
}

fn set(record: &mut [u8], at: usize, value: u64) {
    record[at..at + 8].copy_from_slice(&value.to_ne_bytes());
}

/// Connections that nobody sees end: every other one falls back, and of the others somebody asks.
struct Source {
    facts: Facts,
    fallback: Vec<u8>,
    question: Vec<u8>,
    places: CgroupCache,
}

impl Source {
    fn event(&mut self, number: u64) -> Event {
        let (at, socket) = (1_000_000_000 + number * PAUSE_NS, 0x1000 + number * 64);
        let is_fallback = number.is_multiple_of(2);
        let record = if is_fallback {
            set(&mut self.fallback, offset_of!(ConnRecord, boottime_ns), at);
            set(&mut self.fallback, offset_of!(ConnRecord, noticed_ns), at);
            set(&mut self.fallback, offset_of!(ConnRecord, born_ns), at);
            set(&mut self.fallback, offset_of!(ConnRecord, socket), socket);
            &self.fallback
        } else {
            set(&mut self.question, offset_of!(QueryRecord, boottime_ns), at);
            set(&mut self.question, offset_of!(QueryRecord, born_ns), at);
            set(&mut self.question, offset_of!(QueryRecord, socket), socket);
            &self.question
        };
        match decode(record, &self.facts).unwrap() {
            Observation::Query(query) => Event::Query(enrich::query(&self.facts, query)),
            Observation::Connection(connection) => {
                let event = enrich::connection(&self.facts, &mut self.places, *connection);
                Event::Connection(Box::new(event))
            }
            other @ (Observation::Refusal(_)
            | Observation::Counters(_)
            | Observation::CountersAtStart(_)
            | Observation::Canary(_)
            | Observation::CanaryConnection(_)
            | Observation::Change(_)
            | Observation::CanaryChange(_)) => panic!("{other:?} was never written"),
        }
    }
}

#[test]
fn a_million_connections_need_no_more_than_a_tenth_of_them() {
    let (facts, fallback, question) = templates();
    let mut source = Source {
        facts: facts.clone(),
        fallback,
        question,
        places: CgroupCache::offline(),
    };
    let before = ALLOCATED_BYTES.load(Ordering::Relaxed);
    let limits = Limits {
        connections: REMEMBERED,
        ..Limits::STATED
    };
    let (mut correlator, mut ready) = (Correlator::new(limits), Vec::new());
    let mut when_full = 0;
    for number in 0..CONNECTIONS {
        let event = source.event(number);
        correlator.take(event, &facts, &mut ready);
        ready.clear();
        assert!(correlator.remembered() <= REMEMBERED);
        if number == FULL {
            when_full = ALLOCATED_BYTES.load(Ordering::Relaxed) - before;
        }
    }
    let at_the_end = ALLOCATED_BYTES.load(Ordering::Relaxed) - before;
    assert!(
        at_the_end <= when_full + SLACK_BYTES,
        "{when_full} bytes after {FULL} connections, {at_the_end} after {CONNECTIONS}"
    );
    assert!(
        at_the_end <= REMEMBERED * CONNECTION_BYTES,
        "{at_the_end} bytes for {REMEMBERED} connections"
    );
    correlator.cut_off(&facts, &mut ready);
    assert_eq!(correlator.remembered(), REMEMBERED);
    assert_eq!(correlator.evicted(), CONNECTIONS - REMEMBERED as u64);
    println!("{when_full} bytes when full, {at_the_end} at the end");
}
