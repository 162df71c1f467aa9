//! HTTP calls that carry telemetry. They are never traced themselves, follow no redirect (the key would go along), and
//! cannot outlast the patience they are given.

use std::io::{self, ErrorKind, Read};
use std::time::{Duration, SystemTime};

use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::retry::parse_retry_after;

/// A client that keeps its connection between calls.
pub struct HttpClient {
    agent: Agent,
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
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// `Retry-After`, if it could be read.
    pub retry_after: Option<Duration>,
    /// Where a 3xx points to.
    pub location: Option<String>,
    /// The body, up to [`LONGEST_ANSWER`].
    pub body: Vec<u8>,
    /// There was more.
    pub too_long: bool,
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
    /// A client with these certificates.
    ///
    /// # Errors
    ///
    /// A PEM text holds no certificate or no key.
    pub fn new(certificates: &Certificates) -> Result<Self, String> {
        let mut tls = TlsConfig::builder();
        if let Some(pem) = &certificates.authorities {
            tls = tls.root_certs(RootCerts::new_with_certs(&parse_certificates(pem)?));
        }
        if let Some((chain, key)) = &certificates.ours {
            let key = PrivateKey::from_pem(key).map_err(|error| format!("no private key in it: {error}"))?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&parse_certificates(chain)?, key)));
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(ureq::config::AutoHeaderValue::None)
            .accept(ureq::config::AutoHeaderValue::None)
            .max_idle_connections_per_host(1)
            .tls_config(tls.build())
            .build()
            .new_agent();
        Ok(Self { agent })
    }

    /// Makes the call.
    ///
    /// # Errors
    ///
    /// No answer came, for the reason given.
    pub fn post(&self, call: &Call<'_>) -> Result<Reply, CallError> {
        let mut request = self.agent.post(call.url);
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        let patience = call.patience;
        let request = request.config().timeout_global(patience).timeout_connect(patience).build();
        let mut response = request.send(call.body).map_err(|error| CallError::from(&error))?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after = header("retry-after").and_then(|value| parse_retry_after(value, SystemTime::now()));
        let location = header("location").map(str::to_owned);
        let status = response.status().as_u16();
        let mut body = Vec::new();
        let reader = response.body_mut().as_reader();
        // An answer that breaks off is as good as its beginning: the status has come.
        let _ = reader.take(LONGEST_ANSWER + 1).read_to_end(&mut body);
        let too_long = body.len() as u64 > LONGEST_ANSWER;
        Ok(Reply { status, retry_after, location, body, too_long })
    }
}

/// A URL as it may be shown: without user, password and query.
#[must_use]
pub fn shown(url: &str) -> String {
    let (url, _) = url.split_once(['?', '#']).unwrap_or((url, ""));
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let host = authority.rsplit('@').next().unwrap_or(authority);
    format!("{scheme}://{host}{path}")
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
    }

    #[test]
    fn a_pem_without_a_certificate_is_refused() {
        let certificates = Certificates { authorities: Some(b"hello".to_vec()), ours: None };
        assert_eq!(HttpClient::new(&certificates).err().unwrap(), "no PEM certificate in it");
    }
}
