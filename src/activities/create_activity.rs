//! `POST /api/activities`: writes a public message.

use chrono::TimeDelta;

use super::{Activity, App, Invalid, Time, last_failing, longer_than};
use crate::trace::{RequestTrace, Scope};

const SCOPE: Scope = Scope::named("create.activity");
const MAX_MESSAGE: usize = 280;

/// Stores the message of `handle` for the time that `ttl` names.
///
/// # Errors
///
/// `ttl_blank`, `user_handle_blank`, `message_blank` or `message_exceed_max_chars`.
pub fn run(trace: &RequestTrace<'_>, app: &App, message: &str, handle: &str, ttl: &str) -> Result<Activity, Invalid> {
    let mut span = trace.span(SCOPE, "create-activity");
    let lives = time_to_live(ttl);
    last_failing([
        (lives.is_none(), "ttl_blank"),
        (handle.is_empty(), "user_handle_blank"),
        (message.is_empty(), "message_blank"),
        (longer_than(message, MAX_MESSAGE), "message_exceed_max_chars"),
    ])?;
    let now = Time::now();
    let activity =
        Activity::new(app.ids.uuid(), handle.to_owned(), message.to_owned(), now, now + lives.unwrap_or_default());
    span.set_attribute("app.activity_uuid", activity.uuid.clone());
    app.store.add_activity(activity.clone(), now);
    Ok(activity)
}

fn time_to_live(ttl: &str) -> Option<TimeDelta> {
    match ttl {
        "30-days" => Some(TimeDelta::days(30)),
        "7-days" => Some(TimeDelta::days(7)),
        "3-days" => Some(TimeDelta::days(3)),
        "1-day" => Some(TimeDelta::days(1)),
        "12-hours" => Some(TimeDelta::hours(12)),
        "3-hours" => Some(TimeDelta::hours(3)),
        "1-hour" => Some(TimeDelta::hours(1)),
        _ => None,
    }
}
