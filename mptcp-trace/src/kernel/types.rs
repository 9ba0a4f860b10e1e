//! The kernel's types, in the form that aya requires.
//!
//! aya only looks up the type ids of functions. So this builds a minimal BTF in which the probed
//! functions and tracepoints have the kernel's type ids, and nothing else is described: it takes a
//! tenth of the time and memory of the full one. To be removed with the first aya that reads types
//! when they are needed (decision 15).

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use aya::{Btf, Endianness};

/// Size of a header, and of a type without further data.
const HEADER_BYTES: u32 = 24;
const TYPE_BYTES: u32 = 12;
/// A forward declaration (`BTF_KIND_FWD`), a typedef (`BTF_KIND_TYPEDEF`), and a function
/// (`BTF_KIND_FUNC`).
const DECLARED: u32 = 7 << 24;
const NAMED: u32 = 8 << 24;
const FUNCTION: u32 = 12 << 24;

/// More types than any kernel has: a larger id is wrong.
const NUMBER_MAX: u32 = 1 << 22;

/// BTF of functions with the given type ids.
pub(super) fn of_functions(numbers: &BTreeMap<&str, u32>) -> anyhow::Result<Btf> {
    let what = "no kernel type information";
    ensure!(!numbers.is_empty(), what);
    Btf::parse(&bytes(numbers)?, Endianness::Little).context(what)
}

fn bytes(numbers: &BTreeMap<&str, u32>) -> anyhow::Result<Vec<u8>> {
    let by_number: BTreeMap<u32, &str> = numbers.iter().map(|(name, it)| (*it, *name)).collect();
    let count = by_number.keys().next_back().copied().unwrap_or(0);
    ensure!(count <= NUMBER_MAX, "type number {count} is too large");
    let mut strings = vec![0];
    let mut types = Vec::with_capacity((count * TYPE_BYTES) as usize);
    for number in 1..=count {
        let (name, kind) = match by_number.get(&number) {
            None => (0, DECLARED),
            Some(name) => {
                let at = u32::try_from(strings.len())?;
                strings.extend(name.as_bytes());
                strings.push(0);
                let is_tracepoint = name.starts_with("btf_trace_");
                (at, if is_tracepoint { NAMED } else { FUNCTION })
            }
        };
        types.extend([name, kind, 0].into_iter().flat_map(u32::to_le_bytes));
    }
    let (types_bytes, strings_bytes) = (count * TYPE_BYTES, u32::try_from(strings.len())?);
    let mut bytes = 0xeb9f_u16.to_le_bytes().to_vec();
    // Version, and no flags.
    bytes.extend([1, 0]);
    let sections = [HEADER_BYTES, 0, types_bytes, types_bytes, strings_bytes];
    bytes.extend(sections.into_iter().flat_map(u32::to_le_bytes));
    bytes.extend(types);
    bytes.extend(strings);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use aya_obj::btf::BtfKind;

    use super::*;

    #[test]
    fn functions_keep_their_given_ids() {
        let numbers = BTreeMap::from([("one", 1), ("seven", 7), ("many", 120_000)]);
        let types = of_functions(&numbers).unwrap();
        for (name, number) in numbers {
            let found = types.id_by_type_name_kind(name, BtfKind::Func);
            assert_eq!(found.unwrap(), number, "{name}");
        }
        assert!(types.id_by_type_name_kind("other", BtfKind::Func).is_err());
        let types = of_functions(&BTreeMap::from([("btf_trace_sys_exit", 9)])).unwrap();
        let found = types.id_by_type_name_kind("btf_trace_sys_exit", BtfKind::Typedef);
        assert_eq!(found.unwrap(), 9);
    }

    #[test]
    fn without_functions_no_description_is_built() {
        assert!(of_functions(&BTreeMap::new()).is_err());
        assert!(of_functions(&BTreeMap::from([("far", u32::MAX)])).is_err());
    }
}
