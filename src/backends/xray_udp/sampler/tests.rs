use super::*;

const COURSE: &str = include_str!("../../../../aws/json/xray.json");

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    sampling_rule: Rule,
}

fn course_rule() -> Rule {
    serde_json::from_str::<File>(COURSE).unwrap().sampling_rule
}

fn rule(name: &str, priority: u32) -> Rule {
    Rule { name: name.into(), priority, ..course_rule() }
}

fn sampler(dynamic: Option<&str>) -> XRaySampler {
    let names = ServiceNames { service: "backend-flask".into(), dynamic: dynamic.map(str::to_owned) };
    XRaySampler::new(names, vec![course_rule()])
}

fn at(now: u64, draw: f64) -> SamplingInput<'static> {
    SamplingInput { host: Some("localhost:4567"), method: "GET", path: "/api/activities/home", header: None, now, draw }
}

fn rule_of(decision: &Decision) -> (&str, RuleSource, RuleDecision) {
    match &decision.reason {
        Reason::Rule { name, source, by } => (name, *source, *by),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_courses_rule_takes_five_a_second_and_then_a_tenth() {
    let sampler = sampler(None);
    let lots = (0..30).map(|n| f64::from(n) / 30.0);
    let draws = std::iter::repeat_n(0.99, 5).chain(lots);
    let decisions: Vec<_> = draws.map(|draw| sampler.decide(&at(1000, draw)).0).collect();
    assert_eq!(decisions.len(), 35);
    assert_eq!(decisions.iter().filter(|decision| decision.sampled).count(), 5 + 4);
    assert!(decisions.iter().all(|decision| rule_of(decision).0 == "Cruddur"));
    assert_eq!(decisions[4].to_string(), "sampled: rule Cruddur (local), reservoir 5 of 5 this second");
    assert_eq!(decisions[20].to_string(), "not sampled: rule Cruddur (local), drew 0.5000, sampled up to 0.1");
    assert!(sampler.decide(&at(1001, 0.99)).0.sampled, "the next second has a full reservoir");
}

#[test]
fn the_header_always_wins_and_is_counted_nowhere() {
    let sampler = sampler(None);
    sampler.set_rules(vec![rule("central", 1)], 1000);
    for header in [true, false] {
        let (decision, _) = sampler.decide(&SamplingInput { header: Some(header), ..at(1000, 0.0) });
        assert_eq!(decision, Decision { sampled: header, reason: Reason::Header });
    }
    assert!(sampler.take_statistics(|_| true).is_empty());
}

#[test]
fn central_rules_go_by_priority_then_by_name_and_unusable_ones_are_passed_over() {
    let sampler = sampler(None);
    let newer = Rule { version: 2, ..rule("newer", 1) };
    let elsewhere = Rule { resource_arn: "arn:x".to_owned(), ..rule("elsewhere", 1) };
    let conditional = Rule { attributes: Some([("a".to_owned(), "b".to_owned())].into()), ..rule("conditional", 1) };
    let posts = Rule { http_method: "POST".to_owned(), ..rule("posts", 1) };
    let default = rule("Default", 10_000);
    sampler.set_rules(vec![default, rule("b", 5), newer, rule("a", 5), elsewhere, conditional, posts], 1000);
    let (decision, _) = sampler.decide(&at(1000, 0.5));
    assert_eq!(rule_of(&decision), ("a", RuleSource::Central, RuleDecision::Borrowed));
    let (decision, _) = sampler.decide(&SamplingInput { method: "POST", ..at(1000, 0.5) });
    assert_eq!(rule_of(&decision).0, "posts");
}

#[test]
fn without_a_quota_one_a_second_is_borrowed_and_with_one_the_quota_is_taken_until_it_ends() {
    let sampler = sampler(None);
    sampler.set_rules(vec![rule("Cruddur", 1)], 1000);
    let by = |now, draw| rule_of(&sampler.decide(&at(now, draw)).0).2;
    assert_eq!(by(1000, 0.9), RuleDecision::Borrowed);
    assert_eq!(by(1000, 0.9), RuleDecision::Rate { draw: 0.9, rate: 0.1 });
    assert_eq!(by(1001, 0.9), RuleDecision::Borrowed);
    sampler.set_targets(&[Target {
        rule_name: "Cruddur".to_owned(),
        fixed_rate: Some(0.2),
        reservoir_quota: Some(2),
        reservoir_quota_ttl: Some(1003.0),
        interval: None,
    }]);
    assert_eq!(by(1002, 0.9), RuleDecision::Reservoir { taken: 1, size: 2 });
    assert_eq!(by(1002, 0.9), RuleDecision::Reservoir { taken: 2, size: 2 });
    assert_eq!(by(1002, 0.15), RuleDecision::Rate { draw: 0.15, rate: 0.2 });
    assert_eq!(by(1004, 0.9), RuleDecision::Borrowed);
    let statistics = Statistics { rule: "Cruddur".to_owned(), requests: 7, sampled: 3, borrowed: 3 };
    assert_eq!(sampler.take_statistics(|_| true), [statistics]);
    assert!(sampler.take_statistics(|_| true).is_empty());
}

#[test]
fn an_empty_reservoir_is_never_borrowed_from_and_a_rate_of_nothing_takes_nothing() {
    let sampler = sampler(None);
    sampler.set_rules(vec![Rule { reservoir_size: 0, fixed_rate: 0.0, ..rule("none", 1) }], 1000);
    assert!(!sampler.decide(&at(1000, 0.0)).0.sampled);
}

#[test]
fn rules_that_are_an_hour_old_are_no_longer_believed() {
    let sampler = sampler(None);
    sampler.set_rules(vec![rule("central", 1)], 1000);
    assert_eq!(rule_of(&sampler.decide(&at(4599, 0.5)).0).1, RuleSource::Central);
    assert_eq!(rule_of(&sampler.decide(&at(4600, 0.5)).0).1, RuleSource::Local);
}

#[test]
fn rules_that_are_fetched_again_keep_their_counts_and_quotas() {
    let sampler = sampler(None);
    sampler.set_rules(vec![rule("Cruddur", 1)], 1000);
    let quota = Target { reservoir_quota: Some(9), reservoir_quota_ttl: Some(2000.0), ..Target::default() };
    sampler.set_targets(&[Target { rule_name: "Cruddur".to_owned(), ..quota }]);
    let _ = sampler.decide(&at(1000, 0.5));
    sampler.set_rules(vec![rule("new", 9), rule("Cruddur", 1)], 1001);
    assert_eq!(rule_of(&sampler.decide(&at(1001, 0.5)).0).2, RuleDecision::Reservoir { taken: 1, size: 9 });
    assert_eq!(sampler.take_statistics(|_| true)[0].requests, 2);
}

#[test]
fn a_sampler_that_takes_the_place_of_another_knows_its_rules_and_counts() {
    let before = sampler(None);
    before.set_rules(vec![Rule { fixed_rate: 0.0, reservoir_size: 0, ..rule("nothing", 1) }], 1000);
    assert!(!before.decide(&at(1000, 0.0)).0.sampled);
    let after = sampler(None);
    after.restore_state(before.take_state().unwrap());
    let decision = after.decide(&at(1001, 0.0)).0;
    assert_eq!((decision.sampled, rule_of(&decision).1), (false, RuleSource::Central));
    assert_eq!(after.take_statistics(|_| true)[0].requests, 2);
    assert!(before.take_state().is_none() && before.take_statistics(|_| true).is_empty());
    after.restore_state(Box::new("of another kind"));
    assert!(after.has_central_rules(1001));
}

#[test]
fn a_host_that_matches_is_its_own_service_and_the_rule_for_ours_misses_it() {
    let sampler = sampler(Some("*4567-*"));
    let (decision, name) = sampler.decide(&SamplingInput { host: Some("4567-abc.gitpod.io"), ..at(1000, 0.5) });
    assert_eq!(&*name, "4567-abc.gitpod.io");
    assert_eq!(rule_of(&decision).1, RuleSource::BuiltIn);
    let (decision, name) = sampler.decide(&at(1000, 0.5));
    assert_eq!((&*name, rule_of(&decision).0), ("backend-flask", "Cruddur"));
}

#[test]
fn names_are_dynamic_as_in_the_sdk() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../../../tests/data/xray/sdk-vectors.json")).unwrap();
    for case in vectors["dynamic_name"].as_array().unwrap() {
        let sampler = sampler(case["pattern"].as_str());
        assert_eq!(&*sampler.service_name(case["host"].as_str()), case["name"].as_str().unwrap(), "{case}");
    }
}

#[test]
fn names_keep_what_the_service_allows_where_the_sdk_keeps_what_it_refuses() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../../../tests/data/xray/sdk-vectors.json")).unwrap();
    for case in vectors["python_name_filter"].as_array().unwrap() {
        let (input, theirs) = (case["input"].as_str().unwrap(), case["output"].as_str().unwrap());
        // The SDK keeps these characters, and the service then refuses the document.
        let ours: String = theirs.chars().filter(|c| !",\"|[]{}".contains(*c)).collect();
        assert_eq!(sanitised_name(input), ours);
    }
    assert_eq!(sanitised_name(&"é".repeat(300)).chars().count(), 200);
    assert_eq!(sanitised_name("a\\b\tc"), "abc");
}

