use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::*;
use crate::http::panics::install_panic_hook;
use crate::trace::context::TraceHeaders;
use crate::trace::id::IdSource;
use crate::trace::sampler::{BackendSampler, Reason, Sampler, SamplingInput};

const SCOPE: Scope = Scope::named("test");

fn tracer() -> Tracer {
    Tracer {
        ids: IdSource::new(),
        recording: true,
        propagators: vec![Propagator::TraceContext, Propagator::Baggage, Propagator::XRay],
        sampler: Sampler::named("parentbased_always_on", 1.0).unwrap(),
        backend_samplers: vec![],
        limits: Limits::default(),
    }
}

fn begin<'t>(tracer: &'t Tracer, headers: &TraceHeaders<'_>) -> RequestTrace<'t> {
    let incoming = Incoming { at: Timestamp::now(), headers, host: None, method: "GET", path: "/" };
    tracer.begin(&incoming, SCOPE, Cow::Borrowed("GET /"))
}

fn parent_name<'s>(trace: &'s FinishedTrace, name: &str) -> &'s str {
    let parent = trace.spans.iter().find(|span| span.name == name).unwrap().parent.unwrap();
    &trace.spans.iter().find(|span| span.id == parent).unwrap().name
}

#[test]
fn spans_nest_as_their_guards_do() {
    let tracer = tracer();
    let trace = begin(&tracer, &TraceHeaders::default());
    {
        let _outer = trace.span(SCOPE, "outer");
        drop(trace.span(SCOPE, "first"));
        drop(trace.span(SCOPE, "second"));
    }
    drop(trace.span(SCOPE, "after"));
    let trace = trace.finish().unwrap();
    assert_eq!(parent_name(&trace, "outer"), "GET /");
    assert_eq!(parent_name(&trace, "first"), "outer");
    assert_eq!(parent_name(&trace, "second"), "outer");
    assert_eq!(parent_name(&trace, "after"), "GET /");
    assert!(trace.spans.iter().all(|span| span.end >= span.start && span.end <= trace.spans[0].end));
    assert_eq!(trace.flags, TraceFlags { sampled: true, random: true });
}

#[test]
fn the_innermost_open_span_is_current_and_none_is_after_the_request() {
    let tracer = tracer();
    let trace = begin(&tracer, &TraceHeaders::default());
    let root = current::span().unwrap();
    let span = trace.span(SCOPE, "inner");
    assert_ne!(current::span().unwrap().span_id, root.span_id);
    assert_eq!(current::span().unwrap().trace_id, trace.trace_id());
    drop(span);
    assert_eq!(current::span(), Some(root));
    drop(trace);
    assert_eq!(current::span(), None);
}

#[test]
fn a_panic_closes_what_is_open_and_is_recorded_on_the_innermost_span() {
    install_panic_hook();
    let tracer = tracer();
    let trace = begin(&tracer, &TraceHeaders::default());
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let _outer = trace.span(SCOPE, "outer");
        let _inner = trace.span(SCOPE, "inner");
        panic!("on purpose");
    }));
    assert!(caught.is_err());
    trace.record_panic();
    let trace = trace.finish().unwrap();
    let failed: Vec<_> = trace.spans.iter().filter(|span| span.failed()).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].name, "inner");
    assert_eq!(failed[0].rare().events[0].name, "exception");
    assert_eq!(failed[0].rare().events[0].attributes[1].value, Value::from("on purpose"));
}

#[test]
fn an_error_is_recorded_where_it_became_one() {
    let tracer = tracer();
    let trace = begin(&tracer, &TraceHeaders::default());
    let exception = {
        let _span = trace.span(SCOPE, "reading");
        Exception::from_error(&std::fmt::Error)
    };
    trace.record_exception(&exception);
    let trace = trace.finish().unwrap();
    assert!(trace.spans[1].failed() && !trace.spans[0].failed());
    assert_eq!(trace.spans[1].rare().events[0].attributes[0].value, Value::from("core::fmt::Error"));
}

#[test]
fn a_guard_that_is_forgotten_ends_with_its_request() {
    let tracer = tracer();
    let trace = begin(&tracer, &TraceHeaders::default());
    mem::forget(trace.span(SCOPE, "forgotten"));
    let trace = trace.finish().unwrap();
    assert_eq!(trace.spans[1].end, trace.spans[0].end);
}

