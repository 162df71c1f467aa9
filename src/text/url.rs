//! URLs that are parsed once and displayed without secrets.

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;

/// An absolute `http` or `https` URL with a host. `Display` and `Debug` omit user, password and
/// query. [`Self::as_str`] returns the complete URL.
#[derive(Clone, Eq, PartialEq)]
pub struct Url {
    text: String,
    uri: Uri,
}

impl Url {
    /// Parses `http://host:port/path?query`. Returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        (is_http && uri.host().is_some_and(|host| !host.is_empty())).then(|| Self { text: text.to_owned(), uri })
    }

    /// Returns the parsed URL, including secrets.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Returns the complete URL, including secrets.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the URL without user, password, query and fragment.
    pub fn redacted(&self) -> String {
        redacted(&self.text)
    }

    /// Returns true for `https`.
    pub fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Returns the host in lower case, without the brackets of an IPv6 address.
    pub fn host(&self) -> String {
        let host = self.uri.host().unwrap_or_default().to_ascii_lowercase();
        host.trim_matches(['[', ']']).to_owned()
    }

    /// Returns the port if the URL contains one.
    pub fn explicit_port(&self) -> Option<u16> {
        self.uri.port_u16()
    }

    /// Returns the port, or the default port of the scheme.
    pub fn port(&self) -> u16 {
        self.explicit_port().unwrap_or_else(|| if self.is_https() { 443 } else { 80 })
    }

    /// Returns the value of the `host` header, without the default port of the scheme.
    pub fn host_header(&self) -> String {
        let authority = self.authority();
        let host = authority.rsplit('@').next().unwrap_or(authority);
        host.strip_suffix(if self.is_https() { ":443" } else { ":80" }).unwrap_or(host).to_owned()
    }

    /// Returns the part between `://` and the path: user, password, host and port.
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// Returns the path, which begins with `/`.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// Returns the text after the question mark.
    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// Returns scheme, host and port, as a browser sends them in `Origin`.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.is_https() { "https" } else { "http" }, self.host_header())
    }

    /// Returns true if the host is `localhost`, ends with `.localhost`, or is a loopback address.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host())
    }

    /// Appends `path`, which must begin with `/`. Returns `None` if the URL has a query or a
    /// fragment.
    pub fn join(&self, path: &str) -> Option<Self> {
        if self.text.contains(['?', '#']) {
            return None;
        }
        Self::parse(&format!("{}{path}", self.text.trim_end_matches('/')))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

/// Splits `host:port` into the host, without the brackets of an IPv6 address, and the port. Returns
/// `None` if the port is not a number, or has a sign.
pub fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port = port.parse().ok().filter(|_| !port.starts_with('+'))?;
            (host, Some(port))
        }
        _ => (authority, None),
    };
    Some((host.trim_matches(['[', ']']), port))
}

/// Returns true for text that can be a DNS name or the name of a container.
pub fn is_host_name(text: &str) -> bool {
    const MAX_NAME: usize = 253;
    let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_of_a_name)
}

/// Returns true if the host, in lower case and without brackets, is this machine.
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Removes user, password, query and fragment. `text` need not be a valid URL: any text before an @
/// may be a password.
pub fn redacted(text: &str) -> String {
    let (text, _) = text.split_once(['?', '#']).unwrap_or((text, ""));
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let rest = rest.rsplit('@').next().unwrap_or(rest);
    if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_has_no_secret_in_it() {
        for (url, shown) in [
            ("https://me:secret@host:1/v1/traces?sig=abc#x", "https://host:1/v1/traces"),
            ("http://host", "http://host"),
            ("nonsense?x", "nonsense"),
            ("user:secret@host:4318", "host:4318"),
            ("http:/user:secret@x", "x"),
        ] {
            assert_eq!(redacted(url), shown);
        }
        let url = Url::parse("https://me:secret@host:1/v1/traces?sig=abc").unwrap();
        assert_eq!(format!("{url} {url:?}"), "https://host:1/v1/traces Url(https://host:1/v1/traces)");
    }

    #[test]
    fn only_this_machine_is_this_machine() {
        for url in ["http://localhost:1/x", "http://127.1.2.3", "https://[::1]:4318", "http://a.localhost"] {
            assert!(Url::parse(url).unwrap().is_loopback(), "{url}");
        }
        for url in ["http://localhost.test", "http://10.0.0.1", "http://collector:4318"] {
            assert!(!Url::parse(url).unwrap().is_loopback(), "{url}");
        }
    }

    #[test]
    fn what_is_no_http_url_is_none() {
        for text in ["nonsense", "localhost:4318", "ftp://host", "http://", "http:///path", "/path", ""] {
            assert!(Url::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_host_header_names_the_port_only_where_it_is_not_the_usual_one() {
        for (url, header, port) in [
            ("https://user:pw@api.test:443/x", "api.test", 443),
            ("http://api.test:443", "api.test:443", 443),
            ("http://[::1]:80/", "[::1]", 80),
            ("https://api.test", "api.test", 443),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!((url.host_header().as_str(), url.port()), (header, port));
        }
    }

    #[test]
    fn a_path_is_joined_with_one_slash_and_never_behind_a_query() {
        let joined = |url: &str| Url::parse(url).unwrap().join("/v1/traces").map(|url| url.as_str().to_owned());
        assert_eq!(joined("http://a:1").as_deref(), Some("http://a:1/v1/traces"));
        assert_eq!(joined("http://a/b/").as_deref(), Some("http://a/b/v1/traces"));
        assert_eq!(joined("http://a/?key=x"), None);
    }
}
