//! The head of a request, checked before anybody acts on it: tiny_http lets through what other servers refuse, and what
//! two servers read differently is how requests are smuggled.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use tiny_http::Request;

use super::response::Failure;
use crate::trace::context::TraceHeaders;

/// What the program reads of a request's head.
pub struct Head<'r> {
    /// The method, by its name.
    pub method: &'r str,
    /// The path as it came, with its percent signs.
    pub path: &'r str,
    /// What follows the question mark, as it came.
    pub query: Option<&'r str>,
    /// `1.1`, mostly.
    pub version: &'static str,
    /// The other end of the connection.
    pub peer: Option<SocketAddr>,
    /// `Host`.
    pub host: Option<&'r str>,
    /// Whether a proxy says that it is one.
    pub is_forwarded: bool,
    /// The host that the client asked the first proxy for.
    pub forwarded_host: Option<&'r str>,
    /// The client of the first proxy, if it is an address.
    pub forwarded_for: Option<IpAddr>,
    /// Whether the client came to the first proxy by https.
    pub forwarded_https: bool,
    /// `Origin`: the page that makes this request.
    pub origin: Option<&'r str>,
    /// `User-Agent`.
    pub user_agent: Option<&'r str>,
    /// `Content-Type`.
    pub content_type: Option<&'r str>,
    /// `Content-Encoding`.
    pub content_encoding: Option<&'r str>,
    /// Whether `Content-Length` is there.
    pub has_length: bool,
    /// Whether `Transfer-Encoding` is there.
    pub is_chunked: bool,
    /// Every `Via`: the gateways it came through.
    pub via: Vec<&'r str>,
    /// The headers of trace context.
    pub trace: TraceHeaders<'r>,
    /// Why the request will not be answered as it wishes.
    pub problem: Option<Failure>,
}

