//! `[cloudwatch]` and AWS's variables become a sender.

use std::fs;
use std::time::Duration;

use log::LevelFilter;

use super::encode::Events;
use super::{CloudWatchLogs, NAME, dialect};
use crate::backends::{Plan, Sink, Switch};
use crate::delivery::BatchLimits;
use crate::settings::{Origin, Settings, SettingsError, Sources, Table, batch_limits};
use crate::wire::aws_credentials::{CredentialChain, doubts, logs_endpoint, region};
use crate::wire::http::{Certificates, HttpClient};
use crate::wire::sigv4::Signer;

pub(super) const TOML: &str = r#"
# Amazon CloudWatch Logs: log lines, each with the trace id of its request. It costs money by the byte, so it is off.
# Region and credentials come from AWS's own variables and files: AWS_REGION, AWS_ACCESS_KEY_ID, AWS_PROFILE and so on.
[cloudwatch]
enabled = false
log_group = "cruddur"
# {hostname}, {service} and {pid} are filled in. One stream for each machine, not one for each process.
log_stream = "{hostname}"
# How many days lines are kept, applied when the group is made.
retention_days = 7
# Lines of this level and above: error, warn, info, debug.
level = "info"
# "json": a flat object a line, which Logs Insights takes apart by itself; or "text".
format = "json"
compression = "none"
# Lines leave after at most this many milliseconds, or when so many wait.
schedule_delay = 5000
max_export_batch_size = 10000
max_queue_size = 20000
"#;

const LIMITS: BatchLimits = BatchLimits { delay: Duration::from_secs(5), queue: 20_000, batch: 10_000 };
const RETENTION_DAYS: [u64; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

pub(super) fn plan(table: &Table<'_>, sources: &Sources, settings: &Settings) -> Result<Plan, SettingsError> {
    let enabled = table.flag("enabled", false)?;
    let group = table.text("log_group", &[])?;
    let group_origin = group.as_ref().map_or(Origin::Default, |group| group.origin.clone());
    let group = group.map_or_else(|| "cruddur".to_owned(), |group| group.value);
    let stream = table.text("log_stream", &[])?.map_or_else(|| "{hostname}".to_owned(), |stream| stream.value);
    let retention = table.whole("retention_days", &[], 1..=3653, 7)?;
    let level = table.choice("level", &[], &["error", "warn", "info", "debug"], "info")?;
    let format = table.choice("format", &[], &["json", "text"], "json")?;
    let compression = table.choice("compression", &[], &["none", "gzip"], "none")?;
    let limits = batch_limits(table, ["", "", ""], LIMITS)?;

    if stream.contains("{pid}") && enabled.value {
        sources.warn(format!(
            "[cloudwatch] log_stream = {stream:?}: every start makes a new stream; {{hostname}} makes one for each machine"
        ));
    }
    let stream = stream_name(&stream, &settings.service_name.value);
    let events = Events {
        group: group.clone(),
        stream: stream.clone(),
        json: format.value == "json",
        gzip: compression.value == "gzip",
    };
    let mut plan = Plan::off(NAME, &enabled, limits);
    plan.destination = format!("log group {group}");
    plan.takes_lines = true;
    plan.dialect = Some(dialect(events.clone()));
    if !enabled.value {
        return Ok(plan);
    }
    let wrong = |origin: &Origin, what: &str| Err(SettingsError(format!("{origin}: [cloudwatch] {what}")));
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_/#".contains(c);
    if group.is_empty() || group.len() > 512 || !group.chars().all(allowed) || group.starts_with("aws/") {
        return wrong(
            &group_origin,
            "log_group may have letters, digits and .-_/# only, 512 at most, and not begin with aws/",
        );
    }
    if !RETENTION_DAYS.contains(&retention.value) {
        let days = RETENTION_DAYS.map(|days| days.to_string()).join(", ");
        return wrong(&retention.origin, &format!("retention_days must be one of {days}"));
    }
    plan.switch = Switch::Waiting;
    let (region, region_origin) = match region(&sources.env) {
        Ok(found) => found,
        Err(problem) => {
            plan.reason = problem.to_string();
            return Ok(plan);
        }
    };
    let (url, url_origin) = match logs_endpoint(&sources.env, &region) {
        Ok(found) => found,
        Err(problem) => {
            plan.reason = problem.to_string();
            return Ok(plan);
        }
    };
    let client = match authorities(sources)
        .and_then(|authorities| HttpClient::new(&url, &Certificates { authorities, ours: None }))
    {
        Ok(client) => client,
        Err(problem) => {
            plan.reason = problem;
            return Ok(plan);
        }
    };
    plan.destination = format!("{} group {group} stream {stream}", crate::wire::http::shown(&url));
    plan.reason = format!(
        "enabled at {}; region {region} from {region_origin}; address from {url_origin}; kept {} days; a batch leaves after {} ms",
        enabled.origin,
        retention.value,
        limits.delay.as_millis()
    );
    for doubt in doubts(&sources.env, &region, &region_origin) {
        sources.warn(doubt);
    }
    // The shared files of AWS may have changed without a word of ours.
    sources.record("region".to_owned(), region.as_bytes(), region.clone(), Origin::Default);
    sources.record("address".to_owned(), url.as_bytes(), crate::wire::http::shown(&url), Origin::Default);
    let credentials = CredentialChain::new(&sources.env);
    let level = level.value.parse().unwrap_or(LevelFilter::Info);
    let backend = CloudWatchLogs::new(events, retention.value, client, url, Signer::new(&region, "logs"), credentials);
    plan.switch = Switch::On(Sink::Lines(level, Box::new(backend)));
    Ok(plan)
}

/// The group that lines go to, if they do: X-Ray's console links a trace to it.
pub(in crate::backends) fn log_group_if_on(sources: &Sources) -> Result<Option<String>, SettingsError> {
    let table = sources.table(NAME)?;
    let group = table.text("log_group", &[])?.map_or_else(|| "cruddur".to_owned(), |group| group.value);
    Ok(table.flag("enabled", false)?.value.then_some(group))
}

/// A name that the service takes: no `:` and no `*`.
fn stream_name(template: &str, service: &str) -> String {
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let hostname = if hostname.trim().is_empty() { "cruddur" } else { hostname.trim() };
    let name = template
        .replace("{hostname}", hostname)
        .replace("{service}", service)
        .replace("{pid}", &std::process::id().to_string())
        .replace([':', '*'], "-");
    name.chars().take(512).collect()
}

fn authorities(sources: &Sources) -> Result<Option<Vec<u8>>, String> {
    let Some(path) = sources.env.get("AWS_CA_BUNDLE") else { return Ok(None) };
    sources.content_of(path).map(Some).map_err(|error| format!("AWS_CA_BUNDLE={path}: {error}"))
}
