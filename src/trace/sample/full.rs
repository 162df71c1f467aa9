//! Sample trace with every kind of data that a trace can hold, for the golden tests of all
//! backends.

use std::borrow::Cow;

use crate::trace::context::TraceFlags;
use crate::trace::id::{SpanId, TraceId};
use crate::trace::sampler::{Decision, Reason};
use crate::trace::span::{Attribute, Event, RareFields, SpanData, SpanKind, Status};
use crate::trace::{FinishedTrace, Scope, Value};

/// Makes the trace of a request with a traced caller and one failed span.
pub(crate) fn trace() -> FinishedTrace {
    FinishedTrace {
        trace_id: TraceId::from_hex("5b8efff798038103d269b633813fc60c").unwrap(),
        trace_state: "congo=t61rcWkgMzE".to_owned(),
        flags: TraceFlags { sampled: true, random: false },
        remote_parent: true,
        decision: Decision { sampled: true, reason: Reason::Parent },
        backend_decisions: vec![],
        spans: vec![server_span(), inner_span()],
    }
}

fn server_span() -> SpanData {
    SpanData {
        id: SpanId::from_hex("eee19b7ec3c1b174").unwrap(),
        parent: SpanId::from_hex("00f067aa0ba902b7"),
        scope: Scope { name: "cruddur.http", version: Some("0.1.0") },
        name: Cow::Borrowed("GET /api/activities/home"),
        kind: SpanKind::Server,
        start: 1_676_851_200_000_000_000,
        end: 1_676_851_200_004_250_000,
        attributes: vec![
            Attribute::new("http.request.method", "GET"),
            Attribute::new("url.path", "/api/activities/home"),
            Attribute::new("url.scheme", "http"),
            Attribute::new("http.route", "/api/activities/home"),
            Attribute::new("server.address", "localhost"),
            Attribute::new("server.port", 4567_i64),
            Attribute::new("network.protocol.version", "1.1"),
            Attribute::new("http.response.status_code", 200_i64),
        ],
        rare: None,
    }
}

fn inner_span() -> SpanData {
    SpanData {
        id: SpanId::from_hex("051581bf3cb55c13").unwrap(),
        parent: SpanId::from_hex("eee19b7ec3c1b174"),
        scope: Scope::named("home.activities"),
        name: Cow::Borrowed("home-activites-mock-data"),
        kind: SpanKind::Internal,
        start: 1_676_851_200_001_000_000,
        end: 1_676_851_200_003_000_000,
        attributes: vec![
            Attribute::new("app.now", "2023-02-20T00:00:00+00:00"),
            Attribute::new("app.result_length", 3_i64),
            Attribute::new("app.ratio", 0.5),
            Attribute::new("app.cached", false),
            Attribute::new("app.map", Value::Map(vec![Attribute::new("k", "v")])),
            Attribute::new("app.unicode", "ⓤ \" \\ \n \u{1} é"),
        ],
        rare: Some(Box::new(RareFields {
            events: vec![Event {
                time: 1_676_851_200_002_000_000,
                name: Cow::Borrowed("exception"),
                attributes: vec![
                    Attribute::new("exception.type", "std::io::Error"),
                    Attribute::new("exception.message", "boom"),
                ],
                dropped_attributes: 0,
            }],
            status: Status::Error("boom".to_owned()),
            ..RareFields::default()
        })),
    }
}
