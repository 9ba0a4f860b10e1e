use super::*;

const LITTLE: Order = Order::Little;
const BIG: Order = Order::Big;

fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    framed(order, kind, body).unwrap()
}

fn put_i64(order: Order, number: i64) -> [u8; 8] {
    match order {
        Order::Little => number.to_le_bytes(),
        Order::Big => number.to_be_bytes(),
    }
}

fn section(order: Order, length: i64) -> Vec<u8> {
    let body = [
        &order.put_u32(SECTION_MAGIC)[..],
        &order.put_u16(1),
        &order.put_u16(0),
        &put_i64(order, length),
    ];
    block(order, SECTION, &body.concat())
}

fn interface(order: Order, link: u16, options: &[u8]) -> Vec<u8> {
    let body = [&order.put_u16(link)[..], &[0; 2], &[0; 4], options];
    block(order, INTERFACE, &body.concat())
}

fn packet(order: Order, interface: u32, ticks: u64, data: &[u8], options: &[u8]) -> Vec<u8> {
    let number = |number: usize| order.put_u32(u32::try_from(number).unwrap());
    let mut body = [
        order.put_u32(interface),
        order.put_u32(u32::try_from(ticks >> 32).unwrap()),
        order.put_u32(u32::try_from(ticks & 0xffff_ffff).unwrap()),
        number(data.len()),
        number(data.len()),
    ]
    .concat();
    body.extend(data);
    body.resize(body.len().next_multiple_of(4), 0);
    body.extend(options);
    block(order, ENHANCED_PACKET, &body)
}

fn end(order: Order) -> Vec<u8> {
    option(order, OPTION_END, &[])
}

/// Link type, time and bytes of each packet.
fn packets(file: &[u8]) -> Vec<(u16, Option<Duration>, Vec<u8>)> {
    let mut blocks = Blocks::open(file).unwrap();
    let mut found = Vec::new();
    while let Some(block) = blocks.next().unwrap() {
        found.extend(
            block
                .packet()
                .map(|it| (it.link, it.time, it.data.to_vec())),
        );
    }
    found
}

/// The file with this comment on each packet.
fn with_comment(file: &[u8], comment: &str) -> Vec<u8> {
    let mut blocks = Blocks::open(file).unwrap();
    let mut out = Vec::new();
    while let Some(block) = blocks.next().unwrap() {
        let comments = match block.packet() {
            Some(_) => &[comment.to_owned()][..],
            None => &[],
        };
        out.extend_from_slice(&commented(&block, comments).unwrap());
    }
    out
}

#[test]
fn comments_are_added_behind_what_was_there() {
    for order in [LITTLE, BIG] {
        let old = option(order, OPTION_COMMENT, b"old");
        let flags = option(order, 2, &[1, 0, 0, 0]);
        let new = option(order, OPTION_COMMENT, "n\u{eb}w".as_bytes());
        let (end, unknown) = (end(order), option(order, 0x8001, b"private"));
        for (before, after) in [
            (vec![], vec![new.clone(), end.clone()]),
            (vec![end.clone()], vec![new.clone(), end.clone()]),
            (
                vec![old.clone(), flags.clone(), unknown.clone(), end.clone()],
                vec![
                    old.clone(),
                    flags.clone(),
                    unknown,
                    new.clone(),
                    end.clone(),
                ],
            ),
            // Some writers leave out the end.
            (vec![old.clone()], vec![old, new.clone(), end.clone()]),
            // A length beyond the block: a reader stops there.
            (
                vec![flags[..2].to_vec(), order.put_u16(99).to_vec()],
                vec![new, flags[..2].to_vec(), order.put_u16(99).to_vec()],
            ),
        ] {
            let file = |options: &[Vec<u8>]| {
                let own = packet(order, 0, 5, b"abc", &options.concat());
                let parts = [section(order, -1), interface(order, 1, &[]), own];
                parts.concat()
            };
            assert_eq!(with_comment(&file(&before), "n\u{eb}w"), file(&after));
        }
    }
}

