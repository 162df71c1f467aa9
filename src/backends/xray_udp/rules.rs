//! Sampling rules, by way of the daemon's TCP port: it signs the calls and passes them on to X-Ray.
//!
//! ```text
//! POST /GetSamplingRules   {}
//!   {"SamplingRuleRecords":[{"SamplingRule":{"RuleName":"Cruddur","Priority":9000,"FixedRate":0.1,"ReservoirSize":5,
//!     "ServiceName":"backend-flask","Host":"*","HTTPMethod":"*","URLPath":"*","Version":1,..}}],"NextToken":null}
//! POST /SamplingTargets    {"SamplingStatisticsDocuments":[{"RuleName":"Cruddur","ClientID":"c6e0232e2df74c3ee4c029ac",
//!     "Timestamp":1795348830,"RequestCount":31,"SampledCount":3,"BorrowCount":3}]}
//!   {"SamplingTargetDocuments":[{"RuleName":"Cruddur","FixedRate":0.1,"ReservoirQuota":2,"ReservoirQuotaTTL":1795348845.0,
//!     "Interval":10}],"LastRuleModification":1530920505.0}
//! ```
//!
//! A compose file that publishes only 2000/udp lets segments through and rules not; every SDK then samples by its own
//! default and does not say so.
//!
//! Specification: <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sampling.html>.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

use crate::backends::Companion;
use crate::delivery::Stop;
use crate::trace::sampler::BackendSampler;
use crate::trace::sampler::xray::{Target, XRaySampler};
use crate::wire::http::{Call, CallError, HttpClient};
use crate::wire::udp::HostPort;

/// Fetches rules and reports what happened under them.
pub(super) struct Rules {
    pub(super) sampler: Arc<XRaySampler>,
    pub(super) client: HttpClient,
    pub(super) daemon: HostPort,
    /// 24 hex digits that tell this process from others.
    pub(super) client_id: String,
    pub(super) rules_interval: Duration,
    pub(super) targets_interval: Duration,
    pub(super) state: State,
}

/// What is known about the daemon's TCP port.
#[derive(Default)]
pub(super) struct State {
    /// What was last said about rules, and about targets: the same is not said again.
    told: HashMap<&'static str, String>,
    /// When X-Ray's rules last changed, by its own clock.
    modified: f64,
    /// When each rule's next report is due, where X-Ray has asked for another pace.
    due: HashMap<String, Instant>,
}

const PATIENCE: Duration = Duration::from_secs(2);
/// How soon a daemon that did not answer is asked again.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// Reports that one call may carry.
const REPORTS_A_CALL: usize = 25;
const MOST_PAGES: usize = 20;

impl Companion for Rules {
    fn run(mut self: Box<Self>, stop: &Stop) {
        let mut rules_due = Instant::now();
        let mut targets_due = Instant::now() + self.targets_interval;
        loop {
            let now = Instant::now();
            if now >= rules_due {
                let wait = if self.fetch_rules() { self.rules_interval } else { TRY_AGAIN.min(self.rules_interval) };
                rules_due = now + wait;
            }
            if now >= targets_due {
                targets_due = now + self.targets_interval;
                if self.report() {
                    rules_due = now;
                    continue;
                }
            }
            let next = rules_due.min(targets_due).saturating_duration_since(Instant::now());
            if stop.interrupts(next) {
                return;
            }
        }
    }
}

impl Rules {
    /// Fetches all rules; false if that failed.
    fn fetch_rules(&mut self) -> bool {
        let mut rules = Vec::new();
        let mut token = Json::Null;
        for _ in 0..MOST_PAGES {
            let question = if token.is_null() { json!({}) } else { json!({ "NextToken": token }) };
            let answer = match self.ask("GetSamplingRules", &question) {
                Ok(answer) => answer,
                Err(problem) => {
                    self.tell("rules", problem.clone(), || log::warn!(target: "xray", "{problem}"));
                    return false;
                }
            };
            let Some(records) = answer.get("SamplingRuleRecords").and_then(Json::as_array).cloned() else {
                let problem = format!(
                    "http://{}/GetSamplingRules: the answer has no SamplingRuleRecords; {}",
                    self.daemon,
                    self.what_rules()
                );
                self.tell("rules", problem.clone(), || log::warn!(target: "xray", "{problem}"));
                return false;
            };
            let modified = records.iter().filter_map(|record| record.get("ModifiedAt")?.as_f64());
            self.state.modified = modified.fold(self.state.modified, f64::max);
            // A rule of a form that is not known here is passed over, as the SDKs do.
            let found = records
                .into_iter()
                .filter_map(|mut record| serde_json::from_value(record.get_mut("SamplingRule")?.take()).ok());
            rules.extend(found);
            token = answer.get("NextToken").cloned().unwrap_or_default();
            if token.is_null() {
                break;
            }
        }
        self.sampler.set_rules(rules, unix_now());
        let state = self.sampler.state(unix_now());
        self.tell("rules", state.clone(), || log::info!(target: "xray", "{state}"));
        true
    }

