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
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::delivery::{Encoder, Payload};
use crate::logging::LogLine;
use crate::plain_json::time_millis;
use crate::text::cut_bytes;
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
    /// Flat JSON object, whose fields Logs Insights finds by itself.
    Json,
    /// Text.
    Text,
}

const MAX_EVENTS: usize = 10_000;
const MAX_BYTES: usize = 1_048_576;
const BYTES_AN_EVENT: usize = 26;
const MAX_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// Limit of a message in the partitions with the old limit of an event, 256 KiB.
const MAX_MESSAGE: usize = 256 * 1024 - BYTES_AN_EVENT;

/// ```text
/// {"logGroupName":"cruddur","logStreamName":"host",
///  "logEvents":[{"timestamp":1768480496123,"message":"..."}]}
/// ```
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PutLogEvents<'a> {
    log_group_name: &'a str,
    log_stream_name: &'a str,
    log_events: &'a [LogEvent],
}

#[derive(Serialize)]
struct LogEvent {
    timestamp: u64,
    message: String,
    #[serde(skip)]
    trace: Option<TraceId>,
}

impl Encoder<LogLine> for LogEvents {
    /// Divides the lines among valid requests. `clock_offset` converts their times to the service's
    /// clock.
    fn encode(&self, batch: &[Arc<LogLine>], clock_offset: i64) -> Vec<Payload> {
        let event = |line: &Arc<LogLine>| LogEvent {
            timestamp: line.time.saturating_add_signed(clock_offset),
            message: not_empty(cut_bytes(self.message(line), MAX_MESSAGE)),
            trace: line.span.map(|span| span.trace_id),
        };
        let mut log_events: Vec<LogEvent> = batch.iter().map(event).collect();
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
    fn payload(&self, log_events: &[LogEvent]) -> Payload {
        let request = PutLogEvents { log_group_name: &self.group, log_stream_name: &self.stream, log_events };
        let mut bytes = Vec::with_capacity(log_events.len() * 256);
        serde_json::to_writer(&mut bytes, &request)
            .expect("writing to memory cannot fail, and no Serialize here returns an error of its own");
        // The lines of one request mostly follow each other.
        let mut traces: Vec<TraceId> = log_events.iter().filter_map(|event| event.trace).collect();
        traces.dedup();
        Payload { bytes, items: log_events.len(), traces, trimmed: None }
    }

    fn message(&self, line: &LogLine) -> String {
        if self.format == LineFormat::Json {
            // Every part is text, so it cannot fail.
            return serde_json::to_string(&JsonLine(line)).unwrap_or_default();
        }
        let mut text = format!("{} {:<5} {}: {}", time(line.time), line.level, line.target, line.message);
        for (key, value) in &line.key_values {
            text.push_str(&format!(" {key}={value}"));
        }
        if let Some(span) = &line.span {
            let xray = span.trace_id.xray();
            text.push_str(&format!(" trace_id={} xray_trace_id={xray} span_id={}", span.trace_id, span.span_id));
        }
        text
    }
}

/// Number of these events that fit into one request; at least one.
fn fitting(events: &[LogEvent]) -> usize {
    let mut bytes = 0;
    let fit = events.iter().take(MAX_EVENTS).take_while(|event| {
        bytes += event.message.len() + BYTES_AN_EVENT;
        bytes <= MAX_BYTES && event.timestamp - events[0].timestamp < MAX_MILLIS
    });
    fit.count().max(1)
}

/// ```text
/// {"time":"2026-11-22T23:57:13.123Z","level":"INFO","target":"access",
///  "message":"[2026-Nov-22 23:57] 127.0.0.1 ...","trace_id":"4efa...",
///  "xray_trace_id":"1-4efaaf4d-1e87...","span_id":"5399...","status":"200"}
/// ```
struct JsonLine<'a>(&'a LogLine);

impl Serialize for JsonLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let line = self.0;
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("time", &time(line.time))?;
        object.serialize_entry("level", line.level.as_str())?;
        object.serialize_entry("target", &line.target)?;
        object.serialize_entry("message", &line.message)?;
        if let Some(span) = &line.span {
            object.serialize_entry("trace_id", &span.trace_id)?;
            object.serialize_entry("xray_trace_id", &span.trace_id.xray())?;
            object.serialize_entry("span_id", &span.span_id)?;
        }
        for (key, value) in line.key_values.iter().filter(|(key, _)| !OUR_KEYS.contains(&key.as_str())) {
            object.serialize_entry(key, value)?;
        }
        object.end()
    }
}

const OUR_KEYS: [&str; 7] = ["time", "level", "target", "message", "trace_id", "xray_trace_id", "span_id"];

fn time(millis: u64) -> String {
    let time = i64::try_from(millis).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    time_millis(time)
}

/// Replaces an empty message by a blank: the service requires one byte.
fn not_empty(text: String) -> String {
    if text.is_empty() { " ".to_owned() } else { text }
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
    fn a_flat_object_is_what_a_line_is() {
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
        let long = cut_bytes("🦀".repeat(100), 50);
        assert!(long.len() <= 50 && long.ends_with(" [cut]") && long.starts_with('🦀'));
        assert_eq!(not_empty(String::new()), " ");
        assert_eq!(cut_bytes("x".repeat(50), 50).len(), 50);
    }
}
