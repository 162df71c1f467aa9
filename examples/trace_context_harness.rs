//! The endpoint that the W3C's test suite for Trace Context needs, built from the program's
//! propagation code:
//!
//! ```text
//! $ cargo run --example trace_context_harness -- --listen 127.0.0.1:5055
//!
//! $ git clone https://github.com/w3c/trace-context && cd trace-context/test  # second terminal
//! $ pip install aiohttp
//! $ SPEC_LEVEL=2 STRICT_LEVEL=2 python test.py http://127.0.0.1:5055/test
//! ```
//!
//! The suite POSTs `[{"url": "http://127.0.0.1:7777/...", "arguments": [...]}, ...]`, with valid or
//! invalid trace headers. For each element the example POSTs `arguments` to `url`, and the suite
//! checks the headers of that call.
//!
//! The program itself has no such route, because the route calls any URL. The example therefore
//! listens on this machine only, and makes no calls for a page in a browser.

use std::borrow::Cow;
use std::error::Error;
use std::io::Read;
use std::sync::mpsc::channel;
use std::time::Duration;

use cruddur::http::head::Head;
use cruddur::http::listener::{Listener, Next};

use cruddur::http::process::Renewals;
use cruddur::http::signals::CaughtSignals;
use cruddur::http::ticket::QueuedRequest;
use cruddur::text::Url;
use cruddur::trace::context::Propagator;
use cruddur::trace::id::IdSource;
use cruddur::trace::sampler::Sampler;
use cruddur::trace::span::{Limits, Timestamp};
use cruddur::trace::{Incoming, RequestTrace, Scope, Tracer};
use cruddur::wire::http::{Call, Certificates, HttpClient};
use serde::Deserialize;
use serde_json::{Value, json};
use tiny_http::{Header, Request, Response};

const SCOPE: Scope = Scope::named("trace_context_harness");
const MAX_BODY: u64 = 1 << 20;
/// Shorter than the five seconds after which the suite gives up.
const TIMEOUT: Duration = Duration::from_secs(4);

/// A call that the suite asks for.
#[derive(Deserialize)]
struct Wanted {
    url: String,
    arguments: Value,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some("--listen"), Some(address), None) = (arguments.next().as_deref(), arguments.next(), arguments.next())
    else {
        return Err("usage: trace_context_harness --listen 127.0.0.1:PORT".into());
    };
    let listener = Listener::open(&address, CaughtSignals::catch()?, channel().0, Renewals::default())?;
    if !listener.address().ip().is_loopback() {
        return Err("this calls any URL it is given: --listen takes an address of this machine only".into());
    }
    let tracer = Tracer {
        ids: IdSource::new(),
        recording: true,
        propagators: Propagator::ALL.to_vec(),
        sampler: Sampler::named("parentbased_always_on", 1.0).ok_or("no such sampler")?,
        backend_samplers: Vec::new(),
        limits: Limits::default(),
    };
    listener.accept()?;
    eprintln!("listening on http://{}", listener.address());
    loop {
        match listener.next() {
            Next::Request(QueuedRequest { request, ticket: _ticket }) => answer(request, &tracer),
            Next::Wake => {}
            Next::Stop | Next::Renew(_) => return Ok(()),
            Next::Failed(error) => return Err(error.into()),
        }
    }
}

fn answer(mut request: Request, tracer: &Tracer) {
    let mut body = Vec::new();
    let read = request.as_reader().take(MAX_BODY).read_to_end(&mut body);
    let result = {
        let head = Head::read(&request);
        let incoming = Incoming {
            at: Timestamp::now(),
            headers: &head.trace,
            host: head.host,
            method: head.method,
            path: head.path,
        };
        let trace = tracer.begin(&incoming, SCOPE, Cow::Borrowed("POST"));
        match head.origin {
            Some(origin) => Err(format!("a page of {origin} wants calls to be made; none are")),
            None => read.map_err(|error| error.to_string()).and_then(|_| call_all(&trace, &body)),
        }
    };
    let (status, text) = match result {
        Ok(()) => (200, "{}".to_owned()),
        Err(message) => (502, json!({ "message": message }).to_string()),
    };
    let mut response = Response::from_string(text).with_status_code(status);
    if let Ok(header) = Header::from_bytes("Content-Type", "application/json") {
        response.add_header(header);
    }
    if let Err(error) = request.respond(response) {
        eprintln!("the suite hung up: {error}");
    }
}

fn call_all(trace: &RequestTrace<'_>, body: &[u8]) -> Result<(), String> {
    let all: Vec<Wanted> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    all.iter().try_for_each(|Wanted { url, arguments }| post(trace, url, &arguments.to_string()))
}

/// Posts a JSON text in a CLIENT span, with its headers.
fn post(trace: &RequestTrace<'_>, url: &str, json: &str) -> Result<(), String> {
    let url = Url::parse(url).ok_or_else(|| format!("{url:?} is no URL to call"))?;
    let span = trace.client_span(SCOPE, "POST");
    let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    headers.extend(span.context_headers().into_iter().map(|(name, value)| (name.to_owned(), value)));
    let call = Call { url: &url, headers: &headers, body: json.as_bytes(), timeout: Some(TIMEOUT) };
    let client = HttpClient::new(&url, &Certificates::default())?;
    let reply = client.post(&call).map_err(|error| format!("{url}: {error}"))?;
    if (200..300).contains(&reply.status) { Ok(()) } else { Err(format!("{url} answered {}", reply.status)) }
}