    /// Reports what is due; true if X-Ray says that its rules have changed.
    fn report(&mut self) -> bool {
        let now = Instant::now();
        let due = |rule: &str| self.state.due.get(rule).is_none_or(|due| *due <= now);
        let statistics = self.sampler.take_statistics(due);
        let mut changed = false;
        for some in statistics.chunks(REPORTS_A_CALL) {
            let documents: Vec<_> = some
                .iter()
                .map(|statistics| {
                    json!({
                        "RuleName": statistics.rule,
                        "ClientID": self.client_id,
                        "Timestamp": unix_now(),
                        "RequestCount": statistics.requests,
                        "SampledCount": statistics.sampled,
                        "BorrowCount": statistics.borrowed,
                    })
                })
                .collect();
            let question = json!({ "SamplingStatisticsDocuments": documents });
            // What was counted is lost with a failed report. X-Ray would take it for load that happened later.
            let answer = match self.ask("SamplingTargets", &question) {
                Ok(answer) => answer,
                Err(problem) => {
                    self.tell("targets", problem.clone(), || log::warn!(target: "xray", "{problem}"));
                    return changed;
                }
            };
            let targets = answer.get("SamplingTargetDocuments").and_then(Json::as_array).cloned().unwrap_or_default();
            let targets: Vec<Target> =
                targets.into_iter().filter_map(|target| serde_json::from_value(target).ok()).collect();
            for target in &targets {
                if let Some(seconds) = target.interval.filter(|seconds| *seconds <= 3600) {
                    let pace = Duration::from_secs(seconds).max(self.targets_interval);
                    // The clock ticks at the pace of reports, so a little early is still this tick.
                    self.state.due.insert(target.rule_name.clone(), now + pace - self.targets_interval / 2);
                }
            }
            self.state.told.remove("targets");
            self.sampler.set_targets(&targets);
            let modified = answer.get("LastRuleModification").and_then(Json::as_f64).unwrap_or_default();
            changed |= modified > self.state.modified;
            self.state.modified = self.state.modified.max(modified);
        }
        changed
    }

    fn ask(&self, operation: &str, question: &Json) -> Result<Json, String> {
        let url = format!("http://{}/{operation}", self.daemon);
        let body = question.to_string();
        let headers = [("content-type".to_owned(), "application/json".to_owned())];
        let call = Call { url: &url, headers: &headers, body: body.as_bytes(), patience: Some(PATIENCE) };
        let rules = self.what_rules();
        match self.client.post(&call) {
            Ok(reply) if reply.status == 200 => serde_json::from_slice(&reply.body).map_err(|error| {
                format!("{url}: the answer is no JSON ({error}); {rules}; next: check the daemon's address")
            }),
            Ok(reply) => Err(format!(
                "{url} answered {}; {rules}; next: look at the daemon's log for credentials and region",
                reply.status
            )),
            Err(CallError::Refused) => Err(format!(
                "{url}: nobody listens on this TCP port; {rules}; next: start the daemon, and publish 2000/tcp beside 2000/udp"
            )),
            Err(CallError::UnknownHost) => {
                Err(format!("{url}: this host name has no address; {rules}; next: check the daemon's address"))
            }
            Err(error) => {
                Err(format!("{url}: no answer ({error:?}); {rules}; next: check that this port is the daemon's"))
            }
        }
    }

    fn what_rules(&self) -> &'static str {
        if self.sampler.has_central_rules(unix_now()) {
            "the rules that are here stay in force for an hour"
        } else {
            "requests are sampled by the local rule"
        }
    }

    /// Says it unless it was the last thing that was said.
    fn tell(&mut self, about: &'static str, text: String, say: impl FnOnce()) {
        if self.state.told.get(about) != Some(&text) {
            say();
            self.state.told.insert(about, text);
        }
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
