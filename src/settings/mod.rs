//! Settings of the program, read from `telemetry.toml` and the environment.
//!
//! - An environment variable overrides the file, and the file overrides the default. Only `enabled`
//!   has no variable, so that the file alone shows which backends run.
//! - A mistake in the file stops the program at start-up. A server that runs keeps its settings.
//! - An invalid variable is reported, and the next source is used.
//! - Every other doubtful setting that can be detected offline becomes a [`Finding`].

mod batch;
mod file;
mod finding;
mod page_hosts;
mod resource;
pub mod section;
mod sources;
mod spool;
mod value_faults;
mod values;
mod watch;

use std::time::Duration;

use self::section::Shown::Plain;
use self::section::{flag, names, optional, section, text, whole};
use self::spool::SpoolSettings;
use crate::text::url::is_loopback;
use crate::text::{Message, Url};
use crate::trace::context::Propagator;
use crate::trace::sampler::Sampler;
use crate::trace::span::{Attribute, Limits};

pub use batch::{BatchLimits, warn_of_seconds};
pub use finding::{Finding, Findings, Severity, described_address, described_secret};
pub(crate) use resource::sample_resource;
pub use section::Section;
pub use sources::{DEFAULT_FILE, Env, Origin, Setting, Sources, settings_path};
pub use spool::SpoolLimits;
pub use value_faults::{Meaning, check as check_value, is_placeholder, is_placeholder_for_secret, is_unexpanded};
pub use values::{ResolvedValue, Scalar, Values};
pub use watch::{FileContent, FileEvent, Watch};

/// Settings of the whole program. Each backend reads its own table.
pub struct Settings {
    /// Address to listen on, `host:port`.
    pub listen: Setting<String>,
    /// Service name of our traces in Honeycomb and X-Ray.
    pub service_name: Setting<String>,
    /// Attributes of this process, sent with every batch. `service.name` is the first.
    pub resource: Vec<Attribute>,
    /// False with `OTEL_SDK_DISABLED=true`.
    pub recording: bool,
    /// Formats of the trace headers, for requests that arrive and for those that we send.
    pub propagators: Vec<Propagator>,
    /// Sampler of the backends that have no sampler of their own.
    pub sampler: Sampler,
    /// Limits on attributes and events of a span.
    pub limits: Limits,
    /// HTTP methods that may appear in span names. Any other method is recorded as `_OTHER`.
    /// Set by `OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS`.
    pub known_methods: Vec<String>,
    /// Origins of the web pages that may call the API (CORS).
    pub origins: Vec<String>,
    /// True if `/telemetry/...` is served.
    pub page: Setting<bool>,
    /// True if `/telemetry/...` is served to other machines too.
    pub page_for_all: Setting<bool>,
    /// Host names, in lower case, under which other machines may see the page.
    pub page_hosts: Vec<String>,
    spool: SpoolSettings,
}

/// Default of [`Settings::listen`].
const DEFAULT_LISTEN: &str = "127.0.0.1:4567";

/// Returns the address of the server: the value of `--listen`, else of `CRUDDUR_LISTEN`, else the
/// default.
pub fn listen_address(listen: Option<&str>, env: &Env) -> Setting<String> {
    let setting = |value: &str, origin| Setting { value: value.to_owned(), origin };
    match (listen, env.get("CRUDDUR_LISTEN")) {
        (Some(listen), _) => setting(listen, Origin::Environment("--listen")),
        (None, Some(listen)) => setting(listen.trim(), Origin::Environment("CRUDDUR_LISTEN")),
        (None, None) => setting(DEFAULT_LISTEN, Origin::Default),
    }
}

section! {
    /// Telemetry settings of Cruddur: which backends receive its traces and log lines.
    /// `cruddur init` writes this file. `cruddur check` tests the settings.
    /// A running server applies the file when you save it.
    /// Environment variables override the values here, except `enabled`.
    /// Keep secrets out of this file: set API keys in the environment.
    struct TopLevel("") {
        /// Service name of the traces in Honeycomb and X-Ray. Give each program its own name.
        service_name: String = text("backend-flask", Plain).from(&["OTEL_SERVICE_NAME"]),
        /// Sampler of the console and honeycomb backends: always_on, always_off, traceidratio, or
        /// one of these with parentbased_ in front.
        traces_sampler: Option<String> = optional("parentbased_always_on", Plain).from(&["OTEL_TRACES_SAMPLER"]),
        /// Share of the traces that a traceidratio sampler keeps, from 0 to 1. Lower it to send
        /// fewer traces.
        traces_sampler_arg: Option<String> = optional("1.0", Plain).from(&["OTEL_TRACES_SAMPLER_ARG"]),
        /// Trace headers that are read from requests and added to outgoing requests. If a request
        /// has several, the first valid one in this order is used.
        propagators: Option<String> = optional("tracecontext,baggage,xray", Plain).from(&["OTEL_PROPAGATORS"]),
        /// Directory in which honeycomb, xray_otlp and cloudwatch store what they cannot send, until
        /// it can be sent, also after a restart. Unset: it is retried in memory, then dropped.
        spool_dir: Option<String> = optional("spool", Plain).from(&["CRUDDUR_SPOOL_DIR"]),
        /// Size of the stored data of each backend, in MiB. The oldest is removed first, and counted.
        spool_max_mib: u64 = whole(64, 1..=65_536),
    }
}