#[test]
fn everything_else_is_copied_byte_for_byte() {
    let parts = [
        section(BIG, 1234),
        interface(BIG, 1, &option(BIG, 0x7fff, b"unknown option")),
        block(BIG, 0x0bad, b"\0\0\x7e\xd9custom data."),
        block(BIG, 0x8000_0001, &[0xff; 20]),
        // A packet of an interface that is not described, and an impossible one.
        packet(BIG, 9, 1, b"abcd", &[]),
        block(BIG, ENHANCED_PACKET, &[0xff; 20]),
        block(BIG, SIMPLE_PACKET, b"\0\0\0\x04abcd"),
        block(BIG, 5, &[7; 12]),
        // A second section, in the other byte order.
        section(LITTLE, -1),
        block(LITTLE, 10, b"keys"),
        block(LITTLE, 77, &[]),
    ];
    let mut expected = parts.clone();
    // The packets may grow, so a section's length is not known.
    expected[0][16..24].fill(0xff);
    let file = parts.concat();
    let mut blocks = Blocks::open(&file[..]).unwrap();
    let mut number = 0;
    while let Some(block) = blocks.next().unwrap() {
        assert_eq!(
            *commented(&block, &[]).unwrap(),
            expected[number],
            "{number}"
        );
        number += 1;
    }
    assert_eq!(number, parts.len());
    assert_eq!(blocks.at, u64::try_from(file.len()).unwrap());
}

#[test]
fn each_interface_of_each_section_has_its_own_units() {
    let seconds = |seconds, ns| Some(Duration::new(seconds, ns));
    for order in [LITTLE, BIG] {
        let resolution = |value: u8| option(order, OPTION_RESOLUTION, &[value]);
        let shift = |by: i64| option(order, OPTION_OFFSET, &put_i64(order, by));
        for (options, ticks, time) in [
            (vec![], 1_000_007, seconds(1, 7000)),
            (vec![resolution(9)], 1_000_000_007, seconds(1, 7)),
            (vec![resolution(0)], 5, seconds(5, 0)),
            (vec![resolution(12)], 1_000_000_007_999, seconds(1, 7)),
            // Units of 2^-10 seconds.
            (vec![resolution(0x8a)], 1536, seconds(1, 500_000_000)),
            (vec![resolution(6), shift(100)], 1, seconds(100, 1000)),
            (vec![resolution(0), shift(-3)], 5, seconds(2, 0)),
            (vec![resolution(0), shift(-9)], 5, None),
            (vec![resolution(0x7f)], 5, None),
            (vec![resolution(0xff)], u64::MAX, seconds(0, 0)),
            (vec![resolution(0), shift(i64::MAX)], u64::MAX, None),
        ] {
            let parts = [
                section(LITTLE, -1),
                interface(LITTLE, 7, &[]),
                section(order, -1),
                interface(order, 101, &[]),
                interface(order, 276, &[options.concat(), end(order)].concat()),
                packet(order, 1, ticks, b"abc", &[]),
                packet(order, 2, ticks, b"abc", &[]),
            ];
            let found = packets(&parts.concat());
            assert_eq!(found.len(), 1, "the third interface is not in this section");
            // The sum may not fit into a time at all.
            let time = time.filter(|it| it.as_secs() < u64::MAX);
            let shown = (found[0].0, found[0].1, &found[0].2[..]);
            match ticks {
                u64::MAX if options.len() == 2 => {}
                _ => assert_eq!(shown, (276, time, &b"abc"[..])),
            }
        }
    }
}

