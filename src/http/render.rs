//! Bytes of a response, and the line of the access log. Both reuse their memory for every request.

use std::fmt::Write as _;
use std::io::Write as _;

use chrono::{DateTime, Utc};

use super::body::BodyState;
use super::cors::Cors;
use super::head::Head;
use super::response::Response;
use crate::text::reason_phrase;
use crate::trace::RequestTrace;

/// Writes responses as bytes.
pub(super) struct ResponseRenderer {
    cors: Cors,
    bytes: Vec<u8>,
    date: CachedText,
    /// True once every client is asked to close its connection.
    closing: bool,
}

/// Writes lines of the access log.
#[derive(Default)]
pub(super) struct AccessLog {
    line: String,
    minute: CachedText,
}

/// A time as text, formatted again only when the text changes.
#[derive(Default)]
struct CachedText {
    valid_for: i64,
    text: String,
}

/// Maximum length of a path, and of a query, in the access log, in characters.
const MAX_IN_LINE: usize = 2048;

impl ResponseRenderer {
    /// A renderer that adds the headers of `cors`.
    pub(super) fn new(cors: Cors) -> Self {
        Self { cors, bytes: Vec::new(), date: CachedText::default(), closing: false }
    }

    /// From now on every client is asked to close its connection.
    pub(super) fn close_connections(&mut self) {
        self.closing = true;
    }

    /// The bytes of a response. They hold the headers of `trace` if there is one. A client whose
    /// body was not read is asked to close the connection.
    pub(super) fn render(
        &mut self,
        head: &Head<'_>,
        response: &Response,
        trace: Option<&RequestTrace<'_>>,
        body_state: BodyState,
    ) -> &[u8] {
        let Self { cors, bytes, date, closing } = self;
        let now = Utc::now();
        let date = date.get(now.timestamp(), now, "%a, %d %b %Y %H:%M:%S GMT");
        bytes.clear();
        let _ = write!(bytes, "HTTP/1.1 {} {}\r\n", response.status, reason_phrase(response.status));
        let mut put = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                bytes.extend_from_slice(part.as_bytes());
            }
        };
        put("Date", date);
        if !response.body.is_empty() {
            put("Content-Type", response.content_type);
        }
        for (name, value) in response.headers {
            put(name, value);
        }
        if let Some(allow) = response.allow {
            put("Allow", allow);
        }
        cors.headers(head, &mut put);
        if let Some(trace) = trace {
            put("traceparent", &trace.traceparent());
            if !trace.trace_state().is_empty() {
                put("tracestate", trace.trace_state());
            }
            put("X-Amzn-Trace-Id", &trace.x_amzn_trace_id());
        }
        if body_state == BodyState::Unread || *closing {
            put("Connection", "close");
        }
        let _ = write!(bytes, "Content-Length: {}\r\n\r\n", response.body.len());
        if head.method != "HEAD" {
            bytes.extend_from_slice(&response.body);
        }
        bytes
    }
}

impl AccessLog {
    /// `[2023-Feb-25 22:17] 127.0.0.1 GET http /api/activities/home 200 OK`, the course's format.
    pub(super) fn line(&mut self, head: &Head<'_>, status: u16) -> &str {
        let Self { line, minute } = self;
        let now = Utc::now();
        let minute = minute.get(now.timestamp() / 60, now, "%Y-%b-%d %H:%M");
        line.clear();
        let _ = write!(line, "[{minute}] ");
        let _ = match head.peer {
            Some(peer) => write!(line, "{}", peer.ip().to_canonical()),
            None => line.write_char('-'),
        };
        line.push(' ');
        push_printable(line, head.method);
        let _ = write!(line, " {} ", head.scheme());
        push_printable(line, head.path);
        if let Some(query) = head.redacted_query() {
            line.push('?');
            push_printable(line, &query);
        }
        let _ = write!(line, " {status} {}", reason_phrase(status));
        line
    }
}

impl CachedText {
    fn get(&mut self, valid_for: i64, now: DateTime<Utc>, format: &str) -> &str {
        if self.valid_for != valid_for || self.text.is_empty() {
            self.valid_for = valid_for;
            self.text.clear();
            let _ = write!(self.text, "{}", now.format(format));
        }
        &self.text
    }
}

/// Appends a text of the client. Control characters are escaped: they could begin another line of
/// the log, or control the terminal that shows it.
fn push_printable(line: &mut String, text: &str) {
    for c in text.chars().take(MAX_IN_LINE) {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
}
