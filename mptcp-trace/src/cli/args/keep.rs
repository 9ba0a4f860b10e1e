//! Options of the flight recorder.

use std::{path::PathBuf, time::SystemTime};

use clap::Args;

use crate::recorder::{KEEP_MIN, Rule, Span};

use super::values::parse_duration;

/// Options of a verb that can record while it traces.
#[derive(Args, Debug)]
pub struct KeepArgs {
    /// Keep the newest raw records on disk, in at most SIZE (e.g. 256M), for `mptcp-trace dump`
    ///
    /// The oldest are removed first. SIGUSR2 makes a dump of the last ten minutes in the directory.
    /// Dumps there have at most a quarter of SIZE. docs/recorder.md describes it.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub keep: Option<u64>,
    /// Directory of --keep; default: that of the systemd unit (`StateDirectory`), or
    /// /var/lib/mptcp-trace
    #[arg(long, value_name = "DIR")]
    pub keep_dir: Option<PathBuf>,
    /// Make a dump when a count exceeds a limit, e.g. 'fallbacks>20/min' (repeatable)
    ///
    /// Counts: fallbacks, refused, path-failures, verdicts (closing verdicts), lost. Times: /s, /min,
    /// /h, or e.g. /10s. A rule makes at most one dump in ten minutes.
    #[arg(long, value_name = "RULE", value_parser = parse_rule)]
    pub dump_on: Vec<Rule>,
}

/// Options of `dump`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  mptcp-trace dump --since 10m -o incident.mpt\n  \
                  mptcp-trace dump --since '2026-11-24 02:55' --until '2026-11-24 03:10' -o night.mpt\n  \
                  mptcp-trace dump --since 1h -o - | ssh admin.example 'cat > node7.mpt'\n  \
                  mptcp-trace replay incident.mpt\n  \
                  mptcp-trace bundle problem.tar.zst --redact --from incident.mpt\n\n\
                  Needs no tracer that runs: it reads the files of `serve --keep` or `live --keep`, also after\n\
                  that was killed."
)]
pub struct DumpArgs {
    /// Begin that long ago (10m, 1h30m), or at that time; default: all that was recorded
    ///
    /// A time is local, like '2026-11-24 02:55', or has a zone, like 2026-11-24T02:55:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub since: Option<Moment>,
    /// End that long ago, or at that time; default: now
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub until: Option<Moment>,
    /// Write the capture to FILE; - means stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Directory of the recording; default: /var/lib/mptcp-trace
    #[arg(long, value_name = "DIR")]
    pub keep_dir: Option<PathBuf>,
}

/// A moment, as typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment(SystemTime);

/// The span between two moments.
pub(in crate::cli) fn span(since: Option<Moment>, until: Option<Moment>) -> Result<Span, String> {
    let (since, until) = (since.map(|it| it.0), until.map(|it| it.0));
    match since.zip(until) {
        Some((since, until)) if since >= until => Err("until is not later than since".to_owned()),
        Some(_) | None => Ok(Span { since, until }),
    }
}

/// Parses `10m` (that long ago), a local time, or one with a zone.
pub(in crate::cli) fn parse_moment(text: &str) -> Result<Moment, String> {
    if let Ok(ago) = parse_duration(text) {
        let then = SystemTime::now().checked_sub(ago);
        return then
            .map(Moment)
            .ok_or_else(|| "that is too long ago".to_owned());
    }
    let zoned = text.parse::<jiff::Timestamp>().ok();
    let local = || {
        let time = text.parse::<jiff::civil::DateTime>().ok()?;
        jiff::tz::TimeZone::system().to_timestamp(time).ok()
    };
    let time = zoned.or_else(local).and_then(|it| it.try_into().ok());
    time.map(Moment).ok_or_else(|| {
        "write it like 10m (that long ago), '2026-11-24 02:55', or 2026-11-24T02:55:00Z".to_owned()
    })
}

/// Parses a size like `256M`.
pub(in crate::cli) fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| (KEEP_MIN..=1 << 40).contains(bytes))
        .ok_or_else(|| "write a size from 1M to 1024G, like 256M".to_owned())
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    text.parse()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [("1M", 1 << 20), ("256m", 256 << 20), ("2G", 2 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "1K", "100", "-1M", "1.5G", "9999999G", "256MB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_moment_is_some_time_ago_or_a_date_and_a_time() {
        let Ok(Moment(ago)) = parse_moment("10m") else {
            panic!("10m");
        };
        let since = ago.elapsed().unwrap();
        assert!(since >= Duration::from_secs(600) && since < Duration::from_secs(660));
        let utc = parse_moment("2026-11-24T02:55:00Z").unwrap();
        let at = Duration::from_secs(1_795_488_900);
        assert_eq!(utc.0, SystemTime::UNIX_EPOCH + at);
        assert!(parse_moment("2026-11-24 02:55").is_ok());
        assert!(parse_moment("2026-11-24T02:55").is_ok());
        for text in ["", "soon", "02:55", "2026-13-24 02:55", "-10m"] {
            assert!(parse_moment(text).is_err(), "{text}");
        }
        let (early, late) = (Some(utc), Some(Moment(ago)));
        assert!(span(early, late).is_ok() == (utc.0 < ago));
        assert!(span(early, early).is_err());
    }
}
