//! What was there when tracing began: the records of existing sockets, and no others.

use crate::{
    decode::{Observation, decode},
    enrich::{self, Places},
    model::{ConnectionKind, Facts, Finding},
    sink::Format,
    wanted::Wanted,
};

/// Sockets that were there.
#[derive(Default)]
pub struct Inventory {
    found: Vec<Finding>,
}

impl Inventory {
    /// Looks at one record.
    pub fn take(&mut self, bytes: &[u8], facts: &Facts, places: &mut Places) {
        // What cannot be decoded is none of them, and is complained about where findings are made.
        if let Ok(Observation::Connection(connection)) = decode(bytes, facts)
            && connection.kind == ConnectionKind::Existing
        {
            let event = enrich::connection(facts, places, *connection);
            self.found.push(Finding::Connection(Box::new(event)));
        }
    }

    /// Writes those that are wanted, in the order in which they were found; how many these are.
    pub fn print(
        &self,
        wanted: &Wanted,
        places: &Places,
        format: Format,
        out: &mut Vec<u8>,
    ) -> u64 {
        let mut printed = 0;
        format.sockets(out);
        for finding in &self.found {
            if let Finding::Connection(event) = finding
                && wanted.wants(finding, |id| places.path(id))
            {
                format.socket(event, out);
                printed += 1;
            }
        }
        printed
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }
}
