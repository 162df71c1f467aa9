//! Responses of X-Ray's OTLP endpoint, sorted by the action that they require.
//!
//! ```text
//! 200 {}   {"partialSuccess":{...}}                           as any receiver of OTLP
//! 400 {"message":"... Trace Segment Destination ..."}         Transaction Search is off
//! 403 x-amzn-errortype: InvalidSignatureException             signature or clock
//!     x-amzn-errortype: UnrecognizedClientException           unknown key
//!     x-amzn-errortype: AccessDeniedException                 not allowed
//! 413, 429, 5xx                                               too large, throttled, temporary
//! ```

use serde_json::Value as Json;

use crate::text::encoding::without_mark;
use crate::wire::aws_call::{AwsError, ErrorClass};
use crate::wire::http::Reply;

/// Parsed response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TracesResponse {
    /// Class of the response, which decides the next action.
    pub(super) class: Class,
    /// Error code, such as `AccessDeniedException`. Empty if there is none.
    pub(super) code: String,
    /// Error message of the service.
    pub(super) message: String,
}

/// Classes of responses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    /// The status is a success. The body may still reject spans.
    Accepted,
    /// An error that all services of AWS share.
    Common(ErrorClass),
    /// Transaction Search is off in this account and region.
    SearchOff,
    /// The request is too large.
    TooLarge,
    /// These spans break a rule of the endpoint, and no retry would change that.
    Invalid,
    /// There is no such path: the address leads to another service, or the region has no endpoint.
    NoEndpoint,
    /// An error without a code of AWS: another program has answered. The spans stay queued.
    Foreign,
}

impl Class {
    /// Returns the class that all services share.
    pub(super) fn common(self) -> Option<ErrorClass> {
        if let Self::Common(class) = self { Some(class) } else { None }
    }
}

impl TracesResponse {
    pub(super) fn read(reply: &Reply) -> Self {
        let json: Json = serde_json::from_slice(without_mark(&reply.body)).unwrap_or_default();
        let AwsError { is_named, code, message } = AwsError::read(reply, &json);
        let is_success = (200..300).contains(&reply.status) && !is_named;
        let class = if is_success { Class::Accepted } else { classify(reply.status, &code, &message) };
        Self { class, code, message }
    }
}

fn classify(status: u16, code: &str, message: &str) -> Class {
    let common = ErrorClass::of_code(code).or_else(|| ErrorClass::of_status(status));
    if let Some(class) = common.or_else(|| of_message(status, code, message)) {
        return Class::Common(class);
    }
    match status {
        400 if is_search_off(message) => Class::SearchOff,
        400 => Class::Invalid,
        404 | 405 => Class::NoEndpoint,
        413 => Class::TooLarge,
        _ if code.is_empty() => Class::Foreign,
        _ => Class::Invalid,
    }
}

/// Returns the class of a 401 or 403 without a code, by the sentences of AWS.
fn of_message(status: u16, code: &str, message: &str) -> Option<ErrorClass> {
    if !matches!(status, 401 | 403) || !code.is_empty() {
        return None;
    }
    let message = message.to_ascii_lowercase();
    let says = |text: &str| message.contains(text);
    if says("signature") {
        return Some(ErrorClass::Signature);
    }
    if says("token") && says("expired") {
        return Some(ErrorClass::Expired);
    }
    if says("security token") || says("authentication token") {
        return Some(ErrorClass::UnknownKey);
    }
    says("not authorized").then_some(ErrorClass::Denied)
}

/// The endpoint names the feature, the setting or the operation that changes the setting.
fn is_search_off(message: &str) -> bool {
    let letters: String = message.chars().filter(char::is_ascii_alphabetic).collect();
    let letters = letters.to_ascii_lowercase();
    ["transactionsearch", "segmentdestination"].iter().any(|name| letters.contains(name))
}
