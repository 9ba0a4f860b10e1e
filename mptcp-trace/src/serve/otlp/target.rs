//! The collector's URL and headers, validated before anything is attached.

use std::fmt;

use hyper::{
    Uri,
    header::{HeaderMap, HeaderName, HeaderValue},
};

/// Most headers; more indicate a mistake.
const HEADERS_MAX: usize = 32;
/// Default port (RFC 9110, section 4.2.1).
const PORT: u16 = 80;

/// A collector.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
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
        write!(f, "http://{}{}", self.authority, self.prefix)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} with {} headers", self.headers.len())
    }
}

impl Target {
    /// Parses the URL of a collector.
    ///
    /// # Errors
    ///
    /// Returns what is wrong, and what to do.
    pub fn parse<'h>(
        url: &str,
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
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
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(wrong(
                    "https is not supported; use a collector on this host over http and let it \
                     encrypt",
                ));
            }
            Some(_) | None => return Err(wrong("it must start with http://")),
        }
        let Some(authority) = uri.authority().filter(|it| !it.host().is_empty()) else {
            return Err(wrong("it has no host"));
        };
        if authority.as_str().contains('@') {
            return Err(wrong("a URL must not contain a password; use headers"));
        }
        if uri.query().is_some() || url.contains('#') {
            return Err(wrong("/v1/logs is appended, so it must not contain ? or #"));
        }
        let bare = authority.host().trim_start_matches('[');
        Ok(Self {
            host: bare.trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(PORT),
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
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

    #[test]
    fn a_url_is_taken_apart() {
        for (url, host, port, prefix) in [
            ("http://localhost:4318", "localhost", 4318, ""),
            ("http://localhost:4318/", "localhost", 4318, ""),
            ("http://collector/otlp/x/", "collector", 80, "/otlp/x"),
            ("http://[::1]:9", "::1", 9, ""),
            ("HTTP://192.0.2.7:1/a", "192.0.2.7", 1, "/a"),
        ] {
            let target = Target::parse(url, []).unwrap();
            let got = (&*target.host, target.port, &*target.prefix);
            assert_eq!(got, (host, port, prefix), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_sent_to_is_refused_with_the_way_out() {
        for (url, why) in [
            ("https://collector:4318", "https is not supported"),
            ("", "write it like"),
            ("localhost:4318", "must start with http://"),
            ("collector", "must start with http://"),
            ("ftp://x", "must start with http://"),
            ("http://", "write it like"),
            ("http:///v1", "write it like"),
            ("http://u:p@x", "use headers"),
            ("http://x/?a=b", "must not contain ? or #"),
            ("http://a b", "write it like"),
        ] {
            let said = Target::parse(url, []).unwrap_err();
            assert!(said.contains(why), "{url}: {said}");
        }
    }

    #[test]
    fn headers_are_checked_and_their_values_never_shown() {
        let target = Target::parse("http://x", [("X-Key", "secret")]).unwrap();
        assert_eq!(target.headers["x-key"], "secret");
        assert!(!format!("{target:?} {target} {:?}", target.headers).contains("secret"));
        for (name, value) in [
            ("a b", "x"),
            ("", "x"),
            ("a", "x\ny"),
            ("Host", "x"),
            ("content-type", "x"),
        ] {
            let said = Target::parse("http://x", [(name, value)]).unwrap_err();
            assert!(said.contains("cannot be sent"), "{said}");
        }
        for (url, header) in [
            ("http://u:hunter2@x", "a"),
            ("http://u:hunter2@x:y", "a"),
            ("u:hunter2@x", "a"),
            ("http://x", "Bearer hunter2"),
        ] {
            let said = Target::parse(url, [(header, "b")]).unwrap_err();
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