#[test]
fn the_callers_trace_is_joined_and_its_state_passed_on() {
    let tracer = tracer();
    let headers = TraceHeaders {
        traceparent: vec!["00-4efaaf4d1e8720b39541901950019ee5-53995c3f42cd8ad8-01"],
        tracestate: vec!["congo=t61"],
        ..Default::default()
    };
    let trace = begin(&tracer, &headers);
    assert!(trace.traceparent().as_str().starts_with("00-4efaaf4d1e8720b39541901950019ee5-"));
    assert!(trace.traceparent().as_str().ends_with("-01"));
    assert_eq!(trace.xray_answer(), "");
    assert_eq!(trace.trace_state(), "congo=t61");
    let trace = trace.finish().unwrap();
    assert!(trace.remote_parent);
    assert_eq!(trace.spans[0].parent.unwrap().to_string(), "53995c3f42cd8ad8");
}

#[test]
fn a_caller_that_asks_for_the_decision_is_told() {
    let tracer = tracer();
    let header = "Root=1-4efaaf4d-1e8720b39541901950019ee5;Sampled=?";
    let trace = begin(&tracer, &TraceHeaders { x_amzn_trace_id: Some(header), ..Default::default() });
    assert_eq!(trace.xray_answer(), ";Sampled=1");
}

#[test]
fn a_header_that_the_propagators_do_not_name_decides_nothing() {
    struct Echo;
    impl BackendSampler for Echo {
        fn decide(&self, input: &SamplingInput<'_>) -> (Decision, Arc<str>) {
            (Decision { sampled: input.header.unwrap_or(true), reason: Reason::Always }, "echo".into())
        }
        fn describe(&self, _: u64) -> String {
            String::new()
        }
    }
    let parent = "00-4efaaf4d1e8720b39541901950019ee5-53995c3f42cd8ad8-01";
    let unsampled = "Root=1-4efaaf4d-1e8720b39541901950019ee5;Sampled=0";
    let headers =
        TraceHeaders { traceparent: vec![parent], x_amzn_trace_id: Some(unsampled), ..TraceHeaders::default() };
    for (propagators, sampled) in
        [(vec![Propagator::TraceContext], true), (vec![Propagator::TraceContext, Propagator::XRay], false)]
    {
        let tracer = Tracer { propagators, backend_samplers: vec![("echo", Arc::new(Echo))], ..tracer() };
        let trace = begin(&tracer, &headers).finish().unwrap();
        assert_eq!(trace.backend_decisions[0].decision.sampled, sampled);
    }
}

#[test]
fn an_unsampled_trace_keeps_its_id_and_its_spans() {
    let tracer = tracer();
    let header = "Root=1-4efaaf4d-1e8720b39541901950019ee5;Sampled=0";
    let trace = begin(&tracer, &TraceHeaders { x_amzn_trace_id: Some(header), ..Default::default() });
    assert!(trace.traceparent().as_str().ends_with("-00"));
    let trace = trace.finish().unwrap();
    assert!(!trace.decision.sampled);
    assert_eq!(trace.trace_id.xray().as_str(), "1-4efaaf4d-1e8720b39541901950019ee5");
}

#[test]
fn a_disabled_tracer_records_nothing_and_passes_headers_on() {
    let tracer = Tracer { recording: false, ..tracer() };
    let headers = TraceHeaders {
        traceparent: vec!["00-4efaaf4d1e8720b39541901950019ee5-53995c3f42cd8ad8-01"],
        ..Default::default()
    };
    let trace = begin(&tracer, &headers);
    trace.span(SCOPE, "inner").set_attribute("k", "v");
    trace.set_attribute("k", "v");
    assert!(trace.traceparent().as_str().starts_with("00-4efaaf4d1e8720b39541901950019ee5-"));
    assert!(trace.traceparent().as_str().ends_with("-01"));
    assert!(trace.finish().is_none());
}

#[test]
fn a_call_is_told_of_its_own_span_and_of_all_that_the_caller_sent_along() {
    let tracer = tracer();
    let headers = TraceHeaders {
        traceparent: vec!["00-4efaaf4d1e8720b39541901950019ee5-53995c3f42cd8ad8-02"],
        tracestate: vec!["congo=t61"],
        baggage: vec!["userId=alice;p", "a = 1"],
        ..Default::default()
    };
    let trace = begin(&tracer, &headers);
    let first = trace.client_span(SCOPE, "GET").context_headers();
    let second = trace.client_span(SCOPE, "GET").context_headers();
    let trace = trace.finish().unwrap();
    for (headers, span) in [(first, &trace.spans[1]), (second, &trace.spans[2])] {
        assert_eq!(span.kind, SpanKind::Client);
        let expected = [
            ("traceparent", format!("00-4efaaf4d1e8720b39541901950019ee5-{}-02", span.id)),
            ("tracestate", "congo=t61".to_owned()),
            ("baggage", "userId=alice;p,a = 1".to_owned()),
            ("X-Amzn-Trace-Id", format!("Root=1-4efaaf4d-1e8720b39541901950019ee5;Parent={};Sampled=0", span.id)),
        ];
        assert_eq!(headers, expected);
    }
}

