//! The people and messages that are always there.

use chrono::{TimeDelta, Utc};

use super::{Activity, Message, MessageGroup, Time};

/// The three activities of the home page, in the order of the original.
pub(super) fn home(now: Time) -> Vec<Activity> {
    vec![
        Activity {
            likes_count: 5,
            replies: vec![Activity {
                reply_to_activity_uuid: Some(HOME[0].to_owned()),
                ..activity(
                    "26e12864-1c26-5c3a-9658-97a10f8fea67",
                    "worf",
                    "Honour needs no cloud.",
                    now,
                    days(-2),
                    days(5),
                )
            }],
            replies_count: 1,
            ..activity(HOME[0], "andrewbrown", "Cloud is fun!", now, days(-2), days(5))
        },
        activity(HOME[1], "worf", "I am out of prune juice.", now, days(-7), days(9)),
        activity(HOME[2], "garek", "My dear doctor, I am just a simple tailor.", now, hours(-1), hours(12)),
    ]
}

/// What happened to the logged-in user.
pub(super) fn notifications(now: Time) -> Vec<Activity> {
    const UUID: &str = "56e12864-1c26-4c3a-9658-97a10f8fea60";
    vec![Activity {
        likes_count: 5,
        replies: vec![Activity {
            reply_to_activity_uuid: Some(UUID.to_owned()),
            ..activity(
                "46e12864-1c26-4c3a-9658-97a10f8fea61",
                "worf",
                "This post has no honour.",
                now,
                days(-2),
                days(5),
            )
        }],
        replies_count: 1,
        ..activity(UUID, "bajoranwatcher", "I am following Cruddur from the station.", now, days(-2), days(5))
    }]
}

/// Everybody has written one thing.
pub(super) fn of_user(handle: &str, now: Time) -> Vec<Activity> {
    vec![activity("248959df-3079-4947-b847-9e0892d1bab4", handle, "Cloud is fun!", now, days(-1), days(31))]
}

/// What every search finds.
pub(super) fn search(now: Time) -> Vec<Activity> {
    vec![activity("148959df-3079-4947-b847-9e0892d1bab4", "andrewbrown", "Cloud is fun!", now, days(0), days(31))]
}

/// Whom the logged-in user talks to.
pub(super) fn message_groups(now: Time) -> Vec<MessageGroup> {
    [("24b95582-9e7b-4e0a-9ad1-639773ab7552", "londo"), ("417c360e-c4e6-4fce-873b-d2d71469b4ac", "worf")]
        .map(|(uuid, handle)| MessageGroup {
            created_at: now,
            display_name: display_name(handle),
            handle: handle.to_owned(),
            uuid: uuid.to_owned(),
        })
        .into()
}

/// What the logged-in user and the other one wrote.
pub(super) fn messages(other: &str, now: Time) -> Vec<Message> {
    [
        ("4e81c06a-db0f-4281-b4cc-4208a5dd0d3f", super::ME, "The cloud was down yesterday. Was that you?"),
        ("66e12864-1c26-4c3a-9658-97a10f8fea67", other, "I would never. Who told you?"),
    ]
    .map(|(uuid, handle, message)| Message {
        created_at: now,
        display_name: display_name(handle),
        handle: handle.to_owned(),
        message: message.to_owned(),
        uuid: uuid.to_owned(),
    })
    .into()
}

/// A handle's name; a stranger is called by the handle.
pub(super) fn display_name(handle: &str) -> String {
    match handle {
        "andrewbrown" => "Andrew Brown",
        "bajoranwatcher" => "Bajoran Watcher",
        "garek" => "Garek",
        "londo" => "Londo Mollari",
        "worf" => "Worf",
        stranger => stranger,
    }
    .to_owned()
}

/// The present, to the microsecond.
pub(super) fn now() -> Time {
    Time(Utc::now())
}

const HOME: [&str; 3] = [
    "68f126b0-1ceb-4a33-88be-d90fa7109eee",
    "66e12864-8c26-4c3a-9658-95a10f8fea67",
    "248959df-3079-4947-b847-9e0892d1bab5",
];

fn activity(uuid: &str, handle: &str, message: &str, now: Time, created: TimeDelta, expires: TimeDelta) -> Activity {
    Activity::new(uuid.to_owned(), handle, message, Time(now.0 + created), Time(now.0 + expires))
}

fn days(days: i64) -> TimeDelta {
    TimeDelta::days(days)
}

fn hours(hours: i64) -> TimeDelta {
    TimeDelta::hours(hours)
}
