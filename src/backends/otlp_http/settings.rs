//! `[honeycomb]` and OpenTelemetry's variables become a client.

use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::{OtlpHttp, dialect, findings};
use crate::backends::{Plan, Sink, Switch};
use crate::delivery::BatchLimits;
use crate::settings::{
    Origin, Setting, Settings, SettingsError, Sources, Table, batch_limits, described_address, is_unexpanded,
    warn_of_seconds,
};
use crate::wire::http::{Certificates, HttpClient, shown};

pub(super) const TOML: &str = r#"
# Honeycomb, or any other receiver of OTLP over HTTP in JSON (a Collector on http://localhost:4318, Jaeger, ...).
# The key comes from HONEYCOMB_API_KEY, or as x-honeycomb-team from OTEL_EXPORTER_OTLP_HEADERS.
[honeycomb]
enabled = false
# Base address; /v1/traces is appended. OTEL_EXPORTER_OTLP_ENDPOINT
endpoint = "https://api.honeycomb.io"
# The whole address, if it ends otherwise. OTEL_EXPORTER_OTLP_TRACES_ENDPOINT
# traces_endpoint = "https://collector.example/otlp"
# The key, if it cannot come from the environment: keep this file from others then. HONEYCOMB_API_KEY
# api_key = "..."
# Only Classic keys need a dataset; with others the service name is the dataset. HONEYCOMB_DATASET
# dataset = "cruddur"
# "gzip" makes a tenth of it. OTEL_EXPORTER_OTLP_COMPRESSION
compression = "none"
# Milliseconds for all tries of one batch, 0 is for ever. OTEL_EXPORTER_OTLP_TIMEOUT
timeout = 10000
# A batch leaves when it is full or this many milliseconds old. OTEL_BSP_SCHEDULE_DELAY
schedule_delay = 5000
# Spans that make a batch (a trace stays whole), and spans that may wait. OTEL_BSP_MAX_EXPORT_BATCH_SIZE, OTEL_BSP_MAX_QUEUE_SIZE
max_export_batch_size = 512
max_queue_size = 2048
"#;

/// The header that carries Honeycomb's key.
pub(super) const TEAM: &str = "x-honeycomb-team";
pub(super) const DATASET: &str = "x-honeycomb-dataset";
/// Headers that would contradict the body.
const NOT_YOURS: [&str; 6] =
    ["connection", "content-encoding", "content-length", "content-type", "host", "transfer-encoding"];
/// Headers whose values may be shown; any other may be somebody's key.
pub(super) const NO_SECRET: [&str; 4] = ["content-type", "content-encoding", "user-agent", DATASET];
const LIMITS: BatchLimits = BatchLimits { delay: Duration::from_secs(5), queue: 2048, batch: 512 };

