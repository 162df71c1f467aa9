//! `POST /api/messages`: writes a message to one person.

use chrono::TimeDelta;

use super::{App, DirectMessage, Invalid, Time, last_failing, longer_than, mock};
use crate::trace::{RequestTrace, Scope};

const SCOPE: Scope = Scope::named("create.message");
const MAX_MESSAGE: usize = 1024;
const LIVES: TimeDelta = TimeDelta::days(30);

/// Stores a message of `sender` to `receiver`.
///
/// # Errors
///
/// `user_sender_handle_blank`, `user_receiver_handle_blank` (misspelt in the original),
/// `message_blank` or `message_exceed_max_chars`.
pub fn run(
    trace: &RequestTrace<'_>,
    app: &App,
    message: &str,
    sender: &str,
    receiver: &str,
) -> Result<DirectMessage, Invalid> {
    let mut span = trace.span(SCOPE, "create-message");
    last_failing([
        (sender.is_empty(), "user_sender_handle_blank"),
        (receiver.is_empty(), "user_receiver_handle_blank"),
        (message.is_empty(), "message_blank"),
        (longer_than(message, MAX_MESSAGE), "message_exceed_max_chars"),
    ])?;
    let now = Time::now();
    let message = DirectMessage {
        created_at: now,
        display_name: mock::display_name(sender),
        handle: sender.to_owned().into(),
        message: message.to_owned().into(),
        uuid: app.ids.uuid().into(),
    };
    span.set_attribute("app.message_uuid", message.uuid.clone());
    app.store.add_message(receiver.to_owned(), message.clone(), now + LIVES, now);
    Ok(message)
}
