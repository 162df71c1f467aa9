//! A loopback CloudWatch Logs that is as strict as the real one. It verifies every signature with
//! its own code, has its own clock, and enforces every limit of PutLogEvents. It refuses a batch to
//! a stream that does not exist. A test can make it misbehave.
//!
//! Dropping it closes every connection and ends every thread.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::aws::{Account, REGION, Refusal, Trick, Tricks, key_id};
use super::connections::Connections;
use super::http::{Reply, Request, header, serve};
use super::time::http_date;
use super::watched::Watched;

const TARGET: &str = "Logs_20140328.";
const SECOND: u64 = 1000;
const DAY: u64 = 86_400 * SECOND;
/// Bytes that one event counts in addition to its message.
const OVERHEAD: usize = 26;

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Operation, for example `PutLogEvents`.
    pub(crate) operation: String,
    /// The headers as received, with names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body as received.
    pub(crate) raw_body: Vec<u8>,
    /// The body as JSON, decompressed if it was compressed with gzip.
    pub(crate) body: Value,
    /// Status of the response; `None` if there was no response.
    pub(crate) status: Option<u16>,
    /// Code of the error in the response.
    pub(crate) error: Option<&'static str>,
}

/// An accepted event.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Time in milliseconds since 1970.
    pub(crate) timestamp: u64,
    /// Message of the event.
    pub(crate) message: String,
}

/// The service.
pub(crate) struct CloudWatch {
    connections: Connections,
    shared: Arc<Watched<State>>,
}

#[derive(Default)]
struct State {
    account: Account,
    denied: Vec<&'static str>,
    tricks: Tricks,
    groups: BTreeMap<String, Group>,
    calls: Vec<Call>,
    /// Every event that was ever accepted, also those whose stream has been deleted.
    accepted: Vec<Event>,
}

#[derive(Default)]
struct Group {
    retention_days: Option<u64>,
    streams: BTreeSet<String>,
}

impl Call {
    /// The first header with this name (lower case).
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Id of the key that the request was signed with.
    pub(crate) fn key_id(&self) -> &str {
        key_id(&self.headers)
    }

    /// Number of events in the call.
    pub(crate) fn events(&self) -> usize {
        self.body["logEvents"].as_array().map_or(0, Vec::len)
    }
}

impl Event {
    /// The message as a flat JSON object.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let object: Value = serde_json::from_str(&self.message).unwrap_or_else(|e| panic!("{e}: {}", self.message));
        let flat = object.as_object().is_some_and(|o| o.values().all(|value| !value.is_object() && !value.is_array()));
        assert!(flat, "not a flat object: {}", self.message);
        object
    }
}

impl CloudWatch {
    /// Id of the key that the service accepts from the start.
    pub(crate) const KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
    /// Secret of [`Self::KEY_ID`]. It belongs to no account.
    pub(crate) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    /// Region of the service.
    pub(crate) const REGION: &str = REGION;