#[test]
fn only_what_the_propagators_name_goes_out() {
    let headers = TraceHeaders {
        x_amzn_trace_id: Some("Root=1-4efaaf4d-1e8720b39541901950019ee5;Lineage=a:1;Sampled=1"),
        baggage: vec!["a=1"],
        ..Default::default()
    };
    let names = |propagators: &[Propagator]| {
        let tracer = Tracer { propagators: propagators.to_vec(), ..tracer() };
        let trace = begin(&tracer, &headers);
        trace.client_span(SCOPE, "GET").context_headers()
    };
    assert_eq!(names(&[]), []);
    assert_eq!(names(&[Propagator::Baggage]), [("baggage", "a=1".to_owned())]);
    let [(name, value)] = &names(&[Propagator::XRay])[..] else { panic!("one header") };
    assert_eq!(*name, "X-Amzn-Trace-Id");
    assert!(value.starts_with("Root=1-4efaaf4d-1e8720b39541901950019ee5;Parent="), "{value}");
    assert!(value.ends_with(";Sampled=1;Lineage=a:1"), "{value}");
}

#[test]
fn where_nothing_is_recorded_a_call_carries_the_callers_own_context() {
    let tracer = Tracer { recording: false, ..tracer() };
    let sent = "00-4efaaf4d1e8720b39541901950019ee5-53995c3f42cd8ad8-01";
    let joined = begin(&tracer, &TraceHeaders { traceparent: vec![sent], ..Default::default() });
    assert_eq!(joined.client_span(SCOPE, "GET").context_headers()[0], ("traceparent", sent.to_owned()));
    let begun = begin(&tracer, &TraceHeaders { baggage: vec!["a=1"], ..Default::default() });
    assert_eq!(begun.client_span(SCOPE, "GET").context_headers(), [("baggage", "a=1".to_owned())]);
}

#[test]
fn where_nothing_is_recorded_a_decision_that_is_open_stays_open() {
    let tracer = Tracer { recording: false, ..tracer() };
    for sent in [
        "Root=1-4efaaf4d-1e8720b39541901950019ee5",
        "Root=1-4efaaf4d-1e8720b39541901950019ee5;Lineage=a:1",
        "Root=1-4efaaf4d-1e8720b39541901950019ee5;Parent=53995c3f42cd8ad8",
        "Root=1-4efaaf4d-1e8720b39541901950019ee5;Parent=53995c3f42cd8ad8;Sampled=?",
    ] {
        let trace = begin(&tracer, &TraceHeaders { x_amzn_trace_id: Some(sent), ..Default::default() });
        let headers = trace.client_span(SCOPE, "GET").context_headers();
        assert_eq!(headers, [("X-Amzn-Trace-Id", sent.to_owned())]);
    }
}

#[test]
fn limits_cut_values_and_count_what_they_refuse() {
    let limits = Limits { attributes: 2, value_length: Some(3), events: 1, event_attributes: 1 };
    let tracer = Tracer { limits, ..tracer() };
    let trace = begin(&tracer, &TraceHeaders::default());
    {
        let mut span = trace.span(SCOPE, "full");
        span.set_attribute("a", "éèàù");
        span.set_attribute("b", 1_i64);
        span.set_attribute("c", true);
        span.set_attribute("b", 2_i64);
        span.put_metadata("n", "k", 3_i64);
        span.record_exception(&Exception::from_error(&std::fmt::Error));
        span.record_exception(&Exception::from_error(&std::fmt::Error));
    }
    let span = &trace.finish().unwrap().spans[1];
    assert_eq!(span.attribute("a"), Some(&Value::from("éèà")));
    assert_eq!(span.attribute("b"), Some(&Value::Int(2)));
    assert_eq!((span.attributes.len(), span.rare().dropped_attributes), (2, 2));
    assert!(span.rare().metadata.is_empty());
    assert_eq!((span.rare().events.len(), span.rare().dropped_events), (1, 1));
    assert_eq!((span.rare().events[0].attributes.len(), span.rare().events[0].dropped_attributes), (1, 2));
}
