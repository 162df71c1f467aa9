//! Trace context on the wire: who called us, and what we tell those we call.
//!
//! In: two headers that say the same thing. The first valid one in the order of `OTEL_PROPAGATORS` wins; what only the
//! other can say (`tracestate`, `Lineage`) is taken from there if it is about the same trace.
//!
//! ```text
//! traceparent: 00-4efaaf4d1e8720b39541901950019ee5-53995c3f42cd8ad8-01
//!              |  trace id                         parent span id   flags: 1 sampled, 2 random
//!              version
//! tracestate:  congo=t61rcWkgMzE,rojo=00f067aa0ba902b7
//! X-Amzn-Trace-Id: Root=1-4efaaf4d-1e8720b39541901950019ee5;Parent=53995c3f42cd8ad8;Sampled=1
//! ```
//!
//! Out, for everybody that this request makes us call: both, with the span of that call as the parent. The callee's spans
//! hang on it, and so two processes make one trace.
//!
//! `baggage` travels beside them. It is the application's, not the trace's: it is read by nobody here and passed on.
//!
//! `traceparent` is read by the letter of the specification, because a library that guesses joins requests
//! that have nothing to do with each other: a value that breaks a rule is no context at all, and a new trace begins.
//!
//! Specification: <https://www.w3.org/TR/trace-context-2/>, <https://www.w3.org/TR/baggage/>,
//! <https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>.

use super::id::{SpanId, TraceId};

/// The trace headers of one request, as they came.
#[derive(Clone, Debug, Default)]
pub struct TraceHeaders<'a> {
    /// Every `traceparent`: two are one too many, and then none counts.
    pub traceparent: Vec<&'a str>,
    /// Every `tracestate`, in order: several headers are one list.
    pub tracestate: Vec<&'a str>,
    /// Every `baggage`, in order: several headers are one list.
    pub baggage: Vec<&'a str>,
    /// The first `X-Amzn-Trace-Id`.
    pub x_amzn_trace_id: Option<&'a str>,
}

/// What is read of the caller's context and passed on to those we call, as named in `OTEL_PROPAGATORS`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Propagator {
    /// `tracecontext`: `traceparent` and `tracestate`.
    TraceContext,
    /// `baggage`: passed on as it came.
    Baggage,
    /// `xray`: `X-Amzn-Trace-Id`.
    XRay,
}

impl Propagator {
    /// All of them, in the order that counts if nobody gives another.
    pub const ALL: [Self; 3] = [Self::TraceContext, Self::Baggage, Self::XRay];
}

/// The two flags of a trace that W3C knows; the other six bits are sent as zero.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TraceFlags(u8);

/// The span in another process that made this request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RemoteParent {
    /// The caller's trace, now ours too.
    pub trace_id: TraceId,
    /// The caller's span. X-Ray allows a `Root` without one: a load balancer begins traces but has no span.
    pub span_id: Option<SpanId>,
    /// What the caller decided; `None` leaves the decision to us.
    pub sampled: Option<bool>,
    /// Whether the caller vouches for random bits in its trace id.
    pub random: bool,
    /// `tracestate`, passed on as it came; empty if there was none.
    pub trace_state: String,
    /// `Sampled=?`: the caller wants to be told what we decide.
    pub wants_decision: bool,
    /// The fields of `X-Amzn-Trace-Id` that are not ours to read (`Lineage` and the like), for those we call.
    pub xray_extra: String,
}

/// The caller's context, by the first propagator in `order` that finds a valid one.
#[must_use]
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
        // Each of them has one of these two, and never the other.
        parent.trace_state += &other.trace_state;
        parent.xray_extra += &other.xray_extra;
    }
    Some(parent)
}

/// `X-Amzn-Trace-Id`, if it is about this trace. A load balancer in front of a traced caller makes up one of its own,
/// which is about another.
#[must_use]
pub fn xray_header_of(trace_id: TraceId, headers: &TraceHeaders<'_>) -> Option<RemoteParent> {
    headers.x_amzn_trace_id.and_then(parse_x_amzn_trace_id).filter(|parent| parent.trace_id == trace_id)
}

/// The `baggage` for those we call: all members as they came, up to the 8192 bytes and 180 members that the specification
/// names; what does not fit goes from the end, in whole members. So do members that no header can hold.
#[must_use]
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

/// A `traceparent` value of version `00`.
#[must_use]
pub fn traceparent(trace_id: TraceId, span_id: SpanId, flags: TraceFlags) -> String {
    format!("00-{trace_id}-{span_id}-{:02x}", flags.0)
}

impl TraceFlags {
    const SAMPLED: u8 = 0x01;
    const RANDOM: u8 = 0x02;

    /// Both flags from their values.
    #[must_use]
    pub fn new(sampled: bool, random: bool) -> Self {
        Self(if sampled { Self::SAMPLED } else { 0 } | if random { Self::RANDOM } else { 0 })
    }

    /// The flags as the byte that `traceparent` and OTLP carry.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether somebody records this trace.
    #[must_use]
    pub fn sampled(self) -> bool {
        self.0 & Self::SAMPLED != 0
    }
}

