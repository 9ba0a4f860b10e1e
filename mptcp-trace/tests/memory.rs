//! Memory use is bounded: a million connections need no more than a hundred thousand, and no more do
//! joins that are refused.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs::File,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use mptcp_trace::{
    aggregation::{GROUPS_MAX, Sums},
    capture::{Frame, Reader},
    correlate::{Correlator, Limits},
    decode::{Observation, decode},
    enrich::{self, CgroupCache},
    model::{
        By, CauseCertainty, Event, Facts, Family, Finding, Marks, Path as Subflow, PathEvent,
        PathKind, PathRole, Place, Protocol, Rung, SensorId, SensorState, Socket, SocketId,
        TcpState,
    },
    observe::Observer as _,
    serve::counters::Shared,
};
use mptcp_trace_common::record::{ConnRecord, Kind, QueryRecord};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// The system allocator, with a count of the allocated bytes.
struct Counting;

static ALLOCATED_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed unchanged to the system allocator; the counter touches no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of `alloc`, which is the same for the system
        // allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above; the pointer comes from `alloc`, and thus from the system allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The allocated bytes are those of one test.
static ALONE: Mutex<()> = Mutex::new(());

/// Maximum number of tracked connections.
const REMEMBERED: usize = 50_000;
/// Number of connections before the first measurement: at this point all tables are full.
const FULL: u64 = 100_000;
const CONNECTIONS: u64 = 1_000_000;

/// Time between two connections, which determines how many fit into the reordering window.
const PAUSE_NS: u64 = 10_000;

/// Allowance for tables that are cleaned up only from time to time.
const SLACK_BYTES: usize = 1 << 20;
/// Maximum memory per connection: its addresses, its owner, the answers to its application, and its
/// table entries.
const CONNECTION_BYTES: usize = 1024;

/// A fallback and a query from a real kernel.
fn templates() -> (Facts, ConnRecord, QueryRecord) {
    let capture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures/sessions/program.mpt");
    let (mut reader, facts) = Reader::open(File::open(capture).unwrap()).unwrap();
    let (mut fallback, mut query) = (None, None);
    loop {
        match reader.next_frame().unwrap() {
            Frame::Record(bytes) if bytes.starts_with(Kind::FALLBACK.as_bytes()) => {
                fallback = ConnRecord::read_from_bytes(&bytes).ok();
            }
            Frame::Record(bytes) if bytes.starts_with(Kind::QUERY.as_bytes()) => {
                query = QueryRecord::read_from_bytes(&bytes).ok();
            }
            Frame::Record(_)
            | Frame::Place(..)
            | Frame::Pod(..)
            | Frame::Clock(_)
            | Frame::Missed(..) => {}
            Frame::End(_) | Frame::CutOff => break,
        }
    }
    (facts, fallback.unwrap(), query.unwrap())
}

/// Connections that are never seen to end: every other one falls back, and the rest are queried.
struct Source {
    facts: Facts,
    fallback: ConnRecord,
    query: QueryRecord,
    places: CgroupCache,
}

impl Source {
    fn event(&mut self, number: u64) -> Event {
        let (at, socket) = (1_000_000_000 + number * PAUSE_NS, 0x1000 + number * 64);
        let is_fallback = number.is_multiple_of(2);
        let record = if is_fallback {
            (self.fallback.boottime_ns, self.fallback.born_ns) = (at, at);
            self.fallback.socket = socket;
            self.fallback.as_bytes()
        } else {
            (self.query.boottime_ns, self.query.born_ns) = (at, at);
            self.query.socket = socket;
            self.query.as_bytes()
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
            | Observation::CanaryChange(_)
            | Observation::Path(_)
            | Observation::CanaryPath(_)
            | Observation::Packet(..)
            | Observation::PathReading(_)) => panic!("{other:?} was never written"),
        }
    }
}

