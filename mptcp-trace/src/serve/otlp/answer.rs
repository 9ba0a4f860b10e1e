//! Interprets the collector's responses, and decides when to retry. Pure.

use std::time::Duration;

use serde::Deserialize;

/// Initial pause after a failure.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Maximum pause of our own backoff.
pub const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Maximum pause that a collector may request.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Most of a collector's message that is shown, bytes.
const SAID_BYTES_MAX: usize = 200;

/// Outcome of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Accepted, except for some records; with the collector's message.
    Taken {
        /// Number of rejected records.
        rejected: u64,
        /// The collector's reason.
        said: String,
    },
    /// It may be taken later, the collector says when or not.
    RetryLater {
        /// As the collector wants it.
        after: Option<Duration>,
        /// Reason of the failure.
        why: String,
    },
    /// Permanently refused.
    Never {
        /// Reason of the refusal.
        why: String,
    },
}

/// Body of a response to either signal; other fields are ignored.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Body {
    partial_success: Option<Partial>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Partial {
    rejected_log_records: Count,
    rejected_data_points: Count,
    error_message: String,
}

/// The specification has a string here; some collectors send a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Number(u64),
    Text(String),
}

impl Default for Count {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl Count {
    fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.parse().unwrap_or(0),
        }
    }
}

impl Outcome {
    /// Classifies a response by its status, according to the OTLP specification, section
    /// "Failures".
    #[must_use]
    pub fn of(status: u16, retry_after: Option<&str>, body: &[u8]) -> Self {
        match status {
            200..=299 => {
                // An empty body, or one in another format, means success.
                let body: Body = serde_json::from_slice(body).unwrap_or_default();
                let partial = body.partial_success.unwrap_or_default();
                let (logs, points) = (
                    partial.rejected_log_records.number(),
                    partial.rejected_data_points.number(),
                );
                Self::Taken {
                    rejected: logs.saturating_add(points),
                    said: shown(&partial.error_message),
                }
            }
            429 | 502 | 503 | 504 => Self::RetryLater {
                // Seconds; a date is answered with our own pause.
                after: retry_after
                    .and_then(|text| text.trim().parse().ok())
                    .map(Duration::from_secs),
                why: format!("it responds with {status}"),
            },
            _other => {
                let said = shown(&String::from_utf8_lossy(body));
                let colon = if said.is_empty() { "" } else { ": " };
                Self::Never {
                    why: format!("it responds with {status}{colon}{said}"),
                }
            }
        }
    }
}

/// Makes external text safe for a terminal.
fn shown(said: &str) -> String {
    crate::sink::escape(&said[..said.floor_char_boundary(SAID_BYTES_MAX)])
}

/// Backoff after this many failures in a row: doubles each time, with a random half, so that a
/// thousand hosts do not retry at the same time.
#[must_use]
pub fn pause(failures: u32, after: Option<Duration>, random: u64) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    let whole = PAUSE_MIN.saturating_mul(doubled).min(PAUSE_MAX);
    let millis = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX);
    let own = Duration::from_millis(millis / 2 + random % (millis / 2 + 1));
    own.max(after.unwrap_or_default().min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rejected: u64, said: &str) -> Outcome {
        Outcome::Taken {
            rejected,
            said: said.into(),
        }
    }

    #[test]
    fn what_was_rejected_of_a_request_is_read() {
        for (body, want) in [
            ("", taken(0, "")),
            ("{}", taken(0, "")),
            ("no json", taken(0, "")),
            (r#"{"partialSuccess":{}}"#, taken(0, "")),
            (r#"{"partialSuccess":null,"new":1}"#, taken(0, "")),
            (
                r#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"no\u001b"}}"#,
                taken(3, "no\\u{1b}"),
            ),
            (
                r#"{"partialSuccess":{"rejectedDataPoints":2}}"#,
                taken(2, ""),
            ),
        ] {
            let got = Outcome::of(200, None, body.as_bytes());
            match (&got, &want) {
                // The sink's tests cover escaping.
                (
                    Outcome::Taken { rejected: a, said },
                    Outcome::Taken {
                        rejected: b,
                        said: wanted,
                    },
                ) => {
                    assert_eq!(a, b, "{body}");
                    assert_eq!(said.is_empty(), wanted.is_empty(), "{body}");
                    assert!(!said.contains('\u{1b}'), "{said}");
                }
                _ => panic!("{body}: {got:?}"),
            }
        }
    }

    #[test]
    fn only_what_may_get_better_is_tried_again() {
        for (status, header, after) in [
            (429, Some("7"), Some(7)),
            (503, Some(" 9 "), Some(9)),
            (503, Some("Wed, 21 Oct 2026 07:28:00 GMT"), None),
            (502, Some("-1"), None),
            (504, None, None),
        ] {
            let got = Outcome::of(status, header, b"");
            let Outcome::RetryLater { after: got, .. } = got else {
                panic!("{status}: {got:?}");
            };
            assert_eq!(got, after.map(Duration::from_secs));
        }
        for status in [100, 301, 307, 400, 401, 404, 413, 500, 501, 505] {
            let got = Outcome::of(status, Some("1"), b"why");
            assert!(matches!(got, Outcome::Never { .. }), "{status}: {got:?}");
        }
    }

    #[test]
    fn pauses_grow_with_chance_and_within_limits() {
        for (failures, least_ms, most_ms) in [
            (1, 500, 1000),
            (2, 1000, 2000),
            (4, 4000, 8000),
            (6, 15_000, 30_000),
            (u32::MAX, 15_000, 30_000),
        ] {
            for random in [0, 1, 499, 12_345_678_901, u64::MAX] {
                let got = pause(failures, None, random).as_millis();
                assert!((least_ms..=most_ms).contains(&got), "{failures}: {got}");
            }
        }
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(pause(1, hour, 0), RETRY_AFTER_MAX);
        assert_eq!(pause(1, Some(Duration::from_secs(7)), 0).as_secs(), 7);
        assert_eq!(pause(6, Some(Duration::from_secs(1)), 0).as_secs(), 15);
    }
}
