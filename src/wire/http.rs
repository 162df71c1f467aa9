//! HTTP calls. Those that carry telemetry begin here and are never traced; those made for a request come through
//! [`http::client`](crate::http::client), which traces them. None follows a redirect (the key would go along) or outlasts
//! the patience it is given.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::net::IpAddr;
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

/// A client that keeps its connection between calls, for one thread at a time.
pub struct HttpClient {
    agent: Mutex<Agent>,
    proxy: Option<String>,
}

/// One request.
pub struct Call<'a> {
    /// Where to.
    pub url: &'a str,
    /// All headers besides `host` and `content-length`.
    pub headers: &'a [(String, String)],
    /// The body, as it leaves.
    pub body: &'a [u8],
    /// How long it may take from the first look-up to the last byte; `None`: for ever.
    pub patience: Option<Duration>,
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
    /// The body, up to [`LONGEST_ANSWER`].
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
    Refused,
    /// The host name has no address.
    UnknownHost,
    /// The patience ended.
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
pub const LONGEST_ANSWER: u64 = 4 << 20;

impl HttpClient {
    /// A client for `url` with these certificates. A proxy that the environment names is used for other machines, never
    /// for this one, nor for those in `NO_PROXY`.
    ///
    /// # Errors
    ///
    /// A PEM text holds no certificate or no key.
    pub fn new(url: &str, certificates: &Certificates) -> Result<Self, String> {
        let goes_through =
            |proxy: &Proxy| !is_this_machine(url) && !url.parse().is_ok_and(|uri| proxy.is_no_proxy(&uri));
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
        self.send(self.agent().post(call.url), call)
    }

    /// Puts the body.
    ///
    /// # Errors
    ///
    /// No answer came, for the reason given.
    pub fn put(&self, call: &Call<'_>) -> Result<Reply, CallError> {
        self.send(self.agent().put(call.url), call)
    }

    /// Gets what is there; a GET has no body, so the call's does not leave.
    ///
    /// # Errors
    ///
    /// No answer came, for the reason given.
    pub fn get(&self, call: &Call<'_>) -> Result<Reply, CallError> {
        let request = prepared(self.agent().get(call.url), call);
        if self.proxy.is_some() { self.in_time(call.patience, || reply(request.call())) } else { reply(request.call()) }
    }

    fn send(&self, request: RequestBuilder<WithBody>, call: &Call<'_>) -> Result<Reply, CallError> {
        let request = prepared(request, call);
        if self.proxy.is_none() {
            return reply(request.send(call.body));
        }
        let body = call.body.to_vec();
        self.in_time(call.patience, move || reply(request.send(&body)))
    }

    /// ureq gives every piece of a proxy's answer to CONNECT the time that the whole call has. So a call through a proxy is
    /// made on a thread of its own; when its patience is over all connections are closed, and the thread ends with them.
    fn in_time(
        &self,
        patience: Option<Duration>,
        call: impl FnOnce() -> Result<Reply, CallError> + Send + 'static,
    ) -> Result<Reply, CallError> {
        let Some(patience) = patience else { return call() };
        let (done, answer) = sync_channel(1);
        thread::Builder::new()
            .name("proxied-call".to_owned())
            .spawn(move || drop(done.send(call())))
            .map_err(|error| CallError::Other(format!("no thread for the call: {error}")))?;
        answer.recv_timeout(patience + LAST_WORD).unwrap_or_else(|_| {
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

/// A URL as it may be shown: without user, password and query.
#[must_use]
pub fn shown(url: &str) -> String {
    let (url, _) = url.split_once(['?', '#']).unwrap_or((url, ""));
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    // Whatever stands before an @, even in what is no URL, may be a password.
    let rest = rest.rsplit('@').next().unwrap_or(rest);
    if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") }
}

/// The host of a URL, in lower case and without brackets; empty if there is none.
#[must_use]
pub fn host(url: &str) -> String {
    let host = url.parse::<ureq::http::Uri>().ok().and_then(|uri| uri.host().map(str::to_ascii_lowercase));
    host.map_or_else(String::new, |host| host.trim_matches(['[', ']']).to_owned())
}

/// What the `host` header says: the port only where it is not the usual one.
#[must_use]
pub fn host_header(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let usual = if url.starts_with("https://") { ":443" } else { ":80" };
    host.strip_suffix(usual).unwrap_or(host).to_owned()
}

fn prepared<B>(mut request: RequestBuilder<B>, call: &Call<'_>) -> RequestBuilder<B> {
    for (name, value) in call.headers {
        request = request.header(name, value);
    }
    request.config().timeout_global(call.patience).timeout_connect(call.patience).build()
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
        .take(LONGEST_ANSWER + 1)
        .read_to_end(&mut body)
        .err()
        .map(|error| CallError::from(&ureq::Error::from(error)));
    let too_long = body.len() as u64 > LONGEST_ANSWER;
    Ok(Reply { status, head, retry_after, location, date, error_type, body, too_long, broken })
}

fn head(response: &Response<Body>) -> String {
    let mut head = format!("{:?} {}\r\n", response.version(), response.status());
    for (name, value) in response.headers() {
        head.push_str(&format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())));
    }
    head + "\r\n"
}

/// Whether a URL names this machine, as far as that can be read from it.
#[must_use]
pub fn is_this_machine(url: &str) -> bool {
    let host = host(url);
    host == "localhost" || host.ends_with(".localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
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

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("nobody listens there"),
            Self::UnknownHost => f.write_str("the host name has no address"),
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
            ureq::Error::ConnectionFailed => Self::Refused,
            ureq::Error::Tls(text) => Self::Tls((*text).to_owned()),
            ureq::Error::Rustls(error) => Self::Tls(error.to_string()),
            ureq::Error::Protocol(error) => Self::NotHttp(error.to_string()),
            other => Self::Other(other.to_string()),
        }
    }
}

fn of_io(error: &io::Error) -> CallError {
    match error.kind() {
        ErrorKind::ConnectionRefused => CallError::Refused,
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
    fn a_shown_url_has_no_secret_in_it() {
        assert_eq!(shown("https://me:secret@host:1/v1/traces?sig=abc#x"), "https://host:1/v1/traces");
        assert_eq!(shown("http://host"), "http://host");
        assert_eq!(shown("nonsense?x"), "nonsense");
        assert_eq!(shown("user:secret@host:4318"), "host:4318");
        assert_eq!(shown("http:/user:secret@x"), "x");
    }

    #[test]
    fn only_this_machine_is_this_machine() {
        for url in ["http://localhost:1/x", "http://127.1.2.3", "https://[::1]:4318", "http://a.localhost"] {
            assert!(is_this_machine(url), "{url}");
        }
        for url in ["http://localhost.test", "http://10.0.0.1", "http://collector:4318", "nonsense"] {
            assert!(!is_this_machine(url), "{url}");
        }
    }

    #[test]
    fn a_pem_without_a_certificate_is_refused() {
        let certificates = Certificates { authorities: Some(b"hello".to_vec()), ours: None };
        assert_eq!(HttpClient::new("https://c", &certificates).err().unwrap(), "no PEM certificate in it");
    }
}
