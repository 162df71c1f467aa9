//! `GET /api/activities/@{handle}`: activities of one person. The spans are those of the course's
//! X-Ray lesson, with its metadata: stored in the trace, but not indexed.

use super::{Activity, App, Time, mock};
use crate::trace::span::Attribute;
use crate::trace::{RequestTrace, Scope, Value};

const SCOPE: Scope = Scope::named("user.activities");

/// The activities of `handle` since the start, newest first, then the one of the mock data.
pub fn run(trace: &RequestTrace<'_>, app: &App, handle: &str) -> Vec<Activity> {
    let mut span = trace.span(SCOPE, "user_activities");
    span.set_attribute("app.user_handle", handle.to_owned());
    let now = Time::now();
    let mut subspan = trace.span(SCOPE, "mock-data");
    let mut results = app.store.activities(now, |activity| activity.handle == handle);
    results.extend(app.store.with_replies(mock::user(handle, now), now));
    let facts = vec![Attribute::new("now", now.to_string()), Attribute::new("result-size", results.len())];
    subspan.put_metadata("namespace", "key", Value::Map(facts));
    results
}