section! {
    /// Debug page at GET /, and its JSON at GET /telemetry/...: requests, traces, and sent bytes.
    struct PageTable("page") {
        enabled: bool = flag(true),
        /// Access to the page from other machines. Needed in a container, where every browser is a
        /// remote client.
        allow_remote: bool = flag(false).from(&["CRUDDUR_PAGE_ALLOW_REMOTE"]),
        /// Host names under which other machines may open the page, for example ["backend"].
        /// Always allowed: localhost, IP addresses, and the hosts of BACKEND_URL and FRONTEND_URL.
        /// Other names are refused, because a foreign web page could use one to read the traces.
        hosts: Vec<String> = names().from(&["CRUDDUR_PAGE_HOSTS"]),
    }
}

/// Returns the first part of telemetry.toml: everything but the tables of the backends.
pub fn toml() -> String {
    [TopLevel::SECTION.toml(), resource::TOML.to_owned(), PageTable::SECTION.toml()].join("\n")
}

/// Returns the sections of [`toml()`], without `[resource]`, which accepts any key.
pub fn sections() -> [&'static Section; 2] {
    [&TopLevel::SECTION, &PageTable::SECTION]
}

/// Returns the keys and tables of [`toml()`].
pub fn known_tables() -> Vec<&'static str> {
    let keys = TopLevel::SECTION.keys.iter().map(|key| key.name);
    keys.chain([resource::TABLE, PageTable::SECTION.name]).collect()
}

impl Settings {
    /// Reads everything but the tables of the backends. `listen` is the value of `--listen`.
    /// `instance` is the id of this process, which stays the same when the settings change. The
    /// returned [`Values`] are those that belong to no backend.
    ///
    /// # Errors
    ///
    /// A value in the file has the wrong type.
    pub fn read(
        sources: &Sources,
        listen: Option<&str>,
        instance: &str,
        findings: &mut Findings,
    ) -> Result<(Self, Values), Message> {
        sources.env.faults().iter().for_each(|fault| findings.warn(fault.clone()));
        let listen = listen_address(listen, &sources.env);
        let (top, mut values) = TopLevel::read(sources, findings)?;
        let (service_name, resource, resource_values) = resource::read(sources, top.service_name, instance, findings)?;
        values.set("service_name", Scalar::Text(service_name.value.clone()), &service_name.value, &service_name.origin);
        values.extend(resource_values);
        let spool = SpoolSettings::new(top.spool_dir, top.spool_max_mib, sources);
        let propagators = propagators(top.propagators, findings);
        let sampler = sampler(top.traces_sampler, top.traces_sampler_arg, findings);
        let limits = limits(sources, findings);
        let recording = !boolean(sources, "OTEL_SDK_DISABLED", findings);
        let origins = origins(sources, findings);
        let (page, page_values) = PageTable::read(sources, findings)?;
        values.extend(page_values);
        let page_hosts = page_hosts::page_hosts(&page.hosts, &origins, findings);
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
            page_hosts,
            spool,
        };
        settings.warn_of_open_page(findings);
        if settings.service_name.value.starts_with("unknown_service") {
            let Setting { value, origin } = &settings.service_name;
            let what = origin.says("service_name", value);
            findings.warn(
                Message::new(format!("{what}: every program without a name has this name, so their traces are mixed"))
                    .next("choose another name"),
            );
        }
        note_variables_without_effect(sources, findings);
        Ok((settings, values))
    }

    /// Adds the settings that every backend depends on to the values of one backend.
    pub fn add_to(&self, values: &mut Values) {
        let Setting { value, origin } = &self.service_name;
        values.add("service_name", Scalar::Text(value.clone()), value, origin.clone());
        values.add("[resource]", Scalar::Text(format!("{:?}", self.resource)), "", Origin::Default);
    }

    /// Returns the place and the limits of the payloads that a backend stores on disk, or `None` if
    /// it stores none. `max_age` is the limit of its destination. Adds the settings to `values`.
    pub fn spool(&self, max_age: Duration, values: &mut Values) -> Option<SpoolLimits> {
        self.spool.limits(max_age, values)
    }
}

