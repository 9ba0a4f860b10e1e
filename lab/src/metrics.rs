//! A page of metrics (Prometheus' text format) as numbers by series. Pure.

use std::collections::BTreeMap;

use anyhow::Context as _;

use crate::netns::Counters;

/// Identity of a series: its name and labels.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
}

impl Series {
    /// Whether it has this name and these labels.
    fn is(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        let has = |(label, value): &(&str, &str)| {
            self.labels.get(*label).map(String::as_str) == Some(*value)
        };
        self.name == name && labels.iter().all(has)
    }
}

/// Contents of a page.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Page {
    series: BTreeMap<Series, f64>,
}

impl Page {
    /// Reads Prometheus' text format.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut series = BTreeMap::new();
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (one, value) = read(line).with_context(|| format!("cannot read {line:?}"))?;
            series.insert(one, value);
        }
        Ok(Self { series })
    }

    /// Number of series.
    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is a series of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.series.keys().any(|it| it.name == name)
    }

    /// Sum of all series of a name that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let wanted = self.series.iter().filter(|(it, _)| it.is(name, labels));
        wanted.map(|(_, value)| whole(*value)).sum()
    }

    /// Sums of all series of a name, by one of their labels; those without it are one, too.
    pub(crate) fn by(&self, name: &str, label: &str) -> Counters {
        self.by_of(name, label, &[])
    }

    /// Sums of all series of a name that have these labels, by another one.
    pub(crate) fn by_of(&self, name: &str, label: &str, only: &[(&str, &str)]) -> Counters {
        let mut sums = Counters::new();
        for (series, value) in &self.series {
            if series.is(name, only) {
                let word = series.labels.get(label).cloned().unwrap_or_default();
                *sums.entry(word).or_default() += whole(*value);
            }
        }
        sums
    }

    /// Describes the counters that are smaller than on an earlier page, or missing. Counts must not
    /// move from one series to another either: that looks like new events.
    pub(crate) fn went_back(&self, earlier: &Self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (series, then) in &earlier.series {
            if !series.name.ends_with("_total") {
                continue;
            }
            let Series { name, labels } = series;
            match self.series.get(series) {
                Some(is) if is >= then => {}
                Some(is) => wrong.push(format!("{name} {labels:?}: {then}, then {is}")),
                None => wrong.push(format!("{name} {labels:?}: {then}, then missing")),
            }
        }
        wrong
    }

    /// Records seen by each sensor, and the sum of their outcomes.
    pub(crate) fn counts(&self) -> [Counters; 2] {
        [
            self.by("mptcp_trace_seen_total", "sensor"),
            self.by("mptcp_trace_outcomes_total", "outcome"),
        ]
    }
}

/// Converts a sample value: counts are exact in a float.
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// Parses `name{label="value",...} number`; values may contain escaped quotes.
fn read(line: &str) -> Option<(Series, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(label.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.trim().parse().ok()?;
    let name = name.to_owned();
    Some((Series { name, labels }, value))
}

/// Splits at the closing quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(letters.next()?.1),
            plain => value.push(plain),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page::parse(text).unwrap()
    }

    #[test]
    fn series_are_summed_whatever_their_owners_are_called() {
        let page = page(
            "# TYPE a_total counter\n\
             a_total{cause=\"X\",process=\"x\\\"},y\"} 2\n\
             a_total{cause=\"X\",process=\"b\"} 3\n\
             a_total{cause=\"Y\"} 4\n\
             b 7\n",
        );
        assert_eq!(page.len(), 4);
        assert_eq!(page.sum("a_total", &[("cause", "X")]), 5);
        assert_eq!(page.sum("a_total", &[]), 9);
        assert_eq!(page.sum("b", &[]), 7);
        let want = |counts: &[(&str, u64)]| -> Counters {
            let counts = counts.iter();
            counts
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect()
        };
        assert_eq!(page.by("a_total", "cause"), want(&[("X", 5), ("Y", 4)]));
        assert_eq!(page.by("b", ""), want(&[("", 7)]));
        let of_b = page.by_of("a_total", "cause", &[("process", "b")]);
        assert_eq!(of_b, want(&[("X", 3)]));
    }

    #[test]
    fn a_page_that_breaks_off_is_none() {
        for text in ["a{b=\"c 1\n", "a\n", "a{b} 1\n", "a x\n"] {
            assert!(Page::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_counter_that_goes_back_or_is_missing_is_noticed() {
        let before = page("a_total{cause=\"X\",process=\"p\"} 2\na_total{cause=\"X\"} 0\ng 5\n");
        let more = page("a_total{cause=\"X\",process=\"p\"} 2\na_total{cause=\"X\"} 1\ng 1\n");
        assert!(more.went_back(&before).is_empty());
        assert_eq!(before.went_back(&more).len(), 1);
        // The count has moved to the series without an owner.
        let moved = page("a_total{cause=\"X\"} 2\n");
        assert_eq!(moved.went_back(&before).len(), 1);
        assert_eq!(page("").went_back(&before).len(), 2);
    }
}