    /// Starts without a log group.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let shared = Arc::<Watched<State>>::default();
        let for_connections = Arc::clone(&shared);
        let connections = Connections::serve(listener, move |stream| {
            serve(stream, |request| Some(for_connections.change(|state| state.reply_to(request))));
        });
        let service = Self { connections, shared };
        service.add_key(Self::KEY_ID, Self::SECRET, None);
        service
    }

    /// Base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.connections.addr())
    }

    /// Accepts this key from now on. A key with a token is valid only together with the token.
    pub(crate) fn add_key(&self, id: &str, secret: &str, token: Option<&str>) {
        self.shared.lock().account.add_key(id, secret, token);
    }

    /// Treats this key as expired from now on.
    pub(crate) fn expire_key(&self, id: &str) {
        self.shared.lock().account.expire_key(id);
    }

    /// Denies these operations from now on.
    pub(crate) fn deny(&self, operations: &[&'static str]) {
        self.shared.lock().denied = operations.to_vec();
    }

    /// Sets its clock this many seconds ahead of ours from now on.
    pub(crate) fn set_clock(&self, ahead: i64) {
        self.shared.lock().account.clock = ahead;
    }

    /// Plays this trick on the next `times` calls.
    pub(crate) fn play(&self, times: usize, trick: Trick) {
        self.shared.lock().tricks.add(times, trick);
    }

    /// Plays no more tricks.
    pub(crate) fn behave(&self) {
        self.shared.lock().tricks = Tricks::default();
    }

    /// Closes every connection. Clients that wait for a response notice.
    pub(crate) fn hang_up(&self) {
        self.connections.hang_up();
    }

    /// Creates a group that never deletes its lines, as another user of the account would.
    pub(crate) fn make_group(&self, group: &str) {
        self.shared.lock().groups.insert(group.to_owned(), Group::default());
    }

    /// Deletes a stream with its events.
    #[track_caller]
    pub(crate) fn delete_stream(&self, group: &str, stream: &str) {
        let mut state = self.shared.lock();
        let group = state.groups.get_mut(group).unwrap_or_else(|| panic!("no group {group}"));
        assert!(group.streams.remove(stream), "no stream {stream}");
    }

    /// Deletes a group with its streams.
    #[track_caller]
    pub(crate) fn delete_group(&self, group: &str) {
        self.shared.lock().groups.remove(group).unwrap_or_else(|| panic!("no group {group}"));
    }

    /// The existing groups, each with its retention.
    pub(crate) fn groups(&self) -> Vec<(String, Option<u64>)> {
        let state = self.shared.lock();
        state.groups.iter().map(|(name, group)| (name.clone(), group.retention_days)).collect()
    }

    /// The streams of a group; empty if there is no such group.
    pub(crate) fn streams(&self, group: &str) -> Vec<String> {
        let state = self.shared.lock();
        state.groups.get(group).into_iter().flat_map(|group| group.streams.iter().cloned()).collect()
    }

    /// The calls so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.clone()
    }

    /// The calls of one kind so far.
    pub(crate) fn calls_of(&self, operation: &str) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.operation == operation).collect()
    }

    /// Every event accepted so far, in the order of arrival.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.shared.lock().accepted.clone()
    }

    /// Waits until `count` events are accepted, and returns all of them.
    #[track_caller]
    pub(crate) fn wait_for_events(&self, count: usize, timeout: Duration) -> Vec<Event> {
        if let Some(state) = self.shared.wait(timeout, |state| state.accepted.len() >= count) {
            return state.accepted.clone();
        }
        let state = self.shared.lock();
        panic!("{} events, not {count}, within {timeout:?}; {}", state.accepted.len(), state.story());
    }

    /// Waits until `enough` holds for the calls, and returns them.
    #[track_caller]
    pub(crate) fn wait_for_calls(&self, enough: impl Fn(&[Call]) -> bool, timeout: Duration) -> Vec<Call> {
        if let Some(state) = self.shared.wait(timeout, |state| enough(&state.calls)) {
            return state.calls.clone();
        }
        panic!("not within {timeout:?}; {}", self.shared.lock().story());
    }
}

impl State {
    /// Does what a call asks for, or plays a trick, and records the call.
    fn reply_to(&mut self, request: Request) -> Reply {
        let trick = self.tricks.next();
        let work = match &trick {
            None | Some(Trick::WorkAndAnswer(_) | Trick::WorkAndReset) => self.work(&request),
            Some(_) => Ok(json!({})),
        };
        let result = match (&work, &trick) {
            (Err(Refusal(status, code, message)), _) => Err((*status, *code, message.clone())),
            (_, Some(Trick::Error(status, code, message))) => Err((*status, *code, message.clone())),
            (Ok(answer), _) => Ok(answer.clone()),
        };
        let (reply, status, error) = match (result, trick) {
            (Err((status, code, message)), _) => {
                let body = json!({ "__type": code, "message": message });
                (self.answer(status, body.to_string().into_bytes()), Some(status), Some(code))
            }
            (Ok(_), Some(Trick::Answer(status, body))) => (self.answer(status, body.into()), Some(status), None),
            (Ok(_), Some(Trick::WorkAndAnswer(body))) => (self.answer(200, body.into()), Some(200), None),
            (Ok(_), Some(Trick::WorkAndReset | Trick::Reset)) => (Reply::Reset, None, None),
            (Ok(_), Some(Trick::Hang)) => (Reply::Hang, None, None),
            (Ok(_), Some(Trick::Garbage)) => (Reply::Garbage, None, None),
            // Calls that create something have an empty response.
            (Ok(Value::Null), _) => (self.answer(200, Vec::new()), Some(200), None),
            (Ok(answer), _) => (self.answer(200, answer.to_string().into_bytes()), Some(200), None),
        };
        let body = request.unzipped().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
        let target = header(&request.headers, "x-amz-target").unwrap_or_default();
        let operation = target.strip_prefix(TARGET).unwrap_or(target).to_owned();
        let Request { headers, raw_body, .. } = request;
        self.calls.push(Call { operation, headers, raw_body, body, status, error });
        reply
    }

