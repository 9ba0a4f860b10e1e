use std::collections::BTreeMap;

use super::{
    json::{CAUSE_BYTES_MAX, CAUSES_MAX},
    *,
};
use crate::model::{Counted, Loss, Rung, SensorId, SensorState};

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
            netns: 7,
            counters: BTreeMap::from([("DssFallback".to_owned(), 3)]),
            counters_after: BTreeMap::from([("DssFallback".to_owned(), 4)]),
            doubt: Some("why".into()),
        }],
    }
}

fn capture() -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &facts()).unwrap();
    writer.record(b"one").unwrap();
    writer.place(5, "/a.service").unwrap();
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
                Frame::Place(..) | Frame::Clock(_) | Frame::Missed(..) => {}
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
