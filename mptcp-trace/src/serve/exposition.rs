//! Formats metrics as Prometheus text (0.0.4) and OpenMetrics (1.0). Names and units conform to
//! both.

use std::fmt::Write as _;

use crate::escape::escape;

/// Exposition format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flavour {
    /// Prometheus text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

/// Type of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Monotonic from zero. Samples have the suffix `_total`.
    Counter,
    /// A counter of seconds, with fractions.
    TimeCounter,
    /// May increase and decrease.
    Gauge,
    /// Always 1, with information in its labels. Samples have the suffix `_info`.
    Info,
}

/// Labels of a sample: names and values.
pub type Labels = Vec<(&'static str, String)>;

/// A metric with all its samples.
#[derive(Clone, PartialEq, Debug)]
pub struct Family {
    /// Name without suffix.
    pub name: &'static str,
    /// Type of the metric.
    pub kind: Kind,
    /// Help text, one sentence.
    pub help: &'static str,
    /// One value per set of labels.
    pub samples: Vec<(Labels, f64)>,
}

/// A family of counters.
pub(super) fn counter(
    name: &'static str,
    help: &'static str,
    samples: Vec<(Labels, f64)>,
) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        help,
        samples,
    }
}

/// A family of gauges.
pub(super) fn gauge(name: &'static str, help: &'static str, samples: Vec<(Labels, f64)>) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        help,
        samples,
    }
}

/// A sample without labels.
pub(super) fn one(count: u64) -> Vec<(Labels, f64)> {
    vec![(Vec::new(), number(count))]
}

/// Prometheus has only floating-point numbers, which are exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}

/// A label of a sample.
pub(super) fn label(name: &'static str, value: &str) -> (&'static str, String) {
    (name, value.to_owned())
}

impl Flavour {
    /// Selects the format for a client by its `Accept` header.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Value of the `Content-Type` header.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Formats all metrics.
    #[must_use]
    pub fn render(self, families: &[Family]) -> String {
        let mut text = String::new();
        for family in families {
            self.family(family, &mut text);
        }
        if self == Self::OpenMetrics {
            text.push_str("# EOF\n");
        }
        text
    }

    fn family(self, family: &Family, text: &mut String) {
        let Family {
            name,
            kind,
            help,
            samples,
        } = family;
        let (suffix, kind) = match (kind, self) {
            (Kind::Counter | Kind::TimeCounter, _) => ("_total", "counter"),
            (Kind::Gauge, _) => ("", "gauge"),
            (Kind::Info, Self::OpenMetrics) => ("_info", "info"),
            (Kind::Info, Self::Prometheus) => ("_info", "gauge"),
        };
        // Prometheus describes the sample, OpenMetrics the family.
        let described = match self {
            Self::Prometheus => suffix,
            Self::OpenMetrics => "",
        };
        // Writing to a string does not fail.
        let _infallible = writeln!(text, "# HELP {name}{described} {help}");
        let _infallible = writeln!(text, "# TYPE {name}{described} {kind}");
        for (labels, value) in samples {
            text.push_str(name);
            text.push_str(suffix);
            put_labels(labels, text);
            let _infallible = writeln!(text, " {value}");
        }
    }
}

fn put_labels(labels: &Labels, text: &mut String) {
    if labels.is_empty() {
        return;
    }
    text.push('{');
    for (number, (name, value)) in labels.iter().enumerate() {
        if number > 0 {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for char in value.chars() {
            match char {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push_str(&escape(other.encode_utf8(&mut [0; 4]))),
            }
        }
        text.push('"');
    }
    text.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn families() -> Vec<Family> {
        vec![
            Family {
                name: "x_fallbacks",
                kind: Kind::Counter,
                help: "Fallbacks.",
                samples: vec![(vec![("cause", "a\"b\\c\nd\u{9b}\u{202e}".to_owned())], 3.0)],
            },
            Family {
                name: "x_build",
                kind: Kind::Info,
                help: "What runs.",
                samples: vec![(
                    vec![("version", "1".to_owned()), ("kernel", "6".to_owned())],
                    1.0,
                )],
            },
            Family {
                name: "x_up",
                kind: Kind::Gauge,
                help: "Up.",
                samples: vec![(Vec::new(), 0.5)],
            },
        ]
    }

    #[test]
    fn each_flavour_describes_what_it_calls_a_metric() {
        let prometheus = "\
# HELP x_fallbacks_total Fallbacks.
# TYPE x_fallbacks_total counter
x_fallbacks_total{cause=\"a\\\"b\\\\c\\nd\\u{9b}\\u{202e}\"} 3
# HELP x_build_info What runs.
# TYPE x_build_info gauge
x_build_info{version=\"1\",kernel=\"6\"} 1
# HELP x_up Up.
# TYPE x_up gauge
x_up 0.5
";
        assert_eq!(Flavour::Prometheus.render(&families()), prometheus);
        let open = prometheus
            .replace(" x_fallbacks_total Fallbacks", " x_fallbacks Fallbacks")
            .replace("TYPE x_fallbacks_total", "TYPE x_fallbacks")
            .replace("HELP x_build_info", "HELP x_build")
            .replace("TYPE x_build_info gauge", "TYPE x_build info")
            + "# EOF\n";
        assert_eq!(Flavour::OpenMetrics.render(&families()), open);
    }

    #[test]
    fn a_client_gets_what_it_asks_for() {
        for (accept, flavour) in [
            ("", Flavour::Prometheus),
            ("*/*", Flavour::Prometheus),
            ("text/plain;version=0.0.4", Flavour::Prometheus),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3",
                Flavour::OpenMetrics,
            ),
        ] {
            assert_eq!(Flavour::accepted(accept), flavour, "{accept}");
        }
    }
}
