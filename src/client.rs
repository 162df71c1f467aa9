//! Calls to another service on behalf of a request. Each attempt has a CLIENT span, whose headers
//! join the traces of both processes:
//!
//! ```text
//! SERVER  GET /api/activities/notifications      in this process
//! └─ CLIENT  GET                                  http://127.0.0.1:4568/api/activities/notifications
//!    └─ SERVER  GET /api/activities/notifications in the other one; its parent is the CLIENT span
//!
//! GET /api/activities/notifications HTTP/1.1
//! traceparent: 00-4efaaf4d1e8720b39541901950019ee5-b7ad6b7169203331-03
//! x-amzn-trace-id: Root=1-4efaaf4d-1e8720b39541901950019ee5;Parent=b7ad6b7169203331;Sampled=1
//! via: 1.1 cruddur-53995c3f42cd8ad8
//! ```
//!
//! The request loop waits for the response, so one deadline covers the whole call: DNS, connection,
//! TLS, a second attempt, and the body to its last byte. `Via` ends calls that go in a circle.
//!
//! Exporters use [`wire`](crate::wire) directly: their calls are never traced.
//!
//! Specification: <https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span>,
//! <https://www.rfc-editor.org/rfc/rfc9110#field.via>.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::text::url::{Url, redacted};
use crate::text::{Message, printable, reason_phrase};
use crate::trace::exception::Exception;
use crate::trace::id::IdSource;
use crate::trace::{RequestTrace, Scope, Span};
use crate::wire::http::{Call, CallError, Certificates, HttpClient, MAX_ANSWER, Reply};

/// A client for one URL of another service.
pub struct Client {
    http: HttpClient,
    url: Url,
    /// URL for people: without user and password, and with the keys of the query only.
    url_shown: String,
    endpoint: Endpoint,
    /// Name of this instance in `Via`.
    pseudonym: String,
}

/// The URL to call, and the settings that messages about it name.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Absolute URL.
    pub url: String,
    /// Setting of the URL.
    pub origin: String,
    /// Maximum time of a call, with all its attempts.
    pub timeout: Duration,
    /// Setting of the timeout.
    pub timeout_origin: &'static str,
}

/// A call that failed.
#[derive(Clone, Debug)]
pub struct CallFailure {
    /// `error.type` of the span: `timeout`, `connection_refused`, `503` and a few more.
    pub kind: String,
    /// The URL, what happened and what to do next.
    pub message: Message,
}

/// Scope of SERVER and CLIENT spans.
pub const HTTP_SCOPE: Scope = Scope { name: "cruddur.http", version: Some(env!("CARGO_PKG_VERSION")) };

/// Maximum number of times that a GET is sent again after its connection has broken.
const MAX_RESENDS: u16 = 1;
/// Maximum number of instances that a request may pass.
const MAX_HOPS: usize = 16;
const PSEUDONYM: &str = "cruddur-";
/// Maximum length of a text from outside in a message, in characters.
const MAX_TEXT: usize = 300;

impl Client {
    /// A client for `endpoint`.
    ///
    /// # Errors
    ///
    /// The URL cannot be called; the text shows the form of a URL that can.
    pub fn new(endpoint: Endpoint, ids: &IdSource) -> Result<Self, Message> {
        let Endpoint { url, origin, .. } = &endpoint;
        let wrong = || {
            Message::new(format!("invalid URL: {:?} ({origin})", redacted(url))).next("write it like http://host:port")
        };
        let url = Url::parse(url).ok_or_else(wrong)?;
        // The text after the last colon must be a port, unless it ends an IPv6 address.
        let has_port = url.authority().rsplit('@').next().is_some_and(|host| host.rfind(':') > host.rfind(']'));
        if has_port && url.explicit_port().is_none_or(|port| port == 0) {
            return Err(wrong());
        }
        let url_shown = match url.query() {
            Some(query) => format!("{url}?{}", keys_of(query)),
            None => url.redacted(),
        };
        Ok(Self {
            http: HttpClient::new(&url, &Certificates::default())?,
            url,
            url_shown,
            endpoint,
            pseudonym: format!("{PSEUDONYM}{}", ids.span_id()),
        })
    }

