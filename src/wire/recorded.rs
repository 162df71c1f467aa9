//! One call and its response, ready to be shown. Secrets are redacted before a [`RecordedCall`] is
//! created, so code that stores or prints one need not redact anything.
//!
//! ```text
//! POST /v1/traces HTTP/1.1
//! content-length: 2076
//! host: api.honeycomb.io
//! content-type: application/json
//! user-agent: cruddur/0.1.0 (OTLP JSON; Rust)
//! x-honeycomb-team: (22 characters, not shown)
//!
//! {"resourceSpans":[...
//! ```

use std::sync::Arc;
use std::time::SystemTime;

use super::http::{Call, CallError, Reply};
use super::redact::{Redactor, basic_authorization};

/// A request that was sent, and the response to it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RecordedCall {
    /// The destination without secrets: a URL, `udp 127.0.0.1:2000`, or `standard output`.
    pub to: Arc<str>,
    /// The request line and the headers that were sent, with the values of secret headers replaced.
    /// Empty if the protocol has no headers.
    pub head: String,
    /// The body, if it differs from the bytes of the payload.
    pub body: Option<Vec<u8>>,
    /// The texts behind the signature, if the call was signed.
    pub signing: Option<Signing>,
    /// The response, or the error as text. `None` if the protocol has no responses.
    pub answer: Option<Result<RecordedResponse, String>>,
}

/// The two texts from which a signature is made; see [`super::sigv4`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Signing {
    /// The canonical request.
    pub canonical_request: String,
    /// The string to sign.
    pub string_to_sign: String,
}

/// An HTTP response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecordedResponse {
    /// The status code.
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    /// The server's time, if it is known; see [`Reply::date`].
    pub date: Option<SystemTime>,
    /// The body, cut at 16 KiB.
    pub body: Vec<u8>,
    /// The length of the body that was received, in bytes.
    pub body_size: usize,
}

/// The largest response body that is kept.
const MAX_RECORDED_BODY: usize = 16 * 1024;

impl RecordedCall {
    /// Records a call over a protocol without headers and responses.
    pub fn one_way(to: Arc<str>) -> Self {
        Self { to, ..Self::default() }
    }

    /// Records a POST. The value of a header is shown only if `may_be_shown` returns true for its
    /// name. The query of the URL is replaced, and so is each secret that the response repeats.
    pub fn post(
        call: &Call<'_>,
        reply: Result<&Reply, &CallError>,
        may_be_shown: impl Fn(&str) -> bool,
        redactor: &Redactor,
    ) -> Self {
        let head = post_head(call, may_be_shown);
        let answer = match reply {
            Ok(reply) => Ok(RecordedResponse::new(reply, redactor)),
            Err(error) => Err(redactor.redact(error.to_string())),
        };
        Self { to: call.url.redacted().into(), head, body: None, signing: None, answer: Some(answer) }
    }

    /// The size in memory, in bytes.
    pub fn size(&self) -> usize {
        let signing = self.signing.as_ref().map_or(0, |it| it.canonical_request.len() + it.string_to_sign.len());
        let answer = match &self.answer {
            Some(Ok(answer)) => answer.head.len() + answer.body.len(),
            Some(Err(why)) => why.len(),
            None => 0,
        };
        size_of::<Self>() + self.to.len() + self.head.len() + self.body.as_ref().map_or(0, Vec::len) + signing + answer
    }
}

/// Returns the request line and the headers of a POST, in the order in which ureq writes them. The
/// value of a header is shown only if `may_be_shown` returns true for its name. The query of the
/// URL is replaced.
pub fn post_head(call: &Call<'_>, may_be_shown: impl Fn(&str) -> bool) -> String {
    let query = call.url.query().map_or_else(String::new, |query| format!("?{}", not_shown(query)));
    let mut head = format!("POST {}{query} HTTP/1.1\r\ncontent-length: {}\r\n", call.url.path(), call.body.len());
    head.push_str(&format!("host: {}\r\n", call.url.host_header()));
    let has_authorization = call.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    if let Some(value) = basic_authorization(call.url).filter(|_| !has_authorization) {
        head.push_str(&format!("authorization: {}\r\n", not_shown(&value)));
    }
    for (name, value) in call.headers {
        let shown = if may_be_shown(name) { value.clone() } else { not_shown(value) };
        head.push_str(&format!("{name}: {shown}\r\n"));
    }
    head + "\r\n"
}

