//! Lines that are counted and not parsed: parsing them would cost more than tracing.

use anyhow::Context as _;

use super::Reads;
use crate::traced::{End, Found, Losses, TracedLine};

/// Counts lines by type.
#[derive(Default)]
pub(crate) struct Counted {
    queries: u64,
    /// Lines with fallbacks, which are few.
    fallbacks: Vec<Vec<u8>>,
    last: Vec<u8>,
}

/// Counts of all lines.
pub(crate) struct Counts {
    /// Number of query lines.
    pub(crate) queries: u64,
    /// Fallbacks from the lines.
    pub(crate) fallbacks: Vec<Found>,
    /// The final line.
    pub(crate) end: End,
}

impl Reads for Counted {
    fn take(&mut self, line: &[u8]) -> anyhow::Result<()> {
        if line.starts_with(br#"{"type":"query","#) {
            self.queries += 1;
        } else if line.starts_with(br#"{"type":"fallback","#) {
            self.fallbacks.push(line.to_owned());
        }
        self.last.clear();
        self.last.extend_from_slice(line);
        Ok(())
    }
}

impl Counted {
    pub(crate) fn close(self) -> anyhow::Result<Counts> {
        let parse = |line: &[u8]| TracedLine::parse(String::from_utf8_lossy(line).trim_end());
        let last = parse(&self.last)?;
        let end = last.as_ref().and_then(TracedLine::end);
        let fallbacks = self.fallbacks.iter().filter_map(|line| {
            let fallback = |line: TracedLine| line.fallback().cloned();
            parse(line).map(|line| line.and_then(fallback)).transpose()
        });
        Ok(Counts {
            queries: self.queries,
            fallbacks: fallbacks.collect::<anyhow::Result<_>>()?,
            end: end
                .context("the tracer's last line is not its end line")?
                .clone(),
        })
    }
}

impl Counts {
    /// Losses of the query sensor.
    pub(crate) fn of_queries(&self) -> anyhow::Result<&Losses> {
        let mut all = self.end.losses.iter();
        all.find(|losses| losses.sensor == "query")
            .context("the tracer reports no losses of its query sensor")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_by_type_and_the_last_one_is_read() {
        let counts = |lines: &[&str]| {
            let mut counted = Counted::default();
            for line in lines {
                counted.take(line.as_bytes()).unwrap();
            }
            counted.close()
        };
        let counted = counts(&[
            "{\"type\":\"start\",\"data\":{}}\n",
            "{\"type\":\"query\",\"data\":{}}\n",
            "{\"type\":\"query\",\"data\":{}}\n",
            "{\"type\":\"end\",\"data\":{\"findings\":3,\"losses\":[]}}\n",
        ])
        .unwrap();
        assert_eq!((counted.queries, counted.fallbacks.len()), (2, 0));
        assert_eq!(counted.end.findings, 3);
        assert!(counts(&["{\"type\":\"start\",\"data\":{\"sensors\":[]}}\n"]).is_err());
    }
}
