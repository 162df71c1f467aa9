//! `GET /api/activities/notifications`: notifications of the logged-in user.

use super::{Activity, App, Time, mock};
use crate::client::CallFailure;
use crate::trace::{RequestTrace, Scope};

const SCOPE: Scope = Scope::named("notifications.activities");

/// The one notification of the mock data, or those of another instance. `via` are the `Via` headers
/// of the request.
///
/// # Errors
///
/// The other instance did not answer with activities.
pub fn run(trace: &RequestTrace<'_>, app: &App, via: &[&str]) -> Result<Vec<Activity>, CallFailure> {
    let now = Time::now();
    let (mut span, found) = match &app.notifications {
        None => (trace.span(SCOPE, "notifications-activities-mock-data"), mock::notifications(now)),
        Some(elsewhere) => {
            let span = trace.span(SCOPE, "notifications-activities-elsewhere");
            (span, elsewhere.get_json(trace, via)?)
        }
    };
    let results = app.store.with_replies(found, now);
    span.set_attribute("app.result_length", results.len());
    Ok(results)
}
