//! Everything that the settings file and the environment say, read and found good.

use std::path::{Path, PathBuf};

use crate::backends::{self, Plan};
use crate::http::client::Client;
use crate::settings::{self, Content, Env, Finding, Reading, Settings, SettingsError, Sources, settings_path};
use crate::trace::id::IdSource;

/// What this process was started with. It stays the same, whatever becomes of the file.
pub(super) struct Given {
    /// `--config`
    config: Option<PathBuf>,
    /// `--listen`
    listen: Option<String>,
    /// `--notifications-url`
    notifications_url: Option<String>,
    env: Env,
    /// The id of this process.
    instance: String,
}

/// Settings that can be put to use.
pub(super) struct Loaded {
    /// What all share.
    pub(super) settings: Settings,
    /// Who has the notifications, if it is another instance. The file has no say in it.
    pub(super) notifications: Option<Client>,
    /// The backends.
    pub(super) plans: Vec<Plan>,
    /// What is remarkable about what belongs to no backend.
    pub(super) findings: Vec<Finding>,
    /// The values that belong to no backend.
    pub(super) readings: Vec<Reading>,
    /// The file, if there is one.
    pub(super) file: Option<PathBuf>,
    /// What was in it.
    pub(super) content: Content,
}

impl Given {
    pub(super) fn new(
        config: Option<&Path>,
        listen: Option<&str>,
        notifications_url: Option<&str>,
        env: Env,
        instance: String,
    ) -> Self {
        let (listen, notifications_url) = (listen.map(str::to_owned), notifications_url.map(str::to_owned));
        Self { config: config.map(Path::to_owned), listen, notifications_url, env, instance }
    }

    /// Where the settings are, or will be.
    pub(super) fn path(&self) -> PathBuf {
        settings_path(self.config.as_deref(), &self.env).0
    }
}

impl Loaded {
    /// Reads the file and the environment.
    pub(super) fn read(given: &Given) -> Result<Self, SettingsError> {
        Self::of(&Sources::read(given.config.as_deref(), given.env.clone())?, given)
    }

    /// The same, with this as the content of the file.
    pub(super) fn of_content(given: &Given, content: Vec<u8>) -> Result<Self, SettingsError> {
        Self::of(&Sources::of_content(&given.path(), content, given.env.clone())?, given)
    }

    fn of(sources: &Sources, given: &Given) -> Result<Self, SettingsError> {
        let settings = Settings::read(sources, given.listen.as_deref(), &given.instance)?;
        let notifications = settings::notifications(sources, given.notifications_url.as_deref(), &IdSource::new())?;
        let (findings, readings) = (sources.take_findings(), sources.take_readings());
        let plans = backends::plans(sources, &settings)?;
        sources.finish()?;
        let (file, content) = (sources.path().map(Path::to_owned), sources.content());
        Ok(Self { settings, notifications, plans, findings, readings, file, content })
    }
}
