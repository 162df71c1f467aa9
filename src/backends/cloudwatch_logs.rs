//! CloudWatch Logs: sends log lines, each with the trace id of its request, in signed calls. This
//! file signs and sends the calls, and decides what to do about an error. `encode.rs` writes the
//! body, and `response.rs` reads the response. The signature is computed by hand in
//! [`crate::wire::sigv4`].
//!
//! In: a batch of log lines. Out: one POST for each batch that the service accepts.
//!
//! ```text
//! POST / HTTP/1.1
//! host: logs.us-east-1.amazonaws.com
//! content-type: application/x-amz-json-1.1
//! x-amz-target: Logs_20140328.PutLogEvents          the operation; there is only one path
//! x-amz-date: 20260115T123456Z
//! authorization: AWS4-HMAC-SHA256 Credential=AKIA.../20260115/us-east-1/logs/aws4_request,
//!   SignedHeaders=..., Signature=...                (one line)
//!
//! {"logGroupName":"cruddur","logStreamName":"backend/1",
//!  "logEvents":[{"timestamp":1768480496123,"message":"127.0.0.1 GET ..."}]}
//! ```
//!
//! Some details are surprising:
//!
//! - One bad event makes the service refuse the whole batch; the limits are in `encode.rs`.
//! - The group and the stream must exist. They are made when the service says that they are missing: at the first line, and
//!   again whenever they have been deleted. Nothing is asked at start, so no missing right keeps the server from it.
//! - AWS needs no sequence token any more; `sequence_token.rs` is for older stand-ins. There is no
//!   way to recognise a batch that came twice. An answer that got lost means that its lines are
//!   sent, and stored, again: at least once.
//! - A clock that is off by five minutes is a bad signature. The answer's `Date` tells, and signing goes by it from then on.
//!
//! Specification:
//! <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html>.

mod encode;
mod explain;
#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/targets/cloudwatch_logs.rs"]
pub(crate) mod fuzz;
mod response;
mod sequence_token;
mod settings;

use std::time::{Duration, Instant};

use serde_json::json;

use self::response::{Class, LogsResponse};
use super::Plugin;
use crate::delivery::{Outcome, Payload, Problem, Transport};
use crate::text::{Message, one_line, reason_phrase};
use crate::wire::aws_call::{AwsCall, AwsClient, ErrorClass, Failed, Remedies, TIMEOUT};
use crate::wire::http::CallError;
use crate::wire::recorded::RecordedCall;

pub(in crate::backends) use settings::log_group_if_on;

/// `[cloudwatch]`.
pub const PLUGIN: Plugin = Plugin {
    name: NAME,
    section: &settings::CloudWatch::SECTION,
    plan: settings::plan,
    explain: Some(explain::explain),
};

const NAME: &str = "cloudwatch";
const PUT_LOG_EVENTS: &str = "PutLogEvents";

/// Client for one log stream.
struct CloudWatchLogs {
    group: String,
    stream: String,
    retention_days: u64,
    gzip: bool,
    client: AwsClient,
    retention: Retention,
    /// Calls of the current delivery.
    calls: Vec<RecordedCall>,
}

/// State of the group's retention.
#[derive(Default)]
struct Retention {
    /// True if this process created the group and has not set its retention yet.
    is_due: bool,
    /// True once a failure to set it was logged.
    is_reported: bool,
}

/// Response to a call. `clock_moved` is true if its `Date` showed that the call was signed with a
/// wrong time.
struct Answered {
    response: LogsResponse,
    clock_moved: bool,
}

impl Transport for CloudWatchLogs {
    fn deliver(&mut self, payload: &Payload, timeout: Option<Duration>, calls: &mut Vec<RecordedCall>) -> Outcome {
        let outcome = self.deliver_until(payload, Instant::now() + timeout.unwrap_or(TIMEOUT));
        calls.append(&mut self.calls);
        outcome
    }

