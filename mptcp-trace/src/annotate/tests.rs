use std::time::Duration;

use super::*;
use crate::{filter::FindingFilter, model::fixture::Row, observe::Observer as _};

/// A pcap (raw IP, microseconds) with a SYN and a SYN/ACK of the connection of [`Row::default`].
fn pcap() -> Vec<u8> {
    let mut file = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101]
        .map(u32::to_le_bytes)
        .concat();
    for (us, from, to, flags) in [(900, 0, 1, 0x02), (950, 1, 0, 0x12)] {
        let ends = [([10, 0, 0, 1], 1000_u16), ([192, 0, 2, 7], 443)];
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
        packet.extend(ends[from].0);
        packet.extend(ends[to].0);
        packet.extend(ends[from].1.to_be_bytes());
        packet.extend(ends[to].1.to_be_bytes());
        packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        file.extend([0, us, 40, 40].map(u32::to_le_bytes).concat());
        file.extend(packet);
    }
    file
}

fn gathered(row: Row) -> Gathered {
    let mut shared = Shared::new(FindingFilter::default());
    let mut finding = row.connection();
    if let crate::model::Finding::Connection(event) = &mut finding {
        event.time = std::time::UNIX_EPOCH + Duration::from_millis(1);
        event.connection.stage = None;
    }
    shared.finding(&finding, &|_| None);
    shared.finish()
}

#[test]
fn comments_are_in_the_output_and_damage_is_in_the_plan() {
    let file = pcap();
    let plan = plan(&file[..], gathered(Row::default())).unwrap();
    assert_eq!(plan.damage, None);
    let mut out = Vec::new();
    let written = write(&file[..], &plan, &mut out).unwrap().unwrap();
    assert_eq!((written.comments, written.packets, written.full), (2, 2, 0));
    let text = String::from_utf8_lossy(&out);
    let summary = text
        .find("connection that fell back to TCP: DssFallback")
        .unwrap();
    assert!(summary < text.find("fell back to TCP here: DssFallback").unwrap());
    // The result can be annotated again.
    let again = super::plan(&out[..], gathered(Row::default())).unwrap();
    assert_eq!(again.counts, plan.counts);
}

#[test]
fn what_precedes_the_damage_is_written() {
    let file = &pcap()[..pcap().len() - 1];
    let plan = plan(file, gathered(Row::default())).unwrap();
    assert_eq!(plan.damage, Some(Damage::CutOff(24 + 56)));
    assert_eq!(plan.counts.packets, 1);
    let mut out = Vec::new();
    let written = write(file, &plan, &mut out).unwrap().unwrap();
    assert_eq!((written.comments, written.packets), (2, 1));
    assert_eq!(
        super::plan(&out[..], gathered(Row::default()))
            .unwrap()
            .damage,
        None
    );
}

#[test]
fn a_damaged_packet_is_copied_and_its_place_is_named() {
    let mut file = Vec::new();
    write(
        &pcap()[..],
        &plan(&pcap()[..], gathered(Row::default())).unwrap(),
        &mut file,
    )
    .unwrap()
    .unwrap();
    let at = u64::try_from(file.len()).unwrap();
    let block =
        |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|it| it.to_le_bytes()).collect() };
    // An enhanced packet whose captured length exceeds the block, one of an interface that nobody
    // described, and a simple packet that is shorter than it says.
    for damaged in [
        block(&[6, 32, 0, 0, 0, 500, 500, 32]),
        block(&[6, 32, 99, 0, 0, 0, 0, 32]),
        block(&[3, 16, 60, 16]),
    ] {
        let whole = [&file[..], &damaged].concat();
        let plan = plan(&whole[..], gathered(Row::default())).unwrap();
        assert_eq!(plan.damage, None);
        assert_eq!((plan.unreadable_at, plan.counts.unreadable), (Some(at), 1));
        let mut out = Vec::new();
        write(&whole[..], &plan, &mut out).unwrap().unwrap();
        assert!(out.ends_with(&damaged));
    }
    let plan = plan(&file[..], gathered(Row::default())).unwrap();
    assert_eq!((plan.unreadable_at, plan.counts.unreadable), (None, 0));
}

#[test]
fn names_from_outside_are_escaped() {
    let evil = Row {
        comm: "\u{1b}[31m\n",
        ..Row::default()
    };
    let plan = plan(&pcap()[..], gathered(evil)).unwrap();
    for comment in plan.comments.iter().flat_map(|(_, texts)| texts) {
        assert!(!comment.contains(char::is_control), "{comment:?}");
        assert!(comment.contains("\\u{1b}[31m\\n (7)"), "{comment:?}");
    }
}

#[test]
fn the_limits_are_those_that_stderr_names() {
    assert_eq!((FINDINGS_MAX, LIVES_MAX), (200_000, 1_000_000));
}
