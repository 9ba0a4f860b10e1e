//! Whether output has colours: `--color`, else the environment, else the terminal decides.

use std::{io::IsTerminal as _, sync::OnceLock};

use clap::ColorChoice;

/// The value of `--color`.
static CHOICE: OnceLock<ColorChoice> = OnceLock::new();

/// Keeps the value of `--color`. The first call counts.
pub(super) fn choose(choice: ColorChoice) {
    CHOICE.get_or_init(|| choice);
}

/// True if output to stdout has colours.
pub(super) fn on_stdout() -> bool {
    is_wanted(std::io::stdout().is_terminal())
}

/// True if output to such a destination has colours.
pub(super) fn is_wanted(is_terminal: bool) -> bool {
    let environment = Environment {
        no_color: anstyle_query::no_color(),
        is_forced: anstyle_query::clicolor_force(),
        is_off: anstyle_query::clicolor() == Some(false),
        term_has_colour: anstyle_query::term_supports_color(),
    };
    decide(
        CHOICE.get().copied().unwrap_or(ColorChoice::Auto),
        environment,
        is_terminal,
    )
}

/// What the environment says.
#[derive(Clone, Copy, Default)]
struct Environment {
    /// `NO_COLOR` is set and not empty.
    no_color: bool,
    /// `CLICOLOR_FORCE` is set and not 0.
    is_forced: bool,
    /// `CLICOLOR` is 0.
    is_off: bool,
    /// `TERM` is set and not `dumb`.
    term_has_colour: bool,
}

fn decide(choice: ColorChoice, environment: Environment, is_terminal: bool) -> bool {
    let Environment {
        no_color,
        is_forced,
        is_off,
        term_has_colour,
    } = environment;
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if no_color => false,
        ColorChoice::Auto if is_forced => true,
        ColorChoice::Auto => is_terminal && term_has_colour && !is_off,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_comes_first_then_the_environment_then_the_terminal() {
        let usual = Environment {
            term_has_colour: true,
            ..Environment::default()
        };
        let no_color = Environment {
            no_color: true,
            ..usual
        };
        let forced = Environment {
            is_forced: true,
            ..usual
        };
        let off = Environment {
            is_off: true,
            ..usual
        };
        let dumb = Environment::default();
        let both = Environment {
            no_color: true,
            ..forced
        };
        for (choice, environment, on_terminal, elsewhere) in [
            (ColorChoice::Auto, usual, true, false),
            (ColorChoice::Auto, no_color, false, false),
            (ColorChoice::Auto, forced, true, true),
            (ColorChoice::Auto, both, false, false),
            (ColorChoice::Auto, off, false, false),
            (ColorChoice::Auto, dumb, false, false),
            (ColorChoice::Always, no_color, true, true),
            (ColorChoice::Never, forced, false, false),
        ] {
            assert_eq!(decide(choice, environment, true), on_terminal);
            assert_eq!(decide(choice, environment, false), elsewhere);
        }
    }
}
