//! CloudWatch Logs: log lines, each with the trace id of its request, in calls that are signed by hand.
//!
//! In: a batch of log lines. Out: one POST for each batch that the service takes.
//!
//! ```text
//! POST / HTTP/1.1
//! host: logs.us-east-1.amazonaws.com
//! content-type: application/x-amz-json-1.1
//! x-amz-target: Logs_20140328.PutLogEvents                      the operation; there is only one path
//! x-amz-date: 20260115T123456Z
//! authorization: AWS4-HMAC-SHA256 Credential=AKIA.../20260115/us-east-1/logs/aws4_request, SignedHeaders=..., Signature=...
//!
//! {"logGroupName":"cruddur","logStreamName":"backend/1","logEvents":[{"timestamp":1768480496123,"message":"127.0.0.1 GET ..."}]}
//! ```
//!
//! What surprises:
//!
//! - One bad event makes the service refuse the whole batch; the limits are in `encode.rs`.
//! - The group and the stream must exist. They are made when the service says that they are missing: at the first line, and
//!   again whenever somebody has deleted them. Nothing is asked at start, so no missing right keeps the server from it.
//! - There is no sequence token any more, and no way to recognise a batch that came twice. An answer that got lost means that
//!   its lines are sent, and stored, again: at least once.
//! - A clock that is off by five minutes is a bad signature. The answer's `Date` tells, and signing goes by it from then on.
//!
//! Specification: <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html>.

mod answer;
mod clock;
mod encode;
mod explain;
mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use self::answer::{Answer, Class};
use self::clock::Clock;
use self::encode::{Events, encode};
use super::{Backend, Dialect, Outcome, Payload, Plugin, one_line};
use crate::delivery::Problem;
use crate::logging::LogLine;
use crate::wire::aws_credentials::CredentialChain;
use crate::wire::exchange::{Exchange, Signing};
use crate::wire::hidden::Hidden;
use crate::wire::http::{Call, CallError, HttpClient, host_header, shown};
use crate::wire::sigv4::{Request, Secrets, Signed, Signer, X_AMZ_SECURITY_TOKEN};

pub(in crate::backends) use settings::log_group_if_on;

/// `[cloudwatch]`.
pub const PLUGIN: Plugin =
    Plugin { name: NAME, toml: settings::TOML, plan: settings::plan, explain: Some(explain::explain) };

const NAME: &str = "cloudwatch";
const PUT_LOG_EVENTS: &str = "PutLogEvents";
/// How long a batch with all that belongs to it may take: a megabyte is a lot for some uplinks.
const PATIENCE: Duration = Duration::from_secs(60);

struct CloudWatchLogs {
    events: Events,
    retention_days: u64,
    client: HttpClient,
    url: String,
    /// `Host`, which is signed: with the port, unless it is the usual one.
    host: String,
    signer: Signer,
    credentials: CredentialChain,
    clock: Clock,
    /// The group was made here, and its retention is not set yet.
    retention_due: bool,
    retention_said: bool,
    /// The calls of the delivery that is going on.
    seen: Vec<Exchange>,
}

/// A call before it is signed.
struct Unsigned<'a> {
    operation: &'a str,
    host: &'a str,
    body: &'a [u8],
    encoding: Option<&'a str>,
}

/// Why a call did not get a useful answer.
enum Failed {
    /// No credentials.
    Credentials(String),
    /// No answer.
    Call(CallError),
}

impl Backend<LogLine> for CloudWatchLogs {
    fn encode(&self, batch: &[Arc<LogLine>]) -> Vec<Payload> {
        encode(&self.events, batch, &self.clock)
    }

    fn deliver(&mut self, payload: &Payload, patience: Option<Duration>, seen: &mut Vec<Exchange>) -> Outcome {
        let outcome = self.deliver_until(payload, Instant::now() + patience.unwrap_or(PATIENCE));
        seen.append(&mut self.seen);
        outcome
    }

    /// Lines wait in the queue until the service takes them; what the queue cannot hold is dropped and counted.
    fn budget(&self) -> Option<Duration> {
        None
    }
}

