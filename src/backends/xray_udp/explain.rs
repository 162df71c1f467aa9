//! `cruddur explain xray`.

use std::sync::Arc;

use super::NAME;
use super::encode::Documents;
use crate::delivery::Encoder;
use crate::text::pretty::{FieldNotes, pretty_print, two_columns};
use crate::trace::sample;
use crate::trace::sampler::{BackendDecision, Decision, Reason, RuleDecision, RuleSource};

pub(super) fn explain() -> String {
    let datagram = datagram();
    let (header, document) = datagram.split_once('\n').unwrap_or((&datagram, ""));
    format!(
        "One datagram for each trace, to the daemon on UDP port 2000. A header, a line end, the document:\n\n{}\n\
         The document, spread out:\n\n{}\nAs it leaves, {} bytes; nobody answers:\n\n{datagram}\n",
        two_columns([(header, "tells it from what the daemon does not understand")]),
        pretty_print(document, NOTES),
        datagram.len(),
    )
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

const NOTES: FieldNotes = &[
    ("id", "of the SERVER span; it stands first, so that the daemon can name a document that X-Ray refused"),
    ("trace_id", "the trace id of OTLP with dashes; its first 8 digits are a time, and X-Ray refuses old ones"),
    ("parent_id", "the caller's span"),
    ("name", "of the service, not of the request: it is a node of the service map, and sampling rules name it"),
    ("start_time", "seconds since 1970"),
    ("end_time", "without it, a document must say \"in_progress\": true, or it is refused"),
    ("http", "the one place for what OTLP says in a dozen attributes"),
    ("request", "what came"),
    ("method", "http.request.method"),
    ("url", "scheme, host and path; without the query, which may hold secrets"),
    ("user_agent", "user_agent.original"),
    ("client_ip", "client.address"),
    ("response", "what went out"),
    ("status", "4xx sets error, 429 throttle too, 5xx fault: each colours the node"),
    ("content_length", "http.response.body.size"),
    ("aws", "about the sender"),
    ("xray", "what recorded it"),
    ("sdk", "the program's own name: it is no SDK of AWS"),
    ("sdk_version", "and its version"),
    ("auto_instrumentation", "whether spans were made without anybody writing them: no"),
    ("sampling_rule_name", "which rule decided that this trace is sent"),
    ("cloudwatch_logs", "makes the console link the trace to its log lines"),
    ("log_group", "where [cloudwatch] sends them"),
    ("service", "about the program"),
    ("version", "of the program"),
    ("runtime", "what it runs on"),
    ("annotations", "indexed, so one can search for them; 50 a trace, keys without dots"),
    ("subsegments", "the spans below, one inside the other"),
    ("subsegments.id", "of the span"),
    ("subsegments.name", "of the span"),
    ("namespace", "local: work of this process; remote: a call to another"),
    ("app_now", "app.now, without the dot"),
    ("app_result_length", "app.result_length"),
    ("http_route", "http.route"),
    ("network_protocol_version", "network.protocol.version"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::pretty::{without_field, without_note};

    #[test]
    fn every_field_has_a_line_and_every_line_a_field() {
        let datagram = datagram();
        let (_, document) = datagram.split_once('\n').unwrap();
        assert_eq!(without_note(document, NOTES), [""; 0]);
        assert_eq!(without_field(document, NOTES), [""; 0]);
    }

    #[test]
    fn the_bytes_are_those_that_the_backend_would_send() {
        assert!(explain().ends_with(&format!("\n\n{}\n", datagram())));
    }
}
