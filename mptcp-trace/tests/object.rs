//! The committed BPF object holds what the plan and the loader ask of it.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;

use aya_obj::{EbpfSectionKind, Object};
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
