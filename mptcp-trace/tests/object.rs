//! The committed BPF object contains everything that the plan and the loader use.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use aya_obj::{EbpfSectionKind, Object, generated::bpf_insn};
use mptcp_trace::{kernel, model::SensorId, probes};
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

#[test]
fn every_program_of_the_table_is_in_the_object_and_nothing_else() {
    let object = object();
    let there: BTreeSet<&str> = object.programs.keys().map(String::as_str).collect();
    assert_eq!(
        probes::programs().into_iter().collect::<BTreeSet<_>>(),
        there
    );
}

/// Collects every source file of the product's crates that is not a test, with its path.
fn sources(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // The kernel functions in these files are documentation for users; no code looks them up.
        let names_causes = ["cause.rs", "path_cause.rs", "path_end.rs"]
            .iter()
            .any(|file| path.ends_with(format!("model/{file}")))
            // It looks for these in the facts of a capture; a test of its own compares them.
            || path.ends_with("correlate/path_counters.rs");
        let is_test = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().ends_with("tests.rs"));
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") && !is_test && !names_causes {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            found.push((path, code.to_owned()));
        }
    }
}

#[test]
fn a_function_or_tracepoint_of_the_kernel_is_named_once() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for crate_name in ["mptcp-trace", "mptcp-trace-ebpf", "mptcp-trace-common"] {
        let directory = manifest.parent().unwrap().join(crate_name).join("src");
        sources(&directory, &mut files);
    }
    let mut wrong = Vec::new();
    for name in probes::functions().into_iter().chain(probes::tracepoints()) {
        let literal = format!("\"{name}\"");
        let places = files
            .iter()
            .flat_map(|(path, text)| text.matches(&literal).map(move |_| path));
        let places: Vec<_> = places.collect();
        if places.len() != 1 {
            wrong.push((name, places));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
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
    let counters = SensorId::ALL.map(kernel::counters_of);
    let others = [
        "RECORDS",
        "IN_FLIGHT",
        "QUOTAS",
        "PIDS",
        "FAMILY",
        "COMMS",
        "NETNS",
        "AYA_LOGS",
        "CALIBRATED",
        "CONNS",
        "FALLEN",
        "FALLEN_UNTRACKED",
        "SHARES",
    ];
    for name in counters.iter().map(String::as_str).chain(others) {
        let map = object
            .maps
            .get(name)
            .unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(map.section_kind(), EbpfSectionKind::Maps, "{name}");
    }
}

/// aya-obj keeps its symbol lookup private, so search the string table.
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

/// Stack limit of a program with all its calls (`MAX_BPF_STACK`). Each function's frame is rounded
/// up (`check_max_stack_depth` of Linux 6.1).
const STACK_BYTES_MAX: usize = 512;
const STACK_STEP: usize = 32;

/// Stack bytes of one function, taken from its lowest access below the frame pointer, and the
/// functions that it calls, by their first instructions.
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
    // The deepest stack. If this fails, the test no longer counts some frames.
    assert!(deep["query_tp_return"] > 400, "{deep:?}");
}
