use std::collections::BTreeMap;

use mptcp_trace_common::record::QueryRecord;
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::{
    json::{CAUSE_BYTES_MAX, CAUSES_MAX},
    *,
};
use crate::model::{Counted, Dump, Growth, Loss, Rung, SensorId, SensorState};

fn facts() -> Facts {
    Facts {
        version: "0.1.0".into(),
        kernel: "6.18.44".into(),
        boot_epoch: Duration::from_secs(1_700_000_000),
        fallback_bit: Some(2),
        causes: vec![(6, "MPTCP_MIB_MPCAPABLEACTIVEFALLBACK".into())],
        counters_read_at: BTreeMap::from([(
            7,
            (Duration::from_nanos(9), Duration::from_nanos(10)),
        )]),
        counters_listed_at: Some((Duration::from_nanos(7), Duration::from_nanos(8))),
        counters_at_start: BTreeMap::from([(
            4711,
            BTreeMap::from([("DssFallback".to_owned(), 3)]),
        )]),
        sensors: vec![SensorState {
            sensor: SensorId::Query,
            rung: Rung::Kprobe,
            probes: vec!["kprobe f".into()],
            limits: vec!["none".into()],
        }],
        dump: Some(Dump {
            from: Duration::from_nanos(5),
            to: Some(Duration::from_nanos(6)),
        }),
    }
}

fn losses() -> LossReport {
    LossReport {
        sensors: vec![Loss {
            seen: 2,
            emitted: 2,
            ..Loss::none(SensorId::Query)
        }],
        counted: vec![Counted {
            paths: Some(Growth {
                before: [("MPJoinSynTx".to_owned(), 2)].into(),
                after: [("MPJoinSynTx".to_owned(), 3)].into(),
            }),
            netns: 7,
            counters: BTreeMap::from([("DssFallback".to_owned(), 3)]),
            counters_after: BTreeMap::from([("DssFallback".to_owned(), 4)]),
            doubt: Some("why".into()),
        }],
        paths_under_way: 3,
    }
}

fn pod() -> Pod {
    Pod {
        name: Some("web".into()),
        ..Pod::default()
    }
}

fn capture() -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &facts()).unwrap();
    writer.record(b"one").unwrap();
    writer.place(5, "/a.service").unwrap();
    writer.pod(5, &pod()).unwrap();
    writer.record(b"two").unwrap();
    writer.missed(Duration::from_nanos(8), 9).unwrap();
    writer.finish(&losses()).unwrap();
    file
}

#[test]
fn what_was_written_is_read_back() {
    let file = capture();
    let (mut reader, read) = Reader::open(&file[..]).unwrap();
    assert_eq!(read, facts());
    assert!(matches!(reader.next_frame().unwrap(), Frame::Record(bytes) if bytes == b"one"));
    assert!(matches!(reader.next_frame().unwrap(), Frame::Place(5, path) if path == "/a.service"));
    assert!(matches!(reader.next_frame().unwrap(), Frame::Pod(5, read) if read == pod()));
    assert!(matches!(reader.next_frame().unwrap(), Frame::Record(bytes) if bytes == b"two"));
    let by = Duration::from_nanos(8);
    assert!(matches!(reader.next_frame().unwrap(), Frame::Missed(at, 9) if at == by));
    assert!(matches!(reader.next_frame().unwrap(), Frame::End(end) if end == losses()));
}

#[test]
fn a_capture_cut_anywhere_is_reported_as_cut_and_gets_no_invented_end() {
    let file = capture();
    for length in 0..file.len() {
        let (mut reader, _) = match Reader::open(&file[..length]) {
            Err(OpenError::Empty) => {
                assert_eq!(length, 0);
                continue;
            }
            Err(OpenError::CutOff) => continue,
            Err(other) => panic!("{length} bytes: {other}"),
            Ok(opened) => opened,
        };
        let mut records = 0;
        loop {
            match reader.next_frame().unwrap() {
                Frame::Record(_) => records += 1,
                Frame::Place(..) | Frame::Pod(..) | Frame::Clock(_) | Frame::Missed(..) => {}
                Frame::CutOff => break,
                Frame::End(_) => panic!("{length} bytes of {} have an end", file.len()),
            }
        }
        assert!(records <= 2);
    }
}

