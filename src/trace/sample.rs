//! Sample trace with fixed ids and times, the input of `cruddur explain`.

#[cfg(test)]
mod full;

use std::borrow::Cow;
use std::ops::Range;

use crate::trace::FinishedTrace;
use crate::trace::context::TraceFlags;
use crate::trace::id::{SpanId, TraceId};
use crate::trace::sampler::{Decision, Reason};
use crate::trace::span::{Attribute, Scope, SpanData, SpanKind};

#[cfg(test)]
pub(crate) use full::trace;

/// Makes the trace of `GET /api/activities/home` with a traced caller, on 20 February 2023 at
/// 02:30.
pub(crate) fn request() -> FinishedTrace {
    let http = Scope { name: "cruddur.http", version: Some(env!("CARGO_PKG_VERSION")) };
    let server = SpanData {
        parent: SpanId::from_hex("00f067aa0ba902b7"),
        attributes: vec![
            Attribute::new("http.request.method", "GET"),
            Attribute::new("url.path", "/api/activities/home"),
            Attribute::new("url.scheme", "http"),
            Attribute::new("http.route", "/api/activities/home"),
            Attribute::new("server.address", "localhost"),
            Attribute::new("server.port", 4567_i64),
            Attribute::new("client.address", "127.0.0.1"),
            Attribute::new("network.peer.address", "127.0.0.1"),
            Attribute::new("network.peer.port", 50_123_i64),
            Attribute::new("network.protocol.version", "1.1"),
            Attribute::new("user_agent.original", "curl/8.5.0"),
            Attribute::new("http.response.status_code", 200_i64),
            Attribute::new("http.response.body.size", 1240_i64),
        ],
        ..span("53995c3f42cd8ad8", http, "GET /api/activities/home", 0..4250)
    };
    let home = SpanData {
        parent: Some(server.id),
        kind: SpanKind::Internal,
        attributes: vec![
            Attribute::new("app.now", "2023-02-20T02:30:00.001000+00:00"),
            Attribute::new("app.result_length", 3_i64),
        ],
        ..span("70de5b6f19ff9a0a", Scope::named("home.activities"), "home-activities-mock-data", 1000..3000)
    };
    FinishedTrace {
        trace_id: TraceId::from_hex("63f2db281e8720b39541901950019ee5").expect("these are 32 hex digits"),
        trace_state: String::new(),
        flags: TraceFlags { sampled: true, random: true },
        remote_parent: true,
        decision: Decision { sampled: true, reason: Reason::Parent },
        backend_decisions: vec![],
        spans: vec![server, home],
    }
}

/// Makes a SERVER span without attributes. `micros` is its time in microseconds after the arrival.
fn span(id: &str, scope: Scope, name: &'static str, micros: Range<u64>) -> SpanData {
    const ARRIVED: u64 = 1_676_860_200_000_000_000;
    let id = SpanId::from_hex(id).expect("these are 16 hex digits");
    let start = ARRIVED + micros.start * 1000;
    let span = SpanData::new(id, scope, Cow::Borrowed(name), SpanKind::Server, start);
    SpanData { end: ARRIVED + micros.end * 1000, ..span }
}
