//! Runs every command of the lessons in `docs/tour`, and of two parts of README.md, its beginning
//! and its report of `cruddur check`, and compares what it prints with the text.
//!
//! A block marked `console` holds commands and their output. A command follows `$ `, and `> ` on
//! its further lines. `...` stands for what differs each time, in a line or for whole lines.
//!
//! `cruddur`, with variables in front and options behind, starts a server. `nc -l` is a server too:
//! it prints what it receives. A server runs until the next one starts on its port, or until the
//! lesson ends. A block marked `console server` is what it prints meanwhile; `^C` in it ends the
//! server. Its standard output is a terminal without colours. These blocks are about port 4567; `console server 4568` is about a second server. Both
//! ports stand for free ones.

#![cfg(unix)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use crate::support::{Answer, Client, Connections, Program, SOON, Setup, TempDir, Terminal, XRayDaemon, wait_until};

macro_rules! lessons {
    ($($test:ident: $file:expr),* $(,)?) => {
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
    lesson_9_two_processes: "9-two-processes.md",
    lesson_10_the_same_bytes_signed: "10-the-same-bytes-signed.md",
    solutions_of_the_exercises: SOLUTIONS,
}

const SOLUTIONS: &str = "solutions.md";
/// Files without commands.
const NOT_RUN: [&str; 2] = ["README.md", "glossary.md"];

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");
/// Settings that another lesson may have left in the directory.
const LEFT_BEHIND: &str = "[console]\nenabled = false\n[xray]\nenabled = true\n";
/// Width of the terminal on which a server prints.
const COLUMNS: u16 = 100;
/// Ports of the servers in the lessons. The first is that of a server without `--listen`.
const PORTS: [&str; 2] = ["4567", "4568"];

#[test]
fn every_lesson_is_run_and_has_commands_and_a_place_in_the_list() {
    let folder = Path::new(PROJECT).join("docs/tour");
    let list = fs::read_to_string(folder.join("README.md")).expect("the list of lessons");
    let mut found: Vec<String> = fs::read_dir(folder)
        .expect("the folder of the lessons")
        .map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    let mut expected = [FILES, &NOT_RUN].concat();
    expected.sort_unstable();
    assert_eq!(found, expected);
    for file in found.iter().filter(|file| *file != "README.md") {
        assert!(list.contains(&format!("]({file})")), "{file} is not in the list");
    }
    for file in FILES {
        let steps = Lesson::open(&format!("docs/tour/{file}")).steps.len();
        assert!(steps >= 3, "{file}: only {steps} commands");
    }
}

#[test]
fn every_lesson_has_a_solution_under_its_own_title() {
    let text = |file: &str| fs::read_to_string(Path::new(PROJECT).join("docs/tour").join(file)).expect("a file");
    let solutions = text(SOLUTIONS);
    for lesson in FILES.iter().filter(|file| **file != SOLUTIONS) {
        let lesson = text(lesson);
        let title = lesson.lines().next().unwrap_or_default();
        assert!(solutions.contains(&format!("\n#{title}\n")), "no solution under {title:?}");
    }
}

/// Compares the lines of the program that a block quotes, in Rust or in a diff, with the program.
#[test]
fn code_that_the_tour_quotes_is_in_the_program() {
    let handlers = fs::read_dir(Path::new(PROJECT).join("src/activities")).expect("the handlers");
    let handlers = handlers.map(|entry| fs::read_to_string(entry.expect("a file").path()).expect("a handler"));
    let without_indents = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let handlers: Vec<String> = handlers.map(|text| without_indents(&text)).collect();
    let mut quotes = Vec::new();
    for file in FILES {
        let text = fs::read_to_string(Path::new(PROJECT).join("docs/tour").join(file)).expect("a lesson");
        let blocks = |mark: &str| text.split(mark).skip(1).map(|rest| before(rest, "\n```").to_owned()).collect();
        let (rust, diffs): (Vec<String>, Vec<String>) = (blocks("\n```rust\n"), blocks("\n```diff\n"));
        quotes.extend(rust);
        for hunk in diffs.iter().flat_map(|diff| diff.split("\n@@").skip(1)) {
            let old = hunk.lines().skip(1).filter_map(|line| line.strip_prefix([' ', '-']));
            quotes.push(old.collect::<Vec<_>>().join("\n"));
        }
    }
    assert!(quotes.len() >= 4, "{quotes:#?}");
    for quote in quotes {
        assert!(handlers.iter().any(|text| text.contains(&without_indents(&quote))), "not in the program:\n{quote}");
    }
}

fn before<'a>(text: &'a str, end: &str) -> &'a str {
    text.split(end).next().unwrap_or_default()
}

