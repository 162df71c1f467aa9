//! Kind 2: values as shells, env files, dashboards and web pages leave them.

use std::fs;

use super::{HOME, HONEYCOMB, check, findings};
use crate::support::told::{start, status_says};
use crate::support::{Collector, Program, SOON, TempDir, wait_until};

const TEAM: &str = "x-honeycomb-team";
const QUOTES: &str =
    "the quotes around its value are ignored; next: write the value without them (docker's env files keep quotes)";
const PLACEHOLDER: &str =
    "its value is a placeholder that was not filled in, so it is ignored; next: set it, or remove it";

/// What a batch shows about a value.
enum Sent {
    /// A header has this value; `None` if it is not sent.
    Header(&'static str, Option<&'static str>),
    /// The resource has this text.
    Resource(&'static str),
    /// The batch arrives.
    Anything,
    /// Nothing is sent.
    Nothing,
}
use Sent::{Anything, Header, Nothing, Resource};

/// Variables (URL is the address of the collector), what is sent, and the beginning of the only
/// finding. An empty one means that there is no finding.
type Row = (&'static [(&'static str, &'static str)], Sent, &'static str);

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "URL");

fn rows() -> Vec<Row> {
    let key = |sentence: &str| -> &'static str { format!("HONEYCOMB_API_KEY: {sentence}").leak() };
    let name = |sentence: &str| -> &'static str { format!("OTEL_SERVICE_NAME: {sentence}").leak() };
    vec![
        (&[ENDPOINT, ("HONEYCOMB_API_KEY", "\"abc\"")], Header(TEAM, Some("abc")), key(QUOTES)),
        (&[ENDPOINT, ("HONEYCOMB_API_KEY", "'abc'")], Header(TEAM, Some("abc")), key(QUOTES)),
        (&[ENDPOINT, ("HONEYCOMB_API_KEY", "“abc”")], Header(TEAM, Some("abc")), key(QUOTES)),
        (
            &[ENDPOINT, ("HONEYCOMB_API_KEY", "abc\r")],
            Header(TEAM, Some("abc")),
            key("the carriage return at its end is ignored; next: save the file with Unix line ends"),
        ),
        (
            &[ENDPOINT, ("HONEYCOMB_API_KEY", "\u{200b}abc\u{a0}")],
            Header(TEAM, Some("abc")),
            key("the invisible characters in it (U+200B) are ignored; next: type it instead of pasting it"),
        ),
        (&[ENDPOINT, ("HONEYCOMB_API_KEY", "${HONEYCOMB_API_KEY}")], Header(TEAM, None), key(PLACEHOLDER)),
        (&[ENDPOINT, ("HONEYCOMB_API_KEY", "$KEY")], Header(TEAM, None), key(PLACEHOLDER)),
        (&[ENDPOINT, ("HONEYCOMB_API_KEY", "%KEY%")], Header(TEAM, None), key(PLACEHOLDER)),
        (&[ENDPOINT, ("HONEYCOMB_API_KEY", "<your-key>")], Header(TEAM, None), key(PLACEHOLDER)),
        (&[ENDPOINT, ("HONEYCOMB_API_KEY", "changeme")], Header(TEAM, None), key(PLACEHOLDER)),
        (&[ENDPOINT, ("HONEYCOMB_API_KEY", "YOUR_API_KEY_HERE")], Header(TEAM, None), key(PLACEHOLDER)),
        (&[ENDPOINT, ("HONEYCOMB_API_KEY", "${{ secrets.KEY }}")], Header(TEAM, None), key(PLACEHOLDER)),
        (
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "\"URL\"")],
            Anything,
            "OTEL_EXPORTER_OTLP_ENDPOINT: the quotes around its value",
        ),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "HURL")], Anything, ""),
        (
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://us%40er:p%3Aw@ADDR")],
            Header("authorization", Some("Basic dXNAZXI6cDp3")),
            "",
        ),
        (
            &[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "x-honeycomb-team=\"abc\"")],
            Header(TEAM, Some("abc")),
            "OTEL_EXPORTER_OTLP_HEADERS: x-honeycomb-team: the quotes around its value are ignored",
        ),
        (
            &[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "x-honeycomb-team=<your-key>")],
            Header(TEAM, None),
            "OTEL_EXPORTER_OTLP_HEADERS: x-honeycomb-team is not sent, because its value has a placeholder that was not filled in",
        ),
        (&[ENDPOINT, ("OTEL_SERVICE_NAME", "'shop'")], Resource("shop"), name(QUOTES)),
        (&[ENDPOINT, ("OTEL_SERVICE_NAME", "${NAME}")], Resource("backend-flask"), name(PLACEHOLDER)),
        (&[ENDPOINT, ("OTEL_SERVICE_NAME", "shop-${STAGE}")], Resource("backend-flask"), name(PLACEHOLDER)),
        (
            &[ENDPOINT, ("OTEL_SERVICE_NAME", "\"shop")],
            Resource("\\\"shop"),
            name("its value begins with a quote that is not closed, and the quote is a part of it; next: remove it"),
        ),
        (
            &[ENDPOINT, ("OTEL_RESOURCE_ATTRIBUTES", "team=\"blue\"")],
            Resource("blue"),
            "OTEL_RESOURCE_ATTRIBUTES: team: the quotes around its value are ignored",
        ),
        (
            &[ENDPOINT, ("OTEL_RESOURCE_ATTRIBUTES", "team=${TEAM}")],
            Resource("backend-flask"),
            "OTEL_RESOURCE_ATTRIBUTES: its value is a placeholder",
        ),
        (
            &[ENDPOINT, ("OTEL_BSP_SCHEDULE_DELAY", "\"60\"")],
            Anything,
            "OTEL_BSP_SCHEDULE_DELAY: the quotes around its value",
        ),
        (&[ENDPOINT, ("OTEL_SDK_DISABLED", "'true'")], Nothing, "OTEL_SDK_DISABLED: the quotes around its value"),
        (
            &[ENDPOINT, ("CRUDDUR_PAGE_HOSTS", "\"backend\"")],
            Anything,
            "CRUDDUR_PAGE_HOSTS: the quotes around its value",
        ),
        (
            &[ENDPOINT, ("AWS_ACCESS_KEY_ID", "${AWS_ACCESS_KEY_ID}")],
            Anything,
            "AWS_ACCESS_KEY_ID: its value is a placeholder",
        ),
        (&[ENDPOINT, ("AWS_REGION", "us-east-1\r")], Anything, "AWS_REGION: the carriage return at its end is ignored"),
        (
            &[ENDPOINT, ("HTTPS_PROXY", "\"http://proxy:1\"")],
            Anything,
            "HTTPS_PROXY: its value has quotes, a placeholder",
        ),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://<collector>:4318")], Nothing, ""),
        // These are right.
        (&[ENDPOINT, ("HONEYCOMB_API_KEY", "hcaik_01h0$abc")], Header(TEAM, Some("hcaik_01h0$abc")), ""),
        (&[ENDPOINT, ("OTEL_SERVICE_NAME", "todo")], Resource("todo"), ""),
        (&[ENDPOINT, ("OTEL_SERVICE_NAME", "Andrew's shop")], Resource("Andrew's shop"), ""),
        (&[ENDPOINT, ("OTEL_RESOURCE_ATTRIBUTES", "size=5%22,note=Pr%C3%AAt%C2%A0!")], Resource("Prêt\u{a0}!"), ""),
        (&[ENDPOINT, ("HTTPS_PROXY", "http://user:p%40$word@proxy:3128")], Anything, ""),
        (&[ENDPOINT, ("NO_PROXY", "10.0.0.0/8,<local>")], Anything, ""),
    ]
}

