//! Signature Version 4, the signature of AWS requests. It proves to AWS who sends a request, and
//! that the request was not changed on its way.
//!
//! The secret key is never sent. Client and server both write down the same text, the canonical
//! request:
//!
//! ```text
//! POST                                                              method
//! /                                                                 path
//!                                                                   query, empty here
//! content-type:application/x-amz-json-1.1                           headers: names in lower case
//! host:logs.us-east-1.amazonaws.com                                   and sorted, values trimmed
//! x-amz-date:20260115T123456Z
//! x-amz-target:Logs_20140328.PutLogEvents
//!                                                                   empty line: end of the headers
//! content-type;host;x-amz-date;x-amz-target                         names of the signed headers
//! ba5f59a882e32373e847e735a646cf66bc218649f0cd9e15236cd27164b83e57  SHA-256 of the body
//! ```
//!
//! The SHA-256 of the canonical request is the last line of a second, short text, the string to
//! sign:
//!
//! ```text
//! AWS4-HMAC-SHA256                                                  the algorithm
//! 20260115T123456Z                                                  time; valid for some minutes
//! 20260115/us-east-1/logs/aws4_request                              scope: the use of the key
//! bd8f2755bb470a3b30f1a22793f966f6a9618d7b711b1c8d2974d3660bbf3c9d  SHA-256 of the first text
//! ```
//!
//! The signing key is derived from the secret key in four steps, one for each part of the scope. A
//! leaked signing key works for one day only, in one region and with one service. The signer keeps
//! the key for the whole day and need not derive it for each request.
//!
//! ```text
//! AWS4wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY
//!   HMAC 20260115       1a9ea371...bf181d
//!   HMAC us-east-1      813cd0c0...8d31d5
//!   HMAC logs           2e518296...43abf8
//!   HMAC aws4_request   ab92bbc8...4fa78a    the signing key
//! ```
//!
//! The signature is the HMAC of the string to sign under the signing key. It is sent in one header,
//! together with the scope and the names of the signed headers (on one line in the real request):
//!
//! ```text
//! authorization: AWS4-HMAC-SHA256
//!   Credential=AKIAIOSFODNN7EXAMPLE/20260115/us-east-1/logs/aws4_request,
//!   SignedHeaders=content-type;host;x-amz-date;x-amz-target,
//!   Signature=79dcbc6b5f4f0ed000445a2a2ca8e8dd9cbaf8f4ed19deac142c029841d4f5f0
//! ```
//!
//! For CloudWatch Logs the path is always `/` and the query is always empty. So the rules for path
//! and query, the longest in the specification, produce two constant lines here. This module
//! implements them because most of the published test vectors are about them.
//!
//! Specification:
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::digest::{self, SHA256};
use ring::hmac::{self, HMAC_SHA256};

use crate::text::{hex, time};

/// Signs requests to one service in one region.
pub struct Signer {
    region: String,
    service: String,
    key: Option<SigningKey>,
}

/// The credentials to sign with. `Debug` shows only the access key id.
#[derive(Clone, Copy)]
pub struct Secrets<'a> {
    /// The public half of the key: `AKIA...`, or `ASIA...` for a temporary key.
    pub access_key_id: &'a str,
    /// The secret half of the key, which is never sent.
    pub secret_access_key: &'a str,
    /// The token that belongs to a temporary key. It is secret too, although it is sent as a
    /// header.
    pub session_token: Option<&'a str>,
}

/// The request to sign, exactly as it will be sent.
pub struct SigningInput<'a> {
    /// The method in capital letters.
    pub method: &'a str,
    /// The value of the `host` header. It has a port only if that is not the scheme's default port.
    pub host: &'a str,
    /// The path as in the request line, without the query. For CloudWatch Logs it is `/`.
    pub path: &'a str,
    /// True if `//`, `.` and `..` in the path are resolved before signing. All services except S3
    /// do so.
    pub normalize_path: bool,
    /// The names and values of the query, not yet encoded. For CloudWatch Logs there are none.
    pub query: &'a [(&'a str, &'a str)],
    /// The other headers. All are signed, except those in [`NEVER_SIGNED`].
    pub headers: &'a [(String, String)],
    /// The body in the bytes that are sent: after compression, if it is compressed.
    pub body: &'a [u8],
}

/// A signature, with the texts from which it was made.
///
/// The public fields and the `Debug` text contain no secret, so the page and the log may show them.
pub struct Signed {
    /// The header `authorization`.
    pub authorization: String,
    /// The header `x-amz-date`.
    pub x_amz_date: String,
    /// The canonical request, with the session token replaced by its length. The hash in the string
    /// to sign is that of the real text.
    pub canonical_request: String,
    /// The string to sign.
    pub string_to_sign: String,
    /// The signature alone, 64 hex digits.
    pub signature: String,
    session_token: Option<String>,
}