    /// True if the URL has the address that this program listens on. Other names of this machine
    /// are not recognised; `Via` ends a circle that goes through them.
    pub fn leads_to(&self, listening: SocketAddr) -> bool {
        let ip = listening.ip().to_canonical();
        let to = self.url.host().parse::<IpAddr>().ok().map(|to| to.to_canonical());
        // A connection to 0.0.0.0 leads to this machine.
        let is_here = self.url.is_loopback() || to.is_some_and(|to| to.is_unspecified());
        self.url.port() == listening.port()
            && (to == Some(ip) || (is_here && (ip.is_loopback() || ip.is_unspecified())))
    }

    /// Sends a GET and reads the response as JSON. `via` are the `Via` headers of the request that
    /// this call belongs to.
    ///
    /// A GET is sent once more if its connection breaks before there is a response.
    ///
    /// # Errors
    ///
    /// There is no response, or not the expected one. The spans and the log have the failure
    /// already.
    pub fn get_json<T: DeserializeOwned>(&self, trace: &RequestTrace<'_>, via: &[&str]) -> Result<T, CallFailure> {
        let hops = hops(via);
        if hops.len() > MAX_HOPS || hops.contains(&self.pseudonym.as_str()) {
            return Err(self.refuse_circle(trace));
        }
        let via = hops.iter().map(|hop| format!("1.1 {hop}, ")).collect::<String>() + "1.1 " + &self.pseudonym;
        let deadline = Instant::now() + self.endpoint.timeout;
        let mut resends = 0;
        loop {
            let mut span = trace.client_span(HTTP_SCOPE, "GET");
            self.describe_call(&mut span, resends);
            let reply = self.send(&span, &via, deadline);
            let connection_broke = matches!(reply, Err(CallError::Closed));
            let failure = match self.read_json(&mut span, reply) {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            describe_failure(&mut span, &failure);
            if connection_broke && resends < MAX_RESENDS && Instant::now() < deadline {
                log::warn!(target: "client", "{failure}; the call is retried once");
                resends += 1;
            } else {
                log::error!(target: "client", "{failure}");
                return Err(failure);
            }
        }
    }

    /// No call is made, so there is no CLIENT span: the span that wanted the call has the
    /// exception.
    fn refuse_circle(&self, trace: &RequestTrace<'_>) -> CallFailure {
        let what =
            format!("request loop: the request has passed this instance already, or more than {MAX_HOPS} instances");
        let failure = self.failure("loop", what, "start one of the instances without a notifications URL");
        trace.record_exception(&Exception::from_error(&failure));
        log::error!(target: "client", "{failure}");
        failure
    }

    fn send(&self, span: &Span<'_>, via: &str, deadline: Instant) -> Result<Reply, CallError> {
        let own = [
            ("accept", "application/json"),
            ("user-agent", concat!("cruddur/", env!("CARGO_PKG_VERSION"))),
            ("via", via),
        ];
        let mut headers: Vec<_> = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        headers.extend(span.context_headers().into_iter().map(|(name, value)| (name.to_owned(), value)));
        let timeout = Some(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
        self.http.get(&Call { url: &self.url, headers: &headers, body: b"", timeout })
    }

    fn read_json<T: DeserializeOwned>(
        &self,
        span: &mut Span<'_>,
        reply: Result<Reply, CallError>,
    ) -> Result<T, CallFailure> {
        let reply = reply.map_err(|error| self.no_reply(&error))?;
        describe_reply(span, &reply);
        self.check_status(&reply)?;
        self.check_complete(&reply)?;
        serde_json::from_slice(&reply.body).map_err(|error| {
            let error = printable(&error.to_string(), MAX_TEXT);
            let what = format!("unexpected JSON in the response ({error})");
            self.failure("unexpected_body", what, "check that cruddur answers there, in the same version")
        })
    }

    fn check_status(&self, reply: &Reply) -> Result<(), CallFailure> {
        let status = reply.status;
        let what = || format!("HTTP {status} {}", reason_phrase(status));
        match status {
            200..=299 => Ok(()),
            301..=303 | 307 | 308 => {
                let to = reply.header("location").map(|to| format!(" to {}", printable(&redacted(to), MAX_TEXT)));
                let what = format!("{}, a redirect{} that is not followed", what(), to.unwrap_or_default());
                Err(self.failure("redirect", what, "set the final address"))
            }
            _ => Err(self.failure(
                status.to_string(),
                what(),
                "look for the same trace id in the log of the other instance",
            )),
        }
    }

    fn check_complete(&self, reply: &Reply) -> Result<(), CallFailure> {
        let why = match &reply.broken {
            None if reply.too_long => {
                let what = format!("response too long (more than {MAX_ANSWER} bytes)");
                return Err(self.failure("too_long", what, "check which program answers there"));
            }
            None => return Ok(()),
            Some(timeout @ CallError::Timeout(_)) => return Err(self.no_reply(timeout)),
            Some(CallError::Closed) => "connection closed within the body".to_owned(),
            Some(error) => printable(&error.to_string(), MAX_TEXT),
        };
        let next = "check the log of the other instance";
        Err(self.failure("connection_closed", format!("incomplete response ({why})"), next))
    }

    fn no_reply(&self, error: &CallError) -> CallFailure {
        let (kind, next) = match error {
            CallError::ConnectionRefused => ("connection_refused", "start the other instance, or correct the address"),
            CallError::UnknownHost => ("unknown_host", "check the host name, and DNS"),
            CallError::Timeout(_) => {
                let Endpoint { timeout, timeout_origin, .. } = &self.endpoint;
                let what = format!("timed out after {} ms", timeout.as_millis());
                let next = format!("find out why the other instance is slow, or raise {timeout_origin}");
                return self.failure("timeout", what, next);
            }
            CallError::Closed => ("connection_closed", "check the log of the other instance"),
            CallError::Tls(_) => ("tls", "check the certificate, and that the address is an https one"),
            CallError::NotHttp(_) => ("not_http", "check which program listens there"),
            CallError::Other(_) if self.http.proxy().is_some() => ("_OTHER", "check the address, and the proxy"),
            CallError::Other(_) => ("_OTHER", "check the address"),
        };
        self.failure(kind, printable(&error.to_string(), MAX_TEXT), next)
    }

    fn failure(&self, kind: impl Into<String>, what: String, next: impl Into<String>) -> CallFailure {
        let what = format!("{what}: GET {} ({}){}", self.url_shown, self.endpoint.origin, self.through_proxy());
        CallFailure { kind: kind.into(), message: Message::new(what).next(next) }
    }

    /// Names the proxy of a call: it may be the cause of a failure.
    fn through_proxy(&self) -> String {
        self.http.proxy().map_or_else(String::new, |proxy| format!(" through the proxy {proxy}"))
    }

    fn describe_call(&self, span: &mut Span<'_>, resends: u16) {
        span.set_attribute("http.request.method", "GET");
        span.set_attribute("url.full", self.url_shown.clone());
        span.set_attribute("server.address", self.url.host());
        span.set_attribute("server.port", self.url.port());
        if resends > 0 {
            span.set_attribute("http.request.resend_count", resends);
        }
    }
}

fn describe_reply(span: &mut Span<'_>, reply: &Reply) {
    span.set_attribute("http.response.status_code", reply.status);
    if reply.broken.is_none() && !reply.too_long {
        span.set_attribute("http.response.body.size", reply.body.len());
    }
    if let Some(version) = reply.head.strip_prefix("HTTP/").and_then(|rest| rest.split(' ').next()) {
        span.set_attribute("network.protocol.version", version.to_owned());
    }
}

fn describe_failure(span: &mut Span<'_>, failure: &CallFailure) {
    span.set_attribute("error.type", failure.kind.clone());
    if failure.kind.bytes().all(|byte| byte.is_ascii_digit()) {
        // The status needs no explanation.
        span.set_failed();
    } else {
        span.record_exception(&Exception::from_error(failure));
    }
}

/// A query with all values redacted: the query of a setting may hold a key.
fn keys_of(query: &str) -> String {
    let redacted = query.split('&').map(|pair| match pair.split_once('=') {
        Some((key, _)) => format!("{key}=REDACTED"),
        None => "REDACTED".to_owned(),
    });
    redacted.collect::<Vec<_>>().join("&")
}

/// Returns the instances of this program in `Via`, as in `1.1 nginx, 1.1 cruddur-53995c3f42cd8ad8`.
fn hops<'a>(via: &[&'a str]) -> Vec<&'a str> {
    let members = via.iter().flat_map(|header| header.split(','));
    let names = members.filter_map(|member| member.split_ascii_whitespace().nth(1));
    let is_ours = |name: &&str| {
        name.strip_prefix(PSEUDONYM).is_some_and(|id| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    names.filter(is_ours).collect()
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { origin, timeout, timeout_origin, .. } = &self.endpoint;
        let (proxy, millis) = (self.through_proxy(), timeout.as_millis());
        write!(f, "{} ({origin}){proxy}, within {millis} ms ({timeout_origin})", self.url_shown)
    }
}

