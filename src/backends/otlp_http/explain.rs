//! `cruddur explain honeycomb`: prints the POST of a sample request, with a note on every field.

use std::sync::Arc;

use super::encode::OtlpJson;
use super::settings::{self, Honeycomb};
use crate::delivery::Encoder;
use crate::settings::sample_resource;
use crate::settings::{Env, Findings, Sources};
use crate::text::explanation::Section;
use crate::text::pretty::{AnnotatedJson, FieldNotes};
use crate::trace::sample;
use crate::wire::http::Call;
use crate::wire::recorded::post_head;

pub(super) fn explain() -> Vec<Section> {
    let json = |elided| {
        let notes = FieldNotes::of_encoder(include_str!("encode.rs"));
        AnnotatedJson { root: "request", json: body(), notes, elided }
    };
    let request = format!("{}{}\n", head(), body());
    vec![
        Section::json(
            "layers",
            "OTLP over HTTP, in JSON: one POST for a batch of traces. This batch is one trace. Its three layers:",
            json(&["attributes", "spans"]),
        ),
        Section::json("body", "The body, spread out:", json(&[])),
        Section::text(
            "request",
            format!("The request as it leaves. The body has {} bytes; gzip makes it smaller:", body().len()),
            request,
        ),
    ]
}

/// Returns the request line and the headers, as the backend sends them to Honeycomb. The key is
/// redacted.
fn head() -> String {
    let body = body();
    let env = Env::from([("HONEYCOMB_API_KEY", "EXAMPLE-KEY-0123456789")]);
    let sources = Sources::from_text("", env).expect("an empty text is valid TOML");
    // Only the key is set, so there are no findings.
    let mut findings = Findings::default();
    let (table, _) = Honeycomb::read(&sources, &mut findings).expect("an empty file has no mistake in it");
    let to = settings::traces_url(&table, &mut findings).expect("the default is a URL");
    let headers = settings::headers(&table, &sources, &mut findings);
    let call = Call { url: &to.url, headers: &headers, body: body.as_bytes(), timeout: None };
    post_head(&call, |name| settings::PUBLIC_HEADERS.contains(&name)).replace("\r\n", "\n")
}

fn body() -> String {
    let payloads = OtlpJson::new(sample_resource()).encode(&[Arc::new(sample::request())], 0);
    payloads.into_iter().map(|payload| String::from_utf8_lossy(&payload.bytes).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::explanation::Body;

    #[test]
    fn every_field_has_a_note_in_the_encoder() {
        for section in explain() {
            if let Body::Json(json) = section.body {
                assert_eq!(json.without_note(), [""; 0]);
            }
        }
    }

    #[test]
    fn the_bytes_are_those_that_the_backend_would_send() {
        let text = explain()[2].print();
        assert!(text.ends_with(&format!("\n\n{}\n", body())));
        assert!(text.contains(&format!(
            "POST /v1/traces HTTP/1.1\ncontent-length: {}\nhost: api.honeycomb.io\n",
            body().len()
        )));
        assert!(text.contains("x-honeycomb-team: (22 characters, not shown)\n") && !text.contains("EXAMPLE-KEY"));
    }
}
