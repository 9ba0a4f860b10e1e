//! The collector of `serve`, from options and settings.

use std::path::Path;

use anyhow::{Context as _, ensure};

use super::{Config, read};
use crate::{
    cli::args::{Encoding, ServeArgs},
    serve::otlp::{
        target::Target,
        tls::{Pem, Tls},
    },
};

/// Largest file with certificates: that of Debian has 220 kB.
const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;

impl Config {
    /// Collector for findings and counters, if any. `again`: the loop is running and must not block
    /// on a file.
    pub(super) fn target(&self, args: &ServeArgs, again: bool) -> anyhow::Result<Option<Target>> {
        let typed = &args.collector;
        let Some(url) = self.otlp.as_ref().or(typed.otlp.as_ref()) else {
            return Ok(None);
        };
        // Not validated by clap, whose error would print the value: it may be a secret.
        let headers = (1..).zip(&typed.otlp_header).map(|(number, header)| {
            let parts = header.split_once('=');
            let (name, value) = parts.with_context(|| {
                format!("--otlp-header, number {number}: write it like x-tenant=lab")
            })?;
            Ok((name.trim(), value))
        });
        let headers = headers.collect::<anyhow::Result<Vec<_>>>()?;
        let more = self
            .otlp_headers
            .iter()
            .map(|(name, value)| (&**name, &**value));
        let ca = self.otlp_ca.as_ref().or(typed.otlp_ca.as_ref());
        let certificate = self.otlp_client_cert.as_ref();
        let certificate = certificate.or(typed.otlp_client_cert.as_ref());
        let key = self.otlp_client_key.as_ref();
        let key = key.or(typed.otlp_client_key.as_ref());
        ensure!(
            certificate.is_some() == key.is_some(),
            "otlp-client-cert and otlp-client-key need each other"
        );
        let ca = ca.map(|path| pem("--otlp-ca", path, again)).transpose()?;
        let client = certificate.zip(key).map(|(certificate, key)| {
            anyhow::Ok((
                pem("--otlp-client-cert", certificate, again)?,
                pem("--otlp-client-key", key, again)?,
            ))
        });
        let client = client.transpose()?;
        let pem = Pem {
            authorities: ca.as_deref(),
            client: client.as_ref().map(|(chain, key)| (&**chain, &**key)),
        };
        // Of headers with the same name the last one is sent.
        let target = Target::parse(url, headers.into_iter().chain(more), || Tls::new(pem));
        let mut target = target.map_err(anyhow::Error::msg)?;
        ensure!(
            target.tls.is_some() || (ca.is_none() && client.is_none()),
            "certificates are for a collector with an https:// URL, and {target} has none"
        );
        target.gzip = match self.otlp_compression.or(typed.otlp_compression) {
            Some(Encoding::Gzip) | None => true,
            Some(Encoding::None) => false,
        };
        Ok(Some(target))
    }
}

fn pem(option: &str, path: &Path, again: bool) -> anyhow::Result<Vec<u8>> {
    read(path, PEM_BYTES_MAX, again)
        .with_context(|| format!("cannot read {option} {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser as _;

    use super::{super::understand, *};
    use crate::cli::{Cli, Verb};

    fn target(typed: &[&str], text: &str) -> anyhow::Result<Option<Target>> {
        let line = [&["mptcp-trace", "serve"], typed].concat();
        let Some(Verb::Serve(args)) = Cli::parse_from(line).verb else {
            unreachable!()
        };
        understand(text).unwrap().target(&args, false)
    }

    #[test]
    fn certificates_belong_to_an_encrypted_connection() {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::generate_simple_self_signed(vec!["otel".to_owned()]).unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let ca = write("ca.pem", &key.cert.pem());
        let key = write("key.pem", &key.signing_key.serialize_pem());
        let of = |url: &str, more: &str| format!("otlp = '{url}'\notlp-ca = '{ca}'\n{more}");
        for (typed, text, want) in [
            (&[][..], of("https://otel", ""), "https://otel"),
            (
                &["--otlp-ca", "/absent"],
                of("https://otel", ""),
                "https://otel",
            ),
            (
                &[],
                of("http://otel", ""),
                "for a collector with an https:// URL",
            ),
            (
                &[],
                of("https://otel", &format!("otlp-client-cert = '{ca}'")),
                "need each other",
            ),
            (
                &[],
                of(
                    "https://otel",
                    &format!("otlp-client-cert = '{ca}'\notlp-client-key = '{key}'"),
                ),
                "https://otel",
            ),
            (
                &["--otlp", "https://otel", "--otlp-ca", "/absent"],
                String::new(),
                "cannot read --otlp-ca /absent",
            ),
            (
                &["--otlp", "https://otel", "--otlp-ca", &key],
                String::new(),
                "--otlp-ca contains no certificate",
            ),
            (&["--otlp", "http://otel"], String::new(), "http://otel"),
        ] {
            let got = match target(typed, &text) {
                Ok(target) => target.unwrap().to_string(),
                Err(why) => format!("{why:#}"),
            };
            assert!(got.contains(want), "{typed:?} {text}: {got}");
        }
    }

    #[test]
    fn requests_are_compressed_unless_told_otherwise() {
        const URL: &str = "otlp = 'http://otel'";
        for (typed, more, is_compressed) in [
            (&[][..], "", true),
            (&["--otlp-compression", "none"], "", false),
            (
                &["--otlp-compression", "none"],
                "otlp-compression = 'gzip'",
                true,
            ),
            (&[], "otlp-compression = 'none'", false),
        ] {
            let target = target(typed, &format!("{URL}\n{more}")).unwrap().unwrap();
            assert_eq!(target.gzip, is_compressed, "{typed:?} {more}");
        }
    }
}
