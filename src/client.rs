//! A call to another service, made for a request. One CLIENT span a try, and the headers that make two processes one trace:
//!
//! ```text
//! SERVER  GET /api/activities/notifications        in this process
//! └─ CLIENT  GET                                    url.full=http://127.0.0.1:4568/api/activities/notifications
//!    └─ SERVER  GET /api/activities/notifications   in the other one: its parent is our CLIENT span
//!
//! GET /api/activities/notifications HTTP/1.1
//! traceparent: 00-4efaaf4d1e8720b39541901950019ee5-b7ad6b7169203331-03
//! x-amzn-trace-id: Root=1-4efaaf4d-1e8720b39541901950019ee5;Parent=b7ad6b7169203331;Sampled=1
//! via: 1.1 cruddur-53995c3f42cd8ad8
//! ```
//!
//! The one thread waits for the answer, so there is one deadline for everything: the look-up of the name, the connection,
//! TLS, a second try, the last byte of the body. `Via` keeps two instances that call one another from doing so for ever.
//!
//! Exporters do not come through here: what they send is never traced.
//!
//! Specification: <https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span>,
//! <https://www.rfc-editor.org/rfc/rfc9110#field.via>.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use ureq::http::StatusCode;

use crate::text::printable;
use crate::text::url::{Url, redacted};
use crate::trace::exception::Exception;
use crate::trace::id::IdSource;
use crate::trace::{RequestTrace, Scope, Span};
use crate::wire::http::{Call, CallError, Certificates, HttpClient, MAX_ANSWER, Reply};

/// A client of one address of another service.
pub struct Client {
    http: HttpClient,
    url: Url,
    /// The address as people may see it: no user, no password, nothing of the query but its keys.
    url_shown: String,
    target: Endpoint,
    /// What this instance calls itself in `Via`.
    pseudonym: String,
}

/// What is called, and what a failure says about it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The absolute URL.
    pub url: String,
    /// Where the URL was set: what people have to look at when it is wrong.
    pub origin: String,
    /// How long a call may take, all tries together.
    pub timeout: Duration,
    /// Where more time can be given.
    pub timeout_origin: &'static str,
}

/// A call that brought nothing: what was called, what happened, what to do next.
#[derive(Clone, Debug)]
pub struct CallFailure {
    /// The kind of failure, one of few: `timeout`, `connection_refused`, `503`. It is `error.type` of the span.
    pub kind: String,
    message: String,
}

/// What went wrong in one try.
struct AttemptError {
    kind: String,
    /// What happened, and what to do next.
    text: String,
    /// Whether the connection broke before any answer came, as one does that was kept for too long.
    may_pass: bool,
}

enum Method<'a> {
    Get,
    Post(&'a [u8]),
}

/// The scope of SERVER and CLIENT spans.
pub const HTTP_SCOPE: Scope = Scope { name: "cruddur.http", version: Some(env!("CARGO_PKG_VERSION")) };

/// So many times a GET is sent again when its connection breaks.
const MAX_RESENDS: u16 = 1;
/// Requests that came through more instances than this go no further.
const MAX_HOPS: usize = 16;
const PSEUDONYM: &str = "cruddur-";

