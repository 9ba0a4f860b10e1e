//! Every skip has a reason, which must be a property of the kernel or machine that no installation
//! can change. As root, a skip with any other reason fails the run.

use serde::Serialize;

/// A test that was not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Skip {
    /// Name of the step or suite.
    pub(crate) what: String,
    pub(crate) why: String,
    /// Number of tests or cells that it skipped.
    pub(crate) count: u32,
}

/// Substrings of acceptable reasons, and why nothing can be done about them.
const FACTS: [(&str, &str); 16] = [
    ("this kernel", "nothing can be installed into a kernel"),
    ("(CONFIG_", "what a kernel was built with"),
    (
        "are not reported as evidence",
        "a limit that the sensor reports",
    ),
    ("others use", "other programs on this host"),
    (
        "MPTCP_TRACE_BTF_DIR",
        "files of other projects, which we may not redistribute",
    ),
    (
        "PyPI has no rotel",
        "the collector exists for some machines only",
    ),
    ("the archive lists", "Debian's archive removes old kernels"),
    (
        "Debian has no kernel",
        "Debian's archive removes old kernels",
    ),
    ("32-bit", "32-bit programs need an entry of the kernel"),
    ("the clock cannot be set", "a container may not set it"),
    ("queries a second", "a machine that is too slow, or busy"),
    (
        "is traced, but not whether",
        "a limit that the sensor reports",
    ),
    (
        "others on this machine were at it",
        "other programs' events cannot be distinguished from lost ones",
    ),
    ("others flood this host", "other programs fill the queue"),
    (
        "there is no python3 here",
        "a virtual machine contains only our own programs",
    ),
    (
        "install the package nftables",
        "a virtual machine contains only our own programs",
    ),
];

impl Skip {
    /// True if no installation can change the reason.
    pub(crate) fn is_fact(&self) -> bool {
        FACTS.iter().any(|(part, _)| self.why.contains(part))
    }
}

/// Skips grouped by reason, largest group first, one line each.
pub(crate) fn table(skips: &[Skip]) -> String {
    let mut reasons: Vec<(&str, u32, Vec<&str>)> = Vec::new();
    for Skip { what, why, count } in skips {
        match reasons.iter_mut().find(|(known, _, _)| known == why) {
            Some((_, sum, places)) => {
                *sum += count;
                if !places.contains(&what.as_str()) {
                    places.push(what);
                }
            }
            None => reasons.push((why, *count, vec![what])),
        }
    }
    reasons.sort_by_key(|(_, count, _)| std::cmp::Reverse(*count));
    let mut text = String::new();
    for (why, count, places) in reasons {
        let others = match places.len() {
            0 | 1 => String::new(),
            more => format!(" and {} more", more - 1),
        };
        let first = places.first().copied().unwrap_or_default();
        text.push_str(&format!("skipped {count:>4}: {why} ({first}{others})\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(what: &str, why: &str, count: u32) -> Skip {
        Skip {
            what: what.to_owned(),
            why: why.to_owned(),
            count,
        }
    }

    #[test]
    fn what_can_be_installed_is_no_fact() {
        for (why, is_fact) in [
            ("this kernel has no net.mptcp.checksum_enabled", true),
            (
                "the archive lists linux-image-7.1 1, but not its modules",
                true,
            ),
            (
                "there is no Chromium; Debian: apt-get install chromium",
                false,
            ),
            ("Python has no websocket-client", false),
            ("cannot make a veth pair (CONFIG_VETH)", true),
            (
                "kernels: x: no directory ../btf (MPTCP_TRACE_BTF_DIR)",
                true,
            ),
            ("others use 41 % of the processors, and 3 were lost", true),
            ("cannot load the XDP program of the middlebox", false),
        ] {
            assert_eq!(skip("x", why, 1).is_fact(), is_fact, "{why}");
        }
    }

    #[test]
    fn skips_of_one_reason_are_one_line() {
        let skips = [
            skip("a", "this kernel is old", 2),
            skip("b", "no clock", 4),
            skip("c", "this kernel is old", 3),
        ];
        assert_eq!(
            table(&skips),
            "skipped    5: this kernel is old (a and 1 more)\nskipped    4: no clock (b)\n"
        );
    }
}