impl RecordedResponse {
    fn new(reply: &Reply, redactor: &Redactor) -> Self {
        // Redact first, then cut: half of a secret would not be found. A body that is not UTF-8 may
        // hold a secret too.
        let mut body = match std::str::from_utf8(&reply.body) {
            Err(_) if redactor.is_empty() => reply.body.clone(),
            _ => redactor.redact(String::from_utf8_lossy(&reply.body).into_owned()).into_bytes(),
        };
        if body.len() > MAX_RECORDED_BODY {
            let is_char_start = |at: &usize| body[*at] & 0xc0 != 0x80;
            let end =
                (MAX_RECORDED_BODY - 3..=MAX_RECORDED_BODY).rev().find(is_char_start).unwrap_or(MAX_RECORDED_BODY);
            body.truncate(end);
        }
        let head = redactor.redact(reply.head.clone());
        Self { status: reply.status, head, date: reply.date, body, body_size: reply.body.len() }
    }
}

fn not_shown(secret: &str) -> String {
    format!("({} characters, not shown)", secret.chars().count())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::text::Url;

    fn exchange(reply: Result<&Reply, &CallError>) -> RecordedCall {
        let headers = [("content-type", "application/json"), ("authorization", "Bearer s3cr3t-and-long")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let url = Url::parse("https://me:password@host:4318/v1/traces?sig=signature").unwrap();
        let call = Call { url: &url, headers: &headers, body: b"{}", timeout: None };
        let redactor = Redactor::new(&url, ["Bearer s3cr3t-and-long"]).with_secret("redactor-key");
        RecordedCall::post(&call, reply, |name| name == "content-type", &redactor)
    }

    #[test]
    fn what_left_is_shown_without_its_secrets() {
        let exchange = exchange(Err(&CallError::Timeout(Some(Duration::from_secs(10)))));
        assert_eq!(
            exchange.head,
            "POST /v1/traces?(13 characters, not shown) HTTP/1.1\r\ncontent-length: 2\r\nhost: host:4318\r\n\
             content-type: application/json\r\nauthorization: (22 characters, not shown)\r\n\r\n"
        );
        assert_eq!(&*exchange.to, "https://host:4318/v1/traces");
        assert_eq!(exchange.answer, Some(Err("timed out after 10 s".to_owned())));
    }

    #[test]
    fn a_user_in_the_url_leaves_as_a_header_and_is_shown_as_one() {
        let call =
            Call { url: &Url::parse("http://joe:passw0rd@host/x").unwrap(), headers: &[], body: b"", timeout: None };
        let exchange = RecordedCall::post(&call, Err(&CallError::Timeout(None)), |_| true, &Redactor::default());
        assert!(exchange.head.contains("\r\nhost: host\r\nauthorization: (22 characters, not shown)\r\n"));
    }

    #[test]
    fn an_answer_that_repeats_a_secret_is_shown_without_it() {
        let body = b"the key s3cr3t-and-long of ?sig=signature and redactor-key is unknown".to_vec();
        let head = "HTTP/1.1 401 Unauthorized\r\nx-key: s3cr3t-and-long\r\n\r\n".to_owned();
        let reply = Reply { status: 401, head, body, ..Reply::default() };
        let shown = format!("{:?}", exchange(Ok(&reply)));
        assert!(
            !shown.contains("s3cr3t")
                && !shown.contains("signature")
                && !shown.contains("redactor")
                && !shown.contains("password"),
            "{shown}"
        );
        let binary = Reply { body: [b"\xff s3cr3t-and-long".to_vec(), vec![b'x'; 20_000]].concat(), ..reply };
        let Some(Ok(answer)) = exchange(Ok(&binary)).answer else { panic!("no answer") };
        assert!(!String::from_utf8_lossy(&answer.body).contains("s3cr3t"));
        assert!(answer.body.len() < answer.body_size);
        let straddling = [vec![b'x'; MAX_RECORDED_BODY - 10], b"s3cr3t-and-long".to_vec()].concat();
        let Some(Ok(answer)) = exchange(Ok(&Reply { body: straddling, ..Reply::default() })).answer else { panic!() };
        assert!(answer.body.ends_with(b"x***"));
        let letters = Reply { body: "xé".repeat(20_000).into_bytes(), ..Reply::default() };
        let Some(Ok(answer)) = exchange(Ok(&letters)).answer else { panic!() };
        assert!(
            answer.body.len() > MAX_RECORDED_BODY - 4 && std::str::from_utf8(&answer.body).unwrap().starts_with("xéxé")
        );
    }
}
