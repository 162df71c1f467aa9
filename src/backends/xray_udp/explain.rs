//! `cruddur explain xray`: prints the datagram of a sample request, with a note on every field.

use std::sync::Arc;

use super::NAME;
use super::tree::Documents;
use crate::delivery::Encoder;
use crate::text::explanation::{Section, two_columns};
use crate::text::pretty::{AnnotatedJson, FieldNotes};
use crate::trace::sample;
use crate::trace::sampler::{BackendDecision, Decision, Reason, RuleDecision, RuleSource};

pub(super) fn explain() -> Vec<Section> {
    let datagram = datagram();
    let (header, document) = datagram.split_once('\n').unwrap_or((&datagram, ""));
    let notes = FieldNotes::of_encoder(include_str!("encode.rs"));
    let json = AnnotatedJson { root: "document", json: document.to_owned(), notes, elided: &[] };
    let header = two_columns([(header, "the daemon drops a datagram without this line")]);
    let as_it_leaves = format!("The datagram as it leaves, {} bytes. UDP has no answer:", datagram.len());
    vec![
        Section::text(
            "header",
            "One UDP datagram for each trace, to port 2000 of the daemon: a header, a line end, the document. The header:",
            header,
        ),
        Section::json("document", "The document, spread out:", json),
        Section::text("datagram", as_it_leaves, format!("{datagram}\n")),
    ]
}

fn datagram() -> String {
    let mut trace = sample::request();
    let by = RuleDecision::Reservoir { taken: 1, size: 5 };
    let reason = Reason::Rule { name: "Cruddur".into(), source: RuleSource::Central, by };
    let decision = Decision { sampled: true, reason };
    trace.backend_decisions.push(BackendDecision { backend: NAME, decision, service_name: "backend-flask".into() });
    let documents = Documents { service_name: "backend-flask".to_owned(), log_group: Some("cruddur".to_owned()) };
    let payloads = documents.encode(&[Arc::new(trace)], 0);
    payloads.into_iter().map(|payload| String::from_utf8_lossy(&payload.bytes).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::explanation::Body;

    #[test]
    fn every_field_has_a_note_in_the_encoder() {
        let Body::Json(json) = &explain()[1].body else { panic!("the document is JSON") };
        assert_eq!(json.without_note(), [""; 0]);
    }

    #[test]
    fn the_bytes_are_those_that_the_backend_would_send() {
        assert_eq!(explain()[2].print(), format!("{}\n", datagram()));
    }
}
