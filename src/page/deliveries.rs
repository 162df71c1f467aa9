//! `GET /telemetry/deliveries` and `GET /telemetry/deliveries/{backend}-{number}`: the last payloads of every backend.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use super::rfc3339;
use crate::delivery::{BatchProcessor, Delivery, Pipeline};
use crate::trace::id::TraceId;
use crate::wire::recorded::{RecordedCall, RecordedResponse};
use crate::wire::sigv4::sha256;

/// `{"deliveries":{"honeycomb":[...],...}}`, the newest first.
#[derive(Serialize)]
pub(super) struct DeliveryList {
    deliveries: BTreeMap<&'static str, Vec<DeliverySummary>>,
}

/// A payload in a line.
#[derive(Serialize)]
pub(super) struct DeliverySummary {
    /// `honeycomb-12`
    id: String,
    number: u64,
    at: String,
    took_ms: f64,
    /// Of the payload.
    bytes: usize,
    /// Spans or lines.
    items: usize,
    tries: u32,
    /// `sending`, `waiting`, `delivered`, `partly delivered`, `refused`, `dropped`
    end: &'static str,
    /// Of the last answer.
    status: Option<u16>,
    said: Option<String>,
}

/// A payload and the calls that carried it.
#[derive(Serialize)]
pub(super) struct DeliveryDetail {
    #[serde(flatten)]
    summary: DeliverySummary,
    backend: &'static str,
    traces: Vec<TraceId>,
    trimmed: Option<String>,
    payload: Bytes,
    exchanges: Vec<CallJson>,
}

/// Text if it is UTF-8, base64 if it is not.
#[derive(Serialize)]
struct Bytes {
    size: usize,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

#[derive(Serialize)]
struct CallJson {
    to: String,
    head: String,
    /// Null: the payload.
    body: Option<Bytes>,
    canonical_request: Option<String>,
    string_to_sign: Option<String>,
    answer: Option<AnswerJson>,
    /// Why there is no answer.
    error: Option<String>,
}

#[derive(Serialize)]
struct AnswerJson {
    status: u16,
    head: String,
    body: Bytes,
    /// How long the whole body was; only its beginning is kept.
    whole_size: usize,
}

impl DeliveryList {
    pub(super) fn of(pipeline: &Pipeline) -> Self {
        let of_processor = |processor: &BatchProcessor| {
            (
                processor.name,
                processor.stats.deliveries.newest_first(|delivery| Some(DeliverySummary::of(processor, delivery))),
            )
        };
        Self { deliveries: pipeline.processors().iter().map(of_processor).collect() }
    }
}

impl DeliverySummary {
    fn of(processor: &BatchProcessor, delivery: &Delivery) -> Self {
        Self {
            id: format!("{}-{}", processor.name, delivery.number),
            number: delivery.number,
            at: rfc3339(delivery.began),
            took_ms: delivery.took.as_secs_f64() * 1000.0,
            bytes: delivery.payload.bytes.len(),
            items: delivery.payload.items,
            tries: delivery.tries,
            end: delivery.status.as_str(),
            status: delivery.exchanges.iter().rev().find_map(|exchange| match &exchange.answer {
                Some(Ok(answer)) => Some(answer.status),
                _ => None,
            }),
            said: delivery.message.as_ref().map(ToString::to_string),
        }
    }
}

/// The payloads that carry a trace, or its lines.
pub(super) fn of_trace(pipeline: &Pipeline, trace: TraceId) -> Vec<DeliverySummary> {
    let processors = pipeline.processors().iter();
    let carries = |delivery: &Delivery| delivery.payload.traces.contains(&trace);
    let of_processor = |processor: &BatchProcessor| {
        processor
            .stats
            .deliveries
            .newest_first(|delivery| carries(delivery).then(|| DeliverySummary::of(processor, delivery)))
    };
    processors.flat_map(of_processor).collect()
}

impl DeliveryDetail {
    /// The delivery of that id, if it is still kept.
    pub(super) fn of(pipeline: &Pipeline, id: &str) -> Option<Self> {
        let (backend, number) = id.rsplit_once('-')?;
        let processor = pipeline.processors().iter().find(|processor| processor.name == backend)?;
        let delivery = processor.stats.deliveries.numbered(number.parse().ok()?)?;
        Some(Self {
            summary: DeliverySummary::of(processor, &delivery),
            backend: processor.name,
            traces: delivery.payload.traces.clone(),
            trimmed: delivery.payload.trimmed.as_ref().map(|problem| problem.message.to_string()),
            payload: Bytes::of(&delivery.payload.bytes),
            exchanges: delivery.exchanges.into_iter().map(CallJson::of).collect(),
        })
    }
}

impl Bytes {
    fn of(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).ok().map(str::to_owned);
        let base64 = text.is_none().then(|| BASE64.encode(bytes));
        Self { size: bytes.len(), sha256: sha256(bytes), text, base64 }
    }
}

impl CallJson {
    fn of(exchange: RecordedCall) -> Self {
        let (canonical_request, string_to_sign) = match exchange.signing {
            Some(signing) => (Some(signing.canonical_request), Some(signing.string_to_sign)),
            None => (None, None),
        };
        let (answer, error) = match exchange.answer {
            Some(Ok(answer)) => (Some(AnswerJson::of(answer)), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        let body = exchange.body.as_deref().map(Bytes::of);
        Self { to: exchange.to, head: exchange.head, body, canonical_request, string_to_sign, answer, error }
    }
}

impl AnswerJson {
    fn of(answer: RecordedResponse) -> Self {
        let RecordedResponse { status, head, body, body_size, .. } = answer;
        Self { status, head, body: Bytes::of(&body), whole_size: body_size }
    }
}
