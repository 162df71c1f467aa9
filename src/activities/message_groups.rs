//! `GET /api/message_groups`: conversations of the logged-in user.

use super::{App, MessageGroup, Time, mock};
use crate::trace::{RequestTrace, Scope};

const SCOPE: Scope = Scope::named("message.groups");

/// The two conversations of the mock data, then those with other receivers of messages since the
/// start.
pub fn run(trace: &RequestTrace<'_>, app: &App) -> Vec<MessageGroup> {
    let mut span = trace.span(SCOPE, "message-groups-mock-data");
    let now = Time::now();
    let mut results = mock::message_groups(now);
    for (handle, last) in app.store.receivers(now) {
        match results.iter_mut().find(|group| group.handle == handle) {
            Some(group) => group.created_at = last.created_at,
            None => results.push(MessageGroup {
                created_at: last.created_at,
                display_name: mock::display_name(&handle),
                handle: handle.into(),
                // A group has no id of its own; it exists while it has messages.
                uuid: last.uuid,
            }),
        }
    }
    span.set_attribute("app.result_length", results.len());
    results
}