    fn answer(&self, status: u16, body: Vec<u8>) -> Reply {
        let headers = [
            ("x-amzn-RequestId", "01234567-89ab-cdef-0123-456789abcdef".to_owned()),
            ("Content-Type", "application/x-amz-json-1.1".to_owned()),
            ("Date", http_date(self.account.now() / SECOND)),
        ];
        Reply::Answer(status, headers.map(|(name, value)| (name.to_owned(), value)).to_vec(), body)
    }

    /// The calls so far, for the message of a failed test.
    fn story(&self) -> String {
        let calls = self.calls.iter().map(|call| {
            let (operation, events, status) = (&call.operation, call.events(), call.status);
            format!("{operation} of {events} events: {status:?} {}", call.error.unwrap_or_default())
        });
        format!("the calls: {:#?}", calls.collect::<Vec<_>>())
    }

    /// Checks the signature, then does the work.
    fn work(&mut self, request: &Request) -> Result<Value, Refusal> {
        self.account.authenticate(request, "logs").map_err(|(code, message)| Refusal(400, code, message))?;
        let unknown = |what: &str| Refusal(400, "UnknownOperationException", what.to_owned());
        if (request.method.as_str(), request.path.as_str()) != ("POST", "/") {
            return Err(unknown("only POST /"));
        }
        if header(&request.headers, "content-type") != Some("application/x-amz-json-1.1") {
            return Err(unknown("only application/x-amz-json-1.1"));
        }
        let target = header(&request.headers, "x-amz-target").and_then(|target| target.strip_prefix(TARGET));
        let operation = target.ok_or_else(|| unknown("no X-Amz-Target"))?;
        if self.denied.contains(&operation) {
            let message = format!(
                "User: arn:aws:iam::123456789012:user/cruddur is not authorized to perform: logs:{operation} on resource: \
                 arn:aws:logs:{REGION}:123456789012:log-group:cruddur because no identity-based policy allows it"
            );
            return Err(Refusal(400, "AccessDeniedException", message));
        }
        let body = request.unzipped().and_then(|body| serde_json::from_slice::<Value>(&body).ok());
        let body = body.ok_or_else(|| Refusal(400, "SerializationException", "the body is not JSON".to_owned()))?;
        match operation {
            "CreateLogGroup" => self.create_group(&body),
            "CreateLogStream" => self.create_stream(&body),
            "PutRetentionPolicy" => self.put_retention(&body),
            "PutLogEvents" => self.put_events(&body),
            _ => Err(unknown("no such operation")),
        }
    }

    fn create_group(&mut self, body: &Value) -> Result<Value, Refusal> {
        let name = group_name(body)?;
        if self.groups.contains_key(name) {
            return Err(exists("log group"));
        }
        self.groups.insert(name.to_owned(), Group::default());
        Ok(Value::Null)
    }

    fn create_stream(&mut self, body: &Value) -> Result<Value, Refusal> {
        let name = stream_name(body)?;
        let group = self.groups.get_mut(group_name(body)?).ok_or_else(|| missing("log group"))?;
        if group.streams.insert(name.to_owned()) { Ok(Value::Null) } else { Err(exists("log stream")) }
    }

    fn put_retention(&mut self, body: &Value) -> Result<Value, Refusal> {
        const DAYS: [u64; 22] =
            [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];
        let group = self.groups.get_mut(group_name(body)?).ok_or_else(|| missing("log group"))?;
        let days = body["retentionInDays"].as_u64().filter(|days| DAYS.contains(days));
        group.retention_days = Some(days.ok_or_else(|| invalid("retentionInDays is not one of those there are"))?);
        Ok(Value::Null)
    }

