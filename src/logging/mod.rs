//! The other half of stage 2: log lines, each with the ids of the span it was written in.
//!
//! ```text
//! 2026-11-22T23:57:13.123Z INFO  access: [2026-Nov-22 23:57] 127.0.0.1 GET http /api/activities/home 200 OK
//!     trace_id=4efaaf4d1e8720b39541901950019ee5 span_id=53995c3f42cd8ad8       (all on one line)
//! ```
//!
//! The names `trace_id` and `span_id` are those of OpenTelemetry's convention for plain text logs.
//!
//! Specification: <https://opentelemetry.io/docs/specs/otel/compatibility/logging_trace_context/>.

mod pipe;

use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use env_logger::Target;

use self::pipe::Pipe;
use crate::trace::current;

static STDERR: OnceLock<Pipe> = OnceLock::new();

/// Log lines go to standard error from here on. `RUST_LOG` says which; without it, `info` and above.
///
/// # Errors
///
/// The system has no thread left.
pub fn init() -> io::Result<()> {
    let pipe = Pipe::start()?;
    let filter = std::env::var("RUST_LOG").ok().filter(|filter| !filter.trim().is_empty());
    env_logger::Builder::new()
        // Its one message at the end, that nothing can be accepted any more, is what we asked for.
        .filter_module("tiny_http", log::LevelFilter::Off)
        .parse_filters(filter.as_deref().unwrap_or("info"))
        .target(Target::Pipe(Box::new(pipe.clone())))
        .format(|out, record| {
            let time = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
            write!(out, "{time} {:<5} {}: {}", record.level(), record.target(), record.args())?;
            if let Some(current) = current::span() {
                write!(out, " trace_id={} span_id={}", current.trace_id, current.span_id)?;
            }
            writeln!(out)
        })
        .init();
    let _ = STDERR.set(pipe);
    Ok(())
}

/// Puts lines for people on standard error, whatever `RUST_LOG` says, in order with the log lines.
pub fn say(text: &str) {
    let line = format!("{text}\n");
    let _ = match STDERR.get() {
        Some(pipe) => pipe.clone().write_all(line.as_bytes()),
        None => io::stderr().write_all(line.as_bytes()),
    };
}

/// Waits until all lines are written, but not longer than `patience`: perhaps nobody reads them.
pub fn flush(patience: Duration) {
    if let Some(pipe) = STDERR.get() {
        pipe.flush_within(patience);
    }
}
