//! Clock of the service, learned from the `Date` of its responses. A signature is valid within five
//! minutes of the service's time, so calls are signed with that time even if our clock is wrong.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Difference between the service's clock and ours.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Service's time minus our time, in milliseconds.
    ahead: i64,
}

/// Difference above which our clock counts as wrong, in milliseconds. The service allows five
/// minutes.
const TOLERANCE: u64 = 4 * 60 * 1000;
/// Longest round trip from which the difference is learned. A longer one is too inexact.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(15 * 60);

impl Clock {
    /// Returns the service's time when our clock shows `now`. Calls are signed with it.
    pub(super) fn signing_time(&self, now: SystemTime) -> SystemTime {
        let shift = Duration::from_millis(self.ahead.unsigned_abs());
        let shifted = if self.ahead < 0 { now.checked_sub(shift) } else { now.checked_add(shift) };
        shifted.unwrap_or(now)
    }

    /// Returns the service's time minus our time, in milliseconds. Returns 0 for a small
    /// difference, which is normal, so that the times of what is sent are not shifted back and forth.
    pub(super) fn offset(&self) -> i64 {
        if self.ahead.unsigned_abs() > TOLERANCE { self.ahead } else { 0 }
    }

    /// Learns the difference from the `Date` of a response, which is assumed to be written half-way
    /// between `sent` and `received`. Returns true if the last call was signed with a time so wrong
    /// that a retry makes sense.
    pub(super) fn learn(&mut self, date: Option<SystemTime>, sent: SystemTime, received: SystemTime) -> bool {
        let round_trip = received.duration_since(sent).unwrap_or(Duration::MAX);
        let Some(date) = date.filter(|_| round_trip <= MAX_ROUND_TRIP) else { return false };
        let ahead = millis(date) - (millis(sent) + millis(received)) / 2;
        let moved = ahead.abs_diff(self.ahead) > TOLERANCE;
        self.ahead = ahead;
        moved
    }

    /// Describes the error of our clock: `10 minutes slow`.
    pub(super) fn fault(&self) -> String {
        let minutes = self.ahead.unsigned_abs() / 60_000;
        match self.ahead {
            _ if self.ahead.unsigned_abs() <= TOLERANCE => "right again".to_owned(),
            1.. => format!("{minutes} minutes slow"),
            _ => format!("{minutes} minutes fast"),
        }
    }
}

fn millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX / 4))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::Value as Json;

    use super::*;

    fn time(text: &Json) -> SystemTime {
        DateTime::parse_from_rfc3339(text.as_str().unwrap()).unwrap().into()
    }

    /// Runs AWS's own cases for its SDKs. They check the signing time, the learned difference, and
    /// whether a retry follows.
    #[test]
    fn the_clock_is_corrected_as_in_awss_own_cases() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/aws-config/clock-skew-test-cases.json");
        let cases: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = cases["tests"].as_array().unwrap();
        assert_eq!(cases.len(), 10);
        for case in cases {
            for operation in case["operations"].as_array().unwrap() {
                let mut clock = Clock { ahead: operation["initialClientSkew"].as_i64().unwrap() * 1000 };
                let attempts = operation["attempts"].as_array().unwrap();
                for (number, attempt) in attempts.iter().enumerate() {
                    let (sent, received) = (time(&attempt["clientTimeAtSend"]), time(&attempt["clientTimeAtReceive"]));
                    assert_eq!(clock.signing_time(sent), time(&attempt["expectedSigningTime"]), "{case:#}");
                    let headers = &attempt["response"]["headers"];
                    let date = headers["Date"].as_str().filter(|_| headers["Age"].is_null());
                    let date = date.map(|date| DateTime::parse_from_rfc2822(date).unwrap().into());
                    let moved = clock.learn(date, sent, received);
                    if attempt["response"]["errorCode"].is_string() && operation["maxAttempts"].is_null() {
                        assert_eq!(moved, number + 1 < attempts.len(), "{case:#}");
                    }
                }
                assert_eq!(clock.ahead, operation["expectedClientSkew"].as_i64().unwrap() * 1000, "{case:#}");
            }
        }
    }

    #[test]
    fn the_fault_is_said_in_minutes() {
        for (ahead, fault) in [(600_500, "10 minutes slow"), (-1_800_000, "30 minutes fast"), (1000, "right again")] {
            assert_eq!(Clock { ahead }.fault(), fault);
        }
    }
}