/// `2HEXDIG "-" 32HEXDIG "-" 16HEXDIG "-" 2HEXDIG`, all lower case.
///
/// Version `ff` is forbidden; version `00` ends there; a later version may go on after another `-`, and is read as if
/// it were `00`.
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

/// The members of all `tracestate` headers as one list, or nothing if any of them breaks a rule: a list that cannot
/// be read must not be passed on, while the `traceparent` beside it stays good.
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

/// A lower-case letter or digit, then up to 255 of those and `_ - * / @`.
fn valid_state_key(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    match key.as_bytes() {
        [first, rest @ ..] => {
            plain(*first) && rest.len() <= 255 && rest.iter().all(|b| plain(*b) || b"_-*/@".contains(b))
        }
        [] => false,
    }
}

/// 1 to 256 printable ASCII characters without `,` and `=`, the last one no space.
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

/// `Root=..;Parent=..;Sampled=0|1|?`, fields in any order and case, blanks around them allowed.
///
/// `Root` must be an id: SDKs that take `Root=zzz` send segments that X-Ray refuses without telling anybody. `Self` is
/// the load balancer's own and is dropped; other fields are kept for those we call, up to 256 bytes.
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
mod tests {
    use super::*;

    const TRACE: &str = "4efaaf4d1e8720b39541901950019ee5";
    const SPAN: &str = "53995c3f42cd8ad8";

    fn w3c(value: &str) -> Option<RemoteParent> {
        extract(&[Propagator::TraceContext], &TraceHeaders { traceparent: vec![value], ..Default::default() })
    }

    fn state(headers: &[&str]) -> String {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let headers = TraceHeaders { traceparent: vec![&parent], tracestate: headers.to_vec(), ..Default::default() };
        extract(&[Propagator::TraceContext], &headers).unwrap().trace_state
    }

    fn xray(value: &str) -> Option<RemoteParent> {
        extract(&[Propagator::XRay], &TraceHeaders { x_amzn_trace_id: Some(value), ..Default::default() })
    }

    #[test]
    fn a_good_traceparent_is_joined() {
        let parent = w3c(&format!(" \t00-{TRACE}-{SPAN}-03\t")).unwrap();
        assert_eq!(parent.trace_id.to_string(), TRACE);
        assert_eq!(parent.span_id.unwrap().to_string(), SPAN);
        assert_eq!((parent.sampled, parent.random), (Some(true), true));
        assert_eq!(w3c(&format!("00-{TRACE}-{SPAN}-02")).unwrap().sampled, Some(false));
        assert_eq!(w3c(&format!("00-{TRACE}-{SPAN}-fd")).unwrap().sampled, Some(true));
    }