#[test]
fn facts_that_no_kernel_has_are_refused() {
    let written = |facts: &Facts| {
        let mut file = Vec::new();
        Writer::new(&mut file, facts).unwrap();
        file
    };
    let cause = |name: &str| (1, name.to_owned());
    for (causes, sensors, is_refused) in [
        (vec![cause("A"); CAUSES_MAX], 1, false),
        (vec![cause("A"); CAUSES_MAX + 1], 1, true),
        (vec![cause(&"A".repeat(CAUSE_BYTES_MAX + 1))], 1, true),
        (vec![], 2, true),
    ] {
        let file = written(&Facts {
            causes,
            sensors: vec![facts().sensors[0].clone(); sensors],
            ..facts()
        });
        let opened = Reader::open(&file[..]);
        assert_eq!(matches!(opened, Err(OpenError::Facts(_))), is_refused);
    }
}

#[test]
fn foreign_and_damaged_files_are_refused() {
    assert!(matches!(
        Reader::open(&b"\x7fELF and more"[..]),
        Err(OpenError::Foreign)
    ));
    assert!(matches!(
        Reader::open(&b"MPTCPTR\x09....."[..]),
        Err(OpenError::Version(9))
    ));
    let mut file = capture();
    file[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(Reader::open(&file[..]), Err(OpenError::Facts(_))));
}

/// `MP_CAPABLE` of a SYN/ACK, `MP_FASTCLOSE`, and an option that is cut off.
fn options_with_keys() -> Vec<u8> {
    let mut options = vec![1, 30, 12, 1, 0x81];
    options.extend([0xee; 8]);
    options.extend([30, 12, 0x70, 0]);
    options.extend([0xee; 8]);
    options.extend([2, 4, 5, 0xb4, 30, 20, 1, 0x81, 0xee, 0xee, 0xee]);
    options.resize(40, 0xee);
    options
}

#[test]
fn no_capture_has_a_key_whoever_writes_it() {
    let options = options_with_keys();
    let mut packet = PacketRecord::new_zeroed();
    packet.kind = Kind::PACKET;
    packet.tcp[20..].copy_from_slice(&options);
    let mut path = PathRecord::new_zeroed();
    path.kind = Kind::PATH_ENDED;
    path.options.copy_from_slice(&options);
    path.local_addr = [0xdd; 16];
    let mut query = QueryRecord::new_zeroed();
    query.kind = Kind::QUERY;
    query.comm = [0xdd; 16];
    for record in [packet.as_bytes(), path.as_bytes(), query.as_bytes()] {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, &facts()).unwrap();
        writer.record(record).unwrap();
        writer.add(&Frame::Record(record.to_vec())).unwrap();
        assert!(!file.windows(3).any(|bytes| bytes == [0xee; 3]));
        let (mut reader, _) = Reader::open(&file[..]).unwrap();
        for _written in 0..2 {
            let Frame::Record(read) = reader.next_frame().unwrap() else {
                panic!("not a record");
            };
            // The rest is as it was, also that the options were there.
            let kept = |(now, then): (&u8, &u8)| now == then || (*now, *then) == (0, 0xee);
            assert_eq!(read.len(), record.len());
            assert!(read.iter().zip(record).all(kept));
        }
    }
}

#[test]
fn a_record_that_is_too_short_is_written_as_it_is() {
    for record in [
        &[][..],
        &[1],
        Kind::PACKET.as_bytes(),
        Kind::PATH_UP.as_bytes(),
    ] {
        assert_eq!(without_keys(record), record);
    }
}

#[test]
fn the_captures_of_this_repository_have_no_keys() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures/sessions");
    let mut packets = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = std::fs::read(&path).unwrap();
        if path.extension().is_none_or(|it| it != "mpt") || file[7] != MAGIC[7] {
            continue;
        }
        let (mut reader, _) = Reader::open(&file[..]).unwrap();
        loop {
            let frame = reader.next_frame().unwrap();
            if let Frame::Record(bytes) = &frame {
                packets += u64::from(bytes.starts_with(Kind::PACKET.as_bytes()));
                assert_eq!(without_keys(bytes), &bytes[..], "{}", path.display());
            }
            if frame.is_last() {
                break;
            }
        }
    }
    assert!(packets > 0);
}