impl Settings {
    /// Warns if other machines can read the page, because traces contain data from clients.
    fn warn_of_open_page(&self, findings: &mut Findings) {
        let Self { listen, page, page_for_all, .. } = self;
        let host = listen.value.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
        if page.value && page_for_all.value && !is_loopback(host) {
            let what = format!(
                "{}: [page] allow_remote = true while listening on {} ({}): every client of this port can read all traces, with \
                 the data of other clients",
                page_for_all.origin, listen.value, listen.origin
            );
            findings.warn(
                Message::new(what).next(
                    "set it to false, listen on 127.0.0.1, or, in a container, publish the port to 127.0.0.1 only",
                ),
            );
        }
    }
}

/// Notes each variable of other SDKs that is set but has no effect here, with an alternative.
fn note_variables_without_effect(sources: &Sources, findings: &mut Findings) {
    for (name, instead) in WITHOUT_EFFECT.iter().filter(|(name, _)| sources.env.get(name).is_some()) {
        findings.note(format!("{name} has no effect here: {instead}"));
    }
}

const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("OTEL_TRACES_EXPORTER", "`enabled` in telemetry.toml switches backends on and off"),
    ("OTEL_LOGS_EXPORTER", "`enabled` in telemetry.toml switches backends on and off"),
    ("OTEL_METRICS_EXPORTER", "cruddur has no metrics"),
    ("OTEL_SEMCONV_STABILITY_OPT_IN", "cruddur always uses the stable HTTP conventions"),
    ("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", "cruddur records exceptions as span events"),
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
                    "{}: the propagator {name:?} is not supported, only tracecontext, baggage and xray",
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
                findings.warn(format!("{}: {text:?} is not a number from 0 to 1; using 1", ratio.origin));
                1.0
            }
        },
    };
    Sampler::named(&wanted.trim().to_ascii_lowercase(), ratio).unwrap_or_else(|| {
        findings.warn(format!(
            "{origin}: unknown sampler {wanted:?}; known are {}; using parentbased_always_on",
            Sampler::NAMES.join(", ")
        ));
        fallback()
    })
}

/// Reads OpenTelemetry's variables for span limits. There are no keys in the file for them.
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

/// Returns the known HTTP methods. The variable replaces the whole list and is case-sensitive.
fn known_methods(sources: &Sources) -> Vec<String> {
    let methods = sources.env.get("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS");
    let methods = methods.unwrap_or("CONNECT,DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT,QUERY,TRACE");
    methods.split(',').map(|method| method.trim().to_owned()).filter(|method| !method.is_empty()).collect()
}

/// Returns the allowed origins. A browser sends `Origin` without a path or a trailing slash, so
/// both are removed from the variables.
fn origins(sources: &Sources, findings: &mut Findings) -> Vec<String> {
    const FRONT_END: &str = "FRONTEND_URL";
    let mut origins = Vec::new();
    let mut has_front_end = false;
    for name in [FRONT_END, "BACKEND_URL"] {
        let Some(url) = sources.env.get(name).map(str::trim) else { continue };
        if is_unexpanded(url) {
            let what = format!("{name}={url} is ignored, because a variable in it was not replaced");
            findings.warn(Message::new(what).next("write the address in full"));
            continue;
        }
        let Some(origin) = Url::parse(url).map(|url| url.origin()).or_else(|| origin_of_app(url)) else {
            let what = format!("invalid URL: {name}={url} is ignored");
            findings.warn(Message::new(what).next("write it like http://localhost:3000"));
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

/// Returns the origin of the pages of an app, which has a scheme of its own: `capacitor://localhost`.
fn origin_of_app(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split('/').next().filter(|host| !host.is_empty())?;
    (!scheme.to_ascii_lowercase().starts_with("http")).then(|| format!("{scheme}://{host}"))
}

/// Returns true only for `true`, in upper or lower case. Any other value but `false` is reported.
fn boolean(sources: &Sources, name: &'static str, findings: &mut Findings) -> bool {
    let parse = |text: &str| text.to_ascii_lowercase().parse().ok();
    sources.variable(&[name], parse, "true or false", findings).is_some_and(|setting| setting.value)
}

#[cfg(test)]
mod tests;
