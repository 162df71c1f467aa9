//! The head of a request, checked before it is used. tiny_http accepts heads that other servers
//! refuse, and request smuggling needs two servers that read one head differently.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use tiny_http::Request;

use super::response::Failure;
use crate::text::url::split_port;
use crate::trace::context::TraceHeaders;

/// The parts of a request's head that the program uses.
#[derive(Default)]
pub struct Head<'r> {
    /// Name of the method.
    pub method: &'r str,
    /// Path as received, percent-encoded.
    pub path: &'r str,
    /// Text after the question mark, as received.
    pub query: Option<&'r str>,
    /// HTTP version: `1.1`, or `1.0`.
    pub version: &'static str,
    /// Address of the other end of the connection.
    pub peer: Option<SocketAddr>,
    /// `Host`.
    pub host: Option<&'r str>,
    /// True if there is a header that only proxies add.
    pub is_forwarded: bool,
    /// Host that the client sent to the first proxy.
    pub forwarded_host: Option<&'r str>,
    /// Client of the first proxy, if it is an address.
    pub forwarded_for: Option<IpAddr>,
    /// True if the client called the first proxy by https.
    pub forwarded_https: bool,
    /// `Origin`: the page that makes this request.
    pub origin: Option<&'r str>,
    /// `Sec-Fetch-Site: cross-site`: a page of another site makes this request.
    pub is_cross_site: bool,
    /// `User-Agent`.
    pub user_agent: Option<&'r str>,
    /// `Content-Type`.
    pub content_type: Option<&'r str>,
    /// `Content-Encoding`.
    pub content_encoding: Option<&'r str>,
    /// True if there is a `Content-Length`.
    pub has_length: bool,
    /// True if there is a `Transfer-Encoding`.
    pub is_chunked: bool,
    /// Every `Via`: the gateways that the request passed.
    pub via: Vec<&'r str>,
    /// Headers of the trace context.
    pub trace: TraceHeaders<'r>,
    /// Reason to reject the request: the first problem that was found.
    pub problem: Option<Failure>,
}

/// Maximum size of a head. The 8192 bytes of `baggage` that have to be propagated fit in.
const MAX_BYTES: usize = 16 * 1024;
/// Maximum number of headers.
const MAX_HEADERS: usize = 64;
/// Length of the longest header name that is read.
const MAX_NAME: usize = "x-forwarded-proto".len();
/// Keys of the query whose values are secrets, by OpenTelemetry's list.
const SECRET_QUERY_KEYS: [&str; 7] = [
    "AWSAccessKeyId",
    "Signature",
    "sig",
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "X-Goog-Signature",
];

