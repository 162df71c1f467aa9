//! `GET /api/message_groups`: whom the logged-in user talks to.

use super::{App, MessageGroup, mock};
use crate::trace::{RequestTrace, Scope};

const SCOPE: Scope = Scope::named("message.groups");

/// The two that are always there, then everybody else who was written to since the start.
pub fn run(trace: &RequestTrace<'_>, app: &App) -> Vec<MessageGroup> {
    let mut span = trace.span(SCOPE, "message-groups-mock-data");
    let now = mock::now();
    let mut results = mock::message_groups(now);
    for (handle, last) in app.store.receivers(now) {
        match results.iter_mut().find(|group| group.handle == handle) {
            Some(group) => group.created_at = last.created_at,
            None => results.push(MessageGroup {
                created_at: last.created_at,
                display_name: mock::display_name(&handle),
                handle,
                // A group lives as long as its messages, so its id is that of the last one.
                uuid: last.uuid,
            }),
        }
    }
    span.set_attribute("app.result_length", results.len());
    results
}
