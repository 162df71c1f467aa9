//! The routes of the course's backend have the same paths, fields and codes, so its front end works
//! unchanged. The connections below them are tested too: keep-alive, pipelined, slow, and
//! sixty-four at once.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{Client, Program, unix_seconds};

const HOME: &str = "/api/activities/home";
const DAY: f64 = 86_400.0;

/// The fields that every activity has, in every list.
const ACTIVITY: &[&str] = &[
    "handle",
    "display_name",
    "uuid",
    "message",
    "created_at",
    "expires_at",
    "likes_count",
    "replies_count",
    "reposts_count",
    "replies",
];

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs_f64()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text {key} in {value:#}"))
}

fn items(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not an array: {value:#}"))
}

fn seconds(value: &Value, key: &str) -> f64 {
    unix_seconds(text(value, key))
}

fn assert_is_activity(activity: &Value) {
    for field in ACTIVITY {
        assert!(activity.get(field).is_some(), "no {field} in {activity:#}");
    }
    for count in ["likes_count", "replies_count", "reposts_count"] {
        assert!(activity[count].is_u64(), "{count} in {activity:#}");
    }
    assert_is_uuid(text(activity, "uuid"));
    assert!(seconds(activity, "created_at") < seconds(activity, "expires_at"), "{activity:#}");
    for reply in items(&activity["replies"]) {
        for field in ["uuid", "handle", "display_name", "message", "created_at"] {
            assert!(!text(reply, field).is_empty(), "{reply:#}");
        }
        assert_eq!(reply["reply_to_activity_uuid"], activity["uuid"]);
        seconds(reply, "created_at");
    }
}

fn assert_is_uuid(uuid: &str) {
    let groups: Vec<_> = uuid.split('-').map(str::len).collect();
    assert_eq!(groups, [8, 4, 4, 4, 12], "{uuid}");
    assert!(uuid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()), "{uuid}");
}

fn assert_near(actual: f64, expected: f64, what: &str) {
    assert!((actual - expected).abs() < 60.0, "{what}: {actual} is not within a minute of {expected}");
}

/// Finds the activity with this uuid in the list at `path`.
fn find(client: &mut Client, path: &str, uuid: &str) -> Option<Value> {
    items(&client.get(path).json()).iter().find(|item| item["uuid"] == uuid).cloned()
}

fn new_activity(client: &mut Client, message: &str) -> Value {
    let answer = client.post("/api/activities", json!({ "message": message, "ttl": "7-days" }).to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[test]
fn home_shows_three_activities_with_every_field() {
    let program = Program::start();
    let answer = program.get(HOME);
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")), "{answer:?}");
    let home = answer.json();
    assert_eq!(items(&home).len(), 3, "{home:#}");
    items(&home).iter().for_each(assert_is_activity);

    let [first, second, third] = items(&home) else { unreachable!() };
    assert_eq!(
        (&first["likes_count"], &first["replies_count"], &first["reposts_count"]),
        (&json!(5), &json!(1), &json!(0))
    );
    assert_eq!(items(&first["replies"]).len(), 1);
    assert!(items(&second["replies"]).is_empty() && items(&third["replies"]).is_empty());
    let now = now();
    for (activity, created, expires) in [(first, -2.0, 5.0), (second, -7.0, 9.0), (third, -1.0 / 24.0, 0.5)] {
        assert_near(seconds(activity, "created_at"), now + created * DAY, "created_at");
        assert_near(seconds(activity, "expires_at"), now + expires * DAY, "expires_at");
    }
}

#[test]
fn every_other_list_has_the_length_and_the_fields_of_the_original() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    for path in ["/api/activities/notifications", "/api/activities/@andrewbrown", "/api/activities/search?term=aws"] {
        let answer = client.get(path);
        assert_eq!(answer.status, 200, "{path}");
        let list = answer.json();
        assert_eq!(items(&list).len(), 1, "{path}: {list:#}");
        items(&list).iter().for_each(assert_is_activity);
    }
    let groups = client.get("/api/message_groups").json();
    assert_eq!(items(&groups).len(), 2);
    for group in items(&groups) {
        assert_is_uuid(text(group, "uuid"));
        assert!(!text(group, "display_name").is_empty() && !text(group, "handle").is_empty());
        seconds(group, "created_at");
    }
    let messages = client.get("/api/messages/@andrewbrown").json();
    assert_eq!(items(&messages).len(), 2);
    for message in items(&messages) {
        assert_is_uuid(text(message, "uuid"));
        for field in ["display_name", "handle", "message"] {
            assert!(!text(message, field).is_empty());
        }
        seconds(message, "created_at");
    }
}

#[test]
fn any_handle_is_answered_200() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    for handle in ["bayko", "a%20b", "caf%C3%A9"] {
        for path in [format!("/api/activities/@{handle}"), format!("/api/messages/@{handle}")] {
            let answer = client.get(&path);
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            items(&answer.json());
        }
    }
}

