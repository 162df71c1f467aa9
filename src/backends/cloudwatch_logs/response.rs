//! Responses of CloudWatch Logs: parses them, and sorts them by the action that they require.

use std::time::Duration;

use serde_json::Value as Json;

use super::sequence_token;
use crate::text::encoding::without_mark;
use crate::wire::aws_call::{AwsError, ErrorClass};
use crate::wire::http::Reply;

/// Parsed response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct LogsResponse {
    /// Class of the response, which decides the next action.
    pub(super) class: Class,
    /// Status code.
    pub(super) status: u16,
    /// Error code, such as `ResourceNotFoundException`. Empty for success.
    pub(super) code: String,
    /// Error message of the service.
    pub(super) message: String,
    /// Wait that the service asks for before a retry.
    pub(super) retry_after: Option<Duration>,
    /// Number of events that were not stored, and the reason: too old, too new, past the retention.
    pub(super) rejected: Option<(usize, &'static str)>,
    /// Sequence token that an older service demands.
    pub(super) sequence_token: Option<String>,
}

/// Classes of responses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    /// The call succeeded.
    Success,
    /// The group or the stream does not exist.
    Missing,
    /// The group or the stream exists already, which counts as success.
    Exists,
    /// An older service has stored these lines before, which counts as success.
    AlreadyAccepted,
    /// An older service demands the sequence token, which is in the response.
    SequenceToken,
    /// An error that all services of AWS share.
    Common(ErrorClass),
    /// These lines break a rule of the service, and no retry would change that.
    Poison,
    /// The service does not have the operation: the address leads to another service.
    NoOperation,
    /// An error code that this program does not know. The lines stay queued.
    Unknown,
    /// An error without a code of AWS: another program has answered. The lines stay queued.
    Foreign,
}

impl LogsResponse {
    /// Parses the response to a batch of `sent` events. `sent` is 0 for a call that sends no
    /// events.
    pub(super) fn read(reply: &Reply, sent: usize) -> Self {
        let body = without_mark(&reply.body);
        let text = String::from_utf8_lossy(body);
        let json: Json = serde_json::from_slice(body).unwrap_or_default();
        let (status, retry_after) = (reply.status, reply.retry_after);
        let AwsError { is_named, code, message } = AwsError::read(reply, &json);
        if (200..300).contains(&status) && !is_named {
            // The body of a response may be empty. A body that is not JSON comes from a proxy,
            // perhaps from the login page of a network.
            let ours = text.trim().is_empty() || json.as_object().is_some_and(|fields| !is_foreign(fields));
            let class = if ours { Class::Success } else { Class::Common(ErrorClass::Transient) };
            let message = if ours { "" } else { "not a response of CloudWatch Logs" }.to_owned();
            let rejected = json.get("rejectedLogEventsInfo").and_then(|info| rejected(info, sent));
            return Self { class, status, code: String::new(), message, retry_after, rejected, sequence_token: None };
        }
        let sequence_token = sequence_token::expected(&json, &message);
        Self { class: classify(status, &code), status, code, message, retry_after, rejected: None, sequence_token }
    }
}

/// Returns true for a JSON object that another program sends with the status of a success: it has
/// an error or a message, and no field of a response.
fn is_foreign(fields: &serde_json::Map<String, Json>) -> bool {
    let has = |names: &[&str]| names.iter().any(|name| fields.get(*name).is_some_and(|value| !value.is_null()));
    has(&["error", "errors", "message", "Message", "code"])
        && !has(&["nextSequenceToken", "rejectedLogEventsInfo", "rejectedEntityInfo"])
}

fn classify(status: u16, code: &str) -> Class {
    match code {
        "ResourceNotFoundException" => Class::Missing,
        "DataAlreadyAcceptedException" => Class::AlreadyAccepted,
        "InvalidSequenceTokenException" => Class::SequenceToken,
        "UnknownOperationException" | "UnknownOperation" | "InvalidAction" | "NotImplemented" => Class::NoOperation,
        "ResourceAlreadyExistsException" | "OperationAbortedException" => Class::Exists,
        "InvalidParameterException" | "InvalidParameterValue" if status != 429 => Class::Poison,
        "ValidationException" | "SerializationException" if status != 429 => Class::Poison,
        _ => match ErrorClass::of_code(code).or_else(|| ErrorClass::of_status(status)) {
            Some(class) => Class::Common(class),
            None if status == 413 => Class::Poison,
            None if code.is_empty() && status < 400 => Class::Common(ErrorClass::Transient),
            None if code.is_empty() => Class::Foreign,
            None => Class::Unknown,
        },
    }
}

