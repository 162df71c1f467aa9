//! Bodies. tiny_http has read those of up to 1,024 bytes before we see their request; for all others somebody has to
//! wait, and that is never the request loop: a thread reads them, or refuses them, and hands the request back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tiny_http::{Request, Server};

use super::head::Head;
use super::response::Failure;
use super::routes::RequestContext;
use super::spawn::spawn_with_request;
use crate::sync::lock;
use crate::trace::span::Timestamp;

/// A request whose body is dealt with, one way or the other.
pub struct ReceivedRequest {
    /// The request.
    pub request: Request,
    /// When its head came in.
    pub at: Timestamp,
    /// Its body, or why there is none.
    pub body: Result<Vec<u8>, RejectedRequest>,
}

/// A request that is not answered as it wishes.
#[derive(Clone, Debug)]
pub struct RejectedRequest {
    /// Why.
    pub failure: Failure,
    /// Whether its body, or a part of it, is still to come: then it must not be dropped, see [`super::send`].
    pub unread: bool,
}

/// The longest body that is read: 1,024 characters, each escaped in JSON as `\ud83d\ude00`, and some room.
const MAX_BODY: usize = 16 * 1024;
/// What tiny_http reads by itself.
const READ_AHEAD: usize = 1024;
/// How long a body may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Threads that read bodies at the same time, and requests that wait for one.
const MAX_READERS: usize = 64;
const MAX_WAITING: usize = 256;

/// Reads bodies on other threads.
pub struct BodyReader {
    server: Arc<Server>,
    ready: Arc<Mutex<VecDeque<ReceivedRequest>>>,
    reading: Arc<AtomicUsize>,
    waiting: VecDeque<(Request, Timestamp, usize)>,
}

impl BodyReader {
    /// `server` is woken when a body has been read.
    #[must_use]
    pub fn new(server: Arc<Server>) -> Self {
        Self { server, ready: Arc::default(), reading: Arc::default(), waiting: VecDeque::new() }
    }

    /// Takes a request that just came in. It comes back at once if its body is there, or is refused; otherwise a
    /// thread reads it, and [`Self::ready`] hands it back.
    pub fn arrived(&mut self, request: Request) -> Option<ReceivedRequest> {
        let at = Timestamp::now();
        let head = Head::read(&request);
        let length = request.body_length().unwrap_or(0);
        let refused = |failure: Failure, unread| Err(RejectedRequest { failure, unread });
        let upgrade = request.headers().iter().any(|header| {
            header.field.equiv("connection") && header.value.as_str().to_ascii_lowercase().contains("upgrade")
        });
        let expect = request.headers().iter().any(|header| header.field.equiv("expect"));
        let is_here = length == 0 || (length <= READ_AHEAD && !upgrade && !expect);
        let body = if head.is_chunked {
            let message = "a chunked body is not read here; send Content-Length instead of Transfer-Encoding";
            refused(Failure::rejected(411, message), true)
        } else if length > MAX_BODY {
            let message = format!("the body is too large: at most {MAX_BODY} bytes are read");
            refused(Failure::rejected(413, message), true)
        } else if let Some(problem) = head.problem {
            refused(problem, !is_here)
        } else if head.method == "POST" && !head.has_length {
            let message = "Content-Length is missing; send a JSON object as the body";
            refused(Failure::rejected(411, message), false)
        } else if is_here {
            Ok(())
        } else {
            self.read(request, at, length);
            return None;
        };
        Some(match body {
            Err(refused) => ReceivedRequest { request, at, body: Err(refused) },
            Ok(()) => here(request, at, length),
        })
    }

    /// The next request whose body a thread has dealt with.
    pub fn ready(&mut self) -> Option<ReceivedRequest> {
        while self.reading.load(Ordering::Acquire) < MAX_READERS
            && let Some((request, at, length)) = self.waiting.pop_front()
        {
            self.start(request, at, length);
        }
        lock(&self.ready).pop_front()
    }

    /// Whether requests are still being read.
    #[must_use]
    pub fn are_pending(&self) -> bool {
        self.reading.load(Ordering::Acquire) > 0 || !self.waiting.is_empty() || !lock(&self.ready).is_empty()
    }

