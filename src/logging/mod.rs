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

mod line;
mod pipe;

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use env_logger::Target;
use log::{LevelFilter, Log, Metadata, Record};

use self::pipe::Pipe;
use crate::trace::current;

pub use line::LogLine;

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// The one logger: standard error first, then every backend that takes lines.
struct Logger {
    stderr: env_logger::Logger,
    pipe: Pipe,
    sinks: OnceLock<Sinks>,
}

struct Sinks {
    sinks: Vec<Box<dyn LogSink>>,
    /// Lines with these targets go to no sink.
    excluded_targets: Vec<&'static str>,
}

/// Receives log lines beside standard error, for instance for the queue of a backend.
pub trait LogSink: Send + Sync {
    /// The least important level that the sink takes at the moment.
    fn level(&self) -> LevelFilter;

    /// Takes a line of that level or above.
    fn send(&self, line: &Arc<LogLine>);
}

/// Log lines go to standard error from here on. `RUST_LOG` says which; without it, `info` and above.
///
/// # Errors
///
/// The system has no thread left, or somebody else has set a logger.
pub fn init() -> io::Result<()> {
    let pipe = Pipe::start()?;
    let filter = std::env::var("RUST_LOG").ok().filter(|filter| !filter.trim().is_empty());
    let stderr = env_logger::Builder::new()
        // Its one message at the end, that nothing can be accepted any more, is what we asked for.
        .filter_module("tiny_http", LevelFilter::Off)
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
        .build();
    let level = stderr.filter();
    let logger = LOGGER.get_or_init(|| Logger { stderr, pipe, sinks: OnceLock::new() });
    log::set_logger(logger).map_err(io::Error::other)?;
    log::set_max_level(level);
    Ok(())
}

/// Sends log lines to these sinks too, from here on, except those whose target is one of
/// `excluded_targets`: what a backend logs about itself would make more work for backends.
pub fn set_sinks(sinks: Vec<Box<dyn LogSink>>, excluded_targets: Vec<&'static str>) {
    let Some(logger) = LOGGER.get() else { return };
    let _ = logger.sinks.set(Sinks { sinks, excluded_targets });
    levels_have_changed();
}

/// To be called when the level of a sink has changed.
pub fn levels_have_changed() {
    let Some(logger) = LOGGER.get() else { return };
    let levels = logger.sinks.get().into_iter().flat_map(|sinks| sinks.sinks.iter().map(|sink| sink.level()));
    log::set_max_level(levels.fold(logger.stderr.filter(), Ord::max));
}

/// What this thread logs goes to standard error only: the lines of an exporter about its own work would make more work.
pub fn keep_to_stderr() {
    KEEP_TO_STDERR.set(true);
}

/// Collects the lines that this thread logs, beside their being written, until it is dropped.
pub struct Capture(());

impl Capture {
    /// Begins to collect.
    #[must_use]
    pub fn start() -> Self {
        CAPTURED.set(Some(Vec::new()));
        Self(())
    }

    /// The lines so far, at most [`MAX_CAPTURED`].
    #[must_use]
    pub fn finish(self) -> Vec<Arc<LogLine>> {
        CAPTURED.take().unwrap_or_default()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        CAPTURED.set(None);
    }
}

thread_local! {
    static KEEP_TO_STDERR: Cell<bool> = const { Cell::new(false) };
    static CAPTURED: RefCell<Option<Vec<Arc<LogLine>>>> = const { RefCell::new(None) };
}

/// Lines of one request that are kept.
const MAX_CAPTURED: usize = 64;

fn is_capturing() -> bool {
    CAPTURED.with_borrow(|lines| lines.as_ref().is_some_and(|lines| lines.len() < MAX_CAPTURED))
}

fn capture(line: &Arc<LogLine>) {
    CAPTURED.with_borrow_mut(|lines| lines.iter_mut().for_each(|lines| lines.push(Arc::clone(line))));
}

impl Logger {
    fn sinks_for(&self, metadata: &Metadata<'_>) -> Option<&Sinks> {
        let sinks = self.sinks.get()?;
        if !sinks.sinks.iter().any(|sink| metadata.level() <= sink.level()) {
            return None;
        }
        let target = metadata.target();
        let module = target.split("::").next().unwrap_or(target);
        let is_excluded =
            sinks.excluded_targets.contains(&target) || ["ureq", "ureq_proto", "rustls", "tiny_http"].contains(&module);
        (!is_excluded && !KEEP_TO_STDERR.get()).then_some(sinks)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.stderr.enabled(metadata) || self.sinks_for(metadata).is_some()
    }

    fn log(&self, record: &Record<'_>) {
        // They log every byte of every request and the query of every URL, keys and tokens among them.
        if record.target().starts_with("ureq_proto") || record.target() == "ureq::run" {
            return;
        }
        self.stderr.log(record);
        let sinks = self.sinks_for(record.metadata());
        let is_captured = is_capturing() && self.stderr.matches(record);
        if sinks.is_some() || is_captured {
            let line = Arc::new(LogLine::of(record));
            let wants = |sink: &&Box<dyn LogSink>| record.level() <= sink.level();
            sinks.iter().flat_map(|sinks| &sinks.sinks).filter(wants).for_each(|sink| sink.send(&line));
            if is_captured {
                capture(&line);
            }
        }
    }

    fn flush(&self) {}
}

/// Puts lines for people on standard error, whatever `RUST_LOG` says, in order with the log lines.
pub fn say(text: &str) {
    let line = format!("{text}\n");
    let _ = match LOGGER.get() {
        Some(logger) => logger.pipe.clone().write_all(line.as_bytes()),
        None => io::stderr().write_all(line.as_bytes()),
    };
}

/// Waits until all lines are written, but not longer than `timeout`: perhaps nobody reads them.
pub fn flush(timeout: Duration) {
    if let Some(logger) = LOGGER.get() {
        logger.pipe.flush_within(timeout);
    }
}
