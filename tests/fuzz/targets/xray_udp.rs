//! Sampling rules and targets from the X-Ray daemon, as a child of `backends::xray_udp`.

use serde_json::Value as Json;

use super::rules::FetchedRule;
use super::sampler::{ServiceNames, Target, XRaySampler};
use crate::fuzz::assert_one_line;
use crate::trace::sampler::{BackendSampler, SamplingInput};

const NOW: u64 = 1_700_000_000;

/// The JSON of both operations in one: whatever the daemon answers, requests get decisions, and the
/// reasons are single lines.
pub(crate) fn rules(input: &[u8]) {
    let Ok(mut json) = serde_json::from_slice::<Json>(input) else { return };
    let names = ServiceNames { service: "backend-flask".into(), dynamic: None };
    let sampler = XRaySampler::new(names, Vec::new());
    let mut list = |key: &str| json.get_mut(key).and_then(Json::as_array_mut).map(std::mem::take).unwrap_or_default();
    let records = list("SamplingRuleRecords").into_iter();
    let fetched: Vec<_> =
        records.filter_map(|mut record| Some(FetchedRule::from_json(record.get_mut("SamplingRule")?.take()))).collect();
    for rule in &fetched {
        assert_one_line(&rule.name, 1000);
        assert_one_line(rule.region.as_deref().unwrap_or_default(), 32);
    }
    sampler.set_rules(fetched.into_iter().filter_map(|rule| rule.rule).collect(), NOW);
    let documents = list("SamplingTargetDocuments").into_iter();
    let targets: Vec<Target> = documents.filter_map(|target| Target::from_json(&target)).collect();
    sampler.set_targets(&targets);
    // 1,000 rules, each with a name of 32 characters, and two numbers.
    assert_one_line(&sampler.describe(NOW), 250_000);
    let mut sampled = 0;
    for now in [NOW, NOW, NOW + 1, NOW + 4000, NOW - 100] {
        let input = SamplingInput {
            host: Some("localhost:4567"),
            method: "GET",
            path: "/api/activities/home",
            header: None,
            now,
            draw: 0.5,
        };
        let (decision, name) = sampler.decide(&input);
        assert_one_line(&decision.to_string(), 500);
        assert_eq!(&*name, "backend-flask");
        sampled += u64::from(decision.sampled);
    }
    let statistics = sampler.take_statistics(|_| true);
    assert!(statistics.iter().map(|rule| rule.sampled + rule.borrowed).sum::<u64>() <= sampled);
    assert!(statistics.iter().all(|rule| rule.sampled + rule.borrowed <= rule.requests && rule.requests <= 5));
    assert_eq!(sampler.take_statistics(|_| true), []);
}
