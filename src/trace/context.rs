//! Trace context in HTTP headers: reads the caller's, writes ours for outgoing calls.
//!
//! In: two headers with the same information. The first valid one in the order of
//! `OTEL_PROPAGATORS` wins. Fields that only the other one has (`tracestate`, `Lineage`) are added
//! if both name the same trace.
//!
//! ```text
//! traceparent: 00-4efaaf4d1e8720b39541901950019ee5-53995c3f42cd8ad8-01
//!              |  trace id                         parent span id   flags: 1 sampled, 2 random
//!              version
//! tracestate:  congo=t61rcWkgMzE,rojo=00f067aa0ba902b7
//! X-Amzn-Trace-Id: Root=1-4efaaf4d-1e8720b39541901950019ee5;Parent=53995c3f42cd8ad8;Sampled=1
//! ```
//!
//! Out: both headers on every outgoing call, with the span of that call as the parent. The callee's
//! spans become children of it, so two processes make one trace.
//!
//! `baggage` travels beside them. It belongs to the application: this program passes it on unread.
//!
//! `traceparent` is parsed strictly by the specification, because a lenient parser joins unrelated
//! requests. An invalid value is ignored, and a new trace begins.
//!
//! Specification: <https://www.w3.org/TR/trace-context-2/>, <https://www.w3.org/TR/baggage/>,
//! <https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html>, "Tracing header".

use super::id::{Hex, SpanId, TraceId};

/// Trace headers of one request, as received.
#[derive(Clone, Debug, Default)]
pub struct TraceHeaders<'a> {
    /// All `traceparent` headers. More than one is invalid, and then all are ignored.
    pub traceparent: Vec<&'a str>,
    /// All `tracestate` headers in order; together they form one list.
    pub tracestate: Vec<&'a str>,
    /// All `baggage` headers in order; together they form one list.
    pub baggage: Vec<&'a str>,
    /// First `X-Amzn-Trace-Id`.
    pub x_amzn_trace_id: Option<&'a str>,
}

/// Header format that is read from requests and written to outgoing calls, by its name in
/// `OTEL_PROPAGATORS`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Propagator {
    /// `tracecontext`: `traceparent` and `tracestate`.
    TraceContext,
    /// `baggage`: passed on unchanged.
    Baggage,
    /// `xray`: `X-Amzn-Trace-Id`.
    XRay,
}

impl Propagator {
    /// All propagators in the default order.
    pub const ALL: [Self; 3] = [Self::TraceContext, Self::Baggage, Self::XRay];
}

/// Flags of a trace that W3C defines. The other six bits are sent as zero.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TraceFlags {
    /// Bit 0: the trace is recorded.
    pub sampled: bool,
    /// Bit 1: at least seven bytes of the trace id are random.
    pub random: bool,
}

/// Span in another process that made this request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RemoteParent {
    /// Id of the caller's trace, which this request joins.
    pub trace_id: TraceId,
    /// Id of the caller's span. X-Ray allows a `Root` without it: a load balancer starts traces but
    /// has no span.
    pub span_id: Option<SpanId>,
    /// Decision of the caller; `None` leaves the decision to us.
    pub sampled: Option<bool>,
    /// Guarantee of the caller that its trace id has random bits.
    pub random: bool,
    /// `tracestate`, passed on unchanged; empty if there was none.
    pub trace_state: String,
    /// `Sampled=?`: the caller asks for our decision in the response.
    pub wants_decision: bool,
    /// Other fields of `X-Amzn-Trace-Id` (`Lineage` and the like), passed on to outgoing calls.
    pub xray_extra: String,
}

/// Reads the caller's context with the first propagator in `order` that finds a valid one.
pub fn extract(order: &[Propagator], headers: &TraceHeaders<'_>) -> Option<RemoteParent> {
    let mut found = order.iter().filter_map(|propagator| match propagator {
        Propagator::TraceContext => match headers.traceparent[..] {
            [one] => parse_traceparent(one)
                .map(|parent| RemoteParent { trace_state: parse_tracestate(&headers.tracestate), ..parent }),
            _ => None,
        },
        Propagator::Baggage => None,
        Propagator::XRay => headers.x_amzn_trace_id.and_then(parse_x_amzn_trace_id),
    });
    let mut parent = found.next()?;
    if let Some(other) = found.find(|other| other.trace_id == parent.trace_id) {
        parent.random |= other.random;
        // `traceparent` brings the first, `X-Amzn-Trace-Id` the second.
        parent.trace_state += &other.trace_state;
        parent.xray_extra += &other.xray_extra;
    }
    Some(parent)
}

/// Reads `X-Amzn-Trace-Id` if it names this trace. A load balancer in front of a traced caller
/// sends one with a trace of its own, which is ignored.
pub fn xray_header_of(trace_id: TraceId, headers: &TraceHeaders<'_>) -> Option<RemoteParent> {
    headers.x_amzn_trace_id.and_then(parse_x_amzn_trace_id).filter(|parent| parent.trace_id == trace_id)
}

/// Joins the `baggage` headers for outgoing calls. Members beyond the specification's 8192 bytes or
/// 180 members are dropped whole, from the end. Members with characters that no header can hold are
/// dropped too.
pub fn baggage(headers: &[&str]) -> String {
    let mut list = String::new();
    let members = headers.iter().flat_map(|header| header.split(','));
    let may_pass = |member: &&str| !member.trim().is_empty() && member.bytes().all(|b| b == b'\t' || is_printable(b));
    for member in members.filter(may_pass).take(MAX_BAGGAGE_MEMBERS) {
        if list.len() + 1 + member.len() > MAX_BAGGAGE_BYTES {
            break;
        }
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(member);
    }
    list
}

