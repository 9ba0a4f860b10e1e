//! How much stderr says: `--quiet`, the default, or `--verbose`.

use std::sync::OnceLock;

use crate::pipeline::Detail;

/// What was chosen.
static CHOICE: OnceLock<Detail> = OnceLock::new();

/// Keeps the values of `--quiet` and `--verbose`. The first call counts.
pub(super) fn choose(is_quiet: bool, verbose: u8) {
    CHOICE.get_or_init(|| match (is_quiet, verbose) {
        (true, _) => Detail::Trouble,
        (false, 0) => Detail::Brief,
        (false, _) => Detail::Full,
    });
}

/// How much of the account is printed.
pub(super) fn detail() -> Detail {
    CHOICE.get().copied().unwrap_or_default()
}

/// True if notes are printed.
pub(super) fn has_notes() -> bool {
    match detail() {
        Detail::Trouble => false,
        Detail::Brief | Detail::Full => true,
    }
}
