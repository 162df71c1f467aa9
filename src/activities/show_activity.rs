//! `GET /api/activities/{uuid}`: one activity. In the original this route calls a class by a wrong
//! name and always fails.

use super::{Activity, App, ME, Time, mock};
use crate::trace::{RequestTrace, Scope};

const SCOPE: Scope = Scope::named("show.activity");

/// The activity or reply with that uuid, of the mock data or written since the start.
pub fn run(trace: &RequestTrace<'_>, app: &App, uuid: &str) -> Option<Activity> {
    let mut span = trace.span(SCOPE, "show-activity");
    span.set_attribute("app.activity_uuid", uuid.to_owned());
    let now = Time::now();
    let written = app.store.activities(now, |activity| activity.uuid == uuid).pop();
    written.or_else(|| app.store.reply(uuid, now)).or_else(|| {
        let all = [mock::home(now), mock::notifications(now), mock::user(ME, now), mock::search(now)];
        let all = app.store.with_replies(all.concat(), now);
        let replies = all.iter().flat_map(|activity| &activity.replies);
        all.iter().chain(replies).find(|activity| activity.uuid == uuid).cloned()
    })
}
