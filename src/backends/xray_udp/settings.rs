//! Settings of the backend: reads `[xray]` and X-Ray's variables, and makes a sender, a sampler and
//! a poller.

use std::sync::Arc;
use std::time::Duration;

use super::rule_file;
use super::rules::{PollerState, Rules};
use super::sampler::{Rule, ServiceNames, XRaySampler, sanitised_name};
use super::tree::Documents;
use super::wildcard::matches;
use super::{NAME, XRayUdp};
use crate::backends::PlanContext;
use crate::backends::cloudwatch_logs::log_group_if_on;
use crate::delivery::{Encoding, Plan};
use crate::settings::section::Shown::Plain;
use crate::settings::section::{flag, optional, section, text, whole};
use crate::settings::{BatchLimits, Findings, Origin, Scalar, Setting, Sources, Values, is_unexpanded};
use crate::text::{Message, Url};
use crate::trace::id::IdSource;
use crate::wire::aws_credentials::region_warnings;
use crate::wire::http::{Certificates, HttpClient};
use crate::wire::udp::{DatagramSender, HostPort};

section! {
    /// Sends traces to AWS X-Ray, through the X-Ray daemon.
    pub(super) struct XRay("xray") {
        enabled: bool = flag(false),
        /// Address of the daemon: "host:port" for UDP and TCP, or "tcp:host:port udp:host:port".
        daemon_address: String = text("127.0.0.1:2000", Plain).from(&["AWS_XRAY_DAEMON_ADDRESS"]),
        /// Service name in X-Ray, if it differs from service_name.
        tracing_name: Option<String> = optional("backend-flask", Plain).from(&["AWS_XRAY_TRACING_NAME"]),
        /// Pattern of hosts. A request to a matching host gets the host as its service name, so
        /// sampling rules for service_name do not apply to it.
        host_pattern: Option<String> = optional("*4567-*.gitpod.io*", Plain).from(&["AWS_XRAY_URL"]),
        /// File with the sampling rules that apply until X-Ray has sent the rules of your account:
        /// as `aws xray create-sampling-rule` takes them, as `aws xray get-sampling-rules` prints
        /// them, or the rule file of an X-Ray SDK. A relative path is relative to this file.
        sampling_rule: String = text(RULE_FILE, Plain),
        /// Time between two fetches of the sampling rules, in milliseconds.
        rules_interval: u64 = whole(300_000, 100..=86_400_000),
        /// Time between two reports of the sampled requests to X-Ray, in milliseconds.
        targets_interval: u64 = whole(10_000, 100..=3_600_000),
        /// Longest time before a segment is sent, in milliseconds.
        schedule_delay: u64 = whole(500, 1..=3_600_000),
        /// Spans per batch. A full batch is sent at once.
        max_export_batch_size: u64 = whole(256, 1..=1_000_000),
        /// Spans that the queue holds. More are dropped and counted.
        max_queue_size: u64 = whole(8192, 1..=1_000_000),
    }
}

/// Copy of the course's rule, for a binary that runs outside of its repository.
const BUILT_IN_RULE: &str = include_str!("../../../aws/json/xray.json");
const RULE_FILE: &str = "aws/json/xray.json";
/// Number of rules of a file that are named if they are ignored.
const MAX_REPORTED_RULES: usize = 5;

pub(super) fn plan(context: &mut PlanContext<'_>) -> Result<Plan, Message> {
    let PlanContext { sources, shared, findings } = context;
    let (table, mut values) = XRay::read(sources, findings)?;
    shared.add_to(&mut values);
    let limits = BatchLimits::new(&table.schedule_delay, &table.max_queue_size, &table.max_export_batch_size, findings);
    let given = match &table.tracing_name {
        Setting { value: Some(name), origin } => Setting { value: name.clone(), origin: origin.clone() },
        _ => shared.service_name.clone(),
    };
    let service: Arc<str> = sanitised_name(&given.value).into();
    let log_group = log_group_if_on(sources)?;
    let shown = log_group.clone().unwrap_or_default();
    values.add("[cloudwatch] log_group", Scalar::Text(shown.clone()), shown, Origin::Default);
    let documents = Documents { service_name: service.to_string(), log_group };
    let mut plan = Plan::new(NAME, Encoding::Traces(Arc::new(documents)), limits, values);
    let Setting { value: address, origin } = &table.daemon_address;
    if !table.enabled.value {
        return Ok(Plan { destination: address.clone(), ..plan.off(&table.enabled) });
    }
    let (udp, tcp) = daemon_address(address)
        .map_err(|problem| Message::new(format!("{}: {problem}", origin.says("[xray] daemon_address", address))))
        .map_err(|message| message.next("write host:port, or tcp:host:port udp:host:port"))?;
    plan.destination = if udp == tcp { format!("udp+tcp {udp}") } else { format!("udp {udp}, tcp {tcp}") };
    if is_switched_off(sources, findings) {
        plan.reason = "AWS_XRAY_SDK_ENABLED=false switches this backend off".to_owned();
        return Ok(plan);
    }
    note_context_missing(sources, findings);
    if *service != *given.value {
        let Setting { value, origin } = &given;
        findings
            .warn(format!("{origin}: X-Ray does not accept the name {value:?}; traces are filed under {service:?}"));
    }
    let (names, local) = sampling(&table, service, sources, &mut plan.values, findings);
    let dynamic = names
        .dynamic
        .as_ref()
        .map_or_else(String::new, |host| format!("; requests to hosts like {host} are filed under their host"));
    let reason =
        format!("enabled at {}; address from {origin}; service name {}{dynamic}", table.enabled.origin, names.service);
    let rules = match rules(&table, tcp, XRaySampler::new(names, local), sources, findings) {
        Ok(rules) => rules,
        Err(missing) => return Ok(plan.waiting(&missing)),
    };
    plan.sampler = Some(Arc::clone(&rules.sampler) as _);
    plan.task = Some(Box::new(rules));
    let daemon_origin = match origin {
        Origin::Default => "daemon_address in [xray]".to_owned(),
        origin => origin.to_string(),
    };
    let sender = DatagramSender::new(udp.clone());
    let name = format!("udp {udp}").into();
    Ok(plan.on(XRayUdp { sender, daemon: udp, name, daemon_origin, last_items: 0, refused: None, loss: None }, reason))
}

