//! Formatting of quantities.

use std::time::Duration;

/// A duration with three digits: its number, at most four characters, and its unit.
#[must_use]
pub fn parts(duration: Duration) -> (String, &'static str) {
    const UNITS: [(u128, &str); 4] = [
        (3_600_000_000_000, "h"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "µs"),
    ];
    /// Seconds are more familiar than fractions of an hour.
    const HOURS_NS_MIN: u128 = 10_000 * 1_000_000_000;
    let ns = duration.as_nanos();
    let found = UNITS
        .into_iter()
        .find(|(unit, name)| ns >= *unit && (*name != "h" || ns >= HOURS_NS_MIN));
    let Some((unit, name)) = found else {
        return (ns.to_string(), "ns");
    };
    let (whole, hundredths) = (ns / unit, ns * 100 / unit % 100);
    let number = match whole {
        0..10 => format!("{whole}.{hundredths:02}"),
        10..100 => format!("{whole}.{}", hundredths / 10),
        _ => whole.to_string(),
    };
    (number, name)
}

/// A duration with three digits: `986 µs`, `1.02 s`.
#[must_use]
pub fn short(duration: Duration) -> String {
    let (number, unit) = parts(duration);
    format!("{number} {unit}")
}

/// An amount of bytes with three digits: `80 B`, `8.00 kB`, `1.04 MB`.
#[must_use]
pub fn amount(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1_000_000_000_000, "TB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1_000, "kB"),
    ];
    let Some((unit, name)) = UNITS.into_iter().find(|(unit, _)| bytes >= *unit) else {
        return format!("{bytes} B");
    };
    let (whole, hundredths) = (bytes / unit, bytes % unit / (unit / 100));
    match whole {
        0..10 => format!("{whole}.{hundredths:02} {name}"),
        10..100 => format!("{whole}.{} {name}", hundredths / 10),
        _ => format!("{whole} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_has_three_digits_and_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (8_009, "8.00 kB"),
            (12_345, "12.3 kB"),
            (999_999, "999 kB"),
            (1_048_576, "1.04 MB"),
            (5_000_000_000, "5.00 GB"),
            (u64::MAX, "18446744 TB"),
        ] {
            assert_eq!(amount(bytes), text);
        }
    }

    #[test]
    fn a_duration_has_three_digits_and_a_unit() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (9_999, "9.99 µs"),
            (986_400, "986 µs"),
            (1_750_000, "1.75 ms"),
            (12_345_678, "12.3 ms"),
            (999_999_999, "999 ms"),
            (1_020_000_000, "1.02 s"),
            (61_200_000_000, "61.2 s"),
            (3_600_000_000_000, "3600 s"),
            (9_999_900_000_000, "9999 s"),
            (10_000_000_000_000, "2.77 h"),
            (360_000_000_000_000, "100 h"),
        ] {
            assert_eq!(short(Duration::from_nanos(ns)), text);
        }
    }
}
