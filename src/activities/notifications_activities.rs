//! `GET /api/activities/notifications`: what happened to the logged-in user.

use super::{Activity, App, mock};
use crate::trace::{RequestTrace, Scope};

const SCOPE: Scope = Scope::named("notifications.activities");

/// The one notification there is.
pub fn run(trace: &RequestTrace<'_>, app: &App) -> Vec<Activity> {
    let mut span = trace.span(SCOPE, "notifications-activities-mock-data");
    let now = mock::now();
    let results = app.store.with_replies(mock::notifications(now), now);
    span.set_attribute("app.result_length", results.len());
    results
}
