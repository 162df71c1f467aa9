//! Settings of the backend: reads `[honeycomb]` and OpenTelemetry's variables, and makes a client.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::{OtlpHttp, OtlpJson, findings};
use crate::backends::PlanContext;
use crate::delivery::{Encoding, Plan};
use crate::settings::section::Shown::{Described, Plain, Redacted};
use crate::settings::section::{choice, flag, optional, section, text, whole};
use crate::settings::{
    BatchLimits, Findings, Meaning, Origin, Setting, Sources, Values, check_value, described_address, is_placeholder,
    is_unexpanded, warn_of_seconds,
};
use crate::text::{Message, Url};
use crate::wire::http::{Certificates, HttpClient};

section! {
    /// Sends traces to Honeycomb, or to any other receiver of OTLP over HTTP in JSON, for example a
    /// Collector on http://localhost:4318, or Jaeger. Honeycomb needs an API key: set
    /// HONEYCOMB_API_KEY, or x-honeycomb-team in OTEL_EXPORTER_OTLP_HEADERS.
    pub(super) struct Honeycomb("honeycomb") {
        enabled: bool = flag(false),
        /// Base URL of the receiver. /v1/traces is appended.
        endpoint: String = text("https://api.honeycomb.io", Redacted).from(&["OTEL_EXPORTER_OTLP_ENDPOINT"]),
        /// Complete URL, used instead of endpoint. Set it if the path is not /v1/traces.
        traces_endpoint: Option<String> =
            optional("https://collector.example/otlp", Redacted).from(&["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]),
        /// API key. Prefer the environment variable. With a key in it, this file must be private.
        api_key: Option<String> = optional("...", Described).from(&["HONEYCOMB_API_KEY"]),
        /// Dataset, only for a Classic key. With any other key the service name is the dataset.
        dataset: Option<String> = optional("cruddur", Plain).from(&["HONEYCOMB_DATASET"]),
        /// "gzip" sends about a tenth of the bytes.
        compression: &'static str =
            choice("none", &["none", "gzip"]).from(&["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"]),
        /// Time limit for all attempts to send one batch, in milliseconds. 0 means no limit.
        timeout: u64 = whole(10_000, 0..=3_600_000).from(&["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"]),
        /// Longest time before a span is sent, in milliseconds. Lower it to see traces sooner.
        schedule_delay: u64 = whole(5000, 1..=3_600_000).from(&["OTEL_BSP_SCHEDULE_DELAY"]),
        /// Spans per batch. A full batch is sent at once. A trace is never split.
        max_export_batch_size: u64 = whole(512, 1..=1_000_000).from(&["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"]),
        /// Spans that the queue holds. More are dropped and counted.
        max_queue_size: u64 = whole(2048, 1..=1_000_000).from(&["OTEL_BSP_MAX_QUEUE_SIZE"]),
    }
}

/// Age at which Honeycomb deletes a span: 60 days for most customers
/// (<https://docs.honeycomb.io/authentication-and-security/security-overview/>).
const MAX_AGE: Duration = Duration::from_secs(60 * 24 * 60 * 60);
/// Header with Honeycomb's API key.
pub(super) const TEAM: &str = "x-honeycomb-team";
pub(super) const DATASET: &str = "x-honeycomb-dataset";
/// Headers that only the exporter sets, because they must match the body and the connection.
const RESERVED_HEADERS: [&str; 6] =
    ["connection", "content-encoding", "content-length", "content-type", "host", "transfer-encoding"];
/// Headers whose values may be displayed. Any other header may contain a key.
pub(super) const PUBLIC_HEADERS: [&str; 4] = ["content-type", "content-encoding", "user-agent", DATASET];

/// Address to which traces are sent.
pub(super) struct TracesUrl {
    pub(super) url: Url,
    /// Place where the address was set.
    pub(super) origin: Origin,
    /// Key of telemetry.toml for this address.
    pub(super) key: &'static str,
    /// True if the address is complete: `/v1/traces` is not appended.
    pub(super) is_complete: bool,
}

pub(super) fn plan(context: &mut PlanContext<'_>) -> Result<Plan, Message> {
    let PlanContext { sources, shared, findings } = context;
    let (table, mut values) = Honeycomb::read(sources, findings)?;
    shared.add_to(&mut values);
    let spool = shared.spool(MAX_AGE, &mut values);
    let limits = BatchLimits::new(&table.schedule_delay, &table.max_queue_size, &table.max_export_batch_size, findings);
    findings::of_key_in_file(&table.api_key, sources, findings);
    let encoding = Encoding::Traces(Arc::new(OtlpJson::new(shared.resource.clone())));
    let url = traces_url(&table, findings);
    let destination = url.as_ref().map(|to| to.url.redacted()).unwrap_or_default();
    let client = table.enabled.value.then(|| url.and_then(|to| client(&table, to, limits, context, &mut values)));
    let plan = Plan { destination, spool, ..Plan::new("honeycomb", encoding, limits, values) };
    Ok(match client {
        None => plan.off(&table.enabled),
        Some(Err(missing)) => plan.waiting(&missing),
        Some(Ok((client, reason))) => plan.on(client, reason),
    })
}

/// Makes the client for this address. Returns it with a text that says where its settings come
/// from.
fn client(
    table: &Honeycomb,
    to: TracesUrl,
    limits: BatchLimits,
    context: &mut PlanContext<'_>,
    values: &mut Values,
) -> Result<(OtlpHttp, String), Message> {
    let PlanContext { sources, shared, findings } = context;
    findings::of_address(&to, findings);
    warn_of_protocol(sources, findings);
    let gzip = table.compression.value == "gzip";
    let headers = headers(table, sources, findings);
    let has_key = headers.iter().any(|(name, _)| name == TEAM);
    if findings::is_honeycomb(&to.url) {
        if !has_key {
            return Err(findings::missing_key(sources, &table.api_key));
        }
        let origin = match &table.api_key.value {
            Some(_) => table.api_key.origin.to_string(),
            None => "OTEL_EXPORTER_OTLP_HEADERS".to_owned(),
        };
        findings::of_key(&headers, &origin, &shared.service_name.value, findings);
    }
    warn_of_seconds("timeout", &table.timeout, findings);
    let client = HttpClient::new(&to.url, &certificates(sources, values)?).map_err(|error| {
        Message::new(error).next(
            "check the files in OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and \
             OTEL_EXPORTER_OTLP_CLIENT_KEY",
        )
    })?;
    let url_origin = match &to.origin {
        Origin::Default => "the default".to_owned(),
        origin => origin.to_string(),
    };
    let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let mut reason = format!(
        "enabled at {}; address from {url_origin}; headers {}; a batch is sent after {} ms",
        table.enabled.origin,
        names.join(", "),
        limits.delay.as_millis()
    );
    if !has_key {
        reason.push_str("; no API key (only Honeycomb itself needs one)");
    }
    if let Some(proxy) = client.proxy() {
        reason.push_str(&format!("; through the proxy {proxy} of the environment"));
    }
    let max_elapsed_time = max_elapsed_time(sources, table.timeout.value, findings);
    let (url, redactor) = (to.url.clone(), super::redactor(&to.url, &headers));
    Ok((OtlpHttp { client, url, url_origin, headers, redactor, gzip, max_elapsed_time }, reason))
}

/// Returns the address to which traces are sent, and its origin. `traces_endpoint` is used as it is,
/// with `/` for an empty path. `endpoint` gets `/v1/traces`, unless it already ends with it.
pub(super) fn traces_url(table: &Honeycomb, findings: &mut Findings) -> Result<TracesUrl, Message> {
    let (text, origin, is_complete) = match &table.traces_endpoint.value {
        Some(text) => (text.trim(), &table.traces_endpoint.origin, true),
        None => (table.endpoint.value.trim(), &table.endpoint.origin, false),
    };
    let key = if is_complete { "[honeycomb] traces_endpoint" } else { "[honeycomb] endpoint" };
    let given = origin.says(key, &described_address(text));
    let complaint = |problem: &str| Message::new(format!("{given}: {problem}"));
    let found = |url: Url| TracesUrl { url, origin: origin.clone(), key, is_complete };
    if is_unexpanded(text) {
        return Err(complaint("a variable in the address was not replaced").next("write the address in full"));
    }
    let Some(url) = Url::parse(text) else {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let has_scheme = matches!(scheme.as_deref(), Some("http" | "https"));
        let problem = if has_scheme { "invalid URL" } else { "invalid URL without http:// or https://" };
        return Err(complaint(problem).next("write https://api.honeycomb.io, or http://localhost:4318"));
    };
    if is_complete {
        // Only an empty path is changed: it becomes `/`.
        let slash = if url.path() == "/" { url.join("/") } else { None };
        return Ok(found(slash.unwrap_or(url)));
    }
    if url.path().trim_end_matches('/').ends_with("/v1/traces") {
        let problem = "the base address ends with /v1/traces already, so it is not appended again";
        findings.warn(complaint(problem).next("remove /v1/traces from it"));
        let base = Url::parse(text.trim_end_matches('/'));
        return Ok(found(base.unwrap_or(url)));
    }
    url.join("/v1/traces").map(found).ok_or_else(|| {
        complaint("/v1/traces is appended to this address, so it must not contain ? or #")
            .next("use OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    })
}

/// Returns the headers of a POST; the HTTP client adds `host` and `content-length`.
/// `OTEL_EXPORTER_OTLP_TRACES_HEADERS` replaces `OTEL_EXPORTER_OTLP_HEADERS`. An `x-honeycomb-team` in
/// it replaces `api_key`. An empty key is never sent: Honeycomb would answer that the key is missing.
pub(super) fn headers(table: &Honeycomb, sources: &Sources, findings: &mut Findings) -> Vec<(String, String)> {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut headers = vec![
        header("content-type", "application/json"),
        header("user-agent", concat!("cruddur/", env!("CARGO_PKG_VERSION"), " (OTLP JSON; Rust)")),
    ];
    if table.compression.value == "gzip" {
        headers.push(header("content-encoding", "gzip"));
    }
    let variable = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"]
        .into_iter()
        .find_map(|name| sources.env.get(name).map(|text| (name, text)));
    for (name, value) in variable.map(|(name, text)| parse_headers(name, text, findings)).unwrap_or_default() {
        if headers.iter().all(|(known, _)| *known != name) {
            headers.push((name, value));
        }
    }
    for (name, setting) in [(TEAM, &table.api_key), (DATASET, &table.dataset)] {
        let Some(value) = setting.value.as_deref().map(str::trim) else { continue };
        if headers.iter().any(|(known, _)| known == name) {
            continue;
        }
        match unsendable(value) {
            Some(problem) => findings.warn(format!("{}: not sent, because its value has {problem}", setting.origin)),
            None => headers.push(header(name, value)),
        }
    }
    headers
}

/// `name=value,name2=value2`, values percent-encoded. An invalid pair is skipped with a warning,
/// which does not show its value.
fn parse_headers(variable: &str, text: &str, findings: &mut Findings) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (place, pair) in text.split(',').map(str::trim).enumerate().filter(|(_, pair)| !pair.is_empty()) {
        let place = place + 1;
        let Some((name, value)) = pair.split_once('=') else {
            let next = if pair.contains(':') { "write name=value, not name: value" } else { "write name=value" };
            findings.warn(Message::new(format!("{variable}: header {place} is not sent")).next(next));
            continue;
        };
        let name = percent_decode_str(name.trim()).decode_utf8_lossy().to_ascii_lowercase();
        let value = percent_decode_str(value.trim()).decode_utf8_lossy().trim().to_owned();
        let checked = check_value(&value, Meaning::OfPair);
        let fault = checked.message(&format!("{variable}: {name}"));
        let value = checked.value.map_or_else(String::new, Cow::into_owned);
        let token =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&b));
        if !token {
            let what = format!("{variable}: header {place} is not sent, because its name is invalid");
            findings.warn(Message::new(what).next("write name=value"));
        } else if RESERVED_HEADERS.contains(&name.as_str()) {
            findings.warn(format!("{variable}: {name} is not sent, because the exporter sets that header itself"));
        } else if value.is_empty() {
            let what = format!("{variable}: {name} is not sent, because it has no value");
            findings.warn(Message::new(what).next("check that the variable in it is set"));
        } else if let Some(problem) = unsendable(&value) {
            findings.warn(format!("{variable}: {name} is not sent, because its value has {problem}"));
        } else {
            fault.into_iter().for_each(|fault| findings.warn(fault));
            headers.push((name, value));
        }
    }
    headers
}

/// Returns the reason why a header cannot have this value, or `None` if it can.
fn unsendable(value: &str) -> Option<&'static str> {
    // A shell would have replaced `${NAME}` and `$NAME`, but not in single quotes.
    if value.contains("${") || value.starts_with('$') {
        return Some("a variable that was not replaced");
    }
    if is_placeholder(value) {
        return Some("a placeholder that was not filled in");
    }
    if value.contains('\u{a0}') {
        return Some("a no-break space (U+00A0), which a header cannot have");
    }
    let can_be_sent = value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    (!can_be_sent).then_some("characters that a header cannot have")
}

fn warn_of_protocol(sources: &Sources, findings: &mut Findings) {
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        if let Some(protocol) =
            sources.env.get(name).filter(|protocol| !protocol.trim().eq_ignore_ascii_case("http/json"))
        {
            findings.warn(
                Message::new(format!("{name}={protocol}: this protocol is not supported; http/json is used"))
                    .next("unset it, or make sure that the receiver accepts JSON"),
            );
        }
    }
}

