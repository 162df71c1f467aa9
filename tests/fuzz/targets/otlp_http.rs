//! Answers to OTLP batches, as a child of `backends::otlp_http`: each has an outcome, and a message of
//! one line without the key.

use std::sync::LazyLock;

use super::{OtlpHttp, redactor};
use crate::delivery::{Outcome, Problem};
use crate::fuzz::{assert_one_line, reply};
use crate::text::Url;
use crate::wire::http::HttpClient;

/// A server that repeats the key that it refuses writes `$KEY` in the input.
const KEY: &str = "hcaik_01fuzz-key-that-nobody-else-may-see";

static BACKEND: LazyLock<OtlpHttp> = LazyLock::new(|| {
    let url = Url::parse("https://collector.example/v1/traces").expect("a URL");
    let headers = vec![("x-honeycomb-team".to_owned(), KEY.to_owned())];
    OtlpHttp {
        client: HttpClient::without_proxy(),
        redactor: redactor(&url, &headers),
        url,
        url_origin: "default".to_owned(),
        headers,
        gzip: false,
        max_elapsed_time: None,
    }
});

pub(crate) fn answers(input: &[u8]) {
    let mut reply = reply(input);
    reply.body = String::from_utf8_lossy(&reply.body).replace("$KEY", KEY).into_bytes();
    reply.head = reply.head.replace("$KEY", KEY);
    let outcome = BACKEND.answered(&reply, 1000);
    match &outcome {
        Outcome::Delivered | Outcome::Unconfirmed(_) => assert!((200..300).contains(&reply.status)),
        Outcome::Partly { rejected, .. } => assert!(*rejected > 0),
        Outcome::Later { after, .. } => assert!(after.is_none() || *after == reply.retry_after),
        _ => {}
    }
    if let Some(Problem { kind, message }) = outcome.problem() {
        let message = message.to_string();
        assert_one_line(kind, 100);
        assert_one_line(&message, 2000);
        assert!(!message.contains(KEY), "{message}");
    }
}
