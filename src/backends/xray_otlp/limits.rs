//! Finished traces within the limits of X-Ray's OTLP endpoint. The bytes come from the encoder of
//! `[honeycomb]`. A batch within the limits becomes the same bytes there and here.
//!
//! ```text
//! request   at most 5 MB before compression, and 10,000 spans
//!           at most 24 hours between the earliest and the latest start
//! span      at most 200 KB; its start at most 14 days back, and 2 hours ahead
//! ```
//!
//! A batch that exceeds a limit becomes several requests. A span that is too large loses its largest
//! attributes and events; OTLP's own fields count them. Times are converted to the service's clock if
//! ours is wrong, so no span is ahead. Only the service can refuse a span as too old. Such a span is
//! in a request without new ones, because both would be more than 24 hours apart.

use std::borrow::Cow;
use std::sync::Arc;

use crate::backends::otlp_http::encode::OtlpJson;
use crate::delivery::{Encoder, Payload, Problem};
use crate::text::first_chars;
use crate::trace::FinishedTrace;
use crate::trace::span::{Attribute, SpanData, Status};

/// Encoder of finished traces as requests to the endpoint.
pub(super) struct XRaySpans {
    pub(super) otlp: OtlpJson,
    pub(super) limits: Limits,
}

/// Limits of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Spans of a request.
    pub(super) spans: usize,
    /// Bytes of a span. The resource is counted too, because X-Ray stores it with each span.
    pub(super) span: usize,
    /// Nanoseconds between the starts of two spans. One request cannot have both.
    pub(super) period: u64,
}

/// Limits of AWS. It writes "5 MB" and "200 KB"; these are the smaller meanings.
const AWS: Limits = Limits { spans: 10_000, span: 200_000, period: 24 * 60 * 60 * 1_000_000_000 };
/// Largest body before compression.
const MAX_BODY: usize = 5_000_000;
/// Bytes of JSON for a byte in memory, at most. A control character becomes `\u0001`.
const MAX_EXPANSION: usize = 6;
/// Longest name and status message of a span that is still too large without its attributes.
const MAX_TEXT: usize = 1000;

/// Trace, or a part of one, that fits into a request.
struct Piece {
    trace: Arc<FinishedTrace>,
    /// Earliest and latest start.
    starts: (u64, u64),
    trimmed: Option<Problem>,
}

impl Encoder<FinishedTrace> for XRaySpans {
    fn encode(&self, batch: &[Arc<FinishedTrace>], clock_offset: i64) -> Vec<Payload> {
        let mut pieces = Vec::with_capacity(batch.len());
        for trace in batch {
            let (trace, trimmed) = self.trim(on_clock_of_service(trace, clock_offset));
            self.divide(trace, trimmed, &mut pieces);
        }
        let mut payloads = Vec::new();
        let mut rest = pieces.as_mut_slice();
        while !rest.is_empty() {
            let (first, others) = rest.split_at_mut(self.fitting(rest));
            let traces: Vec<_> = first.iter().map(|piece| Arc::clone(&piece.trace)).collect();
            // The encoder halves a batch whose body would be too large.
            let mut requests = self.otlp.encode(&traces, 0);
            if let Some(request) = requests.first_mut() {
                request.trimmed = first[0].trimmed.take();
            }
            payloads.append(&mut requests);
            rest = others;
        }
        payloads
    }
}

impl XRaySpans {
    pub(super) fn new(resource: Vec<Attribute>) -> Self {
        Self { otlp: OtlpJson { resource, max_body: MAX_BODY }, limits: AWS }
    }

    /// Appends the trace, halved until each part fits.
    fn divide(&self, trace: Arc<FinishedTrace>, trimmed: Option<Problem>, pieces: &mut Vec<Piece>) {
        let starts = starts(&trace);
        let fits = trace.spans.len() <= self.limits.spans && starts.1 - starts.0 < self.limits.period;
        if trace.spans.len() > 1 && !(fits && self.is_within(&trace, self.otlp.max_body)) {
            let (first, second) = halves(&trace);
            self.divide(first, trimmed, pieces);
            self.divide(second, None, pieces);
            return;
        }
        pieces.push(Piece { trace, starts, trimmed });
    }

    /// Returns the trace with every span within its limit, and a description of what was dropped.
    fn trim(&self, trace: Arc<FinishedTrace>) -> (Arc<FinishedTrace>, Option<Problem>) {
        if self.longest(&trace) <= self.limits.span {
            return (trace, None);
        }
        let (most, mut trimmed) = (self.limits.span, Vec::new());
        for (index, span) in trace.spans.iter().enumerate() {
            let mut alone = Arc::new(FinishedTrace { spans: vec![span.clone()], ..without_spans(&trace) });
            let mut is_trimmed = false;
            while !self.is_within(&alone, most) && drop_largest(&mut Arc::make_mut(&mut alone).spans[0]) {
                is_trimmed = true;
            }
            if is_trimmed {
                trimmed.push((index, alone.spans[0].clone()));
            }
        }
        let Some((_, first)) = trimmed.first() else { return (trace, None) };
        let (count, name) = (trimmed.len(), first_chars(&first.name, 100));
        let spans = if count == 1 { "span" } else { "spans" };
        let what = format!(
            "{count} {spans} of more than {most} bytes went without their largest attributes and events; the first is {name:?}"
        );
        let mut spans = trace.spans.clone();
        trimmed.into_iter().for_each(|(index, span)| spans[index] = span);
        let trace = FinishedTrace { spans, ..without_spans(&trace) };
        (Arc::new(trace), Some(Problem::new("trimmed", what)))
    }

