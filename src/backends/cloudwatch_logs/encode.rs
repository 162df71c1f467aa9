//! Log lines as PutLogEvents requests within the limits of the service.
//!
//! ```text
//! request   1 to 10,000 events, in the order of their times, all within 24 hours
//!           at most 1,048,576 bytes: the UTF-8 of every message, and 26 more for each
//! message   at least 1 byte, at most 256 KiB (newer partitions accept more)
//! ```
//!
//! One invalid event makes the service refuse the whole request, so every event is made valid here.

use std::sync::Arc;

use chrono::DateTime;

use crate::delivery::{Encoder, Payload};
use crate::logging::LogLine;
use crate::text::cut_bytes;
use crate::text::json::Json;
use crate::text::time::{self, TimeText};
use crate::trace::id::TraceId;

/// Encoder of log lines as PutLogEvents requests.
#[derive(Clone, Debug)]
pub(super) struct LogEvents {
    /// Log group.
    pub(super) group: String,
    /// Log stream.
    pub(super) stream: String,
    /// Format of the messages.
    pub(super) format: LineFormat,
}

/// Format of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LineFormat {
    /// Flat JSON object. Logs Insights finds its fields by itself.
    Json,
    /// Text.
    Text,
}

/// Usual size of a message besides the text of the line, and of the JSON around a message.
const BYTES_BESIDE_TEXT: usize = 320;
const BYTES_BESIDE_MESSAGE: usize = 48;
const MAX_EVENTS: usize = 10_000;
const MAX_BYTES: usize = 1_048_576;
const BYTES_AN_EVENT: usize = 26;
const MAX_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// Limit of a message. Some AWS partitions still limit an event to 256 KiB.
const MAX_MESSAGE: usize = 256 * 1024 - BYTES_AN_EVENT;

/// Log line that became an event, within the limit of a message.
struct LogEvent<'a> {
    timestamp: u64,
    /// Escaped, so at least as long as the text that the service counts.
    message: &'a [u8],
    trace: Option<TraceId>,
}

