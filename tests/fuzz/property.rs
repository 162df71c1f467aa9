//! The property that holds for every content of telemetry.toml: there is no panic. The result is
//! either usable settings, or an error in one line with its position.

#![allow(unreachable_pub, reason = "`pub` marks what tests may use; a test binary has no other outside")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use cruddur::backends::{self, BACKENDS};
use cruddur::settings::{Env, Findings, Settings, Sources, known_tables};
use cruddur::text::Message;

fn read(content: &[u8]) -> (Result<(), Message>, Vec<String>) {
    match Sources::from_content("telemetry.toml".as_ref(), content.to_vec(), Env::default())
        .and_then(|sources| said(&sources))
    {
        Ok(said) => (Ok(()), said),
        Err(error) => (Err(error), Vec::new()),
    }
}

fn said(sources: &Sources) -> Result<Vec<String>, Message> {
    let mut findings = Findings::default();
    let (settings, values) = Settings::read(sources, None, "an-instance", &mut findings)?;
    let plans = backends::plans(sources, &settings)?;
    let tables = BACKENDS.iter().map(|plugin| plugin.section.name);
    sources.refuse_unknown_tables(&known_tables().into_iter().chain(tables).collect::<Vec<_>>())?;
    let mut said: Vec<String> = findings.into_vec().iter().map(ToString::to_string).collect();
    said.extend(values.iter().map(|value| value.shown.clone()));
    for plan in plans {
        said.extend(plan.findings.iter().map(ToString::to_string));
        said.extend([plan.reason, plan.destination]);
        said.extend(plan.values.iter().map(|value| value.shown.clone()));
    }
    Ok(said)
}

/// True for `telemetry.toml:12: ` or `telemetry.toml:12:3: `, if the line exists in the file.
fn has_a_place(error: &str, lines: usize) -> bool {
    let Some(rest) = error.strip_prefix("telemetry.toml:") else { return false };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    rest[digits..].starts_with(':') && rest[..digits].parse().is_ok_and(|line| (1..=lines + 1).contains(&line))
}

/// Returns whether the content is valid, and all messages about it. Panics if the property does not
/// hold.
#[track_caller]
pub fn holds(content: &[u8]) -> (bool, Vec<String>) {
    let shown = || String::from_utf8_lossy(content);
    let read = catch_unwind(AssertUnwindSafe(|| read(content)));
    let (result, said) = read.unwrap_or_else(|_| panic!("a panic over:\n{}", shown()));
    let lines = content.iter().filter(|byte| **byte == b'\n').count() + 1;
    if let Err(error) = &result {
        let error = error.to_string();
        assert!(has_a_place(&error, lines), "no place in {error:?} over:\n{}", shown());
        assert!(!error.contains(['\n', '\u{1b}']), "{error:?} is no line, over:\n{}", shown());
    }
    let good = result.is_ok();
    (good, said.into_iter().chain(result.err().map(|error| error.to_string())).collect())
}