#[test]
fn t37_a_value_as_a_shell_or_an_env_file_leaves_it_is_understood_and_said_once() {
    for (variables, sent, sentence) in rows() {
        let collector = Collector::ok();
        let (url, address) = (collector.url(), collector.url().replace("http://", ""));
        let fill = |value: &str| {
            value.replace("HURL", &format!("HTTP://{address}")).replace("URL", &url).replace("ADDR", &address)
        };
        let env: Vec<(&str, String)> = variables.iter().map(|(name, value)| (*name, fill(value))).collect();
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let program = start(HONEYCOMB, &env);
        program.get(HOME);
        match sent {
            Nothing => {
                program.wait_for_backend("honeycomb", |honeycomb| honeycomb["queued"] == 0);
                assert!(collector.requests().is_empty(), "{variables:?}");
            }
            _ => {
                let requests = collector.wait_for(|requests| !requests.is_empty(), SOON);
                match sent {
                    Header(name, value) => assert_eq!(requests[0].header(name), value, "{variables:?}"),
                    Resource(text) => {
                        let body = String::from_utf8_lossy(&requests[0].body).into_owned();
                        assert!(body.contains(&format!("\"stringValue\":\"{text}\"")), "{variables:?}: {body}");
                    }
                    Anything | Nothing => {}
                }
            }
        }
        let stderr = program.stderr();
        let checked = check(HONEYCOMB, &env).stdout;
        match (&findings(&stderr)[..], sentence) {
            ([], "") => {}
            ([one], sentence) if one.contains(sentence) && !sentence.is_empty() => {
                let text = one.trim_start_matches("  warning: ");
                assert!(status_says(&program, text), "{variables:?}");
                assert!(checked.contains(text), "{variables:?}: {checked}");
            }
            (others, sentence) => panic!("{variables:?}: {others:#?} instead of {sentence:?}"),
        }
    }
}

