//! Where a click leads. Pure.

use std::ops::Range;

use super::table::{Order, Tab};

/// What is under a click.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hit {
    /// The name of a tab.
    Tab(Tab),
    /// The header of a column that the table can be sorted by.
    Column(Order),
    /// A row of the table.
    Row(usize),
}

/// Areas of the screen, as drawn last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hits {
    /// Lines, columns and what they show.
    areas: Vec<(u16, Range<u16>, Hit)>,
}

impl Hits {
    /// Forgets the previous frame.
    pub fn clear(&mut self) {
        self.areas.clear();
    }

    /// Adds an area of one line.
    pub fn add(&mut self, y: u16, x: Range<u16>, hit: Hit) {
        self.areas.push((y, x, hit));
    }

    /// What is at this place.
    #[must_use]
    pub fn at(&self, x: u16, y: u16) -> Option<Hit> {
        let is_here =
            |(line, columns, _): &&(u16, Range<u16>, Hit)| *line == y && columns.contains(&x);
        self.areas.iter().find(is_here).map(|(_, _, hit)| *hit)
    }
}
