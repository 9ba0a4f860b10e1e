//! Styles of the screen, with or without colours. The terminal's own colours decide what they look
//! like: none sets a background, and only colours with enough contrast on light and on dark
//! backgrounds are in use. Nothing is said by colour alone.

use ratatui::style::{Color, Modifier, Style};

use super::board::Row;

/// Red of the bright half of the palette: the only red with enough contrast everywhere.
const BAD: Color = Color::LightRed;
/// Yellow is unreadable on white, and green and cyan are too in most palettes.
const WORTH_A_LOOK: Color = Color::Magenta;

/// Styles, with or without colours.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    /// Use colours.
    pub has_colour: bool,
}

impl Paint {
    fn colour(self, colour: Color) -> Style {
        match self.has_colour {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    /// A fallback.
    #[must_use]
    pub fn fallen(self) -> Style {
        self.colour(BAD)
    }

    /// A loss, or a deceived application.
    #[must_use]
    pub fn bad(self) -> Style {
        self.colour(BAD).add_modifier(Modifier::BOLD)
    }

    /// What may need attention.
    #[must_use]
    pub fn worth_a_look(self) -> Style {
        self.colour(WORTH_A_LOOK)
    }

    /// Titles, headers and names of keys.
    #[must_use]
    pub fn title(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The selection.
    #[must_use]
    pub fn cursor(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The state of a connection.
    #[must_use]
    pub fn state(self, row: &Row) -> Style {
        match row.state() {
            "fell back" if row.is_deceived() => self.bad(),
            "fell back" => self.fallen(),
            "MPTCP" => Style::new(),
            _ => self.worth_a_look(),
        }
    }
}

/// The style, if it applies.
#[must_use]
pub fn style_if(applies: bool, style: Style) -> Style {
    match applies {
        true => style,
        false => Style::new(),
    }
}

#[cfg(test)]
#[path = "paint_tests.rs"]
pub(super) mod tests;