impl<'r> Head<'r> {
    /// Reads and checks the head of `request`.
    pub fn read(request: &'r Request) -> Self {
        let target = request.url();
        let (authority, relative) = match split_authority(target) {
            Some((authority, relative)) => (Some(authority), relative),
            None => (None, target),
        };
        let (path, query) = match relative.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (relative, None),
        };
        let path = if path.is_empty() && authority.is_some() { "/" } else { path };
        let mut head = Self {
            method: request.method().as_str(),
            path,
            query,
            version: if *request.http_version() == (1, 0) { "1.0" } else { "1.1" },
            peer: request.remote_addr().copied(),
            ..Self::default()
        };
        let mut size = target.len();
        for header in request.headers() {
            let (name, value) = (header.field.as_str().as_str(), header.value.as_str());
            size += name.len() + value.len() + 4;
            head.read_header(name, value.trim());
        }
        if size > MAX_BYTES || request.headers().len() > MAX_HEADERS {
            let message =
                format!("request headers too large; at most {MAX_BYTES} bytes and {MAX_HEADERS} headers are accepted");
            head.problem = Some(Failure::rejected(431, message));
        } else if !path.starts_with('/') {
            head.refuse("invalid request target: it must be a path that begins with /");
        } else if authority.is_some_and(|authority| authority.is_empty() || authority.contains('@')) {
            head.refuse("invalid request target: after http:// it must have a host, without user and password");
        } else if target.bytes().any(|byte| byte.is_ascii_control()) {
            head.refuse("invalid request target: it contains control characters");
        } else if head.host.is_none() && head.version == "1.1" {
            head.refuse("the Host header is missing");
        }
        // A refused one may hold a password.
        if let Some(authority) = authority.filter(|authority| !authority.contains('@')) {
            head.host = Some(authority);
        }
        head
    }

    /// The scheme that the client used, as far as a proxy tells.
    pub fn scheme(&self) -> &'static str {
        if self.forwarded_https { "https" } else { "http" }
    }

    /// Host name and port that the client asked for.
    pub fn server(&self) -> Option<(&'r str, u16)> {
        let authority = self.forwarded_host.or(self.host)?;
        let default = if self.forwarded_https { 443 } else { 80 };
        let (name, port) = split_port(authority)?;
        Some((name, port.unwrap_or(default)))
    }

    /// True if the request comes from this machine, through no proxy, and names this machine as its
    /// host. A foreign page whose name resolves to this machine (DNS rebinding) names another host.
    /// HTTP/1.0 does not count as local: it is nginx's default for upstream servers, and nginx adds
    /// no header that would show the proxy.
    pub fn is_local(&self) -> bool {
        let from_here = self.peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback());
        let name = self.server().map_or("", |(name, _)| name);
        let asks_for_us = name.eq_ignore_ascii_case("localhost")
            || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
        from_here && !self.is_forwarded && self.via.is_empty() && self.version == "1.1" && asks_for_us
    }

    /// The query, with the values of signatures and keys redacted.
    pub fn redacted_query(&self) -> Option<Cow<'r, str>> {
        let query = self.query?;
        let is_secret = |key: &str| SECRET_QUERY_KEYS.contains(&key);
        let redacted = |pair: &'r str| match pair.split_once('=') {
            Some((key, _)) if is_secret(key) => Cow::Owned(format!("{key}=REDACTED")),
            _ => Cow::Borrowed(pair),
        };
        let pairs: Vec<_> = query.split('&').map(redacted).collect();
        let has_secret = pairs.iter().any(|pair| matches!(pair, Cow::Owned(_)));
        Some(if has_secret { Cow::Owned(pairs.join("&")) } else { Cow::Borrowed(query) })
    }

    fn read_header(&mut self, name: &str, value: &'r str) {
        let mut lower_case = [0; MAX_NAME];
        let Some(lower_case) = lower_case.get_mut(..name.len()) else { return };
        lower_case.copy_from_slice(name.as_bytes());
        lower_case.make_ascii_lowercase();
        match &*lower_case {
            b"host" => self.read_host(value),
            b"content-length" => self.read_content_length(value),
            b"content-type" => self.content_type = Some(value),
            b"content-encoding" => self.content_encoding = Some(value),
            b"transfer-encoding" => self.is_chunked = true,
            b"origin" => self.origin = Some(value),
            b"sec-fetch-site" => self.is_cross_site |= value.eq_ignore_ascii_case("cross-site"),
            b"user-agent" => self.user_agent = Some(value),
            b"via" => self.via.push(value),
            b"traceparent" => self.trace.traceparent.push(value),
            b"tracestate" => self.trace.tracestate.push(value),
            b"baggage" => self.trace.baggage.push(value),
            b"x-amzn-trace-id" => {
                self.trace.x_amzn_trace_id.get_or_insert(value);
            }
            b"forwarded" => self.read_forwarded(value),
            // The value is not used, but only proxies send it.
            b"x-real-ip" => self.is_forwarded = true,
            b"x-forwarded-for" => {
                self.is_forwarded = true;
                self.forwarded_for = self.forwarded_for.or_else(|| parse_address(first(value)));
            }
            b"x-forwarded-host" => {
                self.is_forwarded = true;
                self.forwarded_host =
                    self.forwarded_host.or_else(|| Some(first(value)).filter(|host| !host.is_empty()));
            }
            b"x-forwarded-proto" => {
                self.is_forwarded = true;
                self.forwarded_https |= first(value).eq_ignore_ascii_case("https");
            }
            _ => {}
        }
    }

    fn read_host(&mut self, value: &'r str) {
        if value.is_empty() {
            self.refuse("the Host header is empty");
        } else if self.host.is_some() {
            self.refuse("there is more than one Host header");
        } else {
            self.host = Some(value);
        }
    }

    fn read_content_length(&mut self, value: &str) {
        if self.has_length {
            self.refuse("there is more than one Content-Length header");
        } else if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
            self.refuse("Content-Length must be digits only");
        } else if value.parse::<usize>().is_err() {
            self.refuse("Content-Length is too large");
        }
        self.has_length = true;
    }

    /// Reads `Forwarded: for=192.0.2.60;proto=https;host=example.com, for=...`. It takes precedence
    /// over the `X-Forwarded-` headers.
    fn read_forwarded(&mut self, value: &'r str) {
        self.is_forwarded = true;
        for pair in first(value).split(';') {
            let Some((key, value)) = pair.split_once('=') else { continue };
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "for" => self.forwarded_for = parse_address(value).or(self.forwarded_for),
                "host" if !value.is_empty() => self.forwarded_host = Some(value),
                "proto" => self.forwarded_https |= value.eq_ignore_ascii_case("https"),
                _ => {}
            }
        }
    }

    /// Records a problem, unless there is one already.
    fn refuse(&mut self, message: &str) {
        self.problem.get_or_insert_with(|| Failure::rejected(400, message));
    }
}