impl fmt::Display for CallFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

impl std::error::Error for CallFailure {}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Client {
        let endpoint = Endpoint {
            url: url.to_owned(),
            origin: "URL".to_owned(),
            timeout: Duration::from_secs(1),
            timeout_origin: "TIMEOUT",
        };
        Client::new(endpoint, &IdSource::new()).unwrap()
    }

    #[test]
    fn only_instances_of_this_program_are_hops() {
        let (first, second) = ("cruddur-53995c3f42cd8ad8", "cruddur-b7ad6b7169203331");
        let headers = [format!("1.0 fred, 1.1 {first} (a comment)"), format!("HTTP/1.1 {second},1.1 cruddur-x, ,")];
        assert_eq!(hops(&headers.each_ref().map(String::as_str)), [first, second]);
        assert!(hops(&["", "cruddur-53995c3f42cd8ad8", "1.1 cruddur-53995c3f42cd8ad8\u{1}"]).is_empty());
    }

    #[test]
    fn an_address_is_ours_when_host_and_port_are() {
        let here = |url, listening: &str| client(url).leads_to(listening.parse().unwrap());
        assert!(here("http://127.0.0.1:4567/x", "127.0.0.1:4567"));
        assert!(here("https://localhost:4567", "[::1]:4567"));
        assert!(here("http://127.9.9.9", "0.0.0.0:80"));
        assert!(here("https://localhost", "127.0.0.1:443"));
        assert!(here("http://10.0.0.7:4567", "10.0.0.7:4567"));
        assert!(here("http://0.0.0.0:4567", "127.0.0.1:4567"));
        assert!(here("http://[::]:4567", "0.0.0.0:4567"));
        assert!(!here("http://127.0.0.1:4568", "127.0.0.1:4567"));
        assert!(!here("http://10.0.0.8:4567", "0.0.0.0:4567"));
        assert!(!here("http://localhost:4567", "10.0.0.7:4567"));
    }

    #[test]
    fn no_value_of_the_query_is_shown() {
        let shown = client("http://me:secret@a/x?token=secret&secret&empty=&q=a=secret#secret").url_shown;
        assert_eq!(shown, "http://a/x?token=REDACTED&REDACTED&empty=REDACTED&q=REDACTED");
    }
}
