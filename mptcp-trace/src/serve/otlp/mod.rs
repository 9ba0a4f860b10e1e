//! Findings as logs and counters as metrics, sent to an OpenTelemetry collector over OTLP/HTTP in JSON.
//!
//! The messages are mapped by hand, field by field of the protocol's own schema: the crates of OpenTelemetry bring a
//! second HTTP client, gRPC and protobuf with them, and would double the size of the program for two requests. That the
//! mapping is right is judged by others: `mptcp-lab exported` has the official schema read every byte.
//!
//! Only plain HTTP: TLS, authentication and fan-out are what a collector on the same host is for. Nothing here ever makes
//! the tracing loop wait: it puts records into a bounded [`queue::Queue`], and what finds no room is counted.

pub mod answer;
pub mod export;
pub mod metrics;
pub mod queue;
pub mod record;
pub mod target;

use serde_json::{Value, json};

/// Name of the service, and of the scope of what it says.
const SERVICE: &str = "mptcp-trace";

/// Who speaks: the host, its kernel and this program.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Name of the host.
    pub host: String,
    /// `uname -r`.
    pub kernel: String,
    /// Version of this program.
    pub version: String,
}

impl Resource {
    /// As the protocol writes it.
    fn resource(&self) -> Value {
        let Self {
            host,
            kernel,
            version,
        } = self;
        json!({"attributes": [
            string("service.name", SERVICE),
            string("service.version", version),
            string("host.name", host),
            string("os.type", "linux"),
            string("os.version", kernel),
        ]})
    }

    fn scope(&self) -> Value {
        json!({"name": SERVICE, "version": self.version})
    }

    /// A whole request with these records, each of them JSON already.
    #[must_use]
    pub fn logs_request(&self, records: &[&str]) -> String {
        format!(
            r#"{{"resourceLogs":[{{"resource":{},"scopeLogs":[{{"scope":{},"logRecords":[{}]}}]}}]}}"#,
            self.resource(),
            self.scope(),
            records.join(",")
        )
    }

    /// A whole request with these metrics.
    #[must_use]
    pub fn metrics_request(&self, metrics: &[Value]) -> String {
        json!({"resourceMetrics": [{
            "resource": self.resource(),
            "scopeMetrics": [{"scope": self.scope(), "metrics": metrics}],
        }]})
        .to_string()
    }
}

/// An attribute that is text. What would drive a terminal is shown instead: collectors print attributes as they are.
fn string(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": crate::sink::escape(value)}})
}

/// An attribute that is a number: 64 bits are written as text, JSON has no such numbers.
fn int(key: &str, value: impl Into<u64>) -> Value {
    // The protocol has signed numbers only.
    let value = i64::try_from(value.into()).unwrap_or(i64::MAX);
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

/// An attribute that is yes or no.
fn boolean(key: &str, value: bool) -> Value {
    json!({"key": key, "value": {"boolValue": value}})
}

/// Nanoseconds since the epoch, as the protocol writes them; 0 (not known) before it.
fn nanos(time: std::time::SystemTime) -> String {
    let since = time
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos())
        .unwrap_or(u64::MAX)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_who_speaks_and_holds_all_records() {
        let resource = Resource {
            host: "h\"1".into(),
            kernel: "6.12".into(),
            version: "1.2.3".into(),
        };
        let body = resource.logs_request(&[r#"{"a":1}"#, r#"{"a":2}"#]);
        let body: Value = serde_json::from_str(&body).unwrap();
        let said = json!({"attributes": [
            {"key": "service.name", "value": {"stringValue": "mptcp-trace"}},
            {"key": "service.version", "value": {"stringValue": "1.2.3"}},
            {"key": "host.name", "value": {"stringValue": "h\"1"}},
            {"key": "os.type", "value": {"stringValue": "linux"}},
            {"key": "os.version", "value": {"stringValue": "6.12"}},
        ]});
        let scope = json!({"name": "mptcp-trace", "version": "1.2.3"});
        assert_eq!(
            body,
            json!({"resourceLogs": [{
                "resource": said,
                "scopeLogs": [{"scope": scope, "logRecords": [{"a": 1}, {"a": 2}]}],
            }]})
        );
        let body: Value = serde_json::from_str(&resource.metrics_request(&[json!(7)])).unwrap();
        assert_eq!(
            body,
            json!({"resourceMetrics": [{
                "resource": said,
                "scopeMetrics": [{"scope": scope, "metrics": [7]}],
            }]})
        );
    }
}