    /// Returns the number of pieces that fit into one request. A trimmed piece has a request of its own,
    /// so that each is counted.
    fn fitting(&self, pieces: &[Piece]) -> usize {
        let (mut spans, mut period) = (0, pieces[0].starts);
        for (index, piece) in pieces.iter().enumerate() {
            spans += piece.trace.spans.len();
            period = (period.0.min(piece.starts.0), period.1.max(piece.starts.1));
            let is_alone = piece.trimmed.is_some() || pieces[0].trimmed.is_some();
            if index > 0 && (is_alone || spans > self.limits.spans || period.1 - period.0 >= self.limits.period) {
                return index;
            }
        }
        pieces.len()
    }

    /// Returns true if the body with only this trace has at most `most` bytes. The trace is encoded
    /// only if that is not certain.
    fn is_within(&self, trace: &Arc<FinishedTrace>, most: usize) -> bool {
        let length = || self.otlp.encode(std::slice::from_ref(trace), 0).iter().map(|it| it.bytes.len()).sum::<usize>();
        self.longest(trace) <= most || length() <= most
    }

    /// Returns a length that the body with only this trace cannot exceed.
    fn longest(&self, trace: &FinishedTrace) -> usize {
        let messages = trace.spans.iter().map(|span| match &span.rare().status {
            Status::Error(message) => message.len(),
            Status::Unset => 0,
        });
        let resource = self.otlp.resource.iter().map(|it| size_of::<Attribute>() + it.key.len() + it.value.size());
        (trace.size() + messages.chain(resource).sum::<usize>()) * MAX_EXPANSION
    }
}

/// Returns the earliest and the latest start of a trace.
fn starts(trace: &FinishedTrace) -> (u64, u64) {
    let starts = || trace.spans.iter().map(|span| span.start);
    (starts().min().unwrap_or_default(), starts().max().unwrap_or_default())
}

/// Returns the trace with the times of the service's clock. `offset` is in milliseconds, and 0 if our
/// clock is right.
fn on_clock_of_service(trace: &Arc<FinishedTrace>, offset: i64) -> Arc<FinishedTrace> {
    if offset == 0 {
        return Arc::clone(trace);
    }
    let shifted = |time: u64| time.saturating_add_signed(offset.saturating_mul(1_000_000));
    let mut spans = trace.spans.clone();
    for span in &mut spans {
        (span.start, span.end) = (shifted(span.start), shifted(span.end));
        let events = span.rare.iter_mut().flat_map(|rare| &mut rare.events);
        events.for_each(|event| event.time = shifted(event.time));
    }
    Arc::new(FinishedTrace { spans, ..without_spans(trace) })
}

/// Divides a trace. Only the first half begins with the span of the request, which has the caller's
/// `tracestate` and a parent in another process.
fn halves(trace: &FinishedTrace) -> (Arc<FinishedTrace>, Arc<FinishedTrace>) {
    let (first, second) = trace.spans.split_at(trace.spans.len() / 2);
    let part = |spans: &[SpanData]| FinishedTrace { spans: spans.to_vec(), ..without_spans(trace) };
    let second = FinishedTrace { trace_state: String::new(), remote_parent: false, ..part(second) };
    (Arc::new(part(first)), Arc::new(second))
}

fn without_spans(trace: &FinishedTrace) -> FinishedTrace {
    FinishedTrace {
        trace_id: trace.trace_id,
        trace_state: trace.trace_state.clone(),
        flags: trace.flags,
        remote_parent: trace.remote_parent,
        decision: trace.decision.clone(),
        backend_decisions: Vec::new(),
        spans: Vec::new(),
    }
}

/// Drops the largest attribute, metadata or event of a span, and counts it. If there is none, cuts
/// the texts. Returns false if that changes nothing.
fn drop_largest(span: &mut SpanData) -> bool {
    let size = |attribute: &Attribute| attribute.key.len() + attribute.value.size();
    let of_events = span.rare().events.iter().map(|event| event.attributes.iter().map(size).sum());
    let attribute = largest(span.attributes.iter().map(size));
    let metadata = largest(span.rare().metadata.iter().map(|it| it.value.size()));
    let event = largest(of_events);
    let Some(most) = [attribute, metadata, event].into_iter().flatten().map(|(size, _)| size).max() else {
        return cut_texts(span);
    };
    let is_largest = |found: Option<(usize, usize)>| found.filter(|(size, _)| *size == most).map(|(_, index)| index);
    if let Some(index) = is_largest(metadata) {
        span.rare_mut().metadata.remove(index);
        span.rare_mut().dropped_attributes += 1;
    } else if let Some(index) = is_largest(event) {
        span.rare_mut().events.remove(index);
        span.rare_mut().dropped_events += 1;
    } else if let Some(index) = is_largest(attribute) {
        span.attributes.remove(index);
        span.rare_mut().dropped_attributes += 1;
    }
    true
}

/// Returns the largest size, with its index.
fn largest(sizes: impl Iterator<Item = usize>) -> Option<(usize, usize)> {
    sizes.enumerate().map(|(index, size)| (size, index)).max()
}

fn cut_texts(span: &mut SpanData) -> bool {
    let before = span.name.len();
    span.name = Cow::Owned(first_chars(&span.name, MAX_TEXT).to_owned());
    let mut is_changed = span.name.len() < before;
    if let Some(rare) = &mut span.rare
        && let Status::Error(message) = &mut rare.status
    {
        let cut = first_chars(message, MAX_TEXT).to_owned();
        is_changed |= cut.len() < message.len();
        *message = cut;
    }
    is_changed
}
