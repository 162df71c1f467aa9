//! `GET /api/messages/@{handle}`: the messages exchanged with one person.

use super::{App, DirectMessage, Time, mock};
use crate::trace::{RequestTrace, Scope};

const SCOPE: Scope = Scope::named("messages");

/// The two messages of the mock data, then those written to `handle` since the start.
pub fn run(trace: &RequestTrace<'_>, app: &App, handle: &str) -> Vec<DirectMessage> {
    let mut span = trace.span(SCOPE, "messages-mock-data");
    let now = Time::now();
    let mut results = mock::messages(handle, now);
    results.extend(app.store.messages_to(handle, now));
    span.set_attribute("app.result_length", results.len());
    results
}
