//! The commands: what `main` calls.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::activities::App;
use crate::backends::{self, BACKENDS};
use crate::delivery::{Lane, Pipeline, Totals};
use crate::http::client::Client;
use crate::http::cors::Cors;
use crate::http::listener::Listener;
use crate::http::server::Server;
use crate::logging::{self, say};
use crate::page::Page;
use crate::settings::{self, DEFAULT_FILE, Env, Settings, Sources};
use crate::trace::Tracer;
use crate::trace::exception::install_panic_hook;
use crate::trace::id::IdSource;

/// How long what waits may take to leave when the program ends.
const LAST_FLUSH: Duration = Duration::from_secs(5);
/// How long the last lines may take to be read.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Why the program ends other than well: a line for people, and a status for scripts.
#[derive(Debug)]
pub struct Exit {
    /// What to print.
    pub message: String,
    /// 2 for settings, 1 for everything else.
    pub status: u8,
}

/// `cruddur serve`: answers requests until SIGTERM or SIGINT, then sends what waits, and prints what became of it.
///
/// # Errors
///
/// The settings are wrong (status 2), or it cannot listen (status 1).
pub fn serve(config: Option<&Path>, listen: Option<&str>, notifications_url: Option<&str>) -> Result<(), Exit> {
    let wrong_settings = |error: settings::SettingsError| Exit { message: error.to_string(), status: 2 };
    let sources = Sources::read(config, Env::of_process()).map_err(wrong_settings)?;
    let ids = IdSource::new();
    let settings = Settings::read(&sources, listen, &ids).map_err(wrong_settings)?;
    let notifications = settings::notifications(&sources, notifications_url, &ids).map_err(wrong_settings)?;
    let plans = backends::plans(&sources, &settings).map_err(wrong_settings)?;
    sources.finish().map_err(wrong_settings)?;

    logging::init().map_err(|error| failed(format!("no thread for the log: {error}")))?;
    install_panic_hook();
    let listener = Listener::bind(&settings.listen.value).map_err(|error| cannot_listen(&settings, &error))?;
    let notifications = notifications.filter(|client| is_elsewhere(client, &listener, &sources));
    let backend_samplers =
        plans.iter().filter_map(|plan| Some((plan.name, Arc::clone(plan.sampler.as_ref()?)))).collect();
    let pipeline = Pipeline::start(plans).map_err(|error| failed(format!("no thread for a backend: {error}")))?;
    logging::send_lines_to(pipeline.line_takers(), pipeline.lanes().iter().map(|lane| lane.name).collect());
    print_summary(&listener, &sources, &settings, &pipeline, notifications.as_ref());

    let page = Page::new(pipeline, &settings);
    let tracer = Tracer {
        ids,
        recording: settings.recording,
        propagators: settings.propagators,
        sampler: settings.sampler,
        backend_samplers,
        limits: settings.limits,
    };
    let app = App { notifications, ..App::new() };
    let server = Server::new(listener, app, tracer, page, Cors::new(settings.origins), settings.known_methods);
    let (stopped, result) = server.run();
    let page = server.into_page();
    page.pipeline.finish(stopped + LAST_FLUSH);
    print_counts(page.pipeline.lanes());
    logging::flush(LAST_LINES);
    result.map_err(|error| failed(format!("no connection can be accepted any more: {error}; next: start again")))
}

/// `cruddur init`: writes the settings file, never over one that exists.
///
/// # Errors
///
/// It exists, or cannot be written.
pub fn init(config: Option<PathBuf>) -> Result<(), Exit> {
    let env = Env::of_process();
    let path = config.or_else(|| env.get("CRUDDUR_CONFIG").map(PathBuf::from));
    let path = path.unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let shown = path.display();
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(default_file().as_bytes()));
    match written {
        Ok(()) => {
            say(&format!("wrote {shown}; edit it, then start cruddur"));
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(failed(format!("{shown} exists and is left as it is; name another file with --config")))
        }
        Err(error) => Err(failed(format!("{shown}: {error}"))),
    }
}

/// The text of `telemetry.toml`: the program's part, then every backend's own.
#[must_use]
pub fn default_file() -> String {
    BACKENDS.iter().fold(settings::TOML.to_owned(), |text, plugin| text + plugin.toml)
}

/// One thread that asked itself would wait for itself.
fn is_elsewhere(client: &Client, listener: &Listener, sources: &Sources) -> bool {
    let leads_here = client.leads_to(listener.address());
    if leads_here {
        sources.notice(format!(
            "notifications were to come from {client}, which is this instance itself: they come from its own data; \
             next: give the address of another instance"
        ));
    }
    !leads_here
}

fn print_summary(
    listener: &Listener,
    sources: &Sources,
    settings: &Settings,
    pipeline: &Pipeline,
    notifications: Option<&Client>,
) {
    let address = listener.address();
    let file = sources.path().map_or_else(|| "no file".to_owned(), |path| path.display().to_string());
    let mut text = format!(
        "cruddur {} listening on http://{address} as {} (settings: {file})\n",
        env!("CARGO_PKG_VERSION"),
        settings.service_name.value
    );
    for lane in pipeline.lanes() {
        text.push_str(&format!("  {:<10} {:<8} {:<36} {}\n", lane.name, lane.state, lane.destination, lane.reason));
    }
    text.push_str(&format!(
        "  {:<10} {:<8} http://{address}/\n",
        "page",
        if settings.page.value { "on" } else { "off" }
    ));
    if let Some(client) = notifications {
        text.push_str(&format!("  notifications come from {client}\n"));
    }
    for notice in sources.notices() {
        text.push_str(&format!("  note: {notice}\n"));
    }
    say(text.trim_end());
}

fn print_counts(lanes: &[Lane]) {
    for lane in lanes.iter().filter(|lane| lane.state == "on") {
        let Totals { delivered, refused, dropped, sampled_out, .. } = lane.ledger.totals();
        let (name, unit, all) = (lane.name, lane.ledger.unit(), delivered + refused + dropped + sampled_out);
        say(&format!(
            "{name}: {delivered} delivered, {refused} refused, {dropped} dropped, {sampled_out} sampled out, of {all} {unit}"
        ));
    }
}

fn cannot_listen(settings: &Settings, error: &io::Error) -> Exit {
    let (next, status) = match error.kind() {
        ErrorKind::AddrInUse => ("another program listens there: stop it, or choose another with --listen", 1),
        ErrorKind::PermissionDenied => ("ports below 1024 are for root: choose another with --listen", 1),
        ErrorKind::InvalidInput => ("write host:port, for instance --listen 127.0.0.1:4567", 2),
        _ => ("choose an address of this machine, for instance --listen 127.0.0.1:4567", 1),
    };
    let listen = &settings.listen;
    let message = format!("cannot listen on {} ({}): {error}; next: {next}", listen.value, listen.origin);
    Exit { message, status }
}

fn failed(message: String) -> Exit {
    Exit { message, status: 1 }
}
