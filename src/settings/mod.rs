//! `telemetry.toml` and the environment become [`Settings`].
//!
//! The environment wins over the file, the file over the default; only `enabled` is the file's alone, so that one
//! place says what is on. A mistake in the file ends the program before it listens, and changes nothing in one that runs;
//! a mistake in a variable is noticed, and the next source counts. Whatever can be seen to be odd without asking anybody
//! is a [`Finding`].

mod file;
mod finding;
mod notifications;
mod resource;
mod sources;
mod table;
mod watch;

use std::net::IpAddr;
use std::time::Duration;

use crate::delivery::BatchLimits;
use crate::trace::context::Propagator;
use crate::trace::sampler::Sampler;
use crate::trace::span::{Attribute, Limits};

pub use file::content;
pub use finding::{Finding, Severity, described_address, described_secret};
pub use notifications::notifications;
pub use sources::{DEFAULT_FILE, Env, Origin, Reading, Setting, SettingsError, Sources, settings_path};
pub use table::Table;
pub use watch::{Content, Occasion, Watch};

/// What all of the program shares; each backend reads its own table.
pub struct Settings {
    /// Where to listen.
    pub listen: Setting<String>,
    /// The name under which Honeycomb and X-Ray file our traces.
    pub service_name: Setting<String>,
    /// Facts about this process, sent with every batch; `service.name` is the first.
    pub resource: Vec<Attribute>,
    /// False with `OTEL_SDK_DISABLED=true`.
    pub recording: bool,
    /// Which headers bring a caller's context, and go to those we call.
    pub propagators: Vec<Propagator>,
    /// What OpenTelemetry backends get.
    pub sampler: Sampler,
    /// How much a span may hold.
    pub limits: Limits,
    /// The methods that spans are named after; any other is `_OTHER`. `OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS`
    pub known_methods: Vec<String>,
    /// The origins of pages that may call the API.
    pub origins: Vec<String>,
    /// Whether `/telemetry/...` is served.
    pub page: Setting<bool>,
    /// Whether `/telemetry/...` is served to other machines.
    pub page_for_all: Setting<bool>,
}

/// Where to listen when nobody says.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:4567";

/// The part of `telemetry.toml` that belongs to no backend.
pub const TOML: &str = r#"# Cruddur's telemetry: who hears about its requests. `cruddur init` writes this file.
# Environment variables win over what is written here, except over `enabled`.
# No secret belongs in this file: keys come from the environment.
# Save it, and the running program goes over to it. `cruddur check` tries it out.

# The name under which Honeycomb and X-Ray file the traces. OTEL_SERVICE_NAME
service_name = "backend-flask"

# Which traces OpenTelemetry backends get. OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG
# traces_sampler = "parentbased_always_on"
# traces_sampler_arg = "1.0"

# Which headers bring the caller's trace (the first valid one wins) and are sent to those we call. OTEL_PROPAGATORS
# propagators = "tracecontext,baggage,xray"

# Facts about this deployment, sent with every batch. OTEL_RESOURCE_ATTRIBUTES
[resource]
# "deployment.environment.name" = "development"

# The page, GET /, and the JSON it is made of, GET /telemetry/...: requests, traces, and every byte that left.
[page]
enabled = true
# Answer other machines too, not only this one; a container takes every browser for one. CRUDDUR_PAGE_ALLOW_REMOTE
allow_remote = false
"#;

impl Settings {
    /// Reads all but the backends' tables. `listen` is what the command line says, `instance` the id of this process: it
    /// outlives the settings.
    ///
    /// # Errors
    ///
    /// The file has a value of the wrong type.
    pub fn read(sources: &Sources, listen: Option<&str>, instance: &str) -> Result<Self, SettingsError> {
        let top = sources.top();
        let listen = match listen {
            Some(listen) => Setting { value: listen.to_owned(), origin: Origin::Environment("--listen") },
            None => from_env(sources, "CRUDDUR_LISTEN").unwrap_or_else(|| default(DEFAULT_LISTEN.to_owned())),
        };
        let in_file = top.text("service_name", &[])?;
        let (service_name, resource) = resource::read(sources, in_file, instance)?;
        let propagators = propagators(sources, top.text("propagators", &["OTEL_PROPAGATORS"])?);
        let sampler = sampler(
            sources,
            top.text("traces_sampler", &["OTEL_TRACES_SAMPLER"])?,
            top.text("traces_sampler_arg", &["OTEL_TRACES_SAMPLER_ARG"])?,
        );
        let page = sources.table("page")?;
        let settings = Self {
            listen,
            service_name,
            resource,
            recording: !boolean(sources, "OTEL_SDK_DISABLED"),
            propagators,
            sampler,
            limits: limits(sources),
            known_methods: known_methods(sources),
            origins: origins(sources),
            page: page.flag("enabled", true)?,
            page_for_all: page_for_all(sources, page.flag("allow_remote", false)?),
        };
        page.finish()?;
        settings.tell_of_an_open_page(sources);
        if settings.service_name.value.starts_with("unknown_service") {
            let Setting { value, origin } = &settings.service_name;
            sources.warn(format!(
                "{}: traces of every program without a name end up under this one; next: choose another",
                origin.says("service_name", value)
            ));
        }
        sources.tell_of_variables_without_effect();
        Ok(settings)
    }
}

