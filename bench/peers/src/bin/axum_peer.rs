//! axum on one thread, traced in one of three ways.
//!
//!     axum_peer PORT off
//!     axum_peer PORT sdk|tracing|fastrace proto|json URL-OF-V1-TRACES
//!
//! - `sdk`: the OpenTelemetry SDK by hand;
//! - `tracing`: the `tracing` crate with tracing-opentelemetry;
//! - `fastrace`: fastrace with fastrace-opentelemetry.
//!
//! All export OTLP over HTTP in batches, with the defaults of their crates. Each request has a SERVER
//! span and a child.

use std::borrow::Cow;
use std::io::Write as _;
use std::sync::OnceLock;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use chrono::Utc;
use fastrace::future::FutureExt as _;
use fastrace::local::LocalSpan;
use fastrace::prelude::SpanContext;
use opentelemetry::trace::{FutureExt as _, Span as _, SpanKind, TraceContextExt, Tracer, TracerProvider as _};
use opentelemetry::{Context, InstrumentationScope, KeyValue, global};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use peers::{HOME, home, rfc3339};
use tracing::Instrument;
use tracing::field::Empty;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;

#[derive(Clone, Copy, PartialEq)]
enum Telemetry {
    Off,
    Sdk,
    Tracing,
    Fastrace,
}

const SERVER_SPAN: &str = "GET /api/activities/home";
const CHILD_SPAN: &str = "home-activities-mock-data";

static TELEMETRY: OnceLock<Telemetry> = OnceLock::new();

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let port: u16 = arguments[0].parse().expect("the first argument is a port");
    let telemetry = match arguments[1].as_str() {
        "off" => Telemetry::Off,
        "sdk" => Telemetry::Sdk,
        "tracing" => Telemetry::Tracing,
        "fastrace" => Telemetry::Fastrace,
        other => panic!("unknown telemetry: {other}"),
    };
    let _ = TELEMETRY.set(telemetry);
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Off)
        .filter_module("axum_peer", log::LevelFilter::Info)
        .format(|line, record| writeln!(line, "{}", record.args()))
        .init();
    let provider = (telemetry != Telemetry::Off).then(|| start(telemetry, &arguments[2], &arguments[3])).flatten();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(serve(port));
    fastrace::flush();
    if let Some(provider) = provider {
        provider.shutdown().expect("the last batch is exported");
    }
}

/// Starts the exporter. Returns the SDK's provider, if the SDK is used.
fn start(telemetry: Telemetry, protocol: &str, url: &str) -> Option<SdkTracerProvider> {
    let protocol = if protocol == "json" { Protocol::HttpJson } else { Protocol::HttpBinary };
    let exporter = SpanExporter::builder().with_http().with_protocol(protocol).with_endpoint(url).build();
    let exporter = exporter.expect("a valid URL");
    let resource = Resource::builder().with_service_name("backend-flask").build();
    if telemetry == Telemetry::Fastrace {
        let scope = InstrumentationScope::builder("axum_peer").build();
        let reporter = fastrace_opentelemetry::OpenTelemetryReporter::new(exporter, Cow::Owned(resource), scope);
        fastrace::set_reporter(reporter, fastrace::collector::Config::default());
        return None;
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    if telemetry == Telemetry::Tracing {
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("axum_peer"));
        let registry = tracing_subscriber::registry().with(LevelFilter::INFO).with(layer);
        tracing::subscriber::set_global_default(registry).expect("the only subscriber");
    }
    global::set_tracer_provider(provider.clone());
    Some(provider)
}

async fn serve(port: u16) {
    let app = Router::new().route(HOME, get(answer)).layer(middleware::from_fn(trace));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("a handler");
    let stopped = async move {
        stop.recv().await;
    };
    axum::serve(listener, app).with_graceful_shutdown(stopped).await.expect("the server ends well");
}

/// The SERVER span, and the access line.
async fn trace(request: Request, next: Next) -> Response {
    let method = request.method().as_str().to_owned();
    let path = request.uri().path().to_owned();
    let response = match TELEMETRY.get() {
        Some(Telemetry::Sdk) => {
            let attributes = [
                KeyValue::new("http.request.method", method.clone()),
                KeyValue::new("url.path", path.clone()),
                KeyValue::new("url.scheme", "http"),
                KeyValue::new("http.route", HOME),
                KeyValue::new("server.address", "localhost"),
            ];
            let tracer = global::tracer("http.server");
            let span = tracer.span_builder(SERVER_SPAN).with_kind(SpanKind::Server).with_attributes(attributes);
            let context = Context::current_with_span(span.start(&tracer));
            let response = next.run(request).with_context(context.clone()).await;
            let status = i64::from(response.status().as_u16());
            context.span().set_attribute(KeyValue::new("http.response.status_code", status));
            context.span().end();
            response
        }
        Some(Telemetry::Tracing) => {
            let span = tracing::info_span!(
                SERVER_SPAN,
                otel.kind = "server",
                http.request.method = %method,
                url.path = %path,
                url.scheme = "http",
                http.route = HOME,
                server.address = "localhost",
                http.response.status_code = Empty
            );
            let response = next.run(request).instrument(span.clone()).await;
            span.record("http.response.status_code", response.status().as_u16());
            response
        }
        Some(Telemetry::Fastrace) => {
            let span = fastrace::Span::root(SERVER_SPAN, SpanContext::random()).with_properties(|| {
                [
                    ("span.kind", Cow::Borrowed("server")),
                    ("http.request.method", Cow::Owned(method.clone())),
                    ("url.path", Cow::Owned(path.clone())),
                    ("url.scheme", Cow::Borrowed("http")),
                    ("http.route", Cow::Borrowed(HOME)),
                    ("server.address", Cow::Borrowed("localhost")),
                ]
            });
            async {
                let response = next.run(request).await;
                LocalSpan::add_property(|| ("http.response.status_code", response.status().as_str().to_owned()));
                response
            }
            .in_span(span)
            .await
        }
        _ => next.run(request).await,
    };
    let status = response.status().as_u16();
    log::info!("{} 127.0.0.1 {method} http {path} {status}", Utc::now().format("[%Y-%b-%d %H:%M]"));
    response
}

/// The route with its span.
async fn answer() -> Response {
    let now = Utc::now();
    match TELEMETRY.get() {
        Some(Telemetry::Sdk) => {
            let mut span = global::tracer("home.activities").start(CHILD_SPAN);
            span.set_attribute(KeyValue::new("app.now", rfc3339(now)));
            let results = home(now);
            span.set_attribute(KeyValue::new("app.result_length", results.len() as i64));
            json(&results)
        }
        Some(Telemetry::Tracing) => {
            let span = tracing::info_span!(CHILD_SPAN, app.now = %rfc3339(now), app.result_length = Empty);
            let _entered = span.enter();
            let results = home(now);
            span.record("app.result_length", results.len() as u64);
            json(&results)
        }
        Some(Telemetry::Fastrace) => {
            let span = LocalSpan::enter_with_local_parent(CHILD_SPAN).with_property(|| ("app.now", rfc3339(now)));
            let results = home(now);
            let _span = span.with_property(|| ("app.result_length", results.len().to_string()));
            json(&results)
        }
        _ => json(&home(now)),
    }
}

fn json(activities: &[peers::Activity]) -> Response {
    let body = serde_json::to_vec(activities).expect("the data have string keys");
    ([("content-type", "application/json")], body).into_response()
}
