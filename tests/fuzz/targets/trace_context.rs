//! `traceparent`, `tracestate`, `baggage` and `X-Amzn-Trace-Id`: what is sent on is valid, bounded,
//! and read again as the same.

use std::borrow::Cow;

use super::assert_one_line;
use crate::trace::context::{Propagator, RemoteParent, TraceFlags, TraceHeaders, baggage, extract, traceparent};
use crate::trace::id::IdSource;
use crate::trace::sampler::Sampler;
use crate::trace::span::{Limits, Scope, Timestamp};
use crate::trace::{Incoming, Tracer};

const SCOPE: Scope = Scope::named("fuzz");
/// Members of a `tracestate` times the length of the longest, with a comma.
const MAX_STATE: usize = 32 * (256 + 1 + 256 + 1);

/// One header on each line, in lower case: `traceparent: ...`.
pub(super) fn headers(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut headers = TraceHeaders::default();
    for line in text.split('\n') {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.trim();
        match name {
            "traceparent" => headers.traceparent.push(value),
            "tracestate" => headers.tracestate.push(value),
            "baggage" => headers.baggage.push(value),
            "x-amzn-trace-id" => drop(headers.x_amzn_trace_id.get_or_insert(value)),
            _ => {}
        }
    }
    check_baggage(&headers.baggage);
    TRACERS.with(|tracers| {
        for tracer in tracers {
            let parent = extract(&tracer.propagators, &headers);
            if let Some(parent) = &parent {
                check_parent(parent);
            }
            check_outgoing(tracer, &headers, parent.as_ref());
        }
    });
}

thread_local! {
    static TRACERS: Vec<Tracer> = {
        use Propagator::{Baggage, TraceContext, XRay};
        let orders = [&Propagator::ALL[..], &[TraceContext], &[XRay], &[XRay, TraceContext, Baggage]];
        orders.into_iter().flat_map(|order| [tracer(order, true), tracer(order, false)]).collect()
    };
}

/// A tracer that samples what its caller samples, and requests without a caller.
pub(crate) fn tracer(propagators: &[Propagator], recording: bool) -> Tracer {
    Tracer {
        ids: IdSource::new(),
        recording,
        propagators: propagators.to_vec(),
        sampler: Sampler::named("parentbased_always_on", 1.0).expect("a name of a sampler"),
        backend_samplers: Vec::new(),
        limits: Limits::default(),
    }
}

fn check_baggage(headers: &[&str]) {
    let joined = baggage(headers);
    assert!(joined.len() <= 8192 && joined.split(',').count() <= 180, "{joined:?}");
    assert!(joined.bytes().all(|byte| byte == b'\t' || (0x20..0x7f).contains(&byte)), "{joined:?}");
    assert_eq!(baggage(&[&joined]), joined);
}

fn check_parent(parent: &RemoteParent) {
    assert_one_line(&parent.trace_state, MAX_STATE);
    assert_one_line(&parent.xray_extra, 256);
    let Some(span_id) = parent.span_id else { return };
    let flags = TraceFlags { sampled: parent.sampled.unwrap_or_default(), random: parent.random };
    let written = traceparent(parent.trace_id, span_id, flags);
    let headers = TraceHeaders {
        traceparent: vec![written.as_str()],
        tracestate: vec![&parent.trace_state],
        ..Default::default()
    };
    let again = extract(&[Propagator::TraceContext], &headers).expect("what was written is read");
    assert_eq!((again.trace_id, again.span_id, again.random), (parent.trace_id, parent.span_id, parent.random));
    assert_eq!((again.sampled.unwrap_or_default(), &again.trace_state), (flags.sampled, &parent.trace_state));
}

/// The headers of an outgoing call continue the trace that came in.
fn check_outgoing(tracer: &Tracer, headers: &TraceHeaders<'_>, parent: Option<&RemoteParent>) {
    let incoming = Incoming { at: Timestamp::now(), headers, host: None, method: "GET", path: "/" };
    let trace = tracer.begin(&incoming, SCOPE, Cow::Borrowed("fuzz"));
    let outgoing = trace.span(SCOPE, "call").context_headers();
    let value = |wanted: &str| outgoing.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_str());
    for (name, value) in &outgoing {
        let fits = |byte: u8| (0x20..0x7f).contains(&byte) || (byte == b'\t' && *name == "baggage");
        assert!(!value.is_empty() && value.len() <= MAX_STATE && value.bytes().all(fits), "{name}: {value:?}");
    }
    let sent = TraceHeaders {
        traceparent: value("traceparent").into_iter().collect(),
        tracestate: value("tracestate").into_iter().collect(),
        baggage: value("baggage").into_iter().collect(),
        x_amzn_trace_id: value("X-Amzn-Trace-Id"),
    };
    let received = extract(&tracer.propagators, &sent);
    if let Some(received) = &received {
        assert_eq!(received.trace_id, trace.trace_id());
    } else {
        // Without a span of ours, a context that lacks one cannot be passed on.
        assert!(!tracer.recording, "nothing was sent on");
    }
    let Some(parent) = parent else { return };
    assert_eq!(trace.trace_id(), parent.trace_id);
    if let Some(received) = received {
        assert_eq!(received.trace_state, if sent.traceparent.is_empty() { "" } else { &parent.trace_state });
        if let (Some(theirs), Some(ours)) = (parent.sampled, received.sampled) {
            assert_eq!(theirs, ours, "the decision changed on the way");
        }
    }
}
