//! A loopback X-Ray OTLP endpoint that is as strict as the real one. It verifies every signature with
//! its own code, has its own clock, and enforces every limit of a request. A test can make it
//! misbehave, or switch Transaction Search off.
//!
//! Dropping it closes every connection and ends every thread.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::aws::{Account, REGION, Refusal, Trick, Tricks, key_id};
use super::connections::Connections;
use super::http::{Reply, Request, header, serve};
use super::time::http_date;
use super::watched::Watched;

const MILLI: u64 = 1_000_000;
const HOUR: u64 = 3_600_000 * MILLI;

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct SignedCall {
    /// The headers as received, with names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body as received.
    pub(crate) raw_body: Vec<u8>,
    /// The body, decompressed if it was compressed with gzip.
    pub(crate) body: Vec<u8>,
    /// Status of the response; `None` if there was no response.
    pub(crate) status: Option<u16>,
}

/// The endpoint.
pub(crate) struct XRayEndpoint {
    connections: Connections,
    shared: Arc<Watched<State>>,
}

#[derive(Default)]
struct State {
    account: Account,
    is_search_off: bool,
    is_denied: bool,
    tricks: Tricks,
    calls: Vec<SignedCall>,
    accepted: Vec<Value>,
}

impl SignedCall {
    /// The first header with this name (lower case).
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Id of the key that the request was signed with.
    pub(crate) fn key_id(&self) -> &str {
        key_id(&self.headers)
    }
}

impl XRayEndpoint {
    /// Starts with Transaction Search on. It accepts the key `key_id` with `secret`.
    pub(crate) fn start(key_id: &str, secret: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let shared = Arc::<Watched<State>>::default();
        let for_connections = Arc::clone(&shared);
        let connections = Connections::serve(listener, move |stream| {
            serve(stream, |request| Some(for_connections.change(|state| state.reply_to(request))));
        });
        let endpoint = Self { connections, shared };
        endpoint.add_key(key_id, secret, None);
        endpoint
    }

    /// Base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.connections.addr())
    }

    /// Accepts this key from now on. A key with a token is valid only together with the token.
    pub(crate) fn add_key(&self, id: &str, secret: &str, token: Option<&str>) {
        self.shared.lock().account.add_key(id, secret, token);
    }

    /// Treats this key as expired from now on.
    pub(crate) fn expire_key(&self, id: &str) {
        self.shared.lock().account.expire_key(id);
    }

    /// Switches Transaction Search on or off.
    pub(crate) fn set_search(&self, is_on: bool) {
        self.shared.lock().is_search_off = !is_on;
    }

    /// Denies the key every action, or allows them again.
    pub(crate) fn set_denied(&self, is_denied: bool) {
        self.shared.lock().is_denied = is_denied;
    }

    /// Sets its clock this many seconds ahead of ours from now on.
    pub(crate) fn set_clock(&self, ahead: i64) {
        self.shared.lock().account.clock = ahead;
    }

    /// Plays this trick on the next `times` calls.
    pub(crate) fn play(&self, times: usize, trick: Trick) {
        self.shared.lock().tricks.add(times, trick);
    }

    /// Plays no more tricks.
    pub(crate) fn behave(&self) {
        self.shared.lock().tricks = Tricks::default();
    }

    /// Closes every connection. Clients that wait for a response notice.
    pub(crate) fn hang_up(&self) {
        self.connections.hang_up();
    }

    /// The calls so far.
    pub(crate) fn calls(&self) -> Vec<SignedCall> {
        self.shared.lock().calls.clone()
    }

    /// Every span accepted so far, in the order of arrival.
    pub(crate) fn spans(&self) -> Vec<Value> {
        self.shared.lock().accepted.clone()
    }

    /// Waits until `count` spans are accepted, and returns all of them.
    #[track_caller]
    pub(crate) fn wait_for_spans(&self, count: usize, timeout: Duration) -> Vec<Value> {
        if let Some(state) = self.shared.wait(timeout, |state| state.accepted.len() >= count) {
            return state.accepted.clone();
        }
        let state = self.shared.lock();
        let calls: Vec<_> = state.calls.iter().map(|call| call.status).collect();
        panic!("{} spans, not {count}, within {timeout:?}; the calls: {calls:?}", state.accepted.len());
    }

    /// Waits until this many calls have been made.
    #[track_caller]
    pub(crate) fn wait_for_calls(&self, count: usize, timeout: Duration) {
        let came = self.shared.wait(timeout, |state| state.calls.len() >= count).is_some();
        assert!(came, "not {count} calls within {timeout:?}");
    }
}

