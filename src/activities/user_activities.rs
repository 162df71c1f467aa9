//! `GET /api/activities/@{handle}`: what one person wrote. The spans are those of the course's X-Ray lesson, with its
//! metadata: kept with the trace, but not indexed.

use std::borrow::Cow;

use super::{Activity, App, mock};
use crate::trace::span::Attribute;
use crate::trace::{RequestTrace, Scope, Value};

const SCOPE: Scope = Scope::named("user.activities");

/// What `handle` wrote since the start, newest first, then the one activity that everybody has.
pub fn run(trace: &RequestTrace<'_>, app: &App, handle: &str) -> Vec<Activity> {
    let mut span = trace.span(SCOPE, "user_activities");
    span.set_attribute("app.user_handle", handle.to_owned());
    let now = mock::now();
    let mut subspan = trace.span(SCOPE, "mock-data");
    let mut results = app.store.activities(now, |activity| activity.handle == handle);
    results.extend(app.store.with_replies(mock::of_user(handle, now), now));
    let entry = |key, value| Attribute { key: Cow::Borrowed(key), value };
    let facts = vec![entry("now", now.to_string().into()), entry("result-size", results.len().into())];
    subspan.put_metadata("namespace", "key", Value::Map(facts));
    results
}
