//! Every command of the lessons in `docs/tour` and of README.md is run, and prints what the text
//! says.
//!
//! A block marked `console` contains commands and their output. A command begins with `$ `, and
//! `> ` continues it. `...` stands for text that differs in each run, within a line or for whole
//! lines. A command that is only `cruddur` starts the server, which runs until the next `cruddur`
//! command or the end of the lesson. A block marked `console server` is the server's output
//! meanwhile, and `^C` stops the server.

#![cfg(unix)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, io};

use crate::support::{Answer, Client, Program, SOON, Setup, TempDir, wait_until};

macro_rules! lessons {
    ($($test:ident: $file:literal),* $(,)?) => {
        const FILES: &[&str] = &[$($file),*];
        $(
            #[test]
            fn $test() {
                Lesson::open(&format!("docs/tour/{}", $file)).run();
            }
        )*
    };
}

lessons! {
    lesson_1_a_span_by_hand: "1-a-span-by-hand.md",
    lesson_2_context_on_the_wire: "2-context-on-the-wire.md",
    lesson_3_a_batch: "3-a-batch.md",
    lesson_4_otlp_json: "4-otlp-json.md",
    lesson_5_an_xray_segment: "5-an-xray-segment.md",
    lesson_6_a_signature: "6-a-signature.md",
    lesson_7_sampling: "7-sampling.md",
    lesson_8_when_it_breaks: "8-when-it-breaks.md",
}

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");
/// Settings that another lesson may have left in the directory.
const LEFT_BEHIND: &str = "[console]\nenabled = false\n[xray]\nenabled = true\n";
/// The server's address in the lessons. In this test it takes a free port instead.
const ADDRESS: &str = "localhost:4567";

#[test]
fn every_lesson_is_run_and_has_commands_and_a_place_in_the_list() {
    let folder = Path::new(PROJECT).join("docs/tour");
    let list = fs::read_to_string(folder.join("README.md")).expect("the list of lessons");
    let mut found: Vec<String> = fs::read_dir(folder)
        .expect("the folder of the lessons")
        .map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned())
        .filter(|name| name != "README.md")
        .collect();
    found.sort();
    assert_eq!(found, FILES);
    for file in FILES {
        assert!(list.contains(&format!("]({file})")), "{file} is not in the list");
        let steps = Lesson::open(&format!("docs/tour/{file}")).steps.len();
        assert!(steps >= 3, "{file}: only {steps} commands");
    }
}

/// Runs in a clone of the project, with the settings that it ships.
#[test]
fn the_readme_starts_as_it_says() {
    let lesson = Lesson::open("README.md");
    assert!(lesson.steps.len() >= 3, "its beginning has commands");
    let work = lesson.dir.path().join("work");
    fs::copy(Path::new(PROJECT).join("telemetry.toml"), work.join("telemetry.toml")).expect("the settings");
    fs::create_dir_all(work.join("aws/json")).expect("a directory");
    fs::copy(Path::new(PROJECT).join("aws/json/xray.json"), work.join("aws/json/xray.json")).expect("the rule");
    lesson.run();
}

#[test]
fn output_matches_only_where_the_dots_allow_it() {
    let lines = |text: &'static str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    for (expected, actual, fits) in [
        ("a", "a", true),
        ("a", "b", false),
        ("a", "a\nb", false),
        ("a\n...", "a\nb", true),
        ("...\nc", "a\nb\nc", true),
        ("...\nc", "a\nb", false),
        ("a...z", "abcz", true),
        ("a...z", "az", true),
        ("a...z", "a", false),
        ("...b...", "abc", true),
        ("a...b...c", "a c b", false),
        ("x\n...\nx", "x\nx\nx", true),
    ] {
        assert_eq!(matches(&lines(expected), &lines(actual)), fits, "{expected:?} {actual:?}");
    }
}

/// A lesson, and the state of its run.
struct Lesson {
    file: String,
    steps: Vec<Step>,
    dir: TempDir,
    server: Option<Program>,
}

struct Step {
    line: usize,
    what: What,
    expected: Vec<String>,
}

enum What {
    Command(String),
    ServerPrints,
    Interrupt,
}

