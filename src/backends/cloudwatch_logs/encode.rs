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

/// Usual size of an event besides the text of its line.
const BYTES_BESIDE_TEXT: usize = 368;
const MAX_EVENTS: usize = 10_000;
const MAX_BYTES: usize = 1_048_576;
const BYTES_AN_EVENT: usize = 26;
const MAX_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// Limit of a message. Some AWS partitions still limit an event to 256 KiB.
const MAX_MESSAGE: usize = 256 * 1024 - BYTES_AN_EVENT;

/// Writes everything in front of the events.
fn begin(json: &mut Json, group: &str, stream: &str) {
    // Log group. It is created with the first line, with a retention.
    json.raw(r#"{"logGroupName":"#).string(group);
    // Log stream: one for each machine.
    json.raw(r#","logStreamName":"#).string(stream);
    // In the order of their times, all within 24 hours, at most 10,000.
    json.raw(r#","logEvents":["#);
}

/// Returns a request with this log group and stream instead of its own.
pub(super) fn readdress(request: Vec<u8>, group: &str, stream: &str) -> Vec<u8> {
    const EVENTS: &[u8] = br#","logEvents":["#;
    // Quotes in the names before it are escaped, so the first one is the right one.
    let Some(at) = request.windows(EVENTS.len()).position(|window| window == EVENTS) else { return request };
    let mut json = Json::with_capacity(BYTES_BESIDE_TEXT);
    begin(&mut json, group, stream);
    [json.as_bytes(), &request[at + EVENTS.len()..]].concat()
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
        let mut lines: Vec<&LogLine> = batch.iter().map(Arc::as_ref).collect();
        // Lines of several threads may be out of order. The sort is stable.
        lines.sort_by_key(|line| line.time);
        let (mut payloads, mut rest) = (Vec::new(), &lines[..]);
        while !rest.is_empty() {
            let payload = self.request(rest, clock_offset);
            rest = &rest[payload.items..];
            payloads.push(payload);
        }
        payloads
    }
}

impl LogEvents {
    /// Makes a request of as many of the first lines as fit, at least one:
    ///
    /// ```text
    /// {"logGroupName":"cruddur","logStreamName":"host",
    ///  "logEvents":[{"timestamp":1768480496123,"message":"..."}]}
    /// ```
    fn request(&self, lines: &[&LogLine], clock_offset: i64) -> Payload {
        let lengths = lines.iter().map(|line| line.message.len() + BYTES_BESIDE_TEXT);
        let mut json = Json::with_capacity(lengths.sum::<usize>().min(2 * MAX_BYTES));
        begin(&mut json, &self.group, &self.stream);
        let (mut items, mut bytes, mut traces) = (0, 0, Vec::new());
        for line in lines.iter().take(MAX_EVENTS).take_while(|line| line.time - lines[0].time < MAX_MILLIS) {
            let end = json.as_bytes().len();
            json.raw(if items > 0 { "," } else { "" });
            // Milliseconds since 1970. Events older than 14 days, or than the retention, are not stored.
            json.raw(r#"{"timestamp":"#).unsigned(line.time.saturating_add_signed(clock_offset));
            // The line. AWS charges for its bytes and 26 more.
            json.raw(r#","message":""#);
            bytes += self.message(&mut json, line) + BYTES_AN_EVENT;
            if bytes > MAX_BYTES && items > 0 {
                json.truncate(end);
                break;
            }
            json.raw("\"}");
            items += 1;
            traces.extend(line.span.map(|span| span.trace_id));
        }
        json.raw("]}");
        // The lines of one request mostly follow each other.
        traces.dedup();
        Payload { bytes: json.into_bytes(), items, traces, trimmed: None }
    }

    /// Appends the message of a line, escaped, within its limit. Returns its length, which is at least
    /// that of the text that the service counts.
    fn message(&self, json: &mut Json, line: &LogLine) -> usize {
        let start = json.as_bytes().len();
        match self.format {
            LineFormat::Json => self::line(json, line),
            LineFormat::Text => _ = json.escaped(&text(line)),
        }
        if json.as_bytes().len() - start > MAX_MESSAGE {
            cut(json, start);
        }
        json.as_bytes().len() - start
    }
}

/// `2026-11-22T23:57:13.123Z INFO  access: [2026-Nov-22 23:57] 127.0.0.1 ... trace_id=4efa...`
fn text(line: &LogLine) -> String {
    let mut text = format!("{} {:<5} {}: {}", time(line.time), line.level, line.target, line.message);
    for (key, value) in &line.key_values {
        text.extend([" ", key, "=", value]);
    }
    if let Some(span) = &line.span {
        let xray = span.trace_id.xray();
        text.push_str(&format!(" trace_id={} xray_trace_id={xray} span_id={}", span.trace_id, span.span_id));
    }
    text
}

/// Cuts the message that begins at `start` to its limit, which counts the text before it is escaped.
fn cut(json: &mut Json, start: usize) {
    let string = [b"\"", &json.as_bytes()[start..], b"\""].concat();
    let text: String = serde_json::from_slice(&string).unwrap_or_default();
    json.truncate(start);
    json.escaped(&cut_bytes(text, MAX_MESSAGE));
}

fn time(millis: u64) -> TimeText {
    let time = i64::try_from(millis).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    time::millis(time)
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
    }
}