/// Returns true if the backend is enabled. X-Ray's other backend warns about traces that arrive twice.
pub(in crate::backends) fn is_on(sources: &Sources) -> Result<bool, Message> {
    // Findings are dropped here, because the plan of the backend reports the same ones.
    let findings = &mut Findings::default();
    let (table, _) = XRay::read(sources, findings)?;
    Ok(table.enabled.value && !is_switched_off(sources, findings))
}

/// Returns the input of the sampler: the service names of requests, and the local rules, which
/// apply until X-Ray has sent its rules.
fn sampling(
    table: &XRay,
    service: Arc<str>,
    sources: &Sources,
    values: &mut Values,
    findings: &mut Findings,
) -> (ServiceNames, Vec<Rule>) {
    let local = local_rules(&table.sampling_rule, sources, values, findings);
    let dynamic = dynamic_name(&table.host_pattern, &service, &local, findings);
    if !local.iter().any(|rule| matches(&rule.service_name, &service)) {
        let which = match &local[..] {
            [Rule { name, service_name, .. }] => {
                format!("the local sampling rule {name} never applies: it is for the service {service_name:?}")
            }
            rules => format!("the {} local sampling rules never apply: they are for other services", rules.len()),
        };
        let what =
            format!("{which}, but this service is {service:?}; Default samples one request per second, then 5 %");
        findings.warn(Message::new(what).next("use the same name in both"));
    }
    (ServiceNames { service, dynamic }, local)
}

/// Makes the poller of the account's rules, which calls the daemon's TCP port.
fn rules(
    table: &XRay,
    daemon: HostPort,
    sampler: XRaySampler,
    sources: &Sources,
    findings: &mut Findings,
) -> Result<Rules, Message> {
    let url = Url::parse(&format!("http://{daemon}")).ok_or_else(|| format!("invalid URL: http://{daemon}"))?;
    // It is the daemon that needs a region; but what is meant is mostly in its variables, and they are here too.
    let region = ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .into_iter()
        .find_map(|variable| Some((sources.env.get(variable)?.trim().to_owned(), variable)));
    if let Some((region, variable)) = &region {
        region_warnings(&sources.env, region, variable).into_iter().for_each(|warning| findings.warn(warning));
    }
    Ok(Rules {
        sampler: Arc::new(sampler),
        client: HttpClient::new(&url, &Certificates::default())?,
        daemon,
        url,
        client_id: IdSource::new().trace_id(0).hex().as_str()[8..].to_owned(),
        rules_interval: Duration::from_millis(table.rules_interval.value),
        targets_interval: Duration::from_millis(table.targets_interval.value),
        region,
        state: PollerState::default(),
    })
}

/// Parses the daemon's UDP and TCP address: `host:port` for both, or `udp:` and `tcp:` addresses in
/// either order. Returns the UDP address first.
pub(super) fn daemon_address(text: &str) -> Result<(HostPort, HostPort), String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let parse = |text: &str| {
        HostPort::parse(text).ok_or_else(|| format!("{text:?} is not host:port (the port is required, usually 2000)"))
    };
    match words[..] {
        [one] if one.starts_with("tcp:") || one.starts_with("udp:") => {
            Err("only one of tcp: and udp: is there, and both are needed".to_owned())
        }
        [one] if one.contains("://") => Err("a URL is not allowed here".to_owned()),
        [one] => parse(one).map(|both| (both.clone(), both)),
        [one, two] => match (one.split_once(':'), two.split_once(':')) {
            (Some(("udp", udp)), Some(("tcp", tcp))) | (Some(("tcp", tcp)), Some(("udp", udp))) => {
                Ok((parse(udp)?, parse(tcp)?))
            }
            _ => Err("of two addresses one needs tcp: in front, the other udp:".to_owned()),
        },
        _ => Err("invalid address".to_owned()),
    }
}

