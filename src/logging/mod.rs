//! The second half of stage 2: log lines, each with the ids of the span that was current.
//!
//! ```text
//! 2026-11-22T23:57:13.123Z INFO  access: [2026-Nov-22 23:57] 127.0.0.1 GET http
//!     /api/activities/home 200 OK
//!     trace_id=4efaaf4d1e8720b39541901950019ee5 span_id=53995c3f42cd8ad8       (all on one line)
//! ```
//!
//! The names `trace_id` and `span_id` come from OpenTelemetry's convention for plain text logs.
//!
//! Specification: <https://opentelemetry.io/docs/specs/otel/compatibility/logging_trace_context/>.

mod line;
mod pipe;

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::Utc;
use env_logger::Target;
use log::{Level, LevelFilter, Log, Metadata, Record};

use self::pipe::Pipe;
use crate::settings::Env;
use crate::terminal::{Sequences, Terminal};
use crate::text::time;
use crate::trace::current;

pub use line::LogLine;

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// The logger of the program. It writes each line to standard error first, then to the sinks.
struct Logger {
    stderr: env_logger::Logger,
    pipe: Pipe,
    sinks: OnceLock<Sinks>,
}

struct Sinks {
    sinks: Vec<Box<dyn LogSink>>,
    /// The targets whose lines are sent to no sink.
    excluded_targets: Vec<&'static str>,
}

/// A receiver of log lines in addition to standard error, for instance the queue of a backend.
pub trait LogSink: Send + Sync {
    /// The least severe level that the sink accepts now.
    fn level(&self) -> LevelFilter;

    /// Receives a line of that level or a more severe one.
    fn send(&self, line: &Arc<LogLine>);
}

/// Starts to write log lines to standard error. `RUST_LOG` selects the lines. Without it, they are
/// those of `info` and more severe levels.
///
/// # Errors
///
/// Returns an error if the system has no thread left, or if another logger is already set.
pub fn init() -> io::Result<()> {
    let pipe = Pipe::start()?;
    let env = Env::from_process();
    let filter = env.get("RUST_LOG");
    let sequences = Sequences::new(&terminal().palette);
    let stderr = env_logger::Builder::new()
        // tiny_http logs that it can accept no more connections. At shutdown that is intended.
        .filter_module("tiny_http", LevelFilter::Off)
        .parse_filters(filter.unwrap_or("info"))
        .target(Target::Pipe(Box::new(pipe.clone())))
        .format(move |out, record| {
            let level = record.level().as_str();
            let padding = if level.len() < 5 { "  " } else { " " };
            let [begin, end] = match record.level() {
                Level::Error => &sequences.error,
                Level::Warn => &sequences.warning,
                Level::Info => &sequences.ok,
                Level::Debug | Level::Trace => &sequences.dim,
            };
            let [dim, plain] = &sequences.dim;
            let time = time::millis(Utc::now());
            put(out, &[dim, &time, plain, " ", begin, level, end, padding, record.target(), ": "])?;
            write!(out, "{}", record.args())?;
            if let Some(current) = current::span() {
                let (trace_id, span_id) = (current.trace_id.hex(), current.span_id.hex());
                put(out, &[dim, " trace_id=", trace_id.as_str(), " span_id=", span_id.as_str(), plain])?;
            }
            put(out, &["\n"])
        })
        .build();
    let level = stderr.filter();
    let logger = LOGGER.get_or_init(|| Logger { stderr, pipe, sinks: OnceLock::new() });
    log::set_logger(logger).map_err(io::Error::other)?;
    log::set_max_level(level);
    Ok(())
}

/// Returns what standard error can show.
pub fn terminal() -> Terminal {
    Terminal::of(&io::stderr())
}

fn put(out: &mut impl Write, parts: &[&str]) -> io::Result<()> {
    // Without colours, some parts are empty.
    parts.iter().filter(|part| !part.is_empty()).try_for_each(|part| out.write_all(part.as_bytes()))
}

/// Starts to send log lines to these sinks too, except lines whose target is in `excluded_targets`.
/// If a backend received log lines about its own work, sending them would cause more such lines.
pub fn set_sinks(sinks: Vec<Box<dyn LogSink>>, excluded_targets: Vec<&'static str>) {
    let Some(logger) = LOGGER.get() else { return };
    let _ = logger.sinks.set(Sinks { sinks, excluded_targets });
    update_max_level();
}

/// Updates the maximum level of the `log` crate. Call it when the level of a sink has changed.
pub fn update_max_level() {
    let Some(logger) = LOGGER.get() else { return };
    let levels = logger.sinks.get().into_iter().flat_map(|sinks| sinks.sinks.iter().map(|sink| sink.level()));
    log::set_max_level(levels.fold(logger.stderr.filter(), Ord::max));
}

/// Keeps the log lines of this thread from all sinks: they are written to standard error only. An
/// exporter that sent lines about its own work would cause more such lines.
pub fn keep_to_stderr() {
    KEEP_TO_STDERR.set(true);
}

/// A guard that collects copies of the lines that this thread logs, until it is dropped.
#[must_use]
pub struct Capture(());

impl Capture {
    /// Starts to collect.
    pub fn start() -> Self {
        CAPTURED.set(Some(Vec::new()));
        Self(())
    }

    /// Returns the collected lines, at most `MAX_CAPTURED`.
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

/// The most lines that are kept for one request.
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
        let module = target.split(':').next().unwrap_or(target);
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
        // These targets log all bytes of each request and the query of each URL. They contain keys
        // and tokens.
        if record.target().starts_with("ureq_proto") || record.target() == "ureq::run" {
            return;
        }
        self.stderr.log(record);
        let sinks = self.sinks_for(record.metadata());
        let is_captured = is_capturing() && self.stderr.matches(record);
        if sinks.is_some() || is_captured {
            let line = Arc::new(LogLine::from_record(record));
            for sink in sinks.iter().flat_map(|sinks| &sinks.sinks) {
                if record.level() <= sink.level() {
                    sink.send(&line);
                }
            }
            if is_captured {
                capture(&line);
            }
        }
    }

    fn flush(&self) {}
}

/// Writes a text for the user to standard error, in order with the log lines. `RUST_LOG` has no
/// effect on it.
pub fn say(text: &str) {
    let line = format!("{text}\n");
    let _ = match LOGGER.get() {
        Some(logger) => logger.pipe.clone().write_all(line.as_bytes()),
        None => io::stderr().write_all(line.as_bytes()),
    };
}

/// Waits until all lines are written, but not longer than `timeout`, because the reader of standard
/// error may have stopped reading.
pub fn flush(timeout: Duration) {
    if let Some(logger) = LOGGER.get() {
        logger.pipe.flush_within(timeout);
    }
}
