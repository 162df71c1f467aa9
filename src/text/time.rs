//! Times as RFC 3339 text: `2023-02-20T02:30:00.001000Z`. The text stays on the stack, because a
//! request writes a dozen of them.

use std::fmt;
use std::ops::Deref;

use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};

/// A time as text.
pub(crate) struct TimeText {
    bytes: [u8; MAX],
    length: usize,
}

/// Longest text: a year of six digits and a sign, and `+00:00`.
const MAX: usize = 40;

/// Writes a time with milliseconds and `Z`: `2023-02-20T02:30:00.001Z`.
pub(crate) fn millis(time: DateTime<Utc>) -> TimeText {
    write(time, 3, "Z")
}

/// Writes a time with microseconds and `Z`: `2023-02-20T02:30:00.001000Z`.
pub(crate) fn micros(unix_nanos: u64) -> TimeText {
    write(DateTime::from_timestamp_nanos(i64::try_from(unix_nanos).unwrap_or(i64::MAX)), 6, "Z")
}

/// Writes a time with microseconds and an offset: `2023-02-20T02:30:00.001000+00:00`.
pub(crate) fn micros_with_offset(time: DateTime<Utc>) -> TimeText {
    write(time, 6, "+00:00")
}

fn write(time: DateTime<Utc>, decimals: usize, zone: &str) -> TimeText {
    let (date, clock) = (time.naive_utc().date(), time.naive_utc().time());
    let (year, nanos) = (date.year(), clock.nanosecond());
    if !(0..=9999).contains(&year) || nanos >= 1_000_000_000 {
        return rare(time, decimals, zone);
    }
    let mut text = TimeText { bytes: [0; MAX], length: SECONDS + 1 + decimals };
    text.bytes[..TEMPLATE.len()].copy_from_slice(TEMPLATE);
    let (year, micros) = (year as u32, nanos / 1000);
    let pairs = [
        (0, year / 100),
        (2, year % 100),
        (5, date.month()),
        (8, date.day()),
        (11, clock.hour()),
        (14, clock.minute()),
        (17, clock.second()),
        (20, micros / 10_000),
        (22, micros / 100 % 100),
        (24, micros % 100),
    ];
    for (place, number) in pairs {
        text.bytes[place] = b'0' + (number / 10) as u8;
        text.bytes[place + 1] = b'0' + (number % 10) as u8;
    }
    text.push(zone);
    text
}

const TEMPLATE: &[u8] = b"0000-00-00T00:00:00.000000";
/// Length up to the seconds.
const SECONDS: usize = 19;

/// Writes a leap second, or a year that has not four digits.
#[cold]
fn rare(time: DateTime<Utc>, decimals: usize, zone: &str) -> TimeText {
    let format = if decimals == 3 { SecondsFormat::Millis } else { SecondsFormat::Micros };
    let mut text = TimeText { bytes: [0; MAX], length: 0 };
    text.push(&time.to_rfc3339_opts(format, zone == "Z"));
    text
}

impl TimeText {
    fn push(&mut self, part: &str) {
        self.bytes[self.length..self.length + part.len()].copy_from_slice(part.as_bytes());
        self.length += part.len();
    }
}

impl Deref for TimeText {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).expect("only ASCII was written")
    }
}

impl AsRef<[u8]> for TimeText {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Display for TimeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_is_written_as_chrono_does() {
        let step = 12_345_678_901_234_567;
        let nanos = (0..700).map(|n| n * step).chain([0, 1, 999, 1_676_860_200_000_000_000]);
        let years = [-5000, -1, 0, 9999, 10_000, 200_000].map(|year| {
            chrono::NaiveDate::from_ymd_opt(year, 2, 28).unwrap().and_hms_milli_opt(23, 59, 59, 1999).unwrap().and_utc()
        });
        for time in nanos.map(DateTime::from_timestamp_nanos).chain(years) {
            assert_eq!(*millis(time), time.to_rfc3339_opts(SecondsFormat::Millis, true));
            assert_eq!(*micros_with_offset(time), time.to_rfc3339_opts(SecondsFormat::Micros, false));
            if let Some(nanos) = time.timestamp_nanos_opt().and_then(|nanos| u64::try_from(nanos).ok()) {
                let whole = DateTime::from_timestamp_nanos(nanos as i64);
                assert_eq!(*micros(nanos), whole.to_rfc3339_opts(SecondsFormat::Micros, true));
            }
        }
    }
}
