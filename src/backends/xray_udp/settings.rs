//! `[xray]` and X-Ray's variables become a sender, a sampler and a poller.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::encode::Documents;
use super::rules::{Rules, State};
use super::{NAME, XRayUdp, dialect};
use crate::backends::cloudwatch_logs::log_group_if_on;
use crate::backends::{Plan, Sink, Switch};
use crate::delivery::BatchLimits;
use crate::settings::{Origin, Setting, Settings, SettingsError, Sources, Table, batch_limits};
use crate::trace::id::IdSource;
use crate::trace::sampler::wildcard::matches;
use crate::trace::sampler::xray::{Rule, ServiceNames, XRaySampler, sanitised_name};
use crate::wire::aws_credentials::doubts;
use crate::wire::http::{Certificates, HttpClient};
use crate::wire::udp::{DatagramSender, HostPort};

pub(super) const TOML: &str = r#"
# AWS X-Ray, through its daemon.
[xray]
enabled = false
# "host:port" for both, or "tcp:host:port udp:host:port". AWS_XRAY_DAEMON_ADDRESS
daemon_address = "127.0.0.1:2000"
# The name of the service in X-Ray, if it is not service_name. AWS_XRAY_TRACING_NAME
# tracing_name = "backend-flask"
# Requests to hosts like this are filed under the host's name; rules for the service then miss them. AWS_XRAY_URL
# host_pattern = "*4567-*.gitpod.io*"
# The rule that counts as long as X-Ray has not sent its own; the file that `aws xray create-sampling-rule` takes.
sampling_rule = "aws/json/xray.json"
# How often rules are fetched, and what happened under them is reported, in milliseconds.
rules_interval = 300000
targets_interval = 10000
# Segments leave after at most this many milliseconds.
schedule_delay = 500
max_export_batch_size = 256
max_queue_size = 8192
"#;

/// The course's rule, for a binary that is far from its repository.
const BUILT_IN_RULE: &str = include_str!("../../../aws/json/xray.json");
const RULE_FILE: &str = "aws/json/xray.json";
const LIMITS: BatchLimits = BatchLimits { delay: Duration::from_millis(500), queue: 8192, batch: 256 };

