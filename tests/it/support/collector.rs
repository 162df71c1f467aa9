//! A loopback OTLP/HTTP collector that answers by a script, and can misbehave: hang, hang up, or talk nonsense. With TLS
//! if need be, under an authority that nobody else trusts.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use super::connections::Connections;
use super::http::{Reply, Request, header, serve};
use super::watched::Watched;

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
    shared: Arc<Watched<State>>,
}

/// PEM of the authority behind a [`Collector::start_with_tls`].
pub(crate) const AUTHORITY: &str = include_str!("../../data/tls/ca.pem");

#[derive(Default)]
struct State {
    script: Vec<Reply>,
    received: Vec<Received>,
}

impl Received {
    /// The first header of that name (lower case).
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
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
        Self::listen("http", script.into(), |stream, state| answer(stream, state))
    }

    /// The same behind TLS, as `127.0.0.1`, `localhost` or `collector.test`: [`AUTHORITY`] vouches for these names.
    pub(crate) fn start_with_tls(script: impl Into<Vec<Reply>>) -> Self {
        let pem = include_bytes!("../../data/tls/server.pem");
        let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().expect("certificates");
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../data/tls/server.key")).expect("a key");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
        let config = Arc::new(config.expect("a key that belongs to the certificate"));
        Self::listen("https", script.into(), move |stream, state| {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a valid configuration");
            answer(StreamOwned::new(connection, stream), state);
        })
    }

    fn listen(
        scheme: &'static str,
        script: Vec<Reply>,
        serve: impl Fn(&TcpStream, &Watched<State>) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let shared = Arc::new(Watched::new(State { script, ..State::default() }));
        let for_connections = Arc::clone(&shared);
        let connections = Connections::serve(listener, move |stream| serve(stream, &for_connections));
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
        if let Some(state) = self.shared.wait(timeout, |state| enough(&state.received)) {
            return state.received.clone();
        }
        panic!("not within {timeout:?}; {} requests came", self.requests().len());
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

impl State {
    /// Notes a request and picks the reply to it; nothing if the body cannot be unzipped.
    fn reply_to(&mut self, request: Request) -> Option<Reply> {
        let body = request.unzipped()?;
        let turn = self.received.len().min(self.script.len() - 1);
        let reply = self.script[turn].clone();
        let answered = if let Reply::Answer(status, ..) = &reply { Some(*status) } else { None };
        let Request { method, path, headers, raw_body } = request;
        self.received.push(Received { method, path, headers, raw_body, body, arrived: Instant::now(), answered });
        Some(reply)
    }
}

fn answer(stream: impl Read + Write, state: &Watched<State>) {
    serve(stream, |request| state.change(|state| state.reply_to(request)));
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
