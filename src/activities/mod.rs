//! The application that is traced: Cruddur, where people write messages that expire. Each service
//! has a file.
//!
//! A service gets the [`RequestTrace`](crate::trace::RequestTrace) of its request and opens a span
//! in it. It is independent of HTTP and of all backends. The data are the mock data of the course,
//! and a [`Store`] of what users write while the program runs.

pub mod create_activity;
pub mod create_message;
pub mod create_reply;
pub mod home_activities;
mod json;
pub mod message_groups;
pub mod messages;
mod mock;
pub mod notifications_activities;
pub mod search_activities;
pub mod show_activity;
mod store;
pub mod user_activities;

use std::borrow::Cow;
use std::fmt;
use std::ops::Add;

use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use serde::{Deserialize, Deserializer};

pub use store::Store;

use crate::client::Client;
use crate::text::{longer_than, time};
use crate::trace::id::IdSource;

/// The parts that services share. By default there are only the mock data.
#[derive(Default)]
pub struct App {
    /// Data written since the start.
    pub store: Store,
    /// Source of new uuids.
    pub ids: IdSource,
    /// Client of the instance that has the notifications; `None` if this one has them.
    pub notifications: Option<Client>,
}

/// Text that is part of the mock data, or that a user has written.
type Text = Cow<'static, str>;

/// A public message. The fields are in alphabetical order, as the original sends them.
#[derive(Clone, Debug, Deserialize)]
pub struct Activity {
    /// Time of writing.
    pub created_at: Time,
    /// Full name of the author.
    pub display_name: Text,
    /// Time of its end.
    pub expires_at: Time,
    /// Handle of the author.
    pub handle: Text,
    /// Number of likes.
    pub likes_count: u32,
    /// Text.
    pub message: Text,
    /// Replies, oldest first.
    pub replies: Vec<Self>,
    /// Number of replies.
    pub replies_count: usize,
    /// For a reply, the activity that it answers.
    #[serde(default)]
    pub reply_to_activity_uuid: Option<Text>,
    /// Number of reposts.
    pub reposts_count: u32,
    /// Id.
    pub uuid: Text,
}

/// A message to one person.
#[derive(Clone, Debug)]
pub struct DirectMessage {
    /// Time of writing.
    pub created_at: Time,
    /// Full name of the author.
    pub display_name: Text,
    /// Handle of the author.
    pub handle: Text,
    /// Text.
    pub message: Text,
    /// Id.
    pub uuid: Text,
}

/// The messages exchanged with one person.
#[derive(Clone, Debug)]
pub struct MessageGroup {
    /// Time of the last message.
    pub created_at: Time,
    /// Full name of the other person.
    pub display_name: Text,
    /// Handle of the other person.
    pub handle: Text,
    /// Id.
    pub uuid: Text,
}

/// A point in time, written with microseconds and `+00:00`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Time(pub DateTime<Utc>);

/// Reason why an input was not accepted, as a code of the original.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Invalid(pub &'static str);

/// Handle of the logged-in user. It is always this one: this part of the course has no accounts.
pub const ME: &str = "andrewbrown";

impl Activity {
    /// An activity without likes, replies and reposts.
    fn new(
        uuid: impl Into<Text>,
        handle: impl Into<Text>,
        message: impl Into<Text>,
        created_at: Time,
        expires_at: Time,
    ) -> Self {
        let handle = handle.into();
        Self {
            created_at,
            display_name: mock::display_name(&handle),
            expires_at,
            handle,
            likes_count: 0,
            message: message.into(),
            replies: Vec::new(),
            replies_count: 0,
            reply_to_activity_uuid: None,
            reposts_count: 0,
            uuid: uuid.into(),
        }
    }
}

impl Time {
    /// The present.
    fn now() -> Self {
        Self(Utc::now())
    }
}

impl Add<TimeDelta> for Time {
    type Output = Self;

    fn add(self, delta: TimeDelta) -> Self {
        Self(self.0 + delta)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&time::micros_with_offset(self.0))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = DateTime::parse_from_rfc3339(&text).map_err(serde::de::Error::custom)?.to_utc();
        // In UTC, the first and the last hours of these years can lie outside of them. Such a time
        // would be written in a form that no program reads.
        if (0..=9999).contains(&time.year()) {
            Ok(Self(time))
        } else {
            Err(serde::de::Error::custom("the year is not between 0 and 9999 in UTC"))
        }
    }
}

/// Returns the code of the last check that failed, as the original does.
fn last_failing<const N: usize>(checks: [(bool, &'static str); N]) -> Result<(), Invalid> {
    checks.iter().rev().find(|(failed, _)| *failed).map_or(Ok(()), |(_, code)| Err(Invalid(code)))
}

#[cfg(test)]
mod tests;
