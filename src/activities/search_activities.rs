//! `GET /api/activities/search?term=`: activities that say something.

use super::{Activity, App, Invalid, mock};
use crate::trace::{RequestTrace, Scope};

const SCOPE: Scope = Scope::named("search.activities");

/// What was written since the start and holds `term` in any case, then the one that every search finds.
///
/// # Errors
///
/// `search_term_blank`: there is nothing to search for.
pub fn run(trace: &RequestTrace<'_>, app: &App, term: &str) -> Result<Vec<Activity>, Invalid> {
    let mut span = trace.span(SCOPE, "search-activities");
    if term.is_empty() {
        return Err(Invalid("search_term_blank"));
    }
    let now = mock::now();
    let term = term.to_lowercase();
    let mut results = app.store.activities(now, |activity| activity.message.to_lowercase().contains(&term));
    results.extend(app.store.with_replies(mock::search(now), now));
    span.set_attribute("app.result_length", results.len());
    Ok(results)
}
