//! Who may look at the page: clients, host names, and other web pages.

use crate::support::{Client, Program, SOON, wait_until};

const ALLOW_REMOTE: &str = "[console]\nenabled = false\n[page]\nallow_remote = true\n";
const DATA: [&str; 5] = [
    "/telemetry/status",
    "/telemetry/traces",
    "/telemetry/traces/x",
    "/telemetry/deliveries",
    "/telemetry/deliveries/x-1",
];
const FILES: [&str; 2] = ["/", "/page/page.js"];
/// A header that only proxies add: the client is on another machine.
const PROXY: (&str, &str) = ("X-Forwarded-For", "203.0.113.7");

fn status(program: &Program, path: &str, headers: &[(&str, &str)]) -> u16 {
    Client::connect(program.addr()).request("GET", path, headers, b"").status
}

#[track_caller]
fn assert_refused(program: &Program, paths: &[&str], headers: &[(&str, &str)], said: &str) {
    for path in paths {
        let answer = Client::connect(program.addr()).request("GET", path, headers, b"");
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.status, 403, "{path} {headers:?}: {message}");
        assert!(message.contains(said), "{path} {headers:?}: {message}");
        assert!(!message.contains(['\n', '\r']) && message.len() < 500, "{path} {headers:?}: {message}");
    }
}

#[track_caller]
fn assert_shown(program: &Program, headers: &[(&str, &str)]) {
    for path in FILES.iter().chain(&DATA) {
        let status = status(program, path, headers);
        assert!(status == 200 || (status == 404 && path.contains("/x")), "{path} {headers:?}: {status}");
    }
}

#[test]
fn other_machines_see_the_page_only_under_names_that_no_foreign_page_can_have() {
    let program = Program::setup()
        .toml(&format!("{ALLOW_REMOTE}hosts = [\"Backend\", \"cruddur.test\"]\n"))
        .env("FRONTEND_URL", "https://3000-cruddur.example.test")
        .env("BACKEND_URL", "https://4567-cruddur.example.test/")
        .start();
    for host in [
        "localhost",
        "LocalHost:4567",
        "127.0.0.1:4567",
        "192.168.1.5:4567",
        "[::1]:4567",
        "[2001:db8::1]",
        "3000-cruddur.example.test",
        "4567-cruddur.example.test",
        "4567-CRUDDUR.example.test:443",
        "backend:4567",
        "cruddur.test",
    ] {
        assert_shown(&program, &[("Host", host), PROXY]);
    }
    for host in [
        "evil.example",
        "evil.example:4567",
        "localhost.evil.example",
        "evil-localhost",
        "notbackend:4567",
        "backend.evil.example",
        "127.0.0.1.evil.example",
        "4567-cruddur.example.test.evil.example",
    ] {
        let name = host.split(':').next().unwrap_or_default();
        let said = format!("not shown under the host name {name}; add the name to hosts under [page]");
        for headers in [&[("Host", host)][..], &[("Host", host), PROXY]] {
            assert_refused(&program, &[&FILES[..], &DATA[..]].concat(), headers, &said);
        }
    }
    let long = "a".repeat(5_000);
    for host in ["localhost:x", "127.1", "localhost, evil.example", "me@localhost", "<script>", "", &long] {
        let headers = [("Host", host), PROXY];
        assert!([400, 403].contains(&status(&program, "/telemetry/traces", &headers)), "{host}");
    }
    assert_refused(&program, &["/"], &[("Host", "<b>"), PROXY], "not shown under this host name");
    assert_refused(&program, &["/"], &[("Host", &long)], "not shown under this host name");
    // A rewritten Host does not hide the name that the browser asked for.
    for headers in [("X-Forwarded-Host", "evil.example"), ("Forwarded", "host=evil.example")] {
        assert_refused(&program, &DATA, &[("Host", "localhost"), headers], "the host name evil.example");
    }
    assert_shown(&program, &[("Host", "localhost"), ("X-Forwarded-Host", "backend")]);
    // And a script, which may set this header, cannot hide the name of its page.
    assert_refused(&program, &DATA, &[("Host", "evil.example"), ("X-Forwarded-Host", "localhost")], "evil.example");
}