#[test]
fn an_activity_is_shown_under_its_uuid() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let home = client.get(HOME).json();
    for activity in items(&home) {
        let answer = client.get(&format!("/api/activities/{}", text(activity, "uuid")));
        assert_eq!(answer.status, 200, "{answer:?}");
        let shown = answer.json();
        assert_eq!(items(&shown).len(), 1);
        assert_eq!(shown[0]["uuid"], activity["uuid"]);
        assert_eq!(shown[0]["message"], activity["message"]);
        assert_is_activity(&shown[0]);
    }
}

#[test]
fn a_created_activity_shows_up_at_home_in_its_users_feed_and_under_its_uuid() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let created = new_activity(&mut client, "kept \u{1f600} \"quoted\"");
    let uuid = text(&created, "uuid");
    assert_is_uuid(uuid);
    assert_eq!(uuid.as_bytes()[14], b'4', "a random uuid: {uuid}");
    assert_eq!(text(&created, "handle"), "andrewbrown");
    assert_eq!(text(&created, "display_name"), "Andrew Brown");
    assert_eq!(text(&created, "message"), "kept \u{1f600} \"quoted\"");
    assert_near(seconds(&created, "created_at"), now(), "created_at");
    for path in [HOME.to_owned(), "/api/activities/@andrewbrown".to_owned(), format!("/api/activities/{uuid}")] {
        let found = find(&mut client, &path, uuid).unwrap_or_else(|| panic!("not in {path}"));
        assert_is_activity(&found);
        assert_eq!(found["message"], created["message"]);
    }
    assert!(find(&mut client, "/api/activities/@bayko", uuid).is_none());
}

#[test]
fn each_of_the_seven_ttls_sets_its_expiry() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let ttls = [
        ("30-days", 30.0),
        ("7-days", 7.0),
        ("3-days", 3.0),
        ("1-day", 1.0),
        ("12-hours", 12.0 / 24.0),
        ("3-hours", 3.0 / 24.0),
        ("1-hour", 1.0 / 24.0),
    ];
    for (ttl, days) in ttls {
        let answer = client.post("/api/activities", json!({ "message": ttl, "ttl": ttl }).to_string());
        assert_eq!(answer.status, 200, "{ttl}: {answer:?}");
        let created = answer.json();
        assert_near(seconds(&created, "expires_at") - seconds(&created, "created_at"), days * DAY, ttl);
    }
}

#[test]
fn a_reply_shows_up_under_its_activity_wherever_that_is_shown() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let of_the_mock_data = text(&client.get(HOME).json()[0], "uuid").to_owned();
    let created = text(&new_activity(&mut client, "answer me"), "uuid").to_owned();
    for parent in [of_the_mock_data, created] {
        let before = find(&mut client, HOME, &parent).expect("it is at home");
        let answer = client.post(&format!("/api/activities/{parent}/reply"), r#"{"message":"a reply"}"#);
        assert_eq!(answer.status, 200, "{answer:?}");
        let reply = answer.json();
        assert_is_uuid(text(&reply, "uuid"));
        assert_eq!(text(&reply, "handle"), "andrewbrown");
        assert_eq!(text(&reply, "display_name"), "Andrew Brown");
        assert_eq!(text(&reply, "message"), "a reply");
        assert_eq!(text(&reply, "reply_to_activity_uuid"), parent);
        assert_near(seconds(&reply, "created_at"), now(), "created_at");
        for path in [HOME.to_owned(), format!("/api/activities/{parent}")] {
            let activity = find(&mut client, &path, &parent).expect("it is still there");
            assert!(
                items(&activity["replies"]).iter().any(|other| other["uuid"] == reply["uuid"]),
                "{path}: {activity:#}"
            );
            assert_eq!(
                activity["replies_count"].as_u64(),
                before["replies_count"].as_u64().map(|count| count + 1),
                "{path}"
            );
        }
    }
}

#[test]
fn a_message_shows_up_in_the_conversation_with_its_receiver() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let answer = client.post("/api/messages", r#"{"message":"hello","user_receiver_handle":"bayko"}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    let message = answer.json();
    assert_is_uuid(text(&message, "uuid"));
    assert_eq!(text(&message, "handle"), "andrewbrown");
    assert_eq!(text(&message, "display_name"), "Andrew Brown");
    assert_eq!(text(&message, "message"), "hello");
    assert_near(seconds(&message, "created_at"), now(), "created_at");
    assert!(find(&mut client, "/api/messages/@bayko", text(&message, "uuid")).is_some());
}

