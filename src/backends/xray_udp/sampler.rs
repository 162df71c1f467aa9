//! X-Ray's sampling: rules that say how many requests a second are surely taken (the reservoir), and which share of the
//! others.
//!
//! ```text
//! X-Amzn-Trace-Id: ..;Sampled=1   ──▶ taken           the header always wins, and needs no rule
//! first rule that matches         ──▶ reservoir not yet empty this second?  taken
//!   host, method, path, service                     else a lot: draw <= rate
//! ```
//!
//! The rules come from X-Ray itself, asked through the daemon ("central"); as long as it has not answered, from
//! `aws/json/xray.json` ("local"); where that does not match either, from what every SDK does: one a second and 5 %.
//! Central reservoirs are shared by all instances of a service: X-Ray hands out quotas, and until it has, one request a
//! second is borrowed.
//!
//! Clock and lot come from outside, so that a second can be played through in a test.
//!
//! Specification: <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sampling.html>.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};

use super::wildcard::matches;
use crate::sync::lock;
use crate::trace::sampler::{BackendSampler, Decision, Reason, RuleDecision, RuleSource, SamplerState, SamplingInput};

/// The sampler, shared by the request thread, which decides, and the poller, which brings rules and quotas.
pub(super) struct XRaySampler {
    names: ServiceNames,
    state: Mutex<RuleSet>,
}

/// Under which service name a request is filed.
#[derive(Clone, Debug)]
pub(super) struct ServiceNames {
    /// The name of the service.
    pub(super) service: Arc<str>,
    /// Hosts that match this pattern are filed under their own name; `AWS_XRAY_URL`.
    pub(super) dynamic: Option<String>,
}

/// A sampling rule, as X-Ray and `aws/json/xray.json` write it.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Rule {
    /// Its name.
    #[serde(rename = "RuleName")]
    pub(super) name: Arc<str>,
    /// Lower goes first.
    pub(super) priority: u32,
    /// The share to take when the reservoir is empty.
    pub(super) fixed_rate: f64,
    /// How many to take a second, in all instances together.
    pub(super) reservoir_size: u32,
    /// A pattern for the service name.
    pub(super) service_name: String,
    /// A pattern for `Host`.
    pub(super) host: String,
    /// A pattern for the method.
    #[serde(rename = "HTTPMethod")]
    pub(super) http_method: String,
    /// A pattern for the path.
    #[serde(rename = "URLPath")]
    pub(super) url_path: String,
    /// The form of the rule; only 1 is known.
    #[serde(default = "one")]
    pub(super) version: u32,
    /// Which resources it is for; only rules for all are used.
    #[serde(rename = "ResourceARN", default = "any")]
    pub(super) resource_arn: String,
    /// Conditions that only some SDKs can check; a rule that has any is passed over.
    #[serde(default)]
    pub(super) attributes: Option<BTreeMap<String, String>>,
}

/// What happened under one rule since the last report.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Statistics {
    /// The rule.
    pub(super) rule: String,
    /// Requests that matched.
    pub(super) requests: u64,
    /// Of those, taken from the quota or by lot.
    pub(super) sampled: u64,
    /// Of those, borrowed.
    pub(super) borrowed: u64,
}

/// What X-Ray says about one rule in return.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Target {
    /// The rule.
    pub(super) rule_name: String,
    /// Replaces the rule's share.
    pub(super) fixed_rate: Option<f64>,
    /// Our part of the reservoir.
    pub(super) reservoir_quota: Option<u32>,
    /// Until when it is ours, in seconds since 1970.
    #[serde(rename = "ReservoirQuotaTTL")]
    pub(super) reservoir_quota_ttl: Option<f64>,
    /// How many seconds to the next report.
    pub(super) interval: Option<u64>,
}

struct RuleSet {
    central: Option<Central>,
    /// What is odd about X-Ray's rules: that they cannot be had, or come from an unexpected place.
    remark: Option<String>,
    local: Option<RuleState>,
    built_in: RuleState,
}

struct Central {
    rules: Vec<RuleState>,
    fetched: u64,
}

impl RuleSet {
    fn fresh_rules(&self, now: u64) -> Option<&Central> {
        self.central.as_ref().filter(|central| central.are_fresh(now))
    }
}

impl Central {
    fn are_fresh(&self, now: u64) -> bool {
        now < self.fetched + RULES_LIVE
    }
}

struct RuleState {
    rule: Rule,
    rate: f64,
    statistics: Statistics,
    quota: Option<u32>,
    quota_until: f64,
    /// The second that `taken` counts in.
    second: u64,
    taken: u32,
}

/// Central rules older than this are no longer believed.
const RULES_LIVE: u64 = 3600;
/// A request that arrived so many seconds ago did not: the clock was set back.
const CLOCK_SET_BACK: u64 = 60;
/// Rules that one answer may bring; an account has 25 by default.
const MAX_RULES: usize = 1000;