impl Settings {
    /// Traces hold what clients sent.
    fn tell_of_an_open_page(&self, sources: &Sources) {
        let Self { listen, page, page_for_all, .. } = self;
        let host = listen.value.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
        let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if page.value && page_for_all.value && !is_local {
            sources.warn(format!(
                "{}: [page] allow_remote = true while listening on {} ({}): whoever reaches this port can read all traces, with what \
                 clients sent; next: set it to false, listen on 127.0.0.1, or, in a container, publish the port to 127.0.0.1 alone",
                page_for_all.origin, listen.value, listen.origin
            ));
        }
    }
}

/// The batch limits that every queue has, from a backend's table under OpenTelemetry's names.
///
/// # Errors
///
/// The file has a value of the wrong type.
pub fn batch_limits(
    table: &Table<'_>,
    variables: [&'static str; 3],
    defaults: BatchLimits,
) -> Result<BatchLimits, SettingsError> {
    let [delay, queue, batch] = variables.map(|name| if name.is_empty() { Vec::new() } else { vec![name] });
    let millis = u64::try_from(defaults.delay.as_millis()).unwrap_or(u64::MAX);
    let delay = table.whole("schedule_delay", &delay, 1..=3_600_000, millis)?;
    let queue = table.whole("max_queue_size", &queue, 1..=1_000_000, defaults.queue as u64)?;
    let batch = table.whole("max_export_batch_size", &batch, 1..=1_000_000, defaults.batch as u64)?;
    warn_of_seconds(table.sources(), "schedule_delay", &delay);
    Ok(BatchLimits {
        delay: Duration::from_millis(delay.value),
        queue: queue.value as usize,
        batch: batch.value.min(queue.value) as usize,
    })
}

/// Says so if somebody has set milliseconds to so small a number that seconds were probably meant.
pub fn warn_of_seconds(sources: &Sources, name: &str, setting: &Setting<u64>) {
    let Setting { value, origin } = setting;
    if (1..50).contains(value) && *origin != Origin::Default {
        sources.warn(format!(
            "{origin}: {name} = {value} is in milliseconds; write {} if seconds were meant",
            value * 1000
        ));
    }
}

impl Sources {
    /// Says of each variable that users of other SDKs set, and that does nothing here, what to do instead.
    fn tell_of_variables_without_effect(&self) {
        for (name, instead) in WITHOUT_EFFECT {
            if self.env.get(name).is_some() {
                self.note(format!("{name} has no effect here: {instead}"));
            }
        }
    }
}

const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("OTEL_TRACES_EXPORTER", "backends are switched by `enabled` in telemetry.toml"),
    ("OTEL_LOGS_EXPORTER", "backends are switched by `enabled` in telemetry.toml"),
    ("OTEL_METRICS_EXPORTER", "there are no metrics"),
    ("OTEL_SEMCONV_STABILITY_OPT_IN", "the stable HTTP conventions are the only ones"),
    ("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", "exceptions are span events"),
];

fn propagators(sources: &Sources, setting: Option<Setting<String>>) -> Vec<Propagator> {
    let Some(setting) = setting else { return Propagator::ALL.to_vec() };
    let mut propagators = Vec::new();
    for name in setting.value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let propagator = match name.to_ascii_lowercase().as_str() {
            "none" => continue,
            "tracecontext" => Propagator::TraceContext,
            "baggage" => Propagator::Baggage,
            "xray" => Propagator::XRay,
            _ => {
                sources.warn(format!(
                    "{}: the propagator {name:?} is not spoken here, only tracecontext, baggage and xray",
                    setting.origin
                ));
                continue;
            }
        };
        if !propagators.contains(&propagator) {
            propagators.push(propagator);
        }
    }
    propagators
}