impl Unsigned<'_> {
    /// All headers of the call, and how they were signed.
    fn sign(&self, signer: &mut Signer, secrets: &Secrets<'_>, now: SystemTime) -> (Vec<(String, String)>, Signed) {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut headers = vec![
            header("content-type", "application/x-amz-json-1.1"),
            header("x-amz-target", &format!("Logs_20140328.{}", self.operation)),
        ];
        if let Some(encoding) = self.encoding {
            headers.push(header("content-encoding", encoding));
        }
        let request = Request {
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
    fn new(
        events: Events,
        retention_days: u64,
        client: HttpClient,
        url: String,
        signer: Signer,
        credentials: CredentialChain,
    ) -> Self {
        let host = host_header(&url);
        Self {
            events,
            retention_days,
            client,
            url,
            host,
            signer,
            credentials,
            clock: Clock::default(),
            retention_due: false,
            retention_said: false,
            seen: Vec::new(),
        }
    }

    fn deliver_until(&mut self, payload: &Payload, deadline: Instant) -> Outcome {
        // Each remedy is tried once; what helps not the first time helps not the second.
        let (mut created, mut refreshed, mut clock_set) = (false, false, false);
        self.set_retention(deadline);
        loop {
            let answer = match self.put(payload, deadline) {
                Ok((answer, clock_moved)) => {
                    if answer.class == Class::Signature && !clock_set && clock_moved {
                        clock_set = true;
                        continue;
                    }
                    answer
                }
                Err(failed) => return self.failed(failed),
            };
            match answer.class {
                Class::Missing if !created => {
                    created = true;
                    if let Err(outcome) = self.create(deadline) {
                        return outcome;
                    }
                }
                Class::Expired | Class::Denied | Class::Signature if !refreshed => {
                    refreshed = true;
                    self.credentials.forget();
                }
                _ => return self.outcome(&answer),
            }
        }
    }

    fn put(&mut self, payload: &Payload, deadline: Instant) -> Result<(Answer, bool), Failed> {
        let encoding = self.events.gzip.then_some("gzip");
        self.call(PUT_LOG_EVENTS, &payload.bytes, encoding, payload.items, deadline)
    }

    /// Makes the stream; if its group is missing too, the group with its retention, and then the stream.
    fn create(&mut self, deadline: Instant) -> Result<(), Outcome> {
        let group = self.events.group.clone();
        let stream = json!({ "logGroupName": group, "logStreamName": self.events.stream });
        if self.create_one("CreateLogStream", &stream, deadline)? == Class::Missing {
            // Set before the call: an answer that gets lost leaves a group behind that would keep its lines for ever.
            self.retention_due = true;
            if self.create_one("CreateLogGroup", &json!({ "logGroupName": group }), deadline)? == Class::Exists {
                self.retention_due = false;
            }
            self.set_retention(deadline);
            self.create_one("CreateLogStream", &stream, deadline)?;
        }
        Ok(())
    }

    /// Sets the retention of a group that was made here; if that fails, with the next batch again. Said once.
    fn set_retention(&mut self, deadline: Instant) {
        if !self.retention_due {
            return;
        }
        let (group, days) = (self.events.group.clone(), self.retention_days);
        let retention = json!({ "logGroupName": group, "retentionInDays": days });
        match self.create_one("PutRetentionPolicy", &retention, deadline) {
            Ok(Class::Success) => self.retention_due = false,
            Ok(_) | Err(_) if self.retention_said => {}
            Ok(_) | Err(_) => {
                self.retention_said = true;
                log::warn!(
                    target: NAME,
                    "the log group {group} is there, but keeps its lines for ever: setting {days} days failed, and is tried again \
                     with every batch; next: allow logs:PutRetentionPolicy, or set it in the console"
                );
            }
        }
    }

    fn create_one(&mut self, operation: &str, body: &serde_json::Value, deadline: Instant) -> Result<Class, Outcome> {
        match self.call(operation, body.to_string().as_bytes(), None, 0, deadline) {
            Ok((answer, _)) => match answer.class {
                class @ (Class::Success | Class::Exists | Class::Missing) => Ok(class),
                _ => Err(self.outcome(&answer)),
            },
            Err(failed) => Err(self.failed(failed)),
        }
    }

    /// One signed call, by the service's clock as far as it is known; and whether that has just turned out to be another.
    fn call(
        &mut self,
        operation: &str,
        body: &[u8],
        encoding: Option<&str>,
        items: usize,
        deadline: Instant,
    ) -> Result<(Answer, bool), Failed> {
        let now = self.clock.signing_time(SystemTime::now());
        let credentials = self.credentials.resolve(now).map_err(|e| Failed::Credentials(e.to_string()))?;
        let secrets = Secrets {
            access_key_id: &credentials.access_key_id,
            secret_access_key: &credentials.secret_access_key,
            session_token: credentials.session_token.as_deref(),
        };
        let unsigned = Unsigned { operation, host: &self.host, body, encoding };
        let (headers, signed) = unsigned.sign(&mut self.signer, &secrets, now);
        let patience = Some(deadline.saturating_duration_since(Instant::now()));
        let sent = SystemTime::now();
        let call = Call { url: &self.url, headers: &headers, body, patience };
        let reply = self.client.post(&call);
        let may_be_shown = |name: &str| name != X_AMZ_SECURITY_TOKEN;
        let hidden = Hidden::of(&self.url, secrets.session_token).and(secrets.secret_access_key);
        let exchange = Exchange::post(&call, reply.as_ref(), may_be_shown, &hidden);
        let (canonical_request, string_to_sign) = (signed.canonical_request, signed.string_to_sign);
        self.seen.push(Exchange {
            body: (operation != PUT_LOG_EVENTS).then(|| body.to_vec()),
            signing: Some(Signing { canonical_request, string_to_sign }),
            ..exchange
        });
        let reply = reply.map_err(Failed::Call)?;
        let mut answer = Answer::read(&reply, items);
        // Some services repeat what they refuse.
        answer.message = hidden.without(answer.message);
        let clock_moved = self.clock.learn(reply.date, sent, SystemTime::now());
        if clock_moved {
            log::warn!(
                target: NAME,
                "this machine's clock is {}; calls are signed by the service's clock; next: set the clock if it is wrong",
                self.clock.fault()
            );
        }
        Ok((answer, clock_moved))
    }

    fn outcome(&self, answer: &Answer) -> Outcome {
        let Answer { code, message, .. } = answer;
        let url = shown(&self.url);
        let status = answer.status;
        let said = [status.to_string(), code.clone(), one_line(message)].into_iter().filter(|part| !part.is_empty());
        let said = said.collect::<Vec<_>>().join(": ");
        let kind = format!("{status} {code}");
        let problem = |next: &str| Problem { kind: kind.clone(), text: format!("{url} answered {said}; next: {next}") };
        let later = |next: &str| Outcome::Later { after: answer.retry_after, said: problem(next) };
        match answer.class {
            Class::Success | Class::Exists => match answer.rejected {
                None => Outcome::Delivered,
                Some((rejected, why)) => {
                    let text = format!(
                        "{url} did not store {rejected} lines: {why}; next: nothing, they are counted as refused"
                    );
                    Outcome::Partly { rejected, said: Problem { kind: "rejected".to_owned(), text } }
                }
            },
            Class::Throttled => later("nothing, the lines are sent again more slowly"),
            Class::Transient => later("nothing, the lines are sent again"),
            Class::Missing => {
                later("allow logs:CreateLogGroup and logs:CreateLogStream, or make the log group and stream")
            }
            Class::Expired => later("get new credentials; they are read again at every try"),
            Class::Denied => later(
                "allow logs:PutLogEvents, CreateLogStream, CreateLogGroup and PutRetentionPolicy to this key, and check that it is \
                 the one you mean",
            ),
            Class::Signature => later("check AWS_SECRET_ACCESS_KEY, the region and this machine's clock"),
            Class::Unknown => later("look at what stands between this machine and the service; the lines wait"),
            Class::Poison => {
                Outcome::Refused(problem("please report it: these lines broke a rule of the service, and are lost"))
            }
        }
    }

    fn failed(&self, failed: Failed) -> Outcome {
        let url = shown(&self.url);
        let (kind, text) = match failed {
            Failed::Credentials(problem) => ("credentials", problem),
            Failed::Call(CallError::Refused) => (
                "refused",
                format!(
                    "{url}: nobody listens there; next: check AWS_ENDPOINT_URL_CLOUDWATCH_LOGS and AWS_ENDPOINT_URL"
                ),
            ),
            Failed::Call(CallError::UnknownHost) => {
                ("host", format!("{url}: this host name has no address; next: check AWS_REGION, and DNS"))
            }
            Failed::Call(CallError::Timeout) => {
                ("timeout", format!("{url}: no answer in time; next: check that this network lets HTTPS out"))
            }
            Failed::Call(CallError::Closed) => {
                let text = format!("{url}: the connection ended before an answer came; the lines are sent again");
                return Outcome::Closed(Problem { kind: "closed".to_owned(), text });
            }
            Failed::Call(CallError::Tls(why)) => {
                ("tls", format!("{url}: TLS failed: {why}; next: check AWS_CA_BUNDLE, and http/https in the endpoint"))
            }
            Failed::Call(CallError::NotHttp(why) | CallError::Other(why)) => {
                ("other", format!("{url}: {why}; next: check the endpoint"))
            }
        };
        Outcome::Later { after: None, said: Problem { kind: kind.to_owned(), text } }
    }
}

/// What the lines of one request are in PutLogEvents; nothing if there are none.
fn dialect(events: Events) -> Dialect {
    let events = Events { gzip: false, ..events };
    Box::new(move |_, lines| encode(&events, lines, &Clock::default()))
}