#[test]
fn a_container_is_open_to_its_published_port_and_to_no_other_name_by_default() {
    let program = Program::setup().env("CRUDDUR_PAGE_ALLOW_REMOTE", "true").start();
    assert_shown(&program, &[("Host", "localhost:4567"), PROXY]);
    assert_refused(&program, &DATA, &[("Host", "backend-flask:4567"), PROXY], "the host name backend-flask");
    let named = Program::setup()
        .env("CRUDDUR_PAGE_ALLOW_REMOTE", "true")
        .env("CRUDDUR_PAGE_HOSTS", "backend-flask, notifications")
        .start();
    assert_shown(&named, &[("Host", "backend-flask:4567"), PROXY]);
    assert_shown(&named, &[("Host", "notifications:4567"), PROXY]);
}

#[test]
fn without_allow_remote_no_setting_opens_the_page_to_another_name() {
    let toml = "[console]\nenabled = false\n[page]\nhosts = [\"backend\"]\n";
    let program = Program::setup().toml(toml).env("BACKEND_URL", "https://4567-cruddur.example.test").start();
    let paths = [&FILES[..], &DATA[..]].concat();
    for host in ["backend:4567", "4567-cruddur.example.test", "evil.example", "192.168.1.5:4567"] {
        assert_refused(&program, &paths, &[("Host", host)], "forbidden: open the page on this machine");
    }
    assert_refused(&program, &paths, &[("Host", "localhost"), PROXY], "forbidden: open the page on this machine");
    assert_shown(&program, &[("Host", "localhost:4567")]);
}

#[test]
fn another_web_page_never_reads_data_but_may_link_to_the_page() {
    const FRONT_END: &str = "https://3000-cruddur.example.test";
    const BACK_END: &str = "https://4567-cruddur.example.test";
    for toml in ["[console]\nenabled = false\n", ALLOW_REMOTE] {
        let program = Program::setup().toml(toml).env("FRONTEND_URL", FRONT_END).env("BACKEND_URL", BACK_END).start();
        let own = format!("http://{}", program.addr());
        for foreign in [
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Site", "Cross-Site"),
            ("Origin", "https://evil.example"),
            ("Origin", "null"),
            ("Origin", "http://localhost:8000"),
            ("Origin", "http://127.0.0.1"),
            ("Origin", "https://3000-cruddur.example.test.evil.example"),
            ("Origin", "http://3000-cruddur.example.test"),
            ("Origin", ""),
        ] {
            assert_refused(&program, &DATA, &[foreign], "another web page made this request");
            for path in FILES {
                assert_eq!(status(&program, path, &[foreign]), 200, "{path} {foreign:?}");
            }
        }
        for (name, value) in [
            ("Sec-Fetch-Site", "same-origin"),
            ("Sec-Fetch-Site", "same-site"),
            ("Sec-Fetch-Site", "none"),
            ("Origin", &own),
            ("Origin", FRONT_END),
            ("Origin", BACK_END),
        ] {
            assert_shown(&program, &[(name, value)]);
        }
        // The front end may ask, and its browser shows the data to no script.
        let answer = Client::connect(program.addr()).request("GET", "/telemetry/traces", &[("Origin", FRONT_END)], b"");
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert_refused(
            &program,
            &DATA,
            &[("Origin", FRONT_END), ("Sec-Fetch-Site", "cross-site")],
            "another web page made this request",
        );
    }
}

#[test]
fn a_name_that_is_added_to_a_running_server_is_let_in() {
    let program = Program::setup().toml(ALLOW_REMOTE).start();
    let headers = [("Host", "backend:4567"), PROXY];
    assert_eq!(status(&program, "/telemetry/status", &headers), 403);
    program.save(&format!("{ALLOW_REMOTE}hosts = [\"backend\"]\n"));
    assert!(wait_until(SOON, || status(&program, "/telemetry/status", &headers) == 200));
}

#[test]
fn a_host_that_is_no_name_is_reported_with_the_line() {
    let toml = format!("{ALLOW_REMOTE}hosts = [\n  \"http://backend:4567\",\n  \"cruddur.test\",\n]\n");
    let program = Program::setup().toml(&toml).start();
    program.wait_for_stderr(
        "[page] hosts = \"http://backend:4567\" is not a host name; it is ignored; next: write the name alone",
    );
    assert_shown(&program, &[("Host", "cruddur.test"), PROXY]);
}
