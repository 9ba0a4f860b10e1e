//! Findings as logs and counters as metrics, sent to an OpenTelemetry collector over OTLP/HTTP in
//! JSON, compressed and, if asked, encrypted.
//!
//! The messages are written by hand, field by field according to the protocol's schema: the
//! OpenTelemetry crates would add a second HTTP client, gRPC and protobuf, and double the size of
//! the program for two requests. `mptcp-lab exported` validates every byte with the official
//! schema.
//!
//! Other ways to authenticate than certificates and headers, and fan-out, are the task of a
//! collector on the same host. The tracing loop never waits: it puts records into a bounded [`queue::Queue`], which
//! counts those it drops.

pub mod answer;
pub mod complaints;
pub mod export;
pub mod metrics;
pub mod queue;
pub mod record;
pub mod target;
pub mod tls;

use serde_json::{Value, json};

/// Name of the service and of the instrumentation scope.
const SERVICE: &str = "mptcp-trace";

/// The resource: the host, its kernel and this program.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Host name.
    pub host: String,
    /// `uname -r`.
    pub kernel: String,
    /// Version of this program.
    pub version: String,
}

impl Resource {
    /// Serialises the resource.
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

    /// A request with these records, which are JSON already.
    #[must_use]
    pub fn logs_request(&self, records: &[&str]) -> String {
        format!(
            r#"{{"resourceLogs":[{{"resource":{},"scopeLogs":[{{"scope":{},"logRecords":[{}]}}]}}]}}"#,
            self.resource(),
            self.scope(),
            records.join(",")
        )
    }

    /// A request with these metrics.
    #[must_use]
    pub fn metrics_request(&self, metrics: &[Value]) -> String {
        json!({"resourceMetrics": [{
            "resource": self.resource(),
            "scopeMetrics": [{"scope": self.scope(), "metrics": metrics}],
        }]})
        .to_string()
    }
}

/// A string attribute. Control characters are escaped, since collectors print attributes unchanged.
fn string(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": crate::sink::escape(value)}})
}

/// A number attribute: 64-bit numbers are strings, since JSON has no such numbers.
fn int(key: &str, value: impl Into<u64>) -> Value {
    // The protocol has only signed numbers.
    let value = i64::try_from(value.into()).unwrap_or(i64::MAX);
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

/// A boolean attribute.
fn boolean(key: &str, value: bool) -> Value {
    json!({"key": key, "value": {"boolValue": value}})
}

/// Nanoseconds since the epoch, as the protocol encodes them; 0 (unknown) for earlier times.
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