fn certificates(sources: &Sources, values: &mut Values) -> Result<Certificates, Message> {
    let mut read = |names: [&'static str; 2]| {
        let Some((name, path)) = names.into_iter().find_map(|name| Some((name, sources.env.get(name)?))) else {
            return Ok(None);
        };
        values.read_file(path).map(Some).map_err(|error| Message::new(format!("{error}: {path} ({name})")))
    };
    let authorities = read(["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"])?;
    let chain = read(["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"])?;
    let key = read(["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"])?;
    match (chain, key) {
        (Some(chain), Some(key)) => Ok(Certificates { authorities, ours: Some((chain, key)) }),
        (None, None) => Ok(Certificates { authorities, ours: None }),
        _ => Err("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY must be set together".into()),
    }
}

/// Returns the shorter one of the exporter's timeout and the batch processor's. 0 means no limit.
fn max_elapsed_time(sources: &Sources, timeout: u64, findings: &mut Findings) -> Option<Duration> {
    let export = sources.variable(&["OTEL_BSP_EXPORT_TIMEOUT"], |text| text.parse().ok(), "a whole number", findings);
    let export = export.map(|setting: Setting<u64>| setting.value);
    [Some(timeout), export].into_iter().flatten().filter(|millis| *millis > 0).min().map(Duration::from_millis)
}