impl Client {
    /// A client of that address.
    ///
    /// # Errors
    ///
    /// The URL is not one that can be called; the text says what would be.
    pub fn new(target: Endpoint, ids: &IdSource) -> Result<Self, String> {
        let Endpoint { url, origin, .. } = &target;
        let wrong = || format!("{origin}: {:?} is no URL to call: write http://host:port", redacted(url));
        let url = Url::parse(url).ok_or_else(wrong)?;
        // What stands behind the last colon must be a port, unless it is the end of an IPv6 address.
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
            target,
            pseudonym: format!("{PSEUDONYM}{}", ids.span_id()),
        })
    }

    /// Whether the address is the one that this program listens on. Other names of this machine are not known here; `Via`
    /// ends what goes in circles by them.
    #[must_use]
    pub fn leads_to(&self, listening: SocketAddr) -> bool {
        let ip = listening.ip().to_canonical();
        let to = self.url.host().parse::<IpAddr>().ok().map(|to| to.to_canonical());
        // Who connects to 0.0.0.0 gets to this machine.
        let is_here = self.url.is_loopback() || to.is_some_and(|to| to.is_unspecified());
        self.url.port() == listening.port()
            && (to == Some(ip) || (is_here && (ip.is_loopback() || ip.is_unspecified())))
    }

    /// Gets what is there, as JSON of a certain form. `via` are the `Via` headers of the request that this is done for.
    ///
    /// A connection that broke before any answer came is tried once more: a GET may be sent twice.
    ///
    /// # Errors
    ///
    /// Nothing came, or something else. The spans and the log have it already.
    pub fn get_json<T: DeserializeOwned>(&self, trace: &RequestTrace<'_>, via: &[&str]) -> Result<T, CallFailure> {
        self.call(trace, via, &Method::Get, |body| {
            serde_json::from_slice(body).map_err(|error| {
                let error = printable(&error.to_string(), MAX_TEXT);
                let what = format!("it answered with something else than was expected ({error})");
                AttemptError::new(
                    "unexpected_body",
                    &what,
                    "see what answers there, and whether it is of the same version",
                )
            })
        })
    }

    /// Posts a JSON text, once; what is answered does not matter.
    ///
    /// # Errors
    ///
    /// It was not answered with success. The span and the log have it already.
    pub fn post_json(&self, trace: &RequestTrace<'_>, via: &[&str], json: &[u8]) -> Result<(), CallFailure> {
        self.call(trace, via, &Method::Post(json), |_| Ok(()))
    }

    fn call<T>(
        &self,
        trace: &RequestTrace<'_>,
        via: &[&str],
        method: &Method<'_>,
        read: impl Fn(&[u8]) -> Result<T, AttemptError>,
    ) -> Result<T, CallFailure> {
        let hops = hops(via);
        if hops.len() > MAX_HOPS || hops.contains(&self.pseudonym.as_str()) {
            let failed = self.failed(method, AttemptError::circle());
            // There is no call, so no span of one: the span that wanted it says why.
            trace.record_exception(&Exception::from_error(&failed));
            log::error!(target: "client", "{failed}");
            return Err(failed);
        }
        let via = hops.iter().map(|hop| format!("1.1 {hop}, ")).collect::<String>() + "1.1 " + &self.pseudonym;
        let deadline = Instant::now() + self.target.timeout;
        let mut resends = 0;
        loop {
            let mut span = trace.client_span(HTTP_SCOPE, method.name());
            self.describe_call(&mut span, method, resends);
            let reply = self.send(&span, method, &via, deadline);
            if let Ok(reply) = &reply {
                describe_reply(&mut span, reply);
            }
            let problem = match reply.and_then(|reply| self.body(reply)).and_then(|body| read(&body)) {
                Ok(value) => return Ok(value),
                Err(problem) => problem,
            };
            let again =
                problem.may_pass && matches!(method, Method::Get) && resends < MAX_RESENDS && Instant::now() < deadline;
            let failed = self.failed(method, problem);
            span.set_attribute("error.type", failed.kind.clone());
            if failed.kind.bytes().all(|byte| byte.is_ascii_digit()) {
                // A status that says all there is to say.
                span.set_failed();
            } else {
                span.record_exception(&Exception::from_error(&failed));
            }
            if again {
                log::warn!(target: "client", "{failed}; trying once more");
                resends += 1;
            } else {
                log::error!(target: "client", "{failed}");
                return Err(failed);
            }
        }
    }

    fn send(&self, span: &Span<'_>, method: &Method<'_>, via: &str, deadline: Instant) -> Result<Reply, AttemptError> {
        let own = [
            ("accept", "application/json"),
            ("user-agent", concat!("cruddur/", env!("CARGO_PKG_VERSION"))),
            ("via", via),
        ];
        let mut headers: Vec<_> = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        headers.extend(span.context_headers().into_iter().map(|(name, value)| (name.to_owned(), value)));
        let timeout = Some(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
        let reply = match method {
            Method::Get => self.http.get(&Call { url: &self.url, headers: &headers, body: b"", timeout }),
            Method::Post(body) => {
                headers.push(("content-type".to_owned(), "application/json".to_owned()));
                self.http.post(&Call { url: &self.url, headers: &headers, body, timeout })
            }
        };
        reply.map_err(|error| self.problem_of(&error))
    }

    /// The body of a good answer, whole.
    fn body(&self, reply: Reply) -> Result<Vec<u8>, AttemptError> {
        let status = reply.status;
        let what = format!("it answered {status} {}", reason_phrase(status));
        match status {
            200..=299 => {}
            301..=303 | 307 | 308 => {
                let to = reply
                    .header("location")
                    .map_or_else(String::new, |to| format!(" to {}", printable(&redacted(to), MAX_TEXT)));
                let what = format!("{what}, a redirect{to}, and none is followed");
                return Err(AttemptError::new("redirect", &what, "give the address where the answer is"));
            }
            _ => return Err(AttemptError::new(&status.to_string(), &what, "look for the same trace id in its log")),
        }
        match reply.broken {
            Some(CallError::Timeout) => Err(self.problem_of(&CallError::Timeout)),
            Some(error) => {
                let what = match error {
                    CallError::Closed => "its answer broke off: the connection ended in the middle of it".to_owned(),
                    error => format!("its answer broke off: {}", printable(&error.to_string(), MAX_TEXT)),
                };
                Err(AttemptError::new("connection_closed", &what, "look into its log"))
            }
            None if reply.too_long => {
                let what = format!("its answer is longer than {MAX_ANSWER} bytes");
                Err(AttemptError::new("too_long", &what, "see what answers there"))
            }
            None => Ok(reply.body),
        }
    }

    fn problem_of(&self, error: &CallError) -> AttemptError {
        let (kind, next) = match error {
            CallError::ConnectionRefused => {
                ("connection_refused", "start what should listen there, or mend the address")
            }
            CallError::UnknownHost => ("unknown_host", "check the name, and DNS"),
            CallError::Timeout => {
                let Endpoint { timeout, timeout_origin, .. } = &self.target;
                let what = format!("no whole answer within {} ms", timeout.as_millis());
                let next = format!("see what keeps it, or allow more with {timeout_origin}");
                return AttemptError::new("timeout", &what, &next);
            }
            CallError::Closed => ("connection_closed", "look into its log"),
            CallError::Tls(_) => ("tls", "check its certificate, and whether it speaks https at all"),
            CallError::NotHttp(_) => ("not_http", "see what listens there"),
            CallError::Other(_) if self.http.proxy().is_some() => ("_OTHER", "check the address, and the proxy"),
            CallError::Other(_) => ("_OTHER", "check the address"),
        };
        let may_pass = *error == CallError::Closed;
        AttemptError { may_pass, ..AttemptError::new(kind, &printable(&error.to_string(), MAX_TEXT), next) }
    }

    fn failed(&self, method: &Method<'_>, problem: AttemptError) -> CallFailure {
        let message =
            format!("{} {} ({}){}: {}", method.name(), self.url_shown, self.target.origin, self.by(), problem.text);
        CallFailure { kind: problem.kind, message }
    }

    /// A proxy that calls go through: what fails may be its fault.
    fn by(&self) -> String {
        self.http.proxy().map_or_else(String::new, |proxy| format!(" through the proxy {proxy}"))
    }

    fn describe_call(&self, span: &mut Span<'_>, method: &Method<'_>, resends: u16) {
        span.set_attribute("http.request.method", method.name());
        span.set_attribute("url.full", self.url_shown.clone());
        span.set_attribute("server.address", self.url.host());
        span.set_attribute("server.port", self.url.port());
        if resends > 0 {
            span.set_attribute("http.request.resend_count", resends);
        }
    }
}