/// Content of telemetry.toml, the place in it, and the message.
const FILES: &[(&str, &str, &str)] = &[
    ("service_name = “shop”\n", "1:16", "typographic quotes; write straight ones: \""),
    ("service_name = ‘shop’\n", "1:16", "typographic quotes; write straight ones: \""),
    ("service_name = \"shop”\n", "1:22", "the closing quote is a typographic one; write a straight one: \""),
    ("“service_name” = \"shop\"\n", "1:1", "typographic quotes; write straight ones: \""),
    ("[honeycomb]\nenabled = True\n", "2:11", "TOML knows only lower case here; write true"),
    ("[honeycomb]\nenabled = FALSE\n", "2:11", "TOML knows only lower case here; write false"),
    ("[honeycomb]\nenabled = yes\n", "2:11", "TOML has no such word; write true"),
    ("[honeycomb]\nenabled = off\n", "2:11", "TOML has no such word; write false"),
    ("[honeycomb]\ndataset = None\n", "2:11", "TOML has no empty value; remove the line, or put # in front of it"),
    (
        "[honeycomb]\nenabled = \"true\"\n",
        "2:11",
        "[honeycomb] enabled must be true or false, not text; write true without quotes",
    ),
    (
        "[honeycomb]\ntimeout = \"5000\"\n",
        "2:11",
        "[honeycomb] timeout must be a whole number, not text; write 5000 without quotes",
    ),
    ("[Honeycomb]\nenabled = true\n", "1:2", "unknown key \"Honeycomb\"; write it in lower case: \"honeycomb\""),
    ("[xray]\napi_key = \"abcdefgh\"\n", "2:1", "unknown key \"api_key\" in [xray]; it belongs under [honeycomb]"),
    ("log_group = \"x\"\n", "1:1", "unknown key \"log_group\"; it belongs under [cloudwatch]"),
    (
        "[page]\nservice_name = \"x\"\n",
        "2:1",
        "unknown key \"service_name\" in [page]; it belongs above the first table",
    ),
    (
        "[page]\nschedule_delay = 1\n",
        "2:1",
        "unknown key \"schedule_delay\" in [page]; it belongs under one of [console], [honeycomb], [xray], [xray_otlp], [cloudwatch]",
    ),
    ("[honeycomb]\nHCAIK_01SECRET = 1\n", "2:1", "unknown key in [honeycomb]; known are enabled, "),
];

