//! A loopback OTLP/HTTP collector that follows a script. It can misbehave: it hangs, closes the
//! connection, or sends bytes that are not HTTP. It also supports TLS, with a certificate authority
//! that only these tests trust.

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

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Method of the request.
    pub(crate) method: String,
    /// Path as received.
    pub(crate) path: String,
    /// The headers as received, with names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body as received.
    pub(crate) raw_body: Vec<u8>,
    /// The body, decompressed if it was compressed with gzip.
    pub(crate) body: Vec<u8>,
    /// Time at which its last byte was received.
    pub(crate) arrived: Instant,
    /// Status of the response; `None` if there was no response.
    pub(crate) answered: Option<u16>,
}

/// The collector. Dropping it closes every connection and ends every thread.
pub(crate) struct Collector {
    connections: Connections,
    scheme: &'static str,
    shared: Arc<Watched<State>>,
}

/// Certificate (PEM) of the authority that [`Collector::start_with_tls`] uses.
pub(crate) const AUTHORITY: &str = include_str!("../../data/tls/ca.pem");

#[derive(Default)]
struct State {
    script: Vec<Reply>,
    received: Vec<Received>,
}

impl Received {
    /// The first header with this name (lower case).
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
    /// Starts with a script of one reply per request. The last reply repeats.
    pub(crate) fn start(script: impl Into<Vec<Reply>>) -> Self {
        Self::listen("http", script.into(), |stream, state| answer(stream, state))
    }

    /// The same with TLS, as `127.0.0.1`, `localhost` or `collector.test`. [`AUTHORITY`] has signed
    /// the certificate for these names.
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

    /// Base URL.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.connections.addr())
    }

    /// Port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.connections.addr().port()
    }

    /// Gives this reply to every request from now on.
    pub(crate) fn reply_with(&self, reply: Reply) {
        self.shared.change(|state| state.script = vec![reply]);
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.shared.lock().received.clone()
    }

    /// Waits until `enough` holds for the requests, and returns them.
    pub(crate) fn wait_for(&self, enough: impl Fn(&[Received]) -> bool, timeout: Duration) -> Vec<Received> {
        if let Some(state) = self.shared.wait(timeout, |state| enough(&state.received)) {
            return state.received.clone();
        }
        panic!("not within {timeout:?}; {} requests came", self.requests().len());
    }

    /// Every received span, also those that were refused or sent again.
    pub(crate) fn spans(&self) -> Vec<Value> {
        self.requests().iter().flat_map(Received::spans).collect()
    }

    /// Every span of the requests that were answered with 200.
    pub(crate) fn accepted_spans(&self) -> Vec<Value> {
        self.requests().iter().filter(|request| request.answered == Some(200)).flat_map(Received::spans).collect()
    }
}

impl State {
    /// Records a request and chooses its reply; `None` if the body cannot be decompressed.
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

/// Name of the scope that a span belongs to.
pub(crate) fn scope_name(span: &Value) -> &str {
    span["scope"]["name"].as_str().unwrap_or_default()
}
