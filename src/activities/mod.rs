//! The application being watched: Cruddur, where people write messages that expire. One file a service.
//!
//! A service gets the [`RequestTrace`](crate::trace::RequestTrace) of its request and opens a span in it; it knows nothing of the request's HTTP or
//! of any backend. Mock data, as the course has it, and a [`Store`] for what is written while the program runs.

pub mod create_activity;
pub mod create_message;
pub mod create_reply;
pub mod home_activities;
pub mod message_groups;
pub mod messages;
mod mock;
pub mod notifications_activities;
pub mod search_activities;
pub mod show_activity;
mod store;
pub mod user_activities;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use store::Store;

use crate::client::Client;
use crate::trace::id::IdSource;

/// What every service works with.
pub struct App {
    /// What was written since the start.
    pub store: Store,
    /// Where new uuids come from.
    pub ids: IdSource,
    /// Who has the notifications, if it is not this instance.
    pub notifications: Option<Client>,
}

/// A message to everybody. Fields in alphabetical order, as the original sends them.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Activity {
    /// When it was written.
    pub created_at: Time,
    /// The author's name as people read it.
    pub display_name: String,
    /// When it vanishes.
    pub expires_at: Time,
    /// The author.
    pub handle: String,
    /// How many like it.
    pub likes_count: u32,
    /// The text.
    pub message: String,
    /// Its answers, oldest first.
    pub replies: Vec<Self>,
    /// How many answers it has.
    pub replies_count: usize,
    /// What it answers, if it is a reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_activity_uuid: Option<String>,
    /// How many passed it on.
    pub reposts_count: u32,
    /// Its id.
    pub uuid: String,
}

/// A message to one person.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    /// When it was written.
    pub created_at: Time,
    /// The author's name as people read it.
    pub display_name: String,
    /// The author.
    pub handle: String,
    /// The text.
    pub message: String,
    /// Its id.
    pub uuid: String,
}

/// The messages exchanged with one person.
#[derive(Clone, Debug, Serialize)]
pub struct MessageGroup {
    /// When the last message was written.
    pub created_at: Time,
    /// The other person's name.
    pub display_name: String,
    /// The other person.
    pub handle: String,
    /// Its id.
    pub uuid: String,
}

/// A point in time, written with microseconds and `+00:00`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Time(pub DateTime<Utc>);

/// Why something written was not accepted: one code, as the original has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Invalid(pub &'static str);

/// Who is logged in: always the same, there are no accounts in this part of the course.
pub const ME: &str = "andrewbrown";

impl Activity {
    /// An activity that nobody has reacted to yet.
    fn new(uuid: String, handle: &str, message: &str, created_at: Time, expires_at: Time) -> Self {
        Self {
            created_at,
            display_name: mock::display_name(handle),
            expires_at,
            handle: handle.to_owned(),
            likes_count: 0,
            message: message.to_owned(),
            replies: Vec::new(),
            replies_count: 0,
            reply_to_activity_uuid: None,
            reposts_count: 0,
            uuid,
        }
    }
}

impl App {
    /// An application with nothing but its mock data.
    #[must_use]
    pub fn new() -> Self {
        Self { store: Store::default(), ids: IdSource::new(), notifications: None }
    }
}

impl Default for App {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, false))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = DateTime::parse_from_rfc3339(&text).map_err(serde::de::Error::custom)?;
        Ok(Self(time.to_utc()))
    }
}

/// The last check that fails is the one that is reported, as in the original.
fn last_failing<const N: usize>(checks: [(bool, &'static str); N]) -> Result<(), Invalid> {
    match checks.iter().rev().find(|(failed, _)| *failed) {
        Some((_, code)) => Err(Invalid(code)),
        None => Ok(()),
    }
}

/// Lengths are counted in characters, not in bytes.
fn longer_than(text: &str, characters: usize) -> bool {
    text.chars().nth(characters).is_some()
}

#[cfg(test)]
mod tests;