/// Names of request headers that the signer skips.
///
/// The first five belong to the connection, and a proxy may change them on the way. The signer sets
/// the others itself: `host` from its field in [`SigningInput`], the rest in [`Signed::headers`].
pub const NEVER_SIGNED: [&str; 9] = [
    "connection",
    "expect",
    "transfer-encoding",
    "user-agent",
    "x-amzn-trace-id",
    "authorization",
    "host",
    X_AMZ_DATE,
    X_AMZ_SECURITY_TOKEN,
];

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const X_AMZ_DATE: &str = "x-amz-date";
/// The header that carries a session token.
pub const X_AMZ_SECURITY_TOKEN: &str = "x-amz-security-token";

/// Characters that are percent-encoded, byte by byte, with capital hex digits: all except `A-Z`,
/// `a-z`, `0-9`, `-`, `_`, `.` and `~`.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Characters that are percent-encoded in a path: the same without the slash.
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

impl Signer {
    /// Creates a signer for a region and a service, for instance `us-east-1` and `logs`.
    pub fn new(region: impl Into<String>, service: impl Into<String>) -> Self {
        Self { region: region.into(), service: service.into(), key: None }
    }

    /// Signs `request` at the time `now`.
    ///
    /// Each attempt to send a request needs a new signature, because a signature is valid for some
    /// minutes only. If the local clock is wrong, add the difference to `now`.
    pub fn sign(&mut self, request: &SigningInput<'_>, secrets: &Secrets<'_>, now: SystemTime) -> Signed {
        // Time and date come from one reading of the clock. Two readings around midnight could give
        // two different dates.
        let time: &str = &time::millis(DateTime::<Utc>::from(now));
        // The slices are safe: the text is ASCII, and has at least the 24 characters of
        // `2026-01-15T12:34:56.000Z`.
        let x_amz_date = [&time[..4], &time[5..7], &time[8..13], &time[14..16], &time[17..19], "Z"].concat();
        let date = &x_amz_date[..8];
        let scope = [date, &self.region, &self.service, "aws4_request"].join("/");
        let (canonical_request, signed_headers) = canonical_request(request, &x_amz_date, secrets.session_token);
        let string_to_sign = [ALGORITHM, &x_amz_date, &scope, &sha256(canonical_request.as_bytes())].join("\n");
        let signature = hex(hmac::sign(self.key(secrets.secret_access_key, date), string_to_sign.as_bytes()).as_ref());
        let (id, names) = (secrets.access_key_id, &signed_headers);
        let authorization =
            [ALGORITHM, " Credential=", id, "/", &scope, ", SignedHeaders=", names, ", Signature=", &signature]
                .concat();
        Signed {
            authorization,
            x_amz_date,
            canonical_request: match secrets.session_token {
                Some(_) => redact_token(&canonical_request),
                None => canonical_request,
            },
            string_to_sign,
            signature,
            session_token: secrets.session_token.map(str::to_owned),
        }
    }

    /// Returns the signing key for the day `date`. The key of the last call is used again if day
    /// and secret are the same.
    fn key(&mut self, secret: &str, date: &str) -> &hmac::Key {
        let fingerprint = digest::digest(&SHA256, secret.as_bytes());
        let cached = self.key.take_if(|key| key.date == date && key.fingerprint.as_ref() == fingerprint.as_ref());
        let key = cached.unwrap_or_else(|| {
            let [.., signing_key] = key_chain(secret, date, &self.region, &self.service);
            SigningKey { date: date.to_owned(), fingerprint, key: hmac_key(signing_key) }
        });
        &self.key.insert(key).key
    }
}

impl Signed {
    /// Returns the headers to add to the request. Do not log them: the session token is among them,
    /// if there is one.
    pub fn headers(&self) -> Vec<(String, String)> {
        let date = (X_AMZ_DATE.to_owned(), self.x_amz_date.clone());
        let authorization = ("authorization".to_owned(), self.authorization.clone());
        let token = self.session_token.clone().map(|token| (X_AMZ_SECURITY_TOKEN.to_owned(), token));
        [date, authorization].into_iter().chain(token).collect()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("region", &self.region).field("service", &self.service).finish_non_exhaustive()
    }
}

impl fmt::Debug for Secrets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// Omits headers and body, because both may contain secrets.
impl fmt::Debug for SigningInput<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningInput({} {} {}, {} bytes)", self.method, self.host, self.path, self.body.len())
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { authorization, canonical_request, .. } = self;
        f.debug_struct("Signed")
            .field("authorization", authorization)
            .field("of", canonical_request)
            .finish_non_exhaustive()
    }
}

/// The last key of the key chain, with the date and the fingerprint of the secret behind it.
struct SigningKey {
    date: String,
    /// The SHA-256 of the secret. It shows when the secret has changed.
    fingerprint: digest::Digest,
    key: hmac::Key,
}

