//! `cruddur init`: writes telemetry.toml with all settings and their comments.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use super::Exit;
use crate::backends::BACKENDS;
use crate::logging::say;
use crate::settings::{self, Env, settings_path};
use crate::text::Message;

/// Writes the settings file. Never overwrites an existing file.
///
/// # Errors
///
/// The file exists, or cannot be written.
pub fn init(config: Option<PathBuf>) -> Result<(), Exit> {
    let (path, _) = settings_path(config.as_deref(), &Env::from_process());
    let path_text = path.display();
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(default_file().as_bytes()));
    match written {
        Ok(()) => {
            say(&format!("wrote {path_text}; edit it, then start cruddur"));
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let what = Message::new(format!("file exists: {path_text} (not changed)"));
            Err(Exit::failed(what.next("name another file with --config")))
        }
        Err(error) => {
            let what = Message::new(format!("{error}: {path_text}"));
            Err(Exit::failed(what.next("name a writable file with --config")))
        }
    }
}

/// Returns the text of telemetry.toml: the general settings, then a table for each backend.
pub fn default_file() -> String {
    BACKENDS.iter().fold(settings::toml(), |text, plugin| text + "\n" + &plugin.section.toml())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Findings, Section, Sources, Values};

    #[test]
    fn every_default_that_the_file_shows_is_the_one_in_force() {
        let file = Sources::from_text(&default_file(), Env::default()).unwrap();
        let nothing = Sources::from_text("", Env::default()).unwrap();
        let read = |section: &'static Section, sources: &Sources| -> Values {
            Values::read(section, sources, &mut Findings::default()).unwrap()
        };
        for section in settings::sections().into_iter().chain(BACKENDS.iter().map(|plugin| plugin.section)) {
            let (shown, in_force) = (read(section, &file), read(section, &nothing));
            assert_eq!(shown.changed_since(&in_force), Vec::<String>::new());
            for value in shown.iter().filter(|value| value.is_set()) {
                assert!(value.origin.to_string().starts_with("telemetry.toml:"), "{} is not shown", value.key);
            }
        }
    }
}
