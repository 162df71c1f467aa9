//! Settings of the backend: reads `[cloudwatch]` and AWS's variables, and makes a client.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use log::LevelFilter;

use super::encode::{LineFormat, LogEvents};
use super::{CloudWatchLogs, NAME, Retention};
use crate::backends::PlanContext;
use crate::delivery::{Encoding, Plan};
use crate::settings::section::Shown::Plain;
use crate::settings::section::{choice, flag, section, text, whole};
use crate::settings::{BatchLimits, Findings, Origin, Sources, Values};
use crate::text::Message;
use crate::wire::aws_call::AwsClient;
use crate::wire::aws_credentials::CLOUDWATCH_LOGS;

section! {
    /// Sends log lines to Amazon CloudWatch Logs, each with the trace id of its request. AWS charges
    /// by the byte, so it is off by default. Region and credentials come from AWS's own variables and
    /// files: AWS_REGION, AWS_ACCESS_KEY_ID, AWS_PROFILE and so on.
    pub(super) struct CloudWatch("cloudwatch") {
        enabled: bool = flag(false),
        /// Log group. It is created if it does not exist.
        log_group: String = text("cruddur", Plain),
        /// Log stream. {hostname}, {service} and {pid} are replaced. Use one stream per machine, not
        /// one per process.
        log_stream: String = text("{hostname}", Plain),
        /// Days that log lines are kept. Applied only when cruddur creates the group.
        retention_days: u64 = whole(7, 1..=3653),
        /// Lowest level of the lines that are sent: error, warn, info or debug.
        level: &'static str = choice("info", &["error", "warn", "info", "debug"]),
        /// "json" makes each line a flat object, whose fields Logs Insights recognises. "text" does not.
        format: &'static str = choice("json", &["json", "text"]),
        /// "gzip" compresses the requests.
        compression: &'static str = choice("none", &["none", "gzip"]),
        /// Longest time before a line is sent, in milliseconds.
        schedule_delay: u64 = whole(5000, 1..=3_600_000),
        /// Lines per batch. A full batch is sent at once. Usually 2000 lines make a request of 1 MB.
        max_export_batch_size: u64 = whole(2000, 1..=1_000_000),
        /// Lines that the queue holds. More are dropped and counted.
        max_queue_size: u64 = whole(20_000, 1..=1_000_000),
    }
}

const RETENTION_DAYS: [u64; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

/// Age from which the service does not store a line
/// (<https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html>).
const MAX_AGE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

pub(super) fn plan(context: &mut PlanContext<'_>) -> Result<Plan, Message> {
    let PlanContext { sources, shared, findings } = context;
    let (table, mut values) = CloudWatch::read(sources, findings)?;
    shared.add_to(&mut values);
    let spool = shared.spool(MAX_AGE, &mut values);
    let limits = BatchLimits::new(&table.schedule_delay, &table.max_queue_size, &table.max_export_batch_size, findings);
    let template = &table.log_stream.value;
    if template.contains("{pid}") && table.enabled.value {
        let what = format!("[cloudwatch] log_stream = {template:?}: every start creates a new log stream");
        findings.warn(Message::new(what).next("use {hostname} for one stream per machine"));
    }
    let format = if table.format.value == "json" { LineFormat::Json } else { LineFormat::Text };
    let stream = stream_name(template, &shared.service_name.value);
    let events = LogEvents { group: table.log_group.value.clone(), stream, format };
    let mut plan = Plan { spool, ..Plan::new(NAME, Encoding::Lines(Arc::new(events.clone())), limits, values) };
    plan.destination = format!("log group {}", events.group);
    plan.level = table.level.value.parse().unwrap_or(LevelFilter::Info);
    if !table.enabled.value {
        return Ok(plan.off(&table.enabled));
    }
    refuse_invalid(&table)?;
    Ok(match client(&table, events, sources, &mut plan.values, findings) {
        Err(missing) => plan.waiting(&missing),
        Ok((client, reason)) => {
            plan.destination = format!("{} group {} stream {}", client.client.url(), client.group, client.stream);
            let delay = limits.delay.as_millis();
            plan.on(
                client,
                format!(
                    "{reason}; lines are kept {} days; a batch is sent after {delay} ms",
                    table.retention_days.value
                ),
            )
        }
    })
}

/// Returns an error for a log group or a retention that the service would certainly refuse.
fn refuse_invalid(table: &CloudWatch) -> Result<(), Message> {
    let wrong = |origin: &Origin, what: &str| Err(Message::new(format!("{origin}: [cloudwatch] {what}")));
    let group = &table.log_group.value;
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".-_/#".contains(c);
    if group.len() > 512 || !group.chars().all(is_allowed) || group.starts_with("aws/") {
        let rule = "log_group may contain only letters, digits and .-_/#, at most 512, and must not begin with aws/";
        return wrong(&table.log_group.origin, rule);
    }
    if !RETENTION_DAYS.contains(&table.retention_days.value) {
        let days = RETENTION_DAYS.map(|days| days.to_string()).join(", ");
        return wrong(&table.retention_days.origin, &format!("retention_days must be one of {days}"));
    }
    Ok(())
}

/// Makes the client for this log stream. Returns it with a text that says where its settings come
/// from.
fn client(
    table: &CloudWatch,
    events: LogEvents,
    sources: &Sources,
    values: &mut Values,
    findings: &mut Findings,
) -> Result<(CloudWatchLogs, String), Message> {
    let (client, origin) = AwsClient::new(NAME, CLOUDWATCH_LOGS, "/", sources, values, findings)?;
    let reason = format!("enabled at {}; {origin}", table.enabled.origin);
    let client = CloudWatchLogs {
        group: events.group,
        stream: events.stream,
        retention_days: table.retention_days.value,
        gzip: table.compression.value == "gzip",
        client,
        retention: Retention::default(),
        calls: Vec::new(),
    };
    Ok((client, reason))
}

/// Returns the log group if the backend is enabled. X-Ray's console links a trace to this group.
pub(in crate::backends) fn log_group_if_on(sources: &Sources) -> Result<Option<String>, Message> {
    // Findings are dropped here, because the plan of the backend reports the same ones.
    let (table, _) = CloudWatch::read(sources, &mut Findings::default())?;
    Ok(table.enabled.value.then_some(table.log_group.value))
}

/// Returns the name of the log stream. `:` and `*`, which the service refuses, become `-`.
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
