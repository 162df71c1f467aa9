//! The settings file is followed while the program runs. A thread looks at it, reads it and makes all that it asks for;
//! the request loop only has to put it in place, between two requests.
//!
//! ```text
//! thread "settings":  look, twice the same ─▶ parse, check ─▶ Loaded ─┐            a bad file goes no further than this
//! request loop:       ... request, request, (woken) ◀─────────────────┘ switch, request, request ...
//! ```

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread;

use super::loaded::{Given, Loaded};
use crate::http::server::OnWake;
use crate::logging;
use crate::page::Page;
use crate::settings::{Content, Finding, Occasion, Reading, Severity, Watch};
use crate::sync::lock;
use crate::trace::Tracer;

/// What the thread has for the loop. The newest settings count, and what was said about the file after them.
#[derive(Default)]
struct News {
    loaded: Option<Box<Loaded>>,
    refused: Option<Finding>,
}

/// The thread's side.
struct Follower {
    given: Given,
    path: PathBuf,
    news: Arc<Mutex<News>>,
}

/// Starts to follow the file in which `content` was. `asked` brings wishes to read it again, `wake` wakes the loop, which
/// then calls what is returned here.
///
/// # Errors
///
/// The system has no thread left.
pub(super) fn follow(
    given: Given,
    content: Content,
    readings: Vec<Reading>,
    asked: Receiver<()>,
    wake: impl Fn() + Send + 'static,
) -> io::Result<OnWake> {
    let news = Arc::<Mutex<News>>::default();
    let follower = Follower { path: given.path(), given, news: Arc::clone(&news) };
    let mut watch = Watch::new(follower.path.clone(), content);
    thread::Builder::new().name("settings".to_owned()).spawn(move || {
        while let Some(occasion) = watch.next(&asked) {
            follower.look(occasion);
            wake();
        }
    })?;
    let mut readings = readings;
    Ok(Box::new(move |tracer, page| {
        let News { loaded, refused } = std::mem::take(&mut *lock(&news));
        if let Some(loaded) = loaded {
            switch(*loaded, &mut readings, tracer, page);
        }
        if let Some(finding) = refused {
            page.settings_refused(finding);
        }
    }))
}

impl Follower {
    /// Reads what is there now, and hands it over if it is good; says what is wrong otherwise.
    fn look(&self, occasion: Occasion) {
        let (content, asked) = match occasion {
            Occasion::Changed(content) => (content, false),
            Occasion::Asked(content) => (content, true),
        };
        let path = self.path.display();
        let problem = match content {
            Content::Bytes(bytes) => {
                let read = catch_unwind(AssertUnwindSafe(|| Loaded::of_content(&self.given, bytes)));
                match read {
                    Ok(Ok(loaded)) => {
                        *lock(&self.news) = News { loaded: Some(Box::new(loaded)), refused: None };
                        return;
                    }
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => format!("{path}: a bug: the panic above came from reading it; please report it"),
                }
            }
            Content::Nothing => format!("{path} is empty; next: save it whole (`cruddur init` writes a fresh one)"),
            Content::Absent if asked => return log::info!(target: "settings", "{path} is not there"),
            Content::Absent => format!("{path} is gone; next: put it back (`cruddur init` writes a fresh one)"),
            Content::Unreadable(why) => format!("{path}: {why}; next: put a file there that can be read"),
        };
        let text = format!("{problem}; the settings of before stay in force");
        log::error!(target: "settings", "{text}");
        lock(&self.news).refused = Some(Finding { severity: Severity::Error, text });
    }
}

/// Puts everything in its place. `readings` are the values that belong to no backend, as they were.
fn switch(loaded: Loaded, readings: &mut Vec<Reading>, tracer: &mut Tracer, page: &mut Page) {
    let known: Vec<String> = findings(page).map(|finding| finding.text.clone()).collect();
    let Loaded { settings, plans, findings: of_all, readings: now, file, .. } = loaded;
    let (mut changes, result) = page.pipeline.switch(plans);
    let shared = Reading::changed(readings, &now);
    if !shared.is_empty() {
        changes.insert(0, format!("{} changed", shared.join(", ")));
    }
    *readings = now;
    logging::levels_have_changed();
    tracer.backend_samplers = page.pipeline.samplers();
    page.settings_changed(&settings, of_all);
    tracer.propagators = settings.propagators;
    tracer.sampler = settings.sampler;

    let file = file.map_or_else(String::new, |path| path.display().to_string());
    let changes = if changes.is_empty() { "no value is another one".to_owned() } else { changes.join("; ") };
    log::info!(target: "settings", "{file} was read again: {changes}");
    if let Err(error) = result {
        log::error!(target: "settings", "no thread for a backend: {error}; next: end other programs, and save {file} again");
    }
    for Finding { severity, text } in findings(page).filter(|finding| !known.contains(&finding.text)) {
        let level = if *severity == Severity::Note { log::Level::Info } else { log::Level::Warn };
        log::log!(target: "settings", level, "{text}");
    }
}

fn findings(page: &Page) -> impl Iterator<Item = &Finding> {
    page.findings().iter().chain(page.pipeline.lanes().iter().flat_map(|lane| &lane.findings))
}