#[test]
fn a_million_connections_need_no_more_than_a_tenth_of_them() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (facts, fallback, query) = templates();
    let mut source = Source {
        facts: facts.clone(),
        fallback,
        query,
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

/// A join from an address that nobody has used before, for a connection that does not exist.
fn refused_join(number: u32) -> Finding {
    let [a, b, c, d] = number.to_be_bytes();
    let at = Duration::from_micros(number.into());
    let path = Subflow {
        kind: PathKind::Failed,
        at,
        path: None,
        connection: None,
        socket: Socket {
            id: SocketId(0),
            inode: None,
            netns: 1,
            protocol: Protocol::Tcp,
            family: Family::Ipv6,
            state: TcpState::CLOSE,
            local: ([10, 0, c, d], 443).into(),
            remote: (
                [
                    0x2001,
                    0xdb8,
                    (u16::from(a) << 8) | u16::from(b),
                    0,
                    0,
                    0,
                    c.into(),
                    d.into(),
                ],
                1,
            )
                .into(),
        },
        netns_cookie: 0,
        owner: None,
        unaccepted: false,
        admitted: true,
        removed_ids: Vec::new(),
        role: PathRole::Join,
        side: None,
        local_id: None,
        remote_id: None,
        backup_here: false,
        backup_peer: false,
        is_mptcp: true,
        began_at: Some(at),
        up_at: None,
        was_reported_up: false,
        // As if a peer could choose it.
        cause: Some(format!("cause {number}").into()),
        known: CauseCertainty::Inferred,
        decided_by: None,
        reset: None,
        errno: None,
        ledger: None,
        manager: None,
        token: number,
        is_stale: false,
        existing: false,
        late: false,
        rung: Rung::Fexit,
        marks: Marks::default(),
        rst_received: false,
        rst_sent: false,
    };
    Finding::Path(Box::new(PathEvent {
        path,
        time: SystemTime::UNIX_EPOCH + at,
        place: Place::default(),
        of_connection: None,
        packet: None,
    }))
}

#[test]
fn a_flood_of_refused_joins_takes_no_memory_beyond_the_tables() {
    const JOINS_FULL: u32 = 20_000;
    const JOINS: u32 = 200_000;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let facts = Facts {
        sensors: vec![SensorState {
            sensor: SensorId::Subflow,
            rung: Rung::Fexit,
            probes: Vec::new(),
            limits: Vec::new(),
        }],
        ..templates().0
    };
    let all = [
        By::Process,
        By::Cause,
        By::Dest,
        By::Netns,
        By::Cgroup,
        By::Verdict,
        By::Path,
        By::Endpoint,
        By::Interface,
    ];
    let mut sums = Sums::new(&all);
    let mut counters = Shared::new(None, &facts);
    let before = ALLOCATED_BYTES.load(Ordering::Relaxed);
    let mut when_full = 0;
    for number in 0..JOINS {
        let finding = refused_join(number);
        sums.add(&finding, &|_| None);
        counters.finding(&finding, &|_| None);
        if number == JOINS_FULL {
            when_full = ALLOCATED_BYTES.load(Ordering::Relaxed) - before;
        }
    }
    let at_the_end = ALLOCATED_BYTES.load(Ordering::Relaxed) - before;
    assert!(when_full > 1000, "the tables are empty");
    assert!(
        at_the_end <= when_full + SLACK_BYTES,
        "{when_full} bytes after {JOINS_FULL} joins, {at_the_end} after {JOINS}"
    );
    for table in sums.tables() {
        assert!(table.rows.len() <= GROUPS_MAX / 2, "{:?}", table.by);
        let rows = table.rows.iter().map(|row| &row.sum);
        let failed: u64 = rows.chain(&table.others).map(|it| it.paths.failed).sum();
        let wanted = match table.by {
            By::Verdict => 0,
            By::Process
            | By::Cause
            | By::Dest
            | By::Netns
            | By::Cgroup
            | By::Path
            | By::Endpoint
            | By::Interface => u64::from(JOINS),
        };
        assert_eq!(failed, wanted, "{:?}", table.by);
    }
    let unknown = counters.with(|it| it.paths.paths[&("failed", "join", "unknown")]);
    assert_eq!(unknown, u64::from(JOINS));
    println!("{when_full} bytes when full, {at_the_end} at the end");
}