/// In a clone of the project, with the settings that it ships.
#[test]
fn the_readme_starts_as_it_says() {
    let lesson = Lesson::of_section("README.md", None);
    assert!(lesson.steps.len() >= 3, "its beginning has commands");
    lesson.copy_settings();
    lesson.run();
}

/// With the settings that the project ships and X-Ray switched on, but without its daemon.
#[test]
fn the_readme_shows_what_check_prints() {
    let mut lesson = Lesson::of_section("README.md", Some("Test the settings"));
    assert_eq!(lesson.steps.len(), 1, "it has one command");
    let settings = lesson.copy_settings();
    // The daemon's port stands for a free one too: a daemon may run on this machine.
    lesson.places[1].written = "127.0.0.1:2000".to_owned();
    let text = lesson.as_run(&fs::read_to_string(&settings).expect("the settings"));
    let (before, xray) = text.split_once("\n[xray]\nenabled = false\n").expect("X-Ray is off");
    fs::write(&settings, format!("{before}\n[xray]\nenabled = true\n{xray}")).expect("the settings");
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

/// A lesson while it runs.
struct Lesson {
    file: String,
    steps: Vec<Step>,
    dir: TempDir,
    /// Places of the servers, in the order of [`PORTS`].
    places: [Place; 2],
}

/// Place of one server.
struct Place {
    /// Address in the lesson.
    written: String,
    /// Address in this test.
    addr: SocketAddr,
    server: Option<Server>,
}

enum Server {
    Cruddur(Program),
    Netcat(Netcat),
}

/// `nc -l`: prints what it receives, and sends nothing.
struct Netcat {
    received: Arc<Mutex<String>>,
    _connections: Connections,
}

struct Step {
    line: usize,
    what: What,
    expected: Vec<String>,
}

enum What {
    Command(String),
    /// The server at this place prints the expected lines.
    ServerPrints(usize),
    /// `^C` ends the server at this place.
    Interrupt(usize),
}

impl Lesson {
    fn open(file: &str) -> Self {
        Self::new(file, &fs::read_to_string(Path::new(PROJECT).join(file)).expect("the lesson"))
    }

    /// The section under a heading, or the part before the first heading. Line numbers in messages
    /// are those of the section.
    fn of_section(file: &str, heading: Option<&str>) -> Self {
        let text = fs::read_to_string(Path::new(PROJECT).join(file)).expect("the file");
        let mut sections = text.split("\n## ");
        let section = match heading {
            None => sections.next(),
            Some(heading) => sections.find(|section| section.lines().next() == Some(heading)),
        };
        Self::new(file, section.unwrap_or_else(|| panic!("{file} has no section {heading:?}")))
    }

    fn new(file: &str, text: &str) -> Self {
        let dir = TempDir::new();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).expect("a directory");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cruddur"), bin.join("cruddur")).expect("a link");
        let work = dir.path().join("work");
        fs::create_dir(&work).expect("a directory");
        fs::write(work.join("telemetry.toml"), LEFT_BEHIND).expect("the settings of another lesson");
        let places = PORTS.map(|port| Place {
            written: format!("127.0.0.1:{port}"),
            addr: XRayDaemon::free_addr(),
            server: None,
        });
        Self { file: file.to_owned(), steps: steps(text), dir, places }
    }

    /// Copies the settings that the project ships, and returns their path.
    fn copy_settings(&self) -> PathBuf {
        let work = self.dir.path().join("work");
        fs::create_dir_all(work.join("aws/json")).expect("a directory");
        for file in ["telemetry.toml", "aws/json/xray.json"] {
            fs::copy(Path::new(PROJECT).join(file), work.join(file)).expect("a copy");
        }
        work.join("telemetry.toml")
    }

    fn run(mut self) {
        for step in std::mem::take(&mut self.steps) {
            match &step.what {
                What::Command(command) if command.starts_with("curl ") => self.check(&step, &self.curl(command)),
                What::Command(command) if command.starts_with("nc -l ") => {
                    let place = place_of(command);
                    self.places[place].server = Some(Server::Netcat(Netcat::listen(self.places[place].addr)));
                    self.server_prints(&step, place);
                }
                What::Command(command) => match self.server_setup(command) {
                    Some((place, setup)) => self.start(&step, place, setup),
                    None => self.check(&step, &self.shell(command, "")),
                },
                What::ServerPrints(place) => self.server_prints(&step, *place),
                What::Interrupt(place) => self.interrupt(&step, *place),
            }
        }
    }

    fn check(&self, step: &Step, output: &str) {
        let output = self.as_written(output);
        let actual: Vec<String> = output.trim_end().lines().map(|line| line.trim_end().to_owned()).collect();
        assert!(matches(&step.expected, &actual), "{}", self.difference(step, &output));
    }

    fn difference(&self, step: &Step, actual: &str) -> String {
        let (file, line, expected) = (&self.file, step.line, step.expected.join("\n"));
        format!("{file}:{line}\n--- the lesson says\n{expected}\n--- it printed\n{actual}\n---")
    }

    /// Replaces the addresses of this test by those of the lesson.
    fn as_written(&self, text: &str) -> String {
        self.places.iter().fold(text.to_owned(), |text, place| text.replace(&place.addr.to_string(), &place.written))
    }

    /// Replaces the addresses of the lesson by those of this test.
    fn as_run(&self, text: &str) -> String {
        self.places.iter().fold(text.to_owned(), |text, place| text.replace(&place.written, &place.addr.to_string()))
    }

    /// Reads `NAME=value cruddur --option`, the start of a server, and returns the place of the
    /// server with its setup. Returns `None` for any other command.
    fn server_setup(&self, command: &str) -> Option<(usize, Setup)> {
        // README.md writes the command that needs no program in `PATH`.
        let command = if command == "cargo run --release" { "cruddur" } else { command };
        let mut words = words(command).into_iter().peekable();
        let (mut setup, mut place) = (Program::setup(), 0);
        while let Some((name, value)) = words.peek().and_then(|word| word.split_once('=')) {
            setup = setup.env(name, self.as_run(value));
            words.next();
        }
        let is_serve = |word: &String| ["serve", "--config", "--listen", "--notifications-url"].contains(&&**word);
        let is_server = words.next()? == "cruddur" && words.peek().is_none_or(is_serve);
        if !is_server || command.contains(['|', ';', '&']) {
            return None;
        }
        while let Some(word) = words.next() {
            if word == "--listen" {
                place = place_of(&words.next().expect("an address"));
            } else {
                setup = setup.arg(&self.as_run(&word));
            }
        }
        Some((place, setup.env("CRUDDUR_LISTEN", self.places[place].addr)))
    }

    fn start(&mut self, step: &Step, place: usize, setup: Setup) {
        // The old server ends first: it has the port.
        self.places[place].server = None;
        let terminal = Terminal::of_width(COLUMNS);
        let server = setup.current_dir(&self.dir.path().join("work")).stdout_on(&terminal).start();
        self.places[place].server = Some(Server::Cruddur(server));
        self.server_prints(step, place);
    }

    /// Waits until one of the server's streams has the expected lines.
    fn server_prints(&self, step: &Step, place: usize) {
        let server = self.places[place].server.as_ref().expect("a server was started before");
        let mut printed = String::new();
        let done = wait_until(SOON, || {
            let streams = match server {
                Server::Cruddur(program) => vec![program.stdout(), program.stderr()],
                Server::Netcat(netcat) => vec![netcat.text()],
            };
            printed = streams.join("--- on stderr\n");
            step.expected.is_empty() || streams.iter().any(|text| self.is_in(step, text))
        });
        assert!(done, "{}", self.difference(step, &self.as_written(&printed)));
    }

    fn interrupt(&mut self, step: &Step, place: usize) {
        let Some(Server::Cruddur(program)) = self.places[place].server.take() else {
            panic!("{}:{}: no cruddur was started before", self.file, step.line)
        };
        let exit = program.interrupt();
        let printed = format!("{}--- on stderr\n{}", exit.stdout, exit.stderr);
        assert_eq!(exit.status.code(), Some(0), "{printed}");
        assert!(self.is_in(step, &exit.stderr), "{}", self.difference(step, &printed));
    }

    fn is_in(&self, step: &Step, text: &str) -> bool {
        let anything = ["...".to_owned()];
        let expected = [&anything[..], &step.expected, &anything].concat();
        let text = self.as_written(text);
        matches(&expected, &text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>())
    }

    /// Does what `curl` does, as far as the lessons need it, so that a machine without it can run
    /// them. The shell runs what follows a pipe.
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
                    panic!("{}: curl {option} is not supported here", self.file)
                }
                _ => url = Some(word),
            }
        }
        let url = url.expect("a URL");
        let (host, path) = url.strip_prefix("http://").and_then(|url| url.split_once('/')).expect("a URL with a path");
        let mut headers: Vec<_> = headers.iter().map(|header| header.split_once(": ").expect("a header")).collect();
        headers.extend([("Host", host), ("User-Agent", "curl/8.5.0")]);
        let mut client = Client::connect(self.places[place_of(host)].addr);
        let answer = client.request("GET", &format!("/{path}"), &headers, b"");
        let output = printed(&answer, include);
        match rest {
            Some(rest) => self.shell(rest, &output),
            None => output,
        }
    }

    /// Returns what a command prints on both streams. The command ends by itself.
    fn shell(&self, command: &str, input: &str) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("exec 2>&1\n{}", self.as_run(command))])
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

