//! Answers of CloudWatch Logs, as a child of `backends::cloudwatch_logs`.

use super::response::{Class, LogsResponse};
use crate::fuzz::{assert_one_line, reply};

const SENT: usize = 10;

/// An answer has a class, a code that is a name, and never more rejected lines than were sent.
pub(crate) fn answers(input: &[u8]) {
    let reply = reply(input);
    let response = LogsResponse::read(&reply, SENT);
    assert_one_line(&response.code, 64);
    assert!(response.rejected.is_none_or(|(rejected, _)| (1..=SENT).contains(&rejected)), "{response:?}");
    assert_eq!(response.retry_after, reply.retry_after);
    if response.class == Class::Success {
        assert_eq!(response.status, 200);
    } else {
        assert_eq!(response.rejected, None);
    }
    assert_eq!(LogsResponse::read(&reply, 0).rejected, None, "nothing was sent");
}