const MAX_BAGGAGE_BYTES: usize = 8192;
const MAX_BAGGAGE_MEMBERS: usize = 180;

/// Writes a `traceparent` value of version `00`.
pub fn traceparent(trace_id: TraceId, span_id: SpanId, flags: TraceFlags) -> Hex<55> {
    Hex::traceparent(trace_id, span_id, flags.bits())
}

impl TraceFlags {
    const SAMPLED: u8 = 0x01;
    const RANDOM: u8 = 0x02;

    /// Flags as the byte in `traceparent` and OTLP.
    pub fn bits(self) -> u8 {
        (u8::from(self.sampled) * Self::SAMPLED) | (u8::from(self.random) * Self::RANDOM)
    }
}

/// Parses `2HEXDIG "-" 32HEXDIG "-" 16HEXDIG "-" 2HEXDIG`, all lower case.
///
/// Version `ff` is forbidden. Version `00` ends there. A later version may continue after another
/// `-`; its first four fields are read like those of `00`.
fn parse_traceparent(value: &str) -> Option<RemoteParent> {
    let value = value.trim_matches([' ', '\t']);
    if !value.is_ascii() || value.len() < 55 {
        return None;
    }
    let (fields, rest) = value.split_at(55);
    let mut fields = fields.split('-');
    let version = hex_byte(fields.next()?)?;
    let trace_id = TraceId::from_hex(fields.next()?)?;
    let span_id = SpanId::from_hex(fields.next()?)?;
    let flags = hex_byte(fields.next()?)?;
    if fields.next().is_some() || version == 0xff {
        return None;
    }
    let ends_well = if version == 0 { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
    ends_well.then(|| RemoteParent {
        trace_id,
        span_id: Some(span_id),
        sampled: Some(flags & TraceFlags::SAMPLED != 0),
        random: flags & TraceFlags::RANDOM != 0,
        trace_state: String::new(),
        wants_decision: false,
        xray_extra: String::new(),
    })
}

/// Joins the members of all `tracestate` headers. Returns an empty text if any member is invalid:
/// the specification forbids to pass such a list on, while the `traceparent` beside it stays valid.
fn parse_tracestate(headers: &[&str]) -> String {
    let mut members: Vec<&str> = Vec::new();
    for member in headers.iter().flat_map(|header| header.split(',')) {
        let member = member.trim_matches([' ', '\t']);
        if member.is_empty() {
            continue;
        }
        let Some((key, value)) = member.split_once('=') else { return String::new() };
        if !valid_state_key(key) || !valid_state_value(value) || members.len() == MAX_STATE_MEMBERS {
            return String::new();
        }
        members.push(member);
    }
    members.join(",")
}

const MAX_STATE_MEMBERS: usize = 32;

/// Checks a key: a lower-case letter or digit, then up to 255 of those and `_ - * / @`.
fn valid_state_key(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    match key.as_bytes() {
        [first, rest @ ..] => {
            plain(*first) && rest.len() <= 255 && rest.iter().all(|b| plain(*b) || b"_-*/@".contains(b))
        }
        [] => false,
    }
}

/// Checks a value: 1 to 256 printable ASCII characters except `,` and `=`, the last one not a
/// space.
fn valid_state_value(value: &str) -> bool {
    (1..=256).contains(&value.len())
        && value.bytes().all(|b| is_printable(b) && b != b',' && b != b'=')
        && !value.ends_with(' ')
}

fn is_printable(byte: u8) -> bool {
    (0x20..=0x7e).contains(&byte)
}

fn hex_byte(digits: &str) -> Option<u8> {
    let lower = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if lower && digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// Parses `Root=..;Parent=..;Sampled=0|1|?`. Order and case of the fields do not matter; blanks
/// around them are allowed.
///
/// `Root` must be a valid id: X-Ray silently drops segments with a `Root=zzz`. The load balancer's
/// own field `Self` is dropped. Other fields are kept for outgoing calls, up to 256 bytes.
fn parse_x_amzn_trace_id(value: &str) -> Option<RemoteParent> {
    let (mut root, mut span_id, mut sampled, mut wants_decision) = (None, None, None, false);
    let mut extra = String::new();
    for field in value.split(';') {
        let field = field.trim();
        let Some((key, value)) = field.split_once('=') else { continue };
        match key.to_ascii_lowercase().as_str() {
            "root" => root = TraceId::from_xray(value),
            "parent" => span_id = SpanId::from_hex(&value.to_ascii_lowercase()),
            "sampled" => match value {
                "0" => sampled = Some(false),
                "1" => sampled = Some(true),
                "?" => wants_decision = true,
                _ => {}
            },
            "self" => {}
            _ if extra.len() + field.len() < MAX_XRAY_EXTRA && field.bytes().all(is_printable) => {
                extra.push(';');
                extra.push_str(field);
            }
            _ => {}
        }
    }
    Some(RemoteParent {
        trace_id: root?,
        span_id,
        sampled,
        random: false,
        trace_state: String::new(),
        wants_decision,
        xray_extra: extra,
    })
}

const MAX_XRAY_EXTRA: usize = 256;

#[cfg(test)]
mod tests;
