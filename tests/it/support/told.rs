//! The places where the program says a sentence about its settings: standard error, the status, and
//! `cruddur check`.

use serde_json::Value;

use super::program::{Program, Setup};
use super::{SOON, wait_until};

/// Variables of a program.
pub(crate) type Env<'a> = &'a [(&'a str, &'a str)];

/// Requests to other machines go to this proxy address, on which no program listens.
pub(crate) const NOWHERE: (&str, &str) = ("HTTPS_PROXY", "http://127.0.0.1:9");

/// Starts a program with these settings, and without the console.
pub(crate) fn start(toml: &str, env: Env<'_>) -> Program {
    let quiet: Setup = Program::setup().toml(&format!("[console]\nenabled = false\n{toml}"));
    env.iter().fold(quiet, |setup, (name, value)| setup.env(name, value)).start()
}

/// Checks that the sentence is shown before anything is sent.
#[track_caller]
pub(crate) fn told_at_start(toml: &str, env: Env<'_>, sentence: &str) {
    let program = start(toml, env);
    program.wait_for_stderr(sentence);
    assert!(status_says(&program, sentence), "not in the status: {sentence}\n{:#}", status(&program));
    checked(toml, env, sentence);
}

/// Checks that the sentence is shown when the first trace is sent.
#[track_caller]
pub(crate) fn told_when_sent(toml: &str, env: Env<'_>, sentence: &str) {
    let program = start(toml, env);
    program.get("/api/activities/home");
    program.wait_for_stderr(sentence);
    assert!(wait_until(SOON, || status_says(&program, sentence)), "{sentence}\n{:#}", status(&program));
    assert_eq!(program.stderr().matches(sentence).count(), 1, "said more than once:\n{}", program.stderr());
    checked(toml, env, sentence);
}

/// Checks that `cruddur check` shows the sentence.
#[track_caller]
pub(crate) fn checked(toml: &str, env: Env<'_>, sentence: &str) {
    let exit = Program::run_to_end(&["check"], env, Some(&format!("[console]\nenabled = false\n{toml}")));
    assert!(exit.stdout.contains(sentence), "not in the check: {sentence}\n{}{}", exit.stdout, exit.stderr);
}

/// The status of a program.
pub(crate) fn status(program: &Program) -> Value {
    program.get("/telemetry/status").json()
}

/// True if a text of the status contains the sentence.
pub(crate) fn status_says(program: &Program, sentence: &str) -> bool {
    fn says(value: &Value, sentence: &str) -> bool {
        match value {
            Value::String(text) => text.contains(sentence),
            Value::Array(values) => values.iter().any(|value| says(value, sentence)),
            Value::Object(fields) => fields.values().any(|value| says(value, sentence)),
            _ => false,
        }
    }
    says(&status(program), sentence)
}
