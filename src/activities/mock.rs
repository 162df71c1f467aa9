//! The people and messages of the course's mock data.

use std::borrow::Cow;

use chrono::TimeDelta;

use super::{Activity, DirectMessage, MessageGroup, Text, Time};

/// The three activities of the home page, in the order of the original.
pub(super) fn home(now: Time) -> Vec<Activity> {
    const UUID: &str = "68f126b0-1ceb-4a33-88be-d90fa7109eee";
    let cloud = Activity::new(UUID, "andrewbrown", "Cloud is fun!", now + days(-2), now + days(5));
    let reply = Activity::new(
        "26e12864-1c26-5c3a-9658-97a10f8fea67",
        "worf",
        "Honour needs no cloud.",
        now + days(-2),
        now + days(5),
    );
    let juice = Activity::new(
        "66e12864-8c26-4c3a-9658-95a10f8fea67",
        "worf",
        "I am out of prune juice.",
        now + days(-7),
        now + days(9),
    );
    let tailor = Activity::new(
        "248959df-3079-4947-b847-9e0892d1bab5",
        "garek",
        "My dear doctor, I am just a simple tailor.",
        now + TimeDelta::hours(-1),
        now + TimeDelta::hours(12),
    );
    vec![liked(cloud, reply), juice, tailor]
}

/// The notifications of the logged-in user.
pub(super) fn notifications(now: Time) -> Vec<Activity> {
    const UUID: &str = "56e12864-1c26-4c3a-9658-97a10f8fea60";
    const TEXT: &str = "I am following Cruddur from the station.";
    let (created, expires) = (now + days(-2), now + days(5));
    let following = Activity::new(UUID, "bajoranwatcher", TEXT, created, expires);
    let reply =
        Activity::new("46e12864-1c26-4c3a-9658-97a10f8fea61", "worf", "This post has no honour.", created, expires);
    vec![liked(following, reply)]
}

/// The one activity of a user.
pub(super) fn user(handle: &str, now: Time) -> Vec<Activity> {
    const UUID: &str = "248959df-3079-4947-b847-9e0892d1bab4";
    vec![Activity::new(UUID, handle.to_owned(), "Cloud is fun!", now + days(-1), now + days(31))]
}

/// The result of every search.
pub(super) fn search(now: Time) -> Vec<Activity> {
    const UUID: &str = "148959df-3079-4947-b847-9e0892d1bab4";
    vec![Activity::new(UUID, "andrewbrown", "Cloud is fun!", now, now + days(31))]
}

/// The conversations of the logged-in user.
pub(super) fn message_groups(now: Time) -> Vec<MessageGroup> {
    [("24b95582-9e7b-4e0a-9ad1-639773ab7552", "londo"), ("417c360e-c4e6-4fce-873b-d2d71469b4ac", "worf")]
        .map(|(uuid, handle)| MessageGroup {
            created_at: now,
            display_name: display_name(handle),
            handle: handle.into(),
            uuid: uuid.into(),
        })
        .into()
}

/// The messages between the logged-in user and another one.
pub(super) fn messages(other: &str, now: Time) -> Vec<DirectMessage> {
    [
        ("4e81c06a-db0f-4281-b4cc-4208a5dd0d3f", super::ME.into(), "The cloud was down yesterday. Was that you?"),
        ("66e12864-1c26-4c3a-9658-97a10f8fea67", Cow::Owned(other.to_owned()), "I would never. Who told you?"),
    ]
    .map(|(uuid, handle, message)| DirectMessage {
        created_at: now,
        display_name: display_name(&handle),
        handle,
        message: message.into(),
        uuid: uuid.into(),
    })
    .into()
}

/// The full name of a handle. An unknown user has no other name than the handle.
pub(super) fn display_name(handle: &str) -> Text {
    Cow::Borrowed(match handle {
        "andrewbrown" => "Andrew Brown",
        "bajoranwatcher" => "Bajoran Watcher",
        "garek" => "Garek",
        "londo" => "Londo Mollari",
        "worf" => "Worf",
        stranger => return Cow::Owned(stranger.to_owned()),
    })
}

/// `activity` with five likes and a reply.
fn liked(activity: Activity, reply: Activity) -> Activity {
    let reply = Activity { reply_to_activity_uuid: Some(activity.uuid.clone()), ..reply };
    Activity { likes_count: 5, replies: vec![reply], replies_count: 1, ..activity }
}

fn days(days: i64) -> TimeDelta {
    TimeDelta::days(days)
}
