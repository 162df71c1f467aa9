//! `telemetry.toml` and the environment become [`Settings`].
//!
//! The environment wins over the file, the file over the default; only `enabled` is the file's alone, so that one
//! place says what is on. A mistake in the file ends the program before it listens, and changes nothing in one that runs;
//! a mistake in a variable is noticed, and the next source counts. Whatever can be seen to be odd without asking anybody
//! is a [`Finding`].

mod batch;
mod file;
mod finding;
mod resource;
pub mod section;
mod sources;
mod values;
mod watch;

use std::net::IpAddr;

use self::section::Shown::Plain;
use self::section::{flag, optional, section, text};
use crate::text::{Message, Url};
use crate::trace::context::Propagator;
use crate::trace::sampler::Sampler;
use crate::trace::span::{Attribute, Limits};

pub use batch::{BatchLimits, warn_of_seconds};
pub use finding::{Finding, Findings, Severity, described_address, described_secret};
pub(crate) use resource::sample_resource;
pub use section::Section;
pub use sources::{DEFAULT_FILE, Env, Origin, Setting, Sources, settings_path};
pub use values::{ResolvedValue, Scalar, Values};
pub use watch::{FileContent, FileEvent, Watch};

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

section! {
    /// Cruddur's telemetry: who hears about its requests. `cruddur init` writes this file.
    /// Environment variables win over what is written here, except over `enabled`.
    /// No secret belongs in this file: keys come from the environment.
    /// Save it, and the running program goes over to it. `cruddur check` tries it out.
    struct TopLevel("") {
        /// The name under which Honeycomb and X-Ray file the traces.
        service_name: String = text("backend-flask", Plain).from(&["OTEL_SERVICE_NAME"]),
        /// Which traces OpenTelemetry backends get.
        traces_sampler: Option<String> = optional("parentbased_always_on", Plain).from(&["OTEL_TRACES_SAMPLER"]),
        /// The share of traces that a sampler with "traceidratio" in its name takes.
        traces_sampler_arg: Option<String> = optional("1.0", Plain).from(&["OTEL_TRACES_SAMPLER_ARG"]),
        /// Which headers bring the caller's trace (the first valid one wins) and are sent to those we call.
        propagators: Option<String> = optional("tracecontext,baggage,xray", Plain).from(&["OTEL_PROPAGATORS"]),
    }
}

section! {
    /// The page, GET /, and the JSON it is made of, GET /telemetry/...: requests, traces, and every byte that left.
    struct PageTable("page") {
        enabled: bool = flag(true),
        /// Answer other machines too, not only this one; a container takes every browser for one.
        allow_remote: bool = flag(false).from(&["CRUDDUR_PAGE_ALLOW_REMOTE"]),
    }
}

/// The part of telemetry.toml that belongs to no backend.
#[must_use]
pub fn toml() -> String {
    [TopLevel::SECTION.toml(), resource::TOML.to_owned(), PageTable::SECTION.toml()].join("\n")
}

/// The sections of [`toml`], except `[resource]`, which takes any key.
#[must_use]
pub fn sections() -> [&'static Section; 2] {
    [&TopLevel::SECTION, &PageTable::SECTION]
}

/// The keys and tables of [`toml`].
#[must_use]
pub fn known_tables() -> Vec<&'static str> {
    let keys = TopLevel::SECTION.keys.iter().map(|key| key.name);
    keys.chain([resource::TABLE, PageTable::SECTION.name]).collect()
}

impl Settings {
    /// Reads all but the backends' tables. `listen` is what the command line says, `instance` the id of this process: it
    /// outlives the settings. The values are those of the file that belong to no backend.
    ///
    /// # Errors
    ///
    /// The file has a value of the wrong type.
    pub fn read(
        sources: &Sources,
        listen: Option<&str>,
        instance: &str,
        findings: &mut Findings,
    ) -> Result<(Self, Values), Message> {
        let listen = match listen {
            Some(listen) => Setting { value: listen.to_owned(), origin: Origin::Environment("--listen") },
            None => sources
                .variable(&["CRUDDUR_LISTEN"], |text| Some(text.to_owned()), "text", findings)
                .unwrap_or_else(|| Setting { value: DEFAULT_LISTEN.to_owned(), origin: Origin::Default }),
        };
        let (top, mut values) = TopLevel::read(sources, findings)?;
        let (service_name, resource) = resource::read(sources, top.service_name, instance, findings)?;
        values.extend(resource::values(sources)?);
        let propagators = propagators(top.propagators, findings);
        let sampler = sampler(top.traces_sampler, top.traces_sampler_arg, findings);
        let limits = limits(sources, findings);
        let recording = !boolean(sources, "OTEL_SDK_DISABLED", findings);
        let origins = origins(sources, findings);
        let (page, page_values) = PageTable::read(sources, findings)?;
        values.extend(page_values);
        let settings = Self {
            listen,
            service_name,
            resource,
            recording,
            propagators,
            sampler,
            limits,
            known_methods: known_methods(sources),
            origins,
            page: page.enabled,
            page_for_all: page.allow_remote,
        };
        settings.warn_of_an_open_page(findings);
        if settings.service_name.value.starts_with("unknown_service") {
            let Setting { value, origin } = &settings.service_name;
            let what = origin.says("service_name", value);
            findings.warn(
                Message::new(format!("{what}: traces of every program without a name end up under this one"))
                    .next("choose another"),
            );
        }
        note_variables_without_effect(sources, findings);
        Ok((settings, values))
    }

