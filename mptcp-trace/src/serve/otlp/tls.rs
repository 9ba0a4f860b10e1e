//! Encrypted connections to a collector: which certificates are trusted, and why one is not, in
//! words.

mod provider;

use std::{error::Error as _, io, sync::Arc};

use anyhow::Context as _;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, InvalidMessage, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::sink::escape;

/// Files in PEM, as read.
#[derive(Clone, Copy, Default)]
pub struct Pem<'a> {
    /// Authorities that may sign the collector's certificate; `None`: those of the system.
    pub authorities: Option<&'a [u8]>,
    /// The certificate, with those between it and its authority, and the key by which the collector
    /// recognises this client.
    pub client: Option<(&'a [u8], &'a [u8])>,
}

/// Settings of encrypted connections. A copy shares its tickets, so later handshakes are short.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Reads the system's authorities, if no others are given.
    ///
    /// # Errors
    ///
    /// Returns which of the files is wrong, and what to do.
    pub fn new(pem: Pem<'_>) -> Result<Self, String> {
        let roots = match pem.authorities {
            Some(text) => named(text)?,
            None => of_system()?,
        };
        let config = ClientConfig::builder_with_provider(Arc::new(provider::provider()))
            .with_safe_default_protocol_versions()
            .map_err(|why| format!("cannot encrypt: {why}"))?
            .with_root_certificates(roots);
        let mut config = match pem.client {
            None => config.with_no_client_auth(),
            Some((certificates, key)) => {
                let chain = certificates_of(certificates, "--otlp-client-cert")?;
                // The parser's message is not quoted, since it may contain a part of the key.
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|_why| {
                    "--otlp-client-key has no private key (-----BEGIN PRIVATE KEY-----), or one \
                     with a password"
                })?;
                config.with_client_auth_cert(chain, key).map_err(|why| {
                    format!("--otlp-client-cert and --otlp-client-key do not fit: {why}")
                })?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Encrypts a connection, once the collector has proved that it is `host`.
    ///
    /// # Errors
    ///
    /// Fails if it cannot prove that, and if the connection fails.
    pub async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .with_context(|| format!("{host:?} is not a name that a certificate can have"))?;
        let connector = TlsConnector::from(Arc::clone(&self.0));
        Ok(connector.connect(name, stream).await?)
    }
}

fn certificates_of(text: &[u8], of: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(format!(
            "{of} contains no certificate in PEM (-----BEGIN CERTIFICATE-----)"
        )),
        Err(why) => Err(format!(
            "{of} is not valid PEM: {}",
            escape(&why.to_string())
        )),
    }
}

/// All certificates of the file must be usable: a user has named it.
fn named(text: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (number, certificate) in (1..).zip(certificates_of(text, "--otlp-ca")?) {
        roots
            .add(certificate)
            .map_err(|why| format!("certificate {number} of --otlp-ca is invalid: {why}"))?;
    }
    Ok(roots)
}

/// Certificates of the system that cannot be used are ignored, as other programs do.
fn of_system() -> Result<RootCertStore, String> {
    let read = rustls_native_certs::load_native_certs();
    for why in &read.errors {
        log::debug!("authorities of this system: {why}");
    }
    let mut roots = RootCertStore::empty();
    let (usable, unusable) = roots.add_parsable_certificates(read.certs);
    log::debug!("authorities of this system: {usable} certificates, {unusable} unusable");
    if roots.is_empty() {
        return Err(
            "https needs certificates of authorities, and this system has none in /etc/ssl/certs: \
             install the package ca-certificates, or name a file with --otlp-ca"
                .to_owned(),
        );
    }
    Ok(roots)
}

/// Why a request failed, with the way out where one is known. Text of the collector is escaped.
#[must_use]
pub fn explained(why: &anyhow::Error) -> String {
    let known = why.chain().find_map(|cause| {
        if let Some(cause) = cause.downcast_ref::<hyper::Error>() {
            return cause
                .is_parse()
                .then(|| "it does not respond in HTTP; is it an https:// URL?".to_owned());
        }
        // An I/O error hides the error that it contains from the chain.
        let cause = cause.downcast_ref::<io::Error>()?;
        in_words(cause.get_ref()?.downcast_ref()?)
    });
    known.unwrap_or_else(|| escape(&format!("{why:#}")))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library may add errors; it has words for each"
)]
fn in_words(why: &rustls::Error) -> Option<String> {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage as Invalid};
    let words = match why {
        InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "no trusted authority has signed its certificate; --otlp-ca FILE names another authority"
        }
        InvalidCertificate(CertificateError::Other(other)) if is_authority(other) => {
            "its certificate is that of an authority (CA:TRUE), which may not be used by a server; \
             sign one for the server (CA:FALSE) with it"
        }
        AlertReceived(AlertDescription::CertificateRequired) => {
            "it requires a certificate of this client: --otlp-client-cert and --otlp-client-key"
        }
        AlertReceived(AlertDescription::ProtocolVersion) => {
            "it has no TLS 1.3, and this program has no other version"
        }
        Invalid(InvalidMessage::InvalidContentType) => {
            "it does not respond in TLS; is it an http:// URL?"
        }
        InvalidCertificate(why) => {
            return Some(format!("its certificate: {}", escape(&why.to_string())));
        }
        _other => return None,
    };
    Some(words.to_owned())
}

/// The library has no public name for this error.
fn is_authority(why: &rustls::OtherError) -> bool {
    why.source()
        .is_some_and(|why| why.to_string() == "CaUsedAsEndEntity")
}

#[cfg(test)]
mod tests;
