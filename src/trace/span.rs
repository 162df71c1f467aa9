//! A span: the plain data of one timed piece of work.
//!
//! ```text
//! GET /api/activities/home            SERVER    1676851200.000000000 .. 1676851200.004250000
//! └─ home-activities-mock-data        INTERNAL  1676851200.001000000 .. 1676851200.003000000
//!      app.now = "2023-02-20T00:00:00+00:00"     app.result_length = 3
//! ```
//!
//! The types here belong to no wire format. None of them is `Serialize`; each backend writes its
//! own dialect of them.
//!
//! Specification: <https://opentelemetry.io/docs/specs/otel/trace/api/#span>.

use std::borrow::Cow;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::exception::Exception;
use super::id::SpanId;
use crate::text::first_chars;

/// One finished span.
#[derive(Clone, Debug)]
pub struct SpanData {
    /// Id of the span.
    pub id: SpanId,
    /// Id of the enclosing span. The parent of a request's first span is the caller's, if there is
    /// one.
    pub parent: Option<SpanId>,
    /// Part of the program that made the span.
    pub scope: Scope,
    /// Name with few different values: `GET /api/activities/@{handle}`, never the path itself.
    pub name: Cow<'static, str>,
    /// Side of a call that the span describes.
    pub kind: SpanKind,
    /// Start in nanoseconds since 1970, by the wall clock.
    pub start: u64,
    /// End: the start plus the time on the monotonic clock, so never earlier than the start.
    pub end: u64,
    /// Facts that every backend indexes, in the order they were set. Keys are unique.
    pub attributes: Vec<Attribute>,
    /// Fields that few spans have. `None` if all of them are empty.
    pub rare: Option<Box<RareFields>>,
}

/// Fields that few spans have. Apart from the others, they keep a span small: it is copied when it
/// begins, and whenever the list of its trace grows.
#[derive(Clone, Debug, Default)]
pub struct RareFields {
    /// Number of attributes above the limits, which were dropped.
    pub dropped_attributes: u32,
    /// Exceptions during the span.
    pub events: Vec<Event>,
    /// Number of events above the limits, which were dropped.
    pub dropped_events: u32,
    /// Error state.
    pub status: Status,
    /// Facts that are stored but not indexed: `metadata` in X-Ray, an attribute `namespace.key` in
    /// OTLP.
    pub metadata: Vec<Metadata>,
}

/// Part of a program that makes spans; OTLP's "instrumentation scope".
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Scope {
    /// Name, for instance `home.activities`.
    pub name: &'static str,
    /// Version, if the part has one of its own.
    pub version: Option<&'static str>,
}

/// Side of a call that a span describes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SpanKind {
    /// Work inside this process.
    Internal,
    /// Serving a request.
    Server,
    /// Making a request.
    Client,
}

/// Error state of a span. OpenTelemetry's third state, `Ok`, would mean that a developer confirmed
/// the success; this program never sets it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Status {
    /// No recorded error.
    #[default]
    Unset,
    /// Failure with its message, which is empty where the attributes tell the whole story.
    Error(String),
}

/// Fact about a span or an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Key, for instance `app.result_length`.
    pub key: Cow<'static, str>,
    /// Value, for instance 3.
    pub value: Value,
}

impl Attribute {
    /// Creates an attribute.
    pub fn new(key: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

/// Occurrence at one moment of a span. The program records exceptions only.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Time in nanoseconds since 1970.
    pub time: u64,
    /// Name: `exception`.
    pub name: Cow<'static, str>,
    /// Facts about the event.
    pub attributes: Vec<Attribute>,
    /// Number of attributes above the limits, which were dropped.
    pub dropped_attributes: u32,
}

/// Fact that is stored but not indexed.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// First level in X-Ray's `metadata`.
    pub namespace: &'static str,
    /// Second level.
    pub key: &'static str,
    /// Value, usually a map.
    pub value: Value,
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    String(Cow<'static, str>),
    /// True or false.
    Bool(bool),
    /// Whole number.
    Int(i64),
    /// Floating-point number.
    Double(f64),
    /// Named values.
    Map(Vec<Attribute>),
}

/// Limits of one span, with the OpenTelemetry variable that sets each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`: attributes of a span.
    pub attributes: usize,
    /// `OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT`: characters of a string.
    pub value_length: Option<usize>,
    /// `OTEL_SPAN_EVENT_COUNT_LIMIT`: events of a span.
    pub events: usize,
    /// `OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT`: attributes of an event.
    pub event_attributes: usize,
}

/// Point in time on two clocks: the wall clock for the date, the monotonic clock for durations.
#[derive(Clone, Copy, Debug)]
pub struct Timestamp {
    wall: u64,
    instant: Instant,
}

impl Scope {
    /// Makes a scope that has only a name.
    pub const fn named(name: &'static str) -> Self {
        Self { name, version: None }
    }
}

impl Timestamp {
    /// Reads both clocks.
    pub fn now() -> Self {
        // A clock before 1970 reads as 1970.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall: nanos(wall), instant: Instant::now() }
    }

    /// Wall-clock time in nanoseconds since 1970.
    pub fn unix_nanos(self) -> u64 {
        self.wall
    }

