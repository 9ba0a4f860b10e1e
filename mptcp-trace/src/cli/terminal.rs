//! Width of the output.

use std::{
    env,
    io::{self, IsTerminal as _},
};

use crate::sink::Width;

/// Width of lines on stdout: that of the terminal, or COLUMNS if it is set; else unlimited.
pub(super) fn stdout_width(is_wide: bool, is_terminal: bool) -> Width {
    let columns = env::var("COLUMNS").ok();
    decide(is_wide, is_terminal, columns.as_deref())
}

/// Number of columns of stdout, for text that is wrapped; none without a terminal or COLUMNS.
pub(super) fn columns() -> Option<usize> {
    match stdout_width(false, io::stdout().is_terminal()) {
        Width::Unlimited => None,
        Width::Fixed(columns) => Some(columns),
        Width::Terminal(ask) => ask(),
    }
}

fn decide(is_wide: bool, is_terminal: bool, columns: Option<&str>) -> Width {
    let columns = columns.and_then(|it| it.parse::<usize>().ok());
    match (is_wide, columns.filter(|it| *it > 0), is_terminal) {
        (true, _, _) | (false, None, false) => Width::Unlimited,
        (false, Some(columns), _) => Width::Fixed(columns),
        (false, None, true) => Width::Terminal(ask),
    }
}

/// Width of the terminal on stdout.
fn ask() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|it| *it > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_before_the_terminal_and_wide_before_both() {
        for (is_wide, is_terminal, columns, expected) in [
            (false, true, None, "Terminal"),
            (false, false, None, "Unlimited"),
            (false, true, Some("100"), "Fixed(100)"),
            (false, false, Some("100"), "Fixed(100)"),
            (false, true, Some("0"), "Terminal"),
            (false, true, Some("many"), "Terminal"),
            (true, true, Some("100"), "Unlimited"),
        ] {
            let width = format!("{:?}", decide(is_wide, is_terminal, columns));
            assert!(width.starts_with(expected), "{width} for {columns:?}");
        }
    }
}
