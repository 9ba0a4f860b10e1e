//! The kernel's symbol table: which functions exist, and under which names.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader},
};

use crate::probes;

/// The symbols of interest that exist.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Symbols {
    /// Base name to full names, or why the table could not be read.
    found: Result<BTreeMap<String, Vec<String>>, String>,
}

impl Symbols {
    /// The full name of a function, including the compiler's suffix, if any: the function itself if
    /// it exists, else a copy of it.
    ///
    /// # Errors
    ///
    /// Reports why the symbol table could not be read.
    pub fn find(&self, base: &str) -> Result<Option<&str>, &str> {
        match &self.found {
            Err(why) => Err(why),
            Ok(found) => {
                let names = found.get(base).map(Vec::as_slice).unwrap_or_default();
                let itself = names.iter().find(|name| is_itself(name, base));
                Ok(itself.or(names.first()).map(String::as_str))
            }
        }
    }

    /// The full name of a function that has all of its arguments; unlike [`Symbols::find`], never a
    /// copy that the compiler changed.
    ///
    /// # Errors
    ///
    /// Reports why the symbol table could not be read.
    pub fn find_itself(&self, base: &str) -> Result<Option<&str>, &str> {
        let found = self.find(base)?;
        Ok(found.filter(|name| is_itself(name, base)))
    }

    /// Hides a function and its variants.
    pub fn hide(&mut self, base: &str) {
        if let Ok(found) = &mut self.found {
            found.remove(base);
        }
    }

    /// Creates a table from names, for tests and fixtures.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self::among(names, &probes::functions())
    }

    /// Keeps the names that match a wanted function.
    fn among<'a>(names: impl IntoIterator<Item = &'a str>, wanted: &[&'static str]) -> Self {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in names {
            if let Some(base) = base_name(name, wanted) {
                found
                    .entry(base.to_owned())
                    .or_default()
                    .push(name.to_owned());
            }
        }
        Self { found: Ok(found) }
    }

    /// A table that could not be read.
    #[must_use]
    pub fn unreadable(why: &str) -> Self {
        Self {
            found: Err(why.to_owned()),
        }
    }
}

