//! The HTTP client below all outgoing calls. Exporters call it directly, and their calls are never
//! traced. Calls for a request of the application go through [`client`](crate::client), which
//! traces them.
//!
//! The client follows no redirect, because the API key would be sent to the new address. A call
//! ends when its timeout is over.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, SystemTime};

use chrono::DateTime;
use ureq::http::Response;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::typestate::WithBody;
use ureq::{Agent, Body, Proxy, RequestBuilder};

use super::redact::basic_authorization;
use super::retry::parse_retry_after;
use crate::sync::lock;
use crate::text::Url;

/// A client that keeps its connection open between calls. It is made for one thread at a time.
pub struct HttpClient {
    agent: Mutex<Agent>,
    proxy: Option<String>,
}

/// One request.
pub struct Call<'a> {
    /// The address.
    pub url: &'a Url,
    /// All headers except `host` and `content-length`, which the client adds.
    pub headers: &'a [(String, String)],
    /// The body in the bytes that are sent, already compressed if it is compressed at all.
    pub body: &'a [u8],
    /// The time limit from the DNS lookup to the last byte of the reply. `None` means no limit.
    pub timeout: Option<Duration>,
}

/// The response to a call.
#[derive(Debug, Default)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The status line and the headers, as text.
    pub head: String,
    /// The wait that `Retry-After` asks for, if the header is there and valid.
    pub retry_after: Option<Duration>,
    /// The server's time from `Date`. `None` if the header is missing or invalid, or if the reply
    /// comes from a cache, which adds the header `Age`.
    pub date: Option<SystemTime>,
    /// The body. At most one byte more than [`MAX_ANSWER`] is read.
    pub body: Vec<u8>,
    /// True if the body is longer than [`MAX_ANSWER`].
    pub too_long: bool,
    /// The error that ended the body early, if there was one.
    pub broken: Option<CallError>,
}

/// The reason why a call got no reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CallError {
    /// The connection was refused: no program listens at the address.
    ConnectionRefused,
    /// The DNS lookup of the host name failed.
    UnknownHost,
    /// The call took longer than this timeout. `None` means that the system ended a call without one.
    Timeout(Option<Duration>),
    /// The connection ended before a reply came.
    Closed,
    /// TLS failed, or the certificate is not trusted. The text gives the reason.
    Tls(String),
    /// The reply is not HTTP; the text gives the reason.
    NotHttp(String),
    /// Any other error.
    Other(String),
}

/// The certificates for TLS. The default is the public authorities, without a client certificate.
#[derive(Default)]
pub struct Certificates {
    /// Authorities to trust instead of the public ones, in PEM.
    pub authorities: Option<Vec<u8>>,
    /// The client certificate: its chain and its private key, both in PEM.
    pub ours: Option<(Vec<u8>, Vec<u8>)>,
}

/// The largest response body that is read, in bytes.
pub const MAX_ANSWER: u64 = 4 << 20;

impl HttpClient {
    /// Creates a client for `url` with these certificates. It uses the proxy of the environment,
    /// but never for a URL on this machine or for a host in `NO_PROXY`.
    ///
    /// # Errors
    ///
    /// Returns an error if a PEM text holds no certificate or no private key.
    pub fn new(url: &Url, certificates: &Certificates) -> Result<Self, String> {
        let uses_proxy = |proxy: &Proxy| !url.is_loopback() && !proxy.is_no_proxy(url.uri());
        let proxy = Proxy::try_from_env().filter(uses_proxy);
        let agent = agent(tls(certificates)?, proxy.clone());
        let proxy = proxy.map(|proxy| format!("{}:{}", proxy.host(), proxy.port()));
        Ok(Self { agent: Mutex::new(agent), proxy })
    }

    /// Creates a client that uses no proxy, for servers on this machine and for AWS's credential
    /// services.
    pub fn without_proxy() -> Self {
        Self { agent: Mutex::new(agent(TlsConfig::default(), None)), proxy: None }
    }

    /// The proxy of this client, as `host:port`.
    pub fn proxy(&self) -> Option<&str> {
        self.proxy.as_deref()
    }

    /// Sends a POST with the body of `call`.
    ///
    /// # Errors
    ///
    /// Returns the reason if no reply came.
    pub fn post(&self, call: &Call<'_>) -> Result<Reply, CallError> {
        self.send(self.agent().post(call.url.uri()), call)
    }

    /// Sends a PUT with the body of `call`.
    ///
    /// # Errors
    ///
    /// Returns the reason if no reply came.
    pub fn put(&self, call: &Call<'_>) -> Result<Reply, CallError> {
        self.send(self.agent().put(call.url.uri()), call)
    }

