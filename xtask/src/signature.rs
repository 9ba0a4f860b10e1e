//! The shape of a kernel: a short hash over everything that the tracer's plan depends on.
//!
//! On two kernels of one shape, the tracer attaches the same programs to the same functions, and
//! reads the same offsets and enum values. All tests run on the first kernel of a shape, and a few
//! on every other one. A function, member or enumerator that moved makes a different shape.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Number of hexadecimal digits of a shape's hash.
const DIGITS: usize = 8;

/// Identifies a shape.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct ShapeId(pub(crate) String);

/// A kernel and its shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Found {
    /// The output of `uname -r`.
    pub(crate) kernel: String,
    pub(crate) shape: ShapeId,
    /// The attach methods in the kernel's plan.
    pub(crate) rungs: Vec<String>,
    /// The first kernel of its shape in this run, which gets every test.
    pub(crate) is_first: bool,
    /// Number of the shape in this run, in order of discovery.
    pub(crate) number: usize,
}

/// The shapes of a run; kernels boot concurrently.
#[derive(Default)]
pub(crate) struct Registry {
    numbers: Mutex<BTreeMap<ShapeId, usize>>,
}

/// Extracts the kernel's shape from a report of `mptcp-trace doctor --json`; `None` for a kernel
/// that cannot be traced.
///
/// # Errors
///
/// Fails if the text is not such a report, or if the report has no shape.
pub(crate) fn of_report(report: &str) -> Result<Option<Shape>> {
    let report: Value = serde_json::from_str(report).context("doctor's report is no JSON")?;
    let shape = report
        .get("shape")
        .context("doctor's report contains no shape")?;
    let Some(probes) = shape.get("probes").and_then(Value::as_array) else {
        return Ok(None);
    };
    let mut rungs: Vec<String> = Vec::new();
    for rung in probes
        .iter()
        .filter_map(|probe| probe.get("rung")?.as_str())
    {
        if !rungs.iter().any(|known| known == rung) {
            rungs.push(rung.to_owned());
        }
    }
    // serde_json sorts its map by name: equal reports give equal bytes.
    let bytes = serde_json::to_vec(shape).context("cannot write a shape")?;
    let mut id: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    id.truncate(DIGITS);
    Ok(Some(Shape {
        id: ShapeId(id),
        rungs,
    }))
}

/// A shape, before the run's earlier shapes were compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) id: ShapeId,
    pub(crate) rungs: Vec<String>,
}

impl Registry {
    /// Registers a kernel's shape. The first kernel to claim a shape gets all tests, unless a few
    /// suffice for it: then the shape is left for another one.
    pub(crate) fn claim(&self, kernel: &str, shape: Shape, is_brief: bool) -> Found {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let next = numbers.len();
        let known = numbers.get(&shape.id).copied();
        let is_first = known.is_none() && !is_brief;
        if is_first {
            numbers.insert(shape.id.clone(), next);
        }
        let number = known.unwrap_or(next);
        Found {
            kernel: kernel.to_owned(),
            shape: shape.id,
            rungs: shape.rungs,
            is_first,
            number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(target: &str, offset: u32, number: u32) -> String {
        format!(
            r#"{{"works":true,"kernel":"6.12","shape":{{
            "probes":[
                {{"sensor":"query","rung":"fexit","program":"p","target":"fexit {target}"}},
                {{"sensor":"query","rung":"tracepoint","program":"q","target":"t"}},
                {{"sensor":"fallback","rung":"fexit","program":"r","target":"fexit g"}}],
            "members":{{"sock.sk_protocol":{offset}}},"numbers":{{"MAPPING_DUMMY":{number}}}}}}}"#
        )
    }

    #[test]
    fn a_moved_function_member_or_enumerator_is_another_shape_and_nothing_else_is() {
        let shape = |report: &str| of_report(report).unwrap().unwrap();
        let one = shape(&report("f", 8, 3));
        assert_eq!(one.rungs, ["fexit", "tracepoint"]);
        assert_eq!(one.id.0.len(), DIGITS);
        for other in [report("h", 8, 3), report("f", 16, 3), report("f", 8, 4)] {
            assert_ne!(shape(&other).id, one.id, "{other}");
        }
        let later = report("f", 8, 3).replace("6.12", "6.13");
        assert_eq!(shape(&later).id, one.id);
    }

    #[test]
    fn a_kernel_without_a_plan_has_no_shape_and_no_report_is_an_error() {
        assert_eq!(of_report(r#"{"shape":null}"#).unwrap(), None);
        for broken in ["", "{}", "not json"] {
            assert!(of_report(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn only_the_first_kernel_of_a_shape_gets_every_test() {
        let registry = Registry::default();
        let claim = |kernel: &str, id: &str| {
            let shape = Shape {
                id: ShapeId(id.to_owned()),
                rungs: Vec::new(),
            };
            let found = registry.claim(kernel, shape, kernel.ends_with("rt"));
            (found.is_first, found.number)
        };
        assert_eq!(claim("6.1", "a"), (true, 0));
        assert_eq!(claim("6.12", "b"), (true, 1));
        assert_eq!(claim("6.13", "b"), (false, 1));
        assert_eq!(claim("6.14-rt", "c"), (false, 2));
        assert_eq!(claim("6.14", "c"), (true, 2));
    }
}
