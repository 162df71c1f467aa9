//! Tests with credential servers on loopback: valid, late, wrong and silent ones.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use super::remote::Remote;
use super::tests::{SECRET, TempFile, error_of, noon};
use super::*;
use crate::text::Url;

const MINUTE: Duration = Duration::from_secs(60);
const RELATIVE: (&str, &str) = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/x");
const SILENCE: &str = "";

/// Starts a server on loopback. It responds to each request with the result of `answer`, which gets
/// the head of the request. For [`SILENCE`] it does not respond and keeps the connection open.
/// Returns the URL, and the heads of the requests so far.
fn serve(answer: impl Fn(&str) -> String + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    thread::spawn(move || {
        let mut kept_waiting = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let answer = answer(&head);
            seen.lock().unwrap().push(head);
            if answer == SILENCE {
                kept_waiting.push(stream);
            } else {
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    (url, heads)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn status(status: u16) -> String {
    format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
}

/// Returns a response with keys that are valid for `minutes` from noon.
fn credentials_json(id: &str, minutes: u32) -> String {
    let expires = chrono::DateTime::<chrono::Utc>::from(noon() + minutes * MINUTE).to_rfc3339();
    let keys = format!(r#""AccessKeyId":"{id}","SecretAccessKey":"TOPSECRET1","Token":"TOPSECRET2""#);
    format!(r#"{{"Code":"Success",{keys},"Expiration":"{expires}"}}"#)
}

/// Creates a chain with short time limits that resolves relative URIs against `url`.
fn chain<const N: usize>(url: &str, pairs: [(&str, &str); N]) -> CredentialChain {
    let mut chain = CredentialChain::new(&Env::from(pairs));
    chain.remote = Remote {
        container: url.to_owned(),
        container_timeout: Duration::from_millis(300),
        retry_wait: Duration::from_millis(10),
        metadata_timeout: Duration::from_millis(300),
    };
    chain
}

/// Starts a metadata service with one role. For the request that begins with `step` it responds
/// with `instead`.
fn metadata(step: &'static str, instead: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let roles = "GET /latest/meta-data/iam/security-credentials/";
    serve(move |head| match head {
        head if head.starts_with(step) => instead.clone(),
        head if head.starts_with("PUT /latest/api/token ") && head.contains("ttl-seconds: 21600\r\n") => {
            ok("TOPSECRET3")
        }
        head if !head.contains("x-aws-ec2-metadata-token: TOPSECRET3\r\n") => status(401),
        head if head.starts_with(&format!("{roles} ")) => ok("my-role\n"),
        head if head.starts_with(&format!("{roles}my-role ")) => ok(&credentials_json("ASIAMETADATA", 360)),
        _ => status(404),
    })
}

#[test]
fn the_container_endpoint_lends_keys_and_is_asked_again_in_time() {
    let minutes = Arc::new(Mutex::new(vec![180, 90, 60]));
    let (url, heads) = serve(move |_| match minutes.lock().unwrap().pop() {
        Some(minutes) => ok(&credentials_json(&format!("ASIA{minutes}"), minutes)),
        None => status(500),
    });
    let mut chain = chain(&url, [RELATIVE]);
    let mut id = |minute: u32| chain.resolve(noon() + minute * MINUTE).map(|found| found.access_key_id.clone());
    assert_eq!(id(0).unwrap(), "ASIA60");
    assert_eq!(id(44).unwrap(), "ASIA60");
    assert_eq!(heads.lock().unwrap().len(), 1);
    assert_eq!(id(45).unwrap(), "ASIA90");
    assert_eq!(id(80).unwrap(), "ASIA180");
    assert_eq!(heads.lock().unwrap().len(), 3);

    // From now on the server fails. Before the refresh is mandatory, the chain asks once per
    // minute, with 3 requests each time.
    assert_eq!(id(165).unwrap(), "ASIA180");
    assert_eq!(id(165).unwrap(), "ASIA180");
    assert_eq!(heads.lock().unwrap().len(), 6);
    assert_eq!(id(166).unwrap(), "ASIA180");
    assert_eq!(heads.lock().unwrap().len(), 9);
    // Then the chain asks at each call, and uses the old keys until they expire.
    assert_eq!(id(170).unwrap(), "ASIA180");
    assert_eq!(id(170).unwrap(), "ASIA180");
    assert_eq!(heads.lock().unwrap().len(), 15);
    assert_eq!(id(179).unwrap(), "ASIA180");
    let error = id(180).unwrap_err().to_string();
    assert!(error.starts_with("HTTP 500 Internal Server Error: container endpoint "), "{error}");
    assert!(heads.lock().unwrap().iter().all(|head| head.starts_with("GET /v2/credentials/x HTTP/1.1\r\n")));
}

#[test]
fn forgotten_keys_are_asked_for_again() {
    let (url, heads) = serve(|_| ok(&credentials_json("ASIA", 60)));
    let mut chain = chain(&url, [RELATIVE]);
    let found = chain.resolve(noon()).unwrap();
    assert_eq!(found.session_token.as_deref(), Some("TOPSECRET2"));
    assert_eq!(found.expires, Some(noon() + 60 * MINUTE));
    let wanted = format!("container endpoint {url}/v2/credentials/x (AWS_CONTAINER_CREDENTIALS_RELATIVE_URI)");
    assert_eq!(found.origin, wanted);
    assert!(!format!("{chain:?}").contains(SECRET));
    chain.forget();
    chain.resolve(noon()).unwrap();
    assert_eq!(heads.lock().unwrap().len(), 2);
}

#[test]
fn the_token_file_is_read_each_time_and_may_hold_no_line_end() {
    let (url, heads) = serve(|_| ok(&credentials_json("ASIA", 60)));
    let file = TempFile::new("Bearer TOPSECRET4");
    let mut with_file = chain(
        "",
        [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.path()),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "not this one"),
        ],
    );
    with_file.resolve(noon()).unwrap();
    file.write("Bearer TOPSECRET5");
    with_file.forget();
    with_file.resolve(noon()).unwrap();
    let mut with_variable =
        chain("", [("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "TOPSECRET6")]);
    with_variable.resolve(noon()).unwrap();
    let seen = heads.lock().unwrap().clone();
    for (head, token) in seen.iter().zip(["Bearer TOPSECRET4", "Bearer TOPSECRET5", "TOPSECRET6"]) {
        assert!(head.contains(&format!("authorization: {token}\r\n")), "{head}");
    }
    for bad in ["TOPSECRET\n", "TOPSECRET\r\nx-evil: 1", ""] {
        file.write(bad);
        with_file.forget();
        let error = error_of(&mut with_file);
        assert!(
            error.starts_with("invalid token in AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: it is empty or "),
            "{error}"
        );
    }
    drop(file);
    let error = error_of(&mut with_file);
    assert!(
        error.starts_with("No such file or directory ")
            && error.contains(" (AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE); "),
        "{error}"
    );
    assert_eq!(heads.lock().unwrap().len(), 3);
}

#[test]
fn keys_are_asked_for_only_where_nobody_can_listen_in() {
    for url in [
        "http://example.com/x",
        "http://169.254.170.3/",
        "http://169.254.169.254/",
        "http://localhost.evil.test/",
        "http://127.0.0.1@evil.test/?TOPSECRET",
        "http://me:TOPSECRET@evil.test/",
        "ftp://localhost/",
        "http://",
        "localhost",
        "file:///etc/passwd",
    ] {
        let error = error_of(&mut chain("", [("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)]));
        assert!(error.starts_with("address not allowed for credentials: "), "{error}");
    }
    for url in ["http://169.254.170.2/", "http://169.254.170.23/v1", "http://[fd00:ec2::23]/v1", "https://127.0.0.1:1"]
    {
        let mut chain = chain("", [("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)]);
        chain.remote.container_timeout = Duration::from_millis(20);
        let error = error_of(&mut chain);
        assert!(error.contains(&format!(": container endpoint {url}")), "{error}");
    }
    let error = error_of(&mut chain("http://localhost", [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", ".evil.test/")]));
    assert!(error.starts_with("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI must begin with /; next: "), "{error}");
}

#[test]
fn a_container_endpoint_that_is_silent_is_left_after_three_tries() {
    let (url, heads) = serve(|_| SILENCE.to_owned());
    let began = Instant::now();
    let error = error_of(&mut chain(&url, [RELATIVE]));
    assert!(error.starts_with("timed out after 300 ms: container endpoint "), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(heads.lock().unwrap().len(), 3);
}

#[test]
fn a_wrong_answer_is_described_and_not_repeated() {
    let keys = r#""AccessKeyId":"AKIATOPSECRET","SecretAccessKey":"TOPSECRET","Token":"TOPSECRET""#;
    let token_only = r#"{"Token":"TOPSECRET","Expiration":"2026-01-15T18:00:00Z"}"#;
    for (answer, wanted, tries) in [
        (ok("TOPSECRET"), "invalid JSON in the response", 3),
        (ok(r#"{"AccessKeyId":["TOPSECRET"]}"#), "invalid JSON in the response", 3),
        (ok("{}"), "no AccessKeyId and no SecretAccessKey and no Token and no Expiration in the response", 3),
        (ok(token_only), "no AccessKeyId and no SecretAccessKey in the response", 3),
        (ok(&format!("{{{keys}}}")), "no Expiration in the response", 3),
        (ok(&format!(r#"{{{keys},"Expiration":"TOPSECRET"}}"#)), "invalid Expiration in the response", 3),
        (
            ok(&format!(r#"{{{keys},"Expiration":"2026-01-15T12:00:00Z"}}"#)),
            "credentials expired at 2026-01-15T12:00:00Z (the clock of this machine says 2026-01-15T12:34:56Z)",
            3,
        ),
        (ok(&credentials_json("ASIA", 60).replace("SECRET1", "SECRET\\n1")), "invalid keys in the response", 3),
        (
            ok(&credentials_json("ASIA", 60).replace("Success", "AssumeRoleDenied")),
            "AssumeRoleDenied in the response",
            3,
        ),
        (ok(&credentials_json("ASIA", 60).replace("Success", "TOPSECRET 5")), "unknown error in the response", 3),
        ("TOPSECRET\r\n\r\n".to_owned(), "invalid HTTP response", 3),
        ("HTTP/1.1 200 OK\r\nx-y: TOPSECRET".to_owned(), "connection closed before a response came", 3),
        (status(302), "HTTP 302 Found", 3),
        (status(503), "HTTP 503 Service Unavailable", 3),
        (status(403), "HTTP 403 Forbidden", 1),
    ] {
        let (url, heads) = serve(move |_| answer.clone());
        let error = error_of(&mut chain(&url, [RELATIVE]));
        assert!(error.starts_with(&format!("{wanted}: container endpoint {url}/")), "{error}");
        assert_eq!(heads.lock().unwrap().len(), tries, "{wanted}");
    }
}

#[test]
fn the_metadata_service_is_asked_in_three_steps() {
    let (url, heads) = metadata("never", String::new());
    let mut chain = chain("", [("AWS_EC2_METADATA_SERVICE_ENDPOINT", &format!("{url}/"))]);
    let found = chain.resolve(noon()).unwrap();
    assert_eq!(found.access_key_id, "ASIAMETADATA");
    assert_eq!(found.origin, format!("EC2 metadata at {url}, role my-role"));
    chain.resolve(noon() + 344 * MINUTE).unwrap();
    assert_eq!(heads.lock().unwrap().len(), 3);
    // In the last 15 minutes the service still returns the same keys. The chain keeps them and asks
    // once per minute.
    chain.resolve(noon() + 346 * MINUTE).unwrap();
    chain.resolve(noon() + 346 * MINUTE).unwrap();
    assert_eq!(heads.lock().unwrap().len(), 6);
}

#[test]
fn a_metadata_service_that_is_off_is_one_place_less() {
    let (gone, _) = serve(|_| String::new());
    for (answer, wanted) in [(status(403), "HTTP 403 Forbidden"), (SILENCE.to_owned(), "timed out after 300 ms")] {
        let (url, heads) = metadata("PUT", answer);
        let began = Instant::now();
        let error = error_of(&mut chain("", [("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url)]));
        assert!(error.starts_with("no AWS credentials (environment: "), "{error}");
        let wanted = format!("EC2 metadata: {wanted}: {url} (on EC2, a container needs a hop limit of 2)); ");
        assert!(error.contains(&wanted), "{error}");
        // One request only, and none of version 1.
        assert_eq!(heads.lock().unwrap().len(), 1);
        assert!(began.elapsed() < Duration::from_secs(3));
    }
    for answer in [status(404), ok("")] {
        let (url, _) = metadata("GET /latest/meta-data/iam/security-credentials/ ", answer);
        let error = error_of(&mut chain("", [("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url)]));
        assert!(error.contains("EC2 metadata: the instance has no role); "), "{error}");
    }
    let off = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", gone.as_str()), ("AWS_EC2_METADATA_DISABLED", "TRUE")];
    assert!(error_of(&mut chain("", off)).contains("EC2 metadata: AWS_EC2_METADATA_DISABLED is true"));
    let error = error_of(&mut chain("", [("AWS_EC2_METADATA_SERVICE_ENDPOINT", "me:TOPSECRET@x")]));
    assert!(error.starts_with("invalid URL: x (AWS_EC2_METADATA_SERVICE_ENDPOINT); "), "{error}");
}

#[test]
fn a_metadata_service_that_breaks_off_ends_the_search() {
    let role = "GET /latest/meta-data/iam/security-credentials/my-role ";
    let roles = "GET /latest/meta-data/iam/security-credentials/ ";
    for (step, answer, wanted) in [
        ("PUT", ok("TOP SECRET\u{e9}TOPSECRET"), "invalid session token"),
        (roles, ok("../../TOPSECRET"), "invalid role name"),
        (roles, status(500), "HTTP 500 Internal Server Error"),
        (role, SILENCE.to_owned(), "timed out after 300 ms"),
        (role, ok("<html>TOPSECRET"), "invalid JSON in the response"),
        (
            role,
            ok(r#"{"Code":"Success","SecretAccessKey":"TOPSECRET"}"#),
            "no AccessKeyId and no Token and no Expiration in the response",
        ),
    ] {
        let (url, _) = metadata(step, answer);
        let error = error_of(&mut chain("", [("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url)]));
        assert!(error.starts_with(&format!("{wanted}: EC2 metadata at {url}")), "{error}");
    }
}

/// Starts itself again as another process, because the environment of a running process cannot be
/// changed safely.
#[test]
fn no_proxy_hears_of_it() {
    if std::env::var_os("CRUDDUR_TEST_PROXY").is_some() {
        let other =
            crate::wire::http::HttpClient::new(&Url::parse("http://169.254.170.2").unwrap(), &Default::default())
                .unwrap();
        assert_eq!(other.proxy(), Some("127.0.0.1:9"));
        assert_eq!(crate::wire::http::HttpClient::without_proxy().proxy(), None);
        return;
    }
    let name = thread::current().name().unwrap().to_owned();
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args([name.as_str(), "--exact"]).env("CRUDDUR_TEST_PROXY", "1").env_remove("NO_PROXY").env_remove("no_proxy");
    for variable in ["ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "http_proxy", "https_proxy"] {
        again.env(variable, "http://127.0.0.1:9");
    }
    let output = again.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
