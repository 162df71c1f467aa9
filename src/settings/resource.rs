//! The resource (OpenTelemetry's term): attributes of this process, sent with every batch.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::file::{Entry, TomlValue};
use super::{Findings, Meaning, Origin, Scalar, Setting, Sources, Values, check_value};
use crate::text::{Message, one_line};
use crate::trace::Value;
use crate::trace::span::Attribute;

/// Text of the table in telemetry.toml. It accepts any key, so `section!` cannot declare it.
pub(super) const TOML: &str = "\
# Attributes of this deployment, sent with every batch. Add any keys. OTEL_RESOURCE_ATTRIBUTES
[resource]
# \"deployment.environment.name\" = \"development\"
";
pub(super) const TABLE: &str = "resource";
const VARIABLE: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// Returns the service name and all attributes in the order in which they are sent: our own, then
/// `[resource]`, then `OTEL_RESOURCE_ATTRIBUTES`. A later value replaces an earlier one of the same
/// key. `service_name` comes from the file or `OTEL_SERVICE_NAME`. `instance` identifies
/// this process.
pub(super) fn read(
    sources: &Sources,
    service_name: Setting<String>,
    instance: &str,
    findings: &mut Findings,
) -> Result<(Setting<String>, Vec<Attribute>, Values), Message> {
    let from_variable = variable_pairs(sources, findings);
    let (mut from_file, mut values) = (Vec::new(), Values::default());
    for entry in sources.entries_of(TABLE)? {
        let Some((key, value)) = file_pair(sources, entry, findings)? else { continue };
        let scalar = Scalar::Text(format!("{value:?}"));
        values.add(format!("[{TABLE}] {key}"), scalar, "", sources.origin_of(entry));
        from_file.push((key, value));
    }
    if from_file.iter().any(|(key, _)| key == "service.name") {
        findings.warn(
            Message::new("[resource] service.name is ignored").next("set service_name, above the first table, instead"),
        );
    }
    let in_attributes = from_variable.iter().find(|(key, _)| key == "service.name");
    let service_name = match (in_attributes, &service_name.origin) {
        (_, Origin::Environment(_)) | (None, _) => service_name,
        (Some((_, name)), _) => Setting { value: name.clone(), origin: Origin::Environment(VARIABLE) },
    };
    let mut resource = process_attributes(&service_name.value, instance, std::process::id());
    let given = from_file.into_iter().chain(from_variable.into_iter().map(|(key, text)| (key, Value::from(text))));
    for (key, value) in given.filter(|(key, _)| key != "service.name") {
        match resource.iter_mut().find(|attribute| attribute.key == key) {
            Some(known) => known.value = value,
            None => resource.push(Attribute::new(key, value)),
        }
    }
    Ok((service_name, resource, values))
}

/// Returns the resource of the sample request, see [`crate::trace::sample`].
pub(crate) fn sample_resource() -> Vec<Attribute> {
    process_attributes("backend-flask", "627cc493-f310-47de-96bd-71410b7dec09", 4242)
}

/// Returns the attributes that every process of this program has.
fn process_attributes(service_name: &str, instance: &str, pid: u32) -> Vec<Attribute> {
    vec![
        // The only required attribute. Honeycomb makes it the name of the dataset.
        Attribute::new("service.name", service_name.to_owned()),
        Attribute::new("service.version", env!("CARGO_PKG_VERSION")),
        // A new uuid at each start of the program.
        Attribute::new("service.instance.id", instance.to_owned()),
        Attribute::new("telemetry.sdk.language", "rust"),
        // The name "opentelemetry" is reserved for the official SDKs.
        Attribute::new("telemetry.sdk.name", "cruddur-otlp"),
        Attribute::new("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        Attribute::new("process.pid", i64::from(pid)),
    ]
}

/// Returns a key of `[resource]` and its value: text, a number, true or false. Returns `None` if
/// the value is a placeholder.
fn file_pair(sources: &Sources, entry: &Entry, findings: &mut Findings) -> Result<Option<(String, Value)>, Message> {
    let key = &entry.key;
    let value = match &entry.value {
        TomlValue::Text(text) => {
            let Some(text) = sources.check_entry(entry, &format!("[{TABLE}] {key}"), text, findings) else {
                return Ok(None);
            };
            text.into()
        }
        TomlValue::Whole(Some(number)) => (*number).into(),
        TomlValue::Float(number) => (*number).into(),
        TomlValue::Flag(value) => (*value).into(),
        TomlValue::Table(_) => {
            let problem =
                format!("[{TABLE}] {key} has dots in it; put the whole key in quotes: \"{key}.name\" = \"value\"");
            return Err(sources.error(entry.key_at, &problem));
        }
        other => {
            let problem = format!("[{TABLE}] {key} must be text, a number, true or false, not {}", other.kind());
            return Err(sources.error(entry.value_at, &problem));
        }
    };
    Ok(Some((key.clone(), value)))
}

/// Parses `key=value,key2=value2`, with percent-encoded keys and values. One mistake discards the
/// whole variable, as OpenTelemetry specifies.
fn variable_pairs(sources: &Sources, findings: &mut Findings) -> Vec<(String, String)> {
    let Some(text) = sources.env.get(VARIABLE) else { return Vec::new() };
    let mut pairs = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let decoded = pair.split_once('=').and_then(|(key, value)| {
            let decode = |text: &str| percent_decode_str(text.trim()).decode_utf8().ok().map(Cow::into_owned);
            Some((decode(key).filter(|key| !key.is_empty())?, decode(value)?))
        });
        match decoded {
            Some((key, value)) => {
                let checked = check_value(&value, Meaning::Text);
                checked
                    .message(&format!("{VARIABLE}: {}", one_line(&key)))
                    .into_iter()
                    .for_each(|fault| findings.warn(fault));
                pairs.extend(checked.value.map(|value| (key, value.into_owned())));
            }
            None => {
                findings.warn(format!("{VARIABLE} is ignored: {pair:?} is not of the form key=value"));
                return Vec::new();
            }
        }
    }
    pairs
}
