//! X-Ray's sampling: each rule takes a fixed number of requests a second (the reservoir), and a
//! share of the others.
//!
//! ```text
//! X-Amzn-Trace-Id: ..;Sampled=1   ──▶ taken          the header always wins, and needs no rule
//! first rule that matches         ──▶ reservoir not yet empty this second?  taken
//!   host, method, path, service       else at random: draw <= rate
//! ```
//!
//! The rules come from X-Ray through the daemon ("central"). Until X-Ray has answered, the rule in
//! `aws/json/xray.json` applies ("local"). A request that it does not match gets the rule of every
//! SDK: one request a second and 5 %. All instances of a service share the central reservoirs:
//! X-Ray assigns a quota to each instance, which borrows one request a second until then.
//!
//! The caller supplies the time and the random number, so that a test can simulate a second.
//!
//! Specification: <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sampling.html>.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use super::rule_file::number;
use super::wildcard::matches;
use crate::sync::lock;
use crate::text::one_line;
use crate::trace::sampler::{BackendSampler, Decision, Reason, RuleDecision, RuleSource, SamplerState, SamplingInput};

/// Sampler, shared by the request thread, which decides, and the poller, which brings rules and
/// quotas.
pub(super) struct XRaySampler {
    names: ServiceNames,
    state: Mutex<RuleSet>,
}

/// Service names of requests.
#[derive(Clone, Debug)]
pub(super) struct ServiceNames {
    /// Name of the service.
    pub(super) service: Arc<str>,
    /// Pattern from `AWS_XRAY_URL`. A host that matches it is the service name of its requests.
    pub(super) dynamic: Option<String>,
}

/// Sampling rule, as X-Ray and `aws/json/xray.json` write it:
///
/// ```text
/// {"RuleName":"Cruddur","ResourceARN":"*","Priority":9000,"FixedRate":0.1,"ReservoirSize":5,
///  "ServiceName":"backend-flask","ServiceType":"*","Host":"*","HTTPMethod":"*","URLPath":"*",
///  "Version":1}
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Rule {
    /// Name of the rule.
    #[serde(rename = "RuleName")]
    pub(super) name: Arc<str>,
    /// Order of the rules: the lowest number first.
    #[serde(deserialize_with = "number_or_text")]
    pub(super) priority: u32,
    /// Share of the other requests to take when the reservoir is empty.
    #[serde(deserialize_with = "number_or_text")]
    pub(super) fixed_rate: f64,
    /// Requests to take per second, in all instances together.
    #[serde(deserialize_with = "number_or_text")]
    pub(super) reservoir_size: u32,
    /// Pattern for the service name.
    pub(super) service_name: String,
    /// Pattern for `Host`.
    pub(super) host: String,
    /// Pattern for the method.
    #[serde(rename = "HTTPMethod")]
    pub(super) http_method: String,
    /// Pattern for the path.
    #[serde(rename = "URLPath")]
    pub(super) url_path: String,
    /// Version of the rule format; only 1 is supported.
    #[serde(default = "one")]
    pub(super) version: u32,
    /// Resources of the rule; only `*` is supported.
    #[serde(rename = "ResourceARN", default = "any")]
    pub(super) resource_arn: String,
    /// Conditions that only some SDKs support. A rule with any is skipped.
    #[serde(default)]
    pub(super) attributes: Option<BTreeMap<String, String>>,
}

/// Counts of one rule since the last report.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Statistics {
    /// Name of the rule.
    pub(super) rule: String,
    /// Requests that matched.
    pub(super) requests: u64,
    /// Matching requests that the quota or the random draw took.
    pub(super) sampled: u64,
    /// Matching requests that were borrowed.
    pub(super) borrowed: u64,
}

/// X-Ray's answer to a report: the quota of one rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Target {
    /// Name of the rule.
    pub(super) rule_name: String,
    /// New share of the rule.
    pub(super) fixed_rate: Option<f64>,
    /// Part of the reservoir that this instance may use.
    pub(super) reservoir_quota: Option<u32>,
    /// End of the quota, in seconds since 1970.
    pub(super) reservoir_quota_ttl: Option<f64>,
    /// Seconds to the next report.
    pub(super) interval: Option<u64>,
}

impl Target {
    /// Reads a target. Returns `None` if it has no name, or a number that cannot be read.
    pub(super) fn from_json(json: &Json) -> Option<Self> {
        let field = |key: &str| match json.get(key) {
            None | Some(Json::Null) => Some(None),
            Some(value) => number(value).map(Some),
        };
        let whole = |key: &str| match field(key)? {
            Some(number) if number < 0.0 || number.fract() != 0.0 => None,
            number => Some(number),
        };
        Some(Self {
            rule_name: json.get("RuleName")?.as_str()?.to_owned(),
            fixed_rate: field("FixedRate")?,
            reservoir_quota: whole("ReservoirQuota")?.map(|quota| quota as u32),
            reservoir_quota_ttl: field("ReservoirQuotaTTL")?,
            interval: whole("Interval")?.map(|seconds| seconds as u64),
        })
    }
}

