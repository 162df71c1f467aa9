//! `GET /api/activities/search?term=`: activities with a text.

use super::{Activity, App, Invalid, Time, mock};
use crate::trace::{RequestTrace, Scope};

const SCOPE: Scope = Scope::named("search.activities");

/// The activities written since the start that contain `term`, ignoring case, then the one of the
/// mock data, which every search finds.
///
/// # Errors
///
/// `search_term_blank`: the term is empty.
pub fn run(trace: &RequestTrace<'_>, app: &App, term: &str) -> Result<Vec<Activity>, Invalid> {
    let mut span = trace.span(SCOPE, "search-activities");
    if term.is_empty() {
        return Err(Invalid("search_term_blank"));
    }
    let now = Time::now();
    let term = term.to_lowercase();
    let mut results = app.store.activities(now, |activity| activity.message.to_lowercase().contains(&term));
    results.extend(app.store.with_replies(mock::search(now), now));
    span.set_attribute("app.result_length", results.len());
    Ok(results)
}