    /// Returns no limit: lines wait in the queue until the service accepts them. Lines that do not
    /// fit into the queue are dropped and counted.
    fn max_elapsed_time(&self) -> Option<Duration> {
        None
    }

    fn compresses(&self) -> bool {
        self.gzip
    }

    fn clock_offset(&self) -> i64 {
        self.client.clock_offset()
    }

    fn readdress(&self, body: Vec<u8>) -> Vec<u8> {
        encode::readdress(body, &self.group, &self.stream)
    }
}

/// Headers of a call, without those of the signature.
fn headers(operation: &str, encoding: Option<&str>) -> Vec<(String, String)> {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut headers = vec![
        header("content-type", "application/x-amz-json-1.1"),
        header("x-amz-target", &format!("Logs_20140328.{operation}")),
    ];
    headers.extend(encoding.map(|encoding| header("content-encoding", encoding)));
    headers
}

impl CloudWatchLogs {
    fn deliver_until(&mut self, payload: &Payload, deadline: Instant) -> Outcome {
        let (mut created, mut remedies) = (false, Remedies::default());
        self.set_retention(deadline);
        let mut encoding = self.gzip.then_some("gzip");
        let mut with_token: Option<Vec<u8>> = None;
        loop {
            let body = with_token.as_deref().unwrap_or(&payload.bytes);
            let (response, clock_moved) = match self.call(PUT_LOG_EVENTS, body, encoding, payload.items, deadline) {
                Ok(Answered { response, clock_moved }) => (response, clock_moved),
                Err(failed) => return self.failed(failed),
            };
            match response.class {
                Class::Missing if !created => {
                    created = true;
                    if let Err(outcome) = self.create(deadline) {
                        return outcome;
                    }
                }
                Class::SequenceToken if with_token.is_none() => {
                    let token = response.sequence_token.as_deref();
                    with_token = token.and_then(|token| sequence_token::add(&payload.bytes, token));
                    if with_token.is_none() {
                        return self.outcome(&response);
                    }
                    encoding = None;
                }
                Class::Common(class) if self.client.can_retry(&mut remedies, class, clock_moved) => {}
                _ => return self.outcome(&response),
            }
        }
    }

    /// Creates the stream. If its group is missing too, creates the group with its retention first.
    fn create(&mut self, deadline: Instant) -> Result<(), Outcome> {
        let group = self.group.clone();
        let stream = json!({ "logGroupName": group, "logStreamName": self.stream });
        if self.create_one("CreateLogStream", &stream, deadline)? == Class::Missing {
            // Set before the call. If the response is lost, the group may exist without a
            // retention, and would keep its lines forever.
            self.retention.is_due = true;
            if self.create_one("CreateLogGroup", &json!({ "logGroupName": group }), deadline)? == Class::Exists {
                self.retention.is_due = false;
            }
            self.set_retention(deadline);
            self.create_one("CreateLogStream", &stream, deadline)?;
        }
        Ok(())
    }

    /// Sets the retention of a group that was made here; if that fails, with the next batch again. Logged once.
    fn set_retention(&mut self, deadline: Instant) {
        if !self.retention.is_due {
            return;
        }
        let (group, days) = (self.group.clone(), self.retention_days);
        let retention = json!({ "logGroupName": group, "retentionInDays": days });
        match self.create_one("PutRetentionPolicy", &retention, deadline) {
            Ok(Class::Success) => self.retention.is_due = false,
            Ok(_) | Err(_) if self.retention.is_reported => {}
            Ok(_) | Err(_) => {
                self.retention.is_reported = true;
                let what = format!(
                    "PutRetentionPolicy failed: the log group {group} keeps its lines without limit instead of {days} days; the \
                     call is retried with every batch"
                );
                let message = Message::new(what).next("allow logs:PutRetentionPolicy, or set it in the console");
                log::warn!(target: NAME, "{message}");
            }
        }
    }

