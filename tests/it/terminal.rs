//! What a user sees in a terminal: the real binary on a pseudo-terminal, and its screens compared
//! with `tests/golden/terminal`. `cat` shows these files. Without a terminal, and with `NO_COLOR`,
//! there are no control sequences.

#![cfg(unix)]

mod golden;
mod picture;

use std::time::Duration;

use cruddur::http::routes::ROUTES;
use serde_json::json;

use crate::support::{
    Cell, Client, CloudWatch, Collector, Exit, Program, Reply, SOON, Screen, Setup, TempDir, Terminal, Trick,
    XRayDaemon,
};

const ESCAPE: char = '\u{1b}';
const WIDTHS: [u16; 2] = [80, 120];
const CRAB: &str = "🦀 日本語 ❤\u{fe0f}";

/// A program on a terminal with colours.
fn setup() -> Setup {
    Program::setup().env("TERM", "xterm-256color")
}

/// Settings in the working directory, so that their path is short.
fn with_settings(toml: &str) -> (Setup, TempDir) {
    let dir = TempDir::new();
    dir.write("telemetry.toml", toml);
    (setup().current_dir(dir.path()), dir)
}

/// Calls `request`, and returns the screen with the lines that the program then prints on standard
/// output.
fn screen_of(terminal: &Terminal, columns: u16, request: impl FnOnce() -> Vec<String>) -> Screen {
    let before = terminal.output().bytes().len();
    for trace_id in request() {
        wait_for_trace(terminal, &trace_id);
    }
    Screen::after(&terminal.output().bytes()[before..], columns)
}

fn wait_for_trace(terminal: &Terminal, trace_id: &str) {
    let line = format!("trace {trace_id}");
    let is_printed = |text: &str| text.split_once(&line).is_some_and(|(_, rest)| rest.contains('\n'));
    assert!(terminal.output().wait_for(SOON, is_printed), "no {line} in {}", terminal.output().text());
}

/// Requests each path, and returns the ids of the traces.
fn get(program: &Program, paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| program.get(path).trace_id().to_owned()).collect()
}

fn post(program: &Program, path: &str, json: &str) -> String {
    Client::connect(program.addr()).post(path, json).trace_id().to_owned()
}