    /// Adds what every backend depends on to its values.
    pub fn add_to(&self, values: &mut Values) {
        let Setting { value, origin } = &self.service_name;
        values.add("service_name", Scalar::Text(value.clone()), value, origin.clone());
        values.add("[resource]", Scalar::Text(format!("{:?}", self.resource)), "", Origin::Default);
    }
}

impl Settings {
    /// Traces hold what clients sent.
    fn warn_of_an_open_page(&self, findings: &mut Findings) {
        let Self { listen, page, page_for_all, .. } = self;
        let host = listen.value.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
        let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if page.value && page_for_all.value && !is_local {
            let what = format!(
                "{}: [page] allow_remote = true while listening on {} ({}): whoever reaches this port can read all traces, with what \
                 clients sent",
                page_for_all.origin, listen.value, listen.origin
            );
            findings.warn(
                Message::new(what).next(
                    "set it to false, listen on 127.0.0.1, or, in a container, publish the port to 127.0.0.1 alone",
                ),
            );
        }
    }
}

/// Notes each variable that users of other SDKs set, and that does nothing here, with what to do instead.
fn note_variables_without_effect(sources: &Sources, findings: &mut Findings) {
    for (name, instead) in WITHOUT_EFFECT.iter().filter(|(name, _)| sources.env.get(name).is_some()) {
        findings.note(format!("{name} has no effect here: {instead}"));
    }
}

const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("OTEL_TRACES_EXPORTER", "backends are switched by `enabled` in telemetry.toml"),
    ("OTEL_LOGS_EXPORTER", "backends are switched by `enabled` in telemetry.toml"),
    ("OTEL_METRICS_EXPORTER", "there are no metrics"),
    ("OTEL_SEMCONV_STABILITY_OPT_IN", "the stable HTTP conventions are the only ones"),
    ("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", "exceptions are span events"),
];

fn propagators(setting: Setting<Option<String>>, findings: &mut Findings) -> Vec<Propagator> {
    let Some(names) = setting.value else { return Propagator::ALL.to_vec() };
    let mut propagators = Vec::new();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let propagator = match name.to_ascii_lowercase().as_str() {
            "none" => continue,
            "tracecontext" => Propagator::TraceContext,
            "baggage" => Propagator::Baggage,
            "xray" => Propagator::XRay,
            _ => {
                findings.warn(format!(
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

fn sampler(name: Setting<Option<String>>, ratio: Setting<Option<String>>, findings: &mut Findings) -> Sampler {
    let fallback = || Sampler::named("parentbased_always_on", 1.0).expect("a name of Sampler::NAMES");
    let (Some(wanted), origin) = (name.value, name.origin) else { return fallback() };
    let ratio = match &ratio.value {
        None => 1.0,
        Some(text) => match text.trim().parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
            _ => {
                findings.warn(format!("{}: {text:?} is no number from 0 to 1; using 1", ratio.origin));
                1.0
            }
        },
    };
    Sampler::named(&wanted.trim().to_ascii_lowercase(), ratio).unwrap_or_else(|| {
        findings.warn(format!(
            "{origin}: there is no sampler {wanted:?} here, only {}; using parentbased_always_on",
            Sampler::NAMES.join(", ")
        ));
        fallback()
    })
}

/// These have no key in the file: they are for those who bring OpenTelemetry's variables with them.
fn limits(sources: &Sources, findings: &mut Findings) -> Limits {
    let defaults = Limits::default();
    let mut count = |names: &[&'static str]| {
        let count = sources.variable(names, |text| text.parse().ok(), "a whole number", findings);
        count.map(|setting: Setting<usize>| setting.value)
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
fn origins(sources: &Sources, findings: &mut Findings) -> Vec<String> {
    const FRONT_END: &str = "FRONTEND_URL";
    let mut origins = Vec::new();
    let mut has_front_end = false;
    for name in [FRONT_END, "BACKEND_URL"] {
        let Some(url) = sources.env.get(name).map(str::trim) else { continue };
        if is_unexpanded(url) {
            let what = format!("{name}={url}: a variable in it was never replaced; it is passed over");
            findings.warn(Message::new(what).next("write the address out"));
            continue;
        }
        let Some(origin) = Url::parse(url).map(|url| url.origin()) else {
            findings
                .warn(format!("{name}={url} is no URL: write http://localhost:3000 or the like; it is passed over"));
            continue;
        };
        has_front_end |= name == FRONT_END;
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    if !has_front_end {
        origins.insert(0, "http://localhost:3000".to_owned());
    }
    if sources.env.get(FRONT_END).is_none() {
        findings.note("FRONTEND_URL is not set: pages of http://localhost:3000 may call the API".to_owned());
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
fn boolean(sources: &Sources, name: &'static str, findings: &mut Findings) -> bool {
    let parse = |text: &str| text.to_ascii_lowercase().parse().ok();
    sources.variable(&[name], parse, "true or false", findings).is_some_and(|setting| setting.value)
}

#[cfg(test)]
mod tests;