#[test]
fn a_pcap_becomes_a_pcapng() {
    for (order, magic, ns) in [
        (LITTLE, PCAP_MAGIC, 7000),
        (BIG, PCAP_MAGIC, 7000),
        (LITTLE, PCAP_NANOS_MAGIC, 7),
        (BIG, PCAP_NANOS_MAGIC, 7),
    ] {
        let header = [
            order.put_u32(magic),
            [order.put_u16(2), order.put_u16(4)]
                .concat()
                .try_into()
                .unwrap(),
            [0; 4],
            [0; 4],
            order.put_u32(262_144),
            // Flags in the upper half.
            order.put_u32(0x1000_0114),
        ]
        .concat();
        let record = |data: &[u8]| {
            let length = u32::try_from(data.len()).unwrap();
            let numbers = [1_700_000_000, 7, length, length + 100].map(|it| order.put_u32(it));
            [&numbers.concat(), data].concat()
        };
        let file = [header.clone(), record(b"abcde"), record(b"")].concat();
        let time = Some(Duration::new(1_700_000_000, ns));
        let expected = [(276, time, b"abcde".to_vec()), (276, time, vec![])];
        assert_eq!(packets(&file), expected);
        // The result is a pcapng with the same packets, and their original lengths.
        let converted = with_comment(&file, "x");
        assert_eq!(packets(&converted), expected);
        assert!(converted.starts_with(&SECTION.to_le_bytes()));
        let original = converted
            .windows(4)
            .filter(|it| *it == 105_u32.to_le_bytes());
        assert_eq!(original.count(), 1);
        // A file without packets is one too.
        assert_eq!(packets(&with_comment(&header, "x")), []);
        for cut in 0..file.len() {
            let is_whole = [24, 24 + 16 + 5].contains(&cut);
            assert_eq!(read_all(&file[..cut]).is_ok(), is_whole, "{cut}");
        }
    }
}

fn read_all(file: &[u8]) -> Result<(), Damage> {
    let mut blocks = Blocks::open(file)?;
    while blocks.next()?.is_some() {}
    Ok(())
}

#[test]
fn damage_is_named_with_its_place() {
    let good = [section(LITTLE, -1), interface(LITTLE, 1, &[])].concat();
    let at = u64::try_from(good.len()).unwrap();
    let own = packet(LITTLE, 0, 1, b"abcd", &[]);
    let with = |bytes: &[u8]| [&good, bytes].concat();
    let mut other_length = own.clone();
    *other_length.last_mut().unwrap() = 1;
    let length =
        |length: u32| with(&[&6_u32.to_le_bytes()[..], &length.to_le_bytes(), &[0; 8]].concat());
    let impossible = Damage::Invalid(at, "its length is impossible");
    let mut no_order = section(LITTLE, -1);
    no_order[8] = 0;
    for (file, damage) in [
        (with(&own[..own.len() - 1]), Damage::CutOff(at)),
        (with(&own[..3]), Damage::CutOff(at)),
        (
            with(&other_length),
            Damage::Invalid(at, "its two lengths differ"),
        ),
        (length(0), impossible.clone()),
        (length(8), impossible.clone()),
        (length(33), impossible.clone()),
        (length(u32::MAX - 3), impossible),
        // A lie about a length costs no memory.
        (length(BLOCK_BYTES_MAX), Damage::CutOff(at)),
        (
            no_order,
            Damage::Invalid(0, "a section has no known byte order"),
        ),
        (vec![], Damage::Foreign("it is empty")),
        (
            b"ab".to_vec(),
            Damage::Foreign("it is too short for a packet capture"),
        ),
        (
            b"#!/bin/sh".to_vec(),
            Damage::Foreign("it is neither pcapng nor pcap"),
        ),
        (
            vec![0x1f, 0x8b, 8, 0, 0, 0],
            Damage::Foreign("it is compressed: unpack it first"),
        ),
    ] {
        assert_eq!(read_all(&file), Err(damage));
    }
    assert_eq!(read_all(&with(&own)), Ok(()));
}

#[test]
fn a_comment_that_has_no_room_is_left_out() {
    let data = vec![0; usize::try_from(BLOCK_BYTES_MAX).unwrap() - 40];
    let parts = [
        section(LITTLE, -1),
        interface(LITTLE, 1, &[]),
        packet(LITTLE, 0, 1, &data, &[]),
    ];
    let file = parts.concat();
    let mut blocks = Blocks::open(&file[..]).unwrap();
    for _ in 0..2 {
        blocks.next().unwrap();
    }
    let last = blocks.next().unwrap().unwrap();
    assert_eq!(commented(&last, &["too long".to_owned()]), None);
    assert!(commented(&last, &[]).is_some());
}
