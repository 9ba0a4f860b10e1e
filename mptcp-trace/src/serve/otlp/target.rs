//! The collector's URL and headers, validated before anything is attached.

use std::fmt;

use hyper::{
    Uri,
    header::{HeaderMap, HeaderName, HeaderValue},
};

use super::tls::Tls;

/// Most headers; more indicate a mistake.
const HEADERS_MAX: usize = 32;
/// Default ports (RFC 9110, section 4.2).
const PORT_HTTP: u16 = 80;
const PORT_HTTPS: u16 = 443;

/// A collector.
#[derive(Clone)]
pub struct Target {
    /// Encryption, if the URL begins with `https`.
    pub tls: Option<Tls>,
    /// Whether requests are compressed.
    pub gzip: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Host and port as in the URL.
    pub authority: String,
    /// Path before `/v1/logs`, without trailing slash.
    pub prefix: String,
    /// Additional headers of each request.
    pub headers: HeaderMap,
}

/// Omits headers, which may be secrets.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} with {} headers", self.headers.len())
    }
}

impl Target {
    /// Parses the URL of a collector. Requests are compressed. `tls` is called for an https URL only.
    ///
    /// # Errors
    ///
    /// Returns what is wrong, and what to do.
    pub fn parse<'h>(
        url: &str,
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
        tls: impl FnOnce() -> Result<Tls, String>,
    ) -> Result<Self, String> {
        // The text before an @ may be a password, even in an invalid URL.
        let shown = match url.rsplit_once('@') {
            Some((_, rest)) => format!("...@{rest}"),
            None => url.to_owned(),
        };
        let wrong = |why: &str| format!("{shown:?} is not a collector URL: {why}");
        let uri: Uri = url
            .parse()
            .map_err(|_no_uri| wrong("write it like http://localhost:4318"))?;
        let is_encrypted = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => return Err(wrong("it must start with http:// or https://")),
        };
        let Some(authority) = uri.authority().filter(|it| !it.host().is_empty()) else {
            return Err(wrong("it has no host"));
        };
        if authority.as_str().contains('@') {
            return Err(wrong("a URL must not contain a password; use headers"));
        }
        if uri.query().is_some() || url.contains('#') {
            return Err(wrong("/v1/logs is appended, so it must not contain ? or #"));
        }
        // To the parser, a port that is too large is none.
        let has_port = authority.as_str() != authority.host();
        if has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(wrong("its port must be a number from 1 to 65535"));
        }
        let prefix = uri.path().trim_end_matches('/');
        if let Some(base) = ["/v1/logs", "/v1/metrics"]
            .iter()
            .find_map(|signal| prefix.strip_suffix(signal))
        {
            let base = format!("{authority}{base}");
            let scheme = uri.scheme_str().unwrap_or_default();
            return Err(wrong(&format!(
                "/v1/logs and /v1/metrics are appended: write {scheme}://{base}"
            )));
        }
        let bare = authority.host().trim_start_matches('[');
        Ok(Self {
            tls: is_encrypted.then(tls).transpose()?,
            gzip: true,
            host: bare.trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(match is_encrypted {
                true => PORT_HTTPS,
                false => PORT_HTTP,
            }),
            authority: authority.as_str().to_owned(),
            prefix: prefix.to_owned(),
            headers: read_headers(headers)?,
        })
    }
}

fn read_headers<'h>(
    headers: impl IntoIterator<Item = (&'h str, &'h str)>,
) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (number, (name, value)) in (1..).zip(headers) {
        // Neither name nor value is printed: with a typo, either may contain a secret.
        let wrong = |what| format!("header {number} cannot be sent: {what}");
        let key: HeaderName = name.parse().map_err(|_| wrong("invalid name"))?;
        if [
            "host",
            "content-type",
            "content-length",
            "content-encoding",
            "connection",
            "transfer-encoding",
        ]
        .contains(&key.as_str())
        {
            return Err(wrong("the request sets it itself"));
        }
        let mut value: HeaderValue = value
            .parse()
            .map_err(|_| wrong("its value is not printable"))?;
        value.set_sensitive(true);
        map.insert(key, value);
        if map.len() > HEADERS_MAX {
            return Err(format!("more than {HEADERS_MAX} headers"));
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if it is needed.
    fn no_tls() -> Result<Tls, String> {
        Err("no TLS here".into())
    }

    #[test]
    fn a_url_is_taken_apart() {
        for (url, host, port, prefix) in [
            ("http://localhost:4318", "localhost", 4318, ""),
            ("http://localhost:4318/", "localhost", 4318, ""),
            ("http://collector/otlp/x/", "collector", 80, "/otlp/x"),
            ("http://[::1]:9", "::1", 9, ""),
            ("HTTP://192.0.2.7:1/a", "192.0.2.7", 1, "/a"),
        ] {
            let target = Target::parse(url, [], no_tls).unwrap();
            let got = (&*target.host, target.port, &*target.prefix);
            assert_eq!(got, (host, port, prefix), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_sent_to_is_refused_with_the_way_out() {
        for (url, why) in [
            ("https://collector:4318", "no TLS here"),
            ("", "write it like"),
            ("localhost:4318", "must start with http:// or https://"),
            ("collector", "must start with http:// or https://"),
            ("ftp://x", "must start with http:// or https://"),
            ("http://", "write it like"),
            ("http:///v1", "write it like"),
            ("http://u:p@x", "use headers"),
            ("http://x/?a=b", "must not contain ? or #"),
            ("http://a b", "write it like"),
            // These went to port 80.
            ("http://x:99999", "from 1 to 65535"),
            ("http://[::1]:65536", "from 1 to 65535"),
            ("http://x:0", "from 1 to 65535"),
            ("http://x:", "from 1 to 65535"),
            ("http://x:4318/v1/logs", "write http://x:4318\n"),
            ("http://x/otlp/v1/metrics/", "write http://x/otlp\n"),
        ] {
            let said = Target::parse(url, [], no_tls).unwrap_err() + "\n";
            assert!(said.contains(why), "{url}: {said}");
        }
    }

    #[test]
    fn headers_are_checked_and_their_values_never_shown() {
        let target = Target::parse("http://x", [("X-Key", "secret")], no_tls).unwrap();
        assert_eq!(target.headers["x-key"], "secret");
        assert!(!format!("{target:?} {target} {:?}", target.headers).contains("secret"));
        for (name, value) in [
            ("a b", "x"),
            ("", "x"),
            ("a", "x\ny"),
            ("Host", "x"),
            ("content-type", "x"),
            ("content-encoding", "x"),
        ] {
            let said = Target::parse("http://x", [(name, value)], no_tls).unwrap_err();
            assert!(said.contains("cannot be sent"), "{said}");
        }
        for (url, header) in [
            ("http://u:hunter2@x", "a"),
            ("http://u:hunter2@x:y", "a"),
            ("u:hunter2@x", "a"),
            ("http://x", "Bearer hunter2"),
        ] {
            let said = Target::parse(url, [(header, "b")], no_tls).unwrap_err();
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