#[test]
fn t37_a_mistake_in_the_file_that_eyes_miss_is_named() {
    let program = start("", &[]);
    for (toml, place, message) in FILES {
        let sentence = format!("telemetry.toml:{place}: {message}");
        for command in ["serve", "check"] {
            let exit = Program::run_to_end(&[command], &[], Some(toml));
            assert_eq!(exit.status.code(), Some(2), "{toml}");
            assert!(exit.stderr.contains(&sentence), "{toml}: {}", exit.stderr);
        }
        program.save(toml);
        program.wait_for_stderr(&sentence);
        assert!(wait_until(SOON, || status_says(&program, &sentence)), "{toml}");
    }
    assert!(!program.stderr().contains("abcdefgh") && !program.stderr().contains("SECRET"));
}

/// Content of telemetry.toml, and the finding. An empty one means that there is none.
const TEXTS: &[(&str, &str)] = &[
    ("service_name = \"'shop'\"\n", "telemetry.toml:1: service_name: the quotes around its value are ignored"),
    ("service_name = \"“shop”\"\n", "telemetry.toml:1: service_name: the quotes around its value are ignored"),
    ("service_name = \"${NAME}\"\n", "telemetry.toml:1: service_name: its value is a placeholder"),
    ("[honeycomb]\napi_key = \"...\"\n", "telemetry.toml:2: [honeycomb] api_key: its value is a placeholder"),
    ("[resource]\nteam = \"<team>\"\n", "telemetry.toml:2: [resource] team: its value is a placeholder"),
    ("[page]\nhosts = [\"'backend'\"]\n", "telemetry.toml:2: [page] hosts: the quotes around its value are ignored"),
    ("\u{feff}service_name = \"shop\"\r\n", ""),
    ("[resource]\nprice = \"$5\"\nshare = \"5%\"\nnote = \"Prêt\u{a0}!\"\n", ""),
    ("[cloudwatch]\nlog_stream = \"{hostname}\"\n", ""),
];

#[test]
fn t37_texts_of_the_file_are_checked_like_variables() {
    for (toml, sentence) in TEXTS {
        let program = Program::setup().toml(toml).start();
        let stderr = program.stderr();
        match (&findings(&stderr)[..], *sentence) {
            ([], "") => {}
            ([one], sentence) if one.contains(sentence) && !sentence.is_empty() => {
                assert!(status_says(&program, sentence), "{toml}");
                let checked = Program::run_to_end(&["check"], &[], Some(toml)).stdout;
                assert!(checked.contains(sentence), "{toml}: {checked}");
            }
            (others, sentence) => panic!("{toml}: {others:#?} instead of {sentence:?}"),
        }
    }
}

#[test]
fn t37_a_file_of_powershell_is_named() {
    let dir = TempDir::new();
    let path = dir.path().join("telemetry.toml");
    let utf16 =
        |mark: &[u8]| [mark, &"service_name = \"x\"\n".bytes().flat_map(|byte| [byte, 0]).collect::<Vec<_>>()].concat();
    for content in [utf16(&[0xff, 0xfe]), utf16(&[])] {
        fs::write(&path, content).expect("a file for the test");
        let path = path.to_str().expect("a path of text");
        for command in ["serve", "check"] {
            let exit = Program::run_to_end(&[command, "--config", path], &[], None);
            assert_eq!(exit.status.code(), Some(2));
            let sentence =
                format!("{path}:1:1: UTF-16 instead of UTF-8 (PowerShell's > writes it); save the file as UTF-8");
            assert!(exit.stderr.contains(&sentence), "{}", exit.stderr);
        }
    }
}

/// The file that `cruddur init` writes is right, and so is each of its examples.
#[test]
fn t37_nothing_is_said_about_the_file_that_init_writes() {
    let toml = fs::read_to_string("telemetry.toml").expect("the shipped file");
    let program = Program::setup().toml(&toml).start();
    assert_eq!(findings(&program.stderr()), [""; 0]);
}