impl Method<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post(_) => "POST",
        }
    }
}

impl AttemptError {
    fn new(kind: &str, what: &str, next: &str) -> Self {
        Self { kind: kind.to_owned(), text: format!("{what}; next: {next}"), may_pass: false }
    }

    fn circle() -> Self {
        let what = format!("this request has come through here already, or through more than {MAX_HOPS} instances");
        Self::new("loop", &what, "let one of the instances answer from its own data")
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

fn reason_phrase(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Unknown")
}

/// A query without its values: it comes from the settings, and whatever is in there may be a key.
fn keys_of(query: &str) -> String {
    let hidden = query.split('&').map(|pair| match pair.split_once('=') {
        Some((key, _)) => format!("{key}=REDACTED"),
        None => "REDACTED".to_owned(),
    });
    hidden.collect::<Vec<_>>().join("&")
}

/// The instances of this program in `Via`: `1.1 nginx, 1.1 cruddur-53995c3f42cd8ad8`. Others are none of our business.
fn hops<'a>(via: &[&'a str]) -> Vec<&'a str> {
    let members = via.iter().flat_map(|header| header.split(','));
    let names = members.filter_map(|member| member.split_ascii_whitespace().nth(1));
    let is_ours = |name: &&str| {
        name.strip_prefix(PSEUDONYM).is_some_and(|id| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    names.filter(is_ours).collect()
}

/// How much of what others wrote is repeated.
const MAX_TEXT: usize = 300;

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { origin, timeout, timeout_origin, .. } = &self.target;
        let (by, millis) = (self.by(), timeout.as_millis());
        write!(f, "{} ({origin}){by}, within {millis} ms ({timeout_origin})", self.url_shown)
    }
}

impl fmt::Display for CallFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CallFailure {}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Client {
        let target = Endpoint {
            url: url.to_owned(),
            origin: "URL".to_owned(),
            timeout: Duration::from_secs(1),
            timeout_origin: "TIMEOUT",
        };
        Client::new(target, &IdSource::new()).unwrap()
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