pub(super) fn plan(table: &Table<'_>, sources: &Sources, settings: &Settings) -> Result<Plan, SettingsError> {
    let enabled = table.flag("enabled", false)?;
    let endpoint = table.address("endpoint", &["OTEL_EXPORTER_OTLP_ENDPOINT"])?;
    let traces_endpoint = table.address("traces_endpoint", &["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])?;
    let key = table.secret("api_key", &["HONEYCOMB_API_KEY"])?;
    let dataset = table.text("dataset", &["HONEYCOMB_DATASET"])?;
    let compression = table.choice(
        "compression",
        &["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"],
        &["none", "gzip"],
        "none",
    )?;
    let timeout_names = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
    let timeout = table.whole("timeout", &timeout_names, 0..=3_600_000, 10_000)?;
    let variables = ["OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"];
    let limits = batch_limits(table, variables, LIMITS)?;

    // It is given away whether it is used or not.
    if let Some(key) = &key {
        findings::of_key_in_file(sources, key);
    }
    let mut plan = Plan::off("honeycomb", &enabled, limits);
    plan.dialect = Some(dialect(settings.resource.clone()));
    let whole = traces_endpoint.is_some();
    let (url, origin) = match traces_url(sources, endpoint, traces_endpoint) {
        Ok(found) => found,
        Err(problem) => {
            if enabled.value {
                plan.switch = Switch::Waiting;
                plan.reason = problem;
            }
            return Ok(plan);
        }
    };
    plan.destination = shown(&url);
    if !enabled.value {
        return Ok(plan);
    }

    findings::of_address(sources, &url, &origin.says(key_of(whole), &shown(&url)), whole);
    let url_origin = match origin {
        Origin::Default => "the default".to_owned(),
        origin => origin.to_string(),
    };
    warn_of_protocol(sources);
    let headers = headers(sources, key.as_ref(), dataset.as_ref(), compression.value == "gzip");
    let has = |name: &str| headers.iter().any(|(header, _)| header == name);
    if findings::is_honeycomb(&url) {
        if !has(TEAM) {
            plan.switch = Switch::Waiting;
            plan.reason = findings::of_missing_key(sources, key.as_ref());
            return Ok(plan);
        }
        let origin = key.as_ref().map_or_else(|| "OTEL_EXPORTER_OTLP_HEADERS".to_owned(), |key| key.origin.to_string());
        findings::of_key(sources, &headers, &origin, &settings.service_name.value);
    }
    warn_of_seconds(sources, "timeout", &timeout);
    let client = match certificates(sources).and_then(|certificates| HttpClient::new(&url, &certificates)) {
        Ok(client) => client,
        Err(problem) => {
            plan.switch = Switch::Waiting;
            plan.reason = problem;
            return Ok(plan);
        }
    };
    let header_names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    plan.reason =
        format!("enabled at {}; address from {url_origin}; headers {}", enabled.origin, header_names.join(", "));
    plan.reason.push_str(&format!("; a batch leaves after {} ms", limits.delay.as_millis()));
    if !has(TEAM) {
        plan.reason.push_str("; no API key, which only Honeycomb itself asks for");
    }
    if let Some(proxy) = client.proxy() {
        plan.reason.push_str(&format!("; through the proxy {proxy} of the environment"));
    }
    plan.switch = Switch::On(Sink::Traces(Box::new(OtlpHttp {
        client,
        hidden: super::hidden(&url, &headers),
        url,
        url_origin,
        headers,
        resource: settings.resource.clone(),
        gzip: compression.value == "gzip",
        budget: budget(sources, timeout.value),
    })));
    Ok(plan)
}

/// The address that traces go to, and where it came from. The variable for traces counts as it is; the general one is
/// a base, and gets `/v1/traces`.
pub(super) fn traces_url(
    sources: &Sources,
    endpoint: Option<Setting<String>>,
    traces_endpoint: Option<Setting<String>>,
) -> Result<(String, Origin), String> {
    let (Setting { value, origin }, whole) = match (traces_endpoint, endpoint) {
        (Some(setting), _) => (setting, true),
        (None, Some(setting)) => (setting, false),
        (None, None) => (Setting { value: "https://api.honeycomb.io".to_owned(), origin: Origin::Default }, false),
    };
    let text = value.trim();
    let given = origin.says(key_of(whole), &described_address(text));
    let complaint = |problem: &str| format!("{given}: {problem}");
    if is_unexpanded(text) {
        return Err(complaint("a variable in it was never replaced; write the address out"));
    }
    if !text.starts_with("http://") && !text.starts_with("https://") {
        return Err(complaint(
            "it has no http:// or https:// in front; write https://api.honeycomb.io, or http://localhost:4318",
        ));
    }
    if text.parse::<ureq::http::Uri>().ok().and_then(|uri| uri.host().map(str::len)).unwrap_or(0) == 0 {
        return Err(complaint("this is no address; write https://api.honeycomb.io, or http://localhost:4318"));
    }
    if !whole && text.contains(['?', '#']) {
        return Err(complaint(
            "/v1/traces is appended to this address, so it can have no ? and no #; use OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        ));
    }
    let base = text.trim_end_matches('/');
    if whole {
        let has_path = base.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        return Ok((if has_path { text.to_owned() } else { format!("{base}/") }, origin));
    }
    if base.ends_with("/v1/traces") {
        sources
            .warn(complaint("/v1/traces would be appended to a base address, and is not a second time; leave it out"));
        return Ok((base.to_owned(), origin));
    }
    Ok((format!("{base}/v1/traces"), origin))
}

fn key_of(whole: bool) -> &'static str {
    if whole { "[honeycomb] traces_endpoint" } else { "[honeycomb] endpoint" }
}

/// All headers of a POST. The variable for traces replaces the general one; the key of `HONEYCOMB_API_KEY` counts
/// unless one of them brings its own. An empty key is never sent: Honeycomb would answer that it is missing.
pub(super) fn headers(
    sources: &Sources,
    key: Option<&Setting<String>>,
    dataset: Option<&Setting<String>>,
    gzip: bool,
) -> Vec<(String, String)> {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut headers = vec![
        header("content-type", "application/json"),
        header("user-agent", concat!("cruddur/", env!("CARGO_PKG_VERSION"), " (OTLP JSON; Rust)")),
    ];
    if gzip {
        headers.push(header("content-encoding", "gzip"));
    }
    let variable = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"]
        .into_iter()
        .find_map(|name| sources.env.get(name).map(|text| (name, text)));
    for (name, value) in variable.map(|(name, text)| parse_headers(sources, name, text)).unwrap_or_default() {
        if headers.iter().all(|(known, _)| *known != name) {
            headers.push((name, value));
        }
    }
    for (name, setting) in [(TEAM, key), (DATASET, dataset)] {
        let Some(setting) = setting else { continue };
        if headers.iter().any(|(known, _)| known == name) {
            continue;
        }
        if is_left_as_written(&setting.value) {
            sources.warn(format!("{}: it holds a variable that was never replaced, and is not sent", setting.origin));
        } else if sendable(setting.value.trim()) {
            headers.push(header(name, setting.value.trim()));
        } else {
            sources.warn(format!("{}: it holds characters that no header can carry, and is not sent", setting.origin));
        }
    }
    headers
}

/// `name=value,name2=value2`, values percent-encoded. A pair that makes no sense is skipped and said, without its value.
fn parse_headers(sources: &Sources, variable: &str, text: &str) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (place, pair) in text.split(',').map(str::trim).enumerate().filter(|(_, pair)| !pair.is_empty()) {
        let place = place + 1;
        let Some((name, value)) = pair.split_once('=') else {
            let next = if pair.contains(':') { "write name=value, not name: value" } else { "write name=value" };
            sources.warn(format!("{variable}: header {place} is not sent; {next}"));
            continue;
        };
        let name = percent_decode_str(name.trim()).decode_utf8_lossy().to_ascii_lowercase();
        let value = percent_decode_str(value.trim()).decode_utf8_lossy().trim().to_owned();
        let token =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&b));
        if !token {
            sources
                .warn(format!("{variable}: header {place} is not sent; its name is no header name, write name=value"));
        } else if NOT_YOURS.contains(&name.as_str()) {
            sources.warn(format!("{variable}: {name} is not sent; that header is the exporter's own"));
        } else if value.is_empty() {
            sources.warn(format!("{variable}: {name} has no value and is not sent; was the variable behind it unset?"));
        } else if is_left_as_written(&value) {
            sources.warn(format!("{variable}: {name} holds a variable that was never replaced, and is not sent"));
        } else if !sendable(&value) {
            sources.warn(format!("{variable}: {name} holds characters that no header can carry, and is not sent"));
        } else {
            headers.push((name, value));
        }
    }
    headers
}

