//! When to try again: exponential back-off with jitter inside a budget, and `Retry-After` above all.
//!
//! ```text
//! try   1        2            3                        4
//!       |--1 s---|----2 s-----|----------4 s-----------|   each wait +-20 %, so that a thousand clients
//!       |<------------------ budget, 10 s ------------------->|   do not come back in the same instant
//! ```
//!
//! One exception: a connection that broke before any answer came is opened again at once, a single time. A server that
//! was restarted, or that closed an idle connection a moment ago, costs nothing that way.
//!
//! Specification: <https://opentelemetry.io/docs/specs/otlp/#otlphttp-throttling>.

use std::time::{Duration, Instant, SystemTime};

use chrono::DateTime;

/// The tries of one payload.
pub struct Retry {
    began: Instant,
    budget: Option<Duration>,
    longest_wait: Duration,
    next_wait: Duration,
    held: Duration,
}

const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest that one `Retry-After` is believed.
const MAX_HOLD: Duration = Duration::from_secs(300);
/// The longest that a destination may keep one payload waiting by `Retry-After`, in all.
const MAX_HOLDS: Duration = Duration::from_secs(3600);

impl Retry {
    /// All tries have to end within `budget`, none means no limit; no wait is longer than `longest_wait`, unless the
    /// destination asks for it.
    #[must_use]
    pub fn new(budget: Option<Duration>, longest_wait: Duration) -> Self {
        let next_wait = FIRST_WAIT.min(longest_wait);
        Self { began: Instant::now(), budget, longest_wait, next_wait, held: Duration::ZERO }
    }

    /// How long to wait before the next try; `None` when there is none. `random` is between 0 and 1.
    ///
    /// A wait that the destination asked for does not count against the budget: trying sooner is what it asked us not
    /// to do. It is never shorter than the back-off: `Retry-After: 0` is no invitation to a storm.
    pub fn wait(&mut self, asked: Option<Duration>, random: f64) -> Option<Duration> {
        let wait = self.next_wait.mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0));
        self.next_wait = self.next_wait.saturating_mul(2).min(self.longest_wait);
        if let Some(asked) = asked {
            let wait = wait.max(asked.min(MAX_HOLD));
            self.held = self.held.saturating_add(wait);
            return (self.held <= MAX_HOLDS).then_some(wait);
        }
        match self.left() {
            Some(left) if wait >= left => None,
            _ => Some(wait),
        }
    }

    /// What is left of the budget; `None` means no limit.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        self.budget.map(|budget| (budget + self.held).saturating_sub(self.began.elapsed()))
    }
}

/// `Retry-After`: seconds, or a date.
#[must_use]
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
        assert_eq!(waits, [MAX_HOLD; 11]);
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