fn sampler(sources: &Sources, name: Option<Setting<String>>, ratio: Option<Setting<String>>) -> Sampler {
    let fallback = || Sampler::named("parentbased_always_on", 1.0).expect("a name of Sampler::NAMES");
    let Some(name) = name else { return fallback() };
    let ratio = match ratio {
        None => 1.0,
        Some(text) => match text.value.trim().parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
            _ => {
                sources.warn(format!("{}: {:?} is no number from 0 to 1; using 1", text.origin, text.value));
                1.0
            }
        },
    };
    Sampler::named(&name.value.trim().to_ascii_lowercase(), ratio).unwrap_or_else(|| {
        sources.warn(format!(
            "{}: there is no sampler {:?} here, only {}; using parentbased_always_on",
            name.origin,
            name.value,
            Sampler::NAMES.join(", ")
        ));
        fallback()
    })
}

/// These have no key in the file: they are for those who bring OpenTelemetry's variables with them.
fn limits(sources: &Sources) -> Limits {
    let defaults = Limits::default();
    let count = |names: &[&'static str]| {
        sources.variable(names, |text| text.parse().ok(), "a whole number").map(|setting: Setting<usize>| setting.value)
    };
    let attributes = count(&["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"]);
    let event_attributes = count(&["OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"]);
    Limits {
        attributes: attributes.unwrap_or(defaults.attributes),
        value_length: count(&["OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"]),
        events: count(&["OTEL_SPAN_EVENT_COUNT_LIMIT"]).unwrap_or(defaults.events),
        event_attributes: event_attributes.unwrap_or(defaults.event_attributes),
    }
}

/// The variable replaces the whole list, and its case counts.
fn known_methods(sources: &Sources) -> Vec<String> {
    let methods = sources.env.get("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS");
    let methods = methods.unwrap_or("CONNECT,DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT,QUERY,TRACE");
    methods.split(',').map(|method| method.trim().to_owned()).filter(|method| !method.is_empty()).collect()
}

/// What a browser sends as `Origin` has no path and no trailing slash, whatever the variable says.
fn origins(sources: &Sources) -> Vec<String> {
    const FRONT_END: &str = "FRONTEND_URL";
    let mut origins = Vec::new();
    let mut has_front_end = false;
    for name in [FRONT_END, "BACKEND_URL"] {
        let Some(url) = sources.env.get(name).map(str::trim) else { continue };
        if is_unexpanded(url) {
            sources.warn(format!(
                "{name}={url}: a variable in it was never replaced; it is passed over; next: write the address out"
            ));
            continue;
        }
        let Some((scheme, rest)) = url.split_once("://").filter(|(_, rest)| !rest.is_empty()) else {
            sources.warn(format!("{name}={url} is no URL: write http://localhost:3000 or the like; it is passed over"));
            continue;
        };
        has_front_end |= name == FRONT_END;
        let host = rest.split('/').next().unwrap_or(rest);
        let origin = format!("{scheme}://{host}");
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    if !has_front_end {
        origins.insert(0, "http://localhost:3000".to_owned());
    }
    if sources.env.get(FRONT_END).is_none() {
        sources.note("FRONTEND_URL is not set: pages of http://localhost:3000 may call the API".to_owned());
    }
    origins
}

/// Whether a shell, or whoever else should have, has left a variable as it was written: `${NAME}`, `{NAME}`, `$NAME`.
#[must_use]
pub fn is_unexpanded(text: &str) -> bool {
    let names = text.split('$').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'));
    names || text.contains('{')
}

/// Only `true` is true, in any case; anything else is false, and said if it is not `false`.
fn boolean(sources: &Sources, name: &'static str) -> bool {
    let parse = |text: &str| text.to_ascii_lowercase().parse().ok();
    sources.variable(&[name], parse, "true or false").is_some_and(|setting| setting.value)
}

fn page_for_all(sources: &Sources, in_file: Setting<bool>) -> Setting<bool> {
    let parse = |text: &str| text.to_ascii_lowercase().parse().ok();
    sources.variable(&["CRUDDUR_PAGE_ALLOW_REMOTE"], parse, "true or false").unwrap_or(in_file)
}

fn from_env(sources: &Sources, name: &'static str) -> Option<Setting<String>> {
    sources.variable(&[name], |text| Some(text.to_owned()), "text")
}

fn default<T>(value: T) -> Setting<T> {
    Setting { value, origin: Origin::Default }
}

#[cfg(test)]
mod tests;
