//! `cruddur serve`: runs the server until SIGTERM or SIGINT, and applies changes of the settings
//! file. At the end it sends the queued items and prints the counts. When the process must renew
//! itself, it does the same and starts again.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::config::{CliArgs, Configuration};
use super::{Exit, reload, renew, summary};
use crate::activities::App;
use crate::client::Client;
use crate::delivery::Pipeline;
use crate::http::cors::Cors;
use crate::http::listener::Listener;
use crate::http::panics::install_panic_hook;
use crate::http::process::raise_descriptor_limit;
use crate::http::server::{End, Server, Telemetry};
use crate::http::signals::CaughtSignals;
use crate::logging;
use crate::page::Page;
use crate::settings::{Env, Finding, Setting, Settings, Severity};
use crate::text::Message;
use crate::trace::Tracer;
use crate::trace::id::IdSource;

/// Time limit for sending the queued items when the program ends.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for writing the last log lines. The reader of standard error may be slow.
const LOG_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs the server.
///
/// # Errors
///
/// The settings are invalid (status 2), or the server cannot listen (status 1).
pub fn serve(config: Option<&Path>, listen: Option<&str>, notifications_url: Option<&str>) -> Result<(), Exit> {
    let signals = CaughtSignals::catch().map_err(|error| Exit::failed(format!("no signal can be caught: {error}")))?;
    let stop = signals.stop_flag();
    let ids = IdSource::new();
    let args = CliArgs {
        config: config.map(Path::to_owned),
        listen: listen.map(str::to_owned),
        notifications_url: notifications_url.map(str::to_owned),
        env: Env::from_process(),
        instance: ids.uuid(),
    };
    let mut configuration = Configuration::read(&args).map_err(Exit::wrong)?;
    logging::init().map_err(|error| Exit::failed(format!("cannot start a thread for the log: {error}")))?;
    install_panic_hook();
    raise_descriptor_limit();
    let (hangups, requests) = channel();
    let listen = &configuration.settings.listen;
    let listener = Listener::open(&listen.value, signals, hangups, renew::renewals())
        .map_err(|error| cannot_listen(listen, &error))?;
    let notifications = configuration.notifications.take();
    let notifications =
        notifications.filter(|client| is_other_instance(client, &listener, &mut configuration.findings));

    let no_thread = |error| Exit::failed(format!("cannot start a thread for a backend: {error}"));
    let pipeline = Pipeline::start(std::mem::take(&mut configuration.plans)).map_err(no_thread)?;
    let names = pipeline.processors().iter().map(|processor| processor.plan.name).collect();
    logging::set_sinks(pipeline.log_sinks(), names);
    summary::print(listener.address(), &configuration, notifications.as_ref(), &pipeline);

    let waker = listener.waker();
    let Configuration { settings, findings, values, content, .. } = configuration;
    let on_wake = reload::follow(args, content, values, requests, move || waker.wake())
        .map_err(|error| Exit::failed(format!("cannot start a thread that watches the settings: {error}")))?;
    let telemetry = Telemetry {
        page: Page::new(&settings, findings),
        tracer: tracer(ids, &settings, &pipeline),
        known_methods: settings.known_methods,
        pipeline,
    };
    let app = App { notifications, ..App::default() };
    let mut server = Server::new(listener, app, Cors::new(settings.origins), telemetry, on_wake);
    let (ended, end) = server.run();
    let (mut pipeline, mut listener) = server.into_parts();
    let renewal = renew::plan(&end, listener.process());
    if let Some(cause) = &renewal {
        renew::announce(*cause, &end, listener.process());
    }
    let timeout = match renewal {
        Some(_) => listener.process().time_to_deliver(DELIVERY_TIMEOUT),
        None => DELIVERY_TIMEOUT,
    };
    pipeline.finish(ended + timeout);
    summary::print_counts(pipeline.processors());
    logging::flush(LOG_TIMEOUT);
    if renewal.is_some() {
        renew::wait(listener.process(), &stop);
        listener.leave_signals();
    }
    match (renewal, end) {
        // A stop signal may have arrived meanwhile.
        _ if stop.load(Ordering::Acquire) => Ok(()),
        (Some(cause), _) => Err(renew::renew(listener, cause)),
        (None, End::Failed(error)) => {
            let what = format!("{error}: cannot accept connections any more");
            Err(Exit::failed(Message::new(what).next("restart cruddur")))
        }
        (None, End::Stopped | End::Renew(_)) => Ok(()),
    }
}

fn tracer(ids: IdSource, settings: &Settings, pipeline: &Pipeline) -> Tracer {
    Tracer {
        ids,
        recording: settings.recording,
        propagators: settings.propagators.clone(),
        sampler: settings.sampler,
        backend_samplers: pipeline.samplers(),
        limits: settings.limits,
    }
}

/// Returns true if the client calls another instance. If this instance called itself, its single
/// request thread would wait for itself.
fn is_other_instance(client: &Client, listener: &Listener, findings: &mut Vec<Finding>) -> bool {
    let leads_here = client.leads_to(listener.address());
    if leads_here {
        let what = format!("request loop: {client} is this instance itself, so it uses its own notifications");
        let message = Message::new(what).next("give the address of another instance");
        findings.push(Finding { severity: Severity::Warning, message });
    }
    !leads_here
}

fn cannot_listen(listen: &Setting<String>, error: &io::Error) -> Exit {
    let (next, status) = match error.kind() {
        ErrorKind::AddrInUse => ("stop the program that listens there, or choose another address with --listen", 1),
        ErrorKind::PermissionDenied => ("choose another port with --listen; ports below 1024 need root", 1),
        ErrorKind::Unsupported => {
            ("pass one listening TCP socket, for instance ListenStream=4567 in the .socket unit", 2)
        }
        ErrorKind::InvalidInput => ("write host:port, for instance --listen 127.0.0.1:4567", 2),
        _ => ("choose an address of this machine, for instance --listen 127.0.0.1:4567", 1),
    };
    // The standard library has no error kind for a failed DNS lookup.
    let error = error.to_string().replace("failed to lookup address information", "DNS lookup failed");
    let what = Message::new(format!("{error}: cannot listen on {} ({})", listen.value, listen.origin));
    Exit { message: what.next(next), status }
}