struct RuleSet {
    central: Option<Central>,
    /// Problem with X-Ray's rules: they cannot be fetched, or come from an unexpected region.
    remark: Option<String>,
    /// Rules of the file, in the order in which they are tried.
    local: Vec<RuleState>,
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
    /// Second that `taken` belongs to.
    second: u64,
    taken: u32,
}

/// Central rules older than this, in seconds, are ignored.
const RULES_LIVE: u64 = 3600;
/// Seconds. A time that is further back than this means that the clock was set back.
const CLOCK_SET_BACK: u64 = 60;
/// Maximum number of rules that are kept. An account has at most 25 by default.
const MAX_RULES: usize = 1000;

impl XRaySampler {
    /// Makes a sampler with these names. The local rules apply until X-Ray sends its own rules.
    pub(super) fn new(names: ServiceNames, local: Vec<Rule>) -> Self {
        let local = local.into_iter().map(RuleState::new).collect();
        let state = RuleSet { central: None, remark: None, local, built_in: RuleState::new(Rule::built_in()) };
        Self { names, state: Mutex::new(state) }
    }

    /// Sets the rules that X-Ray sent, in the order of their priority. A rule of the same name
    /// keeps its counts and its quota.
    pub(super) fn set_rules(&self, rules: Vec<Rule>, now: u64) {
        let mut rules: Vec<Rule> = rules.into_iter().filter(|rule| rule.problem().is_none()).collect();
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

    /// Sets a remark about X-Ray's rules, which stays until the next rules arrive.
    pub(super) fn set_remark(&self, remark: String) {
        self.lock().remark = Some(remark);
    }

    /// Sets quotas and shares. A field that X-Ray leaves out keeps its value.
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

    /// Takes the counts of each central rule that matched requests and whose report is due.
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

    /// Returns the service name of a request to `host`.
    pub(super) fn service_name(&self, host: Option<&str>) -> Arc<str> {
        match (&self.names.dynamic, host) {
            (Some(pattern), Some(host)) if matches(pattern, host) => sanitised_name(host).into(),
            _ => Arc::clone(&self.names.service),
        }
    }

    /// Returns true if rules of X-Ray are in force.
    pub(super) fn has_central_rules(&self, now: u64) -> bool {
        self.lock().fresh_rules(now).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, RuleSet> {
        lock(&self.state)
    }
}

impl BackendSampler for XRaySampler {
    fn decide(&self, input: &SamplingInput<'_>) -> (Decision, Arc<str>) {
        let name = self.service_name(input.host);
        if let Some(sampled) = input.header {
            return (Decision { sampled, reason: Reason::Header }, name);
        }
        let mut state = self.lock();
        let RuleSet { central, local, built_in, .. } = &mut *state;
        let fresh = central.as_mut().filter(|central| central.are_fresh(input.now));
        let found = fresh.and_then(|central| central.rules.iter_mut().find(|rule| rule.rule.matches(input, &name)));
        let (rule, source) = match found {
            Some(rule) => (rule, RuleSource::Central),
            None => match local.iter_mut().find(|rule| rule.rule.matches(input, &name)) {
                Some(rule) => (rule, RuleSource::Local),
                None => (built_in, RuleSource::BuiltIn),
            },
        };
        let (sampled, by) = rule.decide(input, source);
        let reason = Reason::Rule { name: Arc::clone(&rule.rule.name), source, by };
        (Decision { sampled, reason }, name)
    }

    fn describe(&self, now: u64) -> String {
        let state = self.lock();
        let central = state.fresh_rules(now);
        let mut text = String::new();
        let describe = |text: &mut String, rule: &RuleState| {
            let Rule { name, reservoir_size, .. } = &rule.rule;
            let _ = write!(text, " {name} ({reservoir_size} per second, then {} %)", rule.rate * 100.0);
        };
        match central {
            Some(central) if central.rules.is_empty() => text.push_str("X-Ray has no rules"),
            Some(central) => {
                text.push_str("rules from X-Ray:");
                central.rules.iter().for_each(|rule| describe(&mut text, rule));
            }
            None => text.push_str("no rules from X-Ray"),
        }
        match &state.local[..] {
            [] => {}
            [_] => text.push_str("; else the local rule:"),
            _ => text.push_str("; else the local rules:"),
        }
        state.local.iter().for_each(|local| describe(&mut text, local));
        text.push_str("; else");
        describe(&mut text, &state.built_in);
        if let Some(remark) = &state.remark {
            let _ = write!(text, ". {remark}");
        }
        text
    }

    /// Takes the rules of X-Ray, with their quotas and counts.
    fn take_state(&self) -> Option<SamplerState> {
        let central: Central = self.lock().central.take()?;
        Some(Box::new(central))
    }

    fn restore_state(&self, state: SamplerState) {
        if let Ok(central) = state.downcast::<Central>() {
            self.lock().central = Some(*central);
        }
    }
}

impl Rule {
    /// Reads a rule in the format of X-Ray.
    ///
    /// # Errors
    ///
    /// A field is missing, or has another type.
    pub(super) fn from_json(json: &Json) -> Result<Self, String> {
        Self::deserialize(json).map_err(|error: serde_json::Error| one_line(&error.to_string()))
    }

    /// Rule that every SDK applies when it has no other.
    pub(super) fn built_in() -> Self {
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

    /// Returns the reason why the rule cannot be used: it is not supported, or not within X-Ray's
    /// own limits. A rule beyond these limits does not come from X-Ray, and its name must not be
    /// written into every segment.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let short = |text: &str, most: usize| text.chars().count() <= most;
        let short_patterns = short(&self.service_name, 64)
            && short(&self.host, 64)
            && short(&self.http_method, 10)
            && short(&self.url_path, 128);
        // Names go into log lines and reasons.
        let is_name = (1..=32).contains(&self.name.chars().count()) && !self.name.chars().any(char::is_control);
        if self.attributes.as_ref().is_some_and(|attributes| !attributes.is_empty()) {
            Some("it has Attributes, which are not supported")
        } else if self.version != 1 {
            Some("its Version is not 1")
        } else if self.resource_arn != "*" {
            Some("its ResourceARN is not *")
        } else if !(0.0..=1.0).contains(&self.fixed_rate) {
            Some("FixedRate must be from 0 to 1")
        } else if !is_name {
            Some("its name must have 1 to 32 characters")
        } else if !short_patterns {
            Some("one of its patterns is longer than X-Ray allows")
        } else {
            None
        }
    }

    /// Returns true if a request matches all patterns. As in the SDKs, a request without a `Host`
    /// matches any host pattern, and `ServiceType`, the kind of AWS machine, is not compared.
    fn matches(&self, input: &SamplingInput<'_>, service_name: &str) -> bool {
        input.host.is_none_or(|host| matches(&self.host, host))
            && matches(&self.http_method, input.method)
            && matches(&self.url_path, input.path)
            && matches(&self.service_name, service_name)
    }
}

impl RuleState {
    fn new(rule: Rule) -> Self {
        let rate = rule.fixed_rate;
        Self { rule, rate, statistics: Statistics::default(), quota: None, quota_until: 0.0, second: 0, taken: 0 }
    }

    fn decide(&mut self, input: &SamplingInput<'_>, source: RuleSource) -> (bool, RuleDecision) {
        self.statistics.requests += 1;
        // A request with a slow body arrived in an earlier second but counts in this one. Only a
        // clock that was set back restarts the count.
        if input.now > self.second || input.now + CLOCK_SET_BACK < self.second {
            self.second = input.now;
            self.taken = 0;
        }
        let quota = self.quota.filter(|_| self.quota_until >= input.now as f64);
        // A local reservoir belongs to this instance alone. A central reservoir is shared: the
        // instance has a quota, or borrows one request per second.
        let (size, borrows) = match (source, quota) {
            (RuleSource::Local | RuleSource::BuiltIn, _) => (self.rule.reservoir_size, false),
            (RuleSource::Central, Some(quota)) => (quota, false),
            (RuleSource::Central, None) => (self.rule.reservoir_size.min(1), true),
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
        let sampled = input.draw <= self.rate && self.rate > 0.0;
        self.statistics.sampled += u64::from(sampled);
        (sampled, RuleDecision::Rate { draw: input.draw, rate: self.rate })
    }
}

/// Removes the characters that X-Ray forbids in a name. Allowed are 1 to 200 letters, digits,
/// blanks and `_.:/%&#=+-@`. X-Ray drops a segment with any other name, which only the daemon's log
/// reports.
pub(super) fn sanitised_name(name: &str) -> Cow<'_, str> {
    if name.len() <= MAX_NAME && name.bytes().all(|byte| IS_ALLOWED_ASCII[usize::from(byte)]) {
        return Cow::Borrowed(name);
    }
    let is_allowed = |c: &char| if c.is_ascii() { IS_ALLOWED_ASCII[*c as usize] } else { c.is_alphanumeric() };
    if name.len() <= MAX_NAME && name.chars().all(|c| is_allowed(&c)) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.chars().filter(is_allowed).take(MAX_NAME).collect())
}

const MAX_NAME: usize = 200;

/// True at the place of each ASCII character that may be in a name.
const IS_ALLOWED_ASCII: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        // The ranges are `%&`, `-./0-9:` and `@A-Z`.
        table[byte] = matches!(byte as u8, b' ' | b'#' | b'%'..=b'&' | b'+' | b'-'..=b':' | b'=' | b'@'..=b'Z' | b'_' | b'a'..=b'z');
        byte += 1;
    }
    table
};

/// Reads a number. Some programs write numbers as text.
fn number_or_text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + FromStr,
{
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "it is not a number")]
    enum NumberOrText<T> {
        Number(T),
        Text(String),
    }
    match NumberOrText::deserialize(deserializer)? {
        NumberOrText::Number(number) => Ok(number),
        NumberOrText::Text(text) => text.trim().parse().map_err(|_| D::Error::custom("a text that is not a number")),
    }
}

fn any() -> String {
    "*".to_owned()
}

fn one() -> u32 {
    1
}

#[cfg(test)]
mod tests;
