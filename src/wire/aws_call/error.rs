//! Errors of AWS's services: the code and the message in a response, and the codes that all services
//! share.
//!
//! ```text
//! HTTP/1.1 403 Forbidden
//! x-amzn-errortype: AccessDeniedException:                      either here
//!
//! {"__type":"com.amazonaws.logs#AccessDeniedException",         or here, with or without a prefix
//!  "message":"User: ... is not authorized to perform: ..."}     or "Message"
//! <Error><Code>AccessDenied</Code><Message>...</Message>        some emulators answer in XML
//! ```

use serde_json::Value as Json;

use crate::text::encoding::without_mark;
use crate::wire::http::Reply;

/// Error in a response.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AwsError {
    /// True if a header or a field names a code, even an invalid one. Some stand-ins send an error
    /// with the status of a success.
    pub is_named: bool,
    /// Code, such as `ThrottlingException`. Empty if there is no valid one.
    pub code: String,
    /// Message of the service.
    pub message: String,
}

/// Classes of the errors that all services share.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorClass {
    /// The service received too many calls. It accepts them later.
    Throttled,
    /// The service has a temporary problem.
    Transient,
    /// The credentials have expired.
    Expired,
    /// The service does not know the key, or the call has none.
    UnknownKey,
    /// The key does not have the permission.
    Denied,
    /// The signature does not match, or the clock is wrong.
    Signature,
}

impl AwsError {
    /// Reads the error in a response. `json` is its body, or `null` if that is not JSON.
    pub fn read(reply: &Reply, json: &Json) -> Self {
        let named = reply.header("x-amzn-errortype").or_else(|| json.get("__type").and_then(Json::as_str));
        let text = String::from_utf8_lossy(without_mark(&reply.body));
        let code = named.map_or_else(|| xml(&text, "Code"), |code| short_code(code).to_owned());
        // Only a plain name is kept: the code is logged, and it is a part of the kind of a problem.
        let is_name = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let message = ["message", "Message"].iter().find_map(|key| json.get(*key).and_then(Json::as_str));
        Self {
            is_named: named.is_some(),
            code: if is_name { code } else { String::new() },
            message: message.map_or_else(|| xml(&text, "Message"), str::to_owned),
        }
    }
}

impl ErrorClass {
    /// Returns the class of a code that all services share. The codes for throttling are those that
    /// AWS's SDKs retry.
    pub fn of_code(code: &str) -> Option<Self> {
        Some(match code {
            "Throttling" | "ThrottlingException" | "ThrottledException" | "TooManyRequestsException" => Self::Throttled,
            "RequestLimitExceeded" | "RequestThrottled" | "RequestThrottledException" => Self::Throttled,
            "SlowDown" | "LimitExceededException" | "EC2ThrottledException" => Self::Throttled,
            "BandwidthLimitExceeded" | "PriorRequestNotComplete" => Self::Throttled,
            "ProvisionedThroughputExceededException" | "TransactionInProgressException" => Self::Throttled,
            "ServiceUnavailableException" | "InternalFailure" | "InternalServerError" => Self::Transient,
            "RequestTimeout" | "RequestTimeoutException" => Self::Transient,
            "ExpiredToken" | "ExpiredTokenException" => Self::Expired,
            "InvalidClientTokenId" | "UnrecognizedClientException" => Self::UnknownKey,
            "MissingAuthenticationToken" | "MissingAuthenticationTokenException" => Self::UnknownKey,
            "AccessDenied" | "AccessDeniedException" | "OptInRequired" => Self::Denied,
            "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestTimeTooSkewed" => Self::Signature,
            "AuthFailure" => Self::Signature,
            _ => return None,
        })
    }

    /// Returns the class of a status, if the status alone is enough.
    pub fn of_status(status: u16) -> Option<Self> {
        match status {
            429 => Some(Self::Throttled),
            408 | 500.. => Some(Self::Transient),
            _ => None,
        }
    }
}

/// Extracts the name from `com.amazonaws.logs#ResourceNotFoundException:http://...`.
fn short_code(code: &str) -> &str {
    let code = code.rsplit('#').next().unwrap_or(code);
    code.split(':').next().unwrap_or(code).trim()
}

/// Returns the text of an XML element.
fn xml(text: &str, tag: &str) -> String {
    let begin = format!("<{tag}>");
    let inside = text.split_once(&begin).and_then(|(_, rest)| rest.split_once("</"));
    inside.map_or_else(String::new, |(inside, _)| inside.trim().to_owned())
}
