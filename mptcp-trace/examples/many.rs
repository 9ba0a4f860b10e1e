//! Writes a long capture for performance tests. It repeats an existing one TIMES times, each time
//! with later timestamps and other sockets:
//! `cargo run --package mptcp-trace --example many -- CAPTURE TIMES OUTPUT`.

use std::{env, fs::File, io, io::BufReader, io::BufWriter, mem::offset_of, time::Duration};

use mptcp_trace::{
    capture::{Frame, Reader, Writer},
    model::LossReport,
};
use mptcp_trace_common::record::{
    ConnRecord, KIND_OPTION_REFUSED, KIND_QUERY, KIND_SOCKET_REFUSED, QueryRecord,
};

/// Time between two rounds: longer than any capture of the lab.
const ROUND_NS: u64 = 60_000_000_000;
/// Offset between the socket addresses of two rounds, in bytes.
const SOCKETS_APART: u64 = 1 << 32;

/// Offsets of the timestamps and of the socket address in query and connection records.
const OF_QUERY: ([usize; 3], usize) = (
    [
        offset_of!(QueryRecord, boottime_ns),
        offset_of!(QueryRecord, born_ns),
        offset_of!(QueryRecord, connect_ns),
    ],
    offset_of!(QueryRecord, socket),
);
const OF_CONNECTION: ([usize; 4], usize) = (
    [
        offset_of!(ConnRecord, boottime_ns),
        offset_of!(ConnRecord, noticed_ns),
        offset_of!(ConnRecord, born_ns),
        offset_of!(ConnRecord, connect_ns),
    ],
    offset_of!(ConnRecord, socket),
);

fn main() -> io::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let usage = || io::Error::other("say: many CAPTURE TIMES OUTPUT");
    let [capture, times, output] = &words[..] else {
        return Err(usage());
    };
    let times: u64 = times.parse().map_err(|_no_number| usage())?;
    let open = || {
        Reader::open(BufReader::new(File::open(capture)?))
            .map_err(|why| io::Error::other(format!("{why}")))
    };
    let (_, facts) = open()?;
    let mut writer = Writer::new(BufWriter::new(File::create(output)?), &facts)?;
    for round in 0..times {
        let (mut reader, _) = open()?;
        loop {
            match reader
                .next_frame()
                .map_err(|why| io::Error::other(format!("{why:#}")))?
            {
                Frame::Record(mut bytes) => {
                    shift(&mut bytes, round);
                    writer.record(&bytes)?;
                }
                Frame::Place(cgroup_id, path) => writer.place(cgroup_id, &path)?,
                Frame::Missed(by, count) => {
                    writer.missed(by + Duration::from_nanos(round * ROUND_NS), count)?;
                }
                Frame::Clock(now) => writer.clock(now + Duration::from_nanos(round * ROUND_NS))?,
                Frame::End(_) | Frame::CutOff => break,
            }
        }
    }
    writer.finish(&LossReport::default())
}

/// Shifts the timestamps and the socket address of a record. Zero means unknown and stays zero.
fn shift(bytes: &mut [u8], round: u64) {
    let kind = bytes
        .first_chunk::<4>()
        .map(|kind| u32::from_ne_bytes(*kind));
    let (times, socket): (&[usize], usize) = match kind {
        Some(KIND_QUERY | KIND_OPTION_REFUSED | KIND_SOCKET_REFUSED) => (&OF_QUERY.0, OF_QUERY.1),
        _ => (&OF_CONNECTION.0, OF_CONNECTION.1),
    };
    for at in times {
        add(bytes, *at, round * ROUND_NS);
    }
    add(bytes, socket, round * SOCKETS_APART);
}

fn add(bytes: &mut [u8], at: usize, more: u64) {
    let Some(field) = bytes
        .get_mut(at..)
        .and_then(|rest| rest.first_chunk_mut::<8>())
    else {
        return;
    };
    let number = u64::from_ne_bytes(*field);
    if number != 0 {
        *field = number.wrapping_add(more).to_ne_bytes();
    }
}