/// `${NAME}` or `$NAME`, which a shell would have replaced, but not in single quotes.
fn is_left_as_written(value: &str) -> bool {
    value.contains("${") || value.trim_start().starts_with('$')
}

fn sendable(value: &str) -> bool {
    value.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

fn warn_of_protocol(sources: &Sources) {
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        if let Some(protocol) =
            sources.env.get(name).filter(|protocol| !protocol.trim().eq_ignore_ascii_case("http/json"))
        {
            sources.warn(format!("{name}={protocol}: only http/json is spoken here, to the same address; next: unset it, or make sure that address takes JSON"));
        }
    }
}

fn certificates(sources: &Sources) -> Result<Certificates, String> {
    let read = |names: [&'static str; 2]| {
        let Some((name, path)) = names.into_iter().find_map(|name| Some((name, sources.env.get(name)?))) else {
            return Ok(None);
        };
        sources.content_of(path).map(Some).map_err(|error| format!("{name}={path}: {error}"))
    };
    let authorities = read(["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"])?;
    let chain = read(["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"])?;
    let key = read(["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"])?;
    match (chain, key) {
        (Some(chain), Some(key)) => Ok(Certificates { authorities, ours: Some((chain, key)) }),
        (None, None) => Ok(Certificates { authorities, ours: None }),
        _ => {
            Err("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY only work together".to_owned())
        }
    }
}

/// The shorter of the exporter's time-out and the batch processor's; 0 is no limit.
fn budget(sources: &Sources, timeout: u64) -> Option<Duration> {
    let export = sources.variable(&["OTEL_BSP_EXPORT_TIMEOUT"], |text| text.parse().ok(), "a whole number");
    let export = export.map(|setting: Setting<u64>| setting.value);
    [Some(timeout), export].into_iter().flatten().filter(|millis| *millis > 0).min().map(Duration::from_millis)
}
