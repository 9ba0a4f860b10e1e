//! The shapes of kernels that are compiled here: what distinguishes each from Debian's kernels.

use crate::host_packages::{CLANG_NEEDS, Need};

/// A kernel with a configuration, a compiler or a source that no kernel of Debian has.
pub(crate) struct Shape {
    /// The argument of `cargo xtask kernel`, and of `--kernel`.
    pub(crate) name: &'static str,
    /// Lines of the configuration besides those that all shapes share.
    config: &'static str,
    /// Arguments of make.
    pub(super) make: &'static [&'static str],
    /// Changes of the source: a file, and a text in it that is replaced once.
    pub(super) edits: &'static [Edit],
    /// What the symbol table must contain; otherwise the kernel proves nothing.
    pub(super) symbol: Option<Symbol>,
    /// The type information is a separate file, for `--btf`.
    pub(crate) separate_btf: bool,
    /// Programs besides those that every kernel needs.
    pub(super) needs: &'static [Need],
}

/// A change of one file of the source.
pub(super) struct Edit {
    pub(super) file: &'static str,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
}

/// A symbol that must exist.
#[derive(Clone, Copy)]
pub(super) enum Symbol {
    /// This name.
    Named(&'static str),
    /// Any name that contains this text.
    Containing(&'static str),
}

/// The shape that is built if none is named.
pub(crate) const DEFAULT: &str = SOL_TCP.name;

/// Distributions' compilers inline `mptcp_getsockopt_sol_tcp`, because it has a single caller. Users
/// know its name, so the probe on it must be tested on a kernel that has it.
const SOL_TCP: Shape = Shape {
    config: include_str!("../../kernels/sol-tcp.config"),
    // Prevents the inlining of functions with one caller, so that they can be probed.
    make: &["KCFLAGS=-fno-inline-functions-called-once"],
    symbol: Some(Symbol::Named("mptcp_getsockopt_sol_tcp")),
    ..shape("sol-tcp")
};

/// All shapes.
pub(crate) const SHAPES: [Shape; 4] = [
    SOL_TCP,
    Shape {
        config: include_str!("../../kernels/rhel.config"),
        // RHEL's kernels carry this change: MPTCP is off in a new network namespace.
        edits: &[Edit {
            file: "net/mptcp/ctrl.c",
            from: "pernet->mptcp_enabled = 1;",
            to: "pernet->mptcp_enabled = 0;",
        }],
        ..shape("rhel")
    },
    Shape {
        config: include_str!("../../kernels/no-btf.config"),
        separate_btf: true,
        ..shape("no-btf")
    },
    Shape {
        config: include_str!("../../kernels/llvm.config"),
        make: &["LLVM=1"],
        // ThinLTO names a static function so when another file's code calls it.
        symbol: Some(Symbol::Containing(".llvm.")),
        needs: &CLANG_NEEDS,
        ..shape("llvm")
    },
];

const fn shape(name: &'static str) -> Shape {
    Shape {
        name,
        config: "",
        make: &[],
        edits: &[],
        symbol: None,
        separate_btf: false,
        needs: &[],
    }
}

/// The shape of this name.
pub(crate) fn find(name: &str) -> Option<&'static Shape> {
    const ALL: &[Shape] = &SHAPES;
    ALL.iter().find(|shape| shape.name == name)
}

impl Shape {
    /// True if a release string, such as `6.12.118-rhel`, is one of this shape.
    pub(crate) fn built(&self, release: &str) -> bool {
        release
            .strip_suffix(self.name)
            .is_some_and(|rest| rest.ends_with('-'))
    }

    /// The whole configuration: a line of the shape replaces one that all shapes share.
    pub(super) fn config(&self) -> String {
        let own: Vec<&str> = self.config.lines().filter_map(option).collect();
        let shared = SHARED
            .lines()
            .filter(|line| option(line).is_none_or(|name| !own.contains(&name)));
        let lines: Vec<&str> = shared.chain(self.config.lines()).collect();
        lines.join("\n") + "\n"
    }

    /// Text that changes with whatever changes the kernel, apart from the source.
    pub(super) fn recipe(&self) -> String {
        let mut text = self.config();
        text.extend(self.make.iter().map(|it| format!("{it}\n")));
        for Edit { file, from, to } in self.edits {
            text.push_str(&format!("{file}: {from} -> {to}\n"));
        }
        text
    }
}

const SHARED: &str = include_str!("../../kernels/small.config");

/// The option that a line of a configuration sets or unsets.
pub(super) fn option(line: &str) -> Option<&str> {
    match unset(line) {
        Some(name) => Some(name),
        None if line.starts_with("CONFIG_") => line.split('=').next(),
        None => None,
    }
}

/// The option that a line of a configuration unsets.
pub(super) fn unset(line: &str) -> Option<&str> {
    line.strip_prefix("# ")?.strip_suffix(" is not set")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_sets_each_option_once_and_its_own_line_wins() {
        for shape in &SHAPES {
            let config = shape.config();
            let mut options: Vec<&str> = config.lines().filter_map(option).collect();
            let count = options.len();
            options.sort_unstable();
            options.dedup();
            assert_eq!(options.len(), count, "{}", shape.name);
            for line in shape.config.lines() {
                assert!(config.lines().any(|it| it == line), "{line}");
            }
            assert!(config.contains(&format!("CONFIG_LOCALVERSION=\"-{}\"", shape.name)));
        }
    }

    #[test]
    fn shapes_differ() {
        let config = |name| find(name).unwrap().config();
        assert!(config("sol-tcp").contains("\nCONFIG_DEBUG_INFO_BTF=y\n"));
        assert!(!config("no-btf").contains("CONFIG_DEBUG_INFO_BTF=y"));
        assert!(!config("rhel").contains("CONFIG_MPTCP_IPV6=y"));
        assert!(find("6.12").is_none());
        assert!(find("rhel").unwrap().built("6.12.118-rhel"));
        assert!(!find("rhel").unwrap().built("6.12.118-llvm"));
        let mut recipes = SHAPES.map(|shape| shape.recipe()).to_vec();
        recipes.sort();
        recipes.dedup();
        assert_eq!(recipes.len(), SHAPES.len());
    }
}