    fn read(&mut self, request: Request, at: Timestamp, length: usize) {
        if self.reading.load(Ordering::Acquire) < MAX_READERS {
            self.start(request, at, length);
        } else if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back((request, at, length));
        } else {
            self.hand_back(busy(request, at));
        }
    }

    fn start(&self, request: Request, at: Timestamp, length: usize) {
        let (ready, reading, server) = (Arc::clone(&self.ready), Arc::clone(&self.reading), Arc::clone(&self.server));
        self.reading.fetch_add(1, Ordering::AcqRel);
        let given_back = spawn_with_request("body", request, move |request| {
            let arrived = read_body(request, at, length);
            lock(&ready).push_back(arrived);
            reading.fetch_sub(1, Ordering::AcqRel);
            server.unblock();
        });
        if let Some(request) = given_back {
            self.reading.fetch_sub(1, Ordering::AcqRel);
            self.hand_back(busy(request, at));
        }
    }

    fn hand_back(&self, arrived: ReceivedRequest) {
        lock(&self.ready).push_back(arrived);
    }
}

/// The body is in tiny_http's buffer: reading it does not wait.
fn here(mut request: Request, at: Timestamp, length: usize) -> ReceivedRequest {
    let mut body = Vec::new();
    if length > 0 {
        body.reserve_exact(length);
        // Reading from memory cannot fail.
        let _ = request.as_reader().read_to_end(&mut body);
    }
    ReceivedRequest { request, at, body: Ok(body) }
}

/// On its own thread: reads `length` bytes, or gives up when they take too long.
fn read_body(mut request: Request, at: Timestamp, length: usize) -> ReceivedRequest {
    let began = Instant::now();
    let mut body = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let too_late = began.elapsed() >= TIMEOUT;
        match if too_late { Ok(0) } else { request.as_reader().read(&mut body[filled..]) } {
            Ok(0) | Err(_) => {
                let waited = began.elapsed().as_secs_f64();
                let message = format!("the body broke off: {filled} of {length} bytes came within {waited:.0} seconds");
                let refused = RejectedRequest { failure: Failure::rejected(408, message), unread: true };
                return ReceivedRequest { request, at, body: Err(refused) };
            }
            Ok(count) => filled += count,
        }
    }
    ReceivedRequest { request, at, body: Ok(body) }
}

fn busy(request: Request, at: Timestamp) -> ReceivedRequest {
    let failure = Failure::rejected(503, "too many bodies are being read; try again");
    ReceivedRequest { request, at, body: Err(RejectedRequest { failure, unread: true }) }
}

/// The text fields of a JSON object.
///
/// # Errors
///
/// The body is something else: 400 with a sentence, or 415 for an encoding that is not read here.
pub fn fields<const N: usize>(call: &RequestContext<'_>, names: [&'static str; N]) -> Result<[String; N], Failure> {
    let bad = |message: String| Failure::rejected(400, message);
    let wanted = || {
        format!(
            "send a JSON object with {}, as application/json",
            names.map(|name| format!("\"{name}\"")).join(" and ")
        )
    };
    if let Some(encoding) = call.content_encoding.filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(Failure::rejected(
            415,
            format!("Content-Encoding: {encoding} is not read here; send the body as it is"),
        ));
    }
    let content_type = call.content_type.unwrap_or_default();
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    let kind = kind.trim().to_ascii_lowercase();
    if kind != "application/json" && !(kind.starts_with("application/") && kind.ends_with("+json")) {
        let found = if kind.is_empty() { "no Content-Type".to_owned() } else { format!("Content-Type: {kind}") };
        return Err(bad(format!("the request has {found}; {}", wanted())));
    }
    if let Some((_, charset)) = parameters.to_ascii_lowercase().split_once("charset=") {
        let charset = charset.split(';').next().unwrap_or_default().trim().trim_matches('"');
        if charset != "utf-8" && charset != "utf8" {
            return Err(Failure::rejected(415, format!("charset={charset} is not read here; send UTF-8")));
        }
    }
    if call.body.is_empty() {
        return Err(bad(format!("the body is empty; {}", wanted())));
    }
    let json: Json = serde_json::from_slice(call.body).map_err(|error| bad(format!("the body is no JSON: {error}")))?;
    let Json::Object(mut object) = json else {
        return Err(bad(format!("the body is {}; {}", kind_of(&json), wanted())));
    };
    let mut texts = names.map(|_| String::new());
    for (name, text) in names.into_iter().zip(&mut texts) {
        *text = match object.remove(name) {
            Some(Json::String(text)) => text,
            Some(other) => return Err(bad(format!("\"{name}\" must be text, not {}", kind_of(&other)))),
            None => return Err(bad(format!("the key \"{name}\" is missing; {}", wanted()))),
        };
    }
    Ok(texts)
}

fn kind_of(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::String(_) => "text",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}
