//! Reload of the settings file while the program runs. A thread watches the file, reads it and
//! makes the plans of the backends. The request loop applies the plans between two requests.
//!
//! ```text
//! thread "settings":  two equal polls ─▶ parse, plan ─▶ Configuration ─┐   (stops here if invalid)
//! request loop:       ... request, request, (woken) ◀──────────────────┘ apply, request, ...
//! ```

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread;

use super::config::{CliArgs, Configuration};
use crate::http::server::{OnWake, Telemetry};
use crate::logging;
use crate::settings::{FileContent, FileEvent, Finding, Severity, Values, Watch};
use crate::sync::lock;
use crate::text::Message;

/// Data from the thread for the loop: the newest configuration, and the error of a later file.
#[derive(Default)]
struct PendingUpdate {
    configuration: Option<Box<Configuration>>,
    refused: Option<Finding>,
}

/// State of the thread.
struct Follower {
    args: CliArgs,
    path: PathBuf,
    update: Arc<Mutex<PendingUpdate>>,
}

/// Starts the thread. `content` is the current content of the file, and `values` are those that
/// belong to no backend. Each message of `requests` asks for a reload. The thread calls `wake`, and
/// the loop then has to call the returned function.
///
/// # Errors
///
/// The system cannot start another thread.
pub(super) fn follow(
    args: CliArgs,
    content: FileContent,
    mut values: Values,
    requests: Receiver<()>,
    wake: impl Fn() + Send + 'static,
) -> io::Result<OnWake> {
    let update = Arc::<Mutex<PendingUpdate>>::default();
    let follower = Follower { path: args.path(), args, update: Arc::clone(&update) };
    let mut watch = Watch::new(follower.path.clone(), content);
    thread::Builder::new().name("settings".to_owned()).spawn(move || {
        while let Some(event) = watch.next(&requests) {
            follower.read(event);
            wake();
        }
    })?;
    Ok(Box::new(move |telemetry| {
        let PendingUpdate { configuration, refused } = std::mem::take(&mut *lock(&update));
        if let Some(configuration) = configuration {
            apply(*configuration, &mut values, telemetry);
        }
        if let Some(finding) = refused {
            telemetry.page.settings_refused(finding);
        }
    }))
}

impl Follower {
    /// Reads the new content. Passes a valid configuration to the loop, or logs the error.
    fn read(&self, event: FileEvent) {
        let path = self.path.display();
        let (content, is_requested) = match event {
            FileEvent::Changed(content) => (content, false),
            FileEvent::Requested(content) => (content, true),
        };
        let problem = match content {
            FileContent::Bytes(bytes) => match self.plan(bytes) {
                Ok(configuration) => {
                    *lock(&self.update) = PendingUpdate { configuration: Some(configuration), refused: None };
                    return;
                }
                Err(error) => error,
            },
            FileContent::Absent if is_requested => return log::info!(target: "settings", "no such file: {path}"),
            FileContent::Absent => {
                Message::new(format!("no such file: {path}")).next("restore it (`cruddur init` writes a new one)")
            }
            FileContent::Nothing => {
                Message::new(format!("empty file: {path}")).next("save it again (`cruddur init` writes a new one)")
            }
            FileContent::Unreadable(why) => Message::new(format!("{why}: {path}")).next("make it a readable file"),
        };
        let message = problem.and("the previous settings stay in force");
        log::error!(target: "settings", "{message}");
        lock(&self.update).refused = Some(Finding { severity: Severity::Error, message });
    }

    fn plan(&self, content: Vec<u8>) -> Result<Box<Configuration>, Message> {
        let path = self.path.display();
        catch_unwind(AssertUnwindSafe(|| Configuration::from_content(&self.args, content).map(Box::new)))
            .unwrap_or_else(|_| {
                Err(Message::new(format!("panic while reading {path} (see above)")).next("report this bug"))
            })
    }
}

/// Applies a configuration and logs the changes. `values` are the previous ones that belong to no
/// backend, and are replaced.
fn apply(new: Configuration, values: &mut Values, telemetry: &mut Telemetry) {
    let known: Vec<Message> = findings(telemetry).map(|finding| finding.message.clone()).collect();
    let Configuration { settings, plans, findings: of_all, values: now, file, .. } = new;
    let Telemetry { tracer, pipeline, page, .. } = telemetry;
    let (mut changes, result) = pipeline.switch(plans);
    let shared = now.changed_since(values);
    if !shared.is_empty() {
        changes.insert(0, format!("{} changed", shared.join(", ")));
    }
    *values = now;
    logging::update_max_level();
    tracer.backend_samplers = pipeline.samplers();
    page.settings_changed(&settings, of_all);
    tracer.propagators = settings.propagators;
    tracer.sampler = settings.sampler;

    let file = file.map_or_else(String::new, |path| path.display().to_string());
    let changes = if changes.is_empty() { "no value changed".to_owned() } else { changes.join("; ") };
    log::info!(target: "settings", "reloaded {file}: {changes}");
    if let Err(error) = result {
        let next = format!("stop other programs, and save {file} again");
        let message = Message::new(format!("cannot start a thread for a backend: {error}")).next(next);
        log::error!(target: "settings", "{message}");
    }
    for Finding { severity, message } in findings(telemetry).filter(|finding| !known.contains(&finding.message)) {
        let level = if *severity == Severity::Note { log::Level::Info } else { log::Level::Warn };
        log::log!(target: "settings", level, "{message}");
    }
}

fn findings(telemetry: &Telemetry) -> impl Iterator<Item = &Finding> {
    telemetry.page.findings().iter().chain(telemetry.pipeline.findings())
}