/// The wanted function that a symbol matches: itself, or a variant made by the compiler.
///
/// `.isra.N`, `.constprop.N` and `.part.N` are changed functions with an entry of their own; so is
/// `.llvm.N`, which is unchanged. `.cold` is only a rarely used part of one and has none.
fn base_name(symbol: &str, wanted: &[&'static str]) -> Option<&'static str> {
    const SUFFIXES: [&str; 4] = [".isra.", ".constprop.", ".part.", RENAMED];
    wanted.iter().copied().find(|base| {
        symbol.strip_prefix(base).is_some_and(|rest| {
            let is_variant = SUFFIXES.iter().any(|suffix| rest.starts_with(suffix));
            rest.is_empty() || is_variant && !rest.ends_with(".cold")
        })
    })
}

/// What clang appends to the name of a static function, with a number, if link-time optimisation
/// lets other files call it. The function stays as it was.
const RENAMED: &str = ".llvm.";

/// True if a symbol is the function `base` itself: under its plain name, or under one that clang
/// made unique.
fn is_itself(symbol: &str, base: &str) -> bool {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    symbol
        .strip_prefix(base)
        .is_some_and(|rest| rest.is_empty() || rest.strip_prefix(RENAMED).is_some_and(is_number))
}

/// Reads the running kernel's table.
#[must_use]
pub fn read() -> Symbols {
    const TABLE: &str = "/proc/kallsyms";
    let table = File::open(TABLE).map(BufReader::new);
    match table.and_then(among) {
        Ok(symbols) => symbols,
        Err(why) => Symbols::unreadable(&format!("cannot read {TABLE}: {why}")),
    }
}

/// The wanted symbols of a table.
fn among(mut table: impl BufRead) -> io::Result<Symbols> {
    let wanted = probes::functions();
    let mut names = Vec::new();
    // A hundred thousand lines: one buffer serves all.
    let mut line = Vec::new();
    let mut is_empty = true;
    while table.read_until(b'\n', &mut line)? > 0 {
        is_empty = false;
        if let Some((b"t" | b"T", name)) = symbol(&line)
            && wanted.iter().any(|base| name.starts_with(base.as_bytes()))
        {
            names.extend(std::str::from_utf8(name).map(str::to_owned));
        }
        line.clear();
    }
    // An empty table proves nothing, and not that MPTCP is missing: /proc may be masked, as in some
    // containers.
    if is_empty {
        return Err(io::Error::other("it is empty"));
    }
    Ok(Symbols::among(names.iter().map(String::as_str), &wanted))
}

/// Kind and name of a line `ADDRESS KIND NAME [MODULE]`.
fn symbol(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut words = line.split(u8::is_ascii_whitespace).skip(1);
    Some((words.next()?, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_of_the_compiler_are_found_and_cold_parts_are_not() {
        for (name, base) in [
            ("mptcp_getsockopt", Some("mptcp_getsockopt")),
            ("mptcp_getsockopt.isra.0", Some("mptcp_getsockopt")),
            ("do_tcp_getsockopt.constprop.0", Some("do_tcp_getsockopt")),
            ("mptcp_getsockopt.part.0", Some("mptcp_getsockopt")),
            ("mptcp_getsockopt.llvm.1712", Some("mptcp_getsockopt")),
            ("mptcp_getsockopt.llvm.1712.cold", None),
            (
                "mptcp_getsockopt.constprop.0.isra.0",
                Some("mptcp_getsockopt"),
            ),
            ("mptcp_getsockopt.cold", None),
            ("mptcp_getsockopt.cfi_jt", None),
            ("mptcp_getsockopt.isra.0.cold", None),
            ("mptcp_getsockopt_info", None),
            ("mptcp_getsockopt_sol_tcp", Some("mptcp_getsockopt_sol_tcp")),
            ("__tcp_getsockopt", None),
        ] {
            assert_eq!(base_name(name, &probes::functions()), base, "{name}");
        }
    }

    #[test]
    fn functions_are_found_in_a_table() {
        let table = "ffffffff81000000 T mptcp_getsockopt\n\
                     ffffffff81000010 d tcp_getsockopt\n\
                     ffffffff81000020 t mptcp_sendmsg.isra.0\t[mptcp]\n\
                     \n\
                     ffffffff81000030 t mptcp_recvmsg";
        let symbols = among(table.as_bytes()).unwrap();
        for (name, found) in [
            ("mptcp_getsockopt", Some("mptcp_getsockopt")),
            ("tcp_getsockopt", None),
            ("mptcp_sendmsg", Some("mptcp_sendmsg.isra.0")),
            ("mptcp_recvmsg", Some("mptcp_recvmsg")),
        ] {
            assert_eq!(symbols.find(name), Ok(found), "{name}");
        }
    }

    #[test]
    fn an_empty_table_is_none() {
        assert!(among(&b""[..]).is_err());
    }

    #[test]
    fn a_hidden_function_is_gone_with_its_variants() {
        let mut symbols = Symbols::from_names(["mptcp_dss_corruption.isra.0", "mptcp_getsockopt"]);
        symbols.hide("mptcp_dss_corruption");
        assert_eq!(symbols.find("mptcp_dss_corruption"), Ok(None));
        assert_eq!(
            symbols.find("mptcp_getsockopt"),
            Ok(Some("mptcp_getsockopt"))
        );
    }

    #[test]
    fn a_function_that_clang_renamed_is_the_function_itself() {
        for (names, found, itself) in [
            (&["mptcp_recvmsg.llvm.17"][..], Some(0), Some(0)),
            (
                &["mptcp_recvmsg.isra.0", "mptcp_recvmsg.llvm.17"],
                Some(1),
                Some(1),
            ),
            (&["mptcp_recvmsg.isra.0"], Some(0), None),
            (&["mptcp_recvmsg.llvm.17.part.0"], Some(0), None),
            (&[], None, None),
        ] {
            let symbols = Symbols::from_names(names.iter().copied());
            let name = |index: Option<usize>| Ok(index.map(|index| names[index]));
            assert_eq!(symbols.find("mptcp_recvmsg"), name(found), "{names:?}");
            assert_eq!(
                symbols.find_itself("mptcp_recvmsg"),
                name(itself),
                "{names:?}"
            );
        }
    }

    #[test]
    fn the_plain_name_wins_over_its_variants() {
        let symbols = Symbols::from_names(["tcp_getsockopt.isra.0", "tcp_getsockopt"]);
        assert_eq!(symbols.find("tcp_getsockopt"), Ok(Some("tcp_getsockopt")));
        assert_eq!(symbols.find("mptcp_getsockopt"), Ok(None));
        assert_eq!(
            Symbols::unreadable("why").find("tcp_getsockopt"),
            Err("why")
        );
    }
}