impl Netcat {
    fn listen(addr: SocketAddr) -> Self {
        let received = Arc::<Mutex<String>>::default();
        let text = Arc::clone(&received);
        let listener = TcpListener::bind(addr).expect("a free port");
        let connections = Connections::serve(listener, move |mut stream| {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { received, _connections: connections }
    }

    fn text(&self) -> String {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Returns the place of the server whose port ends the text.
fn place_of(text: &str) -> usize {
    let place = PORTS.iter().position(|port| text.ends_with(port));
    place.unwrap_or_else(|| panic!("{text:?} ends with none of the ports {PORTS:?}"))
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

/// Returns the steps of a lesson in their order.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut in_block, mut goes_on, mut place) = (false, false, 0);
    for (line, text) in text.lines().enumerate().map(|(index, text)| (index + 1, text.trim_end())) {
        let step = |what| Step { line, what, expected: Vec::new() };
        match text.strip_prefix("```") {
            Some("console") if !in_block => in_block = true,
            Some(mark) if !in_block && mark.starts_with("console server") => {
                (in_block, place) = (true, if mark == "console server" { 0 } else { place_of(mark) });
                steps.push(step(What::ServerPrints(place)));
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
                    // A block that begins with it prints nothing before.
                    steps.retain(|step| !matches!(step.what, What::ServerPrints(_)) || !step.expected.is_empty());
                    steps.push(step(What::Interrupt(place)));
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