impl XRaySampler {
    /// A sampler with these names, and this rule until X-Ray sends its own.
    #[must_use]
    pub(super) fn new(names: ServiceNames, local: Option<Rule>) -> Self {
        let local = local.map(RuleState::new);
        let state = RuleSet { central: None, remark: None, local, built_in: RuleState::new(Rule::built_in()) };
        Self { names, state: Mutex::new(state) }
    }

    /// Takes over the rules that X-Ray sent, in the order of their priority. What is already counted under a rule of the
    /// same name stays counted.
    pub(super) fn set_rules(&self, rules: Vec<Rule>, now: u64) {
        let mut rules: Vec<Rule> = rules.into_iter().filter(Rule::is_usable).collect();
        rules.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
        rules.truncate(MAX_RULES);
        let mut state = self.lock();
        let mut before = state.central.take().map(|central| central.rules).unwrap_or_default();
        let rules = rules
            .into_iter()
            .map(|rule| match before.iter().position(|known| known.rule.name == rule.name) {
                Some(index) => {
                    let known = before.swap_remove(index);
                    let rate = if rule.fixed_rate == known.rule.fixed_rate { known.rate } else { rule.fixed_rate };
                    RuleState { rate, rule, ..known }
                }
                None => RuleState::new(rule),
            })
            .collect();
        state.central = Some(Central { rules, fetched: now });
        state.remark = None;
    }

    /// This is to be said of X-Ray's rules until the next ones come.
    pub(super) fn set_remark(&self, remark: String) {
        self.lock().remark = Some(remark);
    }

    /// Takes over quotas and shares. What X-Ray leaves out stays as it was.
    pub(super) fn set_targets(&self, targets: &[Target]) {
        let mut state = self.lock();
        let Some(central) = &mut state.central else { return };
        for target in targets {
            let Some(rule) = central.rules.iter_mut().find(|rule| *rule.rule.name == *target.rule_name) else {
                continue;
            };
            rule.rate = target.fixed_rate.filter(|rate| (0.0..=1.0).contains(rate)).unwrap_or(rule.rate);
            rule.quota = target.reservoir_quota.or(rule.quota);
            rule.quota_until = target.reservoir_quota_ttl.unwrap_or(rule.quota_until);
        }
    }

    /// What happened under each central rule that saw requests and whose report is due, counted anew from here on.
    #[must_use]
    pub(super) fn take_statistics(&self, due: impl Fn(&str) -> bool) -> Vec<Statistics> {
        let mut state = self.lock();
        let rules = state.central.iter_mut().flat_map(|central| &mut central.rules);
        let busy = rules.filter(|rule| rule.statistics.requests > 0 && due(&rule.rule.name));
        busy.map(|rule| {
            let statistics = std::mem::take(&mut rule.statistics);
            Statistics { rule: rule.rule.name.to_string(), ..statistics }
        })
        .collect()
    }

    /// The name under which a request to `host` is filed.
    #[must_use]
    pub(super) fn service_name(&self, host: Option<&str>) -> Arc<str> {
        match (&self.names.dynamic, host) {
            (Some(pattern), Some(host)) if matches(pattern, host) => sanitised_name(host).into(),
            _ => Arc::clone(&self.names.service),
        }
    }

    /// Whether rules of X-Ray are in force.
    #[must_use]
    pub(super) fn has_central_rules(&self, now: u64) -> bool {
        self.lock().fresh_rules(now).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, RuleSet> {
        lock(&self.state)
    }
}

impl BackendSampler for XRaySampler {
    fn decide(&self, arrival: &SamplingInput<'_>) -> (Decision, Arc<str>) {
        let name = self.service_name(arrival.host);
        if let Some(sampled) = arrival.header {
            return (Decision { sampled, reason: Reason::Header }, name);
        }
        let mut state = self.lock();
        let RuleSet { central, local, built_in, .. } = &mut *state;
        let fresh = central.as_mut().filter(|central| central.are_fresh(arrival.now));
        let found = fresh.and_then(|central| central.rules.iter_mut().find(|rule| rule.rule.matches(arrival, &name)));
        let (rule, source) = match found {
            Some(rule) => (rule, RuleSource::Central),
            None => match local.as_mut().filter(|rule| rule.rule.matches(arrival, &name)) {
                Some(rule) => (rule, RuleSource::Local),
                None => (built_in, RuleSource::BuiltIn),
            },
        };
        let (sampled, by) = rule.decide(arrival, source == RuleSource::Central);
        let reason = Reason::Rule { name: Arc::clone(&rule.rule.name), source, by };
        (Decision { sampled, reason }, name)
    }

