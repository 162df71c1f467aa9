//! Responses, and failures that become responses.

use std::error::Error;

use crate::activities::Invalid;
use crate::text::Message;
use crate::text::json::{Json, WriteJson};
use crate::trace::exception::Exception;
use crate::trace::id::TraceId;

/// A response before it is written as bytes.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// `Allow`: the methods of the path, for OPTIONS and 405.
    pub allow: Option<&'static str>,
    /// `Content-Type` of the body; it is sent if there is a body.
    pub content_type: &'static str,
    /// Headers of this kind of response only.
    pub headers: &'static [(&'static str, &'static str)],
    /// Body; JSON ends with a newline.
    pub body: Vec<u8>,
}

/// Reason why a request did not succeed.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The input breaks a rule of Cruddur: 422 with an array of one code, as in the original.
    Invalid(Invalid),
    /// The request cannot be understood, or asks for something that does not exist.
    Rejected {
        /// Status code, mostly 400 to 431.
        status: u16,
        /// What is wrong, and what would be right.
        message: String,
        /// Methods of the path, if the method was wrong.
        allow: Option<&'static str>,
    },
    /// Another service did not answer as it should: 502 with this message and the trace id.
    BadGateway(Message),
    /// An error in a handler: 500 with the trace id.
    Internal(Exception),
    /// A panic in a handler: 500 with the trace id. The panic hook has logged the details.
    Panicked,
}

impl Response {
    /// 200 with `value` as JSON.
    pub fn json(value: &impl WriteJson) -> Self {
        let mut json = Json::with_capacity(2048);
        value.write(&mut json);
        json.raw("\n");
        Self { body: json.into_bytes(), ..Self::default() }
    }

    /// 200 without a body, for OPTIONS: the answer to a preflight is in the headers.
    pub fn empty(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::default() }
    }

    /// The response to a request that failed. An untraced request has no `trace_id`.
    pub fn from_failure(failure: &Failure, trace_id: Option<TraceId>) -> Self {
        let (status, allow, json) = match failure {
            Failure::Invalid(Invalid(code)) => (422, None, format!("[\"{code}\"]")),
            Failure::Rejected { status, message, allow } => (*status, *allow, error_json(message, None)),
            Failure::BadGateway(message) => (502, None, error_json(&message.to_string(), trace_id)),
            Failure::Internal(_) | Failure::Panicked => {
                let message = "internal server error; look for the trace id in the logs, or in GET /telemetry/traces";
                (500, None, error_json(message, trace_id))
            }
        };
        Self { status, allow, body: (json + "\n").into_bytes(), ..Self::default() }
    }
}

/// 200 with JSON, of which there is none yet.
impl Default for Response {
    fn default() -> Self {
        Self { status: 200, allow: None, content_type: "application/json", headers: &[], body: Vec::new() }
    }
}

fn error_json(message: &str, trace_id: Option<TraceId>) -> String {
    let mut object = serde_json::json!({ "message": message });
    if let Some(trace_id) = trace_id {
        object["trace_id"] = trace_id.to_string().into();
    }
    object.to_string()
}

impl Failure {
    /// A rejection with a status and a message.
    pub fn rejected(status: u16, message: impl Into<String>) -> Self {
        Self::Rejected { status, message: message.into(), allow: None }
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

/// Turns any error into an exception of the current span, at the line of the `?`.
impl<E: Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        Self::Internal(Exception::from_error(&error))
    }
}
