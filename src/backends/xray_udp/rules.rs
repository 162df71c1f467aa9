//! Poller of the sampling rules: fetches the rules of the AWS account, and reports how many
//! requests they matched. It calls the daemon's TCP port. The daemon signs the calls and forwards
//! them to X-Ray.
//!
//! ```text
//! POST /GetSamplingRules
//! {}
//!   {"SamplingRuleRecords":[{"SamplingRule":{"RuleName":"Cruddur","Priority":9000,
//!     "FixedRate":0.1,"ReservoirSize":5,"ServiceName":"backend-flask","Host":"*",
//!     "HTTPMethod":"*","URLPath":"*","Version":1,..}}],"NextToken":null}
//!
//! POST /SamplingTargets
//! {"SamplingStatisticsDocuments":[{"RuleName":"Cruddur","ClientID":"c6e0232e2df74c3ee4c029ac",
//!   "Timestamp":1795348830,"RequestCount":31,"SampledCount":3,"BorrowCount":3}]}
//!   {"SamplingTargetDocuments":[{"RuleName":"Cruddur","FixedRate":0.1,"ReservoirQuota":2,
//!     "ReservoirQuotaTTL":1795348845.0,"Interval":10}],"LastRuleModification":1530920505.0}
//! ```
//!
//! If a compose file publishes only 2000/udp, the segments reach the daemon but these calls do not.
//! Every SDK then samples by its own default, without a message.
//!
//! Specification: <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sampling.html>.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::Level;
use serde_json::{Value as Json, json};

use super::rule_file::number;
use super::sampler::{Rule, Target, XRaySampler};
use super::wildcard::matches;
use crate::text::encoding::without_mark;
use crate::text::{Message, Url, one_line, reason_phrase};

use crate::delivery::{BackgroundTask, Stop};
use crate::settings::{Finding, Severity};
use crate::trace::sampler::BackendSampler;
use crate::wire::http::{Call, CallError, HttpClient};
use crate::wire::udp::HostPort;

/// Poller: fetches the rules, and reports the counts of each rule to X-Ray.
pub(super) struct Rules {
    pub(super) sampler: Arc<XRaySampler>,
    pub(super) client: HttpClient,
    pub(super) daemon: HostPort,
    /// URL of the daemon's TCP port.
    pub(super) url: Url,
    /// Random id of this process: 24 hex digits.
    pub(super) client_id: String,
    pub(super) rules_interval: Duration,
    pub(super) targets_interval: Duration,
    /// Region from the environment, and the name of its variable. The daemon should use the same
    /// one.
    pub(super) region: Option<(String, &'static str)>,
    pub(super) state: PollerState,
}

/// State of the poller.
#[derive(Default)]
pub(super) struct PollerState {
    /// Last logged message about each topic, such as rules or targets. A repeated message is not
    /// logged again.
    reported: HashMap<&'static str, Message>,
    /// Time of the last change of X-Ray's rules, by X-Ray's clock.
    modified: f64,
    /// Region of the daemon, taken from the ARN of a rule.
    region: Option<String>,
    /// Name of each rule, and its pattern for the service.
    services: Vec<(String, String)>,
    /// Time of the next report of each rule for which X-Ray has asked for an interval.
    due: HashMap<String, Instant>,
    /// Number of reports of statistics that have failed in a row while rules could be fetched.
    failed_reports: u32,
}

const TIMEOUT: Duration = Duration::from_secs(2);
/// Time after which a failed fetch is retried.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// Maximum number of reports in one call.
const REPORTS_A_CALL: usize = 25;
const MAX_PAGES: usize = 20;
/// Length of the longest name of a region.
const MAX_REGION: usize = 32;

/// Rule as received from the daemon.
pub(super) struct FetchedRule {
    pub(super) name: String,
    service: String,
    /// Region of the daemon, from the rule's ARN:
    /// `arn:aws:xray:us-east-1:123456789012:sampling-rule/Default`.
    pub(super) region: Option<String>,
    /// Parsed rule. `None` if its form is unknown; the rule is then skipped, as in the SDKs.
    pub(super) rule: Option<Rule>,
}

impl FetchedRule {
    pub(super) fn from_json(rule: Json) -> Self {
        let text = |key: &str| rule.get(key).and_then(Json::as_str).unwrap_or_default();
        let (name, service, arn) = (one_line(text("RuleName")), one_line(text("ServiceName")), text("RuleARN"));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let is_region = |region: &&str| (1..=MAX_REGION).contains(&region.len()) && region.bytes().all(is_name);
        let region = arn.split(':').nth(3).filter(is_region).map(str::to_owned);
        Self { name, service, region, rule: Rule::from_json(&rule).ok() }
    }
}

impl BackgroundTask for Rules {
    fn check_timeout(&self) -> Duration {
        TIMEOUT
    }

