//! A loopback OTLP/HTTP collector that answers by a script, and can misbehave: hang, hang up, or talk nonsense. With TLS
//! if need be, under an authority that nobody else trusts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::connections::Connections;

/// What the collector does with one request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Answers: status, headers, body.
    Answer(u16, Vec<(String, String)>, Vec<u8>),
    /// Reads the request and never answers.
    Hang,
    /// Reads the request and closes the connection.
    Reset,
    /// Answers with bytes that are not HTTP, and closes the connection.
    Garbage,
}

/// One request that came in.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// The method.
    pub(crate) method: String,
    /// The path as it came.
    pub(crate) path: String,
    /// The headers as they came, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body as it came.
    pub(crate) raw_body: Vec<u8>,
    /// The body, unzipped if it was gzipped.
    pub(crate) body: Vec<u8>,
    /// When its last byte was here.
    pub(crate) arrived: Instant,
    /// The status it was answered with; `None` if it was not.
    pub(crate) answered: Option<u16>,
}

/// The collector. Dropping it closes every connection and ends every thread.
pub(crate) struct Collector {
    connections: Connections,
    scheme: &'static str,
    shared: Arc<Shared>,
}

/// PEM of the authority behind a [`Collector::start_with_tls`].
pub(crate) const AUTHORITY: &str = include_str!("../../data/tls/ca.pem");

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    script: Vec<Reply>,
    received: Vec<Received>,
}

impl Reply {
    /// What a collector says when all is well: 200 with an empty object.
    pub(crate) fn ok() -> Self {
        Self::json(200, &json!({}))
    }

    /// An answer with a JSON body.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json", &body.to_string())
    }

    /// An answer with any body.
    pub(crate) fn text(status: u16, content_type: &str, body: &str) -> Self {
        Self::Answer(status, vec![("Content-Type".to_owned(), content_type.to_owned())], body.as_bytes().to_vec())
    }

    /// The same with one header more.
    #[must_use]
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Self::Answer(_, headers, _) = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

impl Received {
    /// The first header of that name (lower case).
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("an OTLP body is JSON")
    }

    /// Every span in the body, each with its `scope` and its `resource` added.
    pub(crate) fn spans(&self) -> Vec<Value> {
        let mut spans = Vec::new();
        let body = self.json();
        for resource_spans in body["resourceSpans"].as_array().into_iter().flatten() {
            for scope_spans in resource_spans["scopeSpans"].as_array().into_iter().flatten() {
                for span in scope_spans["spans"].as_array().into_iter().flatten() {
                    let mut span = span.clone();
                    span["scope"] = scope_spans["scope"].clone();
                    span["resource"] = resource_spans["resource"].clone();
                    spans.push(span);
                }
            }
        }
        spans
    }
}

impl Collector {
    /// Starts to answer with `script`, one reply a request; the last one repeats.
    pub(crate) fn start(script: impl Into<Vec<Reply>>) -> Self {
        Self::listen("http", script.into(), |stream, shared| serve(stream, shared))
    }

    /// The same behind TLS, as `127.0.0.1`, `localhost` or `collector.test`: [`AUTHORITY`] vouches for these names.
    pub(crate) fn start_with_tls(script: impl Into<Vec<Reply>>) -> Self {
        let pem = include_bytes!("../../data/tls/server.pem");
        let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().expect("certificates");
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../data/tls/server.key")).expect("a key");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
        let config = Arc::new(config.expect("a key that belongs to the certificate"));
        Self::listen("https", script.into(), move |stream, shared| {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a valid configuration");
            serve(StreamOwned::new(connection, stream), shared);
        })
    }

    fn listen(
        scheme: &'static str,
        script: Vec<Reply>,
        serve: impl Fn(&TcpStream, &Shared) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let state = State { script, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let for_connections = Arc::clone(&shared);
        let connections = Connections::serve(listener, move |stream| {
            let _ = stream.set_nodelay(true);
            serve(stream, &for_connections);
            // There is a second handle to it, so it must be shut down, not just dropped.
            let _ = stream.shutdown(Shutdown::Both);
        });
        Self { connections, scheme, shared }
    }

    /// A collector that accepts everything.
    pub(crate) fn ok() -> Self {
        Self::start([Reply::ok()])
    }

    /// Its base URL.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.connections.addr())
    }

    /// The port it listens on, at 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.connections.addr().port()
    }

    /// What came in so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.shared.lock().received.clone()
    }

    /// Waits until `enough` holds for what came in, and answers it.
    pub(crate) fn wait_for(&self, enough: impl Fn(&[Received]) -> bool, timeout: Duration) -> Vec<Received> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        while !enough(&state.received) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not within {timeout:?}; {} requests came", state.received.len());
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.received.clone()
    }

    /// Every span that came in, also those that were refused or sent again.
    pub(crate) fn spans(&self) -> Vec<Value> {
        self.requests().iter().flat_map(Received::spans).collect()
    }

    /// Every span that came in with a request that was answered 200.
    pub(crate) fn accepted_spans(&self) -> Vec<Value> {
        self.requests().iter().filter(|request| request.answered == Some(200)).flat_map(Received::spans).collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request and picks the reply to it.
    fn note(&self, mut request: Received) -> Reply {
        let mut state = self.lock();
        let turn = state.received.len().min(state.script.len() - 1);
        let reply = state.script[turn].clone();
        if let Reply::Answer(status, ..) = &reply {
            request.answered = Some(*status);
        }
        state.received.push(request);
        self.changed.notify_all();
        reply
    }
}

/// Answers one connection until it ends.
fn serve(stream: impl Read + Write, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        match shared.note(request) {
            Reply::Answer(status, headers, body) => {
                let mut answer = format!("HTTP/1.1 {status} Scripted\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in headers {
                    answer.push_str(&format!("{name}: {value}\r\n"));
                }
                answer.push_str("\r\n");
                if reader.get_mut().write_all(&[answer.as_bytes(), &body].concat()).is_err() {
                    return;
                }
            }
            Reply::Hang => {
                // Ends when either side closes the connection.
                let _ = reader.read(&mut [0]);
                return;
            }
            Reply::Reset => return,
            Reply::Garbage => {
                let _ = reader.get_mut().write_all(b"\x16\x03\x01 this is not HTTP\n\n");
                return;
            }
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Received> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let header = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut raw_body = vec![0; length];
    reader.read_exact(&mut raw_body).ok()?;
    let body = match header("content-encoding") {
        Some("gzip") => {
            let mut body = Vec::new();
            GzDecoder::new(&raw_body[..]).read_to_end(&mut body).ok().map(|_| body)?
        }
        _ => raw_body.clone(),
    };
    Some(Received { method, path, headers, raw_body, body, arrived: Instant::now(), answered: None })
}

/// An attribute of a span, without the wrapper that names its type.
pub(crate) fn attribute<'a>(of: &'a Value, key: &str) -> Option<&'a Value> {
    let attributes = of["attributes"].as_array()?;
    let value = &attributes.iter().find(|attribute| attribute["key"] == key)?["value"];
    value.as_object()?.values().next()
}

/// The name of the scope that a span came under.
pub(crate) fn scope_name(span: &Value) -> &str {
    span["scope"]["name"].as_str().unwrap_or_default()
}
