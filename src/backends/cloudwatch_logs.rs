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

mod clock;
mod encode;
mod explain;
#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/targets/cloudwatch_logs.rs"]
pub(crate) mod fuzz;
mod response;
mod sequence_token;
mod settings;

use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use self::clock::Clock;
use self::response::{Class, LogsResponse};
use super::Plugin;
use crate::delivery::{Outcome, Payload, Problem, Transport};
use crate::text::{Message, Url, one_line, reason_phrase};
use crate::wire::aws_credentials::CredentialChain;
use crate::wire::http::{Call, CallError, HttpClient};
use crate::wire::recorded::{RecordedCall, Signing};
use crate::wire::redact::Redactor;
use crate::wire::sigv4::{Secrets, Signed, Signer, SigningInput, X_AMZ_SECURITY_TOKEN};

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
/// Time limit for a batch, with all calls that it needs. A megabyte takes long on some uplinks.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Client for one log stream.
struct CloudWatchLogs {
    group: String,
    stream: String,
    retention_days: u64,
    gzip: bool,
    client: HttpClient,
    url: Url,
    signer: Signer,
    credentials: CredentialChain,
    clock: Clock,
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

/// Call before it is signed.
struct Unsigned<'a> {
    operation: &'a str,
    host: &'a str,
    body: &'a [u8],
    encoding: Option<&'a str>,
}

/// Response to a call. `clock_moved` is true if its `Date` showed that the call was signed with a
/// wrong time.
struct Answered {
    response: LogsResponse,
    clock_moved: bool,
}

/// Reason why a call got no response.
enum Failed {
    /// There are no valid credentials, so no call was made.
    Credentials(Message),
    /// The call failed.
    Call(CallError),
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
        self.clock.offset()
    }
}

impl Unsigned<'_> {
    /// Signs the call. Returns all its headers, and the steps of the signature.
    fn sign(&self, signer: &mut Signer, secrets: &Secrets<'_>, now: SystemTime) -> (Vec<(String, String)>, Signed) {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut headers = vec![
            header("content-type", "application/x-amz-json-1.1"),
            header("x-amz-target", &format!("Logs_20140328.{}", self.operation)),
        ];
        if let Some(encoding) = self.encoding {
            headers.push(header("content-encoding", encoding));
        }
        let request = SigningInput {
            method: "POST",
            host: self.host,
            path: "/",
            normalize_path: true,
            query: &[],
            headers: &headers,
            body: self.body,
        };
        let signed = signer.sign(&request, secrets, now);
        headers.extend(signed.headers());
        headers.push(header("user-agent", concat!("cruddur/", env!("CARGO_PKG_VERSION"))));
        (headers, signed)
    }
}