/// ```text
/// {"logGroupName":"cruddur","logStreamName":"host",
///  "logEvents":[{"timestamp":1768480496123,"message":"..."}]}
/// ```
fn request(json: &mut Json, group: &str, stream: &str, events: &[LogEvent<'_>]) {
    // Log group. It is created with the first line, with a retention.
    json.raw(r#"{"logGroupName":"#).string(group);
    // Log stream: one for each machine.
    json.raw(r#","logStreamName":"#).string(stream);
    // In the order of their times, all within 24 hours, at most 10,000.
    json.raw(r#","logEvents":["#);
    json.separated(events, |json, event| {
        // Milliseconds since 1970. Events older than 14 days, or than the retention, are not stored.
        json.raw(r#"{"timestamp":"#).unsigned(event.timestamp);
        // The line. AWS charges for its bytes and 26 more.
        json.raw(r#","message":""#).raw_bytes(event.message).raw("\"}");
    });
    json.raw("]}");
}

/// ```text
/// {"time":"2026-11-22T23:57:13.123Z","level":"INFO","target":"access",
///  "message":"[2026-Nov-22 23:57] 127.0.0.1 ...","trace_id":"4efa...",
///  "xray_trace_id":"1-4efaaf4d-1e87...","span_id":"5399...","status":"200"}
/// ```
///
/// It is a string in the request, so each of its quotation marks is written with a backslash.
fn line(json: &mut Json, line: &LogLine) {
    // Time of the line. Logs Insights finds this field and the others by itself.
    json.raw(r#"{\"time\":\""#).raw_bytes(time(line.time));
    // ERROR, WARN, INFO or DEBUG. The access line of a 5xx is an ERROR.
    json.raw(r#"\",\"level\":\""#).raw(line.level.as_str());
    // Part of the program that wrote the line.
    json.raw(r#"\",\"target\":\""#).escaped_twice(&line.target);
    // Text of the line. For a request it is the access line that Flask wrote in the course.
    json.raw(r#"\",\"message\":\""#).escaped_twice(&line.message);
    if let Some(span) = &line.span {
        // The trace id as Honeycomb has it.
        json.raw(r#"\",\"trace_id\":\""#).raw_bytes(span.trace_id.hex());
        // The trace id as X-Ray has it, for the search of its console.
        json.raw(r#"\",\"xray_trace_id\":\""#).raw_bytes(span.trace_id.xray());
        // The span in which the line was written.
        json.raw(r#"\",\"span_id\":\""#).raw_bytes(span.span_id.hex());
    }
    for (key, value) in line.key_values.iter().filter(|(key, _)| !OUR_KEYS.contains(&key.as_str())) {
        json.raw(r#"\",\""#).escaped_twice(key).raw(r#"\":\""#).escaped_twice(value);
    }
    json.raw(r#"\"}"#);
}

const OUR_KEYS: [&str; 7] = ["time", "level", "target", "message", "trace_id", "xray_trace_id", "span_id"];

impl Encoder<LogLine> for LogEvents {
    /// Divides the lines among valid requests. `clock_offset` converts their times to the service's
    /// clock.
    fn encode(&self, batch: &[Arc<LogLine>], clock_offset: i64) -> Vec<Payload> {
        let lengths = batch.iter().map(|line| line.message.len());
        let mut messages = Json::with_capacity(lengths.sum::<usize>() + batch.len() * BYTES_BESIDE_TEXT);
        let mut write = |line: &Arc<LogLine>| {
            let start = messages.as_bytes().len();
            self.message(&mut messages, line);
            if messages.as_bytes().len() - start > MAX_MESSAGE {
                cut(&mut messages, start);
            }
            messages.as_bytes().len()
        };
        let ends: Vec<usize> = batch.iter().map(&mut write).collect();
        let mut start = 0;
        let event = |(line, end): (&Arc<LogLine>, usize)| LogEvent {
            timestamp: line.time.saturating_add_signed(clock_offset),
            message: not_empty(&messages.as_bytes()[std::mem::replace(&mut start, end)..end]),
            trace: line.span.map(|span| span.trace_id),
        };
        let mut log_events: Vec<LogEvent<'_>> = batch.iter().zip(ends).map(event).collect();
        // Lines of several threads may be out of order. The sort is stable.
        log_events.sort_by_key(|event| event.timestamp);
        let mut payloads = Vec::new();
        let mut rest = &log_events[..];
        while !rest.is_empty() {
            let (first, others) = rest.split_at(fitting(rest));
            payloads.push(self.payload(first));
            rest = others;
        }
        payloads
    }
}

impl LogEvents {
    fn payload(&self, log_events: &[LogEvent<'_>]) -> Payload {
        let lengths = log_events.iter().map(|event| event.message.len());
        let mut json = Json::with_capacity(lengths.sum::<usize>() + log_events.len() * BYTES_BESIDE_MESSAGE);
        request(&mut json, &self.group, &self.stream, log_events);
        // The lines of one request mostly follow each other.
        let mut traces: Vec<TraceId> = log_events.iter().filter_map(|event| event.trace).collect();
        traces.dedup();
        Payload { bytes: json.into_bytes(), items: log_events.len(), traces, trimmed: None }
    }

    /// Appends the message of a line, escaped.
    fn message(&self, to: &mut Json, line: &LogLine) {
        if self.format == LineFormat::Json {
            return self::line(to, line);
        }
        let mut text = format!("{} {:<5} {}: {}", time(line.time), line.level, line.target, line.message);
        for (key, value) in &line.key_values {
            text.extend([" ", key, "=", value]);
        }
        if let Some(span) = &line.span {
            let xray = span.trace_id.xray();
            text.push_str(&format!(" trace_id={} xray_trace_id={xray} span_id={}", span.trace_id, span.span_id));
        }
        to.escaped(&text);
    }
}

/// Cuts the message that begins at `start` to its limit, which counts the text before it is escaped.
fn cut(messages: &mut Json, start: usize) {
    let string = [b"\"", &messages.as_bytes()[start..], b"\""].concat();
    let text: String = serde_json::from_slice(&string).unwrap_or_default();
    messages.truncate(start);
    messages.escaped(&cut_bytes(text, MAX_MESSAGE));
}

/// Returns the number of events that fit into one request, at least one.
fn fitting(events: &[LogEvent<'_>]) -> usize {
    let mut bytes = 0;
    let fit = events.iter().take(MAX_EVENTS).take_while(|event| {
        bytes += event.message.len() + BYTES_AN_EVENT;
        bytes <= MAX_BYTES && event.timestamp - events[0].timestamp < MAX_MILLIS
    });
    fit.count().max(1)
}

fn time(millis: u64) -> TimeText {
    let time = i64::try_from(millis).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    time::millis(time)
}

/// Replaces an empty message by a blank: the service requires one byte.
fn not_empty(text: &[u8]) -> &[u8] {
    if text.is_empty() { b" " } else { text }
}

#[cfg(test)]
mod tests {
    use log::Level;
    use serde_json::Value as Json;

    use super::*;
    use crate::golden;
    use crate::trace::context::TraceFlags;
    use crate::trace::current::Current;
    use crate::trace::id::{IdSource, SpanId, TraceId};

    fn encoder(format: LineFormat) -> LogEvents {
        LogEvents { group: "cruddur".to_owned(), stream: "host".to_owned(), format }
    }

    fn line(time: u64, message: impl Into<String>) -> Arc<LogLine> {
        Arc::new(LogLine {
            time,
            level: Level::Info,
            target: "access".to_owned(),
            message: message.into(),
            key_values: vec![("status".to_owned(), "200".to_owned()), ("level".to_owned(), "mine".to_owned())],
            span: Some(Current {
                trace_id: TraceId::from_hex("4efaaf4d1e8720b39541901950019ee5").unwrap(),
                span_id: SpanId::from_hex("53995c3f42cd8ad8").unwrap(),
                flags: TraceFlags { sampled: true, random: true },
            }),
        })
    }

    #[test]
    fn a_line_carries_its_ids_in_both_spellings() {
        let message = "[2026-Nov-22 23:57] 127.0.0.1 GET http /api/activities/home 200 OK ✓";
        for (format, name) in [(LineFormat::Json, "cloudwatch_json.txt"), (LineFormat::Text, "cloudwatch_text.txt")] {
            let payloads = encoder(format).encode(&[line(1_768_480_496_123, message)], 0);
            assert_eq!((payloads.len(), payloads[0].items), (1, 1));
            golden::check(name, &payloads[0].bytes);
        }
    }

    #[test]
    fn a_line_is_a_flat_object() {
        let payload = encoder(LineFormat::Json).encode(&[line(0, "say \"hi\"\n")], 0).remove(0);
        let request: Json = serde_json::from_slice(&payload.bytes).unwrap();
        let message: Json = serde_json::from_str(request["logEvents"][0]["message"].as_str().unwrap()).unwrap();
        assert_eq!(message["message"], "say \"hi\"\n");
        assert_eq!((&message["level"], &message["status"]), (&"INFO".into(), &"200".into()));
        assert_eq!(message["xray_trace_id"], "1-4efaaf4d-1e8720b39541901950019ee5");
        assert!(message.as_object().unwrap().values().all(Json::is_string));
    }

    #[test]
    fn a_line_has_the_time_that_the_services_clock_would_have_shown() {
        let payload = encoder(LineFormat::Json).encode(&[line(1000, "x")], -600).remove(0);
        let request: Json = serde_json::from_slice(&payload.bytes).unwrap();
        assert_eq!(request["logEvents"][0]["timestamp"], 400);
    }

    /// Encodes random lines at random times.
    #[test]
    fn any_lines_give_only_valid_requests_and_none_is_lost() {
        let source = IdSource::new();
        for round in 0..40 {
            let random = |below: u32| u32::from_ne_bytes(source.bytes()) % below.max(1);
            let count = [1, 50, 3000, 12_000][round % 4];
            let batch: Vec<_> = (0..count)
                .map(|n| {
                    let time = u64::from(random([1, 1000, 400_000_000][round % 3]));
                    let long = count < 100 && random(5) == 0;
                    let text = ["é", "x", "🦀", "\u{0}", ""][random(5) as usize];
                    line(time, format!("{n} {}", text.repeat(if long { random(400_000) as usize } else { 3 })))
                })
                .collect();
            let format = if random(2) == 0 { LineFormat::Json } else { LineFormat::Text };
            let payloads = encoder(format).encode(&batch, 0);
            assert_eq!(payloads.iter().map(|payload| payload.items).sum::<usize>(), batch.len());
            for payload in &payloads {
                check(payload);
            }
        }
    }

    fn check(payload: &Payload) {
        let request: Json = serde_json::from_slice(&payload.bytes).unwrap();
        let events = request["logEvents"].as_array().unwrap();
        assert_eq!(events.len(), payload.items);
        assert!((1..=10_000).contains(&events.len()));
        let times: Vec<u64> = events.iter().map(|event| event["timestamp"].as_u64().unwrap()).collect();
        assert!(times.is_sorted() && times[times.len() - 1] - times[0] < 24 * 60 * 60 * 1000);
        let sizes = events.iter().map(|event| event["message"].as_str().unwrap().len());
        assert!(sizes.clone().all(|size| size > 0 && size + 26 <= 256 * 1024));
        assert!(sizes.map(|size| size + 26).sum::<usize>() <= 1_048_576);
    }

    #[test]
    fn a_message_that_is_too_long_is_cut_at_a_character_and_marked() {
        let long = line(1000, "🦀".repeat(MAX_MESSAGE / 4));
        let payload = encoder(LineFormat::Text).encode(&[long], 0).remove(0);
        let request: Json = serde_json::from_slice(&payload.bytes).unwrap();
        let message = request["logEvents"][0]["message"].as_str().unwrap();
        assert!(message.len() <= MAX_MESSAGE && message.len() > MAX_MESSAGE - 4, "{}", message.len());
        assert!(message.ends_with("🦀 [cut]"));
        assert_eq!(not_empty(b""), b" ");
    }
}
