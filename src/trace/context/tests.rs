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
    let parent =
        xray(&format!("Self=1-1-2; parent={SPAN}; Lineage=a:1; Sampled=1;root=1-4efaaf4d-1e8720b39541901950019ee5"))
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
    for value in ["Root=zzz", "hello", ";;", "Parent=53995c3f42cd8ad8", "Root=1-4efaaf4d-zz8720b39541901950019ee5"] {
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
    let flags = TraceFlags { sampled: true, random: true };
    let sent = traceparent(TraceId::from_hex(TRACE).unwrap(), SpanId::from_hex(SPAN).unwrap(), flags).to_string();
    assert_eq!(sent, format!("00-{TRACE}-{SPAN}-03"));
    assert!(w3c(&sent).is_some());
}