#[test]
fn health_is_one_word() {
    let program = Program::start();
    let answer = program.get("/health");
    assert_eq!((answer.status, answer.json()), (200, json!({ "status": "ok" })));
}

#[test]
fn head_answers_like_get_without_the_body() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    for path in [HOME, "/api/message_groups", "/health"] {
        let answer = client.request("HEAD", path, &[], b"");
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")), "{answer:?}");
        assert_ne!(answer.header("content-length"), Some("0"), "{path}");
    }
    // If a body had followed one of the responses, this call would read it.
    assert_eq!(client.get("/health").json(), json!({ "status": "ok" }));
}

#[test]
fn options_is_answered_on_every_route() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    for path in [HOME, "/api/activities", "/api/messages", "/api/activities/@andrewbrown", "/api/message_groups"] {
        let answer = client.request("OPTIONS", path, &[], b"");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
}

#[test]
fn lengths_are_counted_in_characters() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let activity = |count: usize| json!({ "message": "\u{1f600}".repeat(count), "ttl": "1-day" }).to_string();
    assert_eq!(client.post("/api/activities", activity(280)).status, 200);
    let refused = client.post("/api/activities", activity(281));
    assert_eq!((refused.status, refused.json()), (422, json!(["message_exceed_max_chars"])));
}

#[test]
fn a_message_of_1024_escaped_characters_is_a_legal_body_of_twelve_kilobytes() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let body = format!(r#"{{"message":"{}","user_receiver_handle":"bayko"}}"#, r"\ud83d\ude00".repeat(1024));
    assert!(body.len() > 12_288);
    let answer = client.post("/api/messages", body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(text(&answer.json(), "message").chars().count(), 1024);
    assert_eq!(client.get("/health").status, 200, "the connection goes on");
}

#[test]
fn a_client_that_expects_100_continue_is_told_to_go_on() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let body = json!({ "message": "m".repeat(1000), "user_receiver_handle": "b".repeat(1000) }).to_string();
    let head = format!(
        "POST /api/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Expect: 100-continue\r\n\r\n",
        body.len()
    );
    client.send_raw(head.as_bytes());
    assert_eq!(client.read_interim().expect("an interim answer"), 100);
    client.send_raw(body.as_bytes());
    let answer = client.read_answer();
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn a_slow_body_holds_nobody_up() {
    let program = Program::start();
    for (size, path) in [(800, "/api/messages"), (4000, "/api/messages")] {
        let message = "m".repeat(1000.min(size - 100));
        let body = format!("{:<size$}", json!({ "message": message, "user_receiver_handle": "bayko" }).to_string());
        let (first_half, second_half) = body.split_at(body.len() / 2);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        );
        let mut slow = Client::connect(program.addr());
        slow.send_raw(head.as_bytes());
        slow.send_raw(first_half.as_bytes());
        let mut other = Client::connect(program.addr());
        let since = Instant::now();
        for _ in 0..20 {
            assert_eq!(other.get(HOME).status, 200);
        }
        assert!(since.elapsed() < Duration::from_secs(2), "20 requests took {:?} beside a slow body", since.elapsed());
        slow.send_raw(second_half.as_bytes());
        let answer = slow.read_answer();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let program = Program::start();
    let mut client = Client::connect(program.addr());
    let paths = ["/health", HOME, "/api/nothing/here", "/api/message_groups", "/api/fail"];
    let expected = [200, 200, 404, 200, 500];
    for _ in 0..4 {
        let requests: String = paths.iter().map(|path| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
        client.send_raw(requests.as_bytes());
        let answers: Vec<_> = paths.iter().map(|_| client.read_answer()).collect();
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), expected);
        assert_eq!(answers[0].json(), json!({ "status": "ok" }));
        assert_eq!(items(&answers[1].json()).len(), 3);
        assert_eq!(items(&answers[3].json()).len(), 2);
    }
}

#[test]
fn sixty_four_connections_opened_at_once_are_all_answered_within_a_second() {
    for round in 0..3 {
        // A new server per round, because its first burst of connections must find enough threads
        // too.
        let program = Program::start();
        let mut clients: Vec<_> = (0..64)
            .map(|_| {
                let mut client = Client::connect(program.addr());
                client.send("GET", HOME, &[], b"");
                (client, Instant::now())
            })
            .collect();
        for (number, (client, since)) in clients.iter_mut().enumerate() {
            assert_eq!(client.read_answer().status, 200);
            let took = since.elapsed();
            assert!(took < Duration::from_secs(1), "round {round}: connection {number} waited {took:?}");
        }
        // The connections stay usable for more requests.
        for (client, _) in &mut clients {
            assert_eq!(client.get("/health").status, 200);
        }
    }
}
