//! `GET /api/activities/home`: the newest activities.

use super::{Activity, App, Time, mock};
use crate::trace::{RequestTrace, Scope};

const SCOPE: Scope = Scope::named("home.activities");

/// The activities written since the start, newest first, then the three of the mock data.
pub fn run(trace: &RequestTrace<'_>, app: &App) -> Vec<Activity> {
    let mut span = trace.span(SCOPE, "home-activities-mock-data");
    let now = Time::now();
    span.set_attribute("app.now", now.to_string());
    let mut results = app.store.activities(now, |_| true);
    results.extend(app.store.with_replies(mock::home(now), now));
    span.set_attribute("app.result_length", results.len());
    results
}