    fn check(&mut self) -> Vec<Finding> {
        let finding = |severity, message| Finding { severity, message };
        let fetched = self.fetch_rules();
        let reported = self.state.reported.get("rules").cloned().unwrap_or_default();
        if !fetched {
            return vec![finding(Severity::Error, reported)];
        }
        let mut findings = vec![finding(Severity::Note, reported)];
        let service = self.sampler.service_name(None);
        let is_ours = |(name, pattern): &(String, String)| name != "Default" && matches(pattern, &service);
        if !self.state.services.iter().any(is_ours) {
            let others: Vec<_> = self.state.services.iter().filter(|(name, _)| name != "Default").collect();
            let others = others.iter().map(|(name, service)| format!("{name} is for {service:?}")).collect::<Vec<_>>();
            let others = if others.is_empty() { String::new() } else { format!(" ({})", others.join(", ")) };
            let what = format!(
                "no sampling rule of this account matches the service {service:?}{others}; the rule Default applies"
            );
            let next = "use the same name in both, or run `aws xray create-sampling-rule --cli-input-json file://aws/json/xray.json`";
            findings.push(finding(Severity::Warning, Message::new(what).next(next)));
        }
        findings.extend(self.other_region().map(|problem| finding(Severity::Warning, problem)));
        if let Some(region) = &self.state.region {
            let what = format!(
                "the daemon sends to {region}; traces are shown at https://console.aws.amazon.com/xray/home?region={region}#/traces"
            );
            findings.push(finding(Severity::Note, what.into()));
        }
        findings
    }

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
    /// Fetches all rules and passes them to the sampler. Returns false if that failed.
    fn fetch_rules(&mut self) -> bool {
        match self.all_rules() {
            Ok(found) => {
                self.state.region = found.iter().find_map(|rule| rule.region.clone());
                self.state.services = found.iter().map(|rule| (rule.name.clone(), rule.service.clone())).collect();
                self.sampler.set_rules(found.into_iter().filter_map(|rule| rule.rule).collect(), unix_now());
                self.report_once("rules", Level::Info, self.sampler.describe(unix_now()).into());
                if let Some(problem) = self.other_region() {
                    self.sampler.set_remark(problem.to_string());
                    self.report_once("region", Level::Warn, problem);
                }
                true
            }
            Err(problem) => {
                self.state.failed_reports = 0;
                self.sampler.set_remark(problem.to_string());
                self.report_once("rules", Level::Warn, problem);
                false
            }
        }
    }

    fn all_rules(&mut self) -> Result<Vec<FetchedRule>, Message> {
        let mut rules = Vec::new();
        let mut token = Json::Null;
        for _ in 0..MAX_PAGES {
            let question = if token.is_null() { json!({}) } else { json!({ "NextToken": token }) };
            let answer = self.ask("GetSamplingRules", &question)?;
            let records = self.list_of(&answer, "SamplingRuleRecords", "GetSamplingRules")?;
            let modified = records.iter().filter_map(|record| number(record.get("ModifiedAt")?));
            self.state.modified = modified.fold(self.state.modified, f64::max);
            rules.extend(
                records
                    .into_iter()
                    .filter_map(|mut record| Some(FetchedRule::from_json(record.get_mut("SamplingRule")?.take()))),
            );
            token = answer.get("NextToken").cloned().unwrap_or_default();
            if token.is_null() {
                break;
            }
        }
        Ok(rules)
    }

    /// Returns a warning if the daemon uses another region than our environment names. Segments go
    /// to the daemon's region.
    fn other_region(&self) -> Option<Message> {
        let (daemons, (ours, variable)) = (self.state.region.as_ref()?, self.region.as_ref()?);
        (daemons != ours).then(|| {
            let daemon = &self.daemon;
            let what = format!(
                "region mismatch: the daemon at {daemon} sends traces to the region {daemons}, but {variable}={ours}"
            );
            Message::new(what).next(format!("look for traces in {daemons}, or start the daemon with the region {ours}"))
        })
    }

    /// Sends the reports that are due. Returns true if the rules have to be fetched, because they
    /// have changed or a report has failed.
    fn report(&mut self) -> bool {
        let now = Instant::now();
        let due = |rule: &str| self.state.due.get(rule).is_none_or(|due| *due <= now);
        let statistics = self.sampler.take_statistics(due);
        let (mut changed, mut unprocessed) = (false, Vec::new());
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
            // The counts of a failed report are dropped. If they were sent later, X-Ray would take
            // them for load of that later time.
            let answered = self.ask("SamplingTargets", &question);
            let targets = answered.and_then(|answer| {
                let targets = self.list_of(&answer, "SamplingTargetDocuments", "SamplingTargets");
                // A response without targets may leave the list out.
                let targets = if is_empty_response(&answer) { Vec::new() } else { targets? };
                Ok((answer, targets))
            });
            let (answer, targets) = match targets {
                Ok(answered) => answered,
                Err(problem) => {
                    // If the daemon is unreachable, the next fetch of the rules logs it. One line
                    // is enough.
                    self.state.failed_reports += 1;
                    if self.state.failed_reports > 1 {
                        self.report_once("targets", Level::Warn, problem);
                    }
                    return true;
                }
            };
            let targets: Vec<Target> = targets.iter().filter_map(Target::from_json).collect();
            unprocessed.extend(unprocessed_of(&answer));
            for target in &targets {
                if let Some(seconds) = target.interval.filter(|seconds| *seconds <= 3600) {
                    let pace = Duration::from_secs(seconds).max(self.targets_interval);
                    // Reports are sent in steps of `targets_interval`. Half a step less keeps a
                    // report from missing its step by a few milliseconds.
                    self.state.due.insert(target.rule_name.clone(), now + pace - self.targets_interval / 2);
                }
            }
            self.state.reported.remove("targets");
            self.state.failed_reports = 0;
            self.sampler.set_targets(&targets);
            let modified = answer.get("LastRuleModification").and_then(number).unwrap_or_default();
            changed |= modified > self.state.modified;
            self.state.modified = self.state.modified.max(modified);
        }
        self.report_unprocessed(&unprocessed);
        changed
    }

