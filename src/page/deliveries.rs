//! `GET /telemetry/deliveries` and `GET /telemetry/deliveries/{backend}-{number}`: the last payloads of every backend.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use super::rfc3339;
use crate::delivery::{Delivery, Lane, Pipeline};
use crate::trace::id::TraceId;
use crate::wire::exchange::{Answered, Exchange};
use crate::wire::sigv4::sha256;

/// `{"deliveries":{"honeycomb":[...],...}}`, the newest first.
#[derive(Serialize)]
pub(super) struct List {
    deliveries: BTreeMap<&'static str, Vec<Summary>>,
}

/// A payload in a line.
#[derive(Serialize)]
pub(super) struct Summary {
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
pub(super) struct Whole {
    #[serde(flatten)]
    summary: Summary,
    backend: &'static str,
    traces: Vec<TraceId>,
    trimmed: Option<String>,
    payload: Bytes,
    exchanges: Vec<ExchangeJson>,
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
struct ExchangeJson {
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

impl List {
    pub(super) fn of(pipeline: &Pipeline) -> Self {
        let of_lane = |lane: &Lane| {
            (lane.name, lane.ledger.deliveries.newest_first(|delivery| Some(Summary::of(lane, delivery))))
        };
        Self { deliveries: pipeline.lanes().iter().map(of_lane).collect() }
    }
}

impl Summary {
    fn of(lane: &Lane, delivery: &Delivery) -> Self {
        Self {
            id: format!("{}-{}", lane.name, delivery.number),
            number: delivery.number,
            at: rfc3339(delivery.began),
            took_ms: delivery.took.as_secs_f64() * 1000.0,
            bytes: delivery.payload.bytes.len(),
            items: delivery.payload.items,
            tries: delivery.tries,
            end: delivery.end.as_str(),
            status: delivery.exchanges.iter().rev().find_map(|exchange| match &exchange.answer {
                Some(Ok(answer)) => Some(answer.status),
                _ => None,
            }),
            said: delivery.said.clone(),
        }
    }
}

/// The payloads that carry a trace, or its lines.
pub(super) fn of_trace(pipeline: &Pipeline, trace: TraceId) -> Vec<Summary> {
    let lanes = pipeline.lanes().iter();
    let carries = |delivery: &Delivery| delivery.payload.traces.contains(&trace);
    let of_lane = |lane: &Lane| {
        lane.ledger.deliveries.newest_first(|delivery| carries(delivery).then(|| Summary::of(lane, delivery)))
    };
    lanes.flat_map(of_lane).collect()
}

impl Whole {
    /// The delivery of that id, if it is still kept.
    pub(super) fn of(pipeline: &Pipeline, id: &str) -> Option<Self> {
        let (backend, number) = id.rsplit_once('-')?;
        let lane = pipeline.lanes().iter().find(|lane| lane.name == backend)?;
        let delivery = lane.ledger.deliveries.numbered(number.parse().ok()?)?;
        Some(Self {
            summary: Summary::of(lane, &delivery),
            backend: lane.name,
            traces: delivery.payload.traces.clone(),
            trimmed: delivery.payload.trimmed.as_ref().map(|problem| problem.text.clone()),
            payload: Bytes::of(&delivery.payload.bytes),
            exchanges: delivery.exchanges.into_iter().map(ExchangeJson::of).collect(),
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

impl ExchangeJson {
    fn of(exchange: Exchange) -> Self {
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
    fn of(answer: Answered) -> Self {
        let Answered { status, head, body, body_size, .. } = answer;
        Self { status, head, body: Bytes::of(&body), whole_size: body_size }
    }
}
