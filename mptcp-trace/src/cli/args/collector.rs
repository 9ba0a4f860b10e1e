//! Options of `serve` for an OpenTelemetry collector.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::values::parse_duration;

/// Where to send findings and counters, and how. `--config` overrides each of them but the interval.
#[derive(Args, Debug)]
pub struct CollectorArgs {
    /// Also send findings (as logs) and counters (as metrics) to the OpenTelemetry collector at URL
    ///
    /// The protocol is OTLP/HTTP with JSON; URL begins with http:// or https://. Without --otlp-ca,
    /// an authority of this system must have signed the collector's certificate: those in
    /// /etc/ssl/certs, or those that the environment variables `SSL_CERT_FILE` and `SSL_CERT_DIR`
    /// name.
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,
    /// Trust a collector's certificate if an authority in FILE (PEM) signed it, and no others
    #[arg(long, value_name = "FILE")]
    pub otlp_ca: Option<PathBuf>,
    /// Show the collector this certificate (PEM), followed by those between it and its authority
    #[arg(long, value_name = "FILE", requires = "otlp_client_key")]
    pub otlp_client_cert: Option<PathBuf>,
    /// Key of --otlp-client-cert (PEM, without password)
    #[arg(long, value_name = "FILE", requires = "otlp_client_cert")]
    pub otlp_client_key: Option<PathBuf>,
    /// Compression of requests; default: gzip, or `otlp-compression` of --config
    #[arg(long, value_name = "HOW", value_enum)]
    pub otlp_compression: Option<Encoding>,
    /// Send this HTTP header to the collector (repeatable)
    ///
    /// Command lines are visible to other users: put secrets into --config instead.
    #[arg(long, value_name = "NAME=VALUE")]
    pub otlp_header: Vec<String>,
    /// Interval between metric exports to the collector, e.g. 15s
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "15s")]
    pub otlp_interval: Duration,
}

/// Choices of `--otlp-compression`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// About a tenth of the bytes
    Gzip,
    /// Saves processor time if the collector is on this host
    None,
}
