//! The committed BPF object holds what the plan and the loader ask of it.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use aya_obj::{EbpfSectionKind, Object, generated::bpf_insn};
use mptcp_trace::kernel;
use mptcp_trace_common::record::ABI_SYMBOL;

fn object() -> Object {
    Object::parse(&kernel::Object::unpack().unwrap()).unwrap()
}

#[test]
fn what_is_packed_comes_out_as_it_went_in() {
    let object = kernel::Object::unpack().unwrap();
    assert!(*object == include_bytes!("../bpf/mptcp-trace.o")[..]);
    assert_eq!(object.as_ptr().align_offset(8), 0);
}

/// Every program that a plan can name, as far as the source says it.
fn programs_of_the_plan() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in [
        include_str!("../src/plan.rs"),
        include_str!("../src/plan/fallback.rs"),
        include_str!("../src/kernel/attach.rs"),
        include_str!("../src/kernel/turns.rs"),
    ] {
        for word in source.split('"') {
            let prefixes = [
                "query_",
                "family_",
                "fallback_",
                "life_",
                "listed_",
                "counted_",
                "pidns_",
            ];
            if prefixes
                .iter()
                .any(|prefix| word.len() > prefix.len() && word.starts_with(prefix))
            {
                names.insert(word.to_owned());
            }
        }
    }
    names
}

#[test]
fn every_probe_of_the_plan_is_in_the_object_and_nothing_else() {
    let object = object();
    let there: BTreeSet<String> = object.programs.keys().cloned().collect();
    assert_eq!(programs_of_the_plan(), there);
}

#[test]
fn the_object_carries_the_abi_it_was_built_for() {
    let object = object();
    assert!(
        object.symbols_by_name(ABI_SYMBOL),
        "{ABI_SYMBOL} is missing: run cargo xtask bpf"
    );
}

#[test]
fn the_object_has_the_maps_the_loader_fills_and_reads() {
    let object = object();
    for name in [
        "RECORDS",
        "QUERY_COUNTERS",
        "IN_FLIGHT",
        "QUOTAS",
        "PIDS",
        "FAMILY",
        "COMMS",
        "NETNS",
        "AYA_LOGS",
        "FALLBACK_COUNTERS",
        "CALIBRATED",
        "CONNS",
        "FALLEN",
        "FALLEN_UNNOTED",
        "SHARES",
    ] {
        let map = object
            .maps
            .get(name)
            .unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(map.section_kind(), EbpfSectionKind::Maps, "{name}");
    }
}

/// Reading symbols by name is private in aya-obj: look at the string table.
trait Symbols {
    fn symbols_by_name(&self, name: &str) -> bool;
}

impl Symbols for Object {
    fn symbols_by_name(&self, name: &str) -> bool {
        let needle = [&[0], name.as_bytes(), &[0]].concat();
        let object = kernel::Object::unpack().unwrap();
        object.windows(needle.len()).any(|window| window == needle)
    }
}

/// What a program and all that it calls may have on the stack (`MAX_BPF_STACK`), and what each function's part is rounded up to
/// (`check_max_stack_depth` of Linux 6.1).
const STACK_BYTES_MAX: usize = 512;
const STACK_STEP: usize = 32;

/// Of one function: bytes on the stack, as far below the frame pointer as it reaches, and the functions that it calls, by their
/// first instructions.
fn frame(instructions: &[bpf_insn], range: Range<usize>) -> (usize, Vec<usize>) {
    const CALL: u8 = 0x85;
    const PSEUDO_CALL: u8 = 1;
    const FRAME_POINTER: u8 = 10;
    const MOVE: u8 = 0xbf;
    const ADD: u8 = 0x07;
    let (mut bytes, mut calls) = (0, Vec::new());
    let mut copies = BTreeSet::new();
    for at in range {
        let it = &instructions[at];
        let (class, memory) = (
            it.code & 0x07,
            it.code & 0xe0 == 0x60 || it.code & 0xe0 == 0xc0,
        );
        let base = match class {
            1 => it.src_reg(),
            _ => it.dst_reg(),
        };
        if matches!(class, 1..=3) && memory && base == FRAME_POINTER {
            bytes = bytes.max(usize::from(it.off.unsigned_abs()));
        }
        match it.code {
            MOVE if it.src_reg() == FRAME_POINTER => {
                copies.insert(it.dst_reg());
            }
            ADD if copies.contains(&it.dst_reg()) && it.imm < 0 => {
                bytes = bytes.max(it.imm.unsigned_abs() as usize);
                copies.remove(&it.dst_reg());
            }
            CALL if it.src_reg() == PSEUDO_CALL => {
                calls.push(usize::try_from(at as i64 + 1 + i64::from(it.imm)).unwrap());
            }
            _ => {}
        }
    }
    (bytes, calls)
}

fn deepest(frames: &BTreeMap<usize, (usize, Vec<usize>)>, at: usize) -> usize {
    let (bytes, calls) = &frames[&at];
    let below = calls.iter().map(|call| deepest(frames, *call)).max();
    (*bytes).max(1).next_multiple_of(STACK_STEP) + below.unwrap_or(0)
}

#[test]
fn every_program_fits_the_stack_of_the_oldest_kernel() {
    let mut object = object();
    let sections = object.functions.keys().map(|(section, _)| *section);
    object.relocate_calls(&sections.collect()).unwrap();
    let mut deep = BTreeMap::new();
    for (name, program) in &object.programs {
        let instructions = &object.functions[&program.function_key()].instructions;
        let mut starts = BTreeSet::from([0]);
        starts.extend(frame(instructions, 0..instructions.len()).1);
        let ends = starts.iter().skip(1).copied().chain([instructions.len()]);
        let frames: BTreeMap<_, _> = starts
            .iter()
            .zip(ends)
            .map(|(start, end)| (*start, frame(instructions, *start..end)))
            .collect();
        deep.insert(name.as_str(), deepest(&frames, 0));
    }
    let too_deep: Vec<_> = deep
        .iter()
        .filter(|(_, bytes)| **bytes > STACK_BYTES_MAX)
        .collect();
    assert!(too_deep.is_empty(), "{too_deep:?}");
    // It is the one that has least to spare: where this fails, something is not counted any more.
    assert!(deep["query_tp_return"] > 400, "{deep:?}");
}
