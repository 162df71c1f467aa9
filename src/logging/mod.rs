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
use crate::delivery::LineTaker;
use crate::trace::current;

pub use line::LogLine;

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// The one logger: standard error first, then every backend that takes lines.
struct Logger {
    stderr: env_logger::Logger,
    pipe: Pipe,
    takers: OnceLock<Takers>,
}

struct Takers {
    takers: Vec<LineTaker>,
    /// The names of the backends: lines about them are not for them.
    backends: Vec<&'static str>,
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
    let logger = LOGGER.get_or_init(|| Logger { stderr, pipe, takers: OnceLock::new() });
    log::set_logger(logger).map_err(io::Error::other)?;
    log::set_max_level(level);
    Ok(())
}

/// Log lines go to these backends too, from here on. `backends` are the names of all there are.
pub fn send_lines_to(takers: Vec<LineTaker>, backends: Vec<&'static str>) {
    let Some(logger) = LOGGER.get() else { return };
    let _ = logger.takers.set(Takers { takers, backends });
    levels_have_changed();
}

/// To be called when backends take other lines than before.
pub fn levels_have_changed() {
    let Some(logger) = LOGGER.get() else { return };
    let levels = logger.takers.get().into_iter().flat_map(|takers| takers.takers.iter().map(LineTaker::level));
    log::set_max_level(levels.fold(logger.stderr.filter(), Ord::max));
}

/// What this thread logs goes to standard error only: the lines of an exporter about its own work would make more work.
pub fn keep_to_stderr() {
    KEEP_TO_STDERR.set(true);
}

/// The lines that this thread logs are kept from here on, beside being written.
pub fn keep_lines() {
    KEPT.set(Some(Vec::new()));
}

/// The lines that were kept since [`keep_lines`]; no more are.
#[must_use]
pub fn take_kept_lines() -> Vec<Arc<LogLine>> {
    KEPT.take().unwrap_or_default()
}

thread_local! {
    static KEEP_TO_STDERR: Cell<bool> = const { Cell::new(false) };
    static KEPT: RefCell<Option<Vec<Arc<LogLine>>>> = const { RefCell::new(None) };
}

/// Lines of one request that are kept.
const MOST_KEPT: usize = 64;

fn are_kept() -> bool {
    KEPT.with_borrow(|kept| kept.as_ref().is_some_and(|kept| kept.len() < MOST_KEPT))
}

fn keep(line: &Arc<LogLine>) {
    KEPT.with_borrow_mut(|kept| kept.iter_mut().for_each(|kept| kept.push(Arc::clone(line))));
}

impl Logger {
    fn takers_of(&self, metadata: &Metadata<'_>) -> Option<&Takers> {
        let takers = self.takers.get()?;
        if !takers.takers.iter().any(|taker| taker.wants(metadata.level())) {
            return None;
        }
        let target = metadata.target();
        let module = target.split("::").next().unwrap_or(target);
        let is_ours =
            takers.backends.contains(&target) || ["ureq", "ureq_proto", "rustls", "tiny_http"].contains(&module);
        (!is_ours && !KEEP_TO_STDERR.get()).then_some(takers)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.stderr.enabled(metadata) || self.takers_of(metadata).is_some()
    }

    fn log(&self, record: &Record<'_>) {
        // They log every byte of every request and the query of every URL, keys and tokens among them.
        if record.target().starts_with("ureq_proto") || record.target() == "ureq::run" {
            return;
        }
        self.stderr.log(record);
        let takers = self.takers_of(record.metadata());
        let is_kept = are_kept() && self.stderr.matches(record);
        if takers.is_some() || is_kept {
            let line = Arc::new(LogLine::of(record));
            takers.iter().flat_map(|takers| &takers.takers).for_each(|taker| taker.take(&line));
            if is_kept {
                keep(&line);
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

/// Waits until all lines are written, but not longer than `patience`: perhaps nobody reads them.
pub fn flush(patience: Duration) {
    if let Some(logger) = LOGGER.get() {
        logger.pipe.flush_within(patience);
    }
}