impl Lesson {
    fn open(file: &str) -> Self {
        let text = fs::read_to_string(Path::new(PROJECT).join(file)).expect("the lesson");
        // Of README.md, only the part before its first heading.
        let text = if file == "README.md" { text.split("\n## ").next().unwrap_or_default() } else { &text };
        let dir = TempDir::new();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).expect("a directory");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cruddur"), bin.join("cruddur")).expect("a link");
        let work = dir.path().join("work");
        fs::create_dir(&work).expect("a directory");
        fs::write(work.join("telemetry.toml"), LEFT_BEHIND).expect("the settings of another lesson");
        Self { file: file.to_owned(), steps: steps(text), dir, server: None }
    }

    fn run(mut self) {
        for step in std::mem::take(&mut self.steps) {
            match &step.what {
                What::Command(command) if is_curl(command) => self.check(&step, &self.curl(command)),
                What::Command(command) => match server_setup(command) {
                    Some(setup) => self.start(&step, setup),
                    None => self.check(&step, &self.shell(command, "")),
                },
                What::ServerPrints => self.server_prints(&step),
                What::Interrupt => self.interrupt(&step),
            }
        }
    }

    fn check(&self, step: &Step, output: &str) {
        let actual: Vec<String> = output.trim_end().lines().map(|line| line.trim_end().to_owned()).collect();
        assert!(matches(&step.expected, &actual), "{}", self.difference(step, output));
    }

    fn difference(&self, step: &Step, actual: &str) -> String {
        let (file, line, expected) = (&self.file, step.line, step.expected.join("\n"));
        format!("{file}:{line}\n--- the lesson says\n{expected}\n--- it printed\n{actual}\n---")
    }

    fn start(&mut self, step: &Step, setup: Setup) {
        // The old server is stopped first, because both could need the same port of a daemon.
        self.server = None;
        self.server = Some(setup.current_dir(&self.dir.path().join("work")).start());
        self.server_prints(step);
    }

    /// Waits until one of the server's two streams contains these lines.
    fn server_prints(&self, step: &Step) {
        let server = self.server.as_ref().expect("a server was started before");
        let mut printed = String::new();
        let done = wait_until(SOON, || {
            let (stdout, stderr) = (server.stdout(), server.stderr());
            printed = format!("{stdout}--- on stderr\n{stderr}");
            step.expected.is_empty() || [stdout, stderr].iter().any(|text| self.is_in(step, text))
        });
        assert!(done, "{}", self.difference(step, &printed));
    }

    fn interrupt(&mut self, step: &Step) {
        let exit = self.server.take().expect("a server was started before").interrupt();
        let printed = format!("{}--- on stderr\n{}", exit.stdout, exit.stderr);
        assert_eq!(exit.status.code(), Some(0), "{printed}");
        assert!(self.is_in(step, &exit.stderr), "{}", self.difference(step, &printed));
    }

    fn is_in(&self, step: &Step, text: &str) -> bool {
        let anything = ["...".to_owned()];
        let expected = [&anything[..], &step.expected, &anything].concat();
        let port = self.server.as_ref().map(|server| server.addr().to_string());
        let text = port.map_or_else(|| text.to_owned(), |addr| text.replace(&addr, "127.0.0.1:4567"));
        matches(&expected, &text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>())
    }

    /// Implements the parts of `curl` that the lessons use, so that the test runs on a machine
    /// without it. The shell runs everything after a pipe.
    fn curl(&self, command: &str) -> String {
        let (curl, rest) = command.split_once(" | ").map_or((command, None), |(curl, rest)| (curl, Some(rest)));
        let (mut include, mut headers, mut url) = (false, Vec::new(), None);
        let mut words = words(curl).into_iter().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "-s" => {}
                "-i" => include = true,
                "-H" => headers.push(words.next().expect("a header")),
                option if option.starts_with('-') => {
                    panic!("{}: curl {option} is not spoken here", self.file)
                }
                _ => url = Some(word),
            }
        }
        let url = url.expect("a URL");
        let path = url.trim_start_matches("http://").strip_prefix(ADDRESS).expect("an address of the lesson's server");
        let server = self.server.as_ref().expect("a server was started before");
        let mut headers: Vec<_> = headers.iter().map(|header| header.split_once(": ").expect("a header")).collect();
        headers.extend([("Host", ADDRESS), ("User-Agent", "curl/8.5.0")]);
        let answer = Client::connect(server.addr()).request("GET", path, &headers, b"");
        let output = printed(&answer, include);
        match rest {
            Some(rest) => self.shell(rest, &output),
            None => output,
        }
    }

    /// Runs a command and returns its output on both streams. The command must end by itself.
    fn shell(&self, command: &str, input: &str) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("exec 2>&1\n{command}")])
            .env_clear()
            .env("PATH", format!("{}:{path}", self.dir.path().join("bin").display()))
            .current_dir(self.dir.path().join("work"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        match child.stdin.take().expect("it is piped").write_all(input.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => panic!("{error}"),
            _ => {}
        }
        let output = child.wait_with_output().expect("it ends");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn printed(answer: &Answer, include: bool) -> String {
    let mut text = String::new();
    if include {
        text.push_str(&format!("HTTP/1.1 {} {}\n", answer.status, answer.reason));
        for (name, value) in &answer.headers {
            text.push_str(&format!("{name}: {value}\n"));
        }
        text.push('\n');
    }
    text + &String::from_utf8_lossy(&answer.body)
}

fn is_curl(command: &str) -> bool {
    command.starts_with("curl ")
}

/// A setup for `NAME=value cruddur --option`, which starts a server; `None` for any other command.
fn server_setup(command: &str) -> Option<Setup> {
    // The command of README.md for starting the program from source.
    let command = if command == "cargo run --release" { "cruddur" } else { command };
    let mut words = words(command).into_iter().peekable();
    let mut setup = Program::setup();
    while let Some((name, value)) = words.peek().and_then(|word| word.split_once('=')) {
        setup = setup.env(name, value);
        words.next();
    }
    let args: Vec<String> = words.next().filter(|word| word == "cruddur").map(|_| words.collect())?;
    let is_serve = args.first().is_none_or(|first| first.starts_with("--config") || first == "serve");
    let is_simple = !command.contains(['|', ';', '&']);
    (is_serve && is_simple).then(|| args.iter().fold(setup, |setup, arg| setup.arg(arg)))
}

/// The words of a simple command, without their quotes.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    for c in command.chars() {
        match (quote, c) {
            (None, '\'' | '"') => (quote, begun) = (Some(c), true),
            (Some(open), _) if c == open => quote = None,
            (None, ' ') => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            _ => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

/// The steps of a lesson, in order.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut in_block, mut goes_on) = (false, false);
    for (line, text) in text.lines().enumerate().map(|(index, text)| (index + 1, text.trim_end())) {
        let step = |what| Step { line, what, expected: Vec::new() };
        match text.strip_prefix("```") {
            Some("console") if !in_block => in_block = true,
            Some("console server") if !in_block => {
                in_block = true;
                steps.push(step(What::ServerPrints));
            }
            Some(_) => in_block = false,
            None if !in_block => {}
            None => match (text.strip_prefix("$ "), text.strip_prefix("> "), steps.last_mut()) {
                (Some(command), _, _) => steps.push(step(What::Command(command.to_owned()))),
                (_, Some(more), Some(Step { what: What::Command(command), .. })) if goes_on => {
                    command.push('\n');
                    command.push_str(more);
                }
                (..) if text == "^C" => {
                    // If the block begins with `^C`, no output is expected before it.
                    steps.retain(|step| !matches!(step.what, What::ServerPrints) || !step.expected.is_empty());
                    steps.push(step(What::Interrupt));
                }
                (.., Some(step)) => step.expected.push(text.to_owned()),
                _ => panic!("line {line}: output before any command"),
            },
        }
        goes_on = text.starts_with("$ ") || (goes_on && text.starts_with("> "));
    }
    for step in &mut steps {
        while step.expected.last().is_some_and(String::is_empty) {
            step.expected.pop();
        }
    }
    steps
}

/// True if the lines are as expected. A line `...` matches any number of lines.
fn matches(expected: &[String], actual: &[String]) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((first, rest)) if first == "..." => (0..=actual.len()).any(|skip| matches(rest, &actual[skip..])),
        Some((first, rest)) => {
            actual.split_first().is_some_and(|(line, more)| line_matches(first, line) && matches(rest, more))
        }
    }
}

/// The same for the characters of a line.
fn line_matches(expected: &str, actual: &str) -> bool {
    let mut parts = expected.split("...");
    let Some(mut rest) = actual.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}
