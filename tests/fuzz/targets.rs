//! Fuzz targets: for every input that comes from outside, what holds whatever the input is. A target
//! panics if a promise is broken.
//!
//! Targets that need private functions are child modules of the modules that they test. They exist
//! only in tests and under a fuzzer (`cfg(fuzzing)`), so that nothing becomes public for them.

#[path = "property.rs"]
mod settings;
#[path = "targets/trace_context.rs"]
pub(crate) mod trace_context;

use std::time::{Duration, SystemTime};

use crate::wire::retry::{Retry, parse_retry_after};
use crate::{backends, http, wire};

/// Takes any input. Panics if a promise is broken.
pub type Target = fn(&[u8]);

/// All targets, by name. `corpus/NAME` has the inputs that `cargo test` repeats.
pub const TARGETS: &[(&str, Target)] = &[
    ("activities", activities),
    ("aws_answers", wire::aws_credentials::fuzz::answers),
    ("aws_files", wire::aws_credentials::fuzz::files),
    ("cloudwatch_answers", backends::cloudwatch_logs::fuzz::answers),
    ("json_bodies", http::fuzz::json_bodies),
    ("otlp_answers", backends::otlp_http::fuzz::answers),
    ("requests", http::fuzz::requests),
    ("retry_after", retry_after),
    ("settings", |content| drop(settings::holds(content))),
    ("trace_context", trace_context::headers),
    ("xray_otlp_answers", backends::xray_otlp::fuzz::answers),
    ("xray_rules", backends::xray_udp::fuzz::rules),
];

/// Returns the target `name`.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// The text has no control characters: it cannot begin another line of a log or of a head, nor move
/// the cursor of a terminal.
#[track_caller]
pub(crate) fn assert_one_line(text: &str, max_length: usize) {
    assert!(!text.chars().any(char::is_control), "control characters in {text:?}");
    assert!(text.len() <= max_length, "{} bytes: {text:?}", text.len());
}

/// Splits the input at the first line end.
pub(crate) fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[]),
    }
}

/// Reads input that begins with a status and the value of all headers, `301 https://elsewhere`, and
/// goes on with the body.
pub(crate) fn reply(input: &[u8]) -> wire::http::Reply {
    let (line, rest) = first_line(input);
    let line = String::from_utf8_lossy(line);
    let (status, header) = line.split_once(' ').unwrap_or((&line, ""));
    // The HTTP client lets no other characters through.
    let header: String = header.chars().filter(|c| *c == '\t' || !c.is_control()).collect();
    let headers = if header.is_empty() { "" } else { &format!("location: {header}\r\nx-amzn-errortype: {header}\r\n") };
    wire::http::Reply {
        status: status.parse().ok().filter(|status| (100..1000).contains(status)).unwrap_or(200),
        head: format!("HTTP/1.1 200 OK\r\n{headers}\r\n"),
        retry_after: header.parse().ok().map(Duration::from_secs),
        body: rest.to_vec(),
        ..wire::http::Reply::default()
    }
}

/// `Retry-After`: a wait is bounded, never shorter than the back-off, and read as it is written.
fn retry_after(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let parsed = parse_retry_after(&text, now);
    if let Some(wait) = parsed {
        assert_eq!(parse_retry_after(&wait.as_secs().to_string(), now), Some(Duration::from_secs(wait.as_secs())));
    }
    let mut retry = Retry::new(Some(Duration::from_secs(10)), Duration::from_secs(30));
    let mut total = Duration::ZERO;
    for _ in 0..5 {
        let Some(wait) = retry.wait(parsed, 0.5) else { return };
        assert!((Duration::from_secs(1)..=Duration::from_secs(300)).contains(&wait), "{wait:?}");
        total += wait;
    }
    assert!(parsed.is_some() || total < Duration::from_secs(10), "{total:?}");
}

/// Activities of another instance: what is read is written as an equal text.
fn activities(input: &[u8]) {
    use crate::activities::Activity;
    use crate::text::json::{Json, WriteJson as _};
    let Ok(activities) = serde_json::from_slice::<Vec<Activity>>(input) else { return };
    let write = |activities: &[Activity]| {
        let mut json = Json::default();
        activities.write(&mut json);
        String::from_utf8(json.into_bytes()).expect("JSON is UTF-8")
    };
    let written = write(&activities);
    let again: Vec<Activity> = serde_json::from_str(&written).expect("what was written is read");
    assert_eq!(write(&again), written);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::panic::catch_unwind;
    use std::path::{Path, PathBuf};

    use super::*;

    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz");

    fn entries(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }

    #[test]
    fn every_input_of_the_corpora_keeps_the_promises() {
        let mut broken = Vec::new();
        for (name, target) in TARGETS {
            let inputs = entries(&Path::new(FOLDER).join("corpus").join(name));
            assert!(inputs.len() >= 5, "only {} inputs for {name}", inputs.len());
            for input in inputs {
                let content = fs::read(&input).expect("an input");
                if catch_unwind(|| target(&content)).is_err() {
                    broken.push(input);
                }
            }
        }
        assert!(broken.is_empty(), "{broken:#?}");
    }

    #[test]
    fn every_corpus_belongs_to_a_target() {
        let corpora = entries(&Path::new(FOLDER).join("corpus"));
        for name in corpora.iter().filter_map(|path| path.file_name()?.to_str()) {
            assert!(target(name).is_some(), "there is no target {name}");
        }
    }
}