/// Heads larger than this are refused. The 8192 bytes of `baggage` that everybody must pass on fit in.
const MAX_BYTES: usize = 16 * 1024;
/// Heads with more headers than this are refused.
const MAX_HEADERS: usize = 64;
/// Query values that are keys or signatures, by OpenTelemetry's list.
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
    /// Reads the head of `request`.
    #[must_use]
    pub fn read(request: &'r Request) -> Self {
        let target = request.url();
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let mut head = Self {
            method: request.method().as_str(),
            path,
            query,
            version: if *request.http_version() == (1, 0) { "1.0" } else { "1.1" },
            peer: request.remote_addr().copied(),
            host: None,
            is_forwarded: false,
            forwarded_host: None,
            forwarded_for: None,
            forwarded_https: false,
            origin: None,
            user_agent: None,
            content_type: None,
            content_encoding: None,
            has_length: false,
            is_chunked: false,
            via: Vec::new(),
            trace: TraceHeaders::default(),
            problem: None,
        };
        let mut size = target.len();
        for header in request.headers() {
            let (name, value) = (header.field.as_str().as_str(), header.value.as_str());
            size += name.len() + value.len() + 4;
            head.read_header(name, value.trim());
        }
        if size > MAX_BYTES || request.headers().len() > MAX_HEADERS {
            let message =
                format!("the head is too large: at most {MAX_BYTES} bytes and {MAX_HEADERS} headers are read");
            head.problem = Some(Failure::rejected(431, message));
        } else if !path.starts_with('/') {
            head.refuse("the target must be a path that begins with /");
        } else if target.bytes().any(|byte| byte.is_ascii_control()) {
            head.refuse("the target holds control characters");
        } else if head.host.is_none() && head.version == "1.1" {
            head.refuse("the Host header is missing");
        }
        head
    }

    /// Whether the client uses https, as far as a proxy tells.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.forwarded_https { "https" } else { "http" }
    }

    /// The name and port that the client asked for.
    #[must_use]
    pub fn server(&self) -> Option<(&'r str, u16)> {
        let authority = self.forwarded_host.or(self.host)?;
        let default = if self.forwarded_https { 443 } else { 80 };
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()?),
            _ => (authority, default),
        };
        Some((name.trim_matches(['[', ']']), port))
    }

    /// Whether the request comes from this machine, through no proxy, and asks for it by its own name. A page elsewhere
    /// that has its name point here (DNS rebinding) asks for another. HTTP/1.0 is what nginx speaks to those behind it,
    /// unless it is told otherwise, and it says nothing of itself then.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let from_here = self.peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback());
        let name = self.server().map_or("", |(name, _)| name);
        let asks_for_us = name.eq_ignore_ascii_case("localhost")
            || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
        from_here && !self.is_forwarded && self.via.is_empty() && self.version == "1.1" && asks_for_us
    }

    /// The query without the values of signatures and keys.
    #[must_use]
    pub fn safe_query(&self) -> Option<Cow<'r, str>> {
        self.query.map(safe_query)
    }

    fn read_header(&mut self, name: &str, value: &'r str) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            3 if is("via") => self.via.push(value),
            4 if is("host") && value.is_empty() => self.refuse("the Host header is empty"),
            4 if is("host") && self.host.is_some() => self.refuse("there is more than one Host header"),
            4 if is("host") => self.host = Some(value),
            6 if is("origin") => self.origin = Some(value),
            7 if is("baggage") => self.trace.baggage.push(value),
            10 if is("user-agent") => self.user_agent = Some(value),
            10 if is("tracestate") => self.trace.tracestate.push(value),
            11 if is("traceparent") => self.trace.traceparent.push(value),
            12 if is("content-type") => self.content_type = Some(value),
            14 if is("content-length") => {
                if self.has_length {
                    self.refuse("there is more than one Content-Length header");
                } else if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
                    self.refuse("Content-Length must be digits only");
                } else if value.parse::<usize>().is_err() {
                    self.refuse("Content-Length is larger than any body can be");
                }
                self.has_length = true;
            }
            15 if is("x-amzn-trace-id") => {
                self.trace.x_amzn_trace_id.get_or_insert(value);
            }
            9 if is("forwarded") => self.read_forwarded(value),
            // It says nothing that is used here, but only proxies write it.
            9 if is("x-real-ip") => self.is_forwarded = true,
            15 if is("x-forwarded-for") => {
                self.is_forwarded = true;
                self.forwarded_for = self.forwarded_for.or_else(|| address(first(value)));
            }
            16 if is("x-forwarded-host") => {
                self.is_forwarded = true;
                self.forwarded_host =
                    self.forwarded_host.or_else(|| Some(first(value)).filter(|host| !host.is_empty()));
            }
            16 if is("content-encoding") => self.content_encoding = Some(value),
            17 if is("transfer-encoding") => self.is_chunked = true,
            17 if is("x-forwarded-proto") => {
                self.is_forwarded = true;
                self.forwarded_https |= first(value).eq_ignore_ascii_case("https");
            }
            _ => {}
        }
    }

    /// `Forwarded: for=192.0.2.60;proto=https;host=example.com, for=...`; what it says goes before the headers with an X.
    fn read_forwarded(&mut self, value: &'r str) {
        self.is_forwarded = true;
        for pair in first(value).split(';') {
            let Some((key, value)) = pair.split_once('=') else { continue };
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "for" => self.forwarded_for = address(value).or(self.forwarded_for),
                "host" if !value.is_empty() => self.forwarded_host = Some(value),
                "proto" => self.forwarded_https |= value.eq_ignore_ascii_case("https"),
                _ => {}
            }
        }
    }

    /// The first problem counts.
    fn refuse(&mut self, message: &str) {
        self.problem.get_or_insert_with(|| Failure::rejected(400, message.to_owned()));
    }
}

/// A query without the values of signatures and keys.
fn safe_query(query: &str) -> Cow<'_, str> {
    let secret = |pair: &str| {
        let key = pair.split('=').next().unwrap_or(pair);
        SECRET_QUERY_KEYS.contains(&key)
    };
    if !query.split('&').any(secret) {
        return Cow::Borrowed(query);
    }
    let safe = query.split('&').map(|pair| match pair.split_once('=') {
        Some((key, _)) if secret(pair) => format!("{key}=REDACTED"),
        _ => pair.to_owned(),
    });
    Cow::Owned(safe.collect::<Vec<_>>().join("&"))
}

/// The first of a list: what the proxy nearest to the client wrote.
fn first(list: &str) -> &str {
    list.split(',').next().unwrap_or(list).trim()
}

/// An address, with or without brackets, quotes and a port. Anything else in such a header is somebody's joke.
fn address(text: &str) -> Option<IpAddr> {
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
    fn signatures_in_a_query_are_not_shown() {
        with_head(&[], |head| {
            assert_eq!(head.safe_query().unwrap(), "a=1&sig=REDACTED&X-Amz-Signature=REDACTED");
        });
    }
}
