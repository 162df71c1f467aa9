//! The waits between attempts to send one payload: exponential back-off with jitter, up to a time
//! limit. `Retry-After` takes precedence over the back-off.
//!
//! ```text
//! attempt 1        2            3                        4
//!         |--1 s---|----2 s-----|----------4 s-----------|
//!         |<------------ max_elapsed_time, 10 s ------------->|
//! ```
//!
//! Each wait is changed at random by up to 20 % (the jitter), so that a thousand clients do not
//! return at the same time.
//!
//! There is one exception, in the worker that uses these waits. If a connection breaks before a
//! reply comes, the worker opens it again at once, but only a single time. So no time is lost if
//! the server was restarted or closed an idle connection a moment ago.
//!
//! Specification: <https://opentelemetry.io/docs/specs/otlp/#otlphttp-throttling>.

use std::time::{Duration, Instant, SystemTime};

use chrono::DateTime;

/// The state of the attempts to send one payload.
pub struct Retry {
    start: Instant,
    max_elapsed_time: Option<Duration>,
    max_wait: Duration,
    next_wait: Duration,
    /// The sum of the waits that the destination asked for.
    requested_waits: Duration,
}

const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait for one `Retry-After`. A longer one is shortened to this.
const MAX_REQUESTED_WAIT: Duration = Duration::from_secs(300);
/// The most that all `Retry-After` waits for one payload may add up to.
const MAX_REQUESTED_WAITS: Duration = Duration::from_secs(3600);

impl Retry {
    /// Starts the clock. All attempts have to end within `max_elapsed_time`; `None` means no limit.
    /// A wait is longer than `max_wait` only if the destination asks for it.
    pub fn new(max_elapsed_time: Option<Duration>, max_wait: Duration) -> Self {
        let next_wait = FIRST_WAIT.min(max_wait);
        Self { start: Instant::now(), max_elapsed_time, max_wait, next_wait, requested_waits: Duration::ZERO }
    }

    /// Returns the wait before the next attempt, or `None` if there is no next attempt.
    /// `retry_after` is the wait that the destination asked for. `random` is between 0 and 1.
    ///
    /// A wait that the destination asked for does not count towards `max_elapsed_time`, because an
    /// earlier attempt would ignore the request. This wait is never shorter than the back-off, so
    /// that `Retry-After: 0` cannot cause a flood of requests.
    pub fn wait(&mut self, retry_after: Option<Duration>, random: f64) -> Option<Duration> {
        let wait = self.next_wait.mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0));
        self.next_wait = self.next_wait.saturating_mul(2).min(self.max_wait);
        if let Some(retry_after) = retry_after {
            let wait = wait.max(retry_after.min(MAX_REQUESTED_WAIT));
            self.requested_waits = self.requested_waits.saturating_add(wait);
            return (self.requested_waits <= MAX_REQUESTED_WAITS).then_some(wait);
        }
        match self.left() {
            Some(left) if wait >= left => None,
            _ => Some(wait),
        }
    }

    /// The time that is left for all further attempts. `None` means no limit.
    pub fn left(&self) -> Option<Duration> {
        self.max_elapsed_time.map(|limit| (limit + self.requested_waits).saturating_sub(self.start.elapsed()))
    }
}

/// Parses the value of `Retry-After`: a number of seconds, or a date.
pub fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(value).ok()?;
    Some(SystemTime::from(date).duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_with_jitter_and_end_with_the_budget() {
        let mut retry = Retry::new(Some(4 * SECOND), 30 * SECOND);
        assert_eq!(retry.wait(None, 0.5), Some(SECOND));
        assert_eq!(retry.wait(None, 0.0), Some(Duration::from_millis(1600)));
        assert_eq!(retry.wait(None, 0.5), None);
        assert_eq!(Retry::new(None, 30 * SECOND).wait(None, 1.0), Some(Duration::from_millis(1200)));
    }

    #[test]
    fn no_wait_grows_beyond_the_longest() {
        let mut retry = Retry::new(None, 3 * SECOND);
        let waits: Vec<_> = (0..100).map(|_| retry.wait(None, 0.5).unwrap()).collect();
        assert_eq!(waits[..3], [SECOND, 2 * SECOND, 3 * SECOND]);
        assert_eq!(waits[99], 3 * SECOND);
    }

    #[test]
    fn a_wait_that_was_asked_for_is_kept_even_beyond_the_budget_but_not_for_ever() {
        let mut retry = Retry::new(Some(SECOND), 30 * SECOND);
        assert_eq!(retry.wait(Some(60 * SECOND), 0.5), Some(60 * SECOND));
        assert!(retry.left().unwrap() > 60 * SECOND);
        let waits: Vec<_> = std::iter::from_fn(|| retry.wait(Some(Duration::MAX), 0.5)).collect();
        assert_eq!(waits, [MAX_REQUESTED_WAIT; 11]);
    }

    #[test]
    fn asking_for_no_wait_at_all_is_answered_with_back_off() {
        let mut retry = Retry::new(Some(SECOND), 30 * SECOND);
        assert_eq!(retry.wait(Some(Duration::ZERO), 0.5), Some(SECOND));
        assert_eq!(retry.wait(Some(Duration::ZERO), 0.5), Some(2 * SECOND));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        assert_eq!(parse_retry_after(" 120 ", now), Some(Duration::from_secs(120)));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        for nonsense in ["", "soon", "-1", "1.5"] {
            assert_eq!(parse_retry_after(nonsense, now), None, "{nonsense}");
        }
    }
}
