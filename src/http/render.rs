//! Bytes of a response, and the line of the access log. Both reuse their memory for every request.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};

use super::body::BodyState;
use super::cors::Cors;
use super::head::Head;
use super::response::Response;
use crate::text::ip::IpText;
use crate::text::{is_plain, reason_phrase};
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
        push(
            bytes,
            &["HTTP/1.1 ", itoa::Buffer::new().format(response.status), " ", reason_phrase(response.status), "\r\n"],
        );
        let mut put = |name: &str, value: &str| push(bytes, &[name, ": ", value, "\r\n"]);
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
            put("traceparent", trace.traceparent().as_str());
            if !trace.trace_state().is_empty() {
                put("tracestate", trace.trace_state());
            }
            let (root, decision) = (trace.trace_id().xray(), trace.xray_answer());
            push(bytes, &["X-Amzn-Trace-Id: Root=", root.as_str(), decision, "\r\n"]);
        }
        if body_state == BodyState::Unread || *closing {
            push(bytes, &["Connection: close\r\n"]);
        }
        push(bytes, &["Content-Length: ", itoa::Buffer::new().format(response.body.len()), "\r\n\r\n"]);
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
        line.extend(["[", minute, "] "]);
        match head.peer {
            Some(peer) => line.push_str(&IpText::of(peer.ip().to_canonical())),
            None => line.push('-'),
        }
        line.push(' ');
        push_printable(line, head.method);
        line.extend([" ", head.scheme(), " "]);
        push_printable(line, head.path);
        if let Some(query) = head.redacted_query() {
            line.push('?');
            push_printable(line, &query);
        }
        line.extend([" ", itoa::Buffer::new().format(status), " ", reason_phrase(status)]);
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

fn push(bytes: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        bytes.extend_from_slice(part.as_bytes());
    }
}

/// Appends a text of the client. Control characters are escaped: they could begin another line of
/// the log, or control the terminal that shows it.
fn push_printable(line: &mut String, text: &str) {
    if text.len() <= MAX_IN_LINE && is_plain(text) {
        return line.push_str(text);
    }
    for c in text.chars().take(MAX_IN_LINE) {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
}
