//! nginx with TLS before a collector that has none, as many hosts run it.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::Signal;

use super::receiver::START;
use crate::process::Running;

/// The name in the certificate.
const HOST: &str = "localhost";

/// An nginx that forwards what it has decrypted.
pub(super) struct Front {
    port: u16,
    authority: PathBuf,
    child: Running,
}

impl Front {
    /// Makes an authority and a certificate, and listens on `port` for the collector at `to`.
    pub(super) fn start(files: &Path, port: u16, to: u16) -> anyhow::Result<Self> {
        let home = files.join("nginx");
        fs::create_dir(&home)?;
        certify(&home).context("cannot make certificates")?;
        let conf = home.join("nginx.conf");
        fs::write(&conf, configuration(&home, port, to))?;
        let mut command = Command::new("nginx");
        command
            .args(["-e", "stderr", "-c"])
            .arg(&conf)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let child = Running::start("nginx", &mut command)?;
        let front = Self {
            port,
            authority: home.join("ca.pem"),
            child,
        };
        let listens = || Ok(TcpStream::connect(("127.0.0.1", port)).is_ok());
        ensure!(START.holds(listens)?, "nginx does not listen");
        Ok(front)
    }

    pub(super) fn url(&self) -> String {
        format!("https://{HOST}:{}", self.port)
    }

    /// The certificate of the authority.
    pub(super) fn authority(&self) -> &Path {
        &self.authority
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // A signal to the master ends its worker too; a failure has no consequence.
        let _gone = self.child.signal(Signal::TERM);
        let _ended = self.child.wait(START);
    }
}

/// Writes ca.pem, cert.pem and key.pem.
fn certify(home: &Path) -> anyhow::Result<()> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let params = CertificateParams::new(vec![HOST.to_owned()])?;
    let certificate = params.signed_by(&key, &authority)?;
    fs::write(home.join("ca.pem"), authority.pem())?;
    fs::write(home.join("cert.pem"), certificate.pem())?;
    fs::write(home.join("key.pem"), key.serialize_pem())?;
    Ok(())
}

/// The limit of a body is 1 MB by default; a request has about that before compression. Before 1.23.4,
/// nginx has TLS 1.3 only if asked.
fn configuration(home: &Path, port: u16, to: u16) -> String {
    let home = home.display();
    format!(
        "daemon off;\nworker_processes 1;\nuser root;\npid {home}/pid;\nerror_log stderr;\n\
         events {{ worker_connections 64; }}\n\
         http {{\n access_log off;\n client_body_temp_path {home}/body;\n proxy_temp_path {home}/proxy;\n \
         fastcgi_temp_path {home}/fastcgi;\n uwsgi_temp_path {home}/uwsgi;\n scgi_temp_path {home}/scgi;\n \
         server {{\n  listen 127.0.0.1:{port} ssl;\n  ssl_certificate {home}/cert.pem;\n  \
         ssl_certificate_key {home}/key.pem;\n  ssl_protocols TLSv1.3;\n  client_max_body_size 16m;\n  \
         location / {{ proxy_pass http://127.0.0.1:{to}; }}\n }}\n}}\n"
    )
}