    #[test]
    fn a_traceparent_that_breaks_a_rule_is_no_context() {
        let zero_trace = "0".repeat(32);
        let zero_span = "0".repeat(16);
        for value in [
            String::new(),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("000-{TRACE}-{SPAN}-01"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{zero_trace}-{SPAN}-01"),
            format!("00-{TRACE}-{zero_span}-01"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-001"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-0A"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
            format!("00-{TRACE}-{}-01", &SPAN[1..]),
            format!("00_{TRACE}_{SPAN}_01"),
            format!("cc-{TRACE}-{SPAN}-01.future"),
            format!("00-{TRACE}-{SPAN}-+1"),
            format!("00-{TRACE}-{SPAN}-0é"),
        ] {
            assert_eq!(w3c(&value), None, "{value}");
        }
    }

    #[test]
    fn a_future_version_is_read_as_far_as_we_know_it() {
        assert!(w3c(&format!("cc-{TRACE}-{SPAN}-01")).is_some());
        assert!(w3c(&format!("cc-{TRACE}-{SPAN}-01-what-the-future-brings")).is_some());
    }

    #[test]
    fn two_traceparent_headers_are_none() {
        let value = format!("00-{TRACE}-{SPAN}-01");
        let headers = TraceHeaders { traceparent: vec![&value, &value], ..Default::default() };
        assert_eq!(extract(&[Propagator::TraceContext], &headers), None);
    }

    #[test]
    fn several_tracestate_headers_are_one_list() {
        assert_eq!(state(&["foo=1, bar=2\t", "", ",,baz=a b"]), "foo=1,bar=2,baz=a b");
        assert_eq!(state(&["foo=1,foo=1"]), "foo=1,foo=1");
        assert_eq!(state(&["0foo@bar@=x"]), "0foo@bar@=x");
        let longest = format!("{}={}", "a".repeat(256), "v".repeat(256));
        assert_eq!(state(&[&longest]), longest);
        let most = (0..32).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(state(&[&most]), most);
    }

    #[test]
    fn a_tracestate_that_breaks_a_rule_is_dropped_and_the_traceparent_kept() {
        let too_many = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let long_key = format!("{}=v", "a".repeat(257));
        let long_value = format!("k={}", "v".repeat(257));
        for bad in ["foo", "foo=", "=1", "Foo=1", "foo =1", "foo=1=2", "@foo=1", "foo=é", "foo= \u{1}", &too_many] {
            assert_eq!(state(&["ok=1", bad]), "", "{bad}");
        }
        for bad in [long_key, long_value] {
            assert_eq!(state(&[&bad]), "", "{bad}");
        }
    }

    #[test]
    fn an_xray_header_is_read_whatever_its_order_case_and_blanks() {
        let parent = xray(&format!(
            "Self=1-1-2; parent={SPAN}; Lineage=a:1; Sampled=1;root=1-4efaaf4d-1e8720b39541901950019ee5"
        ))
        .unwrap();
        assert_eq!(parent.trace_id.to_string(), TRACE);
        assert_eq!(parent.span_id.unwrap().to_string(), SPAN);
        assert_eq!(parent.sampled, Some(true));
        assert_eq!(parent.xray_extra, ";Lineage=a:1");
        let asks = xray("Root=1-4efaaf4d-1e8720b39541901950019ee5;Sampled=?").unwrap();
        assert_eq!((asks.span_id, asks.sampled, asks.wants_decision), (None, None, true));
    }

    #[test]
    fn an_xray_header_without_a_real_root_is_no_context() {
        for value in ["Root=zzz", "hello", ";;", "Parent=53995c3f42cd8ad8", "Root=1-4efaaf4d-zz8720b39541901950019ee5"]
        {
            assert_eq!(xray(value), None, "{value}");
        }
    }

    #[test]
    fn the_first_valid_header_in_the_order_given_wins() {
        let w3c = format!("00-{TRACE}-{SPAN}-01");
        let other = "Root=1-11111111-222222222222222222222222";
        let both = TraceHeaders { traceparent: vec![&w3c], x_amzn_trace_id: Some(other), ..Default::default() };
        let first = |order: &[Propagator]| extract(order, &both).map(|parent| parent.trace_id.to_string());
        assert_eq!(first(&[Propagator::TraceContext, Propagator::XRay]).unwrap(), TRACE);
        assert_eq!(first(&[Propagator::XRay, Propagator::TraceContext]).unwrap(), "11111111222222222222222222222222");
        assert_eq!(first(&[]), None);
        let broken = TraceHeaders { traceparent: vec!["nonsense"], ..both.clone() };
        assert_eq!(
            extract(&[Propagator::TraceContext, Propagator::XRay], &broken).unwrap().trace_id.to_string(),
            "11111111222222222222222222222222"
        );
    }

    #[test]
    fn what_only_the_other_header_can_say_is_kept_if_it_is_about_the_same_trace() {
        let w3c = format!("00-{TRACE}-{SPAN}-03");
        let same = "Root=1-4efaaf4d-1e8720b39541901950019ee5;Parent=b7ad6b7169203331;Sampled=0;Lineage=a:1";
        let headers = TraceHeaders {
            traceparent: vec![&w3c],
            tracestate: vec!["congo=t61"],
            x_amzn_trace_id: Some(same),
            ..Default::default()
        };
        for (order, span, sampled) in [
            ([Propagator::TraceContext, Propagator::XRay], SPAN, true),
            ([Propagator::XRay, Propagator::TraceContext], "b7ad6b7169203331", false),
        ] {
            let parent = extract(&order, &headers).unwrap();
            assert_eq!((parent.span_id.unwrap().to_string().as_str(), parent.sampled), (span, Some(sampled)));
            assert_eq!((parent.trace_state.as_str(), parent.xray_extra.as_str()), ("congo=t61", ";Lineage=a:1"));
            assert!(parent.random);
        }
        assert_eq!(extract(&[Propagator::TraceContext], &headers).unwrap().xray_extra, "");
        let other = "Root=1-11111111-222222222222222222222222;Lineage=a:1";
        let headers = TraceHeaders { x_amzn_trace_id: Some(other), ..headers };
        assert_eq!(extract(&Propagator::ALL, &headers).unwrap().xray_extra, "");
    }

    #[test]
    fn baggage_is_passed_on_untouched_and_loses_whole_members_beyond_its_limits() {
        assert_eq!(baggage(&[]), "");
        let odd = ["userId =  alice;p1; p2=x==, a=%20", "b=\tc", " , "];
        assert_eq!(baggage(&odd), "userId =  alice;p1; p2=x==, a=%20,b=\tc");
        assert_eq!(baggage(&["a=1,b=\u{1},c=é,d=2"]), "a=1,d=2");
        let longest = format!("a=1,b={}", "v".repeat(8192 - 6));
        assert_eq!(baggage(&[&longest]), longest);
        let too_long = format!("a=1,b={}", "v".repeat(8192 - 5));
        assert_eq!(baggage(&[&too_long]), "a=1");
        let many = (0..181).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(baggage(&[&many]), many.strip_suffix(",k180=v").unwrap());
    }

    #[test]
    fn what_we_send_is_what_we_would_accept() {
        let sent = traceparent(
            TraceId::from_hex(TRACE).unwrap(),
            SpanId::from_hex(SPAN).unwrap(),
            TraceFlags::new(true, true),
        );
        assert_eq!(sent, format!("00-{TRACE}-{SPAN}-03"));
        assert!(w3c(&sent).is_some());
    }
}
