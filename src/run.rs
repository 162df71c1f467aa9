//! The commands: what `main` calls.

mod check;
mod loaded;
mod summary;
mod switch;

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::activities::App;
use crate::backends::BACKENDS;
use crate::delivery::Pipeline;
use crate::http::client::Client;
use crate::http::cors::Cors;
use crate::http::listener::Listener;
use crate::http::server::Server;
use crate::logging::{self, say};
use crate::page::Page;
use crate::settings::{self, Env, Finding, Settings, Severity, settings_path};
use crate::trace::Tracer;
use crate::trace::exception::install_panic_hook;
use crate::trace::id::IdSource;

use loaded::{Given, Loaded};

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
/// Meanwhile it follows the settings file.
///
/// # Errors
///
/// The settings are wrong (status 2), or it cannot listen (status 1).
pub fn serve(config: Option<&Path>, listen: Option<&str>, notifications_url: Option<&str>) -> Result<(), Exit> {
    let ids = IdSource::new();
    let given = Given::new(config, listen, notifications_url, Env::of_process(), ids.uuid());
    let loaded = Loaded::read(&given).map_err(|error| Exit { message: error.to_string(), status: 2 })?;

    logging::init().map_err(|error| failed(format!("no thread for the log: {error}")))?;
    install_panic_hook();
    let (hangups, asked) = channel();
    let listener = Listener::bind(&loaded.settings.listen.value, hangups)
        .map_err(|error| cannot_listen(&loaded.settings, &error))?;
    let Loaded { settings, notifications, plans, mut findings, readings, file, content } = loaded;
    let notifications = notifications.filter(|client| is_elsewhere(client, &listener, &mut findings));
    let no_thread = |error| failed(format!("no thread for a backend: {error}"));
    let pipeline = Pipeline::start(plans).map_err(no_thread)?;
    logging::send_lines_to(pipeline.line_takers(), pipeline.lanes().iter().map(|lane| lane.name).collect());
    let address = listener.address();
    summary::print(address, file.as_deref(), &settings, notifications.as_ref(), &findings, &pipeline);

    let wake = listener.server();
    let on_wake = switch::follow(given, content, readings, asked, move || wake.unblock()).map_err(no_thread)?;
    let backend_samplers = pipeline.samplers();
    let page = Page::new(pipeline, &settings, findings);
    let tracer = Tracer {
        ids,
        recording: settings.recording,
        propagators: settings.propagators,
        sampler: settings.sampler,
        backend_samplers,
        limits: settings.limits,
    };
    let app = App { notifications, ..App::new() };
    let cors = Cors::new(settings.origins);
    let mut server = Server::new(listener, app, tracer, page, cors, settings.known_methods, on_wake);
    let (stopped, result) = server.run();
    let mut page = server.into_page();
    page.pipeline.finish(stopped + LAST_FLUSH);
    summary::print_counts(page.pipeline.lanes());
    logging::flush(LAST_LINES);
    result.map_err(|error| failed(format!("no connection can be accepted any more: {error}; next: start again")))
}

/// `cruddur check`: sends a trace and a line to everybody who is to hear about requests, and prints what came of it.
///
/// # Errors
///
/// The settings are wrong (status 2), or not all that is on has accepted what was sent (status 1, after the report).
pub fn check(config: Option<&Path>, json: bool) -> Result<(), Exit> {
    let given = Given::new(config, None, None, Env::of_process(), IdSource::new().uuid());
    let print =
        |text: &str| writeln!(io::stdout(), "{text}").map_err(|error| failed(format!("standard output: {error}")));
    let loaded = match Loaded::read(&given) {
        Ok(loaded) => loaded,
        Err(error) => {
            let message = error.to_string();
            if json {
                print(&serde_json::json!({ "ok": false, "error": message }).to_string())?;
            }
            return Err(Exit { message, status: 2 });
        }
    };
    let report = check::everybody(loaded);
    if json {
        print(&serde_json::to_string_pretty(&report).map_err(|error| failed(format!("no JSON: {error}")))?)?;
    } else {
        print(&report.to_string())?;
    }
    if report.ok { Ok(()) } else { Err(failed("not all that is on has accepted what was sent".to_owned())) }
}

/// `cruddur init`: writes the settings file, never over one that exists.
///
/// # Errors
///
/// It exists, or cannot be written.
pub fn init(config: Option<PathBuf>) -> Result<(), Exit> {
    let (path, _) = settings_path(config.as_deref(), &Env::of_process());
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
        Err(error) => Err(failed(format!("{shown}: {error}; name a file that can be written with --config"))),
    }
}

/// The text of `telemetry.toml`: the program's part, then every backend's own.
#[must_use]
pub fn default_file() -> String {
    BACKENDS.iter().fold(settings::TOML.to_owned(), |text, plugin| text + plugin.toml)
}

/// One thread that asked itself would wait for itself.
fn is_elsewhere(client: &Client, listener: &Listener, findings: &mut Vec<Finding>) -> bool {
    let leads_here = client.leads_to(listener.address());
    if leads_here {
        let text = format!(
            "notifications were to come from {client}, which is this instance itself: they come from its own data; \
             next: give the address of another instance"
        );
        findings.push(Finding { severity: Severity::Warning, text });
    }
    !leads_here
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