pub(super) fn plan(table: &Table<'_>, sources: &Sources, settings: &Settings) -> Result<Plan, SettingsError> {
    let enabled = table.flag("enabled", false)?;
    let address = table.text("daemon_address", &["AWS_XRAY_DAEMON_ADDRESS"])?;
    let tracing_name = table.text("tracing_name", &["AWS_XRAY_TRACING_NAME"])?;
    let host_pattern = table.text("host_pattern", &["AWS_XRAY_URL"])?;
    let rule_file = table.text("sampling_rule", &[])?;
    let rules_interval = table.whole("rules_interval", &[], 100..=86_400_000, 300_000)?;
    let targets_interval = table.whole("targets_interval", &[], 100..=3_600_000, 10_000)?;
    let limits = batch_limits(table, ["", "", ""], LIMITS)?;
    let name = tracing_name.unwrap_or_else(|| settings.service_name.clone());
    let service: Arc<str> = sanitised_name(&name.value).into();
    let documents = Documents { service_name: service.to_string(), log_group: log_group_if_on(sources)? };
    let mut plan = Plan::off(NAME, &enabled, limits);
    plan.dialect = Some(dialect(documents.clone()));
    if !enabled.value {
        plan.destination = address.map_or_else(|| "127.0.0.1:2000".to_owned(), |address| address.value);
        return Ok(plan);
    }

    let address = address.unwrap_or_else(|| default("127.0.0.1:2000"));
    let (udp, tcp) = daemon_address(&address.value).map_err(|problem| {
        SettingsError(format!("{}: {problem}", address.origin.says("[xray] daemon_address", &address.value)))
    })?;
    plan.destination = if udp == tcp { format!("udp+tcp {udp}") } else { format!("udp {udp}, tcp {tcp}") };
    if switched_off(sources) {
        plan.reason = "AWS_XRAY_SDK_ENABLED=false switches it off".to_owned();
        return Ok(plan);
    }
    warn_of_context_missing(sources);

    // It is the daemon that needs a region; but what is meant is mostly in its variables, and they are here too.
    let region = ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .into_iter()
        .find_map(|variable| Some((sources.env.get(variable)?.trim().to_owned(), variable)));
    if let Some((region, variable)) = &region {
        doubts(&sources.env, region, variable).into_iter().for_each(|doubt| sources.warn(doubt));
    }

    if *service != *name.value {
        let (origin, given) = (&name.origin, &name.value);
        sources.warn(format!("{origin}: X-Ray does not take {given:?} as a name; traces are filed under {service:?}"));
    }
    let local = local_rule(sources, rule_file);
    let dynamic = host_pattern.and_then(|pattern| dynamic_name(sources, pattern, &service, &local));
    if !matches(&local.service_name, &service) {
        let (rule, pattern) = (&local.name, &local.service_name);
        sources.warn(format!(
            "the local sampling rule {rule} is for the service {pattern:?}, ours is {service:?}: it never applies, and one \
             request a second and 5 % are taken; next: make the two the same"
        ));
    }
    plan.reason = format!(
        "enabled at {}; address from {}; named {service}{}",
        enabled.origin,
        address.origin,
        dynamic.as_ref().map_or_else(String::new, |pattern| format!(", hosts like {pattern} by themselves"))
    );

    let client = match HttpClient::new(&format!("http://{tcp}"), &Certificates::default()) {
        Ok(client) => client,
        Err(problem) => {
            plan.switch = Switch::Waiting;
            plan.reason = problem;
            return Ok(plan);
        }
    };
    let names = ServiceNames { service: Arc::clone(&service), dynamic };
    let sampler = Arc::new(XRaySampler::new(names, Some(local)));
    plan.companion = Some(Box::new(Rules {
        sampler: Arc::clone(&sampler),
        client,
        daemon: tcp,
        client_id: IdSource::new().trace_id(0).hex().as_str()[8..].to_owned(),
        rules_interval: Duration::from_millis(rules_interval.value),
        targets_interval: Duration::from_millis(targets_interval.value),
        region,
        state: State::default(),
    }));
    plan.sampler = Some(sampler);
    plan.switch = Switch::On(Sink::Traces(Box::new(XRayUdp {
        documents,
        sender: DatagramSender::new(udp.clone()),
        to: format!("udp {udp}"),
        daemon: udp,
        daemon_origin: match address.origin {
            Origin::Default => "daemon_address in [xray]".to_owned(),
            origin => origin.to_string(),
        },
        last_items: 0,
        refused: None,
    })));
    Ok(plan)
}

/// UDP and TCP address: `host:port` for both, or one of each with its name in front, in either order.
pub(super) fn daemon_address(text: &str) -> Result<(HostPort, HostPort), String> {
    const FORMS: &str = "write host:port, or tcp:host:port udp:host:port";
    let words: Vec<&str> = text.split_whitespace().collect();
    let parse = |text: &str| {
        HostPort::parse(text)
            .ok_or_else(|| format!("{text:?} is not host:port (the port is needed, 2000 is usual); {FORMS}"))
    };
    match words[..] {
        [one] if one.starts_with("tcp:") || one.starts_with("udp:") => {
            Err(format!("with tcp: or udp: in front, both are needed; {FORMS}"))
        }
        [one] if one.contains("://") => Err(format!("it is an address and no URL; {FORMS}")),
        [one] => parse(one).map(|both| (both.clone(), both)),
        [one, two] => match (one.split_once(':'), two.split_once(':')) {
            (Some(("udp", udp)), Some(("tcp", tcp))) | (Some(("tcp", tcp)), Some(("udp", udp))) => {
                Ok((parse(udp)?, parse(tcp)?))
            }
            _ => Err(format!("it has two words, but not one with tcp: and one with udp: in front; {FORMS}")),
        },
        _ => Err(format!("it makes no sense; {FORMS}")),
    }
}

