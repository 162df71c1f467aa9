//! What is sent back: an answer, or a failure that becomes one.

use std::error::Error;

use serde::Serialize;

use crate::activities::Invalid;
use crate::client::CallFailure;
use crate::trace::exception::Exception;
use crate::trace::id::TraceId;

/// An answer before it becomes bytes.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// `Allow`, where the method was wrong.
    pub allow: Option<&'static str>,
    /// `Content-Type` of the body, if there is one.
    pub content_type: &'static str,
    /// Headers that this answer has and others have not.
    pub headers: &'static [(&'static str, &'static str)],
    /// The body; JSON has a newline behind it.
    pub body: Vec<u8>,
}

const JSON: &str = "application/json";

/// Why a request did not get what it asked for.
#[derive(Clone, Debug)]
pub enum Failure {
    /// What was written breaks a rule of Cruddur: 422 with an array of one code, as the original answers.
    Invalid(Invalid),
    /// The request cannot be understood, or asks for something that is not there: a status and a sentence.
    Rejected {
        /// The status code, 400 to 431 mostly.
        status: u16,
        /// What is wrong and what would be right.
        message: String,
        /// The methods that this path has.
        allow: Option<&'static str>,
    },
    /// Another service, which had to be asked, did not answer as it should: 502, with its sentence and the trace id.
    Elsewhere(CallFailure),
    /// An error inside: 500, with the trace id to find it by.
    Internal(Exception),
    /// A panic inside: 500 as well. The panic hook and the trace have what there is to know about it.
    Panicked,
}

impl Response {
    /// 200 with `value` as JSON.
    ///
    /// # Errors
    ///
    /// `value` cannot be written as JSON.
    pub fn json(value: &impl Serialize) -> Result<Self, Failure> {
        let mut body = Vec::with_capacity(2048);
        serde_json::to_writer(&mut body, value)?;
        body.push(b'\n');
        Ok(Self { body, ..Self::empty_json() })
    }

    /// 200 with a body of JSON, which is still empty.
    pub(super) fn empty_json() -> Self {
        Self { status: 200, allow: None, content_type: JSON, headers: &[], body: Vec::new() }
    }

    /// 200 with nothing: what a preflight gets, whose answer is in the headers.
    #[must_use]
    pub fn empty(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::empty_json() }
    }

    /// What a failure looks like from outside.
    #[must_use]
    pub fn of(failure: &Failure, trace_id: Option<TraceId>) -> Self {
        let (status, allow, body) = match failure {
            Failure::Invalid(Invalid(code)) => (422, None, format!("[\"{code}\"]")),
            Failure::Rejected { status, message, allow } => (*status, *allow, Self::message(message, None)),
            Failure::Elsewhere(failed) => (502, None, Self::message(&failed.to_string(), trace_id)),
            Failure::Internal(_) | Failure::Panicked => {
                let message = "something failed inside; look for the trace id in the logs, or in GET /telemetry/traces";
                (500, None, Self::message(message, trace_id))
            }
        };
        Self { status, allow, content_type: JSON, headers: &[], body: (body + "\n").into_bytes() }
    }

    fn message(message: &str, trace_id: Option<TraceId>) -> String {
        let mut object = serde_json::json!({ "message": message });
        if let Some(trace_id) = trace_id {
            object["trace_id"] = trace_id.to_string().into();
        }
        object.to_string()
    }
}

impl Failure {
    /// A refusal with a sentence.
    #[must_use]
    pub fn rejected(status: u16, message: impl Into<String>) -> Self {
        Self::Rejected { status, message: message.into(), allow: None }
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

/// `?` on any error makes it an exception, of the span it happened in and with the line it happened on.
impl<E: Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        Self::Internal(Exception::from_error(&error))
    }
}