/// Splits a target in absolute form, `http://host/path`, into its host and the rest. Proxies are
/// sent this form, and every server has to accept it. Its host replaces the `Host` header.
///
/// Specification: <https://www.rfc-editor.org/rfc/rfc9112.html#section-3.2.2>.
fn split_authority(target: &str) -> Option<(&str, &str)> {
    if target.starts_with('/') {
        return None;
    }
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })?;
    Some(rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())))
}

/// The first element of a list: the one that the proxy nearest to the client wrote.
fn first(list: &str) -> &str {
    list.split(',').next().unwrap_or(list).trim()
}

/// Parses an address with or without brackets, quotes and a port. Clients may send any text here.
fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    let bare = || text.trim_matches(['[', ']']).parse().ok();
    text.parse::<SocketAddr>().map(|with_port| with_port.ip()).ok().or_else(bare)
}

#[cfg(test)]
mod tests {
    use tiny_http::TestRequest;

    use super::*;

    fn with_head<T>(headers: &[(&str, &str)], look: impl Fn(&Head<'_>) -> T) -> T {
        let mut request = TestRequest::new().with_path("/x?a=1&sig=secret&X-Amz-Signature=s");
        for (name, value) in headers {
            request = request.with_header(tiny_http::Header::from_bytes(*name, *value).unwrap());
        }
        look(&Head::read(&request.into()))
    }

    #[test]
    fn what_a_proxy_says_about_its_client_is_taken_from_the_first_of_them() {
        for (headers, client, server, scheme) in [
            (&[("Host", "a:1")][..], None, Some(("a", 1)), "http"),
            (&[("Host", "a")], None, Some(("a", 80)), "http"),
            (&[("Host", "[::1]:8080")], None, Some(("::1", 8080)), "http"),
            (
                &[("Host", "a"), ("X-Forwarded-For", "203.0.113.7, 10.0.0.1")],
                Some("203.0.113.7"),
                Some(("a", 80)),
                "http",
            ),
            (&[("Host", "a"), ("X-Forwarded-For", "1.2.3.4:5678")], Some("1.2.3.4"), Some(("a", 80)), "http"),
            (&[("Host", "a"), ("X-Forwarded-For", "<script>")], None, Some(("a", 80)), "http"),
            (
                &[("Host", "a"), ("X-Forwarded-Proto", "https,http"), ("X-Forwarded-Host", "b.com, c.com:8080")],
                None,
                Some(("b.com", 443)),
                "https",
            ),
            (
                &[("Host", "a"), ("Forwarded", "for=\"[2001:db8::1]:80\";proto=https;host=d.com, for=1.1.1.1")],
                Some("2001:db8::1"),
                Some(("d.com", 443)),
                "https",
            ),
        ] {
            with_head(headers, |head| {
                assert_eq!(head.forwarded_for.map(|ip| ip.to_string()).as_deref(), client, "{headers:?}");
                assert_eq!((head.server(), head.scheme()), (server, scheme), "{headers:?}");
            });
        }
    }

    #[test]
    fn a_target_in_absolute_form_has_a_host_and_a_path() {
        for (target, host, path, query) in [
            ("/x?y", "a", "/x", Some("y")),
            ("http://b:1/x?y=http://c/", "b:1", "/x", Some("y=http://c/")),
            ("HTTPS://b", "b", "/", None),
            ("http://b?y", "b", "/", Some("y")),
            ("http://b/%40c", "b", "/%40c", None),
            ("/http://b/x", "a", "/http://b/x", None),
        ] {
            let host_header = tiny_http::Header::from_bytes("Host", "a").unwrap();
            let request: Request = TestRequest::new().with_path(target).with_header(host_header).into();
            let head = Head::read(&request);
            assert_eq!((head.host, head.path, head.query), (Some(host), path, query), "{target}");
            assert!(head.problem.is_none(), "{target}");
        }
        for target in ["x", "api/x", "http:/b/x", "ftp://b/x", "http://", "http:///x", "http://u:p@b/x", "*", "b:80"] {
            let host_header = tiny_http::Header::from_bytes("Host", "a").unwrap();
            let request: Request = TestRequest::new().with_path(target).with_header(host_header).into();
            assert!(Head::read(&request).problem.is_some(), "{target}");
        }
    }

    #[test]
    fn signatures_in_a_query_are_not_shown() {
        with_head(&[], |head| {
            assert_eq!(head.redacted_query().unwrap(), "a=1&sig=REDACTED&X-Amz-Signature=REDACTED");
        });
    }
}