/// The variable of the SDKs, with all that they take for yes and no.
fn switched_off(sources: &Sources) -> bool {
    const VARIABLE: &str = "AWS_XRAY_SDK_ENABLED";
    let Some(text) = sources.env.get(VARIABLE) else { return false };
    match text.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" | "t" | "true" | "on" | "1" => false,
        "n" | "no" | "f" | "false" | "off" | "0" => true,
        _ => {
            sources.warn(format!("{VARIABLE}={text} is neither true nor false; taken as true"));
            false
        }
    }
}

/// Here a subsegment cannot be opened outside of a request, so there is nothing to do about it.
fn warn_of_context_missing(sources: &Sources) {
    const VARIABLE: &str = "AWS_XRAY_CONTEXT_MISSING";
    if let Some(text) = sources.env.get(VARIABLE)
        && !["LOG_ERROR", "RUNTIME_ERROR", "IGNORE_ERROR"].contains(&text)
    {
        sources.note(format!(
            "{VARIABLE}={text} is none of LOG_ERROR, RUNTIME_ERROR, IGNORE_ERROR; it never matters here, no span can be opened \
             outside of a request"
        ));
    }
}

/// A pattern that was not filled in matches nothing, and nobody notices; so it is refused.
fn dynamic_name(sources: &Sources, pattern: Setting<String>, service: &str, local: &Rule) -> Option<String> {
    let Setting { value: pattern, origin } = pattern;
    let given = origin.says("[xray] host_pattern", &pattern);
    if pattern.contains(['{', '}', '$']) {
        sources.warn(format!(
            "{given} is refused: a variable in it was never replaced; all traces are filed under {service:?}; next: \
             write the host out, with * at both ends"
        ));
        return None;
    }
    let example = pattern.replace('*', "").replace('?', "x");
    let with_port = format!("{example}:443");
    let filed = |host: &str| if matches(&pattern, host) { host.to_owned() } else { service.to_owned() };
    let missed = if matches(&local.service_name, &filed(&example)) {
        String::new()
    } else {
        format!(" the local rule {} is for {:?} and misses it, and so", local.name, local.service_name)
    };
    sources.note(format!(
        "{given}: a request to {example:?} is filed under {:?}, one to {with_port:?} under {:?};{missed} do rules and \
         groups of your account that name {service:?} miss what is filed under its host",
        filed(&example),
        filed(&with_port),
    ));
    Some(pattern)
}

/// The rule of the file that is named, of `aws/json/xray.json` if it is here, or the copy in this program.
fn local_rule(sources: &Sources, named: Option<Setting<String>>) -> Rule {
    let built_in = || parse_rule(BUILT_IN_RULE.as_bytes()).expect("a test reads the file that is built in");
    let path = named.map_or_else(|| RULE_FILE.to_owned(), |named| named.value);
    match sources.content_of(&path) {
        Ok(text) => parse_rule(&text).unwrap_or_else(|problem| {
            sources.warn(format!("{path}: {problem}; using the rule that is built in"));
            built_in()
        }),
        Err(_) if path == RULE_FILE => built_in(),
        Err(error) => {
            sources.warn(format!("{path}: {error}; using the rule that is built in"));
            built_in()
        }
    }
}

fn parse_rule(text: &[u8]) -> Result<Rule, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct CreateSamplingRule {
        sampling_rule: Rule,
    }
    let rule =
        serde_json::from_slice::<CreateSamplingRule>(text).map_err(|error| format!("not a sampling rule: {error}"))?;
    let rule = rule.sampling_rule;
    if (0.0..=1.0).contains(&rule.fixed_rate) { Ok(rule) } else { Err("FixedRate must be from 0 to 1".to_owned()) }
}

fn default(value: &str) -> Setting<String> {
    Setting { value: value.to_owned(), origin: Origin::Default }
}
