//! `GET /telemetry/deliveries` and `GET /telemetry/deliveries/{backend}-{number}`: the last
//! payloads of every backend.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use crate::delivery::{BatchProcessor, Delivery, Pipeline};
use crate::text::time;
use crate::trace::id::TraceId;
use crate::wire::recorded::{RecordedCall, RecordedResponse};
use crate::wire::sigv4::sha256;

/// `{"deliveries":{"honeycomb":[...],...}}`, the newest first.
#[derive(Serialize)]
pub(super) struct DeliveryListView {
    deliveries: BTreeMap<&'static str, Vec<DeliverySummaryView>>,
}

/// A payload in one line.
#[derive(Serialize)]
pub(super) struct DeliverySummaryView {
    /// `honeycomb-12`
    id: String,
    number: u64,
    at: String,
    took_ms: f64,
    /// Size of the payload.
    bytes: usize,
    /// Number of spans or lines.
    items: usize,
    tries: u32,
    /// `sending`, `waiting`, `delivered`, `partly delivered`, `refused`, `unconfirmed`,
    /// `stored`, `dropped`
    end: &'static str,
    /// HTTP status of the last response.
    status: Option<u16>,
    /// The last problem and the next step.
    said: Option<String>,
}

/// A payload and the calls that sent it.
#[derive(Serialize)]
pub(super) struct DeliveryView {
    #[serde(flatten)]
    summary: DeliverySummaryView,
    backend: &'static str,
    traces: Vec<TraceId>,
    /// A note on parts that were left out, if there are any.
    trimmed: Option<String>,
    payload: BytesView,
    exchanges: Vec<CallView>,
}

/// Bytes: as text if they are UTF-8, as base64 if they are not.
#[derive(Serialize)]
struct BytesView {
    size: usize,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// One call, as it was recorded.
#[derive(Serialize)]
struct CallView {
    to: String,
    head: String,
    /// Body of the call; null if it is the payload.
    body: Option<BytesView>,
    canonical_request: Option<String>,
    string_to_sign: Option<String>,
    answer: Option<ResponseView>,
    /// Reason why no response came.
    error: Option<String>,
}

/// A response, as it was recorded.
#[derive(Serialize)]
struct ResponseView {
    status: u16,
    head: String,
    body: BytesView,
    /// Size of the whole body; only its beginning is kept.
    whole_size: usize,
}

impl DeliveryListView {
    pub(super) fn new(pipeline: &Pipeline) -> Self {
        let all = |processor: &BatchProcessor| (processor.plan.name, summaries(processor, |_| true));
        Self { deliveries: pipeline.processors().iter().map(all).collect() }
    }
}

impl DeliverySummaryView {
    fn new(processor: &BatchProcessor, delivery: &Delivery) -> Self {
        Self {
            id: format!("{}-{}", processor.plan.name, delivery.number),
            number: delivery.number,
            at: time::millis(delivery.began.into()).to_string(),
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

/// The payloads that carry spans or log lines of a trace.
pub(super) fn of_trace(pipeline: &Pipeline, trace: TraceId) -> Vec<DeliverySummaryView> {
    let carries = |delivery: &Delivery| delivery.payload.traces.contains(&trace);
    pipeline.processors().iter().flat_map(|processor| summaries(processor, carries)).collect()
}

/// The deliveries of one backend that `wanted` selects, the newest first.
fn summaries(processor: &BatchProcessor, wanted: impl Fn(&Delivery) -> bool) -> Vec<DeliverySummaryView> {
    let summary = |delivery: &Delivery| wanted(delivery).then(|| DeliverySummaryView::new(processor, delivery));
    processor.stats.deliveries.newest_first(summary)
}

impl DeliveryView {
    /// The delivery with this id, for instance `honeycomb-12`, if it is still kept.
    pub(super) fn find(pipeline: &Pipeline, id: &str) -> Option<Self> {
        let (backend, number) = id.rsplit_once('-')?;
        let processor = pipeline.processors().iter().find(|processor| processor.plan.name == backend)?;
        let delivery = processor.stats.deliveries.numbered(number.parse().ok()?)?;
        Some(Self {
            summary: DeliverySummaryView::new(processor, &delivery),
            backend: processor.plan.name,
            traces: delivery.payload.traces.clone(),
            trimmed: delivery.payload.trimmed.as_ref().map(|problem| problem.message.to_string()),
            payload: BytesView::new(&delivery.payload.bytes),
            exchanges: delivery.exchanges.into_iter().map(CallView::new).collect(),
        })
    }
}

impl BytesView {
    fn new(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).ok().map(str::to_owned);
        let base64 = text.is_none().then(|| BASE64.encode(bytes));
        Self { size: bytes.len(), sha256: sha256(bytes), text, base64 }
    }
}

impl CallView {
    fn new(exchange: RecordedCall) -> Self {
        let (canonical_request, string_to_sign) = match exchange.signing {
            Some(signing) => (Some(signing.canonical_request), Some(signing.string_to_sign)),
            None => (None, None),
        };
        let (answer, error) = match exchange.answer {
            Some(Ok(answer)) => (Some(ResponseView::new(answer)), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        let body = exchange.body.as_deref().map(BytesView::new);
        Self {
            to: exchange.to.to_string(),
            head: exchange.head,
            body,
            canonical_request,
            string_to_sign,
            answer,
            error,
        }
    }
}

impl ResponseView {
    fn new(answer: RecordedResponse) -> Self {
        let RecordedResponse { status, head, body, body_size, .. } = answer;
        Self { status, head, body: BytesView::new(&body), whole_size: body_size }
    }
}