    fn state(&self, now: u64) -> String {
        let state = self.lock();
        let central = state.fresh_rules(now);
        let mut text = String::new();
        let describe = |text: &mut String, rule: &RuleState| {
            let Rule { name, reservoir_size, .. } = &rule.rule;
            let _ = write!(text, " {name} ({reservoir_size} a second, then {} %)", rule.rate * 100.0);
        };
        match central {
            Some(central) if central.rules.is_empty() => text.push_str("X-Ray has no rules"),
            Some(central) => {
                text.push_str("rules from X-Ray:");
                central.rules.iter().for_each(|rule| describe(&mut text, rule));
            }
            None => text.push_str("no rules from X-Ray"),
        }
        if let Some(local) = &state.local {
            text.push_str("; else the local one:");
            describe(&mut text, local);
        }
        text.push_str("; else");
        describe(&mut text, &state.built_in);
        if let Some(remark) = &state.remark {
            let _ = write!(text, ". {remark}");
        }
        text
    }

    /// The rules of X-Ray, with quotas and what is counted under them.
    fn give_away(&self) -> Option<SamplerState> {
        let central: Central = self.lock().central.take()?;
        Some(Box::new(central))
    }

    fn take_over(&self, learned: SamplerState) {
        if let Ok(central) = learned.downcast::<Central>() {
            self.lock().central = Some(*central);
        }
    }
}

impl Rule {
    /// What every SDK does without rules.
    fn built_in() -> Self {
        Self {
            name: "Default".into(),
            priority: 10_000,
            fixed_rate: 0.05,
            reservoir_size: 1,
            service_name: any(),
            host: any(),
            http_method: any(),
            url_path: any(),
            version: 1,
            resource_arn: any(),
            attributes: None,
        }
    }

    /// X-Ray itself keeps to these limits; what passes them cannot come from it, and is not carried on every segment.
    fn is_usable(&self) -> bool {
        let short = |text: &str, most: usize| text.chars().count() <= most;
        let within_limits = (1..=32).contains(&self.name.chars().count())
            && short(&self.service_name, 64)
            && short(&self.host, 64)
            && short(&self.http_method, 10)
            && short(&self.url_path, 128)
            && (0.0..=1.0).contains(&self.fixed_rate);
        within_limits
            && self.version == 1
            && self.resource_arn == "*"
            && self.attributes.as_ref().is_none_or(BTreeMap::is_empty)
    }

    /// What a request does not have matches any pattern, as in the SDKs: a `Host`, and always the `ServiceType`, the kind
    /// of AWS machine.
    fn matches(&self, arrival: &SamplingInput<'_>, service_name: &str) -> bool {
        arrival.host.is_none_or(|host| matches(&self.host, host))
            && matches(&self.http_method, arrival.method)
            && matches(&self.url_path, arrival.path)
            && matches(&self.service_name, service_name)
    }
}

impl RuleState {
    fn new(rule: Rule) -> Self {
        let rate = rule.fixed_rate;
        Self { rule, rate, statistics: Statistics::default(), quota: None, quota_until: 0.0, second: 0, taken: 0 }
    }

    fn decide(&mut self, arrival: &SamplingInput<'_>, central: bool) -> (bool, RuleDecision) {
        self.statistics.requests += 1;
        // A request whose body took its time arrived in an earlier second; it counts in this one. Only a clock that was set
        // back begins anew.
        if arrival.now > self.second || arrival.now + CLOCK_SET_BACK < self.second {
            self.second = arrival.now;
            self.taken = 0;
        }
        let quota = self.quota.filter(|_| self.quota_until >= arrival.now as f64);
        // A local reservoir is all ours. Of a central one we have a quota, or borrow one a second.
        let (size, borrows) = match (central, quota) {
            (false, _) => (self.rule.reservoir_size, false),
            (true, Some(quota)) => (quota, false),
            (true, None) => (self.rule.reservoir_size.min(1), true),
        };
        if self.taken < size {
            self.taken += 1;
            if borrows {
                self.statistics.borrowed += 1;
                return (true, RuleDecision::Borrowed);
            }
            self.statistics.sampled += 1;
            return (true, RuleDecision::Reservoir { taken: self.taken, size });
        }
        let sampled = arrival.draw <= self.rate && self.rate > 0.0;
        self.statistics.sampled += u64::from(sampled);
        (sampled, RuleDecision::Rate { draw: arrival.draw, rate: self.rate })
    }
}

/// A name that X-Ray accepts: 1 to 200 letters, digits, blanks and `_.:/%&#=+-@`. What is not allowed is left out; a
/// segment with any other name is thrown away by the service, and only the daemon's log says so.
#[must_use]
pub(super) fn sanitised_name(name: &str) -> String {
    let allowed = |c: &char| c.is_alphanumeric() || *c == ' ' || "_.:/%&#=+-@".contains(*c);
    name.chars().filter(allowed).take(MAX_NAME).collect()
}

const MAX_NAME: usize = 200;

fn any() -> String {
    "*".to_owned()
}

fn one() -> u32 {
    1
}

#[cfg(test)]
mod tests;