/// Derives the keys of date, region, service and request. The last one is the signing key.
pub(crate) fn key_chain(secret: &str, date: &str, region: &str, service: &str) -> [hmac::Tag; 4] {
    let derive = |key: hmac::Tag, text: &str| hmac::sign(&hmac_key(key), text.as_bytes());
    let start = hmac::Key::new(HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    let date_key = hmac::sign(&start, date.as_bytes());
    let region_key = derive(date_key, region);
    let service_key = derive(region_key, service);
    [date_key, region_key, service_key, derive(service_key, "aws4_request")]
}

/// Makes the result of one step the key of the next step.
fn hmac_key(tag: hmac::Tag) -> hmac::Key {
    hmac::Key::new(HMAC_SHA256, tag.as_ref())
}

/// Returns the canonical request and the names of its headers.
fn canonical_request(request: &SigningInput<'_>, x_amz_date: &str, session_token: Option<&str>) -> (String, String) {
    let path = if request.normalize_path { &normalized(request.path) } else { request.path };
    let uri = canonical_uri(path);
    let query = canonical_query(request.query);
    let headers = canonical_headers(request, x_amz_date, session_token);
    let (mut lines, mut names) = (String::with_capacity(512), String::with_capacity(128));
    for same_name in headers.chunk_by(|(one, _), (other, _)| one == other) {
        let name = &same_name[0].0;
        names.extend([if names.is_empty() { "" } else { ";" }, name]);
        lines.extend([name, ":"]);
        for (index, (_, value)) in same_name.iter().enumerate() {
            lines.extend([if index == 0 { "" } else { "," }, value]);
        }
        lines.push('\n');
    }
    ([request.method, &uri, &query, &lines, &names, &sha256(request.body)].join("\n"), names)
}

/// Returns the path, percent-encoded once more than in the request line: `%20` there becomes
/// `%2520` here.
fn canonical_uri(path: &str) -> Cow<'_, str> {
    if path.is_empty() { Cow::Borrowed("/") } else { utf8_percent_encode(path, RESERVED_IN_PATH).into() }
}

/// Resolves `//`, `.` and `..`: `/a//./b/../c/` becomes `/a/c/`.
fn normalized(path: &str) -> Cow<'_, str> {
    if path == "/" {
        return Cow::Borrowed(path);
    }
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let end = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    Cow::Owned(format!("/{}{end}", segments.join("/")))
}

/// Returns the pairs `name=value`, encoded, then sorted, then joined with `&`.
fn canonical_query(query: &[(&str, &str)]) -> String {
    let encode = |text| utf8_percent_encode(text, RESERVED).to_string();
    let mut pairs: Vec<_> = query.iter().map(|(name, value)| (encode(name), encode(value))).collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Returns the headers to sign, sorted by their names in lower case. Headers of the same name stay in
/// the order in which they are sent; their values are joined with commas.
fn canonical_headers<'a>(
    request: &SigningInput<'a>,
    x_amz_date: &'a str,
    session_token: Option<&'a str>,
) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
    let signer_headers = [("host", request.host), (X_AMZ_DATE, x_amz_date)].into_iter();
    let token = session_token.map(|token| (X_AMZ_SECURITY_TOKEN, token));
    let others = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let others = others.filter(|(name, _)| !NEVER_SIGNED.iter().any(|never| name.eq_ignore_ascii_case(never)));
    let headers = signer_headers.chain(token).chain(others);
    let mut headers: Vec<_> = headers.map(|(name, value)| (lower_case(name), collapse_spaces(value))).collect();
    headers.sort_by(|(one, _), (other, _)| one.cmp(other));
    headers
}

fn lower_case(name: &str) -> Cow<'_, str> {
    let has_capitals = name.bytes().fold(false, |found, byte| found | byte.is_ascii_uppercase());
    if has_capitals { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) }
}

/// Removes spaces around a value, and replaces several spaces inside it by one. A proxy may do the
/// same on the way.
fn collapse_spaces(value: &str) -> Cow<'_, str> {
    let has_spaces = value.bytes().fold(false, |found, byte| found | byte.is_ascii_whitespace());
    if !has_spaces {
        return Cow::Borrowed(value);
    }
    Cow::Owned(value.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
}

/// Replaces the session token by its length, so that the canonical request may be shown.
fn redact_token(canonical_request: &str) -> String {
    let lines = canonical_request.split('\n').map(|line| {
        match line.strip_prefix(X_AMZ_SECURITY_TOKEN).and_then(|rest| rest.strip_prefix(':')) {
            Some(token) => format!("{X_AMZ_SECURITY_TOKEN}:({} bytes, not shown)", token.len()),
            None => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the SHA-256 of `bytes` in lower-case hex digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&SHA256, bytes).as_ref())
}
