//! The home route that all peers serve: the same JSON as that of the product, byte for byte except
//! for the times.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;

/// Path of the route.
pub const HOME: &str = "/api/activities/home";

/// A message of Cruddur, with its fields in alphabetical order, as the original sends them.
#[derive(Serialize)]
pub struct Activity {
    created_at: String,
    display_name: &'static str,
    expires_at: String,
    handle: &'static str,
    likes_count: u32,
    message: &'static str,
    replies: Vec<Activity>,
    replies_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to_activity_uuid: Option<&'static str>,
    reposts_count: u32,
    uuid: &'static str,
}

/// Returns the mock data of the course, as of `now`.
pub fn home(now: DateTime<Utc>) -> Vec<Activity> {
    const FIRST: &str = "68f126b0-1ceb-4a33-88be-d90fa7109eee";
    let (days, hours) = (TimeDelta::days, TimeDelta::hours);
    let activity = |uuid, display_name, handle, message, age, lifetime| Activity {
        created_at: rfc3339(now - age),
        display_name,
        expires_at: rfc3339(now + lifetime),
        handle,
        likes_count: 0,
        message,
        replies: Vec::new(),
        replies_count: 0,
        reply_to_activity_uuid: None,
        reposts_count: 0,
        uuid,
    };
    let mut first = activity(FIRST, "Andrew Brown", "andrewbrown", "Cloud is fun!", days(2), days(5));
    let reply = "26e12864-1c26-5c3a-9658-97a10f8fea67";
    let mut reply = activity(reply, "Worf", "worf", "Honour needs no cloud.", days(2), days(5));
    reply.reply_to_activity_uuid = Some(FIRST);
    first.likes_count = 5;
    first.replies_count = 1;
    first.replies.push(reply);
    let second = "66e12864-8c26-4c3a-9658-95a10f8fea67";
    let third = "248959df-3079-4947-b847-9e0892d1bab5";
    vec![
        first,
        activity(second, "Worf", "worf", "I am out of prune juice.", days(7), days(9)),
        activity(third, "Garek", "garek", "My dear doctor, I am just a simple tailor.", hours(1), hours(12)),
    ]
}

/// Writes a time as the route does.
pub fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, false)
}