impl State {
    /// Does what a call asks for, or plays a trick, and records the call.
    fn reply_to(&mut self, request: Request) -> Reply {
        let trick = self.tricks.next();
        let body = request.unzipped().unwrap_or_default();
        let work = match &trick {
            None | Some(Trick::WorkAndAnswer(_) | Trick::WorkAndReset) => self.work(&request, &body),
            Some(_) => Ok(json!({})),
        };
        let reply = match (work, trick) {
            (Err(refusal), _) => self.refuse(&refusal),
            (Ok(_), Some(Trick::Error(status, code, message))) => self.refuse(&Refusal(status, code, message)),
            (Ok(_), Some(Trick::Answer(status, body))) => self.answer(status, None, body.into()),
            (Ok(_), Some(Trick::WorkAndAnswer(body))) => self.answer(200, None, body.into()),
            (Ok(_), Some(Trick::WorkAndReset | Trick::Reset)) => Reply::Reset,
            (Ok(_), Some(Trick::Hang)) => Reply::Hang,
            (Ok(_), Some(Trick::Garbage)) => Reply::Garbage,
            (Ok(answer), None) => self.answer(200, None, answer.to_string().into_bytes()),
        };
        let status = if let Reply::Answer(status, ..) = &reply { Some(*status) } else { None };
        let Request { headers, raw_body, .. } = request;
        self.calls.push(SignedCall { headers, raw_body, body, status });
        reply
    }

    fn refuse(&self, Refusal(status, code, message): &Refusal) -> Reply {
        self.answer(*status, Some(code), json!({ "message": message }).to_string().into_bytes())
    }

    fn answer(&self, status: u16, code: Option<&str>, body: Vec<u8>) -> Reply {
        let named = code.filter(|code| !code.is_empty()).map(|code| ("x-amzn-errortype", format!("{code}:")));
        let headers = [("Content-Type", "application/json".to_owned()), ("Date", http_date(self.account.now() / 1000))];
        let headers = headers.into_iter().chain(named).map(|(name, value)| (name.to_owned(), value));
        Reply::Answer(status, headers.collect(), body)
    }

    /// Checks the signature and every limit, then accepts the spans.
    fn work(&mut self, request: &Request, body: &[u8]) -> Result<Value, Refusal> {
        self.account.authenticate(request, "xray").map_err(|(code, message)| Refusal(403, code, message))?;
        if (request.method.as_str(), request.path.as_str()) != ("POST", "/v1/traces") {
            return Err(Refusal(404, "UnknownOperationException", "only POST /v1/traces".to_owned()));
        }
        if header(&request.headers, "content-type") != Some("application/json") {
            return Err(Refusal(415, "UnsupportedMediaTypeException", "only application/json".to_owned()));
        }
        if self.is_denied {
            let message = format!(
                "User: arn:aws:iam::123456789012:user/cruddur is not authorized to perform: xray:PutSpans on resource: \
                 arn:aws:xray:{REGION}:123456789012:* because no identity-based policy allows the xray:PutSpans action"
            );
            return Err(Refusal(403, "AccessDeniedException", message));
        }
        if self.is_search_off {
            let message = "The OTLP API is supported with CloudWatch Logs as a Trace Segment Destination. Please enable the \
                           CloudWatch Logs destination for your traces using the UpdateTraceSegmentDestination API";
            return Err(Refusal(400, "InvalidRequestException", message.to_owned()));
        }
        if body.len() > 5_000_000 {
            return Err(Refusal(413, "", "Request entity too large".to_owned()));
        }
        let spans = checked_spans(body, self.account.now() * MILLI)?;
        self.accepted.extend(spans);
        Ok(json!({}))
    }
}

/// Returns the spans of a body, after checking every limit. `now` is in nanoseconds.
fn checked_spans(body: &[u8], now: u64) -> Result<Vec<Value>, Refusal> {
    let invalid = |message: &str| Refusal(400, "InvalidRequestException", message.to_owned());
    let body: Value = serde_json::from_slice(body).map_err(|_| invalid("the body is not JSON"))?;
    let resources = body["resourceSpans"].as_array().ok_or_else(|| invalid("there are no resourceSpans"))?;
    let scopes = resources.iter().filter_map(|resource| resource["scopeSpans"].as_array()).flatten();
    let spans: Vec<Value> = scopes.filter_map(|scope| scope["spans"].as_array()).flatten().cloned().collect();
    if spans.is_empty() || spans.len() > 10_000 {
        return Err(invalid("a request has 1 to 10,000 spans"));
    }
    if spans.iter().any(|span| span.to_string().len() > 200_000) {
        return Err(invalid("a span is larger than 200 KB"));
    }
    let start = |span: &Value| span["startTimeUnixNano"].as_str().and_then(|text| text.parse().ok());
    let starts = spans.iter().map(start).collect::<Option<Vec<u64>>>();
    let starts = starts.ok_or_else(|| invalid("a start is not a number in a string"))?;
    let (first, last) = (starts.iter().min().copied().unwrap_or(0), starts.iter().max().copied().unwrap_or(0));
    if last - first > 24 * HOUR {
        return Err(invalid("the spans are more than 24 hours apart"));
    }
    if first + 14 * 24 * HOUR < now || last > now + 2 * HOUR {
        return Err(invalid("a span is older than 14 days, or more than 2 hours ahead"));
    }
    Ok(spans)
}
