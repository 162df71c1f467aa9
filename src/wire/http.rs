//! HTTP calls. Those that carry telemetry begin here and are never traced; those made for a request come through
//! [`http::client`](crate::client), which traces them. None follows a redirect (the key would go along) or outlasts
//! the timeout it is given.

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

use super::retry::parse_retry_after;
use crate::sync::lock;
use crate::text::Url;

/// A client that keeps its connection between calls, for one thread at a time.
pub struct HttpClient {
    agent: Mutex<Agent>,
    proxy: Option<String>,
}

/// One request.
pub struct Call<'a> {
    /// Where to.
    pub url: &'a Url,
    /// All headers besides `host` and `content-length`.
    pub headers: &'a [(String, String)],
    /// The body, as it leaves.
    pub body: &'a [u8],
    /// How long it may take from the first look-up to the last byte; `None`: for ever.
    pub timeout: Option<Duration>,
}

/// What came back.
#[derive(Debug, Default)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Status line and headers, as text.
    pub head: String,
    /// `Retry-After`, if it could be read.
    pub retry_after: Option<Duration>,
    /// Where a 3xx points to.
    pub location: Option<String>,
    /// `Date`: what the other side's clock showed, unless a cache stands between.
    pub date: Option<SystemTime>,
    /// `x-amzn-errortype`: what AWS calls this error.
    pub error_type: Option<String>,
    /// The body, up to [`MAX_ANSWER`].
    pub body: Vec<u8>,
    /// There was more.
    pub too_long: bool,
    /// Why the body ended early, if it did.
    pub broken: Option<CallError>,
}

/// Why nothing came back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CallError {
    /// Nobody accepts connections there.
    ConnectionRefused,
    /// The host name has no address.
    UnknownHost,
    /// The timeout ended.
    Timeout,
    /// The connection ended before an answer came.
    Closed,
    /// TLS could not be agreed on; the text says why.
    Tls(String),
    /// Whatever speaks there, it is not HTTP.
    NotHttp(String),
    /// Anything else.
    Other(String),
}

/// The certificates that TLS works with; empty: the public authorities, and none of our own.
#[derive(Default)]
pub struct Certificates {
    /// PEM of the authorities to trust instead of the public ones.
    pub authorities: Option<Vec<u8>>,
    /// PEM of our certificate chain and of its key.
    pub ours: Option<(Vec<u8>, Vec<u8>)>,
}

/// The longest answer that is read.
pub const MAX_ANSWER: u64 = 4 << 20;

impl HttpClient {
    /// A client for `url` with these certificates. A proxy that the environment names is used for other machines, never
    /// for this one, nor for those in `NO_PROXY`.
    ///
    /// # Errors
    ///
    /// A PEM text holds no certificate or no key.
    pub fn new(url: &Url, certificates: &Certificates) -> Result<Self, String> {
        let goes_through =
            |proxy: &Proxy| !url.is_loopback() && !url.as_str().parse().is_ok_and(|uri| proxy.is_no_proxy(&uri));
        let proxy = Proxy::try_from_env().filter(goes_through);
        let agent = agent(tls(certificates)?, proxy.clone());
        let proxy = proxy.map(|proxy| format!("{}:{}", proxy.host(), proxy.port()));
        Ok(Self { agent: Mutex::new(agent), proxy })
    }

    /// A client for servers of our own, past any proxy.
    #[must_use]
    pub fn without_proxy() -> Self {
        Self { agent: Mutex::new(agent(TlsConfig::default(), None)), proxy: None }
    }

    /// The proxy that calls go through, as `host:port`.
    #[must_use]
    pub fn proxy(&self) -> Option<&str> {
        self.proxy.as_deref()
    }

    /// Posts the body.
    ///
    /// # Errors
    ///
    /// No answer came, for the reason given.
    pub fn post(&self, call: &Call<'_>) -> Result<Reply, CallError> {
        self.send(self.agent().post(call.url.as_str()), call)
    }

    /// Puts the body.
    ///
    /// # Errors
    ///
    /// No answer came, for the reason given.
    pub fn put(&self, call: &Call<'_>) -> Result<Reply, CallError> {
        self.send(self.agent().put(call.url.as_str()), call)
    }

    /// Gets what is there; a GET has no body, so the call's does not leave.
    ///
    /// # Errors
    ///
    /// No answer came, for the reason given.
    pub fn get(&self, call: &Call<'_>) -> Result<Reply, CallError> {
        let request = prepared(self.agent().get(call.url.as_str()), call);
        if self.proxy.is_some() { self.in_time(call.timeout, || reply(request.call())) } else { reply(request.call()) }
    }

    fn send(&self, request: RequestBuilder<WithBody>, call: &Call<'_>) -> Result<Reply, CallError> {
        let request = prepared(request, call);
        if self.proxy.is_none() {
            return reply(request.send(call.body));
        }
        let body = call.body.to_vec();
        self.in_time(call.timeout, move || reply(request.send(&body)))
    }

