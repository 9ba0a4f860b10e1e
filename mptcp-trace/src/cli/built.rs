//! What `--version` prints: version, commit, target and layout of the records. `-V` prints the
//! version only.

use std::sync::LazyLock;

use mptcp_trace_common::record::ABI_VERSION;

/// The text of `--version`, after the program's name.
pub(super) static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{}\ncommit: {}\ntarget: {}\nBPF ABI: {ABI_VERSION}",
        env!("CARGO_PKG_VERSION"),
        env!("BUILT_COMMIT"),
        env!("BUILT_TARGET"),
    )
});

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{super::args::Cli, *};

    #[test]
    fn the_long_version_names_commit_target_and_abi_and_the_short_one_is_a_line() {
        let command = Cli::command();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(command.render_version(), format!("mptcp-trace {version}\n"));
        let long = command.render_long_version();
        let lines: Vec<&str> = long.lines().collect();
        let [first, commit, target, abi] = lines[..] else {
            unreachable!("{long}");
        };
        assert_eq!(first, format!("mptcp-trace {version}"));
        let commit = commit.strip_prefix("commit: ").unwrap();
        assert!(!commit.is_empty(), "{long}");
        assert!(
            target.starts_with("target: ") && target.contains("-linux-"),
            "{long}"
        );
        assert_eq!(abi, format!("BPF ABI: {ABI_VERSION}"));
    }
}