    /// Sends a GET. A GET has no body, so the body of `call` is not sent.
    ///
    /// # Errors
    ///
    /// Returns the reason if no reply came.
    pub fn get(&self, call: &Call<'_>) -> Result<Reply, CallError> {
        let (request, timeout) = (configured(self.agent().get(call.url.uri()), call), call.timeout);
        if self.proxy.is_some() {
            self.with_timeout(timeout, move || reply(request.call(), timeout))
        } else {
            reply(request.call(), timeout)
        }
    }

    fn send(&self, request: RequestBuilder<WithBody>, call: &Call<'_>) -> Result<Reply, CallError> {
        let (request, timeout) = (configured(request, call), call.timeout);
        if self.proxy.is_none() {
            return reply(request.send(call.body), timeout);
        }
        let body = call.body.to_vec();
        self.with_timeout(timeout, move || reply(request.send(&body), timeout))
    }

    /// Makes a call through a proxy on a thread of its own, so that the timeout holds.
    ///
    /// While ureq reads a proxy's response to CONNECT, the whole timeout starts again with each
    /// piece of it. When the timeout is over, this function closes all connections, which ends the
    /// thread.
    fn with_timeout(
        &self,
        timeout: Option<Duration>,
        call: impl FnOnce() -> Result<Reply, CallError> + Send + 'static,
    ) -> Result<Reply, CallError> {
        let Some(timeout) = timeout else { return call() };
        let (done, answer) = sync_channel(1);
        thread::Builder::new()
            .name("proxied-call".to_owned())
            .spawn(move || drop(done.send(call())))
            .map_err(|error| CallError::Other(format!("cannot start a thread for the call: {error}")))?;
        answer.recv_timeout(timeout + TIMEOUT_GRACE).unwrap_or_else(|_| {
            let mut agent = lock(&self.agent);
            let next = agent.config().clone().new_agent();
            std::mem::replace(&mut *agent, next).shutdown();
            Err(CallError::Timeout(Some(timeout)))
        })
    }

    fn agent(&self) -> Agent {
        lock(&self.agent).clone()
    }
}

/// Extra time in which ureq can report the timeout itself.
const TIMEOUT_GRACE: Duration = Duration::from_millis(20);

fn tls(certificates: &Certificates) -> Result<TlsConfig, String> {
    let mut tls = TlsConfig::builder();
    if let Some(pem) = &certificates.authorities {
        tls = tls.root_certs(RootCerts::new_with_certs(&parse_certificates(pem)?));
    }
    if let Some((chain, key)) = &certificates.ours {
        let key = PrivateKey::from_pem(key).map_err(|error| format!("no PEM private key found: {error}"))?;
        tls = tls.client_cert(Some(ClientCert::new_with_certs(&parse_certificates(chain)?, key)));
    }
    Ok(tls.build())
}

fn agent(tls: TlsConfig, proxy: Option<Proxy>) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(ureq::config::AutoHeaderValue::None)
        .accept(ureq::config::AutoHeaderValue::None)
        .max_idle_connections_per_host(1)
        .tls_config(tls)
        .proxy(proxy)
        .build()
        .new_agent()
}

fn configured<B>(mut request: RequestBuilder<B>, call: &Call<'_>) -> RequestBuilder<B> {
    // ureq would send user and password as they stand in the URL, percent-encoded.
    let is_given = call.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    if let Some(value) = basic_authorization(call.url).filter(|_| !is_given) {
        request = request.header("authorization", value);
    }
    for (name, value) in call.headers {
        request = request.header(name, value);
    }
    request.config().timeout_global(call.timeout).timeout_connect(call.timeout).build()
}

fn reply(response: Result<Response<Body>, ureq::Error>, timeout: Option<Duration>) -> Result<Reply, CallError> {
    let mut response = response.map_err(|error| CallError::new(&error, timeout))?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let retry_after = header("retry-after").and_then(|value| parse_retry_after(value, SystemTime::now()));
    let date = header("date").filter(|_| header("age").is_none());
    let date = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok()).map(SystemTime::from);
    let status = response.status().as_u16();
    let head = head(&response);
    let mut body = Vec::new();
    let reader = response.body_mut().as_reader();
    // The status is known even if the body breaks off, and some callers need only the status.
    let broken = reader
        .take(MAX_ANSWER + 1)
        .read_to_end(&mut body)
        .err()
        .map(|error| CallError::new(&ureq::Error::from(error), timeout));
    let too_long = body.len() as u64 > MAX_ANSWER;
    Ok(Reply { status, head, retry_after, date, body, too_long, broken })
}

fn head(response: &Response<Body>) -> String {
    let mut head = format!("{:?} {}\r\n", response.version(), response.status());
    for (name, value) in response.headers() {
        head.push_str(&format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())));
    }
    head + "\r\n"
}

