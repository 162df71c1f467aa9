//! `POST /api/activities/{uuid}/reply`: writes a reply to an activity. In the original every
//! mistake in it is a 500.

use chrono::TimeDelta;

use super::{Activity, App, Invalid, Time, last_failing, longer_than};
use crate::trace::{RequestTrace, Scope};

const SCOPE: Scope = Scope::named("create.reply");
const MAX_MESSAGE: usize = 1024;
const LIVES: TimeDelta = TimeDelta::days(7);

/// Stores a reply of `handle` to the activity `uuid`. As in the original, that activity need not
/// exist: it may have expired while the reply was written.
///
/// # Errors
///
/// `user_handle_blank`, `activity_uuid_blank`, `message_blank` or `message_exceed_max_chars`.
pub fn run(trace: &RequestTrace<'_>, app: &App, message: &str, handle: &str, uuid: &str) -> Result<Activity, Invalid> {
    let mut span = trace.span(SCOPE, "create-reply");
    span.set_attribute("app.activity_uuid", uuid.to_owned());
    last_failing([
        (handle.is_empty(), "user_handle_blank"),
        (uuid.is_empty(), "activity_uuid_blank"),
        (message.is_empty(), "message_blank"),
        (longer_than(message, MAX_MESSAGE), "message_exceed_max_chars"),
    ])?;
    let now = Time::now();
    let reply = Activity {
        reply_to_activity_uuid: Some(uuid.to_owned().into()),
        ..Activity::new(app.ids.uuid(), handle.to_owned(), message.to_owned(), now, now + LIVES)
    };
    app.store.add_reply(reply.clone(), now);
    Ok(reply)
}