    /// Logs which statistics X-Ray did not accept, and why.
    fn report_unprocessed(&mut self, documents: &[String]) {
        if documents.is_empty() {
            self.state.reported.remove("statistics");
            return;
        }
        let what = format!("X-Ray did not accept the request counts of the rules {}", documents.join(", "));
        let next =
            "nothing to do if a rule was deleted; otherwise compare the rules with `aws xray get-sampling-rules`";
        self.report_once("statistics", Level::Warn, Message::new(what).next(next));
    }

    /// Returns the list that a response must have.
    fn list_of(&self, answer: &Json, name: &str, operation: &str) -> Result<Vec<Json>, Message> {
        answer.get(name).and_then(Json::as_array).cloned().ok_or_else(|| {
            let what = format!("no {name} in the response of http://{}/{operation}", self.daemon);
            let next = "check the address of the daemon, and that the X-Ray daemon listens on this TCP port";
            Message::new(what).and(self.rules_in_force()).next(next)
        })
    }

    fn ask(&self, operation: &str, question: &Json) -> Result<Json, Message> {
        let (rules, body) = (self.rules_in_force(), question.to_string());
        let path = format!("/{operation}");
        let url = self.url.join(&path).ok_or_else(|| Message::new(format!("invalid URL: {}{path}", self.url)))?;
        let failed = |what: String, next: &str| Message::new(what).and(rules).next(next);
        let headers = [("content-type".to_owned(), "application/json".to_owned())];
        let call = Call { url: &url, headers: &headers, body: body.as_bytes(), timeout: Some(TIMEOUT) };
        let reply = self.client.post(&call).map_err(|error| {
            let next = match &error {
                CallError::ConnectionRefused => "start the daemon, and publish port 2000/tcp as well as 2000/udp",
                CallError::UnknownHost => "check the address of the daemon",
                _ => "check that the X-Ray daemon listens on this TCP port",
            };
            failed(error.at(&url), next)
        })?;
        if reply.status != 200 {
            let next = match reply.status {
                // Another program, or a Collector that receives segments but serves no rules.
                404 | 405 | 501 => {
                    "check that the X-Ray daemon listens on this TCP port; an OpenTelemetry Collector needs its awsproxy \
                     extension"
                }
                _ => "look for errors about credentials and region in the log of the daemon",
            };
            return Err(failed(format!("HTTP {} {} from {url}", reply.status, reason_phrase(reply.status)), next));
        }
        serde_json::from_slice(without_mark(&reply.body))
            .map_err(|error| failed(format!("invalid JSON from {url} ({error})"), "check the address of the daemon"))
    }

    fn rules_in_force(&self) -> &'static str {
        if self.sampler.has_central_rules(unix_now()) {
            "the rules fetched before stay in force for an hour"
        } else {
            "requests are sampled by the local rule"
        }
    }

    /// Logs a message, unless it is the same as the last one about this topic.
    fn report_once(&mut self, about: &'static str, level: Level, message: Message) {
        if self.state.reported.get(about) != Some(&message) {
            log::log!(target: "xray", level, "{message}");
            self.state.reported.insert(about, message);
        }
    }
}

/// Returns true for an object without targets that is not an error.
fn is_empty_response(answer: &Json) -> bool {
    let has = |keys: &[&str]| keys.iter().any(|key| answer.get(*key).is_some());
    answer.is_object() && !has(&["SamplingTargetDocuments", "message", "Message", "error", "errors", "code", "__type"])
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Statistics that X-Ray did not accept, each with the reason: `Cruddur (InvalidRule)`.
fn unprocessed_of(answer: &Json) -> Vec<String> {
    let documents = answer.get("UnprocessedStatistics").and_then(Json::as_array);
    let text = |document: &Json, key: &str| one_line(document.get(key).and_then(Json::as_str).unwrap_or("unknown"));
    let each = documents.into_iter().flatten().take(REPORTS_A_CALL);
    each.map(|document| format!("{} ({})", text(document, "RuleName"), text(document, "ErrorCode"))).collect()
}
