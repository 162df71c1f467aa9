use super::*;

fn read(text: &str, env: Env) -> Result<Settings, Message> {
    read_with_findings(text, env).map(|(settings, _)| settings)
}

fn read_with_findings(text: &str, env: Env) -> Result<(Settings, Vec<String>), Message> {
    let sources = Sources::from_text(text, env)?;
    let mut findings = Findings::default();
    let (settings, _) = Settings::read(&sources, None, "an-instance", &mut findings)?;
    sources.refuse_unknown_tables(&known_tables())?;
    Ok((settings, texts(findings)))
}

fn texts(findings: Findings) -> Vec<String> {
    findings.into_vec().into_iter().map(|finding| finding.message.to_string()).collect()
}

fn resource<'s>(settings: &'s Settings, key: &str) -> Option<&'s crate::trace::Value> {
    settings.resource.iter().find(|attribute| attribute.key == key).map(|attribute| &attribute.value)
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
    let none = Env::default();
    let from_default = read("", none.clone()).unwrap().service_name;
    assert_eq!((from_default.value.as_str(), from_default.origin), ("backend-flask", Origin::Default));
    let file = "\nservice_name = \"mine\"";
    let from_file = read(file, none).unwrap().service_name;
    assert_eq!(from_file.value, "mine");
    assert_eq!(from_file.origin.to_string(), "telemetry.toml:2");
    let from_env = read(file, Env::from([("OTEL_SERVICE_NAME", "theirs")])).unwrap().service_name;
    assert_eq!((from_env.value.as_str(), from_env.origin), ("theirs", Origin::Environment("OTEL_SERVICE_NAME")));
}

#[test]
fn an_empty_variable_is_an_unset_one() {
    let settings = read("service_name = \"mine\"", Env::from([("OTEL_SERVICE_NAME", " ")])).unwrap();
    assert_eq!(settings.service_name.value, "mine");
}

#[test]
fn a_mistake_in_the_file_is_refused_with_its_place_and_the_nearest_key() {
    for (text, message) in [
        ("service_nam = \"x\"", "telemetry.toml:1:1: unknown key \"service_nam\"; did you mean \"service_name\"?"),
        ("[page]\nenabeld = true", "telemetry.toml:2:1: unknown key \"enabeld\" in [page]; did you mean \"enabled\"?"),
        ("[pgae]", "telemetry.toml:1:2: unknown key \"pgae\"; did you mean \"page\"?"),
        ("[page]\n  enabled = \"yes\"", "telemetry.toml:2:13: [page] enabled must be true or false, not text"),
        ("service_name = 3", "telemetry.toml:1:16: service_name must be text in quotes, not a whole number"),
        (
            "[page]\nhosts = \"backend\"",
            "telemetry.toml:2:9: [page] hosts must be a list of texts, such as [\"one\", \"two\"], not text",
        ),
        ("[page]\nhosts = [\"backend\", 1]", "telemetry.toml:2:9: [page] hosts must contain only texts in quotes"),
        ("page = 3", "telemetry.toml:1:1: [page] must be a table"),
        (
            "[resource]\ndeployment.environment.name = \"x\"",
            "telemetry.toml:2:1: [resource] deployment has dots in it; put the whole key in quotes: \"deployment.name\" = \"value\"",
        ),
        ("[resource]\na = [1]", "telemetry.toml:2:5: [resource] a must be text, a number, true or false, not a list"),
    ] {
        assert_eq!(read(text, Env::default()).err().unwrap().to_string(), message);
    }
    let not_toml = Sources::from_text("a = \n", Env::default()).err().unwrap().to_string();
    assert!(not_toml.starts_with("telemetry.toml:1:5: "), "{not_toml}");
    assert!(!not_toml.contains('\n'), "{not_toml}");
}

#[test]
fn a_file_that_was_named_must_exist() {
    let path = std::path::Path::new("no/such/file.toml");
    let error = Sources::read(Some(path), Env::default()).err().unwrap().to_string();
    assert!(error.contains("no/such/file.toml") && error.contains("cruddur init"), "{error}");
}

