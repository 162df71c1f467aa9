//! `cruddur init`: writes telemetry.toml with every setting and a comment on each.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use super::Exit;
use crate::backends::BACKENDS;
use crate::logging::say;
use crate::settings::{self, Env, settings_path};

/// Writes the settings file, never over one that exists.
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
            Err(Exit::failed(format!("{path_text} exists and is left as it is; name another file with --config")))
        }
        Err(error) => Err(Exit::failed(format!("{path_text}: {error}; name a file that can be written with --config"))),
    }
}

/// The text of telemetry.toml: the program's part, then every backend's own.
#[must_use]
pub fn default_file() -> String {
    BACKENDS.iter().fold(settings::toml(), |text, plugin| text + "\n" + &plugin.section.toml())
}
