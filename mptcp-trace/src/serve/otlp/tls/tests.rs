use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned, crypto::ring::default_provider,
    server::WebPkiClientVerifier,
};

use super::*;
use crate::serve::otlp::{answer::Outcome, export::post, target::Target};

/// A certificate with its key, both in PEM.
struct Pair {
    certificate: String,
    key: String,
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, key()).unwrap())
    }

    fn pair(&self) -> Pair {
        Pair {
            certificate: self.0.pem(),
            key: self.0.key().serialize_pem(),
        }
    }

    fn signs(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = key();
        Pair {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

/// Accepts one connection, reads one request, and answers; returns the URL. With an
/// authority, the client needs a certificate that it signed.
fn collector(pair: &Pair, of_clients: Option<&Authority>) -> String {
    // All that ring has, unlike the client.
    let provider = Arc::new(default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match of_clients {
        None => config.with_no_client_auth(),
        Some(authority) => {
            let roots = named(authority.pair().certificate.as_bytes()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = certificates_of(pair.certificate.as_bytes(), "").unwrap();
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let config = Arc::new(config.with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let session = ServerConnection::new(config).unwrap();
        answer(StreamOwned::new(session, stream));
    });
    format!("https://127.0.0.1:{port}")
}

/// Reads until the request ends, and answers. Errors end the connection.
fn answer(mut stream: impl Read + Write) {
    let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
    while !said.ends_with(b"\r\n\r\nbody") {
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => said.extend_from_slice(&buffer[..count]),
            Ok(_) | Err(_) => return,
        }
    }
    let _client_may_be_gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let _client_may_be_gone = stream.flush();
}

/// Sends one request; returns why it failed, if so.
fn sent(url: &str, pem: Pem<'_>) -> Result<(), String> {
    let mut target = Target::parse(url, [], || Tls::new(pem)).unwrap();
    target.gzip = false;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let posted = post(&target, "/v1/logs", "body".into());
    match tokio::task::LocalSet::new().block_on(&runtime, posted) {
        Outcome::Taken { .. } => Ok(()),
        Outcome::RetryLater { why, .. } => Err(why),
        Outcome::Never { why } => panic!("{why}"),
    }
}

fn check(of: &str, got: &Result<(), String>, want: &str) {
    match got {
        Ok(()) => assert_eq!("", want, "{of} is accepted"),
        Err(why) => assert!(!want.is_empty() && why.contains(want), "{of}: {why}"),
    }
}

#[test]
fn a_collector_must_prove_who_it_is() {
    let authority = Authority::new("a");
    let (another, namesake) = (Authority::new("b"), Authority::new("a"));
    let trusted = authority.pair().certificate;
    let pem = Pem {
        authorities: Some(trusted.as_bytes()),
        ..Pem::default()
    };
    let none = |_: &mut CertificateParams| {};
    let expired = |it: &mut CertificateParams| it.not_after = date_time_ymd(2020, 1, 1);
    let future = |it: &mut CertificateParams| it.not_before = date_time_ymd(3000, 1, 1);
    for (of, pair, want) in [
        ("a good one", authority.signs("127.0.0.1", none), ""),
        (
            "a stranger's",
            another.signs("127.0.0.1", none),
            "no trusted authority has signed its certificate; --otlp-ca FILE",
        ),
        (
            "one of an authority that was made anew",
            namesake.signs("127.0.0.1", none),
            "no trusted authority has signed its certificate",
        ),
        (
            "another host's",
            authority.signs("otel\u{1b}.example", none),
            "not valid for name \"127.0.0.1\"; certificate is only valid for",
        ),
        (
            "an old one",
            authority.signs("127.0.0.1", expired),
            "its certificate: certificate expired",
        ),
        (
            "one of the future",
            authority.signs("127.0.0.1", future),
            "its certificate: certificate not valid yet",
        ),
        (
            "the authority's",
            authority.pair(),
            "its certificate is that of an authority (CA:TRUE)",
        ),
    ] {
        let got = sent(&collector(&pair, None), pem);
        check(of, &got, want);
        assert!(!format!("{got:?}").contains('\u{1b}'), "{got:?}");
    }
}

#[test]
fn a_collector_may_ask_who_the_client_is() {
    let (authority, another) = (Authority::new("a"), Authority::new("b"));
    let trusted = authority.pair().certificate;
    let pair = authority.signs("127.0.0.1", |_| {});
    let (own, strange) = (
        authority.signs("client", |_| {}),
        another.signs("client", |_| {}),
    );
    for (of, client, want) in [
        ("its own client", Some(&own), ""),
        (
            "no certificate",
            None,
            "it requires a certificate of this client: --otlp-client-cert",
        ),
        // The words are those of the library.
        ("a stranger", Some(&strange), "alert"),
    ] {
        let pem = Pem {
            authorities: Some(trusted.as_bytes()),
            client: client.map(|it| (it.certificate.as_bytes(), it.key.as_bytes())),
        };
        check(of, &sent(&collector(&pair, Some(&authority)), pem), want);
    }
}

#[test]
fn a_server_that_speaks_something_else_is_recognised() {
    let authority = Authority::new("a");
    let trusted = authority.pair().certificate;
    let pem = Pem {
        authorities: Some(trusted.as_bytes()),
        ..Pem::default()
    };
    let url = collector(&authority.signs("127.0.0.1", |_| {}), None);
    let got = sent(&url.replace("https", "http"), pem);
    check("https", &got, "is it an https:// URL?");
    for (of, answer, want) in [
        (
            "http",
            &b"HTTP/1.1 400 No\r\n\r\n"[..],
            "is it an http:// URL?",
        ),
        // A fatal alert, the only answer of an old server.
        ("TLS 1.2", &[21, 3, 3, 0, 2, 2, 70], "it has no TLS 1.3"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _count = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(answer).unwrap();
        });
        check(of, &sent(&url, pem), want);
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new("a");
    let (one, other) = (authority.signs("a", |_| {}), authority.signs("b", |_| {}));
    let [certificate, key] = [&one.certificate, &one.key].map(String::as_bytes);
    let broken = one.certificate.replace("-----END", "-----");
    let invalid = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (authorities, client, want) in [
        (&b""[..], None, "--otlp-ca contains no certificate in PEM"),
        (key, None, "--otlp-ca contains no certificate in PEM"),
        (broken.as_bytes(), None, "--otlp-ca is not valid PEM"),
        (
            invalid.as_bytes(),
            None,
            "certificate 1 of --otlp-ca is invalid",
        ),
        (
            certificate,
            Some((key, key)),
            "--otlp-client-cert contains no certificate",
        ),
        (
            certificate,
            Some((certificate, certificate)),
            "--otlp-client-key has no private key",
        ),
        (
            certificate,
            Some((certificate, other.key.as_bytes())),
            "do not fit",
        ),
    ] {
        let pem = Pem {
            authorities: Some(authorities),
            client,
        };
        let said = Tls::new(pem).err().unwrap_or_default();
        assert!(said.contains(want), "{want}: {said}");
    }
}