#[test]
fn resource_attributes_come_from_both_and_the_environment_wins() {
    let env = Env::from([("OTEL_RESOURCE_ATTRIBUTES", "service.name=shop,team=b%20c,telemetry.sdk.name=x")]);
    let settings = read("[resource]\nteam = \"a\"\ncount = 3", env).unwrap();
    assert_eq!(settings.service_name.value, "shop");
    assert_eq!(settings.resource[0].value, "shop".into());
    assert_eq!(resource(&settings, "team"), Some(&"b c".into()));
    assert_eq!(resource(&settings, "count"), Some(&3_i64.into()));
    assert_eq!(settings.resource.iter().filter(|attribute| attribute.key == "service.name").count(), 1);
}

#[test]
fn one_mistake_discards_all_of_otel_resource_attributes_and_says_so() {
    let env = Env::from([("OTEL_RESOURCE_ATTRIBUTES", "a=1,b")]);
    let (settings, notices) = read_with_findings("", env).unwrap();
    assert_eq!(resource(&settings, "a"), None);
    assert_eq!(notices[..1], ["OTEL_RESOURCE_ATTRIBUTES is ignored: \"b\" is not of the form key=value"]);
}

#[test]
fn a_variable_that_makes_no_sense_is_noticed_and_the_next_source_counts() {
    let read = read_with_findings(
        "traces_sampler = \"always_off\"",
        Env::from([
            ("OTEL_SPAN_EVENT_COUNT_LIMIT", "many"),
            ("OTEL_PROPAGATORS", "b3,xray,xray"),
            ("OTEL_SDK_DISABLED", "yes"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("FRONTEND_URL", "localhost"),
        ]),
    );
    let (settings, notices) = read.unwrap();
    assert_eq!(settings.limits.events, 128);
    assert_eq!(settings.propagators, [Propagator::XRay]);
    assert!(settings.recording);
    assert_eq!(settings.sampler.to_string(), "always_off");
    let notices = notices.join("\n");
    for name in [
        "OTEL_SPAN_EVENT_COUNT_LIMIT=many",
        "\"b3\"",
        "OTEL_SDK_DISABLED=yes",
        "OTEL_TRACES_EXPORTER",
        "FRONTEND_URL=localhost",
    ] {
        assert!(notices.contains(name), "{name} in {notices}");
    }
}

#[test]
fn a_special_variable_that_makes_no_sense_does_not_hide_the_general_one() {
    section::section! {
        struct Table("table") {
            key: u64 = whole(1, 0..=9).from(&["SPECIAL", "GENERAL"]),
        }
    }
    let sources = Sources::from_text("", Env::from([("SPECIAL", "x"), ("GENERAL", "7")])).unwrap();
    let mut findings = Findings::default();
    let (table, _) = Table::read(&sources, &mut findings).unwrap();
    assert_eq!(table.key, Setting { value: 7, origin: Origin::Environment("GENERAL") });
    assert_eq!(texts(findings), ["SPECIAL=x is not a whole number between 0 and 9; it is ignored"]);
}

#[test]
fn a_container_lets_the_page_be_seen_without_an_edit() {
    for (file, variable, expected) in
        [("", "true", true), ("", "", false), ("[page]\nallow_remote = true", "False", false), ("", "yes", false)]
    {
        let settings = read(file, Env::from([("CRUDDUR_PAGE_ALLOW_REMOTE", variable)])).unwrap();
        assert_eq!(settings.page_for_all.value, expected, "{file} {variable}");
    }
}

#[test]
fn an_origin_is_what_a_browser_sends_whatever_the_variable_says() {
    let of = |env: Env| read("", env).unwrap().origins;
    assert_eq!(of(Env::default()), ["http://localhost:3000"]);
    assert_eq!(
        of(Env::from([("FRONTEND_URL", "https://a.test/"), ("BACKEND_URL", "https://b.test/x")])),
        ["https://a.test", "https://b.test"]
    );
    assert_eq!(of(Env::from([("BACKEND_URL", "https://b.test")])), ["http://localhost:3000", "https://b.test"]);
    assert_eq!(of(Env::from([("FRONTEND_URL", "localhost:3000")])), ["http://localhost:3000"]);
    assert_eq!(of(Env::from([("FRONTEND_URL", "capacitor://localhost/x")])), ["capacitor://localhost"]);
    assert_eq!(of(Env::from([("FRONTEND_URL", "http:///x")])), ["http://localhost:3000"]);
}