/// Returns true if `AWS_XRAY_SDK_ENABLED` is false. Accepts all spellings that the SDKs accept.
fn is_switched_off(sources: &Sources, findings: &mut Findings) -> bool {
    const VARIABLE: &str = "AWS_XRAY_SDK_ENABLED";
    let Some(text) = sources.env.get(VARIABLE) else { return false };
    match text.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" | "t" | "true" | "on" | "1" => false,
        "n" | "no" | "f" | "false" | "off" | "0" => true,
        _ => {
            findings.warn(format!("{VARIABLE}={text} is neither true nor false; taken as true"));
            false
        }
    }
}

/// Notes an unknown value of `AWS_XRAY_CONTEXT_MISSING`. The variable has no effect here, because a
/// subsegment cannot be opened outside of a request.
fn note_context_missing(sources: &Sources, findings: &mut Findings) {
    const VARIABLE: &str = "AWS_XRAY_CONTEXT_MISSING";
    if let Some(text) = sources.env.get(VARIABLE)
        && !["LOG_ERROR", "RUNTIME_ERROR", "IGNORE_ERROR"].contains(&text)
    {
        findings.note(format!(
            "{VARIABLE}={text} is not LOG_ERROR, RUNTIME_ERROR or IGNORE_ERROR; the variable has no effect here, because no \
             span can be opened outside a request"
        ));
    }
}

/// A pattern in which a variable was not replaced would match no host, without any error; so it is
/// refused.
fn dynamic_name(
    pattern: &Setting<Option<String>>,
    service: &str,
    local: &[Rule],
    findings: &mut Findings,
) -> Option<String> {
    let origin = &pattern.origin;
    let pattern = pattern.value.as_deref()?;
    let given = origin.says("[xray] host_pattern", pattern);
    if pattern.contains(['{', '}', '$']) || is_unexpanded(pattern) {
        let what =
            format!("{given}: a variable in the pattern was not replaced; all traces are filed under {service:?}");
        findings.warn(Message::new(what).next("write the host in full, with * at both ends"));
        return None;
    }
    let example = pattern.replace('*', "").replace('?', "x");
    let with_port = format!("{example}:443");
    let filed = |host: &str| if matches(pattern, host) { host.to_owned() } else { service.to_owned() };
    let missed = match local {
        _ if local.iter().any(|rule| matches(&rule.service_name, &filed(&example))) => String::new(),
        [rule] => format!(", nor does the local rule {}, which is for {:?}", rule.name, rule.service_name),
        _ => ", nor does any local rule".to_owned(),
    };
    findings.note(format!(
        "{given}: a request to {example:?} is filed under {:?}, one to {with_port:?} under {:?}; rules and groups of your \
         account that name {service:?} do not match traces filed under a host{missed}",
        filed(&example),
        filed(&with_port),
    ));
    Some(pattern.to_owned())
}

/// Reads the local rules from the file that the setting names. If that fails, warns and returns the
/// built-in rule. The default file `aws/json/xray.json` may be missing without a warning.
fn local_rules(file: &Setting<String>, sources: &Sources, values: &mut Values, findings: &mut Findings) -> Vec<Rule> {
    let given = file.value.trim();
    let path = sources.resolve(given);
    let problem = match values.read_file_at(&path, given) {
        Ok(bytes) => match rule_file::read(&bytes) {
            Ok(read) => {
                for (name, why) in read.skipped.iter().take(MAX_REPORTED_RULES) {
                    findings.warn(format!("{}: the sampling rule {name} of {given} is ignored: {why}", file.origin));
                }
                if let Some(more) = read.skipped.len().checked_sub(MAX_REPORTED_RULES).filter(|more| *more > 0) {
                    findings.warn(format!("{}: {more} more sampling rules of {given} are ignored", file.origin));
                }
                return read.rules;
            }
            Err(found) => Err(found),
        },
        Err(_) if given == RULE_FILE => return built_in_rules(),
        Err(error) => Ok(error),
    };
    let path = std::path::absolute(&path).unwrap_or(path);
    let place = format!("{} ({})", path.display(), file.origin);
    let what = match problem {
        Ok(error) => format!("{error}: {place}; the built-in rule is used"),
        Err(found) => format!("not a sampling rule: {place}: {found}; the built-in rule is used"),
    };
    let next = "correct sampling_rule in [xray]; a relative path is relative to telemetry.toml";
    findings.warn(Message::new(what).next(next));
    built_in_rules()
}

fn built_in_rules() -> Vec<Rule> {
    rule_file::read(BUILT_IN_RULE.as_bytes()).expect("a test reads the file that is built in").rules
}
