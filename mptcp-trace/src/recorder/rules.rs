//! Rules that make a dump without being asked: `fallbacks>20/min`.

use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use crate::{
    filter::unknown,
    model::{ConnectionKind, Finding, PathKind},
};

/// Minimum interval between two dumps of one rule, or its window if that is longer.
const AGAIN_AFTER: Duration = Duration::from_secs(600);
/// Minimum interval between two dumps of any rules.
const ANY_AFTER: Duration = Duration::from_secs(60);
/// Counts in a window are kept in this many parts.
const PARTS: u32 = 60;
/// Longest window.
const WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);

/// What a rule counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Fallbacks,
    Refused,
    PathFailures,
    Verdicts,
    Lost,
}

impl What {
    const ALL: [(&'static str, Self); 5] = [
        ("fallbacks", Self::Fallbacks),
        ("refused", Self::Refused),
        ("path-failures", Self::PathFailures),
        ("verdicts", Self::Verdicts),
        ("lost", Self::Lost),
    ];

    /// What a finding counts as.
    fn of(finding: &Finding) -> Option<Self> {
        match finding {
            Finding::Connection(event) => match event.connection.kind {
                ConnectionKind::Fallback => Some(Self::Fallbacks),
                ConnectionKind::FallbackDenied => Some(Self::Refused),
                ConnectionKind::Plain | ConnectionKind::Existing | ConnectionKind::Blackhole => {
                    None
                }
            },
            Finding::Path(event) => {
                matches!(event.path.kind, PathKind::Failed).then_some(Self::PathFailures)
            }
            Finding::Verdict(_) => Some(Self::Verdicts),
            Finding::Query(_) | Finding::Refusal(_) | Finding::Closed(_) => None,
        }
    }
}

/// A rule, as typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    what: What,
    over: u64,
    window: Duration,
    typed: String,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed)
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const LIKE: &str = "write a rule like fallbacks>20/min, refused>0/h or lost>100/10s";
        let (name, rest) = text.split_once('>').ok_or(LIKE)?;
        let (over, window) = rest.split_once('/').ok_or(LIKE)?;
        let name = name.trim();
        let names = What::ALL.map(|(name, _)| name);
        let known = What::ALL.into_iter().find(|(known, _)| *known == name);
        let (_, what) = known.ok_or_else(|| {
            let hint = unknown(name, &names, "");
            format!("a rule cannot count {name:?}: {hint}")
        })?;
        let over = over.trim();
        let over = over
            .parse()
            .map_err(|_no_number| format!("{over:?} is not a whole number; {LIKE}"))?;
        let window = window_of(window.trim())?;
        Ok(Self {
            what,
            over,
            window,
            typed: text.to_owned(),
        })
    }
}

fn window_of(text: &str) -> Result<Duration, String> {
    let digits = text.find(|it: char| !it.is_ascii_digit());
    let (count, unit) = text.split_at(digits.unwrap_or(text.len()));
    let count: u64 = match count {
        "" => 1,
        count => count.parse().map_err(|_long| "the time is too long")?,
    };
    let seconds = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        other => {
            let hint = unknown(other, &["s", "min", "h"], "");
            return Err(format!("unknown unit of time {other:?}: {hint}"));
        }
    };
    let window = Duration::from_secs(count.saturating_mul(seconds));
    match window.is_zero() || window > WINDOW_MAX {
        true => Err("a rule counts in a time of 1s to 24h".to_owned()),
        false => Ok(window),
    }
}

/// Events of the last time.
#[derive(Debug, Default)]
struct Window {
    /// Counts, by the time of the first event in them.
    parts: VecDeque<(Instant, u64)>,
    sum: u64,
}

impl Window {
    fn add(&mut self, now: Instant, count: u64, window: Duration) {
        if count == 0 {
            return;
        }
        let is_same = |part: &&mut (Instant, u64)| now.duration_since(part.0) < window / PARTS;
        match self.parts.back_mut().filter(is_same) {
            Some(part) => part.1 += count,
            None => self.parts.push_back((now, count)),
        }
        self.sum += count;
    }

    fn count(&mut self, now: Instant, window: Duration) -> u64 {
        while let Some((at, count)) = self.parts.front().copied()
            && now.duration_since(at) >= window
        {
            self.parts.pop_front();
            self.sum -= count;
        }
        self.sum
    }
}

/// Rules, and what they have counted.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<(Rule, Window, Option<Instant>)>,
    /// Losses at the last check.
    lost: Option<u64>,
    dumped_at: Option<Instant>,
}

impl Rules {
    /// Rules that have counted nothing.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut new = Self::default();
        new.replace(rules);
        new
    }

    /// Uses other rules from now on; those that stay keep their counts.
    pub fn replace(&mut self, rules: Vec<Rule>) {
        let mut before = std::mem::take(&mut self.rules);
        for rule in rules {
            let known = before.iter().position(|it| it.0 == rule);
            let known = known.map(|at| before.swap_remove(at));
            self.rules
                .push(known.unwrap_or((rule, Window::default(), None)));
        }
    }

    /// Counts a finding.
    pub fn count(&mut self, finding: &Finding, now: Instant) {
        if let Some(what) = What::of(finding).filter(|_| !self.rules.is_empty()) {
            self.add(what, 1, now);
        }
    }

    fn add(&mut self, what: What, count: u64, now: Instant) {
        for (rule, counts, _) in self.rules.iter_mut().filter(|it| it.0.what == what) {
            counts.add(now, count, rule.window);
        }
    }

    /// The rule that asks for a dump now, if one does. `lost` events were lost so far.
    pub fn check(&mut self, lost: u64, now: Instant) -> Option<String> {
        let before = self.lost.replace(lost).unwrap_or(lost);
        self.add(What::Lost, lost.saturating_sub(before), now);
        let is_soon =
            |at: Option<Instant>, after| at.is_some_and(|at| now.duration_since(at) < after);
        let is_soon_for_all = is_soon(self.dumped_at, ANY_AFTER);
        let mut asks = None;
        for (rule, counts, dumped_at) in &mut self.rules {
            let count = counts.count(now, rule.window);
            let is_over = count > rule.over;
            let after = AGAIN_AFTER.max(rule.window);
            if is_over && asks.is_none() && !is_soon_for_all && !is_soon(*dumped_at, after) {
                *dumped_at = Some(now);
                self.dumped_at = Some(now);
                asks = Some(format!("--dump-on {rule}: {count}"));
            }
        }
        asks
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
