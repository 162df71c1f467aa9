//! The resource: facts about this process that every batch carries.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::{Origin, Setting, SettingsError, Sources, from_env};
use crate::trace::Value;
use crate::trace::span::Attribute;

/// The service's name and all attributes, in the order they are sent: our own, then those of `[resource]`, then those
/// of `OTEL_RESOURCE_ATTRIBUTES`; a later one of the same key replaces the earlier one in its place.
pub(super) fn read(
    sources: &Sources,
    name_in_file: Option<Setting<String>>,
    instance: &str,
) -> Result<(Setting<String>, Vec<Attribute>), SettingsError> {
    let from_variable = variable(sources);
    let table = sources.table("resource")?;
    let from_file = table.pairs()?;

    if from_file.iter().any(|(key, _)| key == "service.name") {
        sources.warn(
            "[resource] service.name is passed over: service_name, above the first table, is the name".to_owned(),
        );
    }
    let service_name = from_env(sources, "OTEL_SERVICE_NAME")
        .or_else(|| {
            let (_, name) = from_variable.iter().find(|(key, _)| key == "service.name")?;
            Some(Setting { value: name.clone(), origin: Origin::Environment("OTEL_RESOURCE_ATTRIBUTES") })
        })
        .or(name_in_file)
        .unwrap_or_else(|| super::default("backend-flask".to_owned()));

    let mut resource = vec![
        attribute("service.name", service_name.value.clone()),
        attribute("service.version", env!("CARGO_PKG_VERSION")),
        attribute("service.instance.id", instance.to_owned()),
        attribute("telemetry.sdk.language", "rust"),
        // "opentelemetry" is reserved for the official SDKs.
        attribute("telemetry.sdk.name", "cruddur-otlp"),
        attribute("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        attribute("process.pid", i64::from(std::process::id())),
    ];
    let given = from_file.into_iter().chain(from_variable.into_iter().map(|(key, text)| (key, Value::from(text))));
    for (key, value) in given.filter(|(key, _)| key != "service.name") {
        match resource.iter_mut().find(|attribute| attribute.key == key) {
            Some(known) => known.value = value,
            None => resource.push(Attribute { key: Cow::Owned(key), value }),
        }
    }
    Ok((service_name, resource))
}

fn attribute(key: &'static str, value: impl Into<Value>) -> Attribute {
    Attribute { key: Cow::Borrowed(key), value: value.into() }
}

/// `key=value,key2=value2`, both percent-encoded. One mistake discards the whole variable, as OpenTelemetry wants it.
fn variable(sources: &Sources) -> Vec<(String, String)> {
    const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
    let Some(text) = sources.env.get(NAME) else { return Vec::new() };
    let mut pairs = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let decoded = pair.split_once('=').and_then(|(key, value)| {
            let decode = |text: &str| percent_decode_str(text.trim()).decode_utf8().ok().map(Cow::into_owned);
            Some((decode(key).filter(|key| !key.is_empty())?, decode(value)?))
        });
        match decoded {
            Some(pair) => pairs.push(pair),
            None => {
                sources.warn(format!("{NAME} is ignored: {pair:?} is not of the form key=value"));
                return Vec::new();
            }
        }
    }
    pairs
}
