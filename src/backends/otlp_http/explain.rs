//! `cruddur explain honeycomb`.

use std::sync::Arc;

use super::encode::OtlpJson;
use super::settings::{self, Honeycomb};
use crate::delivery::Encoder;
use crate::settings::sample_resource;
use crate::settings::{Env, Findings, Sources};
use crate::text::pretty::{FieldNotes, pretty_print};
use crate::trace::sample;
use crate::wire::http::Call;
use crate::wire::recorded::post_head;

pub(super) fn explain() -> String {
    let body = body();
    let env = Env::from([("HONEYCOMB_API_KEY", "EXAMPLE-KEY-0123456789")]);
    let sources = Sources::from_text("", env).expect("an empty text is valid TOML");
    // Nothing else is set, so there is nothing to complain about.
    let mut findings = Findings::default();
    let (table, _) = Honeycomb::read(&sources, &mut findings).expect("an empty file has no mistake in it");
    let to = settings::traces_url(&table, &mut findings).expect("the default is a URL");
    let headers = settings::headers(&table, &sources, &mut findings);
    let call = Call { url: &to.url, headers: &headers, body: body.as_bytes(), timeout: None };
    let head = post_head(&call, |name| settings::NO_SECRET.contains(&name)).replace("\r\n", "\n");
    format!(
        "OTLP over HTTP, in JSON: one POST for a batch of traces; this batch is one trace. The body, spread out:\n\n{}\n\
         As it leaves, for {}; the body has {} bytes, and gzip would make it smaller:\n\n{head}{body}\n",
        pretty_print(&body, NOTES),
        to.url,
        body.len()
    )
}

fn body() -> String {
    let payloads = OtlpJson::new(sample_resource()).encode(&[Arc::new(sample::request())], 0);
    payloads.into_iter().map(|payload| String::from_utf8_lossy(&payload.bytes).into_owned()).collect()
}

const NOTES: FieldNotes = &[
    ("resourceSpans", "who sends: one entry for each process"),
    ("resource", "the facts that all spans of this process share"),
    ("resource.attributes", "a list, not an object: keys may come in any order, values have types"),
    ("service.name", "the only one that must be there; Honeycomb makes it the name of the dataset"),
    ("service.version", "which build it is"),
    ("service.instance.id", "a new uuid each time the program starts"),
    ("telemetry.sdk.language", "what wrote these bytes"),
    ("telemetry.sdk.name", "\"opentelemetry\" is reserved for the official SDKs"),
    ("telemetry.sdk.version", "the version of that"),
    ("process.pid", "a 64-bit number is text in JSON, which has no integers beyond 2^53"),
    ("scopeSpans", "the spans, by the part of the program that wrote them"),
    ("scope", "which part"),
    ("scope.name", "its name"),
    ("scope.version", "its version, if it has one of its own"),
    ("spans", "one after the other; ids say who is whose child"),
    ("traceId", "128 bits as hex, where protobuf's own JSON would have base64"),
    ("spanId", "64 bits as hex"),
    ("parentSpanId", "the caller's span; the first span of a new trace has none"),
    ("flags", "those of traceparent (1 sampled, 2 random); 256: known whether the parent is remote; 512: it is"),
    ("spans.name", "method and route: as many names as routes, not as many as paths"),
    ("kind", "an enum is a number: 1 INTERNAL, 2 SERVER, 3 CLIENT"),
    ("startTimeUnixNano", "nanoseconds since 1970, as text; one that is a number makes Honeycomb refuse the batch"),
    ("endTimeUnixNano", "the start and what the monotonic clock counted, so never before it"),
    ("spans.attributes", "facts about this span, by the names of the semantic conventions"),
    ("http.request.method", "one of the known methods, else _OTHER"),
    ("url.path", "the path as it came; a query would be url.query, without values that may be secret"),
    ("url.scheme", "http, or what a proxy in front says"),
    ("http.route", "the template that the path fits"),
    ("server.address", "from Host"),
    ("server.port", "from Host, or the usual one"),
    ("client.address", "who asked; behind a proxy, what X-Forwarded-For says"),
    ("network.peer.address", "who is at the other end of the connection"),
    ("network.peer.port", "and on which port"),
    ("network.protocol.version", "of HTTP"),
    ("user_agent.original", "as it came"),
    ("http.response.status_code", "of 500 and more, the span has failed; 4xx is the client's fault, not ours"),
    ("http.response.body.size", "bytes"),
    ("app.now", "the application's own: whatever the handler thinks worth knowing"),
    ("app.result_length", "a number stays a number: Honeycomb can add it up"),
    ("status", "{}: not set, which is how it should be; a failed span has code 2 and a message"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::pretty::{without_field, without_note};

    #[test]
    fn every_field_has_a_line_and_every_line_a_field() {
        assert_eq!(without_note(&body(), NOTES), [""; 0]);
        assert_eq!(without_field(&body(), NOTES), [""; 0]);
    }

    #[test]
    fn the_bytes_are_those_that_the_backend_would_send() {
        let text = explain();
        assert!(text.ends_with(&format!("\n\n{}\n", body())));
        assert!(text.contains(&format!(
            "POST /v1/traces HTTP/1.1\ncontent-length: {}\nhost: api.honeycomb.io\n",
            body().len()
        )));
        assert!(text.contains("x-honeycomb-team: (22 characters, not shown)\n") && !text.contains("EXAMPLE-KEY"));
    }
}