fn parse_certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, String> {
    let certificates: Vec<_> = parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() { Err("no PEM certificate found".to_owned()) } else { Ok(certificates) }
}

impl Reply {
    /// Returns the value of the header `name`, if the reply has it and it is plain ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .filter(|value| value.is_ascii())
    }
}

impl CallError {
    /// A short name for the kind of error. Callers compare it to recognise a repeated failure.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ConnectionRefused => "refused",
            Self::UnknownHost => "host",
            Self::Timeout(_) => "timeout",
            Self::Closed => "closed",
            Self::Tls(_) => "tls",
            Self::NotHttp(_) => "http",
            Self::Other(_) => "other",
        }
    }

    /// Returns the error with its address: `connection refused by http://127.0.0.1:4318/v1/traces`.
    /// The caller adds the next step.
    pub fn at(&self, url: &Url) -> String {
        match self {
            Self::ConnectionRefused => format!("{self} by {url}"),
            Self::UnknownHost => format!("{self} for {} ({url})", url.host()),
            _ => format!("{self}: {url}"),
        }
    }

    fn new(error: &ureq::Error, timeout: Option<Duration>) -> Self {
        match error {
            ureq::Error::Io(io) => from_io(io, timeout),
            ureq::Error::Timeout(_) => Self::Timeout(timeout),
            ureq::Error::HostNotFound => Self::UnknownHost,
            ureq::Error::ConnectionFailed => Self::ConnectionRefused,
            ureq::Error::Tls(text) => Self::Tls((*text).to_owned()),
            ureq::Error::Rustls(error) => Self::Tls(error.to_string()),
            ureq::Error::Protocol(error) => Self::NotHttp(error.to_string()),
            other => Self::Other(other.to_string()),
        }
    }
}

/// Writes what happened, with the term that a search engine knows first.
impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectionRefused => f.write_str("connection refused"),
            Self::UnknownHost => f.write_str("DNS lookup failed"),
            Self::Timeout(None) => f.write_str("timed out"),
            Self::Timeout(Some(limit)) if limit.as_millis() < 1000 => {
                write!(f, "timed out after {} ms", limit.as_millis())
            }
            Self::Timeout(Some(limit)) => {
                write!(f, "timed out after {} s", (limit.as_secs_f64() * 10.0).round() / 10.0)
            }
            Self::Closed => f.write_str("connection closed before a response came"),
            Self::Tls(why) if why.contains("invalid peer certificate") => write!(f, "certificate not trusted ({why})"),
            Self::Tls(why) => write!(f, "TLS error ({why})"),
            Self::NotHttp(why) => write!(f, "invalid HTTP response ({why})"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

fn from_io(error: &io::Error, timeout: Option<Duration>) -> CallError {
    match error.kind() {
        ErrorKind::ConnectionRefused => CallError::ConnectionRefused,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => CallError::Timeout(timeout),
        ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::NotConnected => CallError::Closed,
        // rustls reports its errors as `io::Error` of this kind.
        ErrorKind::InvalidData => CallError::Tls(error.to_string()),
        // The standard library has no error kind for a failed DNS lookup.
        _ if error.to_string().starts_with("failed to lookup address") => CallError::UnknownHost,
        _ => CallError::Other(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_begins_with_the_term_that_a_search_engine_knows() {
        let url = Url::parse("http://me:secret@c.test:4318/v1/traces?k=secret").unwrap();
        let limit = |millis| CallError::Timeout(Some(Duration::from_millis(millis)));
        let certificate = CallError::Tls("invalid peer certificate: UnknownIssuer".to_owned());
        for (error, text) in [
            (CallError::ConnectionRefused, "connection refused by http://c.test:4318/v1/traces"),
            (CallError::UnknownHost, "DNS lookup failed for c.test (http://c.test:4318/v1/traces)"),
            (limit(300), "timed out after 300 ms: http://c.test:4318/v1/traces"),
            (limit(9_980), "timed out after 10 s: http://c.test:4318/v1/traces"),
            (limit(7_310), "timed out after 7.3 s: http://c.test:4318/v1/traces"),
            (
                certificate,
                "certificate not trusted (invalid peer certificate: UnknownIssuer): http://c.test:4318/v1/traces",
            ),
        ] {
            assert_eq!(error.at(&url), text);
        }
    }

    #[test]
    fn a_pem_without_a_certificate_is_refused() {
        let certificates = Certificates { authorities: Some(b"hello".to_vec()), ours: None };
        let url = Url::parse("https://c").unwrap();
        assert_eq!(HttpClient::new(&url, &certificates).err().unwrap(), "no PEM certificate found");
    }
}
