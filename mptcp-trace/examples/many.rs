//! Writes a long capture for performance tests. It repeats an existing one TIMES times, each time
//! with later timestamps and other sockets:
//! `cargo run --package mptcp-trace --example many -- CAPTURE TIMES OUTPUT`.

use std::{env, fs::File, io, io::BufReader, io::BufWriter, time::Duration};

use mptcp_trace::{
    capture::{Frame, Reader, Writer},
    model::LossReport,
};
use mptcp_trace_common::record::{ConnRecord, QueryRecord};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// Time between two rounds: longer than any capture of the lab.
const ROUND_NS: u64 = 60_000_000_000;
/// Offset between the socket addresses of two rounds, in bytes.
const SOCKETS_APART: u64 = 1 << 32;

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
            let mut frame = reader
                .next_frame()
                .map_err(|why| io::Error::other(format!("{why:#}")))?;
            if frame.is_last() {
                break;
            }
            let later = Duration::from_nanos(round * ROUND_NS);
            match &mut frame {
                Frame::Record(bytes) => shift(bytes, round),
                Frame::Missed(at, _) | Frame::Clock(at) => *at += later,
                Frame::Place(..) | Frame::Pod(..) | Frame::End(_) | Frame::CutOff => {}
            }
            writer.add(&frame)?;
        }
    }
    writer.finish(&LossReport::default())
}

/// Shifts the timestamps and the socket address of a record. Zero means unknown and stays zero.
fn shift(bytes: &mut [u8], round: u64) {
    let later = |time: &mut u64| add(time, round * ROUND_NS);
    let elsewhere = |socket: &mut u64| add(socket, round * SOCKETS_APART);
    if let Ok(mut record) = QueryRecord::read_from_bytes(bytes) {
        later(&mut record.boottime_ns);
        later(&mut record.born_ns);
        later(&mut record.connect_ns);
        elsewhere(&mut record.socket);
        bytes.copy_from_slice(record.as_bytes());
    } else if let Ok(mut record) = ConnRecord::read_from_bytes(bytes) {
        later(&mut record.boottime_ns);
        later(&mut record.born_ns);
        later(&mut record.connect_ns);
        elsewhere(&mut record.socket);
        bytes.copy_from_slice(record.as_bytes());
    }
}

fn add(number: &mut u64, more: u64) {
    if *number != 0 {
        *number = number.wrapping_add(more);
    }
}