    /// ureq gives every piece of a proxy's answer to CONNECT the time that the whole call has. So a call through a proxy is
    /// made on a thread of its own; when its timeout is over all connections are closed, and the thread ends with them.
    fn in_time(
        &self,
        timeout: Option<Duration>,
        call: impl FnOnce() -> Result<Reply, CallError> + Send + 'static,
    ) -> Result<Reply, CallError> {
        let Some(timeout) = timeout else { return call() };
        let (done, answer) = sync_channel(1);
        thread::Builder::new()
            .name("proxied-call".to_owned())
            .spawn(move || drop(done.send(call())))
            .map_err(|error| CallError::Other(format!("no thread for the call: {error}")))?;
        answer.recv_timeout(timeout + LAST_WORD).unwrap_or_else(|_| {
            let mut agent = lock(&self.agent);
            let next = agent.config().clone().new_agent();
            std::mem::replace(&mut *agent, next).shutdown();
            Err(CallError::Timeout)
        })
    }

    fn agent(&self) -> Agent {
        lock(&self.agent).clone()
    }
}

/// What ureq gets on top to say by itself that the time is over, and how far it came.
const LAST_WORD: Duration = Duration::from_millis(20);

fn tls(certificates: &Certificates) -> Result<TlsConfig, String> {
    let mut tls = TlsConfig::builder();
    if let Some(pem) = &certificates.authorities {
        tls = tls.root_certs(RootCerts::new_with_certs(&parse_certificates(pem)?));
    }
    if let Some((chain, key)) = &certificates.ours {
        let key = PrivateKey::from_pem(key).map_err(|error| format!("no private key in it: {error}"))?;
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

fn prepared<B>(mut request: RequestBuilder<B>, call: &Call<'_>) -> RequestBuilder<B> {
    for (name, value) in call.headers {
        request = request.header(name, value);
    }
    request.config().timeout_global(call.timeout).timeout_connect(call.timeout).build()
}

fn reply(response: Result<Response<Body>, ureq::Error>) -> Result<Reply, CallError> {
    let mut response = response.map_err(|error| CallError::from(&error))?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let retry_after = header("retry-after").and_then(|value| parse_retry_after(value, SystemTime::now()));
    let location = header("location").map(str::to_owned);
    let date = header("date").filter(|_| header("age").is_none());
    let date = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok()).map(SystemTime::from);
    let error_type = header("x-amzn-errortype").map(str::to_owned);
    let status = response.status().as_u16();
    let head = head(&response);
    let mut body = Vec::new();
    let reader = response.body_mut().as_reader();
    // An answer that breaks off is as good as its beginning to those who asked for the status: that has come.
    let broken = reader
        .take(MAX_ANSWER + 1)
        .read_to_end(&mut body)
        .err()
        .map(|error| CallError::from(&ureq::Error::from(error)));
    let too_long = body.len() as u64 > MAX_ANSWER;
    Ok(Reply { status, head, retry_after, location, date, error_type, body, too_long, broken })
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
    if certificates.is_empty() { Err("no PEM certificate in it".to_owned()) } else { Ok(certificates) }
}

impl CallError {
    /// One word for what happened, by which repeated failures are recognised.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ConnectionRefused => "refused",
            Self::UnknownHost => "host",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Tls(_) => "tls",
            Self::NotHttp(_) => "http",
            Self::Other(_) => "other",
        }
    }
}

/// What happened, in words; the caller adds where and what to do next.
impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectionRefused => f.write_str("nobody listens there"),
            Self::UnknownHost => f.write_str("this host name has no address"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Closed => f.write_str("the connection ended before an answer came"),
            Self::Tls(why) => write!(f, "TLS failed: {why}"),
            Self::NotHttp(why) => write!(f, "what answers is not HTTP/1.1: {why}"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

impl From<&ureq::Error> for CallError {
    fn from(error: &ureq::Error) -> Self {
        match error {
            ureq::Error::Io(io) => of_io(io),
            ureq::Error::Timeout(_) => Self::Timeout,
            ureq::Error::HostNotFound => Self::UnknownHost,
            ureq::Error::ConnectionFailed => Self::ConnectionRefused,
            ureq::Error::Tls(text) => Self::Tls((*text).to_owned()),
            ureq::Error::Rustls(error) => Self::Tls(error.to_string()),
            ureq::Error::Protocol(error) => Self::NotHttp(error.to_string()),
            other => Self::Other(other.to_string()),
        }
    }
}

fn of_io(error: &io::Error) -> CallError {
    match error.kind() {
        ErrorKind::ConnectionRefused => CallError::ConnectionRefused,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => CallError::Timeout,
        ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::NotConnected => CallError::Closed,
        // rustls hands its errors through io::Error.
        ErrorKind::InvalidData => CallError::Tls(error.to_string()),
        // The system's resolver has no kind of its own.
        _ if error.to_string().starts_with("failed to lookup address") => CallError::UnknownHost,
        _ => CallError::Other(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pem_without_a_certificate_is_refused() {
        let certificates = Certificates { authorities: Some(b"hello".to_vec()), ours: None };
        let url = Url::parse("https://c").unwrap();
        assert_eq!(HttpClient::new(&url, &certificates).err().unwrap(), "no PEM certificate in it");
    }
}