#[test]
fn the_state_says_which_rules_are_in_force() {
    let sampler = sampler(None);
    let ours = "; else the local rule: Cruddur (5 per second, then 10 %); else Default (1 per second, then 5 %)";
    assert_eq!(sampler.describe(0), format!("no rules from X-Ray{ours}"));
    sampler.set_rules(vec![], 0);
    assert_eq!(sampler.describe(0), format!("X-Ray has no rules{ours}"));
    sampler.set_rules(vec![rule("x", 1)], 0);
    assert_eq!(sampler.describe(3599), format!("rules from X-Ray: x (5 per second, then 10 %){ours}"));
    assert_eq!(sampler.describe(3600), format!("no rules from X-Ray{ours}"));
}

#[test]
fn a_request_that_arrived_earlier_does_not_fill_the_reservoir_again() {
    let sampler = sampler(None);
    let taken = (0..40).filter(|n| sampler.decide(&at(1000 - n % 2, 0.99)).0.sampled).count();
    assert_eq!(taken, 5);
    assert!(sampler.decide(&at(900, 0.99)).0.sampled, "a clock that was set back begins anew");
}

#[test]
fn rules_that_x_ray_could_not_have_sent_are_passed_over() {
    let sampler = sampler(None);
    sampler.set_rules(
        vec![
            rule(&"n".repeat(33), 1),
            Rule { host: "h".repeat(65), ..rule("host", 1) },
            Rule { fixed_rate: 1e308, ..rule("rate", 1) },
            Rule { fixed_rate: f64::NAN, ..rule("nan", 1) },
            rule("good", 9),
        ],
        1000,
    );
    assert_eq!(rule_of(&sampler.decide(&at(1000, 0.5)).0).0, "good");
    sampler.set_targets(&[Target { rule_name: "good".to_owned(), fixed_rate: Some(-5.0), ..Target::default() }]);
    assert_eq!(rule_of(&sampler.decide(&at(1000, 0.5)).0).2, RuleDecision::Rate { draw: 0.5, rate: 0.1 });
}
