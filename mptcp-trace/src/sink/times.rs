//! Times of lines, and the dates between them.

use std::time::SystemTime;

use jiff::{Timestamp, ZonedDateTime, civil::Date, tz::TimeZone};

/// How times are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TimeStyle {
    /// Time of day in the time zone of this machine.
    #[default]
    Local,
    /// Time of day in UTC.
    Utc,
    /// Seconds since the first line.
    Relative,
    /// Seconds since 1970-01-01 UTC.
    Epoch,
}

impl TimeStyle {
    /// How many characters a time is longer than a time of day, without fractions.
    pub(super) fn extra(self) -> usize {
        match self {
            Self::Local | Self::Utc | Self::Relative => 0,
            Self::Epoch => 2,
        }
    }
}

/// Formats times of lines in their order.
#[derive(Debug)]
pub(super) struct Times {
    style: TimeStyle,
    zone: TimeZone,
    /// Time of the first line.
    first: Option<SystemTime>,
    /// Date of the line before.
    date: Option<Date>,
}

impl Times {
    pub(super) fn new(style: TimeStyle) -> Self {
        Self {
            style,
            zone: match style {
                TimeStyle::Local => TimeZone::system(),
                TimeStyle::Utc | TimeStyle::Relative | TimeStyle::Epoch => TimeZone::UTC,
            },
            first: None,
            date: None,
        }
    }

    fn zoned(&self, time: SystemTime) -> Option<ZonedDateTime> {
        let timestamp = Timestamp::try_from(time).ok()?;
        Some(timestamp.to_zoned_datetime(self.zone.clone()))
    }

    /// The date of this line, if it is another one than that of the line before, and whether there
    /// was such a line.
    pub(super) fn new_date(&mut self, time: SystemTime) -> Option<(String, bool)> {
        match self.style {
            TimeStyle::Local | TimeStyle::Utc => {}
            TimeStyle::Relative | TimeStyle::Epoch => return None,
        }
        let zoned = self.zoned(time)?;
        let before = self.date.replace(zoned.date());
        let is_new = before != Some(zoned.date());
        let shown = match self.style {
            TimeStyle::Local if zoned.offset().seconds() != 0 => {
                format!("{} UTC{}", zoned.date(), zoned.offset())
            }
            TimeStyle::Local | TimeStyle::Utc | TimeStyle::Relative | TimeStyle::Epoch => {
                format!("{} UTC", zoned.date())
            }
        };
        is_new.then(|| (shown, before.is_some()))
    }

    /// The time in at most this many characters: with microseconds, milliseconds, or neither.
    pub(super) fn shown(&mut self, time: SystemTime, width: usize) -> String {
        let first = *self.first.get_or_insert(time);
        let fraction = |nanoseconds: u32, digits: usize| {
            let micros = format!("{:06}", nanoseconds / 1000);
            format!(".{}", &micros[..digits])
        };
        let fitting = |whole: String, nanoseconds: u32| {
            let digits = [6, 3].into_iter().find(|it| whole.len() + 1 + it <= width);
            match digits {
                Some(digits) => whole + &fraction(nanoseconds, digits),
                None => whole,
            }
        };
        match self.style {
            TimeStyle::Local | TimeStyle::Utc => match self.zoned(time) {
                Some(zoned) => fitting(
                    format!(
                        "{:02}:{:02}:{:02}",
                        zoned.hour(),
                        zoned.minute(),
                        zoned.second()
                    ),
                    zoned.subsec_nanosecond().unsigned_abs(),
                ),
                None => "?".to_owned(),
            },
            TimeStyle::Relative => match time.duration_since(first) {
                Ok(since) => fitting(format!("+{}", since.as_secs()), since.subsec_nanos()),
                Err(earlier) => {
                    let before = earlier.duration();
                    fitting(format!("-{}", before.as_secs()), before.subsec_nanos())
                }
            },
            TimeStyle::Epoch => match time.duration_since(SystemTime::UNIX_EPOCH) {
                Ok(since) => fitting(since.as_secs().to_string(), since.subsec_nanos()),
                Err(_before) => "?".to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_style_fits_its_column_and_a_new_date_is_reported_once() {
        let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        // 2024-02-29 23:59:59.250 UTC, and a second later.
        let (before, after) = (at(1_709_251_199_250), at(1_709_251_200_250));
        for (style, first, narrow, second) in [
            (
                TimeStyle::Utc,
                "23:59:59.250000",
                "23:59:59",
                "00:00:00.250",
            ),
            (TimeStyle::Relative, "+0.000000", "+0.000", "+1.000000"),
            (
                TimeStyle::Epoch,
                "1709251199.250000",
                "1709251199",
                "1709251200",
            ),
        ] {
            let mut times = Times::new(style);
            assert_eq!(times.shown(before, 17), first);
            assert_eq!(times.shown(before, 8), narrow);
            assert_eq!(times.shown(after, 12), second);
        }
        let mut times = Times::new(TimeStyle::Relative);
        assert_eq!(times.shown(after, 15), "+0.000000");
        assert_eq!(times.shown(before, 15), "-1.000000");
        assert_eq!(times.new_date(before), None);
        let mut times = Times::new(TimeStyle::Utc);
        let date = |text: &str, again| Some((text.to_owned(), again));
        assert_eq!(times.new_date(before), date("2024-02-29 UTC", false));
        assert_eq!(times.new_date(before), None);
        assert_eq!(times.new_date(after), date("2024-03-01 UTC", true));
    }
}
