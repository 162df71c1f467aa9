//! What real deployments send, in one table per kind of fault: answers of programs that are no
//! receivers, values as shells and env files leave them, paths as other servers see them, sampling
//! rules in all their formats, and services that are older than AWS's. Each row says what happens
//! on the wire, and the sentence that start-up, `cruddur check` and the status show. A right value
//! has no sentence.

mod answers;
mod log_services;
mod paths;
mod rules;
mod values;

use crate::support::{Exit, Program};

const HOME: &str = "/api/activities/home";
const HONEYCOMB: &str = "[honeycomb]\nenabled = true\nschedule_delay = 50\n";

/// The findings of the start-up lines, without the one about `FRONTEND_URL`.
fn findings(stderr: &str) -> Vec<&str> {
    let is_finding = |line: &&str| ["  note: ", "  warning: ", "  error: "].iter().any(|start| line.starts_with(start));
    let lines = stderr.lines().filter(is_finding);
    lines.filter(|line| !line.contains("FRONTEND_URL is not set") && !line.contains("has no effect")).collect()
}

/// Runs `cruddur check` without the console.
fn check(toml: &str, env: &[(&str, &str)]) -> Exit {
    Program::run_to_end(&["check"], env, Some(&format!("[console]\nenabled = false\n{toml}")))
}