    /// Current time in nanoseconds since 1970: this timestamp plus the monotonic time since then. A
    /// wall clock that is set back has no effect on it.
    pub fn present(self) -> u64 {
        self.wall + nanos(self.instant.elapsed())
    }
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl SpanData {
    /// Makes an empty span without a parent that starts at `start`.
    pub fn new(id: SpanId, scope: Scope, name: Cow<'static, str>, kind: SpanKind, start: u64) -> Self {
        Self { id, parent: None, scope, name, kind, start, end: start, attributes: Vec::new(), rare: None }
    }

    /// Fields that few spans have.
    pub fn rare(&self) -> &RareFields {
        static EMPTY: RareFields = RareFields {
            dropped_attributes: 0,
            events: Vec::new(),
            dropped_events: 0,
            status: Status::Unset,
            metadata: Vec::new(),
        };
        self.rare.as_deref().unwrap_or(&EMPTY)
    }

    /// Fields that few spans have, to be changed.
    pub fn rare_mut(&mut self) -> &mut RareFields {
        self.rare.get_or_insert_default()
    }

    /// Sets an attribute. An existing key gets the new value.
    pub fn set_attribute(&mut self, key: Cow<'static, str>, value: Value, limits: &Limits) {
        let value = value.cut(limits.value_length);
        if let Some(known) = self.attributes.iter_mut().find(|attribute| attribute.key == key) {
            known.value = value;
        } else if self.attributes.len() < limits.attributes {
            self.attributes.push(Attribute { key, value });
        } else {
            self.rare_mut().dropped_attributes += 1;
        }
    }

    /// Sets metadata. An existing pair of names gets the new value. Metadata counts towards the
    /// limit of attributes, because OTLP sends it as attributes.
    pub fn put_metadata(&mut self, new: Metadata, limits: &Limits) {
        let new = Metadata { value: new.value.cut(limits.value_length), ..new };
        let attributes = self.attributes.len();
        let rare = self.rare_mut();
        let known = rare.metadata.iter_mut().find(|known| (known.namespace, known.key) == (new.namespace, new.key));
        if let Some(known) = known {
            known.value = new.value;
        } else if attributes + rare.metadata.len() < limits.attributes {
            rare.metadata.push(new);
        } else {
            rare.dropped_attributes += 1;
        }
    }

    /// Adds an event, or counts it as dropped.
    fn add_event(&mut self, mut event: Event, limits: &Limits) {
        let rare = self.rare_mut();
        if rare.events.len() == limits.events {
            rare.dropped_events += 1;
            return;
        }
        let too_many = event.attributes.len().saturating_sub(limits.event_attributes);
        event.dropped_attributes += too_many as u32;
        event.attributes.truncate(limits.event_attributes);
        for attribute in &mut event.attributes {
            let value = std::mem::replace(&mut attribute.value, Value::Bool(false));
            attribute.value = value.cut(limits.value_length);
        }
        rare.events.push(event);
    }

    /// Marks the span as failed and adds the event `exception`.
    pub fn record_exception(&mut self, exception: &Exception, time: u64, limits: &Limits) {
        self.rare_mut().status = Status::Error(exception.message.clone());
        let attributes = [
            ("exception.type", exception.kind.clone()),
            ("exception.message", exception.message.clone()),
            ("exception.stacktrace", format!("at {}", exception.place)),
        ];
        let attributes = attributes.into_iter().map(|(key, text)| Attribute::new(key, text)).collect();
        self.add_event(Event { time, name: Cow::Borrowed("exception"), attributes, dropped_attributes: 0 }, limits);
    }

    /// Returns true if an error was recorded.
    pub fn failed(&self) -> bool {
        matches!(self.rare().status, Status::Error(_))
    }

    /// Duration in nanoseconds.
    pub fn duration(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Value of the attribute with this key.
    pub fn attribute(&self, key: &str) -> Option<&Value> {
        self.attributes.iter().find(|attribute| attribute.key == key).map(|attribute| &attribute.value)
    }

    /// Text of the attribute with this key.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.attribute(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Whole number of the attribute with this key.
    pub fn int(&self, key: &str) -> Option<i64> {
        match self.attribute(key) {
            Some(Value::Int(number)) => Some(*number),
            _ => None,
        }
    }

    /// Approximate size in memory, in bytes.
    pub fn size(&self) -> usize {
        let rare = self.rare.as_ref().map_or(0, |rare| rare.size());
        size_of::<Self>() + self.name.len() + size_of_all(&self.attributes) + rare
    }
}

impl RareFields {
    fn size(&self) -> usize {
        let of_event = |event: &Event| size_of::<Event>() + event.name.len() + size_of_all(&event.attributes);
        let of_metadata = |metadata: &Metadata| size_of::<Metadata>() + metadata.value.size();
        let metadata = self.metadata.iter().map(of_metadata);
        size_of::<Self>() + self.events.iter().map(of_event).chain(metadata).sum::<usize>()
    }
}

impl Value {
    /// Cuts strings to `limit` characters, also inside maps.
    fn cut(self, limit: Option<usize>) -> Self {
        let Some(limit) = limit else { return self };
        match self {
            Self::String(text) => match first_chars(&text, limit) {
                cut if cut.len() < text.len() => Self::String(Cow::Owned(cut.to_owned())),
                _ => Self::String(text),
            },
            Self::Map(entries) => Self::Map(
                entries
                    .into_iter()
                    .map(|entry| Attribute { key: entry.key, value: entry.value.cut(Some(limit)) })
                    .collect(),
            ),
            other => other,
        }
    }

    /// Size on the heap, in bytes.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::String(text) => text.len(),
            Self::Map(entries) => size_of_all(entries),
            Self::Bool(_) | Self::Int(_) | Self::Double(_) => 0,
        }
    }
}

fn size_of_all(attributes: &[Attribute]) -> usize {
    attributes.iter().map(|it| size_of::<Attribute>() + it.key.len() + it.value.size()).sum()
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::String(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(Cow::Owned(text))
    }
}

impl From<Cow<'static, str>> for Value {
    fn from(text: Cow<'static, str>) -> Self {
        Self::String(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u16> for Value {
    fn from(value: u16) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Double(value)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { attributes: 128, value_length: None, events: 128, event_attributes: 128 }
    }
}