/// Returns the number of rejected events, and the reason. The events are in the order of their
/// times. Those before the *exclusive* end index are too old or past the retention. Those from the
/// *inclusive* start index on are too new. The two ranges may overlap.
fn rejected(info: &Json, sent: usize) -> Option<(usize, &'static str)> {
    let number = |value: &Json| value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
    let index = |key: &str| info.get(key).and_then(number).and_then(|index| usize::try_from(index).ok());
    let (old, expired) = (index("tooOldLogEventEndIndex"), index("expiredLogEventEndIndex"));
    let new = index("tooNewLogEventStartIndex");
    let before = old.unwrap_or(0).max(expired.unwrap_or(0)).min(sent);
    let after = sent - new.unwrap_or(sent).clamp(before, sent);
    let why = match (before > 0, after > 0) {
        (true, _) if expired >= old => "they are older than the retention of the group",
        (true, _) => "they are older than 14 days",
        (false, true) => "they are more than two hours ahead of the service's clock",
        (false, false) => return None,
    };
    Some((before + after, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> LogsResponse {
        let reply = Reply { status, body: body.as_bytes().to_vec(), ..Reply::default() };
        LogsResponse::read(&reply, 10)
    }

    #[test]
    fn the_code_is_found_wherever_it_stands() {
        for body in [
            r#"{"__type":"ResourceNotFoundException","message":"no"}"#,
            r#"{"__type":"com.amazonaws.logs#ResourceNotFoundException","Message":"no"}"#,
            r#"{"__type":"ResourceNotFoundException:http://x/","message":"no"}"#,
            "<ErrorResponse><Error><Code>ResourceNotFoundException</Code><Message>no</Message></Error></ErrorResponse>",
        ] {
            let answer = read(400, body);
            assert_eq!((answer.class, answer.message.as_str()), (Class::Missing, "no"), "{body}");
        }
        let head = "HTTP/1.1 400 Bad Request\r\nx-amzn-errortype: ThrottlingException:\r\n\r\n".to_owned();
        let reply = Reply { status: 400, head, ..Reply::default() };
        assert_eq!(LogsResponse::read(&reply, 1).class, Class::Common(ErrorClass::Throttled));
    }

    #[test]
    fn a_code_is_a_name_or_nothing() {
        for code in ["a\nb", "token==", &"x".repeat(65)] {
            assert_eq!(read(400, &format!(r#"{{"__type":{}}}"#, Json::from(code))).code, "", "{code}");
        }
    }

    #[test]
    fn every_code_has_its_class() {
        for (status, code, class) in [
            (400, "ThrottlingException", Class::Common(ErrorClass::Throttled)),
            (429, "", Class::Common(ErrorClass::Throttled)),
            (400, "ServiceUnavailableException", Class::Common(ErrorClass::Transient)),
            (503, "", Class::Common(ErrorClass::Transient)),
            (500, "whatever", Class::Common(ErrorClass::Transient)),
            (403, "ExpiredTokenException", Class::Common(ErrorClass::Expired)),
            (400, "UnrecognizedClientException", Class::Common(ErrorClass::UnknownKey)),
            (400, "AccessDeniedException", Class::Common(ErrorClass::Denied)),
            (400, "InvalidSignatureException", Class::Common(ErrorClass::Signature)),
            (403, "SignatureDoesNotMatch", Class::Common(ErrorClass::Signature)),
            (400, "InvalidParameterException", Class::Poison),
            (400, "ResourceAlreadyExistsException", Class::Exists),
            (413, "", Class::Poison),
            (302, "", Class::Common(ErrorClass::Transient)),
            (501, "", Class::Common(ErrorClass::Transient)),
            (407, "", Class::Foreign),
            (400, "SomethingNewException", Class::Unknown),
            (400, "DataAlreadyAcceptedException", Class::AlreadyAccepted),
            (400, "InvalidSequenceTokenException", Class::SequenceToken),
            (400, "UnknownOperationException", Class::NoOperation),
            (404, "UnknownOperationException", Class::NoOperation),
            (200, "SomethingNewException", Class::Unknown),
        ] {
            assert_eq!(classify(status, code), class, "{status} {code}");
        }
    }

    #[test]
    fn a_200_is_a_success_if_it_comes_from_the_service() {
        assert_eq!(read(200, "<html>please log in</html>").class, Class::Common(ErrorClass::Transient));
        for body in [
            "",
            "{}",
            "\u{feff}{}",
            r#"{"nextSequenceToken":"1"}"#,
            r#"{"nextSequenceToken":"1","message":"ok"}"#,
            r#"{"rejectedLogEventsInfo":{}}"#,
            r#"{"somethingNew":1}"#,
        ] {
            assert_eq!((read(200, body).class, read(200, body).rejected), (Class::Success, None), "{body}");
        }
        for body in ["[]", "OK", r#"{"code":3,"message":"no"}"#, r#"{"message":"Forbidden"}"#, r#"{"error":"x"}"#] {
            assert_eq!(read(200, body).class, Class::Common(ErrorClass::Transient), "{body}");
        }
        assert_eq!(read(204, "").class, Class::Success);
        let error = read(200, r#"{"__type":"ResourceNotFoundException","message":"no"}"#);
        assert_eq!(error.class, Class::Missing, "the status of a success with the body of an error");
    }

    #[test]
    fn rejected_events_are_counted_by_the_meaning_that_the_service_gives_its_indices() {
        for (info, count) in [
            (r#"{"tooOldLogEventEndIndex":3}"#, 3),
            (r#"{"tooOldLogEventEndIndex":"3"}"#, 3),
            (r#"{"tooNewLogEventStartIndex":8}"#, 2),
            (r#"{"expiredLogEventEndIndex":4,"tooOldLogEventEndIndex":3}"#, 4),
            (r#"{"tooOldLogEventEndIndex":3,"tooNewLogEventStartIndex":9}"#, 4),
            (r#"{"tooOldLogEventEndIndex":30}"#, 10),
            (r#"{"tooOldLogEventEndIndex":10,"tooNewLogEventStartIndex":0}"#, 10),
        ] {
            let answer = read(200, &format!(r#"{{"rejectedLogEventsInfo":{info}}}"#));
            assert_eq!(answer.rejected.unwrap().0, count, "{info}");
        }
    }
}