#[test]
fn a_trace_is_a_line_a_span_that_fits_the_terminal() {
    for columns in WIDTHS {
        let terminal = Terminal::of_width(columns);
        let program = setup().stdout_on(&terminal).start();
        for (name, path) in [
            ("home", "/api/activities/home"),
            ("user", "/api/activities/@andrewbrown"),
            ("not-found", "/api/nothing"),
            ("failure", "/api/fail"),
        ] {
            let screen = screen_of(&terminal, columns, || get(&program, &[path]));
            golden::check(&format!("{name}-{columns}"), columns, &screen);
        }
        let emoji = screen_of(&terminal, columns, || {
            let message = format!(r#"{{"user_receiver_handle":"worf","message":"{CRAB}"}}"#);
            let mut traces = vec![post(&program, "/api/messages", &message)];
            traces.extend(get(&program, &["/api/activities/@%F0%9F%A6%80%E6%97%A5%E6%9C%AC%E8%AA%9E"]));
            traces
        });
        golden::check(&format!("emoji-{columns}"), columns, &emoji);
    }
}

#[test]
fn two_services_print_their_parts_of_one_trace() {
    for columns in WIDTHS {
        let [ours, theirs] = [Terminal::of_width(columns), Terminal::of_width(columns)];
        let callee = setup().stdout_on(&theirs).start();
        let url = format!("http://{}", callee.addr());
        let caller = setup().env("NOTIFICATIONS_URL", url).env("NOTIFICATIONS_TIMEOUT", 4000).stdout_on(&ours).start();
        let trace = get(&caller, &["/api/activities/notifications"]);
        wait_for_trace(&ours, &trace[0]);
        wait_for_trace(&theirs, &trace[0]);
        let both = [ours.output().bytes(), theirs.output().bytes()].concat();
        golden::check(&format!("two-services-{columns}"), columns, &Screen::after(&both, columns));
    }
}

#[test]
fn no_line_of_a_tree_wraps_on_any_route_and_any_width() {
    let long = "%F0%9F%A6%80%E6%97%A5%E6%9C%AC%E8%AA%9E%E2%9D%A4%EF%B8%8F-a-long-name".repeat(6);
    let path = |pattern: &str| match pattern.split_once('{') {
        Some((before, rest)) => format!("{before}{long}{}", rest.split_once('}').expect("a closing brace").1),
        None => pattern.to_owned(),
    };
    for columns in [40, 80, 120, 200] {
        let terminal = Terminal::of_width(columns);
        let program = setup().stdout_on(&terminal).start();
        for route in ROUTES.iter().filter(|route| route.traced) {
            let path = path(route.pattern);
            let message = format!(r#"{{"user_receiver_handle":"worf","message":"{CRAB}","ttl":"1-hour"}}"#);
            let trace = match route.method {
                "POST" => post(&program, &path, &message),
                _ => program.get(&path).trace_id().to_owned(),
            };
            wait_for_trace(&terminal, &trace);
        }
        let unknown = program.get(&format!("/nothing/{long}")).trace_id().to_owned();
        wait_for_trace(&terminal, &unknown);
        let screen = terminal.screen();
        assert!(!screen.has_wrapped_line, "{columns} columns:\n{}", screen.text());
    }
}

#[test]
fn a_window_of_another_size_gets_lines_that_fit() {
    let terminal = Terminal::of_width(120);
    let program = setup().stdout_on(&terminal).start();
    let wide = screen_of(&terminal, 120, || get(&program, &["/api/activities/home"]));
    terminal.resize(60);
    let narrow = screen_of(&terminal, 60, || get(&program, &["/api/activities/home"]));
    assert!(!narrow.has_wrapped_line, "{}", narrow.text());
    assert!(wide.text().contains("app.result_length=3") && narrow.text().contains('…'), "{}", narrow.text());
}

#[test]
fn full_has_every_attribute_on_a_line() {
    let terminal = Terminal::of_width(80);
    let (setup, _dir) = with_settings("[console]\nformat = \"full\"\n");
    let program = setup.stdout_on(&terminal).start();
    let screen = screen_of(&terminal, 80, || get(&program, &["/api/activities/@andrewbrown", "/api/fail"]));
    for line in [
        "  │ http.request.method = GET",
        "  │ http.response.status_code = 200",
        "    │ app.user_handle = andrewbrown",
        "      panic: this route fails on purpose, at src/http/routes.rs:",
    ] {
        assert!(screen.text().lines().any(|shown| shown.starts_with(line)), "no {line:?} in\n{}", screen.text());
    }
    assert!(screen.text().contains("namespace.key = {now="), "{}", screen.text());
}

#[test]
fn the_start_is_in_columns_that_fit_and_says_what_to_do_next() {
    for columns in WIDTHS {
        let terminal = Terminal::of_width(columns);
        let (setup, _dir) = with_settings("[honeycomb]\nenabled = true\n");
        let program = setup.on(&terminal).start();
        program.wait_for_stderr("may call the");
        program.wait_for_stderr("API");
        let screen = terminal.screen();
        assert!(!screen.has_wrapped_line, "{}", screen.text());
        golden::check(&format!("start-{columns}"), columns, &screen);
    }
}

/// A check with one backend that is fine, one that refuses, and one that never answers.
struct Checked {
    _honeycomb: Collector,
    _xray: XRayDaemon,
    cloudwatch: CloudWatch,
    dir: TempDir,
}

impl Checked {
    fn new() -> Self {
        Self::within(3000)
    }

    /// The backend that never answers has so many milliseconds.
    fn within(timeout: u32) -> Self {
        let (honeycomb, xray) = (Collector::start([Reply::Hang]), XRayDaemon::start());
        xray.set_rules(&[json!({
            "RuleName": "Cruddur", "Priority": 9000, "FixedRate": 0.0, "ReservoirSize": 0, "ServiceName": "backend-flask",
            "ServiceType": "*", "Host": "*", "HTTPMethod": "*", "URLPath": "*", "ResourceARN": "*", "Version": 1,
            "Attributes": {},
        })]);
        let toml = format!(
            "[honeycomb]\nenabled = true\nendpoint = \"{}\"\ntimeout = {timeout}\n[xray]\nenabled = true\n\
             daemon_address = \"{}\"\n[cloudwatch]\nenabled = true\nlog_stream = \"here\"\n",
            honeycomb.url(),
            xray.addr()
        );
        let dir = TempDir::new();
        dir.write("telemetry.toml", &toml);
        let cloudwatch = CloudWatch::start();
        cloudwatch.play(9, Trick::error("InvalidParameterException", "Log event too large"));
        Self { _honeycomb: honeycomb, _xray: xray, cloudwatch, dir }
    }

    fn command(&self) -> Setup {
        let setup = setup().arg("check").current_dir(self.dir.path()).env("AWS_REGION", "us-east-1");
        let setup = setup.env("AWS_ACCESS_KEY_ID", CloudWatch::KEY_ID).env("AWS_SECRET_ACCESS_KEY", CloudWatch::SECRET);
        setup.env("AWS_ENDPOINT_URL", self.cloudwatch.url())
    }

    fn wait_for_two(&self, program: &Program) {
        program.wait_for_stdout("NOT ACCEPTED");
        program.wait_for_stdout("answered  \u{1b}[0mnothing from udp");
        program.wait_for_stdout("1 of 3 s");
    }
}

/// Sorts the reports on the backends, which depend on who is quicker. The heading stays the first,
/// and what is below the reports the last.
fn in_alphabetical_order(screen: Screen) -> Screen {
    let mut blocks: Vec<_> = screen.rows.split(Vec::is_empty).map(<[_]>::to_vec).collect();
    let end = blocks.len() - 1;
    blocks[1..end].sort_by_key(|rows| rows[0].iter().map(|cell| cell.text.clone()).collect::<String>());
    Screen { rows: blocks.join(&Vec::new()), ..screen }
}

#[test]
fn a_check_shows_what_it_waits_for_and_ends_with_a_report() {
    let checked = Checked::new();
    for columns in WIDTHS {
        let terminal = Terminal::of_width(columns);
        let program = checked.command().on(&terminal).start_command();
        checked.wait_for_two(&program);
        golden::check(&format!("check-waits-{columns}"), columns, &in_alphabetical_order(terminal.screen()));
        let exit = program.wait();
        assert_eq!(exit.status.code(), Some(1));
        assert!(exit.took < Duration::from_secs(5), "{:?}", exit.took);
        let screen = terminal.screen();
        assert!(!screen.text().contains("waiting for"), "{}", screen.text());
        golden::check(&format!("check-{columns}"), columns, &in_alphabetical_order(screen));
    }
}

#[test]
fn ctrl_c_ends_a_check_at_once_with_what_is_known() {
    let checked = Checked::new();
    let terminal = Terminal::of_width(80);
    let program = checked.command().on(&terminal).start_command();
    checked.wait_for_two(&program);
    let exit = program.interrupt();
    assert_eq!(exit.status.code(), Some(130));
    assert!(exit.took < Duration::from_secs(1), "{:?}", exit.took);
    let text = terminal.screen().text();
    for part in
        ["honeycomb  NOT KNOWN", "xray       accepted", "Interrupted. Not known: honeycomb. Failed: cloudwatch."]
    {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains("waiting for"), "{text}");
}

#[test]
fn a_check_without_a_terminal_prints_the_quickest_backend_first() {
    let checked = Checked::new();
    let program = checked.command().start_command();
    program.wait_for_stdout("NOT ");
    program.wait_for_stdout("nothing from udp");
    let early = program.stdout();
    assert!(!early.contains("honeycomb  ") && early.ends_with('\n'), "{early}");
    let exit = program.wait();
    let at = |part: &str| exit.stdout.find(part).unwrap_or_else(|| panic!("no {part:?} in {}", exit.stdout));
    assert!(at("\ncloudwatch ") < at("\nhoneycomb ") && at("\nxray ") < at("\nhoneycomb "), "{}", exit.stdout);
    assert!(!exit.stdout.contains([ESCAPE, '\r']) && !exit.stdout.contains("waiting for"), "{}", exit.stdout);
}

#[test]
fn no_color_a_dumb_terminal_and_never_give_no_control_sequence() {
    let checked = Checked::within(1500);
    for (name, value, args) in
        [("NO_COLOR", "1", &[][..]), ("TERM", "dumb", &[]), ("CLICOLOR", "0", &[]), ("X", "", &["--color", "never"])]
    {
        let with = |setup: Setup| args.iter().fold(setup.env(name, value), |setup, arg| setup.arg(arg));
        let terminal = Terminal::of_width(80);
        let program = with(setup().on(&terminal)).start();
        get(&program, &["/api/activities/home", "/api/fail"]).iter().for_each(|trace| wait_for_trace(&terminal, trace));
        drop(program);
        let printed = terminal.output().text();
        assert!(!printed.contains(ESCAPE) && printed.contains("✕ └ fail-on-purpose"), "{name}: {printed}");
    }
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let terminal = Terminal::of_width(80);
        let program = checked.command().env(name, value).on(&terminal).start_command();
        program.wait_for_stdout("honeycomb  waiting for an answer, at most 1 s");
        program.wait();
        let printed = terminal.output().text();
        assert!(!printed.contains(ESCAPE), "{name}: {printed}");
    }
}

#[test]
fn a_pipe_gets_no_control_sequence_unless_it_is_asked_for() {
    let commands: [&[&str]; 5] = [&["--help"], &["explain"], &["check"], &["init"], &["explain", "nothing"]];
    let printed = |Exit { stdout, stderr, .. }: Exit| stdout + &stderr;
    for args in commands {
        let run = |more: &[&str], env: &[(&str, &str)]| printed(Program::run_to_end(&[more, args].concat(), env, None));
        let plain = run(&[], &[("TERM", "xterm-256color")]);
        assert!(!plain.contains(ESCAPE), "{plain}");
        let coloured = [run(&["--color", "always"], &[]), run(&[], &[("CLICOLOR_FORCE", "1")])];
        assert!(coloured.iter().all(|text| text.contains(ESCAPE) || args == ["init"]), "{args:?}: {coloured:?}");
        assert!(!run(&["--color", "never"], &[("CLICOLOR_FORCE", "1")]).contains(ESCAPE), "{args:?}");
    }
    let program = setup().start();
    program.get("/api/fail");
    program.wait_for_stdout("fail-on-purpose");
    let exit = program.terminate();
    assert!(!exit.stdout.contains(ESCAPE) && !exit.stderr.contains(ESCAPE), "{}{}", exit.stdout, exit.stderr);

    let program = Program::setup().arg("--color=always").start();
    program.get("/api/fail");
    program.wait_for_stdout("\u{1b}[1m\u{1b}[31m! fail-on-purpose\u{1b}[0m  ");
    program.wait_for_stderr("\u{1b}[1m\u{1b}[31mERROR\u{1b}[0m access: ");
}

/// The picture in the README is drawn from a screen of the real program.
#[test]
fn the_readme_shows_what_the_terminal_shows() {
    const COLUMNS: u16 = 100;
    let terminal = Terminal::of_width(COLUMNS);
    let (setup, _dir) = with_settings(include_str!("../../telemetry.toml"));
    let program = setup.on(&terminal).start();
    for path in ["/api/activities/home", "/api/fail"] {
        get(&program, &[path]).iter().for_each(|trace| wait_for_trace(&terminal, trace));
    }
    let mut screen = golden::check("readme", COLUMNS, &terminal.screen());
    screen.rows.iter_mut().for_each(with_default_port);
    picture::check("docs/terminal.svg", "cargo run --release", COLUMNS, &screen);
}

/// Writes the default port in place of the free one, which is the only number of five digits behind
/// a colon.
fn with_default_port(row: &mut Vec<Cell>) {
    let text: Vec<&str> = row.iter().map(|cell| cell.text.as_str()).collect();
    let is_digit = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_port = |at: &usize| text[*at] == ":" && text[at + 1..].iter().take_while(|text| is_digit(text)).count() == 5;
    let Some(at) = (0..text.len()).find(is_port) else { return };
    let cell = |digit: &str| Cell { text: digit.to_owned(), ..row[at + 1].clone() };
    let port = ["4", "5", "6", "7"].map(cell);
    row.splice(at + 1..at + 6, port);
}