    fn put_events(&mut self, body: &Value) -> Result<Value, Refusal> {
        let now = self.account.now();
        let (group_name, stream_name) = (group_name(body)?, stream_name(body)?);
        let group = self.groups.get(group_name).ok_or_else(|| missing("log group"))?;
        let retention = group.retention_days.map_or(u64::MAX, |days| days * DAY);
        if !group.streams.contains(stream_name) {
            return Err(missing("log stream"));
        }
        let events = checked_events(body)?;

        // Too old and expired events come first, too new ones last, because the events are in
        // order.
        let age = |event: &(u64, &str)| now.saturating_sub(event.0);
        let too_old = events.iter().take_while(|event| age(event) > 14 * DAY).count();
        let expired = events.iter().take_while(|event| age(event) > retention).count();
        let too_new = events.iter().take_while(|event| event.0 <= now + 2 * 3600 * SECOND).count();
        let valid = events.get(too_old.max(expired)..too_new).unwrap_or_default();
        if let (Some(first), Some(last)) = (valid.first(), valid.last())
            && last.0 - first.0 >= DAY
        {
            return Err(invalid(
                "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.",
            ));
        }
        self.accepted.extend(
            valid.iter().map(|(timestamp, message)| Event { timestamp: *timestamp, message: (*message).to_owned() }),
        );

        let mut rejected = json!({});
        for (key, index, any) in [
            ("tooOldLogEventEndIndex", too_old, too_old > 0),
            ("expiredLogEventEndIndex", expired, expired > 0),
            ("tooNewLogEventStartIndex", too_new, too_new < events.len()),
        ] {
            if any {
                rejected[key] = json!(index);
            }
        }
        let mut answer = json!({ "nextSequenceToken": "49590302278162700010219231" });
        if rejected != json!({}) {
            answer["rejectedLogEventsInfo"] = rejected;
        }
        Ok(answer)
    }
}

/// Returns the events of a batch, after checking every limit.
fn checked_events(body: &Value) -> Result<Vec<(u64, &str)>, Refusal> {
    let events = body["logEvents"].as_array().ok_or_else(|| invalid("logEvents is no list"))?;
    if events.is_empty() || events.len() > 10_000 {
        return Err(invalid("'logEvents' must have a length of 1 to 10000"));
    }
    let mut checked = Vec::new();
    let mut size = 0;
    for event in events {
        let (timestamp, message) = (event["timestamp"].as_u64(), event["message"].as_str());
        let (Some(timestamp), Some(message)) = (timestamp, message) else {
            return Err(invalid("an event is a timestamp and a message"));
        };
        if message.is_empty() {
            return Err(invalid("'message' must have a length greater than or equal to 1"));
        }
        if message.len() + OVERHEAD > 256 * 1024 {
            return Err(invalid("Log event too large: it exceeds the limit of 262144 bytes"));
        }
        size += message.len() + OVERHEAD;
        checked.push((timestamp, message));
    }
    if size > 1_048_576 {
        return Err(invalid("Upload too large: the batch exceeds the limit of 1048576 bytes"));
    }
    if !checked.is_sorted_by_key(|(timestamp, _)| *timestamp) {
        return Err(invalid("Log events in a single PutLogEvents request must be in chronological order."));
    }
    Ok(checked)
}

fn group_name(body: &Value) -> Result<&str, Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_/#".contains(c);
    let good = |name: &&str| (1..=512).contains(&name.len()) && name.chars().all(allowed) && !name.starts_with("aws/");
    body["logGroupName"].as_str().filter(good).ok_or_else(|| invalid("'logGroupName' must match [\\.\\-_/#A-Za-z0-9]+"))
}

fn stream_name(body: &Value) -> Result<&str, Refusal> {
    let good = |name: &&str| (1..=512).contains(&name.chars().count()) && !name.contains([':', '*']);
    body["logStreamName"].as_str().filter(good).ok_or_else(|| invalid("'logStreamName' must match [^:*]*"))
}

fn invalid(message: &str) -> Refusal {
    Refusal(400, "InvalidParameterException", message.to_owned())
}

fn missing(what: &str) -> Refusal {
    Refusal(400, "ResourceNotFoundException", format!("The specified {what} does not exist."))
}

fn exists(what: &str) -> Refusal {
    Refusal(400, "ResourceAlreadyExistsException", format!("The specified {what} already exists"))
}
