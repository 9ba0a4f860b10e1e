use super::*;

/// The values offered for the last of these words.
fn offers(shell: Shell, line: &str) -> Vec<String> {
    let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    let at = words.len() - 1;
    let text = candidates(shell, words, at).unwrap();
    let value = |line: &str| line.split('\t').next().unwrap().to_owned();
    text.lines().map(value).collect()
}

#[test]
fn every_verb_completes_its_own_flags() {
    for verb in Cli::command().get_subcommands() {
        let line = format!("mptcp-trace {} --", verb.get_name());
        let found = offers(Shell::Fish, &line);
        let flags = verb.get_arguments().filter(|arg| !arg.is_hide_set());
        for flag in flags.filter_map(clap::Arg::get_long) {
            assert!(found.contains(&format!("--{flag}")), "{line}: {found:?}");
        }
    }
}

#[test]
fn verbs_come_without_flags_until_a_dash_is_typed() {
    let found = offers(Shell::Fish, "mptcp-trace ");
    assert!(found.contains(&"replay".to_owned()), "{found:?}");
    assert!(!found.iter().any(|it| it.starts_with('-')), "{found:?}");
    assert_eq!(offers(Shell::Fish, "mptcp-trace re"), ["replay", "report"]);
    let found = offers(Shell::Fish, "mptcp-trace doctor ");
    assert!(found.contains(&"--json".to_owned()), "{found:?}");
}

#[test]
fn paths_and_other_programs_are_left_to_the_shell() {
    for line in [
        "mptcp-trace replay ",
        "mptcp-trace report run.mpt -o ",
        "mptcp-trace --capture ",
        "mptcp-trace list --netns /proc/",
    ] {
        assert_eq!(offers(Shell::Zsh, line), [values::FILES], "{line}");
    }
    for line in ["mptcp-trace -- ", "mptcp-trace live --json -- curl --"] {
        assert_eq!(offers(Shell::Zsh, line), [values::COMMAND], "{line}");
    }
    assert!(offers(Shell::Zsh, "mptcp-trace replay -- ").is_empty());
}

#[test]
fn what_bash_splits_at_an_equals_sign_is_one_word() {
    let whole = offers(Shell::Zsh, "mptcp-trace list --cause=MPCapableF");
    assert!(!whole.is_empty());
    assert!(whole.iter().all(|it| it.starts_with("--cause=MPCapableF")));
    let split = offers(Shell::Bash, "mptcp-trace list --cause = MPCapableF");
    let bare: Vec<&str> = whole.iter().map(|it| &it["--cause=".len()..]).collect();
    assert_eq!(split, bare);
    assert!(offers(Shell::Bash, "mptcp-trace list --cause =").len() > split.len());
    assert_eq!(
        offers(Shell::Bash, "mptcp-trace --capture = ru"),
        [values::FILES]
    );
}

#[test]
fn a_value_that_is_in_the_list_is_not_offered_again() {
    for (line, given, other) in [
        ("mptcp-trace --kind fallback,", "fallback", "query"),
        ("mptcp-trace --kind=fallback,", "fallback", "query"),
        ("mptcp-trace --kind FALLBACK,f", "fallback", ""),
        ("mptcp-trace --verdict !stale,!", "!stale", "!misled"),
        ("mptcp-trace --columns time,pid,", "pid", "comm"),
        ("mptcp-trace --fail-on stale,", "stale", "fallback"),
    ] {
        let found = offers(Shell::Zsh, line);
        let ends = |value: &str| found.iter().any(|it| it.ends_with(&format!(",{value}")));
        assert!(!ends(given), "{line}: {found:?}");
        assert!(other.is_empty() || ends(other), "{line}: {found:?}");
    }
    assert_eq!(offers(Shell::Zsh, "mptcp-trace --kind fall"), ["fallback"]);
}

#[test]
fn nothing_is_completed_without_words() {
    assert!(candidates(Shell::Bash, Vec::new(), 0).is_err());
    assert!(candidates(Shell::Fish, Vec::new(), 7).is_err());
}