    fn create_one(&mut self, operation: &str, body: &serde_json::Value, deadline: Instant) -> Result<Class, Outcome> {
        match self.call(operation, body.to_string().as_bytes(), None, 0, deadline) {
            Ok(Answered { response, .. }) => match response.class {
                class @ (Class::Success | Class::Exists | Class::Missing) => Ok(class),
                _ => Err(self.outcome(&response)),
            },
            Err(failed) => Err(self.failed(failed)),
        }
    }

    /// Makes one call, and reads the response.
    fn call(
        &mut self,
        operation: &str,
        body: &[u8],
        encoding: Option<&str>,
        items: usize,
        deadline: Instant,
    ) -> Result<Answered, Failed> {
        let is_payload = operation == PUT_LOG_EVENTS && !body.starts_with(b"{\"sequenceToken\"");
        let call = AwsCall { headers: headers(operation, encoding), body, is_payload, deadline };
        let answered = self.client.call(call, &mut self.calls)?;
        let mut response = LogsResponse::read(&answered.reply, items);
        response.message = answered.redactor.redact(response.message);
        Ok(Answered { response, clock_moved: answered.clock_moved })
    }

    fn outcome(&self, response: &LogsResponse) -> Outcome {
        let LogsResponse { status, code, message, retry_after, .. } = response;
        let url = self.client.url();
        let name = match code.as_str() {
            "" => format!("HTTP {status} {}", reason_phrase(*status)),
            code => format!("{code} (HTTP {status})"),
        };
        let message = one_line(message);
        let said = if message.is_empty() { String::new() } else { format!(": {message}") };
        let problem = |next: &str| {
            Problem::new(format!("{status} {code}"), Message::new(format!("{name} from {url}{said}")).next(next))
        };
        let later = |next: &str| Outcome::Later { after: *retry_after, problem: problem(next) };
        match response.class {
            Class::Success | Class::Exists | Class::AlreadyAccepted => match response.rejected {
                None => Outcome::Delivered,
                Some((rejected, why)) => {
                    let what = Message::new(format!(
                        "rejected log events: {url} did not store {rejected} lines, because {why}"
                    ));
                    let next = "nothing to do; they are counted as refused";
                    Outcome::Partly { rejected, problem: Problem::new("rejected", what.next(next)) }
                }
            },
            Class::Common(ErrorClass::Throttled) => later("nothing to do; the lines are retried more slowly"),
            Class::Common(ErrorClass::Transient) => later("nothing to do; the lines are retried"),
            Class::Missing => {
                later("allow logs:CreateLogGroup and logs:CreateLogStream, or create the log group and stream")
            }
            Class::Common(ErrorClass::Expired) => later("get new credentials; they are read again before each attempt"),
            Class::Common(ErrorClass::UnknownKey | ErrorClass::Denied) => later(
                "allow logs:PutLogEvents, CreateLogStream, CreateLogGroup and PutRetentionPolicy for this key, and check that it \
                 is the intended key",
            ),
            Class::Common(ErrorClass::Signature) => {
                later("check AWS_SECRET_ACCESS_KEY, the region and this machine's clock")
            }
            Class::SequenceToken => later(
                "use a newer version of the service at this address; AWS itself stopped asking for sequence tokens in 2023",
            ),
            Class::NoOperation => {
                later("check the address; the service there has no such operation, and the lines wait")
            }
            Class::Unknown => later(
                "look up this error code, which cruddur does not know, in the documentation of the service; the lines wait",
            ),
            Class::Foreign => later("check proxies between this machine and the service; the lines wait"),
            Class::Poison => Outcome::Refused(problem(
                "please report this bug; these lines violate a rule of the service, and are lost",
            )),
        }
    }

    fn failed(&self, failed: Failed) -> Outcome {
        let (kind, message) = self.client.describe(failed, "lines");
        let problem = Problem::new(kind, message);
        if kind == CallError::Closed.kind() {
            Outcome::Closed(problem)
        } else {
            Outcome::Later { after: None, problem }
        }
    }
}