impl CloudWatchLogs {
    fn deliver_until(&mut self, payload: &Payload, deadline: Instant) -> Outcome {
        // Each remedy is tried once. If it does not help the first time, a second time is useless.
        let (mut created, mut refreshed, mut clock_set) = (false, false, false);
        self.set_retention(deadline);
        let mut encoding = self.gzip.then_some("gzip");
        let mut with_token: Option<Vec<u8>> = None;
        loop {
            let body = with_token.as_deref().unwrap_or(&payload.bytes);
            let response = match self.call(PUT_LOG_EVENTS, body, encoding, payload.items, deadline) {
                Ok(Answered { response, clock_moved })
                    if response.class == Class::Signature && !clock_set && clock_moved =>
                {
                    clock_set = true;
                    continue;
                }
                Ok(answered) => answered.response,
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
                Class::Expired | Class::Denied | Class::Signature if !refreshed => {
                    refreshed = true;
                    self.credentials.forget();
                }
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

    /// Makes one call, signed with the service's time as far as it is known.
    fn call(
        &mut self,
        operation: &str,
        body: &[u8],
        encoding: Option<&str>,
        items: usize,
        deadline: Instant,
    ) -> Result<Answered, Failed> {
        let now = self.clock.signing_time(SystemTime::now());
        let credentials = self.credentials.resolve(now).map_err(Failed::Credentials)?;
        let secrets = Secrets {
            access_key_id: &credentials.access_key_id,
            secret_access_key: &credentials.secret_access_key,
            session_token: credentials.session_token.as_deref(),
        };
        let host = self.url.host_header();
        let unsigned = Unsigned { operation, host: &host, body, encoding };
        let (headers, signed) = unsigned.sign(&mut self.signer, &secrets, now);
        let timeout = Some(deadline.saturating_duration_since(Instant::now()));
        let sent = SystemTime::now();
        let call = Call { url: &self.url, headers: &headers, body, timeout };
        let reply = self.client.post(&call);
        let may_be_shown = |name: &str| name != X_AMZ_SECURITY_TOKEN;
        let redactor = Redactor::new(&self.url, secrets.session_token).with_secret(secrets.secret_access_key);
        let recorded = RecordedCall::post(&call, reply.as_ref(), may_be_shown, &redactor);
        let (canonical_request, string_to_sign) = (signed.canonical_request, signed.string_to_sign);
        self.calls.push(RecordedCall {
            body: (operation != PUT_LOG_EVENTS || body.starts_with(b"{\"sequenceToken\"")).then(|| body.to_vec()),
            signing: Some(Signing { canonical_request, string_to_sign }),
            ..recorded
        });
        let reply = reply.map_err(Failed::Call)?;
        let mut response = LogsResponse::read(&reply, items);
        // Some services repeat the refused credentials in their message.
        response.message = redactor.redact(response.message);
        let clock_moved = self.clock.learn(reply.date, sent, SystemTime::now());
        if clock_moved {
            let what = format!(
                "clock skew: this machine's clock is {}; calls are signed with the service's time",
                self.clock.fault()
            );
            let message = Message::new(what).next("set the clock if it is wrong");
            log::warn!(target: NAME, "{message}");
        }
        Ok(Answered { response, clock_moved })
    }

    fn outcome(&self, response: &LogsResponse) -> Outcome {
        let LogsResponse { status, code, message, retry_after, .. } = response;
        let url = &self.url;
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
            Class::Throttled => later("nothing to do; the lines are retried more slowly"),
            Class::Transient => later("nothing to do; the lines are retried"),
            Class::Missing => {
                later("allow logs:CreateLogGroup and logs:CreateLogStream, or create the log group and stream")
            }
            Class::Expired => later("get new credentials; they are read again before each attempt"),
            Class::Denied => later(
                "allow logs:PutLogEvents, CreateLogStream, CreateLogGroup and PutRetentionPolicy for this key, and check that it \
                 is the intended key",
            ),
            Class::Signature => later("check AWS_SECRET_ACCESS_KEY, the region and this machine's clock"),
            Class::SequenceToken => later(
                "use a newer version of the service at this address; AWS itself stopped asking for sequence tokens in 2023",
            ),
            Class::NoOperation => {
                later("check the address; the service there has no such operation, and the lines stay queued")
            }
            Class::Unknown => later(
                "look up this error code, which cruddur does not know, in the documentation of the service; the lines stay queued",
            ),
            Class::Foreign => later("check proxies between this machine and the service; the lines stay queued"),
            Class::Poison => Outcome::Refused(problem(
                "please report this bug; these lines violate a rule of the service, and are lost",
            )),
        }
    }

    fn failed(&self, failed: Failed) -> Outcome {
        let error = match failed {
            Failed::Credentials(message) => {
                return Outcome::Later { after: None, problem: Problem::new("credentials", message) };
            }
            Failed::Call(error) => error,
        };
        let next = match &error {
            CallError::ConnectionRefused => "check AWS_ENDPOINT_URL_CLOUDWATCH_LOGS and AWS_ENDPOINT_URL",
            CallError::UnknownHost => "check AWS_REGION, and DNS",
            CallError::Timeout(_) => "check that this network allows outgoing HTTPS",
            CallError::Closed => "nothing to do; the lines are retried",
            CallError::Tls(_) => "check AWS_CA_BUNDLE, and http/https in the endpoint",
            CallError::NotHttp(_) | CallError::Other(_) => "check the endpoint",
        };
        let problem = Problem::new(error.kind(), Message::new(error.at(&self.url)).next(next));
        if error == CallError::Closed { Outcome::Closed(problem) } else { Outcome::Later { after: None, problem } }
    }
}
