//! `cruddur explain xray_otlp`: prints the POST of a sample request, with a note on every field of
//! its body, and the four steps of its signature.

use std::sync::Arc;

use super::limits::XRaySpans;
use super::{PATH, headers};
use crate::delivery::Encoder;
use crate::settings::sample_resource;
use crate::text::explanation::Section;
use crate::text::pretty::{AnnotatedJson, FieldNotes};
use crate::trace::sample;
use crate::wire::aws_call::SignedExample;
use crate::wire::aws_credentials::XRAY;

pub(super) fn explain() -> Vec<Section> {
    let payloads = XRaySpans::new(sample_resource()).encode(&[Arc::new(sample::request())], 0);
    let body: String = payloads.iter().map(|payload| String::from_utf8_lossy(&payload.bytes)).collect();
    let notes = FieldNotes::of_encoder(include_str!("../otlp_http/encode.rs"));
    let json = AnnotatedJson { root: "request", json: body.clone(), notes, elided: &[] };
    let mut sections = vec![Section::json(
        "body",
        "OTLP over HTTP, signed: one POST for a batch of traces. The body is the one that [honeycomb] sends, byte for byte:",
        json,
    )];
    sections.extend(SignedExample::new(XRAY, PATH, headers(false), body).sections());
    sections
}
